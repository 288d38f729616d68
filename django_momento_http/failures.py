"""When to try again, when to stop asking, when to log: the failure policy as plain objects.

It knows nothing of HTTP, sockets, settings or loggers: errors, seconds and chance go in,
decisions come out. The constants are tuned by ``benchmarks/simulate_breaker.py``.
"""

import random
import threading
import time
from collections.abc import Callable

from .exceptions import (
    AccessDenied,
    BadRequest,
    CacheNotFound,
    CircuitOpen,
    MomentoError,
    RateLimited,
    ServiceFailed,
    TransportError,
)

RETRY_STATUSES = frozenset({500, 502, 503, 504})
LEAST_TIME_LEFT = 0.1  # of the deadline: with less, a second attempt would time out too

# The breaker. The simulation chose the first four and the pauses. In deadlines ...
BUDGET = 2.8  # may be lost: what a page pays, once; under 3, as timeouts come a little early
REFUND = 0.25  # a success gives back; with 0.2, one in 20 timing out opens it too often
LEAST_LOSS = 0.25  # an instant failure costs: 12 refusals open it, one 503 in five does not
ALLOWANCE = 1.0  # left after a successful probe: more, and a half-dead service costs more pages
PROBE_PATIENCE = 2.0  # until a probe that never reports is given up
# ... in seconds ...
FIRST_PAUSE = 1.5  # it stays open; twice that after each failed probe
LONGEST_PAUSE = 9.0  # with a probe that times out, a recovery is seen within 11
LONGEST_RETRY_AFTER = 5.0  # what the service may ask for
# ... and as numbers.
JITTER = 0.2  # the share of a pause left to chance, so that processes do not probe in step
LIMITS_IN_A_ROW = 5  # answers 429: fewer may be one burst


def may_retry(error: MomentoError, remaining: float, deadline: float) -> bool:
    """Allow one more attempt after a broken connection or a 5xx, while there is time for it."""
    if remaining < deadline * LEAST_TIME_LEFT:
        return False
    if isinstance(error, ServiceFailed):
        return error.status in RETRY_STATUSES
    return type(error) is TransportError and error.kind == "connection"


class RetryBudget:
    """Hold a dying service's extra requests to a tenth: a retry costs what ten operations earn."""

    _FULL, _COST = 100, 10  # in tenths of a token, because integers add up exactly

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tenths = self._FULL

    def earn(self) -> None:
        """Give back a tenth of a token: call it for every operation that was sent once."""
        if self._tenths == self._FULL:
            return
        with self._lock:
            self._tenths = min(self._FULL, self._tenths + 1)

    def spend(self) -> bool:
        """Take the token for one retry, or say that there is none."""
        with self._lock:
            if self._tenths < self._COST:
                return False
            self._tenths -= self._COST
            return True

    def __repr__(self) -> str:
        return f"<RetryBudget {self._tenths / 10:g} tokens>"


