"""The connections of one origin: taken, given back, never more than a limit.

It knows when a connection may be used again, and nothing of what is said on it.
"""

import os
import threading
from collections.abc import Callable

from .connection import Connection
from .exceptions import TimedOut

# A load balancer closes connections that were idle for 60 s; ours go before that.
_IDLE_SECONDS = 55.0


class Pool:
    """Keep-alive connections, the last used first; safe under threads."""

    def __init__(
        self, make: Callable[[], Connection], limit: int, clock: Callable[[], float]
    ) -> None:
        self._make = make
        self._limit = limit
        self._clock = clock
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting = 0
        self._closed = False
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"<Pool open={len(self._all)} idle={len(self._idle)} limit={self._limit}>"

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for a connection."""
        return self._waiting > 0

    def take(self, deadline: float, *, fresh: bool = False) -> Connection:
        """Return an idle connection, or a new one; TimedOut when there is none by the deadline."""
        connection = self.take_now(fresh=fresh)
        while connection is None:
            self._wait(deadline)
            connection = self.take_now(fresh=fresh)
        return connection

    def take_now(self, *, fresh: bool = False) -> Connection | None:
        """Return an idle connection or a new one, None when all are in use."""
        while True:
            with self._lock:
                has_room = len(self._all) < self._limit
                if has_room and (fresh or not self._idle):
                    return self._add()
                if not self._idle:
                    return None
                idle = self._idle.pop()
            age = self._clock() - idle.idle_since
            if not fresh and age < _IDLE_SECONDS and idle.is_quiet():
                return idle
            self._discard(idle)

    def give_back(self, connection: Connection) -> None:
        """Keep the connection for the next request, or close it when it must not be used again."""
        if not connection.reusable:
            self._discard(connection)
            return
        connection.idle_since = now = self._clock()
        stale: list[Connection] = []
        with self._lock:
            if self._closed:
                stale = [connection]
            else:
                self._idle.append(connection)
                if now - self._idle[0].idle_since >= _IDLE_SECONDS:
                    stale = self._take_stale(now)
            if self._waiting:
                self._changed.notify()
        for old in stale:
            self._discard(old)

    def close(self) -> None:
        """Close all connections, those in use when they are given back.

        In a forked child nobody gives them back; closing is harmless there, because they are the
        parent's. The lock is not taken: in a child its owner may not exist.
        """
        self._closed = True
        for connection in list(self._idle if os.getpid() == self._pid else self._all):
            connection.close()
        self._idle.clear()
        self._all.clear()

    def _add(self) -> Connection:
        connection = self._make()
        self._all.add(connection)
        return connection

    def _discard(self, connection: Connection) -> None:
        connection.close()
        with self._lock:
            self._all.discard(connection)
            if self._waiting:
                self._changed.notify()

    def _take_stale(self, now: float) -> list[Connection]:
        """Take out those at the bottom that steady traffic on the others has left idle too long."""
        count = 0
        while count < len(self._idle) and now - self._idle[count].idle_since >= _IDLE_SECONDS:
            count += 1
        stale, self._idle[:count] = self._idle[:count], []
        return stale

    def _wait(self, deadline: float) -> None:
        with self._lock:
            left = deadline - self._clock()
            if left <= 0:
                raise TimedOut("all connections were in use", kind="pool_timeout")
            if self._idle or len(self._all) < self._limit:
                return
            self._waiting += 1
            try:
                self._changed.wait(left)
            finally:
                self._waiting -= 1
