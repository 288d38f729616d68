"""Idle connections that a many-call takes together, and looks at in one call."""

from typing import TYPE_CHECKING

from .polling import READ, Poll
from .pool import Pool

if TYPE_CHECKING:
    from .connection import Connection


class Reserve:
    """Connections taken for what is sent next, silent so far, and watched by a poll."""

    def __init__(self, pool: Pool, poll: Poll) -> None:
        self._pool = pool
        self._poll = poll
        self.connections: list[Connection] = []

    def fill(self, count: int) -> None:
        """Take up to so many idle connections that may be used, if more than one is wanted."""
        if count <= 1:
            return
        taken, poll = self.connections, self._poll
        self._pool.take_idle(count, taken)
        for connection in taken:
            poll.register(connection.fd, READ)
        # A peer that has left, or said more than it was asked, shows now.
        heard = {fd for fd, _ in poll.poll(0)}
        for connection in taken.copy():
            if connection.fd in heard or connection.pending():
                poll.unregister(connection.fd)
                taken.remove(connection)
                self._pool.discard(connection)

    def empty(self) -> None:
        """Give back those that are left, and watch them no more."""
        while self.connections:
            self._poll.unregister(self.connections[-1].fd)
            self._give_back()

    def leave(self) -> None:
        """Give back those that are left, as the poll is of no more use."""
        while self.connections:
            self._give_back()

    def _give_back(self) -> None:
        connection = self.connections[-1]
        # Between this and the call of C code there is nothing that could be interrupted.
        del self.connections[-1]
        self._pool.put_back(connection)
        self._pool.tidy(connection, reusable=True)
