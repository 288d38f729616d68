"""The service goes away under load and comes back on the same port, empty."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from django_momento_http.server import Config, Server, Service
from tests.support.sizes import FULL

from .harness import Program, started

LONGEST_WAIT = 30.0
THREADS, CONNECTIONS = 6, 24
# By which the threads for async calls, of which there are none here, would be woken.
PAIR = 2
# Up to this long nothing but what was under way may be lost; it was 0.2 s that opened the breaker.
SHORT, TAKEN_FOR_SHORT = 0.2, 0.35
LONG = 10.0 if FULL else 1.0
# The breaker's longest pause, and a probe's deadline.
RECOVERY = 11.0


class Restarting:
    """A server in a thread, which can be away for a while."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._server = self._call(self._started(0))
        self.endpoint = self._server.endpoint

    def restart(self, seconds: float) -> float:
        """Be away for so long; return how long it was."""
        return self._call(self._away(seconds))

    def stop(self) -> None:
        """End."""
        self._call(self._server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _started(self, port: int) -> Server:
        server = Server(Service(Config()))
        await server.start(port=port)
        return server

    async def _away(self, seconds: float) -> float:
        began = time.monotonic()
        await self._server.stop()
        await asyncio.sleep(seconds)
        self._server = await self._started(int(self.endpoint.rpartition(":")[2]))
        return time.monotonic() - began

    def _call(self, coroutine: Any) -> Any:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result(LONGEST_WAIT)


@pytest.fixture
def service() -> Iterator[Restarting]:
    """A server that can be restarted."""
    running = Restarting()
    yield running
    running.stop()


@contextmanager
def load(service: Restarting) -> Iterator[tuple[Program, dict[str, Any]]]:
    """Six threads under way, each of which has found what it wrote."""
    options = {
        "ENDPOINT": service.endpoint,
        "TOKEN": "any",
        "REQUEST_TIMEOUT": 1.0,
        "MAX_CONNECTIONS": CONNECTIONS,
    }
    entry = {
        "BACKEND": "django_momento_http.cache.MomentoCache",
        "LOCATION": "default-cache",
        "OPTIONS": options,
    }
    with started("load", THREADS, entry=entry) as program:
        empty = program.hear()
        said = heard_once(program, lambda said: min(said["hits"]) > 20)
        yield program, {**said, "empty": empty["size"]}


def heard_once(program: Program, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return what the program says once it says what is waited for."""
    end = time.monotonic() + LONGEST_WAIT
    while True:
        program.tell("report")
        said = program.hear()
        assert said["alive"] == THREADS
        assert said["wrong"] == []
        if is_so(said):
            return said
        assert time.monotonic() < end, said
        time.sleep(0.02)


def all_are_back(program: Program, before: dict[str, Any]) -> dict[str, Any]:
    """Return what is said once every thread finds what it wrote, again and again."""
    wanted = [hits + 20 for hits in before["hits"]]
    return heard_once(
        program, lambda said: all(a >= b for a, b in zip(said["hits"], wanted, strict=True))
    )


def test_a_short_restart_opens_no_breaker(service: Restarting) -> None:
    """Refusals that last for a moment do not stop six threads from asking."""
    with load(service) as (program, before):
        for _ in range(5):
            away = service.restart(SHORT)
            after = all_are_back(program, before)
            if away < TAKEN_FOR_SHORT:
                break
            before = after
        else:
            pytest.skip("the machine is too busy for a short restart")
        assert after["openings"] == before["openings"] == 0


def test_after_a_long_restart_all_is_back_in_seconds(service: Restarting) -> None:
    """Once the service is back, every thread is served again before the longest pause is over."""
    with load(service) as (program, first):
        service.restart(LONG)
        back = time.monotonic()
        program.tell("report")
        before = program.hear()
        after = all_are_back(program, before)
        assert time.monotonic() - back < RECOVERY
        grown = {name: size - first["empty"][name] for name, size in after["size"].items()}
        assert grown["descriptors"] <= CONNECTIONS + PAIR
        assert grown["threads"] <= THREADS
