"""Bytes in, bytes out: get, set and delete of one Momento cache, with retry, breaker and token.

What went wrong is returned in the value's place as a MomentoError, so that one failed key loses no
other. It knows the service's API, and nothing of Django or of what the bytes mean.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .answers import Outcome, outcome_of
from .calls import Answer, Call
from .conf import Options
from .counters import Counters
from .debts import Ledger
from .exceptions import (
    AccessDenied,
    BadRequest,
    CircuitOpen,
    MomentoError,
    TimedOut,
)
from .failures import LEAST_TIME_LEFT, RetryBudget, may_retry
from .gates import OUR_SHORTAGE, Gates, Tickets, breaker
from .operation import Operation
from .parsers import shown_name
from .process import RECENT, PerProcess
from .tokens import TokenSource
from .transport import Origin, Transport

if TYPE_CHECKING:
    from .fan import Fan

# "5 MB" with its key (service-facts, Limits), in the larger of its two readings: what the service
# takes is never refused here, and what it refuses is a 400.
_ITEM_LIMIT = 5 * 1024 * 1024
# The share of REQUEST_TIMEOUT that may be spent waiting: the rest is for what an operation does
# besides, so that it keeps the timeout in all.
_WAITING = 0.95
# An account's breaker counts no time: this only says when a probe that never reports is given up.
_ACCOUNT_DEADLINE = 1.0
_NO_TICKETS: Tickets = (0, 0)


@dataclass(frozen=True)
class _Endpoint:
    origin: Origin
    request_timeout: float


class Service:
    """What all clients of one endpoint share: connections, breaker and retry budget."""

    def __init__(self, endpoint: _Endpoint) -> None:
        self.transport = Transport(endpoint.origin)
        self.retries = RetryBudget()
        host, seconds = endpoint.origin.endpoint.partition("://")[2], endpoint.request_timeout
        self.breaker = breaker(seconds, f"at {host} (REQUEST_TIMEOUT {seconds:g})")

    def close(self) -> None:
        """Close all connections."""
        self.transport.close()


_SERVICES: PerProcess[_Endpoint, Service] = PerProcess(Service, Service.close)


@dataclass(frozen=True)
class _AccountKey:
    endpoint: str
    location: str
    token: str | Callable[[], str] = field(repr=False)


class Account:
    """What all clients share that use one cache with one token: the token, and a breaker."""

    def __init__(self, key: _AccountKey) -> None:
        self.token = TokenSource(key.token)
        self.breaker = breaker(_ACCOUNT_DEADLINE, f"cache {shown_name(key.location)!r}")


_ACCOUNTS: PerProcess[_AccountKey, Account] = PerProcess(Account, recent=RECENT)


class Attempt(Call):
    """One operation on its way: its request, and what is needed to judge the answer."""

    __slots__ = ("has_new_token", "is_retry", "key_size", "started", "tag", "tickets")

    def __init__(
        self, operation: Operation, path: str, deadline: float, patience: float, tag: object
    ) -> None:
        method, key, body, ttl, _ = operation
        target = path + key if method != "PUT" else f"{path}{key}&ttl_seconds={ttl}"
        super().__init__(method, target, body, deadline, patience)
        # In Base64 on the wire.
        self.key_size = len(key) * 3 // 4
        self.tag = tag
        self.is_retry = False
        self.has_new_token = False
        self.tickets = _NO_TICKETS
        self.started = 0.0

    def postpone(self, seconds: float) -> None:
        """Take these seconds as not passed."""
        super().postpone(seconds)
        self.started += seconds


class MomentoClient:
    """One Momento cache as this process uses it; safe under threads."""

    def __init__(self, options: Options, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._location = options.shown_location
        self._path = f"/cache/{options.location}?key_base64="
        self._patience = _WAITING * options.request_timeout
        self._width = options.max_connections
        self._service = _SERVICES.get(
            _Endpoint(
                Origin(
                    endpoint=options.endpoint,
                    connect_timeout=options.connect_timeout,
                    max_connections=options.max_connections,
                    proxy=options.proxy,
                    ca_bundle=options.ca_bundle,
                ),
                options.request_timeout,
            )
        )
        self._account = _ACCOUNTS.get(
            _AccountKey(options.endpoint, options.location, options.token)
        )
        self._token = self._account.token
        self._gates = Gates(self._service.breaker, self._account.breaker)
        self.counters = Counters()
        self._ledgers: dict[Ledger, None] = {}

    def __repr__(self) -> str:
        return f"<MomentoClient {self._location!r} {self._gates!r}>"

    def stats(self) -> dict[str, object]:
        """Return the counters, and the state of the breaker that keeps requests back, if any."""
        return {
            **self.counters.snapshot(),
            "owed": sum(ledger.count(self) for ledger in list(self._ledgers)),
            "breaker": self._gates.state,
            "breaker_openings": self._gates.openings,
        }

    @property
    def is_unimpaired(self) -> bool:
        """Whether requests that nobody waits for may go out now."""
        return self._gates.is_unimpaired

    def owes(self, ledger: Ledger) -> None:
        """Take in whose ``count`` says how many writes it owes."""
        self._ledgers[ledger] = None

    def paid(self) -> None:
        """Take in that one was paid."""
        self.counters.paid()

    def deadline(self, count: int, began: float) -> float:
        """Return by when so many operations, begun then and under way at once, must have ended."""
        return began + self._patience * max(1, -(-count // self._width))

    def run(self, operation: Operation, deadline: float) -> Outcome:
        """Carry out one operation and return what came of it."""
        attempt = self.attempt(operation, deadline)
        while True:
            refused = self.admit(attempt)
            if refused is not None:
                return refused
            outcome = self.settle(attempt, self._service.transport.exchange(attempt))
            if not isinstance(outcome, Attempt):
                return outcome

    def fan(self, next_call: Callable[[], Call | None]) -> "Fan":
        """Return what sends many attempts at once."""
        return self._service.transport.fan(next_call)

    def attempt(self, operation: Operation, deadline: float, tag: object = None) -> Attempt:
        """Return the operation, ready to be admitted."""
        return Attempt(operation, self._path, deadline, self._patience, tag)

    def admit(self, attempt: Attempt) -> MomentoError | None:
        """Make the attempt ready to be sent, or return why it must not be."""
        refused = self._refusal(attempt)
        if refused is not None:
            self.counters.failed(refused.kind, was_sent=False)
        return refused

    def _refusal(self, attempt: Attempt) -> MomentoError | None:
        body = attempt.body
        if body is not None and len(body) + attempt.key_size > _ITEM_LIMIT:
            return BadRequest(f"{len(body)} bytes are more than the 5 MB that an item may have")
        attempt.started = self.clock()
        if attempt.started >= attempt.deadline:
            return TimedOut("no time was left for it", kind="no_time")
        tickets = self._gates.admit()
        if isinstance(tickets, CircuitOpen):
            return tickets
        attempt.tickets = tickets
        attempt.authorization = self._token.known
        if attempt.authorization:
            return None
        return self._authorize(attempt, attempt.deadline - attempt.started)

    def _authorize(self, attempt: Attempt, left: float) -> MomentoError | None:
        try:
            attempt.authorization = self._token.current(left)
        except AccessDenied as error:
            denied = error.with_traceback(None)
        else:
            return None
        self._gates.give_back(attempt.tickets, denied)
        return denied

    def settle(self, attempt: Attempt, answer: Answer, company: int = 1) -> "Outcome | Attempt":
        """Return what an answer means; the attempt itself when it is to be sent again.

        ``company`` is how many were waited for together: they share the seconds that were lost.
        """
        outcome = outcome_of(attempt.method, answer)
        if not isinstance(outcome, MomentoError):
            if not attempt.is_retry:
                self._service.retries.earn()
            self._gates.record(attempt.tickets, None, 0.0)
            sent = len(attempt.body) if attempt.body is not None else 0
            received = len(outcome) if outcome is not None else 0
            self.counters.moved(sent, received, attempt.key_size)
            return outcome
        return self._settle_error(attempt, outcome, company)

    def _settle_error(
        self, attempt: Attempt, error: MomentoError, company: int
    ) -> "MomentoError | Attempt":
        now = self.clock()
        error.elapsed = now - attempt.started
        self.counters.failed(error.kind, was_sent=error.kind not in OUR_SHORTAGE)
        if self._renew_token(attempt, error):
            self._gates.give_back(attempt.tickets)
            return attempt
        self._charge(attempt, error, now, company)
        return attempt if self._try_again(attempt, error) else error

    def _charge(self, attempt: Attempt, error: MomentoError, now: float, company: int) -> None:
        """Tell the breakers of an error, and of the time that the service took to make it."""
        # It had no request yet while we waited for a connection ...
        began = max(attempt.started, attempt.began)
        # ... and what takes longer than patience is a process that was frozen.
        lost = min(now - began, self._patience)
        was_cut_short = error.transient and now >= attempt.deadline and lost < self._patience / 2
        if was_cut_short and lost < LEAST_TIME_LEFT * self._patience:
            # So little was left that a good answer would have been late, too.
            self._gates.give_back(attempt.tickets)
        else:
            self._gates.record(attempt.tickets, error, lost, company=company, is_late=was_cut_short)

    def _renew_token(self, attempt: Attempt, error: MomentoError) -> bool:
        if attempt.has_new_token or not isinstance(error, AccessDenied) or error.status != 401:
            return False
        try:
            if not self._token.renew(attempt, attempt.deadline - self.clock()):
                return False
        except AccessDenied:
            return False
        attempt.authorization = self._token.known
        attempt.has_new_token = True
        return True

    def _try_again(self, attempt: Attempt, error: MomentoError) -> bool:
        if attempt.is_retry or error.kind in OUR_SHORTAGE:
            return False
        left = attempt.deadline - self.clock()
        if not (may_retry(error, left, self._patience) and self._service.retries.spend()):
            self._service.retries.earn()
            return False
        self.counters.retried()
        attempt.is_retry = attempt.fresh = True
        return True


_CLIENTS: PerProcess[Options, MomentoClient] = PerProcess(MomentoClient, recent=RECENT)


def shared_client(options: Options) -> MomentoClient:
    """Return this process's client for a configuration."""
    return _CLIENTS.get(options)


def forget_endpoint(endpoint: str) -> None:
    """Close this process's connections to an endpoint that is no more, such as a test's server."""
    _CLIENTS.drop(lambda options: options.endpoint == endpoint)
    _ACCOUNTS.drop(lambda key: key.endpoint == endpoint)
    _SERVICES.drop(lambda key: key.origin.endpoint == endpoint)
