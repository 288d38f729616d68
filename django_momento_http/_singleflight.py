"""A slow call that many may wait for, none longer than it chooses to.

It is for calls that cannot be given a deadline: name resolution, a user's token callable.
"""

import _thread
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from ._waitable import Waitable

T = TypeVar("T")


class SharedCall(Waitable, Generic[T]):
    """One call under way: ``outcome`` is what it returned and what it raised, when it has ended."""

    __slots__ = ("outcome",)

    def __init__(self) -> None:
        super().__init__()
        self.outcome: tuple[T | None, BaseException | None] | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.outcome is not None

    def result(self, timeout: float) -> T:
        """Return or raise what the call does; TimeoutError after ``timeout`` seconds."""
        self.wait(timeout)
        if self.outcome is None:
            raise TimeoutError
        result, error = self.outcome
        if error is not None:
            raise error
        return result  # type: ignore[return-value]  # there is one when nothing was raised

    def end(self, result: T | None, error: BaseException | None) -> None:
        """Tell those who wait."""
        self.outcome = result, error
        self.tell()


class SingleFlight(Generic[T]):
    """Run a call in a thread of its own; whoever asks meanwhile shares its result."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._lock = threading.RLock()
        self._under_way: SharedCall[T] | None = None

    def result(self, timeout: float) -> T:
        """Return or raise what the call does; TimeoutError after ``timeout`` seconds.

        A call that takes longer goes on, so that a hanging one costs one thread, not one each.
        RuntimeError when no thread can be started.
        """
        return self.start().result(timeout)

    def start(self) -> SharedCall[T]:
        """Return the call that is under way, begun now if none is; RuntimeError as above."""
        with self._lock:
            flight = self._under_way
            if flight is None or flight.outcome is not None:
                flight = SharedCall()
                # ``Thread.start`` waits for an Event, and an interrupt there may come out as
                # RuntimeError.
                _thread.start_new_thread(self._run, (flight,))
                self._under_way = flight
        return flight

    def _run(self, flight: SharedCall[T]) -> None:
        try:
            result = self._call()
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            self._under_way = None
            flight.end(None, error)
        else:
            self._under_way = None
            flight.end(result, None)
