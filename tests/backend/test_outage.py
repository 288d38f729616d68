"""What a site sees of an outage: a few seconds lost once, then answers at once, then all is back.

Times are measured here, because they are the promise. Where nothing is waited for, what counts is
the processor's time: a busy machine adds to the wall's.
"""

import asyncio
import logging
import socket
import statistics
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib.sessions.backends.cache import SessionStore
from django.test import override_settings

from django_momento_http._store.store import forget_endpoint
from django_momento_http.cache import MomentoCache
from django_momento_http.server import Config, Server, Service
from django_momento_http.testing import Fault, RunningServer, running_server
from tests.support.scripted import scripted, silent

PAGE = 20  # cache operations
# What a page pays once: the breaker's budget of three deadlines of a second, and a little.
ONCE = 3.1
AT_ONCE = 0.005


def entry(endpoint: str, **options: Any) -> dict[str, Any]:
    """Return a CACHES entry with the defaults that a site has."""
    return {
        "BACKEND": "django_momento_http.cache.MomentoCache",
        "LOCATION": "default-cache",
        "OPTIONS": {"ENDPOINT": endpoint, "TOKEN": "a-token", **options},
    }


def backend(endpoint: str, **options: Any) -> MomentoCache:
    """Return a backend with the defaults that a site has."""
    return MomentoCache("default-cache", entry(endpoint, **options))


@contextmanager
def black_hole() -> Iterator[str]:
    """A service that accepts and says nothing."""
    with scripted(silent) as server:
        yield server.endpoint
        forget_endpoint(server.endpoint)


@contextmanager
def refused() -> Iterator[str]:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{sock.getsockname()[1]}"
        yield endpoint
        forget_endpoint(endpoint)


@contextmanager
def failing(**fault: Any) -> Iterator[str]:
    """A service whose every answer is that fault."""
    with running_server(token="a-token") as server:
        server.inject(Fault(times=None, **fault))
        yield server.endpoint
        forget_endpoint(server.endpoint)


OUTAGES: dict[str, Callable[[], Any]] = {
    "black hole": black_hole,
    "refused": refused,
    "500": lambda: failing(status=500),
    "401": lambda: failing(status=401),
    "429": lambda: failing(status=429),
}


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """A function that returns what the package has logged."""
    caplog.set_level(logging.DEBUG, logger="django_momento_http")
    name = "django_momento_http"
    return lambda: [record.getMessage() for record in caplog.records if record.name == name]


@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES)
def test_a_session_is_refused_in_time(
    outage: Callable[[], Any], lines: Callable[[], list[str]]
) -> None:
    """Django asks for a new session 10,000 times over; that ends within seconds and a few lines."""
    with outage() as endpoint, override_settings(CACHES={"default": entry(endpoint)}):
        began, began_work = time.monotonic(), time.thread_time()
        with pytest.raises(RuntimeError, match="Unable to create a new session key"):
            SessionStore().create()
        elapsed, worked = time.monotonic() - began, time.thread_time() - began_work
    # Half of it is Django's own, for 10,000 random keys.
    assert worked < 4.0
    # A line for each kind of trouble in ten seconds, and two for each probe.
    assert 1 <= len(lines()) <= 12 + 3 * elapsed


@pytest.mark.parametrize("outage", ["refused", "500", "401"])
def test_get_or_set_computes_once(outage: str) -> None:
    """While the service is down, get_or_set returns the default, computed once each time."""
    with OUTAGES[outage]() as endpoint:
        cache = backend(endpoint)
        for _ in range(20):
            calls: list[int] = []
            assert cache.get_or_set("a", lambda: calls.append(1) or "made") == "made"  # noqa: B023
            assert calls == [1]


def test_a_black_hole_costs_a_page_once(lines: Callable[[], list[str]]) -> None:
    """A page of 20 reads pays three seconds once; the pages after it pay next to nothing."""
    with black_hole() as endpoint:
        cache = backend(endpoint)
        pages, work = [], []
        for _ in range(51):
            began, began_work = time.perf_counter(), time.thread_time()
            assert [cache.get(f"part-{number}") for number in range(PAGE)] == [None] * PAGE
            pages.append(time.perf_counter() - began)
            work.append(time.thread_time() - began_work)
    assert pages[0] <= ONCE
    assert statistics.median(pages[1:]) < AT_ONCE
    assert statistics.quantiles(work[1:], n=20)[-1] < AT_ONCE
    assert len(lines()) <= 8


def test_recovery_is_seen(server: RunningServer) -> None:
    """Once the service is back, the first operation after the breaker's pause finds it so."""
    cache = backend(server.endpoint, TOKEN=server.token)
    service = cache._shared._client._endpoint
    ahead = 0.0
    service.breaker._clock = lambda: time.monotonic() + ahead
    cache.set("a", 1)
    server.inject(Fault(status=503, times=None))
    for _ in range(30):
        cache.get("a")
        ahead += 0.05  # failures that cost no time must last
    assert cache.stats()["breaker"] == "open"
    server.clear_faults()
    server.forget_requests()
    assert cache.get("a") is None
    assert server.requests == []
    ahead += 2.0
    assert cache.get("a") == 1
    assert cache.stats()["breaker"] == "closed"
    forget_endpoint(server.endpoint)


