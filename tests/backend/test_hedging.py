"""Hedged reads as a site has them: which methods ask again, what it costs, and what it must not."""

import os
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_momento_http._client.breaker import Breaker
from django_momento_http._client.client import MomentoClient, forget_endpoint
from django_momento_http._client.operation import Operation
from django_momento_http._conf.options import read_options
from django_momento_http._http.hedging import COLD, FLOOR
from django_momento_http.cache import MomentoCache
from django_momento_http.exceptions import MomentoError
from django_momento_http.testing import Fault, RunningServer
from tests.support.awaited import Awaited
from tests.support.scripted import (
    Peer,
    Script,
    ScriptedServer,
    after_request,
    answer,
    answer_once,
    response,
    scripted,
)

SILENCE = 0.03
LONG = 0.2  # an answer that a second request overtakes
KEY = "a2V5"
SYNC_AND_ASYNC = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


def impatient(cache: Any) -> MomentoClient:
    """Make the client of a cache ask again soon, with tokens to spend, and return it."""
    client: MomentoClient = cache._store._client
    state = client._endpoint
    state.silence.threshold = SILENCE
    state.silence._next = 1 << 30  # it learns nothing more
    for _ in range(100):
        state.retries.earn()
    return client


@pytest.fixture
def hedged(make_cache: Callable[..., Any]) -> Callable[..., Any]:
    """A function that builds a backend whose reads are asked again soon."""

    def make(**options: Any) -> Any:
        cache = make_cache(**{"HEDGE": True, "CLEAR_MAX_AGE": None, **options})
        impatient(cache)
        return cache

    return make


READS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "get": (lambda cache: cache.get("k"), 1),
    "has_key": (lambda cache: cache.has_key("k"), True),
    "get_many": (lambda cache: cache.get_many(["k", "other"]), {"k": 1, "other": 2}),
    "get_or_set": (lambda cache: cache.get_or_set("k", lambda: 5), 1),
    "ttl": (lambda cache: round(cache.ttl("k"), -1), 300.0),
}
WRITES: dict[str, Callable[[Any], Any]] = {
    "add": lambda cache: cache.add("k", 5),
    "touch": lambda cache: cache.touch("k", 60),
    "incr": lambda cache: cache.incr("k"),
    "decr": lambda cache: cache.decr("k"),
    "delete": lambda cache: cache.delete("k"),
    "incr_version": lambda cache: cache.incr_version("k"),
    "set": lambda cache: cache.set("k", 5),
    "set_many": lambda cache: cache.set_many({"k": 5, "other": 6}),
    "delete_many": lambda cache: cache.delete_many(["k", "other"]),
}


@SYNC_AND_ASYNC
@pytest.mark.parametrize("name", READS)
def test_reads_are_asked_again(
    hedged: Callable[..., Any], server: RunningServer, name: str, is_async: bool
) -> None:
    """A silent read has its value from another connection long before the first answer comes."""
    cache = hedged()
    cache.set_many({"k": 1, "other": 2})
    use, expected = READS[name]
    server.inject(Fault(delay=5.0))
    server.forget_requests()
    began = time.monotonic()
    assert use(Awaited(cache) if is_async else cache) == expected
    assert time.monotonic() - began < 4.0
    assert {request.method for request in server.requests} == {"GET"}
    stats = cache.stats()
    assert stats["hedges"] >= stats["hedges_won"] >= 1
    assert stats["errors"] == {}


@SYNC_AND_ASYNC
@pytest.mark.parametrize("name", WRITES)
def test_writes_and_what_they_depend_on_are_sent_once(
    hedged: Callable[..., Any], server: RunningServer, name: str, is_async: bool
) -> None:
    """However slow the service is, no write and no read for one goes out a second time."""
    cache = hedged()
    cache.set_many({"k": 1, "other": 2})
    server.inject(Fault(delay=4 * SILENCE, times=None))
    server.forget_requests()
    WRITES[name](Awaited(cache) if is_async else cache)
    sent = [(request.method, request.key) for request in server.requests]
    assert len(sent) == len(set(sent)) > 0
    assert cache.stats()["hedges"] == 0


def test_the_second_look_of_get_or_set_is_sent_once(
    hedged: Callable[..., Any], server: RunningServer
) -> None:
    """What decides whether a made value is stored is asked once."""
    cache = hedged()

    def make() -> int:
        server.inject(Fault(delay=4 * SILENCE, times=None))
        server.forget_requests()
        return 7

    assert cache.get_or_set("k", make) == 7
    assert [request.method for request in server.requests] == ["GET", "PUT"]


