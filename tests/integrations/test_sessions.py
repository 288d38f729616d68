"""Django's sessions, in the cache alone and in the cache before the database."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.contrib.sessions.backends.cache import SessionStore
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client
from django.urls import path

from django_momento_http.exceptions import ServiceFailed
from django_momento_http.testing import RunningServer

CACHE = "django.contrib.sessions.backends.cache"
CACHED_DB = "django.contrib.sessions.backends.cached_db"

pytestmark = pytest.mark.django_db


def who(request: HttpRequest) -> HttpResponse:
    """Answer who is logged in."""
    return HttpResponse(str(request.user))


def count(request: HttpRequest) -> HttpResponse:
    """Answer how often this session was here."""
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(str(request.session["visits"]))


async def acount(request: HttpRequest) -> HttpResponse:
    """Do the same as count(), in a task."""
    visits = await request.session.aget("visits", 0) + 1
    await request.session.aset("visits", visits)
    return HttpResponse(str(visits))


urlpatterns = [path("who", who), path("count", count), path("acount", acount)]


@pytest.fixture(autouse=True)
def _with_sessions(settings: Any) -> None:
    settings.MIDDLEWARE = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ]
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def visitor() -> Client:
    """A client of a user who has an account."""
    User.objects.create_user("ada", password="secret")
    return Client()


def seen(client: Client) -> str:
    """Return as whom the site sees a client."""
    return client.get("/who").content.decode()


def session_keys(server: RunningServer) -> list[bytes]:
    """Return the keys of the sessions that the server holds."""
    return [key for _, key in server.items if b"contrib.sessions" in key]


@pytest.mark.parametrize("engine", [CACHE, CACHED_DB])
def test_a_login_lasts_until_the_logout(
    momento_server: RunningServer, settings: Any, visitor: Client, engine: str
) -> None:
    """A login holds over requests in the cache; a logout takes it out of there."""
    settings.SESSION_ENGINE = engine
    assert seen(visitor) == "AnonymousUser"
    assert visitor.login(username="ada", password="secret")
    assert [seen(visitor), seen(visitor)] == ["ada", "ada"]
    cookie = visitor.cookies["sessionid"].value
    assert len(session_keys(momento_server)) == 1
    visitor.logout()
    assert session_keys(momento_server) == []
    visitor.cookies["sessionid"] = cookie
    assert seen(visitor) == "AnonymousUser"


@pytest.mark.parametrize(("engine", "expected"), [(CACHE, "AnonymousUser"), (CACHED_DB, "ada")])
def test_a_session_that_the_cache_lost(
    momento_server: RunningServer, settings: Any, visitor: Client, engine: str, expected: str
) -> None:
    """An evicted session is over with ``cache`` and read from the database with ``cached_db``."""
    settings.SESSION_ENGINE = engine
    visitor.force_login(User.objects.get())
    for cache, key in momento_server.items:
        momento_server.discard(cache, key)
    assert seen(visitor) == expected


@pytest.mark.parametrize(("engine", "expected"), [(CACHE, "AnonymousUser"), (CACHED_DB, "ada")])
def test_an_outage(
    momento_server: RunningServer,
    start_outage: Callable[[RunningServer], None],
    settings: Any,
    visitor: Client,
    engine: str,
    expected: str,
) -> None:
    """While the service is down every page answers; with ``cached_db`` users stay logged in."""
    settings.SESSION_ENGINE = engine
    visitor.force_login(User.objects.get())
    start_outage(momento_server)
    assert seen(visitor) == expected


@pytest.mark.parametrize(
    ("engine", "mode", "expected"),
    [
        (CACHE, "miss", "AnonymousUser"),
        (CACHE, "raise", "AnonymousUser"),
        (CACHED_DB, "miss", "ada"),
    ],
)
def test_who_came_during_an_outage(
    configured: Callable[..., RunningServer],
    start_outage: Callable[[RunningServer], None],
    settings: Any,
    visitor: Client,
    engine: str,
    mode: str,
    expected: str,
) -> None:
    """In the cache alone, Django takes trouble for the end of a session and drops the cookie."""
    server = configured(ON_ERROR=mode)
    settings.SESSION_ENGINE = engine
    visitor.force_login(User.objects.get())
    start_outage(server)
    assert seen(visitor) == expected
    server.clear_faults()
    assert seen(visitor) == expected


def test_the_database_is_no_help_with_raise(
    configured: Callable[..., RunningServer],
    start_outage: Callable[[RunningServer], None],
    settings: Any,
    visitor: Client,
) -> None:
    """With ON_ERROR "raise", ``cached_db`` fails when it puts what it read into the cache."""
    server = configured(ON_ERROR="raise")
    settings.SESSION_ENGINE = CACHED_DB
    visitor.force_login(User.objects.get())
    start_outage(server)
    with pytest.raises(ServiceFailed):
        seen(visitor)


def test_new_sessions_during_an_outage(
    configured: Callable[..., RunningServer],
    start_outage: Callable[[RunningServer], None],
) -> None:
    """With ON_ERROR "raise" a session that cannot be kept in the cache alone fails at once."""
    server = configured(ON_ERROR="raise")
    start_outage(server)
    with pytest.raises(ServiceFailed):
        SessionStore().create()
    tried = [request for request in server.requests if b"contrib.sessions" in request.key]
    assert len(tried) <= 2


def test_logins_during_an_outage(
    momento_server: RunningServer,
    start_outage: Callable[[RunningServer], None],
    settings: Any,
    visitor: Client,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With ``cached_db`` a login works while the service is down, and the log says that it is."""
    settings.SESSION_ENGINE = CACHED_DB
    start_outage(momento_server)
    with caplog.at_level(logging.WARNING):
        assert visitor.login(username="ada", password="secret")
        assert seen(visitor) == "ada"
    assert "django_momento_http" in {record.name for record in caplog.records}


@pytest.mark.parametrize("engine", [CACHE, CACHED_DB])
@pytest.mark.parametrize("page", ["/count", "/acount"])
def test_data_in_a_session(
    momento_server: RunningServer, settings: Any, engine: str, page: str
) -> None:
    """What a view keeps in a session is there in the next request, from a thread or a task."""
    settings.SESSION_ENGINE = engine
    client = Client()
    assert [client.get(page).content for _ in range(3)] == [b"1", b"2", b"3"]
    assert len(session_keys(momento_server)) == 1


@pytest.mark.parametrize("engine", [CACHE, CACHED_DB])
def test_sessions_under_asgi(momento_server: RunningServer, settings: Any, engine: str) -> None:
    """The same holds when the request itself is handled in a task."""
    settings.SESSION_ENGINE = engine
    client = AsyncClient()
    visit = async_to_sync(client.get)
    assert [visit("/acount").content for _ in range(2)] == [b"1", b"2"]
    assert len(session_keys(momento_server)) == 1


def test_cached_sessions_end_with_max_ttl(
    configured: Callable[..., RunningServer], settings: Any, visitor: Client
) -> None:
    """In the cache alone a session ends at MAX_TTL, whatever SESSION_COOKIE_AGE says."""
    server = configured(MAX_TTL=3600)
    settings.SESSION_ENGINE, settings.SESSION_COOKIE_AGE = CACHE, 7200
    visitor.force_login(User.objects.get())
    server.advance(3599)
    assert seen(visitor) == "ada"
    server.advance(2)
    assert seen(visitor) == "AnonymousUser"
