"""The connections of one origin: taken, given back, never more than a limit.

A slot is counted by the connection that stands in it, and is free when that is closed or is no
more: so nothing that interrupts a user of the pool, at whatever instruction, loses one. All that is
shared is changed by single steps of C code, and there is no lock to be left behind. It knows when a
connection may be used again, and nothing of what is said on it.
"""

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from .._interrupts import is_raised_by_signal_handler
from ..exceptions import TimedOut
from .connection import Connection

T = TypeVar("T")

# A load balancer closes connections that were idle for 60 s; ours go before that.
_IDLE_SECONDS = 55.0
# A connection that was used this many seconds ago is likely to be alive at both ends.
_WARM_SECONDS = 1.0
# Seconds after which a waiter looks for itself: who should have woken it may be interrupted.
_LOOK_AGAIN = 0.05
# Seconds past its deadline for which a waiter stays in line that two interrupts kept there.
_GONE_AFTER = 1.0


class _Waiter:
    """One that waits for a connection; what it is given stands in ``given``."""

    __slots__ = ("bell", "deadline", "fresh", "given", "half_time", "is_gone")

    def __init__(self, deadline: float, now: float, *, fresh: bool) -> None:
        self.deadline = deadline
        self.half_time = now + (deadline - now) / 2
        self.fresh = fresh
        self.given: list[Connection] = []
        self.is_gone = False
        self.bell = threading.Lock()
        self.bell.acquire()

    def ring(self) -> None:
        """Wake it; also when it has been woken."""
        try:
            self.bell.release()
        except RuntimeError as error:
            if is_raised_by_signal_handler(error):
                raise


