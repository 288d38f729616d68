"""The breakers that every operation passes, and which of them an error concerns.

One is the service's and shared by all caches of an endpoint: it counts time lost. The other is this
configuration's: a refused token, a missing cache or a used-up limit opens it. It sends nothing.
"""

import logging
import time
from collections.abc import Callable

from .exceptions import (
    AccessDenied,
    CacheNotFound,
    CircuitOpen,
    MomentoError,
    RateLimited,
)
from .failures import Breaker

logger = logging.getLogger("django_momento_http")

# Trouble with this account or cache; the service itself is well.
_ACCOUNT_ERRORS = (AccessDenied, CacheNotFound, RateLimited)
_UNKNOWN = CircuitOpen()
_FORBIDDEN = 403  # concerns one operation, and opens nothing
# After an answer 429 an account is given so many seconds without requests that could wait.
_SPARED_SECONDS = 60.0
# What an admitted operation was given by each breaker: the account's, the service's.
Tickets = tuple[int, int]


class Gates:
    """The breakers of one configuration; safe under threads."""

    def __init__(
        self, service: Breaker, account: Breaker, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._service = service
        self._account = account
        self._clock = clock
        self._spared_until = 0.0  # 0: no limit was ever met
        self._trouble = "", ""  # what opened the account's breaker: reason and advice

    def __repr__(self) -> str:
        return f"<Gates {self._service!r} {self._account!r}>"

    @property
    def state(self) -> str:
        """The state of the breaker that keeps requests back, ``closed`` if neither does."""
        return self._account.state if self._service.state == "closed" else self._service.state

    @property
    def openings(self) -> int:
        """How often they opened."""
        return self._account.openings + self._service.openings

    @property
    def is_unimpaired(self) -> bool:
        """Whether requests that nobody waits for may go out: all closed, no limit met lately."""
        if self._account.ticket is None or self._service.ticket is None:
            return False
        return not self._spared_until or self._clock() >= self._spared_until

    def admit(self) -> Tickets | CircuitOpen:
        """Let an operation pass, or return why it must not be sent."""
        # As each breaker's admit does while it is closed: this is on the way of every operation.
        account, service = self._account.ticket, self._service.ticket
        if account is not None and service is not None:
            return account, service
        return self._admit_in_trouble()

    def _admit_in_trouble(self) -> Tickets | CircuitOpen:
        account = self._account.admit()
        if account is None:
            return self._refuse_for_the_account()
        service = self._service.admit()
        if service is None:
            if account != self._account.ticket:  # a probe, which is the next caller's then
                self._account.record(account, _UNKNOWN, 0.0)
            return CircuitOpen("not attempted after trouble with the service")
        return account, service

    def record(self, tickets: Tickets, error: MomentoError | None, elapsed: float) -> None:
        """Take the result of an admitted operation and the seconds that it cost."""
        if error is None and self._account.is_calm and self._service.is_calm:
            return
        if isinstance(error, RateLimited):
            self._spared_until = self._clock() + _SPARED_SECONDS
        of_account = of_service = error
        if isinstance(error, _ACCOUNT_ERRORS):
            of_service = None
        elif error is not None and error.transient:
            of_account = _UNKNOWN  # no answer says nothing of the account
        self._record_account(tickets, of_account, elapsed)
        self._service.record(tickets[1], of_service, elapsed)

    def _record_account(self, tickets: Tickets, error: MomentoError | None, elapsed: float) -> None:
        if isinstance(error, _ACCOUNT_ERRORS) and error.status != _FORBIDDEN:
            self._trouble = error.reason, error.advice
        self._account.record(tickets[0], error, elapsed)

    def _refuse_for_the_account(self) -> CircuitOpen:
        """Say what opened the account's breaker: it stays open until that is mended."""
        reason, advice = self._trouble
        refused = CircuitOpen(f"not attempted since: {reason}")
        refused.advice = advice
        return refused

    def give_back(self, tickets: Tickets, of_account: MomentoError = _UNKNOWN) -> None:
        """Take back what was not sent after all: a probe is then the next caller's."""
        self._record_account(tickets, of_account, 0.0)
        self._service.record(tickets[1], _UNKNOWN, 0.0)


def breaker(deadline: float, name: str) -> Breaker:
    """Return a breaker that logs its changes under a name."""

    def log(old: str, new: str) -> None:
        logger.warning("Momento %s: breaker %s, was %s", name, new, old)

    return Breaker(deadline, on_change=log)
