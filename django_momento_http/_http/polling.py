"""Waiting for sockets: ``select.poll`` where the platform has it, else the same over ``select``.

Sockets are kept non-blocking and waited for here, so that one system call does what a timeout of
the socket's own would do in two. It knows nothing of connections.
"""

import select
import time
from typing import Protocol

READ = 0x001  # POLLIN
WRITE = 0x004  # POLLOUT
_FAILED = 0x008  # POLLERR


class Poll(Protocol):
    """The part of ``select.poll`` that is used."""

    def register(self, fd: int, eventmask: int, /) -> None:
        """Wait for these events of the descriptor from now on."""

    def unregister(self, fd: int, /) -> None:
        """Wait for the descriptor no more."""

    def poll(self, timeout: float | None, /) -> list[tuple[int, int]]:
        """Return the descriptors with their events; ``timeout`` is in milliseconds."""


class SelectPoll:
    """``select.poll`` for platforms that have only ``select``."""

    def __init__(self) -> None:
        self._events: dict[int, int] = {}

    def register(self, fd: int, eventmask: int, /) -> None:
        """Wait for these events of the descriptor from now on."""
        self._events[fd] = eventmask

    def unregister(self, fd: int, /) -> None:
        """Wait for the descriptor no more."""
        del self._events[fd]

    def poll(self, timeout: float | None, /) -> list[tuple[int, int]]:
        """Return the descriptors with their events; ``timeout`` is in milliseconds."""
        seconds = None if timeout is None else max(timeout, 0.0) / 1000
        end = time.monotonic() + (seconds or 0.0)
        while True:
            told = self._select(seconds)
            ready = {fd: events for fd, events in told.items() if fd in self._events}
            if ready or not told:
                return list(ready.items())
            # eventlet may tell of what an earlier wait of this greenlet was for.
            if seconds is not None:
                seconds = max(end - time.monotonic(), 0.0)

    def _select(self, seconds: float | None) -> dict[int, int]:
        readers = [fd for fd, events in self._events.items() if events & READ]
        writers = [fd for fd, events in self._events.items() if events & WRITE]
        # A failed connect shows among the third kind on Windows.
        readable, writable, failed = select.select(readers, writers, writers, seconds)
        ready = dict.fromkeys(readable, READ)
        for fd in writable:
            ready[fd] = ready.get(fd, 0) | WRITE
        for fd in failed:
            ready[fd] = ready.get(fd, 0) | _FAILED
        return ready


def new_poll() -> Poll:
    """Return something to wait with."""
    return select.poll() if hasattr(select, "poll") else SelectPoll()