class Restarted:
    """A server that can go away and come back on its port."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._server = Server(Service(Config(token="a-token")))
        self.start()
        self.endpoint = self._server.endpoint

    def start(self, port: int = 0) -> None:
        self._do(self._server.start(port=port))

    def stop(self) -> None:
        self._do(self._server.stop())

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        forget_endpoint(self.endpoint)

    def _do(self, step: Coroutine[Any, Any, Any]) -> None:
        asyncio.run_coroutine_threadsafe(step, self._loop).result(10)


@pytest.fixture
def restarted() -> Iterator[Restarted]:
    server = Restarted()
    yield server
    server.close()


@pytest.mark.parametrize(("seconds", "is_noticed"), [(0.2, False), (0.4, False), (10.0, True)])
def test_a_restart_of_the_service(restarted: Restarted, seconds: float, is_noticed: bool) -> None:
    """Six threads read on meanwhile; when it was short, the first reads after it have their values.

    The breaker's clock is moved, so that each thread is refused forty times in the seconds.
    """
    cache = backend(restarted.endpoint, CLEAR_MAX_AGE=None)
    cache.set("a", 1)
    breaker = cache._shared._client._endpoint.breaker
    began, ahead = time.monotonic(), 0.0
    breaker._clock = lambda: began + ahead
    restarted.stop()
    with ThreadPoolExecutor(6) as threads:
        for _ in range(40):
            assert list(threads.map(lambda _: cache.get("a"), range(6))) == [None] * 6
            ahead += seconds / 40
        restarted.start(int(restarted.endpoint.rpartition(":")[2]))
        assert cache.stats()["breaker"] == ("open" if is_noticed else "closed")
        if is_noticed:
            ahead += 20
            assert cache.get("a") == 1
        assert list(threads.map(lambda _: cache.get("a"), range(6))) == [1] * 6
    assert cache.stats()["breaker"] == "closed"


def values_a_second(cache: MomentoCache, threads: int, seconds: float) -> float:
    """Let so many threads read; return what they got a second, the first and last left out."""
    began = time.monotonic()
    got: list[float] = []

    def read() -> None:
        while time.monotonic() < began + seconds + 0.2:
            if cache.get("a") == 1:
                got.append(time.monotonic() - began)

    workers = [threading.Thread(target=read) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(0.2 <= moment < seconds for moment in got) / (seconds - 0.2)


def test_a_shortage_of_connections_is_not_the_service_s_fault(server: RunningServer) -> None:
    """Forty threads get from two connections what two threads get, and no breaker opens."""
    cache = backend(server.endpoint, TOKEN=server.token, MAX_CONNECTIONS=2, CLEAR_MAX_AGE=None)
    cache.set("a", 1)
    server.inject(Fault(delay=0.05, times=None))
    shares = []
    for _ in range(3):  # a loaded machine may be late once
        possible = values_a_second(cache, 2, 1.0)
        shares.append(values_a_second(cache, 40, 2.0) / possible)
        assert cache.stats()["breaker_openings"] == 0
        if shares[-1] >= 0.95:
            break
    assert max(shares) >= 0.95
    assert cache.stats()["errors"].keys() <= {"pool_timeout"}  # type: ignore[attr-defined]


def test_a_burst_of_tasks_leaves_the_breaker_closed(server: RunningServer) -> None:
    """Three thousand reads at once are more than a second can hold; the next read is served."""
    cache = backend(server.endpoint, TOKEN=server.token, CLEAR_MAX_AGE=None)
    cache.set("a", 1)
    server.inject(Fault(delay=0.1, times=None))

    async def burst() -> list[Any]:
        return await asyncio.gather(*[cache.aget("a") for _ in range(3000)])

    found = asyncio.run(burst())
    assert found.count(1) > 64
    assert found.count(None) > 0
    assert cache.stats()["breaker_openings"] == 0
    assert cache.get("a") == 1


def test_a_dying_service_is_not_hammered(server: RunningServer) -> None:
    """While the service is down it sees a probe now and then, whatever the site does."""
    cache = backend(server.endpoint, TOKEN=server.token)
    service = cache._shared._client._endpoint
    ahead = 0.0
    service.breaker._clock = lambda: time.monotonic() + ahead
    server.inject(Fault(status=503, times=None))
    for _ in range(30):
        cache.get("a")
        ahead += 0.05  # failures that cost no time must last
    server.forget_requests()
    for _ in range(60):
        for number in range(50):
            cache.get(str(number))
        ahead += 1.0
    # A minute: pauses of 1, 2, 4, 8, 9, 9 ... seconds; a probe may be tried twice.
    assert 5 <= len(server.requests) <= 30
    forget_endpoint(server.endpoint)


def test_an_expired_token_is_asked_for_once() -> None:
    """Sixteen threads meet an expired token; one new one serves them all, and nobody sees it."""
    asked: list[float] = []
    together = threading.Barrier(16)

    def token() -> str:
        asked.append(time.monotonic())
        return "expired" if len(asked) == 1 else "renewed"

    with running_server(token="renewed") as server:
        cache = backend(server.endpoint, TOKEN=token, ON_ERROR="raise")
        # The first call asks for the token that will be refused.
        cache._shared._client._token.current(1.0)
        server.put("default-cache", b"unrelated", b"x")

        def read(number: int) -> Any:
            together.wait(10)
            return cache.get(f"key-{number}", "default")

        with ThreadPoolExecutor(16) as threads:
            assert list(threads.map(read, range(16))) == ["default"] * 16
        statuses = {request.status for request in server.requests}
        forget_endpoint(server.endpoint)
    assert len(asked) == 2
    assert statuses == {401, 404}
