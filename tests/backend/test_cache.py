"""What every method of the backend promises, and what it costs in requests, called both ways."""

import asyncio
import datetime
import decimal
import inspect
import math
import os
import pickle
import time
import warnings
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any

import pytest
from django.core.cache import CacheKeyWarning, InvalidCacheKey, cache, caches, close_caches
from django.core.cache.backends.base import BaseCache

from django_momento_http import server as server_module
from django_momento_http._store.keys import encode_plain_key
from django_momento_http.cache import MomentoCache
from django_momento_http.exceptions import BadRequest
from django_momento_http.testing import Fault, RunningServer, running_server
from tests.support.awaited import Awaited

CACHE = "default-cache"
DAY = 86400
MISSING = object()
UNPICKLABLE = (pickle.PicklingError, AttributeError, TypeError)

Make = Callable[..., Any]


class WriteOnly:
    """A serializer whose values can be written and never read."""

    def dumps(self, value: Any) -> bytes:
        """Pickle the value."""
        return pickle.dumps(value)

    def loads(self, data: bytes) -> Any:
        """Refuse."""
        raise AssertionError("a value was decoded")


@pytest.fixture(params=["sync", "async"])
def make(request: pytest.FixtureRequest, make_cache: Make) -> Make:
    """A function that builds a backend without a marker, called either way."""

    def build(**options: Any) -> Any:
        cache = make_cache(**{"CLEAR_MAX_AGE": None, **options})
        return cache if request.param == "sync" else Awaited(cache)

    return build


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """All connections that were made to servers."""
    made: list[object] = []
    connection_made = server_module.ClientConnection.connection_made

    def record(self: Any, transport: Any) -> None:
        made.append(transport)
        connection_made(self, transport)

    monkeypatch.setattr(server_module.ClientConnection, "connection_made", record)
    return made


def methods(server: RunningServer) -> list[str]:
    """The requests so far, by method."""
    return [request.method for request in server.requests]


def stored(server: RunningServer, key: str = ":1:k") -> bytes | None:
    """The bytes that the service has under a key."""
    return server.items.get((CACHE, key.encode()))


# The table of requests


@pytest.mark.parametrize(
    ("method", "arguments", "requests", "result"),
    [
        ("get", ("there",), ["GET"], 1),
        ("get", ("gone",), ["GET"], None),
        ("get", ("gone", "default"), ["GET"], "default"),
        ("has_key", ("there",), ["GET"], True),
        ("has_key", ("gone",), ["GET"], False),
        ("set", ("there", 2), ["PUT"], None),
        ("set", ("gone", 2), ["PUT"], None),
        ("set", ("there", 2, 0), ["DELETE"], None),
        ("add", ("there", 2), ["GET"], False),
        ("add", ("gone", 2), ["GET", "PUT"], True),
        ("touch", ("there",), ["GET", "PUT"], True),
        ("touch", ("there", 0), ["GET", "DELETE"], True),
        ("touch", ("gone",), ["GET"], False),
        ("delete", ("there",), ["GET", "DELETE"], True),
        ("delete", ("gone",), ["GET"], False),
        ("incr", ("there",), ["GET", "PUT"], 2),
        ("incr", ("there", 5), ["GET", "PUT"], 6),
        ("decr", ("there",), ["GET", "PUT"], 0),
        ("incr_version", ("there",), ["GET", "PUT", "DELETE"], 2),
        ("incr_version", ("there", 3), ["GET", "PUT", "DELETE"], 4),
        ("decr_version", ("there",), ["GET", "PUT", "DELETE"], 0),
        ("get_many", (["there", "gone"],), ["GET"] * 2, {"there": 1}),
        ("get_many", ([],), [], {}),
        ("set_many", ({"there": 2, "gone": 3},), ["PUT"] * 2, []),
        ("set_many", ({"there": 2, "gone": 3}, 0), ["DELETE"] * 2, []),
        ("set_many", ({},), [], []),
        ("delete_many", (["there", "gone"],), ["DELETE"] * 2, None),
        ("delete_many", ([],), [], None),
        ("get_or_set", ("there", 2), ["GET"], 1),
        ("get_or_set", ("gone", 2), ["GET", "GET", "PUT"], 2),
        ("ttl", ("gone",), ["GET"], 0),
        ("close", (), [], None),
    ],
)
def test_results_and_requests(
    make: Make,
    server: RunningServer,
    method: str,
    arguments: tuple[Any, ...],
    requests: list[str],
    result: object,
) -> None:
    """Each method answers as Django's own backends do, for the documented number of requests."""
    cache = make()
    cache.set("there", 1)
    server.forget_requests()
    assert getattr(cache, method)(*arguments) == result
    assert methods(server) == requests


