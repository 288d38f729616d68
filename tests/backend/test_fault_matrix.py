"""Every fault x every operation x both modes x sync and async, over real sockets.

The result, the time, the requests on the wire and the log lines are those of the policy's table.
All combinations of one fault share its server and run beside each other; each has a cache name of
its own, by which its requests and its lines are told from the others'.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import product
from random import Random
from typing import Any, NamedTuple

import pytest

from django_momento_http._store.store import forget_endpoint
from django_momento_http.cache import MomentoCache
from django_momento_http.exceptions import (
    AccessDenied,
    BadRequest,
    CacheNotFound,
    ConnectFailed,
    MomentoError,
    RateLimited,
    ServiceFailed,
    StoredValueError,
    TimedOut,
    TransportError,
)
from django_momento_http.testing import Fault, running_server
from tests.support.scripted import GRACE, Peer, Script, after_request, reply, scripted, silent

TOKEN = "a-token-for-the-matrix"
DEADLINE = 0.3
# For what a test prepares: a busy machine must not spoil it.
PATIENT = {"REQUEST_TIMEOUT": 30.0, "CONNECT_TIMEOUT": 30.0, "ON_ERROR": "raise"}
KEYS = ("a", "b", "c", "d")
# A combination that went wrong beside others has two more, alone: this machine may be busy.
ATTEMPTS = 3


class Operation(NamedTuple):
    """A method, what it says in trouble, and how many requests it would send were all to fail.

    ``first`` is how many when nothing is sent after the first one failed; ``puts`` how many are
    PUTs, each of which is followed by a DELETE when it was refused as it stands.
    """

    name: str
    arguments: tuple[Any, ...]
    missed: Any
    requests: int = 1
    first: int = 1
    puts: int = 0
    lines: int = 1


OPERATIONS = (
    Operation("get", ("a", "default"), "default"),
    Operation("get_many", (KEYS,), {}, 4, 4),
    Operation("set", ("a", 1), None, puts=1),
    Operation("set_many", (dict.fromkeys(KEYS, 1),), list(KEYS), 4, 4, puts=4),
    Operation("add", ("a", 1), False),
    Operation("touch", ("a", 60), False),
    # The DELETE follows also where the GET failed.
    Operation("delete", ("a",), False, 2, 1),
    Operation("delete_many", (KEYS,), None, 4, 4),
    Operation("has_key", ("a",), False),
    Operation("incr", ("a",), ValueError),
    Operation("decr", ("a",), ValueError),
    Operation("incr_version", ("a",), ValueError),
    Operation("get_or_set", ("a", lambda: "default"), "default"),
    Operation("ttl", ("a",), 0),
    # The marker is read beside; a line says that it could not be, whatever ON_ERROR is.
    Operation("clear", (), None),
)
MODES = ("miss", "raise")


class Combination(NamedTuple):
    """One cell of the matrix; its cache is named after it."""

    operation: Operation
    mode: str
    is_async: bool

    @property
    def location(self) -> str:
        """The name of its cache."""
        kind = "async" if self.is_async else "sync"
        return f"{self.operation.name}-{self.mode}-{kind}"


COMBINATIONS = [Combination(*cell) for cell in product(OPERATIONS, MODES, (False, True))]
LOCATIONS = tuple(combination.location for combination in COMBINATIONS)


class Site(NamedTuple):
    """A service in trouble: where it is, and the requests that reached it, by cache name."""

    endpoint: str
    requests: Callable[[str], int | None]


class Trouble(NamedTuple):
    """A fault, and what the policy says of it."""

    name: str
    site: Callable[[], Any]
    error: type[MomentoError] | tuple[type[MomentoError], ...]
    is_retried: bool = False
    # The deadline is used up, or the breaker opens: nothing is sent after the first failure.
    ends_it: bool = False
    is_refusal: bool = False
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed
    # Too much for threads side by side: what the peer sends keeps this process busy.
    is_busy: bool = False
    only: tuple[str, ...] = ()

    @property
    def combinations(self) -> list[Combination]:
        """The cells of the matrix that this trouble is tried on."""
        return [c for c in COMBINATIONS if not self.only or c.operation.name in self.only]


@contextmanager
def misbehaving(fault: Fault) -> Iterator[Site]:
    """The true service with one fault for every request."""
    with running_server(caches=LOCATIONS, token=TOKEN) as server:
        server.inject(fault)

        def requests(location: str) -> int:
            return sum(request.cache == location for request in server.requests)

        yield Site(server.endpoint, requests)


def always(**fault: Any) -> Callable[[], Any]:
    """A service whose every answer is that fault."""
    return lambda: misbehaving(Fault(times=None, **fault))


def peer(script: Script, *, counts: bool = True) -> Callable[[], Any]:
    """A scripted peer; ``counts`` where it reads whole requests."""

    @contextmanager
    def site() -> Iterator[Site]:
        with scripted(script) as server:

            def requests(location: str) -> int | None:
                path = f"/cache/{location}?"
                found = sum(received.target.startswith(path) for received in server.received)
                return found if counts else None

            yield Site(server.endpoint, requests)

    return site


@contextmanager
def refused() -> Iterator[Site]:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield Site(f"http://127.0.0.1:{sock.getsockname()[1]}", lambda _: None)


@contextmanager
def not_tls() -> Iterator[Site]:
    """TLS is spoken to a peer that does not."""
    with scripted(lambda peer: peer.send(b"220 who are you?\r\n" * 10)) as server:
        yield Site(f"https://127.0.0.1:{server.port}", lambda _: None)


@contextmanager
def tls_silence() -> Iterator[Site]:
    """TLS is spoken to a peer that says nothing."""
    with scripted(silent) as server:
        yield Site(f"https://127.0.0.1:{server.port}", lambda _: None)


def endless(start: bytes, more: bytes, times: int = 512) -> Script:
    """Answer with something that has no end, so many at once."""
    return after_request(lambda peer: peer.send(start), lambda peer: peer.flood(more * times))


def drip_head(peer: Peer) -> None:
    """Answer a byte at a time."""
    peer.request()
    peer.drip(reply(200, b"value"))


def drip_body(peer: Peer) -> None:
    """Answer with a head at once and a body a byte at a time."""
    peer.request()
    peer.send(reply(200, b"", length=5000))
    peer.drip(b"x" * 5000)


def hang_in(data: bytes) -> Script:
    """Send the beginning of an answer, and then nothing."""
    return after_request(lambda peer: peer.send(data), Peer.stall)


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
LONG = b"X-Header: " + b"x" * 100 + b"\r\n"

# Each client over TLS reads a bundle of certificates first, which costs more than the operation.
SOME = ("get", "get_many", "set", "delete", "incr", "clear")

TROUBLES = (
    Trouble("refused", refused, ConnectFailed),
    Trouble("tls to plain", not_tls, ConnectFailed, only=SOME),
    Trouble(
        "tls silence", tls_silence, ConnectFailed, options={"CONNECT_TIMEOUT": 0.12}, only=SOME
    ),
    Trouble("accept and silence", peer(silent, counts=False), TimedOut, ends_it=True),
    Trouble("read and silence", peer(after_request(Peer.stall)), TimedOut, ends_it=True),
    Trouble("drip headers", peer(drip_head), TimedOut, ends_it=True),
    Trouble("drip body", peer(drip_body), TimedOut, ends_it=True),
    Trouble("hang in headers", peer(hang_in(HEAD + b"Conte")), TimedOut, ends_it=True),
    Trouble("hang in body", peer(hang_in(reply(200, b"x", length=9))), TimedOut, ends_it=True),
    Trouble("late answer", always(delay=2 * DEADLINE), TimedOut, ends_it=True),
    Trouble("drop before", always(drop="before"), TransportError, is_retried=True),
    Trouble("drop after", always(drop="after"), TransportError, is_retried=True),
    Trouble("drop in headers", always(drop="headers"), TransportError, is_retried=True),
    Trouble("drop in body", always(drop="body"), TransportError, is_retried=True),
    Trouble("reset", peer(after_request(Peer.reset)), TransportError, is_retried=True),
    Trouble(
        "truncated length",
        peer(after_request(lambda peer: peer.send(reply(200, b"value", length=5000)))),
        TransportError,
        is_retried=True,
    ),
    Trouble(
        "no length",
        peer(after_request(lambda peer: peer.send(reply(200, b"value", length=None)))),
        TransportError,
        is_retried=True,
    ),
    Trouble(
        "length beyond an item",
        peer(hang_in(reply(200, b"x", length=2**40))),
        TransportError,
    ),
    Trouble("endless headers", peer(endless(HEAD, LONG)), TransportError, is_busy=True),
    Trouble(
        "endless 1xx",
        peer(endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n")),
        TransportError,
        is_busy=True,
    ),
    Trouble(
        "endless chunks",
        peer(endless(CHUNKED, b"1000\r\n" + b"x" * 4096 + b"\r\n", times=16)),
        TransportError,
        is_busy=True,
    ),
    Trouble(
        "endless small chunks",
        peer(endless(CHUNKED, b"1\r\nx\r\n")),
        (TransportError, TimedOut),  # whichever limit this machine reaches first
        ends_it=True,
        is_busy=True,
        only=("get", "has_key"),
    ),
    Trouble(
        "tls garbage",
        peer(after_request(lambda peer: peer.send(b"\x15\x03\x01\x00\x02\x02\x28"))),
        TransportError,
        is_retried=True,
    ),
    Trouble("content encoding", always(headers=(("Content-Encoding", "gzip"),)), TransportError),
    Trouble("a proxy's page", always(status=404, body=b"<h1>No such page</h1>"), TransportError),
    Trouble("no cache", always(status=404, body=b"Cache Not Found"), CacheNotFound, ends_it=True),
    Trouble("400", always(status=400), BadRequest, is_refusal=True),
    Trouble("413", always(status=413), BadRequest, is_refusal=True),
    Trouble("401", always(status=401), AccessDenied, ends_it=True),
    Trouble("403", always(status=403), AccessDenied),
    Trouble("429", always(status=429), RateLimited),
    Trouble(
        "429 with Retry-After",
        always(status=429, headers=(("Retry-After", "3"),)),
        RateLimited,
        ends_it=True,
    ),
    *(
        Trouble(str(status), always(status=status), ServiceFailed, is_retried=True)
        for status in (500, 502, 503, 504)
    ),
    Trouble("501", always(status=501), ServiceFailed),
    *(
        Trouble(
            str(status),
            always(status=status, headers=(("Location", "/cache/elsewhere"),)),
            TransportError,
        )
        for status in (301, 302, 303, 307, 308)
    ),
    *(Trouble(str(status), always(status=status), TransportError) for status in (202, 206, 418)),
)


class Outcome(NamedTuple):
    """What came of one combination."""

    result: Any
    elapsed: float


class Lines(logging.Handler):
    """Keeps the lines that are about one cache."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self._lines.append(record.getMessage())

    def about(self, location: str) -> list[str]:
        """Return the lines that operations on this cache have caused."""
        return [line for line in self._lines if f"on the Momento cache {location!r}" in line]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """The lines of the package's logger, which go nowhere else meanwhile."""
    logger, handler = logging.getLogger("django_momento_http"), Lines()
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    yield handler
    logger.propagate = propagate
    logger.removeHandler(handler)


