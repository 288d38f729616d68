"""Many requests under way at once, without threads: write on all connections, read what comes.

Each answer is handed on as soon as it is whole, and its connection takes the next request; a slow
one holds back nobody. It knows nothing of what is asked or answered.
"""

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from ..exceptions import MomentoError, TimedOut
from .connection import Connection
from .messages import Request, Result
from .polling import READ, new_poll
from .pool import Pool
from .stream import LOOK, LOOK_SECONDS, IOSteps

if TYPE_CHECKING:
    from .messages import Response

# Connections opened at once: more only makes their handshakes queue.
_OPENING_LIMIT = 32


class _Exchange:
    """A request on its connection; ``is_taken`` while that is the exchange's to give back."""

    __slots__ = (
        "connection",
        "fd",
        "is_opening",
        "is_taken",
        "request",
        "steps",
        "until",
        "wanted",
    )
    request: Request
    connection: Connection
    until: float

    def __init__(self) -> None:
        self.is_taken = self.is_opening = False
        self.steps: IOSteps[Response] | None = None
        self.fd = -1
        self.wanted = 0

    def ends_at(self) -> float:
        """Return when the exchange must have moved on."""
        return min(self.until, self.connection.until)

    def postpone(self, seconds: float) -> None:
        if self.steps is not None:
            self.until += seconds
            self.request.postpone(seconds)
            self.connection.postpone(seconds)


