"""What each kind of trouble does to each method: the result, the requests, the log, no secrets."""

import asyncio
import dataclasses
import logging
import re
import socket
import threading
import time
import traceback
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.views.debug import ExceptionReporter

from django_momento_http.exceptions import (
    AccessDenied,
    BadRequest,
    CacheNotFound,
    CircuitOpen,
    ConnectFailed,
    MomentoError,
    RateLimited,
    ServiceFailed,
    TimedOut,
    TransportError,
)
from django_momento_http.testing import Fault, RunningServer, running_server
from tests.support.awaited import Awaited

CACHE = "canary-cache"
TOKEN = "canarytoken0123456789"
THERE, GONE, VALUE = "canarykeythere", "canarykeygone", "canaryvalue"
NUMBER = 41
DEADLINE = 0.15
GRACE = 0.1
HTML = b"<html><title>404</title>no such page</html>"
SECRETS = [TOKEN, THERE, GONE, VALUE] + [
    urlsafe_b64encode(f":1:{key}".encode()).decode().rstrip("=") for key in (THERE, GONE)
]

Make = Callable[..., Any]


@dataclass(frozen=True)
class Trouble:
    """A row of the table: what happens, for ever, and what must come of it."""

    fault: Fault
    error: type[MomentoError]
    is_loud: bool = False
    attempts: int = 1
    says: str = ""
    opens: bool = False


def answer(status: int, body: bytes = b"", *headers: tuple[str, str]) -> Fault:
    """An answer that is given for ever."""
    return Fault(status=status, body=body, headers=headers, times=None)


TROUBLES = {
    "missing cache": Trouble(
        answer(404, b"Cache Not Found"),
        CacheNotFound,
        is_loud=True,
        says="no such cache",
        opens=True,
    ),
    "missing cache, JSON": Trouble(
        answer(404, b'{"message":"Cache not found"}'), CacheNotFound, is_loud=True, opens=True
    ),
    "a proxy's 404": Trouble(answer(404, HTML), TransportError, says="404"),
    "an empty 404": Trouble(answer(404), TransportError, says="404"),
    "301": Trouble(answer(301, b"", ("Location", "/else")), TransportError, says="301"),
    "302": Trouble(answer(302, HTML, ("Location", "http://127.0.0.1/")), TransportError),
    "gzip": Trouble(
        Fault(headers=(("Content-Encoding", "gzip"),), times=None), TransportError, says="encoding"
    ),
    "200 of nothing asked": Trouble(answer(206, b"part"), TransportError, says="206"),
    "400": Trouble(answer(400, b"Bad"), BadRequest, is_loud=True, says="400"),
    "401": Trouble(answer(401, TOKEN.encode()), AccessDenied, True, says="401", opens=True),
    "403": Trouble(answer(403), AccessDenied, is_loud=True, says="403"),
    "429": Trouble(answer(429), RateLimited, says="429"),
    "500": Trouble(answer(500, TOKEN.encode()), ServiceFailed, attempts=2, says="500"),
    "501": Trouble(answer(501), ServiceFailed, says="501"),
    "502": Trouble(answer(502, HTML), ServiceFailed, attempts=2, says="502"),
    "503": Trouble(answer(503), ServiceFailed, attempts=2, says="503"),
    "504": Trouble(answer(504), ServiceFailed, attempts=2, says="504"),
    "dropped before": Trouble(Fault(drop="before", times=None), TransportError, attempts=2),
    "dropped after": Trouble(Fault(drop="after", times=None), TransportError, attempts=2),
    "dropped in headers": Trouble(Fault(drop="headers", times=None), TransportError, attempts=2),
    "dropped in body": Trouble(Fault(drop="body", times=None), TransportError, attempts=2),
    "late": Trouble(Fault(delay=DEADLINE * 3, times=None), TimedOut),
}


@dataclass(frozen=True)
class Operation:
    """A method, what it gives in "miss" mode, and its requests: of one attempt, all of them."""

    method: str
    arguments: tuple[Any, ...]
    result: Any
    requests: tuple[str, ...]

    def call(self, cache: Any) -> Any:
        """Call the method."""
        return getattr(cache, self.method)(*self.arguments)