def build(
    endpoint: str, combination: Combination, options: dict[str, Any], attempt: int = 0
) -> MomentoCache:
    """Return a backend that shares breaker, budget, connections and lines with no other."""
    # A clear() needs the marker, all else is counted without it.
    max_age = 10 if combination.operation.name == "clear" else None
    # The process keeps them by endpoint and timeout.
    number = attempt * len(COMBINATIONS) + COMBINATIONS.index(combination)
    settings = {
        "ENDPOINT": endpoint,
        "TOKEN": TOKEN,
        "ON_ERROR": combination.mode,
        "REQUEST_TIMEOUT": DEADLINE + 1e-6 * number,
        "CONNECT_TIMEOUT": DEADLINE,
        "CLEAR_MAX_AGE": max_age,
    }
    # Aliases of one KEY_PREFIX share their lines.
    params = {"KEY_PREFIX": f"attempt-{attempt}", "OPTIONS": settings | options}
    return MomentoCache(combination.location, params)


def carry_out(cache: MomentoCache, combination: Combination) -> Outcome:
    """Call the method and return its result, or what it raised, with the seconds that it took."""
    name, arguments, *_ = combination.operation
    began = time.monotonic()
    try:
        if combination.is_async:
            began, result = asyncio.run(timed(cache, name, arguments))
        else:
            result = getattr(cache, name)(*arguments)
    except Exception as error:  # noqa: BLE001 - judged by the caller
        result = error
    return Outcome(result, time.monotonic() - began)


