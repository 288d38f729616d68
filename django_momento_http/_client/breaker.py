"""When to stop asking, and when to ask again: one circuit breaker as a plain object.

It knows nothing of HTTP, sockets, settings or loggers: errors, seconds and chance go in,
decisions come out. The constants are tuned by ``benchmarks/simulate_breaker.py``.
"""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from typing import NamedTuple

from ..exceptions import (
    AccessDenied,
    BadRequest,
    CacheNotFound,
    CircuitOpen,
    MomentoError,
    RateLimited,
)

# The breaker. The simulation chose the first four and the pauses. In deadlines ...
BUDGET = 2.8  # may be lost: what a page pays, once; under 3, as timeouts come a little early
REFUND = 0.25  # a success gives back; with 0.2, one in 20 timing out opens it too often
LEAST_LOSS = 0.25  # an instant failure costs: many of them open it, one 503 in five does not
ALLOWANCE = 1.0  # left after a successful probe; with more, a half-dead service slows more pages
PROBE_TIMEOUT = 2.0  # until a probe that never reports is given up
# ... in seconds ...
LASTING = 0.5  # that instant failures must last to open it: a restart of the service does not
FIRST_PAUSE = 1.5  # it stays open; twice that after each failed probe
LONGEST_PAUSE = 9.0  # with a probe that times out, a recovery is seen within 11
LONGEST_RETRY_AFTER = 5.0  # what the service may ask for
# ... and as numbers.
JITTER = 0.2  # the share of a pause left to chance, so that processes do not probe in step
LIMITS_IN_A_ROW = 5  # answers 429: fewer may be one burst
NEVER = float("-inf")


class Cause(NamedTuple):
    """What opened a breaker, in words: the error itself would keep its caller's frames alive."""

    kind: str
    reason: str
    advice: str


_NO_CAUSE = Cause("", "", "")


@dataclass(frozen=True, slots=True)
class Condition:
    """All that a breaker knows, replaced as a whole: no interrupt leaves half of it behind."""

    permit: int | None = 0  # everybody's while closed, None otherwise
    is_unimpaired: bool = True  # nothing is lost, no limit met: a success has nothing to give back
    epoch: int = 0
    is_probing: bool = False
    until: float = 0.0  # open: the time of the probe; half-open: when the probe is given up
    lost: float = 0.0  # deadlines; the whole budget unless closed
    waited: float = 0.0  # what of these was time, and not the price of failing at once
    since: float = 0.0  # the first loss of these, or the end of the trouble before them
    limits: int = 0  # 429s in a row
    limited_at: float = NEVER  # the last of them
    pause: float = FIRST_PAUSE
    openings: int = 0
    opened_at: float = 0.0
    cause: Cause = _NO_CAUSE
    refusals: "count[int]" = field(default_factory=count)  # since it opened; needs no lock

    @property
    def state(self) -> str:
        """Name the state: ``closed``, ``open`` or ``half-open``."""
        if self.permit is not None:
            return "closed"
        return "half-open" if self.is_probing else "open"


class _Spent(NamedTuple):
    """What an operation has cost: its seconds, and its part of the loss, in deadlines."""

    seconds: float
    loss: float
    is_late: bool


