"""The exchanges of one many-call: their sockets, and when each must be looked at.

It gives their connections back, and knows nothing of who asks for what.
"""

from collections.abc import Callable

from .polling import new_poll
from .pool import Pool
from .race import NEVER, Exchange
from .stream import LOOK


class Exchanges:
    """What is under way at once, watched by one poll."""

    def __init__(self, pool: Pool, clock: Callable[[], float]) -> None:
        self._pool = pool
        self._clock = clock
        self._poll = new_poll()
        self._exchanges: set[Exchange] = set()
        self._by_fd: dict[int, Exchange] = {}
        # Those that wait for a lookup, of which no socket tells.
        self._looking: set[Exchange] = set()
        self._opening = 0
        # Nothing ends, or is asked again, before this; found anew only when it has passed.
        self._soonest = NEVER

    def _watch(self, exchange: Exchange, wanted: int) -> None:
        if exchange.until < self._soonest:
            self._soonest = exchange.until
        if exchange.due_at < self._soonest:
            self._soonest = exchange.due_at
        if wanted == exchange.wanted and not exchange.is_opening:
            return
        if exchange.is_opening:
            self._soonest = min(self._soonest, exchange.connection.until)
            if exchange.connection.is_open:
                self._opened(exchange)
                self._soonest = min(self._soonest, exchange.opened(self._clock()))
        if wanted == LOOK:
            self._looking.add(exchange)
            return
        self._looking.discard(exchange)
        fd = exchange.connection.fd
        if fd != exchange.fd:
            self._forget(exchange)
            self._by_fd[fd] = exchange
        self._poll.register(fd, wanted)
        exchange.fd, exchange.wanted = fd, wanted

    def _opened(self, exchange: Exchange) -> None:
        exchange.is_opening = False
        self._opening -= 1

    def _release_all(self) -> None:
        for exchange in list(self._exchanges):
            self._release(exchange)

    def _release(self, exchange: Exchange) -> None:
        """Give the exchange's connection back, once; one in the middle of an exchange is closed."""
        if exchange.steps is not None:
            # Not left to its finalizer, where what a signal handler raises is lost.
            exchange.steps.close()
        if exchange.is_opening:
            self._opened(exchange)
        if exchange.is_taken:
            reusable = exchange.connection.reusable
            exchange.is_taken = False
            # Between the mark and the call of C code there is nothing that could be interrupted.
            self._pool.put_back(exchange.connection)
            self._pool.tidy(exchange.connection, reusable=reusable)
        self._forget(exchange)
        self._exchanges.discard(exchange)
        self._looking.discard(exchange)

    def _forget(self, exchange: Exchange) -> None:
        if self._by_fd.pop(exchange.fd, None) is not None:
            self._poll.unregister(exchange.fd)
        exchange.fd = -1