async def timed(cache: MomentoCache, name: str, arguments: tuple[Any, ...]) -> tuple[float, Any]:
    """Call the twin; the event loop's own start does not count."""
    began = time.monotonic()
    try:
        return began, await getattr(cache, f"a{name}")(*arguments)
    except Exception as error:  # noqa: BLE001 - judged by the caller
        return began, error


def requests_wanted(operation: Operation, trouble: Trouble) -> int:
    """Return how many requests the policy has an operation send."""
    count = operation.first if trouble.ends_it else operation.requests
    if trouble.is_refusal:
        count += operation.puts
    return 2 * count if trouble.is_retried else count


def problems(
    trouble: Trouble, combination: Combination, site: Site, lines: Lines, attempt: int = 0
) -> list[str]:
    """Try one combination and return what is not as it should be."""
    operation, mode, _ = combination
    location = combination.location
    sent_before, lines_before = site.requests(location), len(lines.about(location))
    cache = build(site.endpoint, combination, trouble.options, attempt)
    result, elapsed = carry_out(cache, combination)
    found = []
    is_right = is_missed(operation, result)
    if mode == "raise":
        is_right = isinstance(result, trouble.error)
    if not is_right:
        found.append(f"{result!r}")
    sent, wanted = site.requests(location), requests_wanted(operation, trouble)
    if sent is not None and sent_before is not None and sent - sent_before != wanted:
        found.append(f"{sent - sent_before} requests, not {wanted}")
    written = lines.about(location)[lines_before:]
    if len(written) != operation.lines - (mode == "raise"):
        found.append(f"the lines {written}")
    if elapsed > DEADLINE + GRACE:
        found.append(f"took {elapsed:.3f} s")
    return [f"{location}: {problem}" for problem in found]


