"""Callers of get_or_set at once: threads with a backend each, or tasks of one loop each."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

# Whoever waits longer in these tests hangs.
LONGEST_WAIT = 20.0
KEY = "k"
WIRE = b":1:k"
CACHE = "default-cache"


class Default:
    """A default that says when it began, and ends when it is told; ``calls`` counts, by thread."""

    def __init__(self, value: Any = "made", error: BaseException | None = None) -> None:
        self.value = value
        self.error = error
        self.began = threading.Event()
        self.may_end = threading.Event()
        self.calls: list[int] = []

    def __call__(self) -> Any:
        self.calls.append(threading.get_ident())
        self.began.set()
        assert self.may_end.wait(LONGEST_WAIT)
        if self.error is not None:
            raise self.error
        return self.value

    @property
    def count(self) -> int:
        """How often it was called."""
        return len(self.calls)


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that must come."""
    end = time.monotonic() + LONGEST_WAIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait, in a task, for something that must come."""
    end = time.monotonic() + LONGEST_WAIT
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.001)


class Crowd:
    """Callers of get_or_set; each has a backend and, where it is a task, a loop of its own."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._pool = ThreadPoolExecutor(64)
        self.first = make()
        self._joined = 0

    def call(self, default: Any, *, is_async: bool = False, key: str = KEY) -> "Future[Any]":
        """Let one more call get_or_set."""
        cache = self._make()
        if is_async:
            return self._pool.submit(asyncio.run, cache.aget_or_set(key, default))
        return self._pool.submit(cache.get_or_set, key, default)

    def lead(self, default: Default, *, is_async: bool = False) -> "Future[Any]":
        """Let one call get_or_set, and return when its default is under way."""
        leader = self.call(default, is_async=is_async)
        assert default.began.wait(LONGEST_WAIT)
        return leader

    def join(self, count: int, default: Any, *, is_async: bool = False) -> "list[Future[Any]]":
        """Let so many more call, and return when they wait."""
        callers = [self.call(default, is_async=is_async) for _ in range(count)]
        self._joined += count
        until(lambda: self.waiting() >= self._joined)
        return callers

    def waiting(self) -> int:
        """How many wait."""
        flights = self.first._store.making.flights.under_way
        return sum(flight.waiting for each in list(flights.values()) for flight in each)

    def close(self) -> None:
        """Let go of the threads."""
        self._pool.shutdown()


def results(callers: "list[Future[Any]]") -> list[Any]:
    """Return what all of them were given."""
    return [caller.result(LONGEST_WAIT) for caller in callers]
