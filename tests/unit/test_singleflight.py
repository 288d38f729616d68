"""Single flight: one call under way, its result for all who wait."""

import _thread
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from django_momento_http._singleflight import SingleFlight
from tests.support.interrupting import at_every_place, inside_every_place


def waiters(flight: SingleFlight[str]) -> int:
    """Return how many wait for the call that is under way."""
    return 0 if flight._under_way is None else flight._under_way.waiting


def test_all_who_ask_meanwhile_share_one_call() -> None:
    """However many ask, the call is made once and each gets its result."""
    go = threading.Event()
    calls: list[int] = []

    def call() -> str:
        calls.append(1)
        assert go.wait(10)
        return "result"

    flight = SingleFlight(call)
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(flight.result, 10) for _ in range(8)]
        end = time.monotonic() + 10
        while waiters(flight) < 8 and time.monotonic() < end:
            pass
        go.set()
        assert {one.result(10) for one in waiting} == {"result"}
    assert len(calls) == 1


def test_the_next_one_after_the_end_is_a_new_call() -> None:
    """Results are not kept."""
    numbers = iter(range(5))
    flight = SingleFlight(lambda: next(numbers))
    assert [flight.result(5), flight.result(5)] == [0, 1]


def test_a_failed_call_fails_for_all_and_is_made_again() -> None:
    """An error is handed on, and does not stay."""
    outcomes = iter([ValueError("no"), "yes"])

    def call() -> str:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return str(outcome)

    flight = SingleFlight(call)
    with pytest.raises(ValueError, match="no"):
        flight.result(5)
    assert flight.result(5) == "yes"


def test_a_hanging_call_costs_one_thread() -> None:
    """Those whose time is up leave; the call goes on, and is not made again beside itself."""
    go = threading.Event()
    calls: list[int] = []

    def call() -> str:
        calls.append(1)
        go.wait(10)
        return "late"

    flight = SingleFlight(call)
    for timeout in (0.01, 0.0, -1.0):
        with pytest.raises(TimeoutError):
            flight.result(timeout)
    go.set()
    assert flight.result(10) == "late"
    assert len(calls) == 1


def test_a_thread_that_cannot_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A moment without threads does not end the call for the rest of the process."""
    flight = SingleFlight(lambda: "result")

    def refuse(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", refuse)
        with pytest.raises(RuntimeError):
            flight.result(0.1)
    assert flight.result(5) == "result"


def test_an_interrupted_waiter_leaves_it_as_it_was() -> None:
    """Wherever it strikes, the interrupt comes out, and the next one gets a result."""
    numbers = iter(range(10_000))
    flight = SingleFlight(lambda: next(numbers))
    for error in at_every_place(lambda: flight.result(5), TimeoutError):
        del error
        assert flight.result(5) >= 0
        assert repr(flight._lock).startswith("<unlocked")


def test_a_handler_that_asks_inside_another_is_answered() -> None:
    """A signal handler may need the same result as the code that it interrupts."""
    flight = SingleFlight(lambda: "result")
    assert inside_every_place(lambda: flight.result(5), lambda: flight.result(5)) > 5


def test_what_the_call_raises_is_its_own() -> None:
    """Every one who waits gets it, whatever it is."""
    flight: SingleFlight[str] = SingleFlight(lambda: sys.exit(3))
    for _ in range(2):
        with pytest.raises(SystemExit):
            flight.result(5)


def test_nothing_is_kept_of_who_waited_or_of_what_was_returned() -> None:
    """A call that hangs for hours is asked for thousands of times."""
    go = threading.Event()
    flight = SingleFlight(lambda: [go.wait(10)])
    for _ in range(20):
        with pytest.raises(TimeoutError):
            flight.result(0)
    assert waiters(flight) == 0
    go.set()
    assert flight.result(5) == [True]
