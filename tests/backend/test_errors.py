"""Trouble that comes and goes: retries, deadlines, breaker and token, and what is said of them."""

import dataclasses
import logging
import re
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_momento_http.exceptions import (
    AccessDenied,
    CircuitOpen,
    ConnectFailed,
    MomentoError,
    ServiceFailed,
    TimedOut,
    TransportError,
)
from django_momento_http.testing import Fault, RunningServer, running_server
from tests.support.awaited import Awaited
from tests.support.canary import TOKEN, seen_in
from tests.support.operations import HIDDEN, KEYS, MODES, OPERATIONS, VALUE, Operation, listening

CACHE = "canary-cache"
NUMBER = 41
DEADLINE = 0.15
GRACE = 0.1
# All methods but clear(), which has a request of its own.
METHODS = [operation for operation in OPERATIONS if operation.name != "clear"]

Make = Callable[..., Any]


def call(operation: Operation, cache: Any) -> Any:
    """Call the method."""
    return getattr(cache, operation.name)(*operation.arguments)


@pytest.fixture
def server() -> Iterator[RunningServer]:
    """A server whose token and whose keys must not be seen."""
    with running_server(caches=(CACHE,), token=TOKEN) as running:
        yield running


@pytest.fixture(params=["sync", "async"])
def make(request: pytest.FixtureRequest, make_cache: Make) -> Make:
    """A function that builds a backend without a marker, called either way."""

    def build(**options: Any) -> Any:
        cache = make_cache(**{"CLEAR_MAX_AGE": None, **options})
        return cache if request.param == "sync" else Awaited(cache)

    return build


def log_lines(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Our log's lines so far, but for those on the breaker and on what is owed."""
    return [
        record
        for record in caplog.records
        if record.name == "django_momento_http"
        and "breaker" not in record.getMessage()
        and "owed" not in record.getMessage()
    ]


def breaker_lines(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Our log's lines on the breaker."""
    return [
        record
        for record in caplog.records
        if record.name == "django_momento_http" and "breaker" in record.getMessage()
    ]


@pytest.fixture(autouse=True)
def no_secret_in_any_log() -> Iterator[None]:
    """Whatever any logger says at DEBUG while a test runs holds no secret."""
    with listening() as heard:
        yield
    assert heard.sightings == []


@pytest.mark.parametrize("operation", METHODS, ids=lambda operation: operation.name)
def test_no_trouble(make: Make, server: RunningServer, operation: Operation) -> None:
    """Without trouble the same calls raise nothing and log nothing: the tables test something."""
    cache = make(ON_ERROR="raise")
    cache.set(KEYS[0], NUMBER)
    assert call(operation, cache) != "default"
    assert {request.status for request in server.requests} <= {200, 204, 404}


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (TransportError("unexpected Limit", kind="internal"), "not the network"),
        (TransportError("a 404", kind="unusable"), "ENDPOINT"),
        (TransportError("closed"), "Check the network"),
        (TimedOut("late"), "REQUEST_TIMEOUT"),
        (TimedOut("in use", kind="pool_timeout"), "MAX_CONNECTIONS"),
        (TimedOut("none left", kind="no_time"), "ask for less"),
        (TransportError("none", kind="no_thread"), "limit of threads"),
        (AccessDenied("failed", status=401, kind="token"), "callable TOKEN"),
        (AccessDenied("expired", status=401), "its expiry"),
    ],
)
def test_the_advice_fits_the_trouble(error: MomentoError, word: str) -> None:
    """Nobody looks at the network for a limit of this process, or for connections of our own."""
    assert word in str(error)
    assert ("Check the network" in str(error)) is (error.kind in ("connection", "timeout"))


# Some of many