def test_the_marker_is_asked_again(hedged: Callable[..., Any], server: RunningServer) -> None:
    """A lost answer to the read of the clear marker holds nobody up."""
    cache = hedged(CLEAR_MAX_AGE=0)
    cache.set("k", 1)
    server.inject(Fault(delay=5.0, times=2))  # of the marker, and of the key
    began = time.monotonic()
    assert cache.get("k") == 1
    assert time.monotonic() - began < 4.0


def older_by(cache: Any, seconds: float) -> None:
    """Let a cache's copy of the clear marker be older."""
    age = cache._store._age
    age.read_at -= seconds
    age.read_wall -= seconds


@SYNC_AND_ASYNC
@pytest.mark.parametrize("name", ["get", "get_many", "set"])
@pytest.mark.parametrize("hedge", [True, False])
def test_nobody_waits_for_a_marker_whose_copy_is_young(
    hedged: Callable[..., Any],
    server: RunningServer,
    caplog: pytest.LogCaptureFixture,
    name: str,
    is_async: bool,
    hedge: bool,
) -> None:
    """A copy that is renewed early holds up no operation, and its loss is no trouble."""
    cache = hedged(CLEAR_MAX_AGE=10, HEDGE=hedge)
    cache.set_many({"k": 1, "other": 2})
    [marker] = {one.key for one in server.requests if b"clear:" in one.key}
    server.inject(Fault(delay=20.0, times=None, key=marker))
    server.forget_requests()
    older_by(cache, 9)
    caplog.clear()
    began = time.monotonic()
    use, expected = READS.get(name) or (WRITES[name], None)
    assert use(Awaited(cache) if is_async else cache) == expected
    assert time.monotonic() - began < 4.0
    assert cache.stats()["breaker"] == "closed"
    assert caplog.records == []


def test_who_needs_the_marker_waits_for_it(
    hedged: Callable[..., Any], server: RunningServer
) -> None:
    """A copy beyond its age serves nothing before the marker was asked for."""
    cache = hedged(CLEAR_MAX_AGE=10, HEDGE=False)
    cache.set("k", 1)
    [marker] = {one.key for one in server.requests if b"clear:" in one.key}
    server.inject(Fault(delay=8 * SILENCE, key=marker))
    older_by(cache, 11)
    began = time.monotonic()
    assert cache.get("k") == 1
    assert time.monotonic() - began >= 8 * SILENCE


def test_it_can_be_turned_off(hedged: Callable[..., Any], server: RunningServer) -> None:
    """With HEDGE False nothing is asked twice."""
    cache = hedged(HEDGE=False)
    cache.set("k", 1)
    server.forget_requests()
    server.inject(Fault(delay=LONG))
    assert cache.get("k") == 1
    assert len(server.requests) == 1


def test_it_is_on_by_default() -> None:
    """A configuration that says nothing hedges."""
    given = {"ENDPOINT": "http://127.0.0.1:1", "TOKEN": "a-token"}
    assert read_options("c", given, {}).hedge
    assert not read_options("c", given | {"HEDGE": "false"}, {}).hedge


# What it costs


def test_the_loser_is_counted_and_billed_like_the_winner(
    hedged: Callable[..., Any], server: RunningServer
) -> None:
    """Two requests of three KiB are two requests and six operations; five tokens more are owed."""
    cache = hedged(COMPRESSOR=None)
    cache.set("k", bytes(2500))
    client = cache._store._client
    before, tokens = cache.stats(), client._endpoint.retries.tenths
    assert tokens == 100
    client._hedging._budget.spend_on_hedge()  # leave it less than full: what is earned shows
    server.inject(Fault(delay=5.0))
    assert cache.get("k") == bytes(2500)
    after = cache.stats()
    grown = {name: after[name] - before[name] for name in ("requests", "hedges", "hedges_won")}
    assert grown["requests"] == 1 + grown["hedges"]
    assert grown["hedges_won"] == 1
    assert after["billed_operations"] - before["billed_operations"] == 3 * grown["requests"]
    assert client._endpoint.retries.tenths == tokens - 10 + 1 - 30 * grown["hedges"]


def test_a_new_process_has_nothing_to_spend(make_cache: Callable[..., Any]) -> None:
    """Its first operation earns what a second request needs beyond the five of the retries."""
    budget = make_cache(HEDGE=True)._store._client._endpoint.retries
    assert not budget.spend_on_hedge()
    budget.earn()
    assert budget.spend_on_hedge()