def is_missed(operation: Operation, result: Any) -> bool:
    """Whether a result is what "miss" mode promises; an error is one of exactly that class."""
    if operation.missed is ValueError:
        return type(result) is ValueError
    return bool(result == operation.missed) and not isinstance(result, Exception)


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.name)
def test_every_operation_in_trouble(trouble: Trouble, lines: Lines) -> None:
    """Whatever goes wrong, each operation ends in time and as the table says."""
    with ExitStack() as stack:
        site = stack.enter_context(trouble.site())
        stack.callback(forget_endpoint, site.endpoint)
        threads = stack.enter_context(ThreadPoolExecutor(1 if trouble.is_busy else 8))
        cells = trouble.combinations
        found = list(threads.map(lambda cell: problems(trouble, cell, site, lines), cells))
        for index, cell in enumerate(cells):
            for attempt in range(1, ATTEMPTS):
                if found[index]:
                    found[index] = problems(trouble, cell, site, lines, attempt)
    assert [problem for each in found for problem in each] == []


def test_the_matrix_is_large() -> None:
    """No fault, operation, mode or twin was lost on the way."""
    tried = sum(len(trouble.combinations) for trouble in TROUBLES)
    assert (len(OPERATIONS), len(COMBINATIONS)) == (15, 60)
    assert tried >= 2500


class Second(NamedTuple):
    """An operation whose first request is answered well, and what it says when a later one fails.

    ``failing`` is the method of that request, ``before`` how many go before it.
    """

    operation: Operation
    failing: str
    before: int = 1


