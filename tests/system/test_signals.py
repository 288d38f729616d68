"""Signals: handlers that raise at any moment, and handlers that use the cache themselves."""

import signal

import pytest

from tests.support.sizes import sized

from .conftest import Options
from .harness import report_of

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX signals")

# Threads of the process that carry async calls out.
WORKERS = 32
# Where an exception can only be printed: in asyncio's finalizers and callbacks, and in Python's
# warnings of coroutines whose task had not begun.
OF_ASYNCIO = {
    "BaseEventLoop.__del__",
    "BaseEventLoop.call_exception_handler",
    "MomentoCache.aget",
    "Trial._tasks",
    "WeakSet.__init__.<locals>._remove",
}


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_what_a_handler_raises_comes_out_and_leaves_all_whole(kind: str, options: Options) -> None:
    """Every exception arrives as it is; no slot, value, task or secret is lost to it."""
    report = report_of("interrupts", kind, sized(500, 20_000), 1, **options())
    assert report["strays"] == report["lost"] == report["wrong"] == report["hangs"] == []
    assert report["seen"] == {}
    assert set(report["printed"]) <= (OF_ASYNCIO if kind == "async" else set())
    assert report["slots"] == report["connections"]
    assert report["more_descriptors"] <= report["connections"]
    assert report["more_threads"] <= (WORKERS if kind == "async" else 0)
    assert report["blocks_each"] < 10


def test_a_handler_may_use_the_cache(options: Options) -> None:
    """Whatever call it interrupts, both get what is theirs, and neither waits for the other."""
    # Enough for the main thread's calls and the handler's beside them.
    many = options(MAX_CONNECTIONS=16, CLEAR_MAX_AGE=10)
    report = report_of("handlers", sized(1000, 20_000), 1, **many)
    assert report["wrong"] == []
    assert report["slots"] == report["connections"]
    assert report["more_descriptors"] <= 16
    assert report["more_threads"] == 0
    assert report["blocks_each"] < 2


def test_the_collector_runs_no_code_for_what_was_interrupted(options: Options) -> None:
    """Wherever a call is interrupted, nothing is left to finalizers, where limits would be lost."""
    report = report_of("collected", **options(CLEAR_MAX_AGE=10))
    assert report["run"] == []
    assert report["interrupts"] > 1000