def test_a_tenth_is_the_most(hedged: Callable[..., Any], server: RunningServer) -> None:
    """When every answer is late, there is a second request for one in ten, and five at first."""
    cache = hedged()
    cache.set_many({str(number): number for number in range(64)})
    for _ in range(100):
        cache._store._client._endpoint.retries.earn()
    server.forget_requests()
    server.inject(Fault(delay=8 * SILENCE, times=None))
    for _ in range(3):
        assert len(cache.get_many([str(number) for number in range(60)])) == 60
    assert 180 < len(server.requests) <= 180 + 5 + 18


def test_a_service_that_is_slow_but_well_is_not_asked_twice(
    make_cache: Callable[..., Any], server: RunningServer
) -> None:
    """What all answers take is no silence, once a hundred have come."""
    cache = make_cache(HEDGE=True, CLEAR_MAX_AGE=None)
    silence = cache._store._client._endpoint.silence
    assert silence.threshold == COLD
    for _ in range(200):
        silence.record(0.1)
    assert silence.threshold == pytest.approx(0.2)
    server.inject(Fault(delay=0.1, times=None))
    keys = [str(number) for number in range(30)]
    for _ in range(5):
        cache.get_many(keys)
    assert cache.stats()["hedges"] <= 2


# Accounts


def clients(server: ScriptedServer, **options: Any) -> MomentoClient:
    given = {"ENDPOINT": server.endpoint, "TOKEN": "a-token", "REQUEST_TIMEOUT": 5.0, **options}
    client = MomentoClient(read_options("default-cache", given, {}))
    state = client._endpoint
    state.silence.threshold = SILENCE
    state.silence._next = 1 << 30
    while state.retries.spend():
        pass
    for _ in range(60):
        state.retries.earn()  # one hedge, and five retries
    return client


@pytest.fixture
def client_of() -> Iterator[Callable[..., MomentoClient]]:
    """A function that makes an impatient client of a scripted server."""
    endpoints = []

    def make(server: ScriptedServer, **options: Any) -> MomentoClient:
        endpoints.append(server.endpoint)
        return clients(server, **options)

    yield make
    for endpoint in endpoints:
        forget_endpoint(endpoint)


def get(client: MomentoClient) -> Any:
    return client.run(Operation.get(KEY), client.deadline(1, time.monotonic()))


def lose(peer: Peer) -> None:
    """Take a request and never answer."""
    peer.request()
    peer.wait_until_left()


def lost_of(breaker: Breaker) -> float:
    return breaker.condition.lost


def test_a_hedged_win_neither_charges_nor_refunds(
    client_of: Callable[..., MomentoClient],
) -> None:
    """What was lost before stays lost: a second request's answer says nothing of the service."""
    with scripted(lose, answer(response(200))) as server:
        client = client_of(server)
        breaker = client._endpoint.breaker
        error = MomentoError()
        error.transient = True
        breaker.record(0, error, 5.0)
        before = lost_of(breaker)
        assert before > 0
        assert bytes(get(client)) == b"value"
        assert client.stats()["hedges_won"] == 1
        assert lost_of(breaker) == before
        assert bytes(get(client)) == b"value"
        assert lost_of(breaker) < before


def then(status: int, *headers: str) -> tuple[Script, Script]:
    """Return two peers: the first answers so when the second was asked, then the second answers."""

    def first(peer: Peer) -> None:
        peer.request()
        while len(peer.server.received) < 2:
            peer.pause(0.001)
        peer.send(response(status, b"no", *headers))
        peer.pause(0.05)
        peer.server.has_answered = True  # type: ignore[attr-defined]
        peer.stall()

    def second(peer: Peer) -> None:
        peer.request()
        while not hasattr(peer.server, "has_answered"):
            peer.pause(0.001)
        peer.send(response(200))
        answer(response(200))(peer)

    return first, second


def test_a_limit_that_lost_ends_hedging(client_of: Callable[..., MomentoClient]) -> None:
    """After a 429, also one that another answer has beaten, nothing goes out twice for a minute."""
    with scripted(*then(429)) as server:
        client = client_of(server)
        assert bytes(get(client)) == b"value"
        assert client.stats()["errors"] == {"rate_limited": 1}
        assert client.stats()["breaker"] == "closed"
        assert not client.may_send_extra
        assert client._hedging is not None
        assert not client._hedging.may_ask()