@pytest.mark.parametrize("method", ["incr", "decr", "incr_version", "decr_version"])
def test_counting_what_is_not_there(make: Make, server: RunningServer, method: str) -> None:
    """An absent key is a ValueError, for one request, whose text does not show the key."""
    with pytest.raises(ValueError, match="no such key") as caught:
        getattr(make(), method)("canary")
    assert "canary" not in str(caught.value)
    assert methods(server) == ["GET"]


def test_in_is_one_request(make_cache: Make, server: RunningServer) -> None:
    """``in`` asks once."""
    cache = make_cache(CLEAR_MAX_AGE=None)
    cache.set("there", 1)
    server.forget_requests()
    assert "there" in cache
    assert "gone" not in cache
    assert methods(server) == ["GET", "GET"]


@pytest.mark.parametrize("method", ["get_many", "set_many", "delete_many"])
def test_many_are_under_way_at_once(make: Make, method: str) -> None:
    """A call of many keys takes about as long as one of its requests."""
    keys = [f"k{number}" for number in range(20)]
    with running_server(latency=0.05) as server:
        entry = server.cache_settings(CLEAR_MAX_AGE=None)
        cache: Any = MomentoCache(CACHE, {"OPTIONS": entry["OPTIONS"]})
        if isinstance(make(), Awaited):
            cache = Awaited(cache)
        began = time.monotonic()
        getattr(cache, method)(dict.fromkeys(keys, 1) if method == "set_many" else keys)
        assert time.monotonic() - began < 0.5
        assert len(server.requests) == 20


# Values


@pytest.mark.parametrize(
    "value",
    [
        0,
        -1,
        2**70,
        True,
        1.5,
        "",
        "text",
        "naïve ☃",
        b"",
        b"\x00\xff",
        (),
        [1, [2]],
        {"a": {"b": (1, 2)}},
        {1, 2},
        decimal.Decimal("1.10"),
        datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
        "x" * 100_000,
    ],
    ids=lambda value: f"{type(value).__name__}-{str(value)[:12]}",
)
def test_values_come_back(make: Make, value: object) -> None:
    """What was stored comes back equal and of its type, one by one and many at once."""
    cache = make()
    cache.set("one", value)
    cache.set_many({"two": value})
    for found in (cache.get("one"), cache.get_many(["two"])["two"]):
        assert found == value
        assert type(found) is type(value)


def test_values_are_copies(make: Make) -> None:
    """Changing what was given or got changes nothing in the cache."""
    cache = make()
    given = [1]
    cache.set("k", given)
    given.append(2)
    cache.get("k").append(3)
    assert cache.get("k") == [1]


def test_a_stored_none_is_a_hit(make: Make, server: RunningServer) -> None:
    """None is a value like any other."""
    cache = make()
    cache.set("k", None)
    assert cache.get("k", "default") is None
    assert cache.has_key("k") is True
    assert cache.add("k", 1) is False
    assert cache.get_many(["k"]) == {"k": None}
    assert cache.touch("k") is True
    server.forget_requests()
    assert cache.get_or_set("k", "default") is None
    assert methods(server) == ["GET"]
    assert cache.delete("k") is True


def test_the_default_is_given_back_untouched(make: Make) -> None:
    """A miss gives back the very default, which is not called."""
    assert make().get("k", MISSING) is MISSING
    assert make().get("k", test_the_default_is_given_back_untouched) is (
        test_the_default_is_given_back_untouched
    )


@pytest.mark.parametrize("on_error", ["miss", "raise"])
@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("set", ("k", lambda: 0)),
        ("add", ("k", lambda: 0)),
        ("set_many", ({"good": 1, "k": lambda: 0},)),
        ("get_or_set", ("k", lambda: lambda: 0)),
    ],
)
def test_what_cannot_be_pickled_raises(
    make: Make, server: RunningServer, on_error: str, method: str, arguments: tuple[Any, ...]
) -> None:
    """A value that cannot be serialized is the caller's mistake in both modes; none is stored."""
    cache = make(ON_ERROR=on_error)
    with pytest.raises(UNPICKLABLE):
        getattr(cache, method)(*arguments)
    assert not server.items


@pytest.mark.parametrize("size", [5_100_000, 6_000_000])
def test_too_large_values(make: Make, server: RunningServer, size: int) -> None:
    """A value that the service does not take is not stored, and the old one is gone."""
    cache = make(COMPRESSOR=None)
    large = os.urandom(size)
    cache.set_many({"k": "old", "many": "old"})
    assert cache.set("k", large) is None
    assert cache.set_many({"many": large, "other": 1}) == ["many"]
    assert cache.add("new", large) is False
    assert cache.get_or_set("new", large) == large
    assert cache.get_many(["k", "many", "new", "other"]) == {"other": 1}
    assert set(server.items) == {(CACHE, b":1:other")}


@pytest.mark.parametrize("size", [5_100_000, 6_000_000])
def test_too_large_values_raise(make: Make, server: RunningServer, size: int) -> None:
    """With ON_ERROR "raise" a too large value is a BadRequest, and the old one is gone as well."""
    cache = make(COMPRESSOR=None, ON_ERROR="raise")
    cache.set("k", "old")
    with pytest.raises(BadRequest):
        cache.set("k", os.urandom(size))
    assert not server.items