class Pool:
    """Keep-alive connections, the last used first; safe under threads and in signal handlers.

    A connection is given back by ``put_back``, whatever state it is in, and then ``tidy``. The
    first is a method of C code, so that nothing comes between a user's ``finally`` and its end.
    """

    def __init__(
        self,
        make: Callable[[], Connection],
        limit: int,
        clock: Callable[[], float],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._make = make
        self._limit = limit
        self._clock = clock
        self._wall = wall
        self._idle_seconds = _IDLE_SECONDS
        self._stale_from = float("-inf")  # none was idle for too long before
        self._idle: deque[Connection] = deque()
        self._all: set[weakref.ref[Connection]] = set()
        self._waiting: deque[_Waiter] = deque()
        self._pid = os.getpid()
        self.put_back = self._idle.append

    def __repr__(self) -> str:
        return f"<Pool open={len(self._all)} idle={len(self._idle)} limit={self._limit}>"

    @property
    def has_waiters(self) -> bool:
        """Whether somebody waits for a connection."""
        return bool(self._waiting)

    def take_now(self, fresh: bool = False) -> Connection | None:
        """Return an idle connection or a new one, None when all are in use or others wait."""
        return None if self._waiting else self._free(fresh)

    def take_idle(self, count: int, into: list[Connection]) -> None:
        """Take up to so many idle connections, at which nobody has looked yet; none if others wait.

        They stand in ``into`` at once, which is the caller's to give back.
        """
        while len(into) < count and not self._waiting:
            try:
                into.append(self._idle.pop())
            except IndexError as error:
                if is_raised_by_signal_handler(error):
                    raise
                return
            if not self._is_young(into[-1]):
                self.discard(into.pop())

    def take_spare(self, *, fresh: bool) -> Connection | None:
        """Return a connection for a request that could do without: no wait, none that is wanted.

        One that was idle for longer may lead to where the silence is: then it is a new one.
        """
        if self._waiting:
            return None
        while not fresh:
            try:
                connection = self._idle.pop()
            except IndexError as error:
                if is_raised_by_signal_handler(error):
                    raise
                break
            try:
                fresh = not self._is_warm(connection)
                if not fresh and connection.is_reusable_now():
                    return connection
                if not fresh:
                    self.discard(connection)
            except BaseException:
                self.discard(connection)
                raise
            if fresh:
                self.put_back(connection)
        return self._free(fresh=True)

    def wait(self, deadline: float, *, fresh: bool = False) -> Connection:
        """Return a connection when it is this caller's turn; TimedOut after the deadline."""
        waiter = _Waiter(deadline, self._clock(), fresh=fresh)
        try:
            self._waiting.append(waiter)
            while True:
                self._hand_over()
                left = deadline - self._clock()
                if not waiter.given and left > 0:
                    waiter.bell.acquire(timeout=min(left, _LOOK_AGAIN))
                if waiter.given:
                    return waiter.given.pop()
                if left <= 0:
                    raise TimedOut("all connections were in use", kind="pool_timeout")
        finally:
            waiter.is_gone = True
            self._leave(waiter)

    def tidy(self, connection: Connection, *, reusable: bool) -> None:
        """Close what was put back but must not be used again, and serve those who wait.

        Interrupted, it leaves its work to whoever takes a connection next. Whether the connection
        may be used again was asked before it was put back: it may be another's since.
        """
        connection.idle_since = now = self._clock()
        connection.idle_since_wall = self._wall()
        if not reusable:
            self.discard(connection)
            _removed(self._idle, connection)
        elif now >= self._stale_from:
            self._discard_stale(now)
        if self._waiting:
            self._hand_over()

    def close(self) -> None:
        """Close all connections, those in use when they are given back.

        In a forked child nobody gives them back; closing is harmless there, because they are the
        parent's.
        """
        self._idle_seconds = self._stale_from = float("-inf")
        if os.getpid() == self._pid:
            self._discard_stale(self._clock())
            return
        for connection in [reference() for reference in list(self._all)]:
            if connection is not None:
                connection.close()
        self._idle.clear()
        self._all.clear()

    # Connections

    def _free(self, fresh: bool) -> Connection | None:
        """Return an idle connection that is as good as new, or a new one, or None."""
        while not fresh or len(self._all) >= self._limit:
            try:
                connection = self._idle.pop()
            except IndexError as error:
                if is_raised_by_signal_handler(error):
                    raise
                break
            try:
                if not fresh and self._is_young(connection) and connection.is_reusable_now():
                    return connection
                self.discard(connection)
            except BaseException:
                # Who keeps the traceback keeps this frame, and would keep the slot with it.
                self.discard(connection)
                raise
        return self._new()

    def _new(self) -> Connection | None:
        while len(self._all) < self._limit:
            connection = self._make()
            try:
                # The callback is C code: of Python code an interrupt would be swallowed there.
                self._all.add(weakref.ref(connection, self._all.discard))
                if len(self._all) <= self._limit:
                    return connection
                self.discard(connection)  # somebody came at the same moment
            except BaseException:
                self.discard(connection)
                raise
        return None

    def discard(self, connection: Connection) -> None:
        """Close a connection that was taken, so that its slot is free."""
        try:
            connection.close()
        finally:
            self._all.discard(weakref.ref(connection))

    def _discard_stale(self, now: float) -> None:
        """Close those at the bottom that steady traffic on the others has left idle too long."""
        while self._is_stale(now):
            try:
                oldest = self._idle.popleft()
            except IndexError as error:
                if is_raised_by_signal_handler(error):
                    raise
                return
            try:
                is_old = not self._is_young(oldest)
                if is_old:
                    self.discard(oldest)
            except BaseException:
                self.discard(oldest)
                raise
            if not is_old:  # another thread has taken the one that was looked at
                self._idle.appendleft(oldest)

    def _is_stale(self, now: float) -> bool:
        try:
            since = self._idle[0].idle_since
        except IndexError as error:
            if is_raised_by_signal_handler(error):
                raise
            since = now
        self._stale_from = since + self._idle_seconds
        return now >= self._stale_from

    def _is_young(self, connection: Connection) -> bool:
        # Where a machine sleeps, the monotonic clock may stand still.
        return (
            connection.reusable
            and self._clock() - connection.idle_since < self._idle_seconds
            and self._wall() - connection.idle_since_wall < self._idle_seconds
        )

    def _is_warm(self, connection: Connection) -> bool:
        return (
            self._is_young(connection)
            and self._clock() - connection.idle_since < _WARM_SECONDS
            and self._wall() - connection.idle_since_wall < _WARM_SECONDS
        )

    # Who waits

    def _hand_over(self) -> None:
        """Give what is free to those who wait."""
        while self._waiting and (self._idle or len(self._all) < self._limit):
            waiter = self._next()
            connection = None if waiter is None else self._free(waiter.fresh)
            if waiter is None or connection is None:
                return
            waiter.given.append(connection)
            waiter.ring()
            _removed(self._waiting, waiter)
            if waiter.is_gone:
                self._take_back(waiter)

    def _next(self) -> _Waiter | None:
        """Return whose turn it is.

        The first has waited longest. But one that has less than half of its time left comes after
        all others: its answer may come too late, and if such waiters came first, the others would
        be too late as well.
        """
        now = self._clock()
        last = None
        for waiter in list(self._waiting):
            if waiter.deadline <= now - _GONE_AFTER:
                _removed(self._waiting, waiter)
            if waiter.given or waiter.deadline <= now:
                continue
            if now < waiter.half_time:
                return waiter
            last = waiter
        return last

    def _leave(self, waiter: _Waiter) -> None:
        _removed(self._waiting, waiter)
        if waiter.given:
            self._take_back(waiter)
            self._hand_over()

    def _take_back(self, waiter: _Waiter) -> None:
        """Make idle what others gave it at the same moment, beyond the first."""
        while waiter.given:
            try:
                self.put_back(waiter.given.pop())
            except IndexError as error:  # the giver and the waiter both do it
                if is_raised_by_signal_handler(error):
                    raise


def _removed(line: deque[T], one: T) -> bool:
    """Remove one from a line, and return whether it stood there."""
    try:
        line.remove(one)
    except ValueError as error:
        if is_raised_by_signal_handler(error):
            raise
        return False
    return True
