"""django-axes' cache handler, which counts failed logins with ``add``, ``incr`` and ``touch``."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth import authenticate, login
from django.contrib.auth.models import User
from django.core.checks import run_checks
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path

from django_momento_http.testing import RunningServer

NEEDS = "needs django-axes: pip install 'django-momento-http[integrations]'"
# Importing it writes its defaults into the settings that are in force.
pytest.importorskip("axes.conf", reason=NEEDS)
# Once installed it listens to every login of this process, and other tests log users in, too.
settings.AXES_ENABLED = False

pytestmark = pytest.mark.django_db

DAY = 24 * 60 * 60


def sign_in(request: HttpRequest) -> HttpResponse:
    """Log a user in, or say no."""
    user = authenticate(request, username="ada", password=request.POST["password"])
    if user is None:
        return HttpResponse(status=401)
    login(request, user)
    return HttpResponse("welcome")


urlpatterns = [path("sign-in", sign_in)]


@pytest.fixture(autouse=True)
def _with_axes(momento_server: RunningServer, settings: Any) -> None:
    settings.AXES_ENABLED = True
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "axes"]
    settings.AUTHENTICATION_BACKENDS = [
        "axes.backends.AxesStandaloneBackend",
        "django.contrib.auth.backends.ModelBackend",
    ]
    settings.MIDDLEWARE = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "axes.middleware.AxesMiddleware",
    ]
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.AXES_HANDLER = "axes.handlers.cache.AxesCacheHandler"
    settings.AXES_FAILURE_LIMIT = 3
    settings.AXES_COOLOFF_TIME = timedelta(hours=1)
    User.objects.create_user("ada", password="right")
    from axes.handlers.proxy import AxesProxyHandler

    # It keeps one backend for the life of the process, for all threads.
    AxesProxyHandler.get_implementation(force=True)


def statuses(*passwords: str) -> list[int]:
    """Return the status of a login with each of the passwords."""
    return [Client().post("/sign-in", {"password": password}).status_code for password in passwords]


def test_its_system_checks(momento_server: RunningServer) -> None:
    """None of its checks has anything against the backend."""
    assert [message for message in run_checks() if message.id.startswith("axes.")] == []


def test_failed_logins_lock_out(momento_server: RunningServer) -> None:
    """After the limit even the right password is refused, until the cool-off time is over."""
    assert statuses("wrong", "wrong", "wrong", "right") == [401, 401, 429, 429]
    momento_server.advance(3601)
    assert statuses("right") == [200]


@pytest.mark.parametrize(("later", "expected"), [(DAY - 2, 429), (DAY + 1, 200)])
def test_a_lockout_without_cool_off_ends_with_max_ttl(
    momento_server: RunningServer, settings: Any, later: float, expected: int
) -> None:
    """Without AXES_COOLOFF_TIME a lockout lasts as long as the cache keeps anything: MAX_TTL."""
    settings.AXES_COOLOFF_TIME = None
    assert statuses("wrong", "wrong", "wrong")[-1] == 429
    momento_server.advance(later)
    assert statuses("right") == [expected]


def test_an_outage(
    momento_server: RunningServer, start_outage: Callable[[RunningServer], None]
) -> None:
    """While the service is down nobody is locked out, and a wrong password is an error of incr."""
    assert statuses("wrong", "wrong", "wrong", "right")[-1] == 429
    start_outage(momento_server)
    assert statuses("right") == [200]
    with pytest.raises(ValueError, match="no such key"):
        statuses("wrong")
