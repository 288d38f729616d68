"""A request on its connection, and the races of several that ask for the same.

The first whole answer that counts ends a race; any other counts only when it is the last. It knows
no sockets: the multiplexer drives it.
"""

from collections.abc import Iterable

from .connection import Connection
from .hedging import DECISIVE
from .messages import Hedges, Request, Response, Result
from .stream import IOSteps

NEVER = float("inf")


class Exchange:
    """A request on its connection; ``is_taken`` while it must give that back.

    Its peer was last ``heard_at``; if it stays silent, it is asked again at ``due_at``.
    """

    __slots__ = (
        "connection",
        "due_at",
        "fd",
        "heard_at",
        "is_hedge",
        "is_opening",
        "is_taken",
        "longest_silence",
        "race",
        "request",
        "steps",
        "until",
        "wanted",
    )
    request: Request
    connection: Connection
    until: float
    heard_at: float

    def __init__(self) -> None:
        self.is_taken = self.is_opening = self.is_hedge = False
        self.steps: IOSteps[Response] | None = None
        self.fd = -1
        self.wanted = 0
        self.race: Race | None = None
        self.due_at = NEVER
        self.longest_silence = 0.0

    @classmethod
    def of(
        cls,
        request: Request,
        connection: Connection,
        steps: IOSteps[Response],
        heard_at: float,
        longest_silence: float,
    ) -> "Exchange":
        """Return what goes on with a request; its connection stays the caller's."""
        exchange = cls()
        exchange.request, exchange.connection, exchange.steps = request, connection, steps
        exchange.heard_at, exchange.longest_silence = heard_at, longest_silence
        exchange.until = request.deadline
        return exchange

    def begin(self, request: Request, now: float) -> None:
        """Take this request next."""
        self.request = request
        self.heard_at = now
        self.longest_silence = 0.0
        hedging = request.hedging
        if hedging is not None and not self.is_opening:
            self.due_at = hedging.due_at(now, 1 + request.resends)
        else:
            self.due_at = NEVER

    def heard(self, now: float) -> None:
        """Take note that the peer said something, but not all."""
        self.longest_silence = self.silence(now)
        self.heard_at = now
        self.wait(now)

    def opened(self, now: float) -> float:
        """Take note that the connection is there, and return when it has been silent too long."""
        self.heard_at = now
        self.wait(now)
        return self.due_at if self.race is None else self.race.exchanges[0].due_at

    def wait(self, now: float) -> None:
        """Let its silence begin now."""
        if self.race is not None:
            self.race.wait(now)
        elif self.request.hedging is not None:
            self.due_at = self.request.hedging.due_at(now, self.request.requests)

    def silence(self, now: float) -> float:
        """Return the longest silence of its answer, the present one included."""
        return max(self.longest_silence, now - self.heard_at)

    def ends_at(self) -> float:
        """Return when the exchange must have moved on."""
        return min(self.until, self.connection.until)

    def postpone(self, seconds: float) -> None:
        """Take these seconds as not passed."""
        self.until += seconds
        self.heard_at += seconds
        self.due_at += seconds
        self.connection.postpone(seconds)


class Race:
    """Exchanges that ask for the same; the first of them is asked again for all."""

    def __init__(self, first: Exchange) -> None:
        self.exchanges = [first]
        self.is_over = False

    def join(self, hedge: Exchange, now: float) -> None:
        """Let one more take part."""
        first = self.exchanges[0]
        request = hedge.request = first.request
        hedge.race, hedge.is_hedge = self, True
        hedge.until, hedge.heard_at = first.until, now
        self.exchanges.append(hedge)
        if request.hedges is None:
            request.hedges = Hedges()
        request.hedges.count += 1
        self.wait(now)

    def wait(self, now: float) -> None:
        """Let the silence of all begin now; one that is still connecting has not yet asked."""
        first = self.exchanges[0]
        for each in self.exchanges:
            each.due_at = NEVER
        # A generator that is left in the middle would swallow what a signal handler raises.
        opening = [each for each in self.exchanges if each.is_opening]
        hedging = first.request.hedging
        if hedging is not None and not opening:
            first.due_at = hedging.due_at(now, first.request.requests)

    def is_ended_by(self, exchange: Exchange, result: Result, now: float) -> bool:
        """Whether the result of one of them is the result of the request."""
        self.exchanges.remove(exchange)
        hedges = exchange.request.hedges
        counts = is_decisive(result)
        if not self.is_over and (counts or not self.exchanges):
            self.is_over = True
            for each in self.exchanges:
                each.due_at = NEVER
            if hedges is not None:
                hedges.has_won = counts and exchange.is_hedge
            return True
        if hedges is not None and isinstance(result, Response):
            hedges.lost.append(result)
        if not self.is_over:
            self.wait(now)
        return False


def is_decisive(result: Result) -> bool:
    """Whether this counts even while others are awaited."""
    return isinstance(result, Response) and result.status in DECISIVE


def soonest(exchanges: Iterable[Exchange]) -> float:
    """Return when the first of these must be looked at."""
    return min((min(each.ends_at(), each.due_at) for each in exchanges), default=NEVER)
