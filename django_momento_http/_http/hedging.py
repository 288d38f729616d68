"""When to ask a second time: a GET that is silent for longer than nearly all others were.

Dean and Barroso, *The Tail at Scale*, 2013. Seconds go in, and when to ask again comes out; what
that may cost is a budget's business. It knows nothing of sockets, nor of what is asked. The
constants are chosen by ``benchmarks/simulate_breaker.py``.
"""

from collections.abc import Callable
from typing import Protocol

# Of the last so many silences ...
WINDOW = 128
# ... this share was shorter than the quantile ...
QUANTILE = 0.95
# ... and so many times that is longer than nearly all. The quantile alone would ask 5 % twice.
FACTOR = 2.0
# Seconds; below, a hedge costs more than the wait, and a busy processor looks like a silence.
FLOOR = 0.010
# Seconds until there are enough silences to judge by.
COLD = 0.100
ENOUGH = 100
# How many silences pass before the quantile is found anew: sorting costs a few microseconds.
RENEWED_EVERY = 32
# Silences without which nothing is changed.
_FEWEST = 8
# Requests that one GET may make, a retry included.
MOST_REQUESTS = 3
# Answers that count as soon as they are whole; any other may still be bettered.
DECISIVE = frozenset({200, 404})
_KIB = 1024


class Silence:
    """How long an answer of one endpoint may be silent before it is asked for again.

    A silence is time without a byte on an open connection: from the request written to the first
    byte of its answer, and between pieces of it. The longest of each answer that won is recorded;
    an answer that never came has none, and would only raise the threshold. Safe under threads and
    in signal handlers: of two that record at once, one is lost.
    """

    __slots__ = ("_count", "_next", "_seconds", "threshold")

    def __init__(self) -> None:
        self._seconds = [0.0] * WINDOW
        self._count, self._next = 0, ENOUGH
        self.threshold = COLD

    def __repr__(self) -> str:
        return f"<Silence of {1000 * self.threshold:.0f} ms, {self._count} recorded>"

    def record(self, seconds: float) -> None:
        """Take in the longest silence of an answer."""
        count = self._count
        self._seconds[count % WINDOW] = seconds
        self._count = count = count + 1
        # What came after more than that was asked for again in vain.
        if count >= self._next or (seconds > self.threshold and count >= _FEWEST):
            self._renew(count)

    def _renew(self, count: int) -> None:
        known = sorted(self._seconds[: min(count, WINDOW)])
        if count < ENOUGH:
            # A few tell only that all are slow.
            self.threshold = max(COLD, FACTOR * known[count // 2])
            return
        self._next = count + RENEWED_EVERY
        self.threshold = max(FLOOR, FACTOR * known[int(QUANTILE * len(known))])


class Budget(Protocol):
    """What pays for requests that nobody asked for."""

    def spend_on_hedge(self) -> bool:
        """Take the token for one hedge, or say that there is none to spare."""

    def charge(self, tokens: int) -> None:
        """Take what a hedge has cost besides."""


class Hedging:
    """What decides whether, and when, a GET of one client is asked for again.

    ``may_send_extra`` says whether requests that nobody waits for may go out at all.
    """

    __slots__ = ("_budget", "_may_send_extra", "silence")

    def __init__(
        self, silence: Silence, budget: Budget, may_send_extra: Callable[[], bool]
    ) -> None:
        self.silence = silence
        self._budget = budget
        self._may_send_extra = may_send_extra

    def due_at(self, heard_at: float, requests: int) -> float:
        """Return when to ask again, after so many requests, last heard of then; inf: never."""
        return heard_at + self.silence.threshold if requests < MOST_REQUESTS else float("inf")

    def may_ask(self) -> bool:
        """Whether one more request may be sent now; it is paid for by that."""
        return self._may_send_extra() and self._budget.spend_on_hedge()

    def settle(self, hedges: int, size: int) -> None:
        """Pay for what an answer of so many bytes has cost beyond the first KiB of each hedge."""
        started = -(-size // _KIB)
        if started > 1:
            self._budget.charge(hedges * (started - 1))