class Breaker:
    """Stop asking a service that costs more time than it is worth; ask again one at a time.

    ``admit`` gives a permit, ``record`` takes it back with the result. Opening and probing
    start a new epoch, and a permit of an older epoch no longer counts; a permit that never comes
    back costs nothing but, if it was the probe's, some time. The lock is never held during a
    request or while ``on_change`` is told, nor taken at all while nothing is wrong.
    """

    def __init__(
        self,
        deadline: float,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
        on_change: Callable[[Condition, Condition], None] | None = None,
    ) -> None:
        self._deadline = deadline
        self._clock = clock
        self._random = random
        self._on_change = on_change
        self._lock = threading.RLock()
        self.condition = Condition()

    @property
    def permit(self) -> int | None:
        """What everybody is given while it is closed, None otherwise."""
        return self.condition.permit

    @property
    def state(self) -> str:
        """Name the state: ``closed``, ``open`` or ``half-open``."""
        return self.condition.state

    @property
    def openings(self) -> int:
        """How often it opened, failed probes included."""
        return self.condition.openings

    def was_limited(self, seconds: float) -> bool:
        """Whether an answer 429 came within the last so many seconds."""
        limited_at = self.condition.limited_at
        return limited_at != NEVER and self._clock() - limited_at < seconds

    def admit(self) -> int | None:
        """Give a permit for one operation, or None: answer at once without a socket."""
        condition = self.condition
        if condition.permit is not None:
            return condition.permit
        if self._clock() < condition.until:
            next(condition.refusals)
            return None
        before, after = self._change(self._begin_probe)
        return after.permit if after is before else after.epoch

    def record(
        self,
        permit: int,
        error: MomentoError | None,
        elapsed: float,
        *,
        concurrency: int = 1,
        is_late: bool = False,
    ) -> None:
        """Take the result of an admitted operation and the seconds that it took.

        ``concurrency`` is how many requests of a call were under way: each is charged its share of
        the seconds, because the caller waits for all of them together. An operation that had little
        time left and failed when that was up ``is_late``: it is charged that time, and no more.
        """
        if error is None and self.condition.is_unimpaired:
            return
        spent = _Spent(elapsed, elapsed / self._deadline / concurrency, is_late)
        self._change(lambda condition: self._judge(condition, permit, error, spent))

    def _change(self, step: Callable[[Condition], Condition]) -> tuple[Condition, Condition]:
        """Take a step and return the conditions before and after it."""
        with self._lock:
            while True:
                before = self.condition
                after = step(before)
                # A signal handler of this thread may have used the breaker meanwhile.
                if self.condition is before:
                    self.condition = after
                    break
        if self._on_change is not None and before.state != after.state:
            self._on_change(before, after)
        return before, after

    def _begin_probe(self, condition: Condition) -> Condition:
        now = self._clock()
        if condition.permit is not None or now < condition.until:
            return condition  # another thread was faster
        until = now + PROBE_TIMEOUT * self._deadline
        return replace(condition, is_probing=True, until=until, epoch=condition.epoch + 1)

    def _judge(
        self, condition: Condition, permit: int, error: MomentoError | None, spent: _Spent
    ) -> Condition:
        if permit != condition.epoch:
            return condition
        match error:
            case RateLimited():
                after = self._limit(condition, error)
            case CacheNotFound() | AccessDenied(status=401):
                # No request can succeed until a setting is corrected.
                after = self._open(condition, error)
            case CircuitOpen() | BadRequest(status=0):
                # Not sent: if it was the probe, the next caller sends one.
                after = replace(condition, until=self._clock())
            case MomentoError(transient=True):
                after = self._fail(condition, error, spent)
            case _:
                after = self._succeed(condition)  # a 400 or a 403 too: the service is up
        is_unimpaired = not after.lost and not after.limits
        return (
            after
            if is_unimpaired == after.is_unimpaired
            else replace(after, is_unimpaired=is_unimpaired)
        )

    def _succeed(self, condition: Condition) -> Condition:
        if condition.is_probing:
            left, now = BUDGET - ALLOWANCE, self._clock()
            condition = replace(condition, permit=condition.epoch, is_probing=False, since=now)
            condition = replace(condition, lost=left, waited=left)
        lost = max(0.0, condition.lost - REFUND)
        return replace(
            condition,
            lost=lost,
            waited=max(0.0, condition.waited - REFUND),
            limits=0,
            pause=condition.pause if lost else FIRST_PAUSE,
        )

    def _fail(self, condition: Condition, error: MomentoError, spent: _Spent) -> Condition:
        now = self._clock()
        waited = condition.waited + spent.loss
        least = 0.0 if spent.is_late else LEAST_LOSS
        lost = min(BUDGET, condition.lost + max(spent.loss, least))
        since = condition.since if condition.lost else now - spent.seconds
        has_lasted = lost >= BUDGET and now - since >= LASTING
        if has_lasted or waited >= BUDGET or condition.is_probing:
            return self._open(condition, error)
        return replace(condition, lost=lost, waited=waited, since=since)

    def _limit(self, condition: Condition, error: RateLimited) -> Condition:
        limits = condition.limits + 1
        condition = replace(condition, limited_at=self._clock())
        if error.retry_after > 0:
            return self._open(condition, error, min(error.retry_after, LONGEST_RETRY_AFTER))
        if condition.is_probing or limits >= LIMITS_IN_A_ROW:
            return self._open(condition, error, FIRST_PAUSE)
        return replace(condition, limits=limits)

    def _open(
        self, condition: Condition, error: MomentoError, seconds: float | None = None
    ) -> Condition:
        now = self._clock()
        pause = condition.pause
        if seconds is None:
            seconds = pause * (1 - JITTER * self._random())
            pause = min(2 * pause, LONGEST_PAUSE)
        if condition.permit is not None:
            condition = replace(condition, opened_at=now, refusals=count())
        return replace(
            condition,
            permit=None,
            epoch=condition.epoch + 1,
            is_probing=False,
            until=now + seconds,
            lost=BUDGET,
            waited=BUDGET,
            limits=0,
            pause=pause,
            openings=condition.openings + 1,
            cause=Cause(error.kind, error.reason, error.advice),
        )

    def __repr__(self) -> str:
        state, openings = self.state, self.openings
        lost = self.condition.lost * self._deadline
        left = self.condition.until - self._clock()
        wait = "" if state != "open" else f", probe in {left:.1f} s"
        return f"<Breaker {state}, {lost:.1f} s lost{wait}, {openings} openings>"