@pytest.mark.parametrize("mode", ["miss", "raise"])
def test_large_values_that_shrink_fit(make: Make, mode: str) -> None:
    """The limit holds for what travels: a long text that compresses is stored."""
    cache = make(ON_ERROR=mode)
    text = "text " * 2_000_000
    cache.set("k", text)
    assert cache.get("k") == text


# Timeouts

TIMEOUTS = [
    (None, DAY),
    (DAY - 1, DAY - 1),
    (DAY, DAY),
    (DAY + 1, DAY),
    (10**12, DAY),
    (10**400, DAY),
    (1e300, DAY),
    (math.inf, DAY),
    (1, 1),
    (0.001, 1),
    (1.2, 2),
    (299.0, 299),
    (0, None),
    (0.0, None),
    (-0.5, None),
    (-1, None),
    (-(10**400), None),
    (-math.inf, None),
]


@pytest.mark.parametrize("timeout", [math.nan, -math.nan, decimal.Decimal("NaN")], ids=repr)
def test_a_timeout_that_is_no_number(make: Make, server: RunningServer, timeout: Any) -> None:
    """NaN is an error that names the argument, whatever there is, and nothing is sent or lost."""
    cache = make()
    cache.set("k", 1)
    server.forget_requests()
    calls = [
        lambda: cache.set("k", 2, timeout),
        lambda: cache.set_many({"k": 2}, timeout),
        lambda: cache.touch("k", timeout),
        lambda: cache.add("k", 2, timeout),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="timeout must be a number of seconds, or None, not"):
            call()
    assert server.requests == []
    with pytest.raises(ValueError, match="timeout must be a number of seconds"):
        cache.get_or_set("absent", 2, timeout)
    assert cache.get_many(["k", "absent"]) == {"k": 1}


@pytest.mark.parametrize(("timeout", "ttl"), TIMEOUTS)
@pytest.mark.parametrize("method", ["set", "set_many", "touch", "add", "get_or_set"])
def test_timeouts(
    make: Make, server: RunningServer, method: str, timeout: float | None, ttl: int | None
) -> None:
    """Fractions round up, MAX_TTL bounds, None is MAX_TTL, and 0 or less leaves nothing behind."""
    cache = make()
    arguments = {
        "set": ("k", 2, timeout),
        "set_many": ({"k": 2}, timeout),
        "touch": ("k", timeout),
        "add": ("k", 2, timeout),
        "get_or_set": ("k", 2, timeout),
    }
    if method not in ("add", "get_or_set"):
        cache.set("k", 1, 50)
        server.forget_requests()
    result = getattr(cache, method)(*arguments[method])
    assert (
        result == {"set": None, "set_many": [], "touch": True, "add": True, "get_or_set": 2}[method]
    )
    written = [request.ttl_seconds for request in server.requests if request.method == "PUT"]
    assert written == ([] if ttl is None else [ttl])
    assert (cache.get("k") is not None) is (ttl is not None)


@pytest.mark.parametrize(
    ("default", "ttl"), [(300, 300), (7, 7), (None, DAY), (10**6, DAY), (0, None), (-1, None)]
)
@pytest.mark.parametrize("method", ["set", "add"])
def test_default_timeout(
    make: Make, server: RunningServer, method: str, default: int | None, ttl: int | None
) -> None:
    """Where no timeout is given, TIMEOUT is it."""
    getattr(make(TIMEOUT=default), method)("k", 1)
    written = [request.ttl_seconds for request in server.requests if request.method == "PUT"]
    assert written == ([] if ttl is None else [ttl])


@pytest.mark.parametrize(
    ("max_ttl", "timeout", "ttl"), [(60, None, 60), (60, 61, 60), (60, 59, 59)]
)
def test_max_ttl(
    make: Make, server: RunningServer, max_ttl: int, timeout: int | None, ttl: int
) -> None:
    """MAX_TTL is the longest that is asked for."""
    cache = make(MAX_TTL=max_ttl)
    cache.set("k", 1, timeout)
    assert server.requests[0].ttl_seconds == ttl
    assert cache.ttl("k") == pytest.approx(ttl, abs=5)


@pytest.mark.parametrize(("timeout", "ttl"), [(None, None), (10**6, 10**6), (5, 5)])
@pytest.mark.parametrize("twin", [lambda cache: cache, Awaited])
def test_no_max_ttl(twin: Callable[[Any], Any], timeout: int | None, ttl: int | None) -> None:
    """With MAX_TTL None nothing is cut short, and None is "no expiry"."""
    with running_server(max_ttl=None) as server:
        entry = server.cache_settings(MAX_TTL=None, CLEAR_MAX_AGE=None)
        cache = twin(MomentoCache(CACHE, {"OPTIONS": entry["OPTIONS"]}))
        cache.set("k", 1, timeout)
        asked = server.requests[0].ttl_seconds
        assert asked is not None
        assert asked == ttl or (ttl is None and asked > 10**8)
        left = cache.ttl("k")
        assert left == (None if ttl is None else pytest.approx(ttl, abs=5))
        assert cache.incr("k") == 2
        assert cache.touch("k", timeout)
        assert server.requests[-1].ttl_seconds == asked