@pytest.mark.parametrize("on_error", ["miss", "raise"])
@pytest.mark.parametrize("status", [400, 403, 500, 501])
@pytest.mark.parametrize("method", ["get_many", "set_many", "delete_many"])
def test_one_of_many(
    make: Make,
    server: RunningServer,
    caplog: pytest.LogCaptureFixture,
    method: str,
    status: int,
    on_error: str,
) -> None:
    """One failed key loses no other; the caller is told which one, or that there was one."""
    cache = make(ON_ERROR=on_error)
    old, new = dict.fromkeys("abc", "old"), dict.fromkeys("abc", "new")
    cache.set_many(old)
    wire_method = {"get_many": "GET", "set_many": "PUT", "delete_many": "DELETE"}[method]
    fault = Fault(status=status, key=b":1:b", method=wire_method, times=2 if status == 500 else 1)
    server.inject(fault)
    argument = new if method == "set_many" else list(new)
    if on_error == "raise":
        with pytest.raises(MomentoError, match=str(status)):
            getattr(cache, method)(argument)
        assert not log_lines(caplog)
    else:
        results = {"get_many": {"a": "old", "c": "old"}, "set_many": ["b"], "delete_many": None}
        assert getattr(cache, method)(argument) == results[method]
        assert len(log_lines(caplog)) == 1
    # What may succeed later is owed: the old value is absent.
    is_final = status == 403 or (status == 400 and method == "delete_many")
    untouched = {"b": "old"} if is_final else {}
    left = {
        "get_many": old,
        "set_many": {"a": "new", "c": "new", **untouched},
        "delete_many": untouched,
    }
    assert cache.get_many("abc") == left[method]


