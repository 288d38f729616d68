"""The client: what an answer means, when it is asked for again, and when nothing is sent at all."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from django_momento_http._client.batch import Batch
from django_momento_http._client.breaker import LEAST_LOSS
from django_momento_http._client.client import (
    MomentoClient,
    Operation,
    forget_endpoint,
    shared_client,
)
from django_momento_http._conf.options import read_options
from django_momento_http._http.messages import Response
from django_momento_http.exceptions import (
    AccessDenied,
    CircuitOpen,
    ConnectFailed,
    MomentoError,
    TimedOut,
    TransportError,
)
from django_momento_http.testing import Fault, RunningServer
from tests.support.clocks import Clock
from tests.support.scripted import (
    GRACE,
    Peer,
    after_request,
    answer,
    answer_once,
    response,
    scripted,
    short,
    silent,
)

KEY = "a2V5"
OPERATIONS = {
    "get": Operation.get(KEY),
    "set": Operation.set(KEY, b"value", 60),
    "delete": Operation.delete(KEY),
}
Make = Callable[..., MomentoClient]


@pytest.fixture
def make() -> Iterator[Make]:
    """A function that makes a client of an endpoint; nothing of it stays in the process."""
    endpoints = set()

    def client_of(endpoint: str, location: str = "default-cache", **options: Any) -> MomentoClient:
        endpoints.add(endpoint)
        # On a busy machine a second request would be chance; test_hedging.py has them.
        given = {"ENDPOINT": endpoint, "TOKEN": "test-token", "REQUEST_TIMEOUT": 2.0}
        given |= {"HEDGE": False, **options}
        return MomentoClient(read_options(location, given, {}))

    yield client_of
    for endpoint in endpoints:
        forget_endpoint(endpoint)


def soon(client: MomentoClient, count: int = 1) -> float:
    return client.deadline(count, time.monotonic())


def run(client: MomentoClient, operation: Operation | str = "get") -> Any:
    if isinstance(operation, str):
        operation = OPERATIONS[operation]
    return client.run(operation, soon(client))


def run_many(client: MomentoClient, operations: list[Operation]) -> dict[int, Any]:
    batch = Batch(client)
    for number, operation in enumerate(operations):
        batch.add(operation, soon(client, len(operations)), number)
    return {tag: outcome for outcomes in batch.outcomes() for tag, outcome in outcomes}


def shown(outcome: Any) -> Any:
    return short(outcome) if isinstance(outcome, MomentoError) else outcome


# What an answer means


def test_what_was_set_is_got_until_it_is_deleted(make: Make, server: RunningServer) -> None:
    """The three operations of the service do what they say."""
    client = make(server.endpoint)
    assert run(client, "get") is None
    assert run(client, "set") is None
    assert bytes(run(client, "get")) == b"value"
    assert server.items == {("default-cache", b"key"): b"value"}
    assert run(client, "delete") is None
    assert run(client, "delete") is None
    assert run(client, "get") is None


KEY_NOT_FOUND, CACHE_NOT_FOUND = b'{"message": "Key Not Found"}', b"cache not found"
UNUSABLE = "TransportError unusable"
ANSWERS: list[tuple[bytes, Any, Any, Any]] = [
    # the answer, and what it means to a get, a set and a delete
    (response(200, b"bytes"), b"bytes", UNUSABLE, UNUSABLE),
    (response(204, b""), UNUSABLE, None, None),
    (response(404, KEY_NOT_FOUND), None, UNUSABLE, None),
    (response(404, CACHE_NOT_FOUND),) + ("CacheNotFound cache_not_found",) * 3,
    (response(404, b"<h1>nginx</h1>"),) + (UNUSABLE,) * 3,
    (response(404, b""),) + (UNUSABLE,) * 3,
    (response(404, b"x" * 2000 + KEY_NOT_FOUND),) + (UNUSABLE,) * 3,
    (response(404, KEY_NOT_FOUND, "Content-Encoding: gzip"),) + (UNUSABLE,) * 3,
    (response(200, b"bytes", "Content-Encoding: gzip"),) + (UNUSABLE,) * 3,
    (response(204, b"", "Content-Encoding: gzip"),) + (UNUSABLE,) * 3,
    (response(206, b"by"),) + (UNUSABLE,) * 3,
    (response(304, b""),) + (UNUSABLE,) * 3,
    (response(302, b"", "Location: /"),) + (UNUSABLE,) * 3,
    (response(400, b"no"),) + ("BadRequest bad_request",) * 3,
    (response(413, b"no"),) + ("BadRequest bad_request",) * 3,
    (response(401, b"no"),) + ("AccessDenied access_denied",) * 3,
    (response(403, b"no"),) + ("AccessDenied access_denied",) * 3,
    (response(405, b"no"),) + (UNUSABLE,) * 3,
    (response(429, b"no"),) + ("RateLimited rate_limited",) * 3,
    (response(500, b"no"),) + ("ServiceFailed service_failed",) * 3,
    (response(501, b"no"),) + ("ServiceFailed service_failed",) * 3,
    (response(599, b"no"),) + ("ServiceFailed service_failed",) * 3,
]


@pytest.mark.parametrize("number", range(len(ANSWERS)))
def test_each_answer_means_what_the_table_says(number: int, make: Make) -> None:
    """Status and text decide, the same for single operations and for many."""
    data, *wanted = ANSWERS[number]
    for operation, meaning in zip(OPERATIONS.values(), wanted, strict=True):
        with scripted(answer(data)) as server:
            assert shown(run(make(server.endpoint), operation)) == meaning
            [outcome] = run_many(make(server.endpoint, "another"), [operation]).values()
            assert shown(outcome) == meaning


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("3", 3.0),
        ("0", 0.0),
        ("-1", 0.0),
        ("1.5", 0.0),
        ("soon", 0.0),
        ("9" * 400, float("inf")),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0),
        ("", 0.0),
    ],
)
def test_retry_after_is_read_when_it_is_a_number_of_seconds(
    header: str, seconds: float, make: Make
) -> None:
    """What else stands there is as if it were absent."""
    with scripted(answer(response(429, b"", f"Retry-After: {header}"))) as server:
        assert run(make(server.endpoint)).retry_after == seconds


@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_error_shows_token_key_or_value(operation: str, make: Make) -> None:
    """Messages name what went wrong and nothing that is secret."""
    for data in (
        response(400, b"bad key a2V5 test-token"),
        response(500, b"value"),
        b"",
        b"test-token",
    ):
        with scripted(answer_once(data)) as server:
            error = run(make(server.endpoint), operation)
            shown = f"{error!r} {error} {error.__dict__} {error.__cause__} {error.__context__}"
            assert not [secret for secret in ("test-token", KEY, "b'value'") if secret in shown]
            assert error.__traceback__ is None


# Retry


@pytest.mark.parametrize(
    ("script", "requests"),
    [
        (answer_once(b""), 2),
        (answer_once(response(200, b"val", length=5)), 2),
        (answer_once(b"HTTP/1.1 200 OK\r\nContent-"), 2),
        (after_request(Peer.reset), 2),
        (answer(response(500)), 2),
        (answer(response(502)), 2),
        (answer(response(503)), 2),
        (answer(response(504)), 2),
        (answer(response(501)), 1),
        (answer(response(505)), 1),
        (answer(response(400)), 1),
        (answer(response(401)), 1),
        (answer(response(403)), 1),
        (answer(response(404)), 1),
        (answer(response(413)), 1),
        (answer(response(429)), 1),
        (answer(response(302)), 1),
        (answer(response(200, b"v", "Content-Encoding: br")), 1),
        (answer(response(200, b"", length=10**8)), 1),
        (after_request(Peer.stall), 1),
        (after_request(lambda p: p.drip(response(200, b"v" * 500))), 1),
    ],
    ids=range(21),
)
@pytest.mark.parametrize("is_many", [False, True])
def test_only_a_broken_connection_or_a_failed_service_is_asked_again(
    script: Any, requests: int, is_many: bool, make: Make
) -> None:
    """At most once, and on a connection that was not used before."""
    with scripted(script) as server:
        client = make(server.endpoint, REQUEST_TIMEOUT=0.3)
        for operation in OPERATIONS.values():
            before = len(server.received)
            if is_many:
                run_many(client, [operation])
            else:
                run(client, operation)
            sent = server.received[before:]
            if before and not sent:
                break  # the breaker keeps back what a refused token would ask again
            assert len(sent) == requests
            assert len({received.connection for received in sent}) == requests


@pytest.mark.parametrize("is_many", [False, True])
def test_the_second_answer_counts(is_many: bool, make: Make) -> None:
    """A connection that broke costs nobody a value."""
    with scripted(answer_once(b""), answer(response(200, b"second"))) as server:
        client = make(server.endpoint)
        found = run_many(client, [OPERATIONS["get"]])[0] if is_many else run(client)
        assert bytes(found) == b"second"
        assert client.stats()["retries"] == 1


def test_a_refused_connection_is_not_asked_again(make: Make) -> None:
    """What was never sent for want of a connection will not be sent a moment later."""
    with scripted(silent) as server:
        pass
    client = make(server.endpoint)
    assert shown(run(client)) == "ConnectFailed connect"
    assert client.stats()["retries"] == 0


def test_without_time_there_is_no_second_request(make: Make) -> None:
    """With less than a tenth of the deadline left, the error stands."""
    late = after_request(lambda p: p.pause(0.385), lambda p: p.send(response(503)))
    with scripted(late) as server:
        client = make(server.endpoint, REQUEST_TIMEOUT=0.42)
        assert run(client).kind in ("service_failed", "timeout")
        assert len(server.received) == 1


def test_a_retry_stays_within_the_deadline(make: Make) -> None:
    """The second request has what time the first one left."""
    with scripted(answer_once(b""), after_request(Peer.stall)) as server:
        client = make(server.endpoint, REQUEST_TIMEOUT=0.3)
        began = time.monotonic()
        assert shown(run(client)) == "TimedOut timeout"
        assert time.monotonic() - began < 0.3 + GRACE
        assert len(server.received) == 2


def test_the_budget_ends_the_retries_of_a_dying_service(make: Make) -> None:
    """When the retries are spent, an operation costs one request until others have earned more."""
    with scripted(answer(response(500))) as server:
        client = make(server.endpoint)
        while client._endpoint.retries.spend():
            pass
        run(client)
        assert len(server.received) == 1
        for _ in range(10):
            client._endpoint.retries.earn()
        run(client)
        assert len(server.received) == 3


def _tenths(client: Any) -> int:
    tenths: int = client._endpoint.retries.tenths
    return tenths


@pytest.mark.parametrize("is_many", [False, True], ids=["one", "many"])
@pytest.mark.parametrize(
    ("responses", "earned"),
    [
        ((response(200),), 1),
        ((response(404, b"Key Not Found"),), 1),
        ((response(400),), 1),
        ((response(429),), 1),
        ((response(500), response(200)), -10),
        ((response(500), response(500)), -10),
    ],
)
def test_what_was_sent_once_earns_and_what_was_sent_twice_does_not(
    make: Make, is_many: bool, responses: tuple[bytes, ...], earned: int
) -> None:
    """An operation that was sent once earns a tenth of a retry, well or not; a retry costs one."""
    with scripted(answer(*responses), answer(responses[-1])) as server:
        client = make(server.endpoint)
        while client._endpoint.retries.spend():
            pass
        for _ in range(50):
            client._endpoint.retries.earn()
        before = _tenths(client)
        run_many(client, [OPERATIONS["get"]]) if is_many else run(client)
        assert _tenths(client) - before == earned


def test_an_operation_without_a_retry_left_earns(make: Make) -> None:
    """What could not be repeated was sent once."""
    with scripted(answer(response(500))) as server:
        client = make(server.endpoint)
        while client._endpoint.retries.spend():
            pass
        run(client)
        assert _tenths(client) == 1


def test_a_probe_that_is_sent_again_with_a_new_token_stays_the_probe(make: Make) -> None:
    """A token that ran out while the breaker was open does not keep it open."""
    tokens = iter(["old-token", "new-token"])

    def by_token(peer: Peer) -> None:
        while True:
            is_old = peer.request().headers["authorization"] == "old-token"
            peer.send(response(401, b"") if is_old else response(200, b"value"))

    with scripted(by_token) as server:
        client = make(server.endpoint, TOKEN=lambda: next(tokens))
        for breaker in (client._endpoint.breaker, client._breakers.account):
            breaker.record(0, TransportError(), 60.0)
            assert breaker.state == "open"
            breaker._clock = lambda: time.monotonic() + 60.0
        assert bytes(run(client)) == b"value"
        assert client.stats()["breaker"] == "closed"


# Breaker


def until_open(client: MomentoClient, most: int = 40) -> int:
    """Return how many operations, 50 ms apart, it takes until nothing is sent."""
    for count in range(most):
        client._endpoint.breaker._clock = lambda ahead=count * 0.05: time.monotonic() + ahead
        if isinstance(run(client), CircuitOpen):
            return count
    return most


@pytest.mark.parametrize(
    ("data", "at_most", "is_shared"),
    [
        (response(401), 1, False),
        (response(404, CACHE_NOT_FOUND), 1, False),
        (response(429, b"", "Retry-After: 2"), 1, False),
        (response(429), 5, False),
        (response(500), 12, True),
        (response(302), 12, True),
        (response(404, b"nginx"), 12, True),
        (b"", 12, True),
    ],
    ids=range(8),
)
def test_the_breaker_opens_for_the_account_or_for_the_service(
    data: bytes, at_most: int, is_shared: bool, make: Make
) -> None:
    """Trouble of one cache keeps back its client, trouble of the service all of its clients."""
    script = answer(data) if data else answer_once(data)
    with scripted(script) as server:
        client, other = make(server.endpoint), make(server.endpoint, "other")
        assert until_open(client) <= at_most
        assert client.stats()["breaker"] == "open"
        assert client.stats()["breaker_openings"] == 1
        sent = len(server.received)
        for operation in OPERATIONS:
            assert shown(run(client, operation)) == "CircuitOpen circuit_open"
        assert set(map(shown, run_many(client, [OPERATIONS["get"]] * 9).values())) == {
            "CircuitOpen circuit_open"
        }
        assert len(server.received) == sent
        assert (other.stats()["breaker"] == "open") is is_shared
        assert isinstance(run(other), CircuitOpen) is is_shared


@pytest.mark.parametrize(
    "data", [response(400), response(403), response(413), response(404, KEY_NOT_FOUND)]
)
def test_a_refusal_of_one_request_opens_nothing(data: bytes, make: Make) -> None:
    """The service is up and this account is served: only this request was wrong."""
    with scripted(answer(data)) as server:
        client = make(server.endpoint)
        assert until_open(client) == 40
        assert client.stats()["breaker"] == "closed"


def test_time_lost_opens_it_for_all_clients_of_the_endpoint(make: Make) -> None:
    """Three deadlines are lost once, then operations cost nothing."""
    with scripted(after_request(Peer.stall)) as server:
        client = make(server.endpoint, REQUEST_TIMEOUT=0.1)
        other = make(server.endpoint, "other", REQUEST_TIMEOUT=0.1)
        assert until_open(client) <= 4
        began = time.monotonic()
        for _ in range(100):
            assert isinstance(run(other), CircuitOpen)
        assert time.monotonic() - began < 0.1


def test_keys_of_one_call_that_time_out_together_lose_one_deadline(make: Make) -> None:
    """A hundred keys that wait at the same time cost the caller one deadline, not a hundred."""
    with scripted(after_request(Peer.stall)) as server:
        client = make(server.endpoint, REQUEST_TIMEOUT=0.2)
        found = run_many(client, [OPERATIONS["get"]] * 40)
        assert {shown(outcome) for outcome in found.values()} == {"TimedOut timeout"}
        assert len(found) == 40


# Our own shortage, and a process that stood still


@pytest.fixture
def settled(make: Make) -> Callable[..., MomentoClient]:
    """A function that lets operations end as told, and returns their client; nothing is sent."""

    def settle(
        error: MomentoError,
        *,
        times: int = 1,
        waited: float = 0.0,
        took: float = 0.0,
        timeout: float = 1.0,
    ) -> MomentoClient:
        client = make("http://127.0.0.1:1", REQUEST_TIMEOUT=timeout)
        client.clock = clock = Clock()
        for _ in range(times):
            attempt = client.attempt(OPERATIONS["get"], client.deadline(1, clock.now))
            assert client.admit(attempt) is None
            clock.now += waited
            attempt.began = clock.now
            clock.now += took
            client.settle(attempt, error)
        return client

    return settle


def lost(client: MomentoClient) -> float:
    condition = client._endpoint.breaker.condition
    return condition.lost if condition.permit is not None else float("inf")


@pytest.mark.parametrize("kind", ["pool_timeout", "no_time"])
def test_our_own_shortage_costs_the_service_nothing(
    settled: Callable[..., MomentoClient], kind: str
) -> None:
    """A thousand operations that got no connection, or no time, are counted and no requests."""
    client = settled(TimedOut("all in use", kind=kind), times=1000, waited=0.95)
    assert lost(client) == 0.0
    assert (client.stats()["requests"], client.stats()["errors"]) == (0, {kind: 1000})


@pytest.mark.parametrize(
    ("waited", "took", "share"),
    [(0.0, 0.95, 0.95), (0.0, 0.9, 0.9), (0.5, 0.46, 0.46), (0.8, 0.16, 0.16), (0.9, 0.06, 0.0)],
)
def test_waiting_for_a_connection_is_not_time_of_the_service(
    settled: Callable[..., MomentoClient], waited: float, took: float, share: float
) -> None:
    """What a timeout costs is the time with a connection, and nothing where that was too little."""
    assert lost(settled(TimedOut(), waited=waited, took=took)) == pytest.approx(share)


def test_a_tenth_of_the_deadline_is_enough_for_an_answer(
    settled: Callable[..., MomentoClient],
) -> None:
    """Where just so much was left for the service, its silence counts."""
    assert lost(settled(TimedOut(), waited=9.0, took=1.0, timeout=10.0)) > 0.0


def test_an_instant_failure_after_a_wait_has_its_price(
    settled: Callable[..., MomentoClient],
) -> None:
    """A refusal is one, also where the connection was long in coming."""
    assert lost(settled(ConnectFailed(), waited=0.5, took=0.001)) == LEAST_LOSS


@pytest.mark.parametrize("error", [TimedOut(), TransportError(), ConnectFailed(kind="dns")])
def test_a_process_that_was_frozen_has_lost_a_deadline_at_most(
    settled: Callable[..., MomentoClient], error: MomentoError
) -> None:
    """An operation that ends 70 seconds late has not waited for the service for so long."""
    client = settled(error, took=70.0)
    assert error.elapsed == 70.0
    assert lost(client) == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("error", "state"), [(None, "closed"), (TimedOut(), "open"), (TransportError(), "open")]
)
def test_a_probe_that_was_frozen_reports_when_it_goes_on(
    settled: Callable[..., MomentoClient], error: MomentoError | None, state: str
) -> None:
    """What it says counts, as long as no other was sent in its place."""
    client = settled(TimedOut(), times=3, took=1.0)
    assert client.stats()["breaker"] == "open"
    breaker = client._endpoint.breaker
    breaker._clock = clock = Clock()
    clock.now = time.monotonic() + 60
    attempt = client.attempt(OPERATIONS["get"], soon_by(client))
    assert client.admit(attempt) is None
    assert client.stats()["breaker"] == "half-open"
    clock.now += 70
    client.clock.now += 70  # type: ignore[attr-defined]
    client.settle(attempt, error or Response(404, {}, b"Key Not Found"))
    assert client.stats()["breaker"] == state


def soon_by(client: MomentoClient) -> float:
    return client.deadline(1, client.clock())


def test_a_probe_that_got_no_connection_is_the_next_caller_s(
    settled: Callable[..., MomentoClient],
) -> None:
    """Our own shortage says nothing of the service: it stays half-open, and asks at once."""
    client = settled(TimedOut(), times=3, took=1.0)
    client._endpoint.breaker._clock = lambda: time.monotonic() + 60
    settled(TimedOut("all in use", kind="pool_timeout"), waited=0.9)
    assert client.stats()["breaker"] == "half-open"
    settled(TimedOut(), waited=0.9, took=0.06)
    assert client.stats()["breaker"] == "half-open"
    settled(TimedOut(), took=0.95)
    assert client.stats()["breaker"] == "open"


# Tokens


class Vendor:
    """Hands out these tokens, the last again and again."""

    def __init__(self, *tokens: Any) -> None:
        self.count = 0
        self._tokens = tokens
        self._lock = threading.Lock()

    def __call__(self) -> Any:
        with self._lock:
            token = self._tokens[min(self.count, len(self._tokens) - 1)]
            self.count += 1
        if isinstance(token, BaseException):
            raise token
        return token


@pytest.mark.parametrize("is_many", [False, True])
def test_an_expired_token_is_replaced_and_nobody_notices(
    is_many: bool, make: Make, server: RunningServer
) -> None:
    """After a 401 the callable is asked again, once, and the request repeated."""
    vendor = Vendor("expired", "test-token")
    client = make(server.endpoint, TOKEN=vendor)
    if is_many:
        found = run_many(client, [Operation.set(f"a2V5AA{n:02}", b"v", 60) for n in range(50)])
        assert set(found.values()) == {None}
        assert len(found) == len(server.items) == 50
    else:
        assert run(client, "set") is None
        assert [request.status for request in server.requests] == [401, 204]
    assert vendor.count == 2
    assert client.stats()["breaker"] == "closed"


def test_threads_with_an_expired_token_ask_once(make: Make, server: RunningServer) -> None:
    """All threads share the new one."""
    vendor = Vendor("expired", "test-token")
    client = make(server.endpoint, TOKEN=vendor)
    start = threading.Barrier(8)

    def get(_: int) -> Any:
        start.wait(10)
        return run(client)

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(get, range(8))) == [None] * 8
    assert vendor.count == 2


@pytest.mark.parametrize("token", ["wrong", Vendor("wrong"), Vendor("wrong", RuntimeError("x"))])
def test_a_token_that_does_not_change_is_not_tried_again(
    token: Any, make: Make, server: RunningServer
) -> None:
    """One request, one answer, and then the breaker keeps the wrong token at home."""
    client = make(server.endpoint, TOKEN=token)
    error = run(client)
    assert (shown(error), error.status) == ("AccessDenied access_denied", 401)
    assert len(server.requests) == 1
    assert isinstance(run(client), CircuitOpen)
    assert len(server.requests) == 1


def test_a_new_token_that_is_refused_too_is_not_renewed_again(
    make: Make, server: RunningServer
) -> None:
    """A callable cannot make one operation go on for ever."""
    vendor = Vendor("wrong-1", "wrong-2", "wrong-3", "wrong-4")
    client = make(server.endpoint, TOKEN=vendor)
    assert shown(run(client)) == "AccessDenied access_denied"
    assert (len(server.requests), vendor.count) == (2, 2)


@pytest.mark.parametrize("rubbish", [RuntimeError("x"), SystemExit(1), None, "", 3, "two words"])
def test_a_callable_that_fails_costs_no_request(
    rubbish: Any, make: Make, server: RunningServer
) -> None:
    """Without a token nothing is sent; kind "token" says where to look."""
    client = make(server.endpoint, TOKEN=Vendor(rubbish))
    assert shown(run(client)) == "AccessDenied token"
    assert server.requests == []


def test_a_hanging_callable_costs_one_deadline(make: Make, server: RunningServer) -> None:
    """It is waited for as long as an operation may take; then the breaker answers."""
    go = threading.Event()

    def hang() -> str:
        go.wait(10)
        return "test-token"

    client = make(server.endpoint, TOKEN=hang, REQUEST_TIMEOUT=0.2)
    began = time.monotonic()
    error = run(client)
    assert isinstance(error, AccessDenied)
    assert "took too long" in str(error)
    assert time.monotonic() - began < 0.2 + GRACE
    refused = run(client)
    assert isinstance(refused, CircuitOpen)
    assert str(refused) == f"not attempted since: {error}"
    go.set()


# Limits, deadlines, counters


@pytest.mark.parametrize(("surplus", "is_sent"), [(0, True), (1, False)])
def test_what_is_too_large_for_any_service_is_not_sent(
    surplus: int, is_sent: bool, make: Make
) -> None:
    """Five megabytes with the key may go; one byte more costs no request."""
    body = bytes(5 * 1024 * 1024 - 3 + surplus)
    with scripted(answer(response(204, b""))) as server:
        client = make(server.endpoint)
        outcome = run(client, Operation.set(KEY, body, 60))
        assert (outcome is None) is is_sent
        assert len(server.received) == is_sent
        assert is_sent or shown(outcome) == "BadRequest bad_request"
        assert client.stats()["breaker"] == "closed"


def test_what_comes_too_late_is_not_sent(make: Make) -> None:
    """An operation whose deadline has passed touches no socket."""
    with scripted(silent) as server:
        client = make(server.endpoint)
        error = client.run(OPERATIONS["set"], time.monotonic() - 1)
        assert shown(error) == "TimedOut no_time"
        assert server.accepted == 0


@pytest.mark.parametrize(("count", "times"), [(0, 1), (1, 1), (64, 1), (65, 2), (1000, 16)])
def test_many_keys_have_as_many_deadlines_as_turns(count: int, times: int, make: Make) -> None:
    """n keys may take REQUEST_TIMEOUT for each full turn of MAX_CONNECTIONS."""
    client = make("http://127.0.0.1:1", REQUEST_TIMEOUT=1.0)
    once = client.deadline(1, 100.0) - 100.0
    assert 0.8 < once <= 1.0
    assert client.deadline(count, 100.0) - 100.0 == pytest.approx(times * once)


def test_everything_is_counted(make: Make, server: RunningServer) -> None:
    """Requests, bytes, billed operations and errors by kind are those of the wire."""
    client = make(server.endpoint)
    run(client, Operation.set(KEY, bytes(3000), 60))
    run(client)
    run(client, "delete")
    run(client)
    server.inject(Fault(status=500, times=1))
    run(client)
    server.inject(Fault(status=400, times=1))
    run(client)
    counts = client.stats()
    assert counts["requests"] == len(server.requests) == 7
    assert (counts["bytes_out"], counts["bytes_in"]) == (3000, 3000)
    assert counts["billed_operations"] == 3 + 3 + 1 + 1 + 1
    assert counts["errors"] == {"service_failed": 1, "bad_request": 1}
    assert counts["retries"] == 1


# Batches


def test_each_of_many_has_its_own_outcome(make: Make, server: RunningServer) -> None:
    """Values, misses and errors stand side by side under their tags."""
    client = make(server.endpoint)
    server.put("default-cache", b"key", b"value")
    server.inject(Fault(status=403, key=b"bad", times=None))
    operations = [Operation.get(KEY), Operation.get("bm9uZQ"), Operation.get("YmFk")]
    operations.append(Operation.set(KEY, bytes(6_000_000), 60))
    found = run_many(client, operations)
    assert bytes(found.pop(0)) == b"value"
    assert {tag: shown(outcome) for tag, outcome in found.items()} == {
        1: None,
        2: "AccessDenied access_denied",
        3: "BadRequest bad_request",
    }


def test_more_may_be_added_while_outcomes_come(make: Make, server: RunningServer) -> None:
    """What an outcome asks for goes under way with the others."""
    client = make(server.endpoint)
    batch = Batch(client)
    batch.add(Operation.get(KEY), soon(client), 0)
    seen = []
    for outcomes in batch.outcomes():
        for tag, outcome in outcomes:
            seen.append(tag)
            assert outcome is None
            if tag < 10:
                batch.add(Operation.get(KEY), soon(client), tag + 1)
    assert seen == list(range(11))


def test_an_empty_batch_has_no_outcomes(make: Make, server: RunningServer) -> None:
    """Nothing asked, nothing answered."""
    assert run_many(make(server.endpoint), []) == {}
    assert server.requests == []


# Sharing


def test_equal_options_share_one_client(make: Make, server: RunningServer) -> None:
    """A process has one client per configuration, and one service per endpoint."""
    given = {"ENDPOINT": server.endpoint, "TOKEN": "test-token"}
    clients = [shared_client(read_options("default-cache", given, {})) for _ in range(2)]
    other = shared_client(read_options("other", given, {}))
    assert clients[0] is clients[1]
    assert other is not clients[0]
    assert other._endpoint is clients[0]._endpoint
    forget_endpoint(server.endpoint)
    assert shared_client(read_options("default-cache", given, {})) is not clients[0]
    forget_endpoint(server.endpoint)


def test_the_repr_shows_state_and_no_secret(make: Make) -> None:
    """An operator may print a client."""
    client = make("http://127.0.0.1:1", PROXY="http://user:hunter2@127.0.0.1:1")
    text = f"{client!r} {client._endpoint.transport.pool!r} {client._token!r}"
    assert "default-cache" in text
    assert "closed" in text
    assert not {"test-token", "hunter2"} & set(text.replace("'", " ").split())
    assert "hunter2" not in text
