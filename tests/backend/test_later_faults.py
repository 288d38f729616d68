"""Faults on an operation's way: a later request fails, a value is not ours, a peer reads slowly."""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any, NamedTuple

import pytest

from django_momento_http._store.store import forget_endpoint
from django_momento_http.cache import MomentoCache
from django_momento_http.exceptions import (
    AccessDenied,
    BadRequest,
    MomentoError,
    RateLimited,
    ServiceFailed,
    StoredValueError,
    TimedOut,
    TransportError,
)
from django_momento_http.testing import Fault, running_server
from tests.support.canary import TOKEN
from tests.support.operations import MODES, Lines, Operation, carry_out, listening
from tests.support.scripted import GRACE, Peer, after_request, response, scripted

DEADLINE = 0.3
# For what a test prepares: a busy machine must not spoil it.
PATIENT = {"REQUEST_TIMEOUT": 30.0, "CONNECT_TIMEOUT": 30.0, "ON_ERROR": "raise"}
# What went wrong is tried twice more: this machine may be busy.
ATTEMPTS = 3


@pytest.fixture
def lines() -> Iterator[Lines]:
    """What is logged, without a secret."""
    with listening() as heard:
        yield heard
    assert heard.sightings == []


def is_missed(operation: Operation, result: Any) -> bool:
    """Whether a result is what "miss" mode promises; an error is one of exactly that class."""
    if operation.missed is ValueError:
        return type(result) is ValueError
    return bool(result == operation.missed) and not isinstance(result, Exception)


class Second(NamedTuple):
    """An operation whose first request is answered well, and what it says when a later one fails.

    ``failing`` is the method of that request, ``before`` how many go before it.
    """

    operation: Operation
    failing: str
    before: int = 1


SECONDS = (
    Second(Operation("add", ("absent", 1), False), "PUT"),
    Second(Operation("touch", ("there", 60), False), "PUT"),
    Second(Operation("incr", ("there",), ValueError), "PUT"),
    Second(Operation("decr", ("there",), ValueError), "PUT"),
    Second(Operation("incr_version", ("there",), ValueError), "PUT"),
    Second(Operation("incr_version", ("there",), 2), "DELETE", before=2),
    Second(Operation("delete", ("there",), False), "DELETE"),
    Second(Operation("get_or_set", ("absent", lambda: 1), 1), "PUT", before=2),
    # The marker is read first; one that was refused leaves no old value behind.
    Second(Operation("clear", (), None), "PUT"),
)


class Fate(NamedTuple):
    """What a request meets, and what comes of it."""

    name: str
    fault: dict[str, Any]
    error: type[MomentoError]
    is_retried: bool = False
    is_refusal: bool = False


FATES = (
    Fate("late", {"delay": 2 * DEADLINE}, TimedOut),
    Fate("drop-before", {"drop": "before"}, TransportError, is_retried=True),
    Fate("drop-after", {"drop": "after"}, TransportError, is_retried=True),
    Fate("400", {"status": 400}, BadRequest, is_refusal=True),
    Fate("401", {"status": 401}, AccessDenied),
    Fate("403", {"status": 403}, AccessDenied),
    Fate("429", {"status": 429}, RateLimited),
    Fate("503", {"status": 503}, ServiceFailed, is_retried=True),
)


def problems_later(
    fate: Fate, second: Second, mode: str, is_async: bool, lines: Lines, attempt: int
) -> list[str]:
    """Carry an operation out whose later request meets its fate; return what is wrong with it."""
    operation, failing, before = second
    location = f"{fate.name}-{operation.name}-{attempt}"
    max_age = 10 if operation.name == "clear" else None
    with running_server(caches=(location,), token=TOKEN) as server:
        settings = {"ENDPOINT": server.endpoint, "TOKEN": TOKEN, "CLEAR_MAX_AGE": max_age}
        MomentoCache(location, {"OPTIONS": settings | PATIENT}).set("there", 5)
        forget_endpoint(server.endpoint)
        settings |= {"ON_ERROR": mode, "REQUEST_TIMEOUT": DEADLINE}
        cache = MomentoCache(location, {"OPTIONS": settings})
        server.forget_requests()
        server.inject(Fault(method=failing, times=None, **fate.fault))
        result, elapsed, _ = carry_out(cache, operation, is_async=is_async)
        forget_endpoint(server.endpoint)
    sent = [request.method for request in server.requests]
    failed = [failing] * (2 if fate.is_retried else 1)
    if fate.is_refusal and failing == "PUT" and operation.name != "clear":
        failed.append("DELETE")
    good = isinstance(result, fate.error) if mode == "raise" else is_missed(operation, result)
    found = []
    if not good or sent[before:] != failed or elapsed > 2 * DEADLINE + GRACE:
        found.append(f"{fate.name}: {result!r}, {sent}, {elapsed:.3f} s")
    if len(lines.about(location)) != (mode == "miss"):
        found.append(f"{fate.name}: {lines.about(location)}")
    return found


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("second", SECONDS, ids=lambda s: f"{s.operation.name}-{s.failing}")
def test_a_later_request_in_trouble(
    second: Second, mode: str, is_async: bool, lines: Lines
) -> None:
    """An operation of several requests fails as a whole, in time, when a later one fails."""
    found: list[str] = []
    for fate in FATES:
        for attempt in range(ATTEMPTS):  # a loaded machine may be late once
            wrong = problems_later(fate, second, mode, is_async, lines, attempt)
            if not wrong:
                break
        found += wrong
    assert found == []


