"""A slow call that many may wait for, none longer than it chooses to.

It is for calls that cannot be given a deadline: name resolution, a user's token callable.
"""

import _thread
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from ._interrupts import is_raised_by_signal_handler

T = TypeVar("T")

# Who waits looks again so often, whatever became of whoever should have woken it.
_LOOK_AGAIN = 0.05


class Flight(Generic[T]):
    """One call under way: ``outcome`` is what it returned and what it raised, when it has ended."""

    __slots__ = ("_bells", "outcome")

    def __init__(self) -> None:
        self.outcome: tuple[T | None, BaseException | None] | None = None
        self._bells: deque[Callable[[], None]] = deque()

    def result(self, timeout: float) -> T:
        """Return or raise what the call does; TimeoutError after ``timeout`` seconds."""
        end = time.monotonic() + timeout
        bell = threading.Lock()
        bell.acquire()
        self._bells.append(bell.release)
        while self.outcome is None:
            left = end - time.monotonic()
            if left <= 0:
                self._forget(bell.release)
                raise TimeoutError
            bell.acquire(timeout=min(left, _LOOK_AGAIN))
        result, error = self.outcome
        if error is not None:
            raise error
        return result  # type: ignore[return-value]  # there is one when nothing was raised

    def end(self, result: T | None, error: BaseException | None) -> None:
        """Tell those who wait."""
        self.outcome = result, error
        with suppress(IndexError):  # no signal handler runs in this thread
            while True:
                self._bells.popleft()()

    def _forget(self, bell: Callable[[], None]) -> None:
        try:
            self._bells.remove(bell)
        except ValueError as error:
            if is_raised_by_signal_handler(error):
                raise


class SingleFlight(Generic[T]):
    """Run a call in a thread of its own; whoever asks meanwhile shares its result."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._lock = threading.RLock()
        self._under_way: Flight[T] | None = None

    def result(self, timeout: float) -> T:
        """Return or raise what the call does; TimeoutError after ``timeout`` seconds.

        A call that takes longer goes on, so that a hanging one costs one thread, not one each.
        RuntimeError when no thread can be started.
        """
        return self.start().result(timeout)

    def start(self) -> Flight[T]:
        """Return the call that is under way, begun now if none is; RuntimeError as above."""
        with self._lock:
            flight = self._under_way
            if flight is None or flight.outcome is not None:
                flight = Flight()
                # ``Thread.start`` waits for an Event, and an interrupt there may come out as
                # RuntimeError.
                _thread.start_new_thread(self._run, (flight,))
                self._under_way = flight
        return flight

    def _run(self, flight: Flight[T]) -> None:
        try:
            result = self._call()
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            self._under_way = None
            flight.end(None, error)
        else:
            self._under_way = None
            flight.end(result, None)