class Multiplexer:
    """One ``exchange_many``: its exchanges, and the answers not yet handed on.

    ``waiting`` says how many requests there are to send, as far as that is known.
    """

    def __init__(
        self,
        pool: Pool,
        next_request: Callable[[], Request | None],
        common: str,
        limit: int,
        clock: Callable[[], float],
        waiting: Callable[[], int] = lambda: 0,
    ) -> None:
        self._pool = pool
        self._next_request = next_request
        self._common = common
        self._limit = limit
        self._clock = clock
        self._waiting = waiting
        self._poll = new_poll()
        # Taken for what is sent next, silent so far, and watched.
        self._ready: list[Connection] = []
        self._exchanges: set[_Exchange] = set()
        self._by_fd: dict[int, _Exchange] = {}
        # Those that wait for what no socket tells.
        self._looking: set[_Exchange] = set()
        self._opening = 0
        self._deferred: Request | None = None
        self._done: list[tuple[Request, Result]] = []
        self._has_failed = False  # something in there
        # No exchange ends before this; found anew only when it has passed.
        self._soonest = float("inf")
        # The caller's code took long: what is under way goes first.
        self._is_behind = False

    def results(self) -> Generator[list[tuple[Request, Result]], None, None]:
        """Yield lists of answers until nothing is under way and nothing is left to send."""
        try:
            while True:
                self._fill()
                if self._done:
                    done, self._done = self._done, []
                    self._has_failed = False
                    yield done
                elif self._exchanges:
                    self._advance()
                else:
                    return
        finally:
            try:
                self._release_all()
            except BaseException:
                self._release_all()  # what that interrupt has left
                raise

    def postpone(self, seconds: float) -> None:
        """Take these seconds as not passed for all that is under way: the caller's code had them.

        May be called within ``next_call``, too.
        """
        for exchange in self._exchanges:
            exchange.postpone(seconds)
        for request, _ in self._done:
            request.postpone(seconds)
        if self._deferred is not None:
            self._deferred.postpone(seconds)
        self._soonest += seconds
        self._is_behind = True

    def _fill(self) -> None:
        """Put more under way, as long as nothing has failed: that is handed on first."""
        is_first = True
        while (
            not self._has_failed
            and len(self._exchanges) < self._limit
            and self._opening < _OPENING_LIMIT
        ):
            request = self._next()
            if request is None:
                break
            if is_first:
                is_first = False
                self._take_idle(1 + self._waiting())
            if not self._begin(request) or self._is_behind:
                break
        while self._ready:
            self._poll.unregister(self._ready[-1].fileno())
            self._give_back()

    def _take_idle(self, wanted: int) -> None:
        """Take idle connections for what is to be sent now, and look at all of them in one call."""
        count = min(wanted, self._limit - len(self._exchanges))
        if count <= 1:
            return
        ready, poll = self._ready, self._poll
        self._pool.take_idle(count, ready)
        for connection in ready:
            poll.register(connection.fileno(), READ)
        # A peer that has left, or said more than it was asked, shows now.
        heard = {fd for fd, _ in poll.poll(0)}
        for connection in ready.copy():
            if connection.has_buffered or connection.fileno() in heard:
                poll.unregister(connection.fileno())
                ready.remove(connection)
                self._pool.discard(connection)

    def _give_back(self) -> None:
        """Give back the last of those that are ready."""
        connection = self._ready[-1]
        # Between this and the call of C code there is nothing that could be interrupted.
        del self._ready[-1]
        self._pool.put_back(connection)
        self._pool.tidy(connection, reusable=True)

    def _next(self) -> Request | None:
        request, self._deferred = self._deferred, None
        if request is None:
            request = self._next_request()
        while request is not None and request.deadline <= self._clock():
            kind = "pool_timeout" if request.queued else "no_time"
            self._done.append((request, TimedOut("no time was left for it", kind=kind)))
            request = self._next_request()
        return request

    def _begin(self, request: Request) -> bool:
        """Send the request on a connection of its own; False when there is none."""
        exchange = _Exchange()
        # In the set first: so nothing that interrupts what follows parts us from the connection.
        self._exchanges.add(exchange)
        if self._ready and not request.fresh:
            self._begin_ready(exchange, request)
            return True
        try:
            connection = self._connection(request)
        except TimedOut as error:
            self._exchanges.discard(exchange)
            self._fail(request, error)
            return True
        if connection is None:
            self._exchanges.discard(exchange)
            self._defer(request)
            return False
        exchange.connection = connection
        exchange.is_taken = True
        if not connection.is_open:
            exchange.is_opening = True
            self._opening += 1
        self._load(exchange, request)
        return True

    def _begin_ready(self, exchange: _Exchange, request: Request) -> None:
        connection = self._ready[-1]
        del self._ready[-1]
        exchange.connection = connection
        exchange.is_taken = True
        exchange.fd, exchange.wanted = connection.fileno(), READ
        self._by_fd[exchange.fd] = exchange
        self._load(exchange, request)

    def _fail(self, request: Request, error: MomentoError) -> None:
        self._has_failed = True
        self._done.append((request, request.judge(error.with_traceback(None), self._clock())))

    def _connection(self, request: Request) -> Connection | None:
        """Return a connection for this request; None when others wait for one and we need not."""
        connection = self._pool.take_now(request.fresh)
        if connection is None and len(self._exchanges) == 1 and not self._done:
            request.queued = request.queued or self._clock()
            return self._pool.wait(request.deadline, fresh=request.fresh)
        return connection

    def _defer(self, request: Request) -> None:
        request.queued = request.queued or self._clock()
        self._deferred = request

    def _load(self, exchange: _Exchange, request: Request) -> None:
        request.began = now = self._clock()
        exchange.request = request
        exchange.until = min(request.deadline, now + request.request_timeout)
        exchange.steps = exchange.connection.handle(request, self._common)
        self._step(exchange, None)

    def _advance(self) -> None:
        """Wait for the first socket that is ready, or for the first exchange whose time is up."""
        left = 0.0 if self._is_behind else max(self._soonest - self._clock(), 0.0)
        self._is_behind = False
        if self._looking:
            left = min(left, LOOK_SECONDS)
        for fd, events in self._poll.poll(left * 1000):
            self._step(self._by_fd[fd], events)
        if self._looking:
            for exchange in list(self._looking):
                self._step(exchange, LOOK)
        now = self._clock()
        if now >= self._soonest:
            for exchange in [exchange for exchange in self._exchanges if exchange.ends_at() <= now]:
                self._step(exchange, 0)
            self._soonest = min(
                (exchange.ends_at() for exchange in self._exchanges), default=float("inf")
            )

    def _step(self, exchange: _Exchange, events: int | None) -> None:
        try:
            wanted = exchange.steps.send(events)  # type: ignore[union-attr, arg-type]  # None starts it
        except StopIteration as done:
            self._done.append((exchange.request, done.value))
        except MomentoError as error:
            self._fail(exchange.request, error)
        else:
            self._watch(exchange, wanted)
            return
        self._finish(exchange)

    def _watch(self, exchange: _Exchange, wanted: int) -> None:
        if exchange.until < self._soonest:
            self._soonest = exchange.until
        if wanted == exchange.wanted and not exchange.is_opening:
            return
        if exchange.is_opening:
            self._soonest = min(self._soonest, exchange.connection.until)
            if exchange.connection.is_open:
                self._opened(exchange)
        if wanted == LOOK:
            self._looking.add(exchange)
            return
        self._looking.discard(exchange)
        fd = exchange.connection.fileno()
        if fd != exchange.fd:
            self._forget(exchange)
            self._by_fd[fd] = exchange
        self._poll.register(fd, wanted)
        exchange.fd, exchange.wanted = fd, wanted

    def _finish(self, exchange: _Exchange) -> None:
        if exchange.is_opening:
            self._opened(exchange)
        if exchange.connection.reusable and not self._pool.has_waiters:
            request = self._next()
            if request is not None:
                # A peer that has left, or said more than it was asked, shows now.
                if not request.fresh and exchange.connection.is_reusable_now():
                    self._load(exchange, request)
                    return
                self._deferred = request
        self._release(exchange)

    def _opened(self, exchange: _Exchange) -> None:
        exchange.is_opening = False
        self._opening -= 1

    def _release_all(self) -> None:
        while self._ready:
            self._give_back()
        for exchange in list(self._exchanges):
            self._release(exchange)

    def _release(self, exchange: _Exchange) -> None:
        """Give the exchange's connection back, once; one in the middle of an exchange is closed."""
        if exchange.steps is not None:
            # Not left to its finalizer, where what a signal handler raises is lost.
            exchange.steps.close()
        if exchange.is_taken:
            reusable = exchange.connection.reusable
            exchange.is_taken = False
            # Between the mark and the call of C code there is nothing that could be interrupted.
            self._pool.put_back(exchange.connection)
            self._pool.tidy(exchange.connection, reusable=reusable)
        self._forget(exchange)
        self._exchanges.discard(exchange)
        self._looking.discard(exchange)

    def _forget(self, exchange: _Exchange) -> None:
        if self._by_fd.pop(exchange.fd, None) is not None:
            self._poll.unregister(exchange.fd)
        exchange.fd = -1
