"""Waiting for something that happens once: in threads, and in tasks of any event loop.

Nobody waits for ever: where an interrupt has taken away who was to tell, waiters find out within a
moment by themselves. Tasks hold no thread while they wait. It knows nothing of what is waited for.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from ._interrupts import is_raised_by_signal_handler

# Seconds after which a waiter looks for itself, in case nobody tells it.
_LOOK_AGAIN = 0.05
# The same for a loop, whose tasks may be thousands: one timer looks for all of them.
_LOOK_AGAIN_IN_LOOP = 0.2
# Tasks woken in one turn of an event loop: more would hold the loop for milliseconds.
_WOKEN_AT_ONCE = 50


class Waitable:
    """Something that others wait for until ``is_over``; ``tell`` lets them look at once."""

    __slots__ = ("_bells", "_loops")

    def __init__(self) -> None:
        self._bells: deque[Callable[[], None]] = deque()
        self._loops: dict[asyncio.AbstractEventLoop, _Tasks] = {}

    @property
    def is_over(self) -> bool:
        """Whether nobody need wait any longer; asked from any thread, at any time."""
        raise NotImplementedError

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._bells) + sum(map(len, list(self._loops.values())))

    def wait(self, seconds: float) -> bool:
        """Wait in a thread, at most so many seconds; return whether it is over."""
        end = time.monotonic() + seconds
        bell = threading.Lock()
        bell.acquire()
        try:
            while True:
                if self.is_over:
                    return True
                left = end - time.monotonic()
                if left <= 0:
                    return False
                # Again each time: whoever rang it took it out.
                self._forget(bell.release)
                self._bells.append(bell.release)
                if not self.is_over:  # it may have ended before the bell was there
                    bell.acquire(timeout=min(left, _LOOK_AGAIN))
        finally:
            self._forget(bell.release)

    async def wait_in_loop(self, seconds: float) -> bool:
        """Wait in a task, at most so many seconds; return whether it is over."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not self.is_over:
            left = end - loop.time()
            if left <= 0:
                return False
            tasks = self._loops.get(loop) or self._loops.setdefault(loop, _Tasks(loop))
            await tasks.woken(left, self)
        return True

    def tell(self) -> None:
        """Let all who wait look; called from any thread."""
        for tasks in list(self._loops.values()):
            tasks.tell()
        while self._bells:
            try:
                bell = self._bells.popleft()
            except IndexError as error:  # the last one left
                if is_raised_by_signal_handler(error):
                    raise
                return
            bell()

    def _forget(self, bell: Callable[[], None]) -> None:
        try:
            self._bells.remove(bell)
        except ValueError as error:
            if is_raised_by_signal_handler(error):
                raise


class _Tasks:
    """The tasks of one loop that wait; but for ``tell`` and ``len``, used by that loop alone."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._futures: dict[asyncio.Future[None], None] = {}
        self._looks_at = float("-inf")

    def __len__(self) -> int:
        return len(self._futures)

    async def woken(self, seconds: float, awaited: Waitable) -> None:
        """Wait until this task is woken, at most so many seconds."""
        future = self._loop.create_future()
        timer = self._loop.call_later(seconds, _wake, future)
        self._futures[future] = None
        try:
            now = self._loop.time()
            # One that is long overdue was lost: a signal handler raised where it was to run.
            if now - self._looks_at > 2 * _LOOK_AGAIN_IN_LOOP:
                self._look_later(now, awaited)
            if not awaited.is_over:  # it may have ended before the future was there
                await future
        finally:
            timer.cancel()
            self._futures.pop(future, None)

    def tell(self) -> None:
        """Wake them, from any thread."""
        try:
            self._loop.call_soon_threadsafe(self._wake_all)
        except RuntimeError as error:  # the loop was closed: nobody waits
            if is_raised_by_signal_handler(error):
                raise

    def _wake_all(self) -> None:
        self._wake_some(list(self._futures))

    def _wake_some(self, futures: list[asyncio.Future[None]]) -> None:
        for future in futures[:_WOKEN_AT_ONCE]:
            _wake(future)
        if len(futures) > _WOKEN_AT_ONCE:
            self._loop.call_soon(self._wake_some, futures[_WOKEN_AT_ONCE:])

    def _look_later(self, now: float, awaited: Waitable) -> None:
        self._loop.call_later(_LOOK_AGAIN_IN_LOOP, self._look, awaited)
        self._looks_at = now

    def _look(self, awaited: Waitable) -> None:
        self._looks_at = float("-inf")
        if not self._futures:
            return
        self._look_later(self._loop.time(), awaited)
        if awaited.is_over:
            self._wake_all()


def _wake(future: "asyncio.Future[Any]") -> None:
    if not future.done():
        future.set_result(None)