UNREADABLE: dict[str, Callable[[bytes, bytes], bytes]] = {
    "nothing": lambda own, other: b"",
    "foreign": lambda own, other: b"\x80\x05K\x01.",
    "truncated": lambda own, other: own[:-1],
    "extended": lambda own, other: own + b"x",
    "head alone": lambda own, other: own[:64],
    "flipped": lambda own, other: own[:70] + bytes([own[70] ^ 1]) + own[71:],
    "of another key": lambda own, other: other,
    "spliced": lambda own, other: own[:80] + other[80:],
}
# What each operation says of a value that is not ours: as if there were none.
ON_UNREADABLE = (
    (Operation("get", ("a", "default"), "default"), 1),
    (Operation("get_many", (("a", "b"),), {"b": "of b"}), 2),
    (Operation("set", ("a", 1), None), 1),
    (Operation("set_many", ({"a": 1},), []), 1),
    (Operation("add", ("a", 1), True), 2),
    (Operation("touch", ("a", 60), False), 1),
    (Operation("delete", ("a",), False), 2),
    (Operation("delete_many", (("a",),), None), 1),
    (Operation("has_key", ("a",), False), 1),
    (Operation("incr", ("a",), ValueError), 1),
    (Operation("decr", ("a",), ValueError), 1),
    (Operation("incr_version", ("a",), ValueError), 1),
    (Operation("get_or_set", ("a", lambda: "default"), "default"), 3),
    (Operation("ttl", ("a",), 0), 1),
)
WRITES_ONLY = ("set", "set_many", "delete_many")


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("spoil", UNREADABLE.values(), ids=UNREADABLE)
def test_values_that_are_not_ours(
    spoil: Callable[[bytes, bytes], bytes], mode: str, is_async: bool, lines: Lines
) -> None:
    """A value that is broken or belongs elsewhere is as good as none, and never served."""
    found = []
    locations = tuple(operation.name for operation, _ in ON_UNREADABLE)
    with running_server(caches=locations, token=TOKEN) as server:
        for operation, requests in ON_UNREADABLE:
            location = operation.name
            settings = {"ENDPOINT": server.endpoint, "TOKEN": TOKEN, "ON_ERROR": mode}
            settings |= {"CLEAR_MAX_AGE": None}
            cache = MomentoCache(location, {"OPTIONS": settings})
            patient = MomentoCache(location, {"OPTIONS": settings | PATIENT})
            patient.set_many({"a": "a" * 50, "b": "of b"})
            own, other = (server.items[location, key] for key in (b":1:a", b":1:b"))
            server.put(location, b":1:a", spoil(own, other))
            server.forget_requests()
            result, *_ = carry_out(cache, operation, is_async=is_async)
            raises = mode == "raise" and location not in WRITES_ONLY
            if raises != isinstance(result, StoredValueError):
                found.append(f"{location}: {result!r}")
            if not raises and not is_missed(operation, result):
                found.append(f"{location}: {result!r}")
            if not raises and len(server.requests) != requests:
                found.append(f"{location}: {server.requests}")
            if (not lines.about(location)) != (mode == "raise" or location in WRITES_ONLY):
                found.append(f"{location}: {lines.about(location)}")
        forget_endpoint(server.endpoint)
    assert found == []


def slow_reader(peer: Peer) -> None:
    """Read a large request so slowly that it would take minutes."""
    if peer.head().startswith(b"GET"):
        peer.send(response(404, b"Key Not Found"))
        peer.head()
    while peer.sock.recv(2000):
        peer.pause(0.02)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["set", "set_many", "add"])
def test_a_slow_reader(name: str, mode: str, is_async: bool) -> None:
    """4 MB to a peer that hardly reads take no longer than the deadline."""
    value = Random(1).randbytes(4_000_000)
    wanted: dict[str, Operation] = {
        "set": Operation("set", ("a", value), None),
        "set_many": Operation("set_many", ({"a": value, "b": value},), ["a", "b"]),
        "add": Operation("add", ("a", value), False),
    }
    with scripted(slow_reader) as server:
        settings = {"ENDPOINT": server.endpoint, "TOKEN": TOKEN, "ON_ERROR": mode}
        settings |= {"COMPRESSOR": None, "CLEAR_MAX_AGE": None}
        elapsed = []
        for attempt in range(ATTEMPTS):
            settings["REQUEST_TIMEOUT"] = DEADLINE + 1e-6 * attempt
            cache = MomentoCache("default-cache", {"OPTIONS": settings})
            outcome = carry_out(cache, wanted[name], is_async=is_async)
            if mode == "raise":
                assert isinstance(outcome.result, TimedOut)
            else:
                assert is_missed(wanted[name], outcome.result)
            elapsed.append(outcome.elapsed)
            if elapsed[-1] <= DEADLINE + GRACE:
                break
        forget_endpoint(server.endpoint)
    assert min(elapsed) <= DEADLINE + GRACE


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_many_keys_over_few_connections(is_async: bool) -> None:
    """n keys take at most REQUEST_TIMEOUT x ceil(n / MAX_CONNECTIONS), whatever the peer does."""
    with scripted(after_request(Peer.stall)) as server:
        settings = {"ENDPOINT": server.endpoint, "TOKEN": TOKEN, "CLEAR_MAX_AGE": None}
        settings |= {"MAX_CONNECTIONS": 2, "REQUEST_TIMEOUT": DEADLINE}
        cache = MomentoCache("default-cache", {"OPTIONS": settings})
        operation = Operation("get_many", (list("abcde"),), {})
        result, elapsed, _ = carry_out(cache, operation, is_async=is_async)
        forget_endpoint(server.endpoint)
    assert result == {}
    # The breaker may well end it earlier.
    assert elapsed <= 3 * DEADLINE + GRACE
