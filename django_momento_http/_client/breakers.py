"""The two breakers that every operation passes, and which of them an error concerns.

One is the service's and shared by all caches of an endpoint: it counts time lost. The other is the
account's and shared by all that use one cache with one token: a refused token, a missing cache or a
used-up limit opens it. It sends nothing.
"""

import logging

from ..exceptions import AccessDenied, CacheNotFound, CircuitOpen, MomentoError, RateLimited
from .breaker import Breaker, Condition

logger = logging.getLogger("django_momento_http")

# Trouble with this account or cache; the service itself is well.
_ACCOUNT_ERRORS = (AccessDenied, CacheNotFound, RateLimited)
# Kinds of what was not sent for want of a connection or of time: our own shortage.
OUR_SHORTAGE = frozenset({"no_time", "pool_timeout"})
_UNKNOWN = CircuitOpen()
# After an answer 429 an account is given so many seconds without requests that could wait.
_SPARED_SECONDS = 60.0
# What an admitted operation was given by each breaker: the account's, the service's.
Permits = tuple[int, int]


class Breakers:
    """The breakers of one configuration; safe under threads."""

    def __init__(self, service: Breaker, account: Breaker) -> None:
        self.service = service
        self.account = account

    def __repr__(self) -> str:
        return f"<Breakers {self.service!r} {self.account!r}>"

    @property
    def state(self) -> str:
        """The state of the breaker that keeps requests back, ``closed`` if neither does."""
        return self.account.state if self.service.state == "closed" else self.service.state

    @property
    def openings(self) -> int:
        """How often they opened."""
        return self.account.openings + self.service.openings

    @property
    def may_send_extra(self) -> bool:
        """Whether requests that nobody waits for may go out: all closed, no limit met lately."""
        if self.account.condition.permit is None or self.service.condition.permit is None:
            return False
        return not self.account.was_limited(_SPARED_SECONDS)

    def admit(self) -> Permits | CircuitOpen:
        """Let an operation pass, or return why it must not be sent."""
        account = self.account.admit()
        if account is None:
            return self._refuse_for_the_account()
        service = self.service.admit()
        if service is None:
            if account != self.account.permit:  # a probe, which the next caller sends
                self.account.record(account, _UNKNOWN, 0.0)
            return CircuitOpen("not attempted after trouble with the service")
        return account, service

    def record(
        self,
        permits: Permits,
        error: MomentoError | None,
        elapsed: float,
        *,
        concurrency: int = 1,
        is_late: bool = False,
    ) -> None:
        """Take the result of an admitted operation, as each breaker does."""
        if error is None:
            self.account.record(permits[0], None, elapsed)
            self.service.record(permits[1], None, elapsed)
        elif error.kind in OUR_SHORTAGE:
            self.give_back(permits)
        elif isinstance(error, _ACCOUNT_ERRORS):
            self.account.record(permits[0], error, elapsed)
            self.service.record(permits[1], None, elapsed)
        else:
            # Where no answer came, nothing is known of the account.
            of_account = _UNKNOWN if error.transient else error
            self.account.record(permits[0], of_account, elapsed)
            self.service.record(
                permits[1], error, elapsed, concurrency=concurrency, is_late=is_late
            )

    def record_lost(self, permits: Permits, error: MomentoError) -> None:
        """Take an answer that another has beaten: of interest where it concerns the account."""
        if isinstance(error, _ACCOUNT_ERRORS):
            self.account.record(permits[0], error, 0.0)

    def _refuse_for_the_account(self) -> CircuitOpen:
        """Say what opened the account's breaker: it stays open until that is mended."""
        cause = self.account.condition.cause
        refused = CircuitOpen(f"not attempted since: {cause.reason}")
        refused.advice = cause.advice
        return refused

    def give_back(self, permits: Permits, of_account: MomentoError = _UNKNOWN) -> None:
        """Take back what was not sent after all: a probe is then the next caller's."""
        self.account.record(permits[0], of_account, 0.0)
        self.service.record(permits[1], _UNKNOWN, 0.0)


def new_breaker(deadline: float, name: str) -> Breaker:
    """Return a breaker that says under a name why it opened, and what that has cost."""

    def log(before: Condition, after: Condition) -> None:
        if before.state == "closed":
            logger.warning(
                "Momento %s: breaker open after %s: %s. %s. Operations are answered at once,"
                " without a request; the next probe is in about %.1f s",
                name,
                *after.cause,
                after.until - after.opened_at,
            )
        elif after.state == "closed":
            logger.info(
                "Momento %s: breaker closed again after %.1f s; %d operations were not asked",
                name,
                after.since - after.opened_at,
                next(after.refusals),
            )

    return Breaker(deadline, on_change=log)