def test_a_hundred_failures_are_one_line(
    make: Make, server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Failures of one kind in one operation are one line in ten seconds, with a count."""
    cache = make()
    server.inject(Fault(status=403, times=None))
    keys = [f"k{number}" for number in range(60)]
    assert cache.get_many(keys) == {}
    for key in keys:
        cache.get(key)
    first, second = log_lines(caplog)
    assert first.getMessage().startswith("get_many on")
    assert second.getMessage().startswith("get on")


# The old value after a failed set


@pytest.mark.parametrize(
    ("status", "attempts", "found"),
    [(400, 1, None), (403, 1, "old"), (500, 2, None), (503, 2, None)],
)
def test_the_old_value(
    make: Make, server: RunningServer, status: int, attempts: int, found: str | None
) -> None:
    """Where the service refuses the new value for good, the old one is deleted."""
    cache = make()
    cache.set("k", "old")
    server.inject(Fault(status=status, method="PUT", times=attempts))
    cache.set("k", "new")
    assert cache.get("k") == found


@pytest.mark.parametrize("drop", ["after", "headers"])
def test_a_write_whose_answer_was_lost(make: Make, server: RunningServer, drop: Any) -> None:
    """A set() whose answer is cut off is sent again, and is done."""
    cache = make(ON_ERROR="raise")
    server.inject(Fault(drop=drop, method="PUT"))
    cache.set("k", "new")
    assert [request.method for request in server.requests] == ["PUT", "PUT"]
    assert cache.get("k") == "new"


# Retry


@pytest.mark.parametrize("operation", METHODS, ids=lambda operation: operation.name)
@pytest.mark.parametrize(
    "fault",
    [Fault(status=500), Fault(status=503), Fault(drop="before"), Fault(drop="body", method="GET")],
    ids=["500", "503", "dropped", "cut"],
)
def test_one_failure_is_not_noticed(
    make: Make,
    server: RunningServer,
    caplog: pytest.LogCaptureFixture,
    fault: Fault,
    operation: Operation,
) -> None:
    """One broken connection or 5xx costs one request more, and nobody hears of it."""
    usual, cache = make(ON_ERROR="raise"), make(ON_ERROR="raise", KEY_PREFIX="again")
    results, counts = [], []
    for each in (usual, cache):
        each.set(KEYS[0], NUMBER)
        server.forget_requests()
        if each is cache:
            server.inject(fault)
        results.append(call(operation, each))
        counts.append(len(server.requests))
    if operation.name == "ttl":
        results = [round(result, -1) for result in results]
    assert results[0] == results[1]
    is_hit = fault.method in (None, *[request.method for request in server.requests])
    assert counts[1] == counts[0] + is_hit
    assert not log_lines(caplog)


@pytest.mark.parametrize("method", ["add", "incr", "touch"])
def test_the_whole_is_never_retried(make: Make, server: RunningServer, method: str) -> None:
    """An inner request is retried alone: what was read is not read again."""
    cache = make()
    if method != "add":
        cache.set("k", 1)
    server.forget_requests()
    server.inject(Fault(status=503, method="PUT"))
    assert getattr(cache, method)("k", 1)
    assert [request.method for request in server.requests] == ["GET", "PUT", "PUT"]


def test_a_dying_service_sees_few_retries(make: Make, server: RunningServer) -> None:
    """The retry budget lasts for five; then one operation in ten may retry."""
    cache = make()
    for _ in range(40):
        server.inject(Fault(status=503, times=2))
        cache.get("k")
        server.clear_faults()
        for _ in range(3):
            cache.get("k")
    assert len(server.requests) <= 40 * 4 + 5 + 40 * 4 * 0.1


# Deadlines


@pytest.mark.parametrize(
    ("name", "share"),
    [(name, 0.8) for name in ("add", "touch", "delete", "incr", "incr_version", "get_or_set")]
    + [(name, 3.0) for name in ("get", "get_many", "set_many", "delete", "get_or_set")],
)
def test_one_deadline_for_all_requests(
    make: Make, server: RunningServer, name: str, share: float
) -> None:
    """An operation ends by REQUEST_TIMEOUT, however many requests it takes and which is late."""
    deadline, operation = 0.25, {each.name: each for each in METHODS}[name]
    make().set(KEYS[0], NUMBER)
    server.inject(Fault(delay=deadline * share, times=None))
    for attempt in range(3):  # a loaded machine may be late once
        cache = make(REQUEST_TIMEOUT=deadline + attempt / 1000)
        began = time.monotonic()
        try:
            call(operation, cache)
        except ValueError:
            assert operation.missed is ValueError
        if time.monotonic() - began < deadline + GRACE:
            return
    pytest.fail("later than the deadline")


def test_a_late_answer_is_nobodys(make: Make, server: RunningServer) -> None:
    """An answer that comes after its operation has ended is not taken for the next one's."""
    make().set_many({"a": "of a", "b": "of b"})
    for attempt in range(3):  # a loaded machine may be late once
        cache = make(REQUEST_TIMEOUT=DEADLINE + attempt / 1000)
        server.inject(Fault(delay=DEADLINE * 1.5, key=b":1:a"))
        assert cache.get("a") is None
        seen = [cache.get("b") for _ in range(5)]
        seen += [cache.get_many(["b"]).get("b") for _ in range(5)]
        assert set(seen) <= {"of b", None}
        if None not in seen:
            return
    pytest.fail("the next requests were not served")


# The breaker


OPENERS = {
    "missing cache": (Fault(status=404, body=b"Cache Not Found"), 1),
    "401": (Fault(status=401), 1),
    "429 with Retry-After": (Fault(status=429, headers=(("Retry-After", "4"),)), 1),
    "429 again and again": (Fault(status=429, times=None), 10),
    "503 again and again": (Fault(status=503, times=None), 30),
}


def backend_of(cache: Any) -> Any:
    """Return the backend that is called either way."""
    return cache._cache if isinstance(cache, Awaited) else cache


def be_late(cache: Any, seconds: float) -> None:
    """Let the clock of the service's breaker be ahead."""
    breaker = backend_of(cache)._shared._client._endpoint.breaker
    breaker._clock = lambda: time.monotonic() + seconds


@pytest.mark.parametrize("operation", METHODS, ids=lambda operation: operation.name)
@pytest.mark.parametrize(("fault", "calls"), OPENERS.values(), ids=OPENERS.keys())
def test_the_open_breaker(
    make: Make, server: RunningServer, operation: Operation, fault: Fault, calls: int
) -> None:
    """While the breaker is open every method answers at once, without a request."""
    quiet, loud = make(), make(ON_ERROR="raise", MAX_ENTRIES=1)
    for cache in (quiet, loud):
        cache.set(KEYS[0], NUMBER)
    for cache in (quiet, loud):
        server.clear_faults()
        server.inject(fault)
        for count in range(calls):
            be_late(cache, 0.05 * count)  # failures that cost no time must last
            try:
                cache.get("k")
            except MomentoError:
                continue
    server.forget_requests()
    if operation.missed is ValueError:
        with pytest.raises(ValueError, match="no such key"):
            call(operation, quiet)
    else:
        assert call(operation, quiet) == operation.missed
    with pytest.raises(CircuitOpen) as caught:
        call(operation, loud)
    assert not seen_in(str(caught.value), TOKEN, *HIDDEN)
    assert not server.requests


@pytest.mark.parametrize(
    ("fault", "reason", "advice"),
    [
        (Fault(status=401), "the token is invalid or expired (401)", "Check TOKEN"),
        (
            Fault(status=404, body=b"Cache Not Found"),
            "there is no such cache",
            "Create the cache in the Momento console",
        ),
    ],
    ids=["401", "missing cache"],
)
def test_an_open_breaker_says_what_opened_it(
    make: Make,
    server: RunningServer,
    caplog: pytest.LogCaptureFixture,
    fault: Fault,
    reason: str,
    advice: str,
) -> None:
    """What must be mended is told by every error after it, and in the log once."""
    server.inject(dataclasses.replace(fault, times=None))
    loud, quiet = make(ON_ERROR="raise"), make()
    with pytest.raises(MomentoError, match=re.escape(reason)):
        loud.get("k")
    with pytest.raises(CircuitOpen, match=re.escape(f"not attempted since: {reason}. {advice}")):
        loud.get("k")
    quiet.get("k")
    quiet.has_key("k")
    assert log_lines(caplog) == []
    [opened] = breaker_lines(caplog)
    assert opened.levelno == logging.WARNING
    assert f"cache {CACHE!r}: breaker open after" in opened.getMessage()
    assert f"{reason}. {advice}" in opened.getMessage()


def test_a_single_429_opens_nothing(make: Make, server: RunningServer) -> None:
    """One answer that the limit is used up is one miss."""
    cache = make()
    cache.set("k", 1)
    server.inject(Fault(status=429))
    assert cache.get("k") is None
    assert cache.get("k") == 1


@pytest.mark.parametrize("status", [400, 403])
def test_refusals_of_one_request_open_nothing(
    make: Make, server: RunningServer, status: int
) -> None:
    """400 and 403 speak of the request, not of the service, however many there are."""
    cache = make()
    cache.set("k", 1)
    server.inject(Fault(status=status, times=50))
    for _ in range(50):
        cache.get("k")
    assert cache.get("k") == 1


def open_the_breaker(cache: Any) -> None:
    """Read, 50 ms apart, until the service's breaker has had enough."""
    for count in range(40):
        if backend_of(cache).stats()["breaker"] == "open":
            return
        be_late(cache, 0.05 * count)
        cache.get("k")
    pytest.fail("it stays closed")


def test_an_outage_is_two_lines(
    make: Make, server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    """One says why nothing is asked and until when, one how long that was and how much it cost."""
    cache, other = make(), make(KEY_PREFIX="other")
    server.inject(Fault(status=503, times=None))
    open_the_breaker(cache)
    before = log_lines(caplog)
    for each in (cache, other):
        for _ in range(10):
            each.get("k")
            each.set("k", 1)
            each.add("k", 1)
    assert log_lines(caplog) == before
    be_late(cache, 3.0)
    server.clear_faults()
    assert cache.get("k") is None
    opened, closed = breaker_lines(caplog)
    host = server.endpoint.removeprefix("http://")
    assert opened.levelno == logging.WARNING
    said = opened.getMessage()
    assert said.startswith(
        f"Momento at {host} (REQUEST_TIMEOUT 30): breaker open after service_failed: the service"
    )
    assert "answered at once, without a request; the next probe is in about 1." in said
    assert closed.levelno == logging.INFO
    assert closed.getMessage().startswith(
        f"Momento at {host} (REQUEST_TIMEOUT 30): breaker closed again after 2."
    )
    assert closed.getMessage().endswith("60 operations were not asked")


def test_a_probe_that_fails_is_no_line_of_the_breaker(
    make: Make, server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    """However often it asks in vain, it opened once."""
    cache = make()
    server.inject(Fault(status=503, times=None))
    open_the_breaker(cache)
    for minutes in range(1, 6):
        be_late(cache, 60.0 * minutes)
        cache.get("k")
    assert backend_of(cache).stats()["breaker_openings"] == 6
    assert len(breaker_lines(caplog)) == 1


def test_lines_of_key_prefixes_are_told_apart(
    make: Make, server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Three sites on one cache have a line each, which names the KEY_PREFIX."""
    server.inject(Fault(status=403, times=None))
    for prefix in ("", "shop", "blog"):
        make(KEY_PREFIX=prefix).get("k")
    lines = [line.getMessage() for line in log_lines(caplog)]
    assert [line.partition(": ")[0] for line in lines] == [
        f"get on the Momento cache {CACHE!r}",
        f"get on the Momento cache {CACHE!r}, KEY_PREFIX 'shop'",
        f"get on the Momento cache {CACHE!r}, KEY_PREFIX 'blog'",
    ]


@pytest.mark.parametrize(("status", "opened"), [(403, 0), (401, 1)])
def test_aliases_do_not_multiply_lines(
    make: Make, server: RunningServer, caplog: pytest.LogCaptureFixture, status: int, opened: int
) -> None:
    """What three aliases of one cache and KEY_PREFIX meet is one line, and one breaker's."""
    server.inject(Fault(status=status, times=None))
    for size in (1024, 2048, 4096):
        make(COMPRESS_MIN_BYTES=size).get("k")
    assert len(log_lines(caplog)) == 1
    assert len(breaker_lines(caplog)) == opened


class Asks(logging.Handler):
    """What a site may do with a line: let another thread use the cache, and wait for it."""

    def __init__(self, cache: Any) -> None:
        super().__init__()
        self._cache = cache
        self.ended: list[bool] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Wait for the other thread; what goes wrong there was said, so it says nothing."""
        thread = threading.Thread(target=lambda: self._cache.get("k"), daemon=True)
        thread.start()
        thread.join(5)
        self.ended.append(not thread.is_alive())


@pytest.mark.parametrize(("status", "lines"), [(403, 1), (401, 2)])
def test_no_lock_is_held_while_a_line_is_written(
    make_cache: Make, server: RunningServer, status: int, lines: int
) -> None:
    """A log handler that is slow, or uses the cache itself, stops nobody."""
    cache = make_cache(CLEAR_MAX_AGE=None)
    server.inject(Fault(status=status, times=None))
    logger, handler = logging.getLogger("django_momento_http"), Asks(cache)
    logger.addHandler(handler)
    try:
        cache.get("k")
    finally:
        logger.removeHandler(handler)
    assert handler.ended == [True] * lines


def test_ten_thousand_adds_while_it_is_open(make_cache: Make, server: RunningServer) -> None:
    """What SessionStore.create() does while the service is down ends soon, without a request."""
    cache = make_cache(CLEAR_MAX_AGE=None)
    server.inject(Fault(status=404, body=b"Cache Not Found", times=None))
    began = time.monotonic()
    assert not any(cache.add(f"k{number}", 1) for number in range(10_000))
    assert time.monotonic() - began < 5
    assert len(server.requests) <= 10


# The token


def test_a_callable_token_is_asked_again(make: Make, server: RunningServer) -> None:
    """After a 401 a callable TOKEN is asked once more; the caller notices nothing."""
    tokens = iter(["expired", TOKEN])
    cache = make(TOKEN=lambda: next(tokens), ON_ERROR="raise")
    cache.set("k", 1)
    assert cache.get("k") == 1
    assert [request.status for request in server.requests] == [401, 204, 200]


def test_a_callable_token_that_stays_refused(make: Make, server: RunningServer) -> None:
    """A second 401 is the end of it: one more request, then the breaker is open."""
    calls: list[int] = []

    def token() -> str:
        calls.append(1)
        return f"wrong{len(calls)}"

    cache = make(TOKEN=token, ON_ERROR="raise")
    with pytest.raises(AccessDenied, match="401"):
        cache.get("k")
    with pytest.raises(CircuitOpen):
        cache.get("k")
    assert [request.status for request in server.requests] == [401, 401]
    assert len(calls) == 2


def test_a_callable_token_that_fails(make: Make, server: RunningServer) -> None:
    """What a callable raises is a miss, or an AccessDenied that does not repeat its words."""

    def token() -> str:
        raise RuntimeError(TOKEN)

    assert make(TOKEN=token).get("k", "default") == "default"
    with pytest.raises(AccessDenied) as caught:
        # Another cache of the same token would find the breaker open.
        make(TOKEN=lambda: token(), ON_ERROR="raise").get("k")
    assert not seen_in("".join(traceback.format_exception(caught.value)), TOKEN, *HIDDEN)
    assert not server.requests


@pytest.mark.parametrize(("method", "arguments"), [("set", ("k", 1)), ("delete", ("there",))])
def test_a_token_that_may_only_read(
    make: Make, server: RunningServer, method: str, arguments: tuple[Any, ...]
) -> None:
    """With a read-only token reading works, and writing is an AccessDenied."""
    make().set("there", 1)
    options = {"TOKEN": server.read_only_token}
    assert make(**options).get("there") == 1
    with pytest.raises(AccessDenied, match="403"):
        getattr(make(**options, ON_ERROR="raise"), method)(*arguments)


# No connection


def test_no_tls(make: Make, server: RunningServer) -> None:
    """A TLS handshake that fails is a miss in "miss" mode and a ConnectFailed in "raise" mode."""
    endpoint = server.endpoint.replace("http:", "https:")
    assert make(ENDPOINT=endpoint).get("k", "default") == "default"
    with pytest.raises(ConnectFailed):
        make(ENDPOINT=endpoint, ON_ERROR="raise").get("k")


# get_or_set, whose caller needs a value


def test_get_or_set_whose_write_fails(make: Make, server: RunningServer) -> None:
    """A default that could be computed but not stored is given back all the same."""
    cache, calls = make(), []
    server.inject(Fault(status=501, method="PUT"))

    def default() -> str:
        calls.append(1)
        return VALUE

    assert cache.get_or_set(KEYS[1], default) == VALUE
    assert len(calls) == 1
    assert cache.get(KEYS[1]) is None


# The clear marker


@pytest.mark.parametrize("on_error", MODES)
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(status=503, times=None), ServiceFailed),
        (Fault(status=401, times=None), AccessDenied),
        (Fault(delay=DEADLINE * 3, times=None), TimedOut),
    ],
    ids=["503", "401", "late"],
)
def test_clear_after_a_read(
    make: Make,
    server: RunningServer,
    caplog: pytest.LogCaptureFixture,
    fault: Fault,
    error: type[MomentoError],
    on_error: str,
) -> None:
    """clear() fails as set() does, also where its marker is known: a line, or an exception."""
    timeout = DEADLINE if fault.delay else 5
    cache = make(REQUEST_TIMEOUT=timeout, ON_ERROR=on_error, CLEAR_MAX_AGE=10)
    cache.get("k")
    server.inject(fault)
    if on_error == "miss":
        assert cache.clear() is None
        assert [line.getMessage().partition(" on ")[0] for line in log_lines(caplog)] == ["clear"]
    else:
        with pytest.raises(error, match="clear on the Momento cache"):
            cache.clear()