def test_values_expire(make: Make, server: RunningServer) -> None:
    """A value is there until its timeout, and gone after it."""
    cache = make()
    cache.set("k", 1, 100)
    server.advance(99)
    assert cache.get("k") == 1
    server.advance(2)
    assert cache.get("k") is None
    assert cache.delete("k") is False


def test_ttl(make: Make, server: RunningServer) -> None:
    """ttl() says the seconds that are left as a float, and 0 for what is not there."""
    cache = make()
    cache.set_many({"short": 1}, 100)
    cache.set("long", 1, None)
    server.forget_requests()
    short, long, gone = cache.ttl("short"), cache.ttl("long"), cache.ttl("gone")
    assert methods(server) == ["GET"] * 3
    assert isinstance(short, float)
    assert short == pytest.approx(100, abs=5)
    assert long == pytest.approx(DAY, abs=5)
    assert gone == 0
    assert cache.ttl("short", version=2) == 0


def test_touch_changes_the_ttl(make: Make, server: RunningServer) -> None:
    """touch() gives a new lifetime, longer or shorter, and keeps the value."""
    cache = make()
    cache.set("k", "v", 100)
    for timeout in (1000, 10):
        assert cache.touch("k", timeout) is True
        assert cache.ttl("k") == pytest.approx(timeout, abs=5)
    server.advance(11)
    assert cache.get("k") is None
    cache.set("k", "v", 100)
    assert cache.touch("k") is True
    assert cache.ttl("k") == pytest.approx(300, abs=5)


def test_touch_never_decodes(make: Make, server: RunningServer) -> None:
    """touch() writes the stored body back as it is; the serializer is not asked."""
    cache = make(SERIALIZER="tests.backend.test_cache.WriteOnly")
    cache.set("k", "v" * 5000, 100)
    before = stored(server)
    assert before is not None
    assert cache.touch("k", 1000) is True
    after = stored(server)
    assert after is not None
    assert after[80:] == before[80:]
    assert server.requests[-1].ttl_seconds == 1000


@pytest.mark.parametrize("method", ["incr", "decr", "incr_version"])
def test_counting_keeps_the_lifetime(make: Make, server: RunningServer, method: str) -> None:
    """What counts keeps the timeout that is left, not TIMEOUT."""
    cache = make()
    cache.set("k", 10, 5000)
    getattr(cache, method)("k")
    [_, put] = [request for request in server.requests if request.method == "PUT"]
    assert put.ttl_seconds in range(4995, 5001)
    version = 2 if method == "incr_version" else 1
    assert cache.ttl("k", version=version) == pytest.approx(5000, abs=5)


