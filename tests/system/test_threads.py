"""Threads: none to be had, and event loops that several of them drive."""

import asyncio
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from django_momento_http.testing import RunningServer
from tests.support.sizes import sized

from .harness import started

LONGEST_WAIT = 30.0


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
@pytest.mark.parametrize("mode", ["miss", "raise"])
@pytest.mark.parametrize("warmth", ["cold", "warm"])
@pytest.mark.parametrize("how", ["limit", "patched"])
def test_without_threads_there_are_misses(
    how: str, warmth: str, mode: str, server: RunningServer
) -> None:
    """Where no thread can be started, and at exit, calls do what they can or say so as ever."""
    entry = server.cache_settings(REQUEST_TIMEOUT=5, ON_ERROR=mode)
    with started("threadless", how, warmth, entry=entry) as program:
        said = program.hear()
        if not said["refused"]:
            pytest.skip("this user may have any number of threads")
        allowed = {"done"} if mode == "miss" else {"done", "MomentoError"}
        for found in (said["found"], program.hear()["at_exit"]):
            assert {name: word for name, word in found.items() if word not in allowed} == {}
        program.end()


@pytest.mark.parametrize("makers", [1, 2])
def test_one_loop_is_driven_from_two_threads_in_turn(
    makers: int, make_cache: Callable[..., Any]
) -> None:
    """Tasks go on whichever thread runs their loop, and none waits for ever."""
    cache = make_cache()
    cache.set_many({f"key-{number}": number for number in range(20)})
    loop = asyncio.new_event_loop()
    tasks: list[asyncio.Task[Any]] = []

    async def read(number: int) -> bool:
        one = await cache.aget(f"key-{number % 20}")
        many = await cache.aget_many(["key-0", "none"])
        return (one, many) == (number % 20, {"key-0": 0})

    def step() -> None:
        """Run the loop for one turn, in a thread that has not run it before or has long ago."""
        loop.call_soon(loop.stop)
        loop.run_forever()

    def drive(index: int) -> None:
        mine, other = events[index], events[1 - index]
        for number in range(sized(200, 5000)):
            mine.wait(LONGEST_WAIT)
            mine.clear()
            if number % 2 == 0 and index < makers:
                tasks.append(loop.create_task(read(number)))
            step()
            other.set()

    events = threading.Event(), threading.Event()
    threads = [threading.Thread(target=drive, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    events[0].set()
    for thread in threads:
        thread.join(LONGEST_WAIT)
    done = loop.run_until_complete(asyncio.wait_for(asyncio.gather(*tasks), LONGEST_WAIT))
    loop.close()
    assert len(done) == makers * sized(100, 2500)
    assert all(done)
