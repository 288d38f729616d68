"""Exceptions that signal handlers raise in an event loop's thread: one task's, and no other's end.

Only where this package's code runs: an interrupt within asyncio's own may lose any callback.
"""

import asyncio
import gc
import itertools
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import django_momento_http
from django_momento_http._store import jobs, runner, workers
from tests.support.sizes import sized

# Of real signals, for each exception.
SECONDS = sized(0.4, 20.0)
# One line in so many is tried, another each time.
STEP = sized(3, 1)
LONGEST_WAIT = 20
TASKS = 50
PACKAGE = str(Path(django_momento_http.__file__).parent)
FILES = {module.__file__ for module in (jobs, runner, workers)}

Make = Callable[..., Any]


class TimeIsUp(Exception):
    """What a time limit raises."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let loops look again soon for what was lost."""
    monkeypatch.setattr(jobs, "_LOOK_SECONDS", 0.02)
    yield
    gc.collect()  # while no warning is an error of what follows


@contextmanager
def a_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Yield a loop that says nothing of interrupted callbacks; there must be no other trouble."""
    complaints: list[Any] = []

    def note(_: object, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), TimeIsUp):
            complaints.append(context)

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(note)
    yield loop
    loop.close()
    assert complaints == []


def finish(loop: asyncio.AbstractEventLoop, awaitable: Any) -> Any:
    """Run to the end, however often the loop is interrupted."""
    end = time.monotonic() + LONGEST_WAIT
    future = asyncio.ensure_future(awaitable, loop=loop)
    while True:
        try:
            left = loop.create_task(asyncio.wait({future}, timeout=end - time.monotonic()))
            loop.run_until_complete(left)
        except KeyboardInterrupt:
            left.cancel()
            continue
        assert future.done(), "somebody waits for ever"
        return future.result()


@contextmanager
def interrupted_at(step: int, error: type[BaseException]) -> Iterator[list[int]]:
    """Raise once at the so-manieth line of ours that this thread runs; yield what is left then."""
    left = [step]

    def trace(frame: Any, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in FILES:
            return None
        if event in ("call", "line") and left[0] >= 0:
            left[0] -= 1
            if left[0] < 0:
                raise error
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield left
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("error", [TimeIsUp, KeyboardInterrupt])
def test_wherever_an_interrupt_comes_it_ends_one_task_at_most(
    error: type[BaseException], make_cache: Make
) -> None:
    """At each line of ours that runs in the loop: the others get their values, and none hangs."""
    cache = make_cache(CLEAR_MAX_AGE=None)
    cache.set_many({f"k{n}": n for n in range(3)})

    async def one(number: int) -> Any:
        try:
            return await cache.aget(f"k{number}")
        except error:
            return "interrupted"

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(one(number) for number in range(3)))

    for step in itertools.count(random.randrange(STEP), STEP):
        with a_loop() as loop:
            with interrupted_at(step, error) as left:
                found = finish(loop, all_of_them())
            assert finish(loop, cache.aget("k0")) == 0
        assert all(value in (number, "interrupted") for number, value in enumerate(found))
        assert found.count("interrupted") <= 1
        if left[0] >= 0:
            break
    assert step > 30


@contextmanager
def signals(error: type[BaseException], raised: list[int]) -> Iterator[None]:
    """Interrupt this thread at random moments, again and again, where it runs code of ours."""

    is_over = False

    def handle(_: int, frame: Any) -> None:
        if is_over:
            return
        is_ours = frame is not None and frame.f_code.co_filename.startswith(PACKAGE)
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00005, 0.0005))
        if is_ours:
            raised.append(1)
            raise error

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    try:
        yield
    finally:
        # First: a handler that comes now would set the timer again, for nobody to handle.
        is_over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers that send signals")
@pytest.mark.parametrize("error", [TimeIsUp, KeyboardInterrupt])
def test_a_loop_outlives_signals_without_number(
    error: type[BaseException], make_cache: Make
) -> None:
    """Fifty tasks under a storm of signals: no wrong value, and afterwards everything works."""
    cache = make_cache(CLEAR_MAX_AGE=None)
    values = {f"k{n}": n for n in range(TASKS)}
    cache.set_many(values)
    raised: list[int] = []
    end = time.monotonic() + SECONDS
    wrong: list[Any] = []

    async def ask(key: str, value: int) -> int:
        answers = 0
        while time.monotonic() < end:
            try:
                found = await cache.aget(key)
            except error:
                continue
            answers += 1
            if found != value:
                wrong.append((key, found))
        return answers

    async def everybody() -> list[int]:
        return await asyncio.gather(*(ask(key, value) for key, value in values.items()))

    with a_loop() as loop:
        with signals(error, raised):
            answers = finish(loop, everybody())
        assert wrong == []
        assert min(answers) > 0
        assert len(raised) > 10 * SECONDS
        end = time.monotonic() + 0.1
        assert min(finish(loop, everybody())) > 0
        assert finish(loop, cache.aget_many(values)) == values
    assert cache.get_many(values) == values