@pytest.mark.parametrize("fraction", [0.0, 0.0004, 0.0006, 0.0009])
def test_what_keeps_its_lifetime_never_gains_a_second(
    make: Make, server: RunningServer, fraction: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stored expiry is never after the true one, wherever in a millisecond it falls."""
    cache = make()
    now = int(time.time()) + fraction
    backend = getattr(cache, "_cache", cache)
    monkeypatch.setattr(backend._shared._values, "_wall_clock", lambda: now)
    cache.set("k", 10, 5000)
    cache.incr("k")
    assert [each.ttl_seconds for each in server.requests if each.method == "PUT"] == [5000, 5000]


# Single methods


@pytest.mark.parametrize(
    ("value", "delta", "result"),
    [(41, 1, 42), (1, -2, -1), (1.5, 0.5, 2.0), (2**64, 1, 2**64 + 1), (True, 1, 2)],
)
def test_incr(make: Make, value: float, delta: float, result: float) -> None:
    """incr() adds to any number, decr() takes from it, and both return what they stored."""
    cache = make()
    cache.set("k", value)
    assert cache.incr("k", delta) == result
    assert cache.get("k") == result
    assert cache.decr("k", delta) == value
    assert cache.get("k") == value


@pytest.mark.parametrize("on_error", ["miss", "raise"])
@pytest.mark.parametrize("value", ["1", None, [1], b"1"])
@pytest.mark.parametrize("method", ["incr", "decr"])
def test_incr_of_no_number(make: Make, method: str, value: object, on_error: str) -> None:
    """What is not a number is a TypeError in both modes and stays as it is."""
    cache = make(ON_ERROR=on_error)
    cache.set("k", value)
    with pytest.raises(TypeError):
        getattr(cache, method)("k")
    assert cache.get("k", MISSING) == value


def test_incr_version(make: Make, server: RunningServer) -> None:
    """The value moves to the new version, under its new key."""
    cache = make()
    cache.set("k", "v", version=2)
    assert cache.incr_version("k", version=2) == 3
    assert [cache.get("k", version=version) for version in (1, 2, 3)] == [None, None, "v"]
    assert cache.decr_version("k", 2, version=3) == 1
    assert cache.get("k") == "v"
    assert set(server.items) == {(CACHE, b":1:k")}


def test_get_or_set_calls_once(make: Make) -> None:
    """A callable default is called on a miss alone, once, and what it returns is stored."""
    calls: list[int] = []

    def default() -> str:
        calls.append(1)
        return "computed"

    cache = make()
    assert cache.get_or_set("k", default, 50) == "computed"
    assert cache.get_or_set("k", default) == "computed"
    assert len(calls) == 1
    assert cache.ttl("k") == pytest.approx(50, abs=5)


def test_get_or_set_of_none(make: Make) -> None:
    """None is stored as a default like any other."""
    cache = make()
    assert cache.get_or_set("k", None) is None
    assert cache.get("k", "default") is None


def test_get_or_set_yields_to_another(make: Make, server: RunningServer) -> None:
    """What another process stored while the default was computed wins, as with Django's own."""
    cache = make()
    cache.set("k", "theirs")
    theirs = stored(server)
    assert theirs is not None
    cache.delete("k")

    def default() -> str:
        server.put(CACHE, b":1:k", theirs)
        return "ours"

    assert cache.get_or_set("k", default) == "theirs"
    assert cache.get("k") == "theirs"


def test_iterators_are_read_once(make: Make) -> None:
    """Keys may come from an iterator."""
    cache = make()
    cache.set_many(MappingProxyType({"a": 1, "b": 2}))
    assert cache.get_many(iter(["a", "b"])) == {"a": 1, "b": 2}
    assert cache.get_many(key for key in "abc") == {"a": 1, "b": 2}
    assert cache.delete_many(key for key in "ab") is None
    assert cache.get_many({"a": 0, "b": 0}.keys()) == {}


def test_many_speak_of_the_callers_keys(make: Make, server: RunningServer) -> None:
    """Keys come back as they were given, whatever their type."""
    cache = make(KEY_PREFIX="p")
    assert cache.set_many({1: "one", "two": "two"}, version=2) == []
    assert cache.get_many([1, "two", 3], version=2) == {1: "one", "two": "two"}
    server.inject(Fault(status=501, method="PUT", key=b"p:2:1"))
    assert cache.set_many({1: "one", "two": "two"}, version=2) == [1]


def test_many_of_a_few_hundred(make: Make) -> None:
    """More keys than connections come back right, each with its own value."""
    values = {f"k{number}": number for number in range(300)}
    cache = make()
    assert cache.set_many(values) == []
    assert cache.get_many(values) == values
    cache.delete_many(values)
    assert cache.get_many(values) == {}


# Keys


@pytest.mark.parametrize(
    ("options", "version", "key", "wire_key"),
    [
        ({}, None, "k", b":1:k"),
        ({}, 7, "k", b":7:k"),
        ({"VERSION": 3}, None, "k", b":3:k"),
        ({"VERSION": 3}, 1, "k", b":1:k"),
        ({"KEY_PREFIX": "p"}, None, "k", b"p:1:k"),
        ({"KEY_PREFIX": "p", "VERSION": 2}, None, "k", b"p:2:k"),
        ({"KEY_FUNCTION": lambda key, prefix, version: f"{key}!{version}"}, None, "k", b"k!1"),
        ({"KEY_FUNCTION": "tests.backend.test_cache.shout"}, None, "k", b"K"),
        ({}, None, 5, b":1:5"),
        ({}, None, "sn☃w", ":1:sn☃w".encode()),
        ({}, None, "a/b?c=d&e+f%20~", b":1:a/b?c=d&e+f%20~"),
    ],
)
def test_wire_keys(
    make: Make,
    server: RunningServer,
    options: dict[str, Any],
    version: int | None,
    key: object,
    wire_key: bytes,
) -> None:
    """On the wire a key is the UTF-8 of what Django's key function makes of it, in every method."""
    cache = make(**options)
    cache.set(key, 1, version=version)
    assert cache.get(key, version=version) == 1
    assert cache.add(key, 1, version=version) is False
    assert cache.incr(key, version=version) == 2
    assert cache.touch(key, version=version)
    assert cache.has_key(key, version=version)
    assert cache.get_or_set(key, 3, version=version) == 2
    assert cache.get_many([key], version=version) == {key: 2}
    assert cache.set_many({key: 3}, version=version) == []
    assert cache.ttl(key, version=version) > 0
    assert cache.delete(key, version=version)
    cache.delete_many([key], version=version)
    assert {request.key for request in server.requests} == {wire_key}


def shout(key: str, key_prefix: str, version: int) -> str:
    """A KEY_FUNCTION."""
    return key.upper()


@pytest.mark.parametrize(
    "other", [{"VERSION": 2}, {"KEY_PREFIX": "other"}], ids=["version", "prefix"]
)
def test_versions_and_prefixes_are_apart(make: Make, other: dict[str, Any]) -> None:
    """A key of another version or prefix is another key."""
    one, two = make(), make(**other)
    one.set("k", 1)
    assert two.get("k") is None
    two.set("k", 2)
    assert two.delete("k") is True
    assert one.get("k") == 1


KEYED = [
    ("get", ()),
    ("set", (1,)),
    ("add", (1,)),
    ("touch", ()),
    ("delete", ()),
    ("has_key", ()),
    ("incr", ()),
    ("decr", ()),
    ("incr_version", ()),
    ("decr_version", ()),
    ("get_or_set", (1,)),
    ("ttl", ()),
]


@pytest.mark.parametrize("key", ["with space", "x" * 251, "control\x7f"])
@pytest.mark.parametrize(("method", "arguments"), KEYED)
def test_keys_that_memcached_would_refuse(
    make: Make, method: str, arguments: tuple[Any, ...], key: str
) -> None:
    """They are warned of as Django's own backends warn, and work."""
    cache = make()
    with pytest.warns(CacheKeyWarning):
        cache.set(key, 1)
    with pytest.warns(CacheKeyWarning):
        getattr(cache, method)(key, *arguments)


def test_a_key_is_warned_of_each_time(make: Make) -> None:
    """That a key was used before, and is remembered, makes no warning vanish."""
    cache = make()
    for _ in range(3):
        with pytest.warns(CacheKeyWarning):
            cache.get("with space")


def test_no_long_key_is_remembered(make: Make) -> None:
    """Keys of any length cost no memory once they were used."""
    cache = make()
    before = encode_plain_key.cache_info().currsize
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheKeyWarning)
        for number in range(10):
            cache.get(f"{number}" + "x" * 1000)
    assert encode_plain_key.cache_info().currsize == before


