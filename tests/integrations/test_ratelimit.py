"""django-ratelimit, which counts with ``add`` and ``incr``."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core.checks import run_checks
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path

from django_momento_http.exceptions import ServiceFailed
from django_momento_http.testing import RunningServer

NEEDS = "needs django-ratelimit: pip install 'django-momento-http[integrations]'"
pytest.importorskip("django_ratelimit", reason=NEEDS)

from django_ratelimit.decorators import ratelimit  # noqa: E402


@ratelimit(key="ip", rate="3/d")
def limited(request: HttpRequest) -> HttpResponse:
    """Answer three times a day to each address."""
    return HttpResponse("here you are")


urlpatterns = [path("limited", limited)]


def statuses(count: int, **headers: str) -> list[int]:
    """Return the status of so many requests."""
    return [Client().get("/limited", **headers).status_code for _ in range(count)]


@pytest.mark.parametrize(
    ("silenced", "expected"),
    [([], {"django_ratelimit.W001"}), (["django_ratelimit.W001"], set())],
)
def test_its_system_check(
    momento_server: RunningServer, settings: Any, silenced: list[str], expected: set[str]
) -> None:
    """It warns of every backend that it does not know, which one setting silences; no error."""
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django_ratelimit"]
    settings.SILENCED_SYSTEM_CHECKS = silenced
    found = [message for message in run_checks() if not message.is_silenced()]
    assert {message.id for message in found if "django_ratelimit." in message.id} == expected


def test_the_limit_holds(momento_server: RunningServer) -> None:
    """What is over the limit is refused; other addresses are not concerned."""
    assert statuses(4) == [200, 200, 200, 403]
    assert statuses(1, REMOTE_ADDR="127.0.0.2") == [200]


@pytest.mark.parametrize(("fails_open", "expected"), [(False, 403), (True, 200)])
def test_an_outage_with_miss(
    momento_server: RunningServer,
    start_outage: Callable[[RunningServer], None],
    settings: Any,
    fails_open: bool,
    expected: int,
) -> None:
    """While the service is down RATELIMIT_FAIL_OPEN decides, which refuses unless it is set."""
    settings.RATELIMIT_FAIL_OPEN = fails_open
    start_outage(momento_server)
    assert statuses(5) == [expected] * 5


def test_an_outage_with_raise(
    configured: Callable[..., RunningServer], start_outage: Callable[[RunningServer], None]
) -> None:
    """With ON_ERROR "raise" the view fails with an error that says why."""
    start_outage(configured(ON_ERROR="raise"))
    with pytest.raises(ServiceFailed, match="default-cache"):
        statuses(1)
