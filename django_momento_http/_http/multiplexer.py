"""Many requests under way at once, without threads: write on all connections, read what comes.

Each answer is handed on as soon as it is whole, and its connection takes the next request; a slow
one holds back nobody. A GET whose answer is silent for too long is asked again on another
connection (see ``hedging``). It knows nothing of what is asked or answered.
"""

from collections.abc import Callable, Generator

from ..exceptions import MomentoError, TimedOut
from .connection import Connection
from .exchanges import Exchanges
from .messages import Request, Result
from .polling import READ
from .pool import Pool
from .race import Exchange, Race, is_decisive, soonest
from .reserve import Reserve
from .stream import LOOK, LOOK_SECONDS

# Connections opened at once: more only makes their handshakes queue.
_OPENING_LIMIT = 32


def _unknown() -> int:
    """Say that nobody knows how many requests there are to send."""
    return -1


class Multiplexer(Exchanges):
    """One many-call: its exchanges, and the answers not yet handed on.

    ``waiting`` says how many requests there are to send, -1 where that is not known.
    """

    def __init__(
        self,
        pool: Pool,
        next_request: Callable[[], Request | None],
        common: str,
        limit: int,
        clock: Callable[[], float],
        waiting: Callable[[], int] = _unknown,
    ) -> None:
        super().__init__(pool, clock)
        self._next_request = next_request
        self._common = common
        self._limit = limit
        self._waiting = waiting
        self._reserve = Reserve(pool, self._poll)
        self._ready = self._reserve.connections
        self._deferred: Request | None = None
        self._done: list[tuple[Request, Result]] = []
        self._has_failed = False  # one of those
        self._now = clock()  # when sockets were last waited for
        # Losers of races; they are closed when all that came with the winner has been read.
        self._beaten: list[Exchange] = []
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
                self._leave_all()
            except BaseException:
                self._leave_all()  # what that interrupt has left
                raise

    def adopt(self, silent: Exchange) -> None:
        """Go on with an exchange that has been silent for too long."""
        silent.due_at = self._now
        self._exchanges.add(silent)
        self._watch(silent, READ)

    def postpone(self, seconds: float) -> None:
        """Give all that is under way so many seconds more, which the caller's code took.

        May be called within ``next_request``, too.
        """
        requests = {request for request, _ in self._done}
        for exchange in self._exchanges:
            if exchange.steps is not None:
                exchange.postpone(seconds)
                requests.add(exchange.request)
        for request in requests:
            request.postpone(seconds)
        if self._deferred is not None:
            self._deferred.postpone(seconds)
        self._soonest += seconds
        self._is_behind = True

    def _fill(self) -> None:
        """Put more under way, as long as nothing has failed: a failure is handed on first."""
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
                wanted = 1 + self._waiting()
                self._reserve.fill(min(wanted, self._limit - len(self._exchanges)))
            if not self._begin(request) or self._is_behind:
                break
        self._reserve.empty()

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
        exchange = Exchange()
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

    def _begin_ready(self, exchange: Exchange, request: Request) -> None:
        connection = self._ready[-1]
        del self._ready[-1]
        exchange.connection = connection
        exchange.is_taken = True
        exchange.fd, exchange.wanted = connection.fd, READ
        self._by_fd[exchange.fd] = exchange
        self._load(exchange, request)

    def _fail(self, request: Request, error: MomentoError) -> None:
        self._has_failed = True
        self._done.append((request, request.judge(error.with_traceback(None), self._clock())))

    def _connection(self, request: Request) -> Connection | None:
        """Return a connection for this request; None when others wait and this can wait, too."""
        connection = self._pool.take_now(request.fresh)
        if connection is None and len(self._exchanges) == 1 and not self._done:
            request.queued = request.queued or self._clock()
            return self._pool.wait(request.deadline, fresh=request.fresh)
        return connection

    def _defer(self, request: Request) -> None:
        request.queued = request.queued or self._clock()
        self._deferred = request

    def _load(self, exchange: Exchange, request: Request) -> None:
        request.began = now = self._clock()
        exchange.begin(request, now)
        exchange.until = min(request.deadline, now + request.request_timeout)
        exchange.steps = exchange.connection.handle(request, self._common)
        self._step(exchange, None)

    def _advance(self) -> None:
        """Wait for the first socket that is ready, or for the first exchange whose time is up."""
        left = 0.0 if self._is_behind else max(self._soonest - self._clock(), 0.0)
        self._is_behind = False
        if self._looking:
            left = min(left, LOOK_SECONDS)
        self._take(self._poll.poll(left * 1000))
        if self._looking:
            for exchange in list(self._looking):
                self._step(exchange, LOOK)
        if self._now >= self._soonest:
            self._wake()
        for exchange in self._beaten:
            self._release(exchange)
        self._beaten.clear()

    def _take(self, ready: list[tuple[int, int]]) -> None:
        """Read what has come; of answers that came together, one is recorded as a silence."""
        now = self._now = self._clock()
        if not ready:
            return
        first = self._by_fd[ready[0][0]]
        silence, hedging, number = first.silence(now), first.request.hedging, len(self._done)
        for fd, events in ready:
            self._step(self._by_fd[fd], events)
        if hedging is not None and len(self._done) > number:
            request, result = self._done[number]
            if request.hedging is hedging and is_decisive(result):
                hedging.silence.record(silence)

    def _wake(self) -> None:
        """Go on where time is up, and ask again where it was silent for too long."""
        now = self._now
        for exchange in [each for each in self._exchanges if each.ends_at() <= now]:
            self._step(exchange, 0)
        silent = [each for each in self._exchanges if each.due_at <= now]
        if silent:
            # A last look: this process may have slept, not the service.
            self._take(self._poll.poll(0))
            self._ask_again(silent)
        self._soonest = soonest(self._exchanges)

    def _ask_again(self, silent: list[Exchange]) -> None:
        """Send one more request for each that is silent still, until that is not allowed."""
        now, may_ask = self._now, True
        for exchange in silent:
            if exchange.due_at > now or exchange not in self._exchanges:
                continue
            may_ask = may_ask and self._hedge(exchange)
            if not may_ask:
                exchange.wait(now)

    def _hedge(self, exchange: Exchange) -> bool:
        """Ask again on another connection; False when there is none to spare, or no token."""
        if self._has_failed or self._deferred or len(self._exchanges) >= self._limit:
            return False  # unsent requests come first
        hedge = Exchange()
        self._exchanges.add(hedge)
        connection = self._pool.take_spare(fresh=exchange.race is not None)
        if connection is not None:
            hedge.connection, hedge.is_taken = connection, True
        hedging = exchange.request.hedging
        if connection is None or hedging is None or not hedging.may_ask():
            self._release(hedge)
            return False
        if not connection.is_open:
            hedge.is_opening = True
            self._opening += 1
        race = exchange.race = exchange.race or Race(exchange)
        race.join(hedge, self._now)
        hedge.steps = connection.handle(exchange.request, self._common)
        self._step(hedge, None)
        return True

    def _step(self, exchange: Exchange, events: int | None) -> None:
        try:
            wanted = exchange.steps.send(events)  # type: ignore[union-attr, arg-type]  # None starts it
        except StopIteration as done:
            if exchange.race is None:
                self._done.append((exchange.request, done.value))
            else:
                self._leave(exchange.race, exchange, done.value)
        except MomentoError as error:
            if exchange.race is None:
                self._fail(exchange.request, error)
            else:
                self._leave(exchange.race, exchange, error)
        else:
            if events and not exchange.is_opening:
                exchange.heard(self._now)
            self._watch(exchange, wanted)
            return
        self._finish(exchange)

    def _leave(self, race: Race, exchange: Exchange, result: Result) -> None:
        """Take in what one of a race ended with."""
        if not race.is_ended_by(exchange, result, self._now):
            self._soonest = min(self._soonest, soonest(race.exchanges))
            return
        self._beaten += race.exchanges
        if isinstance(result, MomentoError):
            self._fail(exchange.request, result)
        else:
            self._done.append((exchange.request, result))

    def _finish(self, exchange: Exchange) -> None:
        if exchange.is_opening:
            self._opened(exchange)
        is_reusable = exchange.connection.reusable and exchange.race is None
        if is_reusable and not self._pool.has_waiters:
            request = self._next() if self._deferred or self._waiting() else None
            if request is not None:
                # A peer that has left, or said more than it was asked, shows now.
                if not request.fresh and exchange.connection.is_reusable_now():
                    self._load(exchange, request)
                    return
                self._deferred = request
        self._release(exchange)

    def _leave_all(self) -> None:
        self._reserve.leave()
        self._release_all()