@pytest.mark.parametrize(
    ("method", "argument"), [("get_many", list), ("delete_many", list), ("set_many", dict)]
)
def test_many_warn_of_keys(make: Make, method: str, argument: type) -> None:
    """The calls of many keys warn as well."""
    with pytest.warns(CacheKeyWarning):
        getattr(make(), method)(argument({"with space": 1}))


@pytest.mark.filterwarnings("ignore::django.core.cache.CacheKeyWarning")
@pytest.mark.parametrize("length", [251, 2000, 20_000])
def test_long_keys(make: Make, length: int) -> None:
    """A key longer than memcached's limit works, and is not cut."""
    cache = make()
    cache.set("x" * length, 1)
    assert cache.get("x" * length) == 1
    assert cache.get("x" * (length - 1)) is None


@pytest.mark.parametrize("on_error", ["miss", "raise"])
@pytest.mark.parametrize(("method", "arguments"), KEYED)
def test_keys_that_cannot_be_encoded(
    make: Make, server: RunningServer, method: str, arguments: tuple[Any, ...], on_error: str
) -> None:
    """A lone surrogate is an invalid key in both modes; no request is made, nothing is shown."""
    with pytest.raises(InvalidCacheKey) as caught:
        getattr(make(ON_ERROR=on_error), method)("canary\ud800", *arguments)
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert not server.requests


@pytest.mark.parametrize(
    ("method", "argument"), [("get_many", list), ("delete_many", list), ("set_many", dict)]
)
def test_many_refuse_keys_before_any_request(
    make: Make, server: RunningServer, method: str, argument: type
) -> None:
    """One invalid key among many: no request at all."""
    with pytest.raises(InvalidCacheKey):
        getattr(make(), method)(argument({"good": 1, "\ud800": 2}))
    assert not server.requests


@pytest.mark.parametrize(
    "keys",
    [
        [f"a{chr(code)}b" for code in range(0x100)],
        ["k" * length for length in range(240, 260)],
        ["", " ", "\n", "k\n", "\nk"],
    ],
    ids=["characters", "lengths", "edges"],
)
def test_a_key_is_warned_of_as_django_warns(make: Make, keys: list[str]) -> None:
    """A key gives the warnings that Django's own check gives, and no others."""
    cache = make()
    told = {key: _warnings(lambda key=key: cache.get(key)) for key in keys}
    django = BaseCache({})
    wanted = {key: _warnings(lambda key=key: django.make_and_validate_key(key)) for key in keys}
    assert told == wanted
    assert any(wanted.values())
    assert not all(wanted.values())


def _warnings(call: Callable[[], object]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(warning.message) for warning in caught]


