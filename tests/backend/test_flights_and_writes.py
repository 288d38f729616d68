"""get_or_set, early refresh and writes at once, in threads and tasks: nothing older remains."""

import asyncio
import gc
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from django_momento_http.testing import RunningServer
from tests.support.crowd import CACHE, KEY, LONGEST_WAIT, WIRE
from tests.support.interrupting import at_random
from tests.support.sizes import sized

Make = Callable[..., Any]
CALLERS = 6
WRITES: dict[str, Callable[[Any, int], object]] = {
    "delete": lambda cache, _: cache.delete(KEY),
    "delete_many": lambda cache, _: cache.delete_many([KEY]),
    "set": lambda cache, number: cache.set(KEY, number, 60),
    "clear": lambda cache, _: cache.clear(),
}


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads for all who call."""
    with ThreadPoolExecutor(CALLERS + 1) as threads:
        yield threads


class Source:
    """What is cached: a number that grows; reading it takes a moment."""

    def __init__(self, chance: random.Random) -> None:
        self.number = 0
        self._chance = chance

    def read(self) -> int:
        """Return the number as it was when reading began."""
        number = self.number
        time.sleep(self._chance.uniform(0, 0.002))
        return number


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("eager", [0, 1000], ids=["on a miss", "early"])
def test_what_remains_is_never_older_than_the_last_write(
    make_cache: Make, server: RunningServer, pool: ThreadPoolExecutor, write: str, eager: int
) -> None:
    """Whatever overlaps, once all have ended the newest value is there, or none."""
    chance = random.Random(f"{write} {eager}")
    options = {"EARLY_REFRESH": eager, "CLEAR_MAX_AGE": 60}
    caches = [make_cache(**options) for _ in range(CALLERS + 1)]
    caches[0]._store.making.draw = lambda: 1e-300
    source = Source(chance)

    def call(cache: Any, pause: float, is_async: bool) -> int:
        time.sleep(pause)
        if is_async:
            return int(asyncio.run(cache.aget_or_set(KEY, source.read, 60)))
        return int(cache.get_or_set(KEY, source.read, 60))

    for _ in range(sized(25, 2000)):
        server.discard(CACHE, WIRE)
        if eager:  # there is something to make anew
            assert caches[0].get_or_set(KEY, source.read, 60) == source.number
        pauses = [chance.uniform(0, 0.004) for _ in caches]
        calls = [
            pool.submit(call, cache, pause, number % 3 == 0)
            for number, (cache, pause) in enumerate(zip(caches[1:], pauses[1:], strict=True))
        ]
        time.sleep(pauses[0])
        source.number += 1
        WRITES[write](caches[0], source.number)
        for each in calls:
            assert each.result(LONGEST_WAIT) in (source.number - 1, source.number)
        assert caches[0].get(KEY) in (source.number, None)
    stats = caches[0].stats()
    assert stats["breaker_openings"] == 0
    assert stats["refreshes"] > 0 if eager else stats["waited"] > 0


def test_interrupts_at_random_hold_up_nobody(
    make_cache: Make, server: RunningServer, pool: ThreadPoolExecutor
) -> None:
    """Makers and waiters that are struck at any moment leave no flight that others wait for."""
    cache, other = make_cache(CLEAR_MAX_AGE=None), make_cache(CLEAR_MAX_AGE=None)
    is_over = threading.Event()
    longest = [0.0]

    def make_it() -> str:
        time.sleep(0.0005)
        return "made"

    def ask() -> None:
        while not is_over.is_set():
            began = time.monotonic()
            assert other.get_or_set(KEY, make_it) == "made"
            longest[0] = max(longest[0], time.monotonic() - began)

    def miss() -> None:
        cache.delete(KEY)
        assert cache.get_or_set(KEY, make_it) == "made"

    asking = [pool.submit(ask) for _ in range(2)]
    # What the collector calls when others' objects die is struck, too, and Python only prints it.
    gc.disable()
    try:
        for number, error in enumerate(at_random(miss, sized(300, 20_000))):
            del error
            if number % 100 == 0:
                gc.collect()
    finally:
        gc.enable()
        is_over.set()
    for each in asking:
        each.result(LONGEST_WAIT)
    assert longest[0] < 4  # nobody waited SINGLE_FLIGHT_WAIT for a maker that was gone
    assert not cache._store.making.flights.under_way