def test_a_refused_token_that_lost_is_not_forgotten(
    client_of: Callable[..., MomentoClient],
) -> None:
    """A 401 for a token that stays the same opens the account's breaker, whoever won."""
    with scripted(*then(401)) as server:
        client = client_of(server)
        assert bytes(get(client)) == b"value"
        assert client.stats()["errors"] == {"access_denied": 1}
        assert client.stats()["breaker"] == "open"


def test_a_refused_token_that_lost_may_be_renewed(
    client_of: Callable[..., MomentoClient],
) -> None:
    """Where the token can be asked for again, the next 401 does that; nothing opens."""
    with scripted(*then(401)) as server:
        client = client_of(server, TOKEN=lambda: "a-token")
        assert bytes(get(client)) == b"value"
        assert client.stats()["breaker"] == "closed"


def test_a_failure_that_lost_costs_nothing(client_of: Callable[..., MomentoClient]) -> None:
    """A 503 that another answer has beaten is counted, not charged, and not retried."""
    with scripted(*then(503)) as server:
        client = client_of(server)
        assert bytes(get(client)) == b"value"
        assert client.stats()["errors"] == {"service_failed": 1}
        assert client.stats()["retries"] == 0
        assert lost_of(client._endpoint.breaker) == 0
        assert len(server.received) == 2


def test_a_retry_and_its_hedge_are_three_requests(
    client_of: Callable[..., MomentoClient],
) -> None:
    """What broke is sent again at once, and asked again when that is silent; then no more."""
    with scripted(answer_once(b""), lose) as server:
        client = client_of(server, REQUEST_TIMEOUT=0.5)
        for _ in range(100):
            client._endpoint.retries.earn()
        assert isinstance(get(client), MomentoError)
        assert len(server.received) == 3
        stats: Any = client.stats()
        assert (stats["requests"], stats["retries"], stats["hedges"]) == (3, 1, 1)


def test_three_silent_requests_are_not_retried(
    client_of: Callable[..., MomentoClient],
) -> None:
    """When two hedges and the first have broken, there is no fourth."""
    with scripted(after_request(lambda peer: peer.pause(4 * SILENCE))) as server:
        client = client_of(server)
        for _ in range(100):
            client._endpoint.retries.earn()
        assert isinstance(get(client), MomentoError)
        assert len(server.received) == 3
        assert client.stats()["retries"] == 0


def test_a_dead_service_opens_the_breaker(client_of: Callable[..., MomentoClient]) -> None:
    """Silence that nobody ends is charged once for each operation, and opens it as ever."""
    with scripted(lose) as server:
        client = client_of(server, REQUEST_TIMEOUT=0.3)
        operations = 0
        while client.stats()["breaker"] == "closed":
            get(client)
            operations += 1
            assert operations < 10
        assert operations == 3


# Processes


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_starts_empty(make_cache: Callable[..., Any]) -> None:
    """What silence is, a child learns anew: it may run elsewhere on the machine."""
    cache = make_cache(HEDGE=True, CLEAR_MAX_AGE=None)
    for _ in range(200):
        cache._store._client._endpoint.silence.record(0.001)
    assert cache._store._client._endpoint.silence.threshold == FLOOR
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads; the child uses none
        child = os.fork()
    if child == 0:
        found = cache._store._client._endpoint.silence.threshold
        os._exit(0 if found == COLD else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_aliases_of_an_endpoint_learn_together(server: RunningServer) -> None:
    """What one alias has learnt of the endpoint, another knows; each may be turned off alone."""
    first, second = (
        MomentoCache("default-cache", {"OPTIONS": server.cache_settings(HEDGE=hedge)["OPTIONS"]})
        for hedge in (True, False)
    )
    assert first._store._client._endpoint is second._store._client._endpoint
    assert first._store._client._hedging is not None
    assert second._store._client._hedging is None


def test_answers_never_mix(hedged: Callable[..., Any], server: RunningServer) -> None:
    """With one answer in eight late, two hundred reads have their own values."""
    cache = hedged()
    values = {f"k{number}": number for number in range(40)}
    cache.set_many(values)
    for round_ in range(5):
        for number in range(5):
            server.inject(Fault(delay=LONG, key=f":1:k{8 * number}".encode()))
        if round_ % 2:
            assert cache.get_many(list(values)) == values
        else:
            assert {key: cache.get(key) for key in values} == values
    assert cache.stats()["misses"] == 0