class Breaker:
    """Stop asking a service that costs more time than it is worth; ask again one at a time.

    ``admit`` gives a ticket, ``record`` takes it back with the result. Opening and probing
    start a new epoch, and a ticket of an older epoch no longer counts. The lock is never held
    during a request, nor taken at all while nothing is wrong.
    """

    def __init__(
        self,
        deadline: float,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
        on_change: Callable[[str, str], None] | None = None,
    ) -> None:
        self._deadline = deadline
        self._clock = clock
        self._random = random
        self._on_change = on_change
        self._lock = threading.Lock()
        self._epoch = 0
        self.ticket: int | None = 0  # everybody's while closed, None otherwise
        self.is_calm = True  # a success changes nothing
        self._is_probing = False
        self._until = 0.0  # open: the time of the probe; half-open: when the probe is given up
        self._lost = 0.0  # deadlines; the whole budget unless closed
        self._limits = 0  # 429s in a row
        self._pause = FIRST_PAUSE
        self.openings = 0

    @property
    def state(self) -> str:
        """Name the state: ``closed``, ``open`` or ``half-open``."""
        if self.ticket is not None:
            return "closed"
        return "half-open" if self._is_probing else "open"

    def admit(self) -> int | None:
        """Give a ticket for one operation, or None: answer at once without a socket."""
        ticket = self.ticket
        if ticket is not None or self._clock() < self._until:
            return ticket
        return self._admit_probe()

    def record(self, ticket: int, error: MomentoError | None, elapsed: float) -> None:
        """Take the result of an admitted operation and the seconds that it took.

        One of n requests of a call, under way at once, passes an n-th of its seconds: the caller
        waits for them together.
        """
        if error is None and self.is_calm:
            return
        with self._lock:
            if ticket != self._epoch:
                return
            old = self.state
            self._judge(error, elapsed)
            new = self.state
        self._announce(old, new)

    def _admit_probe(self) -> int | None:
        with self._lock:
            if self.ticket is not None or self._clock() < self._until:
                return self.ticket
            old = self.state
            self._is_probing = True
            self._until = self._clock() + PROBE_PATIENCE * self._deadline
            self._epoch = probe = self._epoch + 1
        self._announce(old, "half-open")
        return probe

    def _judge(self, error: MomentoError | None, elapsed: float) -> None:
        match error:
            case RateLimited(retry_after=seconds):
                self._limit(seconds)
            case CacheNotFound() | AccessDenied(status=401):
                self._open()  # no request can succeed until a setting is corrected
            case CircuitOpen() | BadRequest(status=0):
                self._until = self._clock()  # not sent: if it was the probe, the next caller's is
            case MomentoError(transient=True):
                self._fail(elapsed)
            case _:
                self._succeed()  # a 400 or a 403 too: the service is up
        self.is_calm = not self._lost and not self._limits

    def _succeed(self) -> None:
        self._limits = 0
        if self._is_probing:
            self._lost = BUDGET - ALLOWANCE
            self._is_probing = False
            self.ticket = self._epoch
        self._lost = max(0.0, self._lost - REFUND)
        if not self._lost:
            self._pause = FIRST_PAUSE

    def _fail(self, elapsed: float) -> None:
        self._lost += max(elapsed / self._deadline, LEAST_LOSS)
        if self._lost >= BUDGET:  # as it always is while probing
            self._open()

    def _limit(self, retry_after: float) -> None:
        self._limits += 1
        if self._is_probing or retry_after > 0 or self._limits >= LIMITS_IN_A_ROW:
            self._open(min(retry_after, LONGEST_RETRY_AFTER) if retry_after > 0 else FIRST_PAUSE)

    def _open(self, seconds: float | None = None) -> None:
        if seconds is None:
            seconds = self._pause * (1 - JITTER * self._random())
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._until = self._clock() + seconds
        self._lost = BUDGET
        self._limits = 0
        self._epoch += 1
        self._is_probing = False
        self.ticket = None
        self.openings += 1

    def _announce(self, old: str, new: str) -> None:
        if self._on_change is not None and old != new:
            self._on_change(old, new)

    def __repr__(self) -> str:
        lost = self._lost * self._deadline
        wait = "" if self.state != "open" else f", probe in {self._until - self._clock():.1f} s"
        return f"<Breaker {self.state}, {lost:.1f} s lost{wait}, {self.openings} openings>"


class LogLimiter:
    """Let one line per operation and kind through in ten seconds, and count the others."""

    _SECONDS = 10.0
    _MOST = 256  # pairs remembered: more than all operations times all kinds of error

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._lines: dict[tuple[str, str], tuple[float, int]] = {}  # next line due, held back

    def allow(self, operation: str, kind: str) -> int | None:
        """Return how many lines were held back since the last one, or None: hold this one back."""
        pair = operation, kind
        now = self._clock()
        with self._lock:
            due, held = self._lines.get(pair, (now, 0))
            if now < due:
                self._lines[pair] = due, held + 1
                return None
            if len(self._lines) >= self._MOST:
                del self._lines[min(self._lines, key=self._lines.__getitem__)]
            self._lines[pair] = now + self._SECONDS, 0
            return held