def test_own_validation_is_obeyed(server: RunningServer) -> None:
    """A subclass may refuse keys in validate_key, as Django documents."""

    class Strict(MomentoCache):
        def validate_key(self, key: str) -> None:
            raise InvalidCacheKey

    cache = Strict(CACHE, {"OPTIONS": server.cache_settings()["OPTIONS"]})
    for call in (cache.get, cache.has_key, cache.delete):
        with pytest.raises(InvalidCacheKey):
            call("k")
    with pytest.raises(InvalidCacheKey):
        asyncio.run(cache.aget_many(["k"]))
    assert not server.requests


def test_a_key_is_made_by_the_subclass(server: RunningServer) -> None:
    """What a subclass makes of a key, and with which arguments, is what goes on the wire."""

    class Tenant(MomentoCache):
        def make_and_validate_key(self, key: str, version: int | None = None) -> str:
            return f"tenant:{super().make_and_validate_key(key, version=version)}"

    class Named(MomentoCache):
        def make_key(self, key: str, *, version: int | None = None) -> str:  # type: ignore[override]
            return f"named:{key}:{version}"

    for kind in (Tenant, Named):
        cache = kind(
            CACHE, {"OPTIONS": server.cache_settings()["OPTIONS"] | {"CLEAR_MAX_AGE": None}}
        )
        cache.set("k", 1, version=3)
        assert cache.get_many(["k"], version=3) == {"k": 1}
    assert {request.key for request in server.requests} == {b"tenant::3:k", b"named:k:3"}


# The class


def base_methods() -> Iterator[tuple[str, Any]]:
    """The public methods of Django's contract."""
    for name, member in inspect.getmembers(BaseCache, inspect.isfunction):
        if not name.startswith("_"):
            yield name, member


def test_no_async_method_takes_the_bases_way(server: RunningServer) -> None:
    """All of Django's ``a*`` methods go the async way, none through its sync twin in a thread."""
    names = {name for name, member in base_methods() if inspect.iscoroutinefunction(member)}

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the sync twin was called")

    sync_methods = dict.fromkeys((name.removeprefix("a") for name in names), refuse)
    alone = type("AsyncAlone", (MomentoCache,), sync_methods)
    cache = alone(CACHE, {"OPTIONS": server.cache_settings()["OPTIONS"]})
    arguments: dict[str, tuple[Any, ...]] = {
        "aset": ("k", 1),
        "aadd": ("k", 1),
        "aget_or_set": ("k", 1),
        "aset_many": ({"k": 1},),
        "aget_many": (["k"],),
        "adelete_many": (["k"],),
        "aclear": (),
        "aclose": (),
    }

    async def call_all() -> None:
        for name in names:
            await cache.aset_many({"k": 1})
            await getattr(cache, name)(*arguments.get(name, ("k",)))

    asyncio.run(call_all())
    assert {"aget", "atouch", "aincr", "adecr", "adecr_version", "aget_or_set"} <= names


def test_every_async_method_is_our_own() -> None:
    """No ``a*`` method is the base's, but the two whose whole body is a call of aincr*."""
    inherited = {
        name
        for name, member in base_methods()
        if inspect.iscoroutinefunction(member) and getattr(MomentoCache, name) is member
    }
    assert inherited <= {"adecr", "adecr_version"}


@pytest.mark.parametrize("name", [name for name, _ in base_methods() if "close" not in name])
def test_signatures_are_djangos(name: str) -> None:
    """Arguments have Django's names, order and defaults."""

    def shape(function: Any) -> list[tuple[str, Any]]:
        parameters = inspect.signature(function).parameters.values()
        return [(parameter.name, parameter.default) for parameter in parameters]

    assert shape(getattr(MomentoCache, name)) == shape(getattr(BaseCache, name))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (name, f"a{name}")
        for name, member in vars(MomentoCache).items()
        if f"a{name}" in vars(MomentoCache)
    ],
)
def test_twins_have_one_signature(one: str, other: str) -> None:
    """A method and its async twin take the same arguments."""
    signatures = [
        inspect.signature(getattr(MomentoCache, name)).parameters for name in (one, other)
    ]
    assert list(signatures[0].values()) == list(signatures[1].values())


def test_ttl_has_a_twin() -> None:
    """What Django does not know has an async twin as well."""
    assert inspect.iscoroutinefunction(MomentoCache.attl)


# Connections


def test_close_keeps_connections(make: Make, connections: list[object]) -> None:
    """close() costs nothing: the next call uses the same connection."""
    cache = make()
    for number in range(5):
        cache.set("k", number)
        cache.close()
        assert cache.get("k") == number
        cache.close()
    assert len(connections) == 1


def test_the_end_of_a_request_keeps_connections(
    server: RunningServer, connections: list[object]
) -> None:
    """What Django does at the end of a request closes nothing either."""
    with server.override_settings(CLEAR_MAX_AGE=None):
        for number in range(5):
            cache.set("k", number)
            close_caches()
            assert caches["default"].get("k") == number
    assert len(connections) == 1