BOTH = [THERE, GONE]
OPERATIONS = {
    "get": Operation("get", (THERE, "default"), "default", ("GET",)),
    "get_many": Operation("get_many", (BOTH,), {}, ("GET", "GET")),
    "set": Operation("set", (THERE, VALUE), None, ("PUT",)),
    "set_many": Operation("set_many", (dict.fromkeys(BOTH, VALUE),), BOTH, ("PUT", "PUT")),
    "add": Operation("add", (GONE, VALUE), False, ("GET",)),
    "touch": Operation("touch", (THERE,), False, ("GET",)),
    "delete": Operation("delete", (THERE,), False, ("GET", "DELETE")),
    "has_key": Operation("has_key", (THERE,), False, ("GET",)),
    "ttl": Operation("ttl", (THERE,), 0, ("GET",)),
    "incr": Operation("incr", (THERE,), ValueError, ("GET",)),
    "decr": Operation("decr", (THERE,), ValueError, ("GET",)),
    "incr_version": Operation("incr_version", (THERE,), ValueError, ("GET",)),
    "delete_many": Operation("delete_many", (BOTH,), None, ("DELETE", "DELETE")),
    "get_or_set": Operation("get_or_set", (THERE, VALUE), VALUE, ("GET",)),
}
# What the log calls an operation where Django builds it from another.
LOGGED_AS = {"decr": "incr", "get_or_set": "get"}


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


def troubled(make: Make, server: RunningServer, trouble: Trouble, **options: Any) -> Any:
    """A backend with one value, and trouble from now on."""
    make(**options).set(THERE, NUMBER)
    if trouble.fault.delay:
        options["REQUEST_TIMEOUT"] = DEADLINE
    cache = make(**options)
    server.forget_requests()
    server.inject(trouble.fault)
    return cache


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


def assert_no_secret(text: str) -> None:
    """No token, key or value is in the text."""
    assert [secret for secret in SECRETS if secret in text] == []


@pytest.fixture(autouse=True)
def no_secret_in_any_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever any logger says at DEBUG while a test runs holds no secret."""
    caplog.set_level(logging.DEBUG)
    yield
    for record in caplog.records:
        assert_no_secret(record.getMessage())
        assert record.exc_info is None or record.name != "django_momento_http"


# Every trouble, every method


def expected_requests(operation: Operation, trouble: Trouble) -> list[str]:
    """The requests that a method may make, in any order."""
    methods = list(operation.requests) * trouble.attempts
    if trouble.error is BadRequest and "PUT" in methods:
        methods += ["DELETE"] * methods.count("PUT")
    if trouble.error is TimedOut and operation.method == "delete":
        methods.remove("DELETE")  # nothing is left of the deadline
    return sorted(methods)


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())
@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES.keys())
def test_miss_mode(
    make: Make,
    server: RunningServer,
    caplog: pytest.LogCaptureFixture,
    trouble: Trouble,
    operation: Operation,
) -> None:
    """In "miss" mode trouble is the documented answer, one log line, and no request too many."""
    cache = troubled(make, server, trouble)
    if operation.result is ValueError:
        with pytest.raises(ValueError, match="no such key") as caught:
            operation.call(cache)
        assert_no_secret("".join(traceback.format_exception_only(caught.value)))
        assert not isinstance(caught.value, MomentoError)
    else:
        assert operation.call(cache) == operation.result
    sent = sorted(request.method for request in server.requests)
    if trouble.opens and len(operation.requests) > 1:
        assert set(sent) <= set(operation.requests)
    else:
        assert sent == expected_requests(operation, trouble)
    [line] = log_lines(caplog)
    assert line.levelno == (logging.ERROR if trouble.is_loud else logging.WARNING)
    assert repr(CACHE) in line.getMessage()
    assert line.getMessage().startswith(LOGGED_AS.get(operation.method, operation.method))


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())
@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES.keys())
def test_raise_mode(
    make: Make,
    server: RunningServer,
    caplog: pytest.LogCaptureFixture,
    trouble: Trouble,
    operation: Operation,
) -> None:
    """In "raise" mode it is an exception of its own, which says what and where, and no secret."""
    cache = troubled(make, server, trouble, ON_ERROR="raise")
    with pytest.raises(trouble.error) as caught:
        operation.call(cache)
    text = str(caught.value)
    assert f"on the Momento cache {CACHE!r}" in text
    assert text.startswith(LOGGED_AS.get(operation.method, operation.method))
    assert trouble.says in text
    assert text.count(". ") >= 1
    assert_no_secret(text + repr(caught.value) + repr(vars(caught.value)))
    assert_no_secret("".join(traceback.format_exception(caught.value)))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())
def test_no_trouble(make: Make, server: RunningServer, operation: Operation) -> None:
    """Without trouble the same calls raise nothing and log nothing: the tables test something."""
    cache = make(ON_ERROR="raise")
    cache.set(THERE, NUMBER)
    assert operation.call(cache) != "default"
    assert {request.status for request in server.requests} <= {200, 204, 404}


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES.keys())
def test_debug_pages(server: RunningServer, make_cache: Make, trouble: Trouble) -> None:
    """Django's debug page shows the locals of every frame of ours: none of them holds the token."""
    cache = troubled(make_cache, server, trouble, ON_ERROR="raise", CLEAR_MAX_AGE=None)
    try:
        cache.get("key")
    except MomentoError as error:
        frames = error.__traceback__.tb_next if error.__traceback__ else None
        page = ExceptionReporter(None, type(error), error, frames).get_traceback_html()
    assert TOKEN not in page
    assert "Momento cache" in page


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


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())
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
        each.set(THERE, NUMBER)
        server.forget_requests()
        if each is cache:
            server.inject(fault)
        results.append(operation.call(each))
        counts.append(len(server.requests))
    if operation.method == "ttl":
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
    deadline, operation = 0.25, OPERATIONS[name]
    make().set(THERE, NUMBER)
    server.inject(Fault(delay=deadline * share, times=None))
    for attempt in range(3):  # a loaded machine may be late once
        cache = make(REQUEST_TIMEOUT=deadline + attempt / 1000)
        began = time.monotonic()
        try:
            operation.call(cache)
        except ValueError:
            assert operation.result is ValueError
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


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())
@pytest.mark.parametrize(("fault", "calls"), OPENERS.values(), ids=OPENERS.keys())
def test_the_open_breaker(
    make: Make, server: RunningServer, operation: Operation, fault: Fault, calls: int
) -> None:
    """While the breaker is open every method answers at once, without a request."""
    quiet, loud = make(), make(ON_ERROR="raise", MAX_ENTRIES=1)
    for cache in (quiet, loud):
        cache.set(THERE, NUMBER)
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
    if operation.result is ValueError:
        with pytest.raises(ValueError, match="no such key"):
            operation.call(quiet)
    else:
        assert operation.call(quiet) == operation.result
    with pytest.raises(CircuitOpen) as caught:
        operation.call(loud)
    assert_no_secret(str(caught.value))
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
    server.inject(TROUBLES["missing cache"].fault)
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
    assert_no_secret("".join(traceback.format_exception(caught.value)))
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


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of this host on which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())
def test_nobody_listens(make: Make, closed_port: int, operation: Operation) -> None:
    """A refused connection is a miss in "miss" mode and a ConnectFailed in "raise" mode."""
    endpoint = f"http://127.0.0.1:{closed_port}"
    quiet, loud = make(ENDPOINT=endpoint), make(ENDPOINT=endpoint, ON_ERROR="raise")
    if operation.result is ValueError:
        with pytest.raises(ValueError, match="no such key"):
            operation.call(quiet)
    else:
        assert operation.call(quiet) == operation.result
    with pytest.raises(ConnectFailed) as caught:
        operation.call(loud)
    assert_no_secret("".join(traceback.format_exception(caught.value)))


