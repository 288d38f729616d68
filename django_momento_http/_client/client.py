"""Bytes in, bytes out: get, set and delete of one Momento cache, with retry, breaker and token.

What went wrong is returned in the value's place as a MomentoError, so that one failed key loses no
other. It knows the service's API, and nothing of Django or of what the bytes mean.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from .._conf.options import Options
from .._http.hedging import MOST_REQUESTS, Hedging, Silence
from .._http.messages import Hedges, Request, Response, Result
from .._http.transport import Origin, Transport
from .._process import RECENT, PerProcess
from .._redaction import shown_name
from ..exceptions import AccessDenied, BadRequest, CircuitOpen, MomentoError, TimedOut
from .breakers import OUR_SHORTAGE, Breakers, new_breaker
from .counters import Counters
from .operation import Attempt, Operation
from .responses import Outcome, outcome_of
from .retry import LEAST_TIME_LEFT, RetryBudget, may_retry
from .tokens import TokenSource

if TYPE_CHECKING:
    from .._http.multiplexer import Multiplexer

# "5 MB" with its key (Momento's limits page), in the larger of its two readings: what the service
# takes is never refused here, and what it refuses is a 400.
_ITEM_LIMIT = 5 * 1024 * 1024
# The share of REQUEST_TIMEOUT that an operation may wait for the service. The rest is for its own
# code, so that both together keep the timeout.
_WAITING = 0.95
# After so many silences that are too long, what could wait is given up: a hedge had one for itself.
_SILENCES = 2
# An account's breaker counts no time: this only says when a probe that never reports is given up.
_ACCOUNT_DEADLINE = 1.0


@dataclass(frozen=True)
class _Endpoint:
    origin: Origin
    request_timeout: float


def origin_of(options: Options) -> Origin:
    """Return where requests of this configuration go, and how."""
    return Origin(
        endpoint=options.endpoint,
        connect_timeout=options.connect_timeout,
        max_connections=options.max_connections,
        proxy=options.proxy,
        ca_bundle=options.ca_bundle,
    )


class EndpointState:
    """What all clients of one endpoint share: connections, breaker and retry budget."""

    def __init__(self, endpoint: _Endpoint) -> None:
        self.transport = Transport(endpoint.origin)
        self.retries = RetryBudget()
        self.silence = Silence()
        host, seconds = endpoint.origin.endpoint.partition("://")[2], endpoint.request_timeout
        self.breaker = new_breaker(seconds, f"at {host} (REQUEST_TIMEOUT {seconds:g})")

    def close(self) -> None:
        """Close all connections."""
        self.transport.close()


_ENDPOINTS: PerProcess[_Endpoint, EndpointState] = PerProcess(EndpointState, EndpointState.close)


@dataclass(frozen=True)
class _AccountKey:
    endpoint: str
    location: str
    token: str | Callable[[], str] = field(repr=False)


class Account:
    """What all clients share that use one cache with one token: the token, and a breaker."""

    def __init__(self, key: _AccountKey) -> None:
        self.token = TokenSource(key.token)
        self.breaker = new_breaker(_ACCOUNT_DEADLINE, f"cache {shown_name(key.location)!r}")


_ACCOUNTS: PerProcess[_AccountKey, Account] = PerProcess(Account, recent=RECENT)


class Owing(Protocol):
    """Who knows how many writes a client owes."""

    def count(self, payer: Any) -> int:
        """Return how many."""


class MomentoClient:
    """One Momento cache as this process uses it; safe under threads."""

    def __init__(self, options: Options, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._location = options.shown_location
        self._path = f"/cache/{options.location}?key_base64="
        # Seconds that one operation may wait for the service.
        self.request_timeout = _WAITING * options.request_timeout
        self._width = options.max_connections
        self._endpoint = _ENDPOINTS.get(_Endpoint(origin_of(options), options.request_timeout))
        self._retries = self._endpoint.retries
        self._account = _ACCOUNTS.get(
            _AccountKey(options.endpoint, options.location, options.token)
        )
        self._token = self._account.token
        self._breakers = Breakers(self._endpoint.breaker, self._account.breaker)
        self._hedging: Hedging | None = None
        if options.hedge:
            state, breakers = self._endpoint, self._breakers
            self._hedging = Hedging(state.silence, state.retries, lambda: breakers.may_send_extra)
        self.counters = Counters()
        self._ledgers: dict[Owing, None] = {}

    def __repr__(self) -> str:
        return f"<MomentoClient {self._location!r} {self._breakers!r}>"

    def stats(self) -> dict[str, object]:
        """Return the counters, and the state of the breaker that keeps requests back, if any."""
        return {
            **self.counters.snapshot(),
            "owed": sum(ledger.count(self) for ledger in list(self._ledgers)),
            "breaker": self._breakers.state,
            "breaker_openings": self._breakers.openings,
        }

    @property
    def may_send_extra(self) -> bool:
        """Whether requests that nobody waits for may go out now."""
        return self._breakers.may_send_extra

    def owes(self, ledger: Owing) -> None:
        """Remember a ledger: its ``count`` says how many writes this client owes."""
        self._ledgers[ledger] = None

    def paid(self) -> None:
        """Take in that one was paid."""
        self.counters.paid()

    def deadline(self, count: int, began: float) -> float:
        """Return by when so many operations, begun then and under way at once, must have ended."""
        return began + self.request_timeout * max(1, -(-count // self._width))

    def run(self, operation: Operation, deadline: float) -> Outcome:
        """Carry out one operation and return what came of it."""
        attempt = self.attempt(operation, deadline)
        while True:
            refused = self.admit(attempt)
            if refused is not None:
                return refused
            outcome = self.settle(attempt, self._endpoint.transport.exchange(attempt))
            if not isinstance(outcome, Attempt):
                return outcome

    def multiplexer(
        self, next_request: Callable[[], Request | None], waiting: Callable[[], int]
    ) -> "Multiplexer":
        """Return what sends many attempts at once; ``waiting`` says how many there are."""
        return self._endpoint.transport.multiplexer(next_request, waiting)

    def attempt(self, operation: Operation, deadline: float, tag: object = None) -> Attempt:
        """Return the operation, ready to be admitted."""
        if operation.can_wait:
            silence = self._endpoint.silence.threshold
            deadline = min(deadline, self.clock() + _SILENCES * silence)
        return Attempt(operation, self._path, deadline, self.request_timeout, tag, self._hedging)

    def admit(self, attempt: Attempt) -> MomentoError | None:
        """Make the attempt ready to be sent, or return why it must not be."""
        body = attempt.body
        if body is not None and len(body) + attempt.key_size > _ITEM_LIMIT:
            problem = f"{len(body)} bytes are more than the 5 MB that an item may have"
            return self._refused(BadRequest(problem))
        attempt.started = now = self.clock()
        if now >= attempt.deadline:
            return self._refused(TimedOut("no time was left for it", kind="no_time"))
        # What the breakers do while they are closed, without a call: all operations pass.
        account = self._breakers.account.condition.permit
        service = self._breakers.service.condition.permit
        if account is not None and service is not None:
            attempt.permits = account, service
        else:
            permits = self._breakers.admit()
            if isinstance(permits, CircuitOpen):
                return self._refused(permits)
            attempt.permits = permits
        attempt.authorization = self._token.known
        if attempt.authorization:
            return None
        return self._authorize(attempt, attempt.deadline - now)

    def _refused(self, error: MomentoError) -> MomentoError:
        self.counters.failed(error.kind, was_sent=False)
        return error

    def _authorize(self, attempt: Attempt, left: float) -> MomentoError | None:
        try:
            attempt.authorization = self._token.current(left)
        except AccessDenied as error:
            denied = error.with_traceback(None)
        else:
            return None
        self._breakers.give_back(attempt.permits, denied)
        return self._refused(denied)

    def settle(self, attempt: Attempt, answer: Result, concurrency: int = 1) -> "Outcome | Attempt":
        """Return what an answer means; the attempt itself when it is to be sent again.

        ``concurrency`` is how many were waited for together: each is charged its share of the time.
        """
        if (
            type(answer) is Response
            and answer.status == 200
            and attempt.method == "GET"
            and b"content-encoding" not in answer.headers
        ):
            outcome: Outcome = answer.body  # nearly all are this
        else:
            outcome = outcome_of(attempt.method, answer)
        if not isinstance(outcome, MomentoError):
            if self._retries.tenths < RetryBudget.FULL and not attempt.is_retry:
                self._retries.earn()
            sent = len(attempt.body) if attempt.body is not None else 0
            received = len(outcome) if outcome is not None else 0
            self.counters.moved(sent, received, attempt.key_size)
            if attempt.hedges is None:
                breakers = self._breakers
                if not (
                    breakers.account.condition.is_unimpaired
                    and breakers.service.condition.is_unimpaired
                ):
                    breakers.record(attempt.permits, None, 0.0)
            else:
                # An answer that a second request may have won says nothing of the service.
                self._settle_hedges(attempt, attempt.hedges, received)
            return outcome
        return self._settle_error(attempt, outcome, concurrency)

    def _settle_hedges(self, attempt: Attempt, hedges: Hedges, received: int) -> None:
        """Pay for the further requests, and take in what those said that did not count."""
        attempt.hedges = None
        attempt.resends += hedges.count
        self.counters.hedged(hedges.count, received, attempt.key_size, has_won=hedges.has_won)
        if attempt.hedging is not None:
            attempt.hedging.settle(hedges.count, received)
        for answer in hedges.lost:
            error = outcome_of(attempt.method, answer)
            if isinstance(error, MomentoError):
                self.counters.lost(error.kind)
                # With a token that can be renewed, the next request finds out by itself.
                if not (error.kind == "access_denied" and self._token.is_renewable):
                    self._breakers.record_lost(attempt.permits, error)

    def _settle_error(
        self, attempt: Attempt, error: MomentoError, concurrency: int
    ) -> "MomentoError | Attempt":
        now = self.clock()
        error.elapsed = now - attempt.started
        self.counters.failed(error.kind, was_sent=error.kind not in OUR_SHORTAGE)
        if attempt.hedges is not None:
            self._settle_hedges(attempt, attempt.hedges, 0)
        if self._renew_token(attempt, error):
            self._breakers.give_back(attempt.permits)
            return attempt
        self._charge(attempt, error, now, concurrency)
        return attempt if self._try_again(attempt, error) else error

    def _charge(self, attempt: Attempt, error: MomentoError, now: float, concurrency: int) -> None:
        """Tell the breakers of an error, and of the time that the service took to make it."""
        # The service had no request yet while this waited for a connection ...
        began = max(attempt.started, attempt.began)
        # ... and more than the timeout is lost only where this process was frozen.
        lost = min(now - began, self.request_timeout)
        was_cut_short = (
            error.transient and now >= attempt.deadline and lost < self.request_timeout / 2
        )
        if was_cut_short and lost < LEAST_TIME_LEFT * self.request_timeout:
            # So little was left that a good answer would have been late, too.
            self._breakers.give_back(attempt.permits)
        else:
            self._breakers.record(
                attempt.permits, error, lost, concurrency=concurrency, is_late=was_cut_short
            )

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
        attempt.resends += 1
        return True

    def _try_again(self, attempt: Attempt, error: MomentoError) -> bool:
        if attempt.is_retry or error.kind in OUR_SHORTAGE:
            return False
        left = attempt.deadline - self.clock()
        may = attempt.requests < MOST_REQUESTS and may_retry(error, left, self.request_timeout)
        if not (may and self._retries.spend()):
            self._retries.earn()
            return False
        self.counters.retried()
        attempt.is_retry = attempt.fresh = True
        attempt.resends += 1
        return True


_CLIENTS: PerProcess[Options, MomentoClient] = PerProcess(MomentoClient, recent=RECENT)


def shared_client(options: Options) -> MomentoClient:
    """Return this process's client for a configuration."""
    return _CLIENTS.get(options)


def clients() -> list[tuple[Options, MomentoClient]]:
    """Return this process's clients by their configurations, and make none."""
    return _CLIENTS.items()


def forget_endpoint(endpoint: str) -> None:
    """Close this process's connections to an endpoint that is no more, such as a test's server."""
    _CLIENTS.drop(lambda options: options.endpoint == endpoint)
    _ACCOUNTS.drop(lambda key: key.endpoint == endpoint)
    _ENDPOINTS.drop(lambda key: key.origin.endpoint == endpoint)