def test_a_closed_backend_works_on(make: Make) -> None:
    """close() is no end: not when it is called twice, and not with the signal's arguments."""
    cache = make()
    cache.close(signal=None)
    cache.close()
    cache.set("k", 1)
    assert cache.get("k") == 1


# stats()


def test_stats_of_a_new_backend(make_cache: Make, server: RunningServer) -> None:
    """They begin at nothing, and asking costs no request."""
    stats = make_cache().stats()
    assert stats["breaker"] == "closed"
    assert stats["errors"] == {}
    numbers = {name: value for name, value in stats.items() if name not in ("breaker", "errors")}
    assert set(numbers) == {
        "requests",
        "hits",
        "misses",
        "sets",
        "deletes",
        "retries",
        "hedges",
        "hedges_won",
        "breaker_openings",
        "bytes_in",
        "bytes_out",
        "billed_operations",
        "owed",
        "paid",
        "near_hits",
        "near_entries",
        "near_bytes",
        "near_evictions",
        "near_stale",
        "refreshes",
        "waited",
    }
    assert set(numbers.values()) == {0}
    assert not server.requests


def test_stats_count(make: Make, make_cache: Make, server: RunningServer) -> None:
    """They agree with what the service saw and with what callers were given."""
    cache = make()
    cache.set("k", os.urandom(3000))
    cache.set_many({"a": 1, "b": 2})
    cache.get("k")
    cache.get("gone")
    cache.get_many(["a", "b", "gone"])
    cache.delete("a")
    cache.delete_many(["b"])
    stats = make_cache(CLEAR_MAX_AGE=None).stats()
    sizes = [(request.method, len(request.key), request.size) for request in server.requests]
    assert stats["requests"] == len(sizes)
    assert (stats["hits"], stats["misses"]) == (3, 2)
    assert (stats["sets"], stats["deletes"]) == (3, 2)
    assert stats["bytes_out"] == sum(size for method, _, size in sizes if method == "PUT")
    assert stats["bytes_in"] == sum(size for method, _, size in sizes if method == "GET")
    assert stats["billed_operations"] == sum(
        max(1, math.ceil((key + size) / 1024)) if size else 1 for _, key, size in sizes
    )
    assert stats["errors"] == {}


def test_stats_count_what_get_or_set_finds(make: Make, make_cache: Make) -> None:
    """A value that had to be made is a miss, one that was there is a hit."""
    cache = make()
    made = [cache.get_or_set("k", lambda: "made") for _ in range(3)]
    assert made == ["made"] * 3
    stats = make_cache(CLEAR_MAX_AGE=None).stats()
    assert (stats["hits"], stats["misses"]) == (2, 1)


def test_stats_count_trouble(make: Make, make_cache: Make, server: RunningServer) -> None:
    """Errors are counted by kind, a retry as one, and opening the breaker shows."""
    cache = make()
    server.inject(Fault(status=503))
    cache.get("k")
    server.inject(Fault(status=403))
    cache.get("k")
    server.inject(Fault(status=404, body=b"Cache Not Found"))
    cache.get("k")
    cache.get("k")
    stats = make_cache(CLEAR_MAX_AGE=None).stats()
    assert stats["retries"] == 1
    assert stats["requests"] == len(server.requests) == 4
    assert stats["errors"] == {
        "service_failed": 1,
        "access_denied": 1,
        "cache_not_found": 1,
        "circuit_open": 1,
    }
    assert (stats["breaker"], stats["breaker_openings"]) == ("open", 1)


def test_stats_are_a_copy(make_cache: Make) -> None:
    """Who changes what stats() returned changes nothing else."""
    cache = make_cache(CLEAR_MAX_AGE=None)
    cache.stats()["errors"]["canary"] = 1
    assert cache.stats()["errors"] == {}


def test_max_entries_means_nothing(make: Make) -> None:
    """MAX_ENTRIES and CULL_FREQUENCY are accepted, and nothing is culled."""
    cache = make(MAX_ENTRIES=2, CULL_FREQUENCY=2)
    values = dict.fromkeys("abcdefgh", 1)
    cache.set_many(values)
    assert cache.get_many(values) == values


class Slow:
    """A compressor that takes 50 ms of CPU time for each value."""

    def compress(self, data: bytes) -> bytes:
        """Spin, and keep the data as it is."""
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass
        return data

    def decompress(self, data: bytes, size: int) -> bytes:
        """Return the data."""
        return data[:size]


def test_set_many_is_not_charged_for_compressing(make: Make, server: RunningServer) -> None:
    """Values that take longer to compress than REQUEST_TIMEOUT are stored all the same."""
    cache = make(COMPRESSOR=f"{__name__}.Slow", COMPRESS_MIN_BYTES=0, REQUEST_TIMEOUT=0.5)
    keys = [f"k{number}" for number in range(20)]
    cache.get("warm")
    assert cache.set_many(dict.fromkeys(keys, "v")) == []
    assert len(server.items) == 20
