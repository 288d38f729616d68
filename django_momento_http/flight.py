"""A slow call that many may wait for, none longer than it chooses to.

It is for calls that cannot be given a deadline: name resolution, a user's token callable.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Run a call in a thread of its own; whoever asks meanwhile shares its result."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._lock = threading.Lock()
        self._under_way: Future[T] | None = None

    def result(self, timeout: float) -> T:
        """Return or raise what the call does; TimeoutError after ``timeout`` seconds.

        A call that takes longer goes on, so that a hanging one costs one thread, not one each.
        """
        with self._lock:
            flight = self._under_way
            if flight is None:
                flight = Future()
                # Where no thread can be started, nothing is under way.
                threading.Thread(target=self._fly, args=(flight,), daemon=True).start()
                self._under_way = flight
        return flight.result(max(timeout, 0.0))

    def _fly(self, flight: "Future[T]") -> None:
        try:
            result = self._call()
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            self._land()
            flight.set_exception(error)
        else:
            self._land()
            flight.set_result(result)

    def _land(self) -> None:
        with self._lock:
            self._under_way = None