SECONDS = (
    Second(Operation("add", ("absent", 1), False, puts=1), "PUT"),
    Second(Operation("touch", ("there", 60), False, puts=1), "PUT"),
    Second(Operation("incr", ("there",), ValueError, puts=1), "PUT"),
    Second(Operation("decr", ("there",), ValueError, puts=1), "PUT"),
    Second(Operation("incr_version", ("there",), ValueError, puts=1), "PUT"),
    Second(Operation("incr_version", ("there",), 2), "DELETE", before=2),
    Second(Operation("delete", ("there",), False), "DELETE"),
    Second(Operation("get_or_set", ("absent", lambda: 1), 1, puts=1), "PUT", before=2),
)
SECOND_TROUBLES = (
    Trouble("late", always(), TimedOut),
    Trouble("drop before", always(), TransportError, is_retried=True),
    Trouble("drop after", always(), TransportError, is_retried=True),
    Trouble("400", always(), BadRequest, is_refusal=True),
    Trouble("403", always(), AccessDenied),
    Trouble("429", always(), RateLimited),
    Trouble("503", always(), ServiceFailed, is_retried=True),
)
SECOND_FAULTS: dict[str, dict[str, Any]] = {
    "late": {"delay": 2 * DEADLINE},
    "drop before": {"drop": "before"},
    "drop after": {"drop": "after"},
    "400": {"status": 400},
    "403": {"status": 403},
    "429": {"status": 429},
    "503": {"status": 503},
}


def problems_later(
    trouble: Trouble, second: Second, mode: str, is_async: bool, lines: Lines, attempt: int
) -> list[str]:
    """Carry an operation out whose later request meets trouble; return what is wrong with it."""
    operation, failing, before = second
    location = f"{trouble.name.replace(' ', '-')}-{operation.name}-{attempt}"
    fault = Fault(method=failing, times=None, **SECOND_FAULTS[trouble.name])
    with running_server(caches=(location,), token=TOKEN) as server:
        settings = {"ENDPOINT": server.endpoint, "TOKEN": TOKEN, "CLEAR_MAX_AGE": None}
        MomentoCache(location, {"OPTIONS": settings | PATIENT}).set("there", 5)
        settings |= {"ON_ERROR": mode, "REQUEST_TIMEOUT": DEADLINE}
        cache = MomentoCache(location, {"OPTIONS": settings})
        server.forget_requests()
        server.inject(fault)
        result, elapsed = carry_out(cache, Combination(operation, mode, is_async))
        forget_endpoint(server.endpoint)
    sent = [request.method for request in server.requests]
    failed = [failing] * (2 if trouble.is_retried else 1)
    if trouble.is_refusal and operation.puts:
        failed.append("DELETE")
    good = isinstance(result, trouble.error) if mode == "raise" else is_missed(operation, result)
    found = []
    if not good or sent[before:] != failed or elapsed > 2 * DEADLINE + GRACE:
        found.append(f"{trouble.name}: {result!r}, {sent}, {elapsed:.3f} s")
    if len(lines.about(location)) != (mode == "miss"):
        found.append(f"{trouble.name}: {lines.about(location)}")
    return found


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("second", SECONDS, ids=lambda s: f"{s.operation.name}-{s.failing}")
def test_a_later_request_in_trouble(
    second: Second, mode: str, is_async: bool, lines: Lines
) -> None:
    """An operation of several requests fails as a whole, in time, when a later one fails."""
    found: list[str] = []
    for trouble in SECOND_TROUBLES:
        for attempt in range(ATTEMPTS):  # a loaded machine may be late once
            wrong = problems_later(trouble, second, mode, is_async, lines, attempt)
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
    "spliced": lambda own, other: own[:72] + other[72:],
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
            result, _ = carry_out(cache, Combination(operation, mode, is_async))
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
        peer.send(reply(404, b"Key Not Found"))
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
            outcome = carry_out(cache, Combination(wanted[name], mode, is_async))
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
        result, elapsed = carry_out(cache, Combination(operation, "miss", is_async))
        forget_endpoint(server.endpoint)
    assert result == {}
    # The breaker may well end it earlier.
    assert elapsed <= 3 * DEADLINE + GRACE