def test_no_tls(make: Make, server: RunningServer) -> None:
    """A TLS handshake that fails is a miss in "miss" mode and a ConnectFailed in "raise" mode."""
    endpoint = server.endpoint.replace("http:", "https:")
    assert make(ENDPOINT=endpoint).get("k", "default") == "default"
    with pytest.raises(ConnectFailed):
        make(ENDPOINT=endpoint, ON_ERROR="raise").get("k")


# get_or_set, whose caller needs a value


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES.keys())
def test_get_or_set_while_the_service_is_down(
    make: Make, server: RunningServer, trouble: Trouble
) -> None:
    """The default is given back, computed once."""
    cache, calls = troubled(make, server, trouble), []

    def default() -> str:
        calls.append(1)
        return VALUE

    assert cache.get_or_set(THERE, default) == VALUE
    assert len(calls) == 1


def test_get_or_set_whose_write_fails(make: Make, server: RunningServer) -> None:
    """A default that could be computed but not stored is given back all the same."""
    cache, calls = make(), []
    server.inject(Fault(status=501, method="PUT"))

    def default() -> str:
        calls.append(1)
        return VALUE

    assert cache.get_or_set(GONE, default) == VALUE
    assert len(calls) == 1
    assert cache.get(GONE) is None


# The clear marker


@pytest.mark.parametrize("on_error", ["miss", "raise"])
@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES.keys())
@pytest.mark.parametrize("twin", ["clear", "aclear"])
def test_clear(
    server: RunningServer,
    make_cache: Make,
    caplog: pytest.LogCaptureFixture,
    trouble: Trouble,
    twin: str,
    on_error: str,
) -> None:
    """clear() fails as set() does: a line in the log, or the trouble's own exception."""

    def clear() -> None:
        return cache.clear() if twin == "clear" else asyncio.run(cache.aclear())

    timeout = DEADLINE if trouble.fault.delay else 5
    cache = make_cache(REQUEST_TIMEOUT=timeout, ON_ERROR=on_error)
    cache.get("k")
    server.inject(trouble.fault)
    if on_error == "miss":
        assert clear() is None
        assert [line.getMessage().partition(" on ")[0] for line in log_lines(caplog)] == ["clear"]
    else:
        with pytest.raises(trouble.error, match="clear on the Momento cache"):
            clear()
