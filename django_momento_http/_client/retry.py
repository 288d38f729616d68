"""When to try again: which errors, and the budget of extra requests.

It knows nothing of sockets, settings or statuses' meaning: errors and seconds go in, decisions come
out.
"""

import threading

from ..exceptions import MomentoError, ServiceFailed, TransportError

RETRY_STATUSES = frozenset({500, 502, 503, 504})
LEAST_TIME_LEFT = 0.1  # of the deadline: with less, a second attempt would time out too


def may_retry(error: MomentoError, remaining: float, deadline: float) -> bool:
    """Allow one more attempt after a broken connection or a 5xx, while there is time for it."""
    if remaining < deadline * LEAST_TIME_LEFT:
        return False
    if isinstance(error, ServiceFailed):
        return error.status in RETRY_STATUSES
    return type(error) is TransportError and error.kind == "connection"


class RetryBudget:
    """Hold all extra requests, retries and hedges, to a tenth: each costs what ten operations earn.

    A hedge leaves half of the bucket to retries, which are worth more: without one there is no
    answer at all. What it costs is known only by its answer, so it may leave the bucket in debt.
    """

    # In tenths of a token, because integers add up exactly.
    FULL, _SPARED, _COST = 100, 50, 10

    def __init__(self) -> None:
        self._lock = threading.RLock()
        # A new process has earned nothing yet.
        self.tenths = self._SPARED

    def earn(self) -> None:
        """Give back a tenth of a token: call it for every operation that was sent once."""
        with self._lock:
            self.tenths = min(self.FULL, self.tenths + 1)

    def spend(self) -> bool:
        """Take the token for one retry, or say that there is none."""
        return self._spend(self._COST)

    def spend_on_hedge(self) -> bool:
        """Take the token for one hedge, or say that there is none to spare."""
        return self._spend(self._SPARED + 1)

    def charge(self, tokens: int) -> None:
        """Take what a hedge has cost besides, also where there is not so much."""
        with self._lock:
            self.tenths -= self._COST * tokens

    def _spend(self, least: int) -> bool:
        with self._lock:
            if self.tenths < least:
                return False
            self.tenths -= self._COST
            return True

    def __repr__(self) -> str:
        return f"<RetryBudget {self.tenths / 10:g} tokens>"
