"""Django's cached pages: ``cache_page`` for one view, the middleware for a site."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import cache
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client
from django.urls import path
from django.views.decorators.cache import cache_page, never_cache
from django.views.decorators.vary import vary_on_headers

from django_momento_http.testing import RunningServer

_numbers: Iterator[int] = itertools.count()


def page(request: HttpRequest) -> HttpResponse:
    """Answer with a number that is never given twice."""
    return HttpResponse(str(next(_numbers)))


async def apage(request: HttpRequest) -> HttpResponse:
    """Do the same in a task."""
    return page(request)


urlpatterns = [
    path("plain", page),
    path("never", never_cache(page)),
    path("page", cache_page(60)(page)),
    path("apage", cache_page(60)(apage)),
    path("vary", cache_page(60)(vary_on_headers("X-Tenant")(page))),
]


@pytest.fixture
def whole_site(settings: Any) -> None:
    """The site whose pages are all cached by middleware."""
    settings.MIDDLEWARE = [
        "django.middleware.cache.UpdateCacheMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.cache.FetchFromCacheMiddleware",
    ]


def numbers(url: str, *headers: dict[str, str]) -> list[bytes]:
    """Return what the page answers to one request with each of these headers."""
    return [Client().get(url, headers=each).content for each in headers or ({}, {})]


@pytest.mark.parametrize("url", ["/page", "/apage"])
def test_the_second_request_is_a_hit(momento_server: RunningServer, url: str) -> None:
    """A page is computed once, and answered from the cache until its time is over."""
    first, second = numbers(url)
    assert first == second
    momento_server.advance(61)
    assert numbers(url)[0] != first


def test_a_hit_under_asgi(momento_server: RunningServer) -> None:
    """The same holds when the request itself is handled in a task."""
    get = async_to_sync(AsyncClient().get)
    assert get("/apage").content == get("/apage").content


def test_each_kind_of_visitor_has_a_page(momento_server: RunningServer) -> None:
    """What ``Vary`` names tells pages apart."""
    one, other, again = numbers(
        "/vary", {"X-Tenant": "one"}, {"X-Tenant": "other"}, {"X-Tenant": "one"}
    )
    assert one == again != other


def test_queries_have_pages_of_their_own(momento_server: RunningServer) -> None:
    """Another query string is another page, however long it is."""
    long = "/page?q=" + "x" * 2000
    assert len({*numbers("/page?q=1"), *numbers("/page?q=2"), *numbers(long)}) == 3


@pytest.mark.usefixtures("whole_site")
@pytest.mark.parametrize(
    ("url", "is_cached"), [("/plain", True), ("/plain?q=1", True), ("/never", False)]
)
def test_the_middleware(momento_server: RunningServer, url: str, is_cached: bool) -> None:
    """The middleware caches every page but those that ask not to be."""
    first, second = numbers(url)
    assert (first == second) is is_cached
    assert bool(momento_server.items) is is_cached


@pytest.mark.usefixtures("whole_site")
def test_posts_are_never_answered_from_the_cache(momento_server: RunningServer) -> None:
    """A POST is computed each time and leaves the cached page as it is."""
    client = Client()
    before = client.get("/plain").content
    assert client.post("/plain").content != client.post("/plain").content
    assert client.get("/plain").content == before


@pytest.mark.usefixtures("whole_site")
def test_a_clear_empties_the_site(momento_server: RunningServer) -> None:
    """After ``cache.clear()`` every page is computed anew."""
    before = numbers("/plain")
    cache.clear()
    assert numbers("/plain")[0] not in before


@pytest.mark.usefixtures("whole_site")
def test_an_outage(
    momento_server: RunningServer, start_outage: Callable[[RunningServer], None]
) -> None:
    """While the service is down every page is computed and answered, and cached again later."""
    first, second = numbers("/plain")
    start_outage(momento_server)
    assert len({first, *numbers("/plain")}) == 3
    momento_server.clear_faults()
    assert first == second
