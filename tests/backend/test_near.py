"""Copies in the process: what they answer, for how long, and what they never do."""

import hashlib
import logging
import os
import pickle
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from django.core.cache.backends.base import CacheKeyWarning
from django.core.management import call_command

from django_momento_http._store.barrier import SLOTS
from django_momento_http.cache import MomentoCache
from django_momento_http.exceptions import MomentoError
from django_momento_http.testing import Fault, RunningServer
from tests.support.markers import marker_key
from tests.support.near import AGE, CACHE, STALE, Process, asked, close_breakers, sync, twin

KEY = b":1:k"
DOWN = Fault(status=500, times=None)
SESSIONS = ("django.contrib.sessions.cache", "django.contrib.sessions.cached_db")

Call = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Call:
    """Call a method of a cache, or its async twin."""
    return sync if request.param == "sync" else twin


@pytest.fixture
def process(server: RunningServer) -> Process:
    """A process that a test moves the clocks of."""
    return Process(server)


@pytest.fixture
def cache(process: Process) -> MomentoCache:
    """An alias that keeps copies."""
    return process.alias()


@pytest.fixture
def other(server: RunningServer) -> MomentoCache:
    """The same alias in another process, without copies."""
    return Process(server, 1).alias(NEAR_MAX_AGE=0)


def numbers(cache: MomentoCache) -> dict[str, Any]:
    """The counters of copies, without their prefix."""
    stats = cache.stats()
    return {name[5:]: stats[name] for name in stats if name.startswith("near_")}


# Off by default


def test_there_are_no_copies_by_default(server: RunningServer, make_cache: Call) -> None:
    """Each read asks the service, and no write is marked."""
    cache = make_cache()
    cache.set("k", 1)
    for _ in range(3):
        assert cache.get("k") == 1
    assert asked(server) == ["PUT", "GET", "GET", "GET"]
    assert cache._shared.near is None
    assert not cache._shared._namespace.barrier.slots
    assert set(numbers(cache).values()) == {0}


# What copies answer

READS: dict[str, tuple[tuple[Any, ...], Any]] = {
    "get": (("k",), ["old"]),
    "get_many": ((["k"],), {"k": ["old"]}),
    "has_key": (("k",), True),
    "get_or_set": (("k", "default"), ["old"]),
}


@pytest.mark.parametrize("is_written", [True, False], ids=["written", "read"])
@pytest.mark.parametrize("method", READS)
def test_a_copy_answers_reads(
    server: RunningServer,
    cache: MomentoCache,
    other: MomentoCache,
    call: Call,
    method: str,
    is_written: bool,
) -> None:
    """What was read or written a moment ago is not asked for."""
    (cache if is_written else other).set("k", ["old"])
    cache.get("k")
    arguments, value = READS[method]
    asked(server)
    assert call(cache, method, *arguments) == value
    assert asked(server) == []
    assert numbers(cache)["hits"] >= 1


@pytest.mark.parametrize("method", ["get", "get_many", "has_key", "get_or_set"])
def test_each_read_leaves_a_copy(
    server: RunningServer, cache: MomentoCache, other: MomentoCache, call: Call, method: str
) -> None:
    """Whatever method brought the value."""
    other.set("k", ["old"])
    arguments, value = READS[method]
    assert call(cache, method, *arguments) == value
    asked(server)
    assert cache.get("k") == ["old"]
    assert asked(server) == []


def test_a_stored_none_is_a_hit(server: RunningServer, cache: MomentoCache, call: Call) -> None:
    """From a copy, too."""
    cache.set("k", None)
    asked(server)
    assert call(cache, "get", "k", "default") is None
    assert call(cache, "get_or_set", "k", "default") is None
    assert call(cache, "get_many", ["k"]) == {"k": None}
    assert asked(server) == []


def test_a_copy_knows_its_lifetime(process: Process, cache: MomentoCache, call: Call) -> None:
    """ttl() of a copy is what the service's value says."""
    cache.set("k", 1, 100)
    process.pass_(3)
    asked(process.server)
    assert call(cache, "ttl", "k") == pytest.approx(97, abs=0.01)
    assert asked(process.server) == []


def test_get_many_asks_for_what_has_no_copy(
    server: RunningServer, cache: MomentoCache, other: MomentoCache, call: Call
) -> None:
    """And for nothing else; what came is kept."""
    other.set_many({"a": 1, "b": 2, "c": 3})
    cache.get("b")
    asked(server)
    names = ["a", "b", "c", "gone"]
    assert call(cache, "get_many", iter(names)) == {"a": 1, "b": 2, "c": 3}
    assert asked(server) == ["GET"] * 3
    assert call(cache, "get_many", names[:3]) == {"a": 1, "b": 2, "c": 3}
    assert asked(server) == []


def test_versions_and_prefixes_have_copies_of_their_own(process: Process) -> None:
    """A copy answers for its very key."""
    cache, prefixed = process.alias(), process.alias(KEY_PREFIX="p")
    cache.set("k", 1, version=1)
    cache.set("k", 2, version=2)
    prefixed.set("k", 3)
    found = [cache.get("k"), cache.get("k", version=2), prefixed.get("k")]
    assert found == [1, 2, 3]
    assert [cache.get("k", version=3), prefixed.get("k", version=2)] == [None, None]


def test_misses_are_not_kept(server: RunningServer, cache: MomentoCache, call: Call) -> None:
    """What another process adds is seen at once."""
    for _ in range(2):
        assert call(cache, "get", "k") is None
        assert call(cache, "get_many", ["k"]) == {}
        assert not call(cache, "has_key", "k")
    assert asked(server) == ["GET"] * 6


# Never wrong longer than said


def test_another_processs_write_is_seen_in_time(
    process: Process, cache: MomentoCache, other: MomentoCache, call: Call
) -> None:
    """After NEAR_MAX_AGE, counted from when the read began."""
    other.set("k", "old")
    cache.get("k")
    other.set("k", "new")
    process.pass_(AGE - 0.01)
    assert call(cache, "get", "k") == "old"
    process.pass_(0.02)
    assert call(cache, "get", "k") == "new"


def test_another_processs_removal_is_seen_in_time(
    process: Process, cache: MomentoCache, other: MomentoCache, call: Call
) -> None:
    """So is what is gone, and its copy is gone with it."""
    cache.set("k", "old")
    other.delete("k")
    process.pass_(AGE + 0.01)
    for method in ("get", "has_key", "ttl", "get_many"):
        assert not call(cache, method, ["k"] if method == "get_many" else "k")
    assert numbers(cache)["entries"] == 0


def test_a_value_is_not_served_beyond_its_expiry(
    process: Process, cache: MomentoCache, other: MomentoCache
) -> None:
    """Neither one that was written here nor one that was read."""
    cache.set("written", 1, 2)
    other.set("read", 1, 2)
    cache.get("read")
    process.pass_(1.9)
    process.server.advance(1.9)
    asked(process.server)
    assert cache.get_many(["written", "read"]) == {"written": 1, "read": 1}
    assert asked(process.server) == []
    process.pass_(0.2)
    process.server.advance(1.2)
    assert cache.get_many(["written", "read"]) == {}


def test_another_processs_clear_is_seen_in_time(server: RunningServer) -> None:
    """After NEAR_MAX_AGE and CLEAR_MAX_AGE together."""
    process, other = Process(server), Process(server, 1).alias(NEAR_MAX_AGE=0)
    cache = process.alias(CLEAR_MAX_AGE=10)
    other.set("k", "old")
    cache.get("nothing")  # reads the marker
    process.pass_(7.9)
    assert cache.get("k") == "old"
    other.clear()
    process.pass_(AGE - 0.01)
    assert cache.get("k") == "old"
    process.pass_(0.02)
    assert cache.get("k") is None


def test_a_clear_is_seen_at_once_here(process: Process, call: Call) -> None:
    """By every alias of the namespace, and no copy is left of what was cleared."""
    cache, other = process.alias(), process.alias(COMPRESSOR=None)
    untouched = process.alias(KEY_PREFIX="p")
    untouched.set("k", 1)
    cache.set("k", "old")
    process.pass_(40)
    assert other.get("k") == "old"
    assert numbers(other)["entries"] == 1
    call(cache, "clear")
    assert numbers(other)["entries"] == 0
    assert (cache.get("k"), other.get("k")) == (None, None)
    asked(process.server)
    assert untouched.get("k") == 1
    asked(process.server)
    assert untouched.get("k") == 1
    assert asked(process.server) == []


def test_a_clear_that_failed_ends_copies(process: Process, cache: MomentoCache) -> None:
    """It is owed, and this process has forgotten."""
    cache.set("k", "old")
    process.server.inject(DOWN)
    cache.clear()
    assert cache.get("k") is None


@pytest.mark.parametrize("seconds", [AGE, 3600, -1, -3600])
def test_a_clock_that_is_set_ends_copies(
    process: Process, cache: MomentoCache, call: Call, seconds: float
) -> None:
    """A machine that was suspended, or whose wall clock went back, asks again."""
    cache.set("k", 1, 7200)
    process.wall += seconds
    asked(process.server)
    assert call(cache, "get", "k") == 1
    assert call(cache, "get_many", ["k"]) == {"k": 1}
    assert len(asked(process.server)) in (1, 2)


# This process's own writes

WRITES: dict[str, tuple[tuple[Any, ...], Any]] = {
    "set": (("k", 5), 5),
    "set for no time": (("k", 5, 0), None),
    "set_many": (({"k": 5, "m": 1},), 5),
    "set_many for no time": (({"k": 5}, -1), None),
    "touch": (("k", 100), 1),
    "touch for no time": (("k", 0), None),
    "incr": (("k", 4), 5),
    "decr": (("k", 4), -3),
    "delete": (("k",), None),
    "delete_many": ((["m", "k"],), None),
    "incr_version": (("k",), None),
    "clear": ((), None),
}


@pytest.mark.parametrize("writer", ["the same", "another", "one without copies"])
@pytest.mark.parametrize("name", WRITES)
def test_its_own_writes_are_seen_at_once(
    process: Process, call: Call, name: str, writer: str
) -> None:
    """Through any alias of the namespace, whoever of them has a copy."""
    cache = process.alias()
    writers = {
        "the same": cache,
        "another": process.alias(COMPRESSOR=None),
        "one without copies": process.alias(NEAR_MAX_AGE=0),
    }
    reader, readers = writers[writer], [cache, writers["another"]]
    cache.set("k", 1)
    process.pass_(40)  # what bars copies after a write is over
    assert [each.get("k") for each in readers] == [1, 1]
    arguments, value = WRITES[name]
    call(reader, name.partition(" ")[0], *arguments)
    for _ in range(2):
        assert [each.get("k") for each in readers] == [value, value]
    process.pass_(40)
    assert [each.get("k") for each in readers] == [value, value]
    if name == "incr_version":
        assert [each.get("k", version=2) for each in readers] == [1, 1]


def test_moving_a_value_ends_the_copy_where_it_goes(process: Process, cache: MomentoCache) -> None:
    """incr_version() writes over what was at the new version."""
    cache.set("k", "old", version=2)
    cache.set("k", "new", version=1)
    cache.incr_version("k", version=1)
    assert cache.get("k", version=2) == "new"
    assert cache.get("k", version=1) is None


@pytest.mark.parametrize("name", ["set", "delete", "set_many", "delete_many"])
def test_a_write_that_failed_ends_the_copy(
    process: Process, cache: MomentoCache, call: Call, name: str
) -> None:
    """What should be gone is not served, not even in the outage, and is owed as ever."""
    cache.set("k", "old")
    process.pass_(40)
    assert cache.get("k") == "old"
    process.server.inject(DOWN)
    call(cache, name, *WRITES[name][0])
    assert cache.get("k") is None
    process.server.clear_faults()
    close_breakers(cache)
    process.pass_(40)
    for _ in range(3):
        assert cache.get("k") is None


def test_a_write_that_was_refused_ends_the_copy(cache: MomentoCache, call: Call) -> None:
    """What is too large leaves nothing behind."""
    cache.set("k", "old")
    call(cache, "set", "k", os.urandom(6 * 1024 * 1024))
    assert cache.get("k") is None


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=503, method="PUT", applied=True, times=2),
        Fault(status=403, method="PUT"),
    ],
)
def test_a_write_without_a_204_leaves_no_copy(
    process: Process, cache: MomentoCache, fault: Fault
) -> None:
    """Whether it was applied is asked of the service."""
    process.server.inject(fault)
    cache.set("k", "new")
    assert numbers(cache)["entries"] == 0


@pytest.mark.parametrize("name", ["set", "set_many", "add", "get_or_set"])
def test_what_was_stored_leaves_a_copy(
    server: RunningServer, cache: MomentoCache, call: Call, name: str
) -> None:
    """Whoever writes and reads asks nobody for it."""
    cache.get("nothing")  # reads the marker
    call(cache, name, *(({"k": ["v"]},) if name == "set_many" else ("k", ["v"])))
    asked(server)
    assert call(cache, "get", "k") == ["v"]
    assert asked(server) == []


@pytest.mark.parametrize("name", ["set", "set_many"])
def test_what_a_payment_overtook_leaves_none(
    cache: MomentoCache, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """While a debt's payment removes what it found, nobody knows which of both is the last."""
    cache.get("nothing")
    monkeypatch.setattr(cache._shared._gateway, "is_overtaken", lambda *_: True)
    sync(cache, name, *WRITES[name][0])
    assert numbers(cache)["entries"] == 0


def test_what_a_clear_overtook_leaves_none(cache: MomentoCache, call: Call) -> None:
    """A default that was begun before a clear() makes a value of before."""
    assert call(cache, "get_or_set", "k", lambda: cache.clear() or "made") == "made"
    assert cache.get("k") is None


def test_nothing_is_kept_before_the_marker_could_be_read(
    process: Process, cache: MomentoCache, call: Call
) -> None:
    """Until then nobody can say whether a value was cleared."""
    process.server.inject(Fault(status=500, key=marker_key(), times=None))
    call(cache, "set", "k", 1)
    assert call(cache, "get", "k") is None
    assert numbers(cache)["entries"] == 0


@pytest.mark.parametrize("name", ["touch", "incr", "incr_version"])
def test_what_was_written_back_leaves_none(
    process: Process, cache: MomentoCache, call: Call, name: str
) -> None:
    """These only end copies."""
    cache.set("k", 1)
    process.pass_(40)
    assert cache.get("k") == 1
    call(cache, name, "k")
    assert numbers(cache)["entries"] == 0


@pytest.mark.parametrize("name", ["set_many", "delete_many"])
def test_ten_thousand_keys_bar_reads_no_longer_than_one(
    process: Process, cache: MomentoCache, other: MomentoCache, name: str
) -> None:
    """However long they might have taken."""
    keys = [f"key-{number}" for number in range(500)]
    sync(cache, name, keys if name == "delete_many" else dict.fromkeys(keys, "old"))
    process.pass_(2.5)
    other.set("key-1", "new", 7200)
    cache._shared.near.copies.forget()
    assert cache.get("key-1") == "new"
    assert numbers(cache)["entries"] == 1


def test_a_write_soon_after_another_leaves_none(process: Process, cache: MomentoCache) -> None:
    """The first may still be on its way."""
    cache.set("k", 1)
    cache.set("k", 2)
    assert numbers(cache)["entries"] == 0
    assert cache.get("k") == 2
    process.pass_(40)
    cache.set("k", 3)
    assert numbers(cache)["entries"] == 1


# What asks all the same


@pytest.mark.parametrize("name", ["add", "incr", "decr", "touch", "delete", "incr_version"])
def test_these_ask_the_service_whatever_copy_there_is(
    process: Process, cache: MomentoCache, other: MomentoCache, call: Call, name: str
) -> None:
    """Another process has removed the value: they know."""
    cache.set("k", 1)
    other.delete("k")
    if name == "add":
        assert call(cache, "add", "k", 2) is True
        assert cache.get("k") == 2
    elif name in ("touch", "delete"):
        assert call(cache, name, "k") is False
        assert cache.get("k") is None
    else:
        with pytest.raises(ValueError, match="no such key"):
            call(cache, name, "k")
        assert cache.get("k") is None


def test_the_second_look_of_get_or_set_asks(
    cache: MomentoCache, other: MomentoCache, call: Call
) -> None:
    """What another process stores while the default is made is what is returned."""

    def default() -> str:
        other.set("k", "theirs")
        return "ours"

    assert call(cache, "get_or_set", "k", default) == "theirs"


@pytest.mark.parametrize("function", [None, "tests.backend.test_near.hashed"])
@pytest.mark.parametrize("prefix", SESSIONS)
def test_sessions_are_never_copied(
    process: Process, call: Call, prefix: str, function: str | None
) -> None:
    """Whatever KEY_FUNCTION makes of their keys: a stale session outlives a logout."""
    cache = process.alias(KEY_FUNCTION=function, KEY_PREFIX="p")
    key = prefix + "a" * 32
    for name in ("set", "set_many", "add", "get_or_set"):
        cache.delete(key)
        process.pass_(40)
        call(cache, name, *(({key: 1},) if name == "set_many" else (key, 1)))
        asked(process.server)
        for _ in range(2):
            process.pass_(40)
            assert call(cache, "get", key) == 1
            assert call(cache, "get_many", [key]) == {key: 1}
            assert call(cache, "has_key", key)
        assert asked(process.server) == ["GET"] * 6
    assert numbers(cache)["entries"] == 0


def hashed(key: str, key_prefix: str, version: int) -> str:
    """A KEY_FUNCTION of which nobody can read a key."""
    return hashlib.sha256(f"{key_prefix}:{version}:{key}".encode()).hexdigest()


# Never shared


def test_every_hit_is_a_value_of_its_own(cache: MomentoCache, call: Call) -> None:
    """What a caller does to a value harms nobody, nor to one that it has stored."""
    mine = ["one"]
    cache.set("k", mine)
    mine.append("two")
    call(cache, "get", "k").append("three")
    call(cache, "get_many", ["k"])["k"].append("four")
    call(cache, "get_or_set", "k", []).append("five")
    assert call(cache, "get", "k") == ["one"]


@pytest.mark.parametrize("compressor", ["zlib", None])
def test_a_copy_owns_its_bytes(process: Process, other: MomentoCache, compressor: Any) -> None:
    """Nothing of the buffer that an answer came in is kept alive."""
    cache = process.alias(COMPRESSOR=compressor)
    other.set("k", os.urandom(100_000))
    cache.get("k")
    [copy] = cache._shared.near.copies._entries.values()
    assert type(copy.payload) is bytes


class Reused:
    """A serializer that hands out one buffer again and again."""

    buffer = bytearray()

    def dumps(self, value: Any) -> bytes:
        Reused.buffer[:] = pickle.dumps(value)
        return Reused.buffer  # type: ignore[return-value]

    def loads(self, data: bytes) -> Any:
        assert type(data) is bytes
        return pickle.loads(data)


def test_a_copy_outlives_the_serializers_buffer(process: Process) -> None:
    """Whatever a serializer does with what it returned."""
    cache = process.alias(SERIALIZER="tests.backend.test_near.Reused", COMPRESSOR=None)
    cache.set("a", "one")
    cache.set("b", "two")
    asked(process.server)
    assert cache.get_many(["a", "b"]) == {"a": "one", "b": "two"}
    assert asked(process.server) == []


def test_an_alias_loads_only_what_it_may(process: Process) -> None:
    """Aliases of one namespace have copies of their own: one that reads JSON loads no pickle."""
    cache, careful = process.alias(), process.alias(SERIALIZER="json")
    cache.set("k", {"a"})
    assert cache.get("k") == {"a"}
    assert careful.get("k") is None
    careful.set("j", [1])
    assert careful.get("j") == [1]


class Unloadable:
    """What can be stored, and not be loaded again."""

    def __reduce__(self) -> Any:
        return (int, ("no number",))


def test_what_cannot_be_loaded_is_a_miss(process: Process, cache: MomentoCache, call: Call) -> None:
    """As without copies, with the same warning."""
    cache.set("k", Unloadable())
    assert call(cache, "get", "k", "default") == "default"
    assert call(cache, "get_many", ["k"]) == {}
    assert not call(cache, "has_key", "k")
    assert cache.stats()["errors"] == {"stored_value": 3}


class Slow:
    """A value whose loading is interrupted."""

    def __reduce__(self) -> Any:
        return (_be_interrupted, ())


# The service's value is loaded in peace, so that only a copy's loading is struck.
_STRIKES: list[None] = []


def _be_interrupted() -> str:
    if _STRIKES:
        _STRIKES.pop()
        signal.raise_signal(signal.SIGUSR1)
    return "loaded"


class TimeIsUp(Exception):
    """What a signal handler raises."""


@pytest.fixture
def limit() -> Iterator[None]:
    """A handler that raises, from now on."""

    def handle(*_: object) -> None:
        raise TimeIsUp

    before = signal.signal(signal.SIGUSR1, handle)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("limit")
def test_what_a_signal_handler_raises_comes_out(cache: MomentoCache) -> None:
    """A time limit that strikes while a copy is loaded is no miss."""
    cache.set("k", Slow())
    for name, argument in {"get": "k", "get_many": ["k"], "has_key": "k"}.items():
        _STRIKES.append(None)
        with pytest.raises(TimeIsUp):
            getattr(cache, name)(argument)
    assert cache.get("k") == "loaded"


def test_odd_keys_are_warned_of_every_time(cache: MomentoCache, call: Call) -> None:
    """A key that memcached would not take is named, copy or none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cache.set("odd key", 1)
    for _ in range(2):
        with pytest.warns(CacheKeyWarning):
            assert call(cache, "get", "odd key") == 1


# An outage

OUTAGES = {
    "500": Fault(status=500, times=None),
    "503": Fault(status=503, times=None),
    "429": Fault(status=429, times=None),
    "dropped": Fault(drop="before", times=None),
    "late": Fault(delay=1.0, times=None),
}
REFUSALS = {
    "400": Fault(status=400, times=None),
    "401": Fault(status=401),
    "403": Fault(status=403, times=None),
    "no such cache": Fault(status=404, body=b'{"error": "Cache Not Found"}'),
}


@pytest.mark.parametrize("name", OUTAGES)
def test_a_copy_bridges_an_outage(process: Process, call: Call, name: str) -> None:
    """For NEAR_MAX_STALE seconds beyond its age, and not beyond."""
    cache = process.alias(REQUEST_TIMEOUT=0.2, CONNECT_TIMEOUT=0.2)
    cache.set("k", ["old"], 3600)
    process.pass_(AGE + STALE - 1)
    process.server.inject(OUTAGES[name])
    assert call(cache, "get", "k") == ["old"]
    assert call(cache, "get_many", ["k", "unknown"]) == {"k": ["old"]}
    assert call(cache, "has_key", "k") is True
    assert call(cache, "ttl", "k") == pytest.approx(3600 - 64, abs=0.1)
    assert call(cache, "get_or_set", "k", pytest.fail) == ["old"]
    assert numbers(cache)["stale"] == 5
    process.pass_(1.01)
    assert call(cache, "get", "k") is None
    assert call(cache, "has_key", "k") is False
    assert call(cache, "ttl", "k") == 0


def test_a_copy_bridges_while_the_breaker_is_open(process: Process, cache: MomentoCache) -> None:
    """Nothing is sent, and the copy answers."""
    cache.set("k", "old", 3600)
    process.pass_(AGE + 1)
    process.server.inject(Fault(status=401, times=None))
    cache.get("another")
    asked(process.server)
    assert cache.stats()["breaker"] == "open"
    assert cache.get("k") == "old"
    assert asked(process.server) == []


@pytest.mark.parametrize("name", REFUSALS)
def test_an_answer_is_no_outage(process: Process, cache: MomentoCache, name: str) -> None:
    """A service that says no was asked."""
    cache.set("k", "old", 3600)
    process.pass_(AGE + 1)
    process.server.inject(REFUSALS[name])
    assert cache.get("k") is None
    assert numbers(cache)["stale"] == 0


def test_a_value_that_is_not_ours_is_no_outage(process: Process, cache: MomentoCache) -> None:
    """What was spoilt is a miss."""
    cache.set("k", "old", 3600)
    process.server.put(CACHE, KEY, b"foreign")
    process.pass_(AGE + 1)
    assert cache.get("k") is None


def test_nothing_is_bridged_beyond_its_own_expiry(process: Process, cache: MomentoCache) -> None:
    """However long the outage may be bridged."""
    cache.set("k", "old", 20)
    process.server.inject(DOWN)
    process.pass_(19.9)
    assert cache.get("k") == "old"
    process.pass_(0.2)
    assert cache.get("k") is None


def test_nothing_is_bridged_where_errors_are_raised(process: Process) -> None:
    """Who asked for errors gets them."""
    cache = process.alias(ON_ERROR="raise")
    cache.set("k", "old")
    process.pass_(AGE + 1)
    process.server.inject(DOWN)
    for name, argument in {"get": "k", "get_many": ["k"], "has_key": "k", "ttl": "k"}.items():
        with pytest.raises(MomentoError):
            getattr(cache, name)(argument)
    assert numbers(cache)["stale"] == 0


def test_nothing_is_bridged_where_that_is_switched_off(process: Process) -> None:
    """With NEAR_MAX_STALE 0."""
    cache = process.alias(NEAR_MAX_STALE=0)
    cache.set("k", "old")
    process.pass_(AGE + 0.1)
    process.server.inject(DOWN)
    assert cache.get("k") is None


def test_what_is_known_to_be_gone_is_not_bridged(
    process: Process, cache: MomentoCache, other: MomentoCache, call: Call
) -> None:
    """A copy ends when any method learns that its value is no more."""
    for name in ("get", "get_many", "has_key", "ttl", "touch"):
        process.pass_(100)
        other.set("k", "old", 7200)
        assert cache.get("k") == "old"
        other.delete("k")
        process.pass_(AGE + 1)
        assert not call(cache, name, ["k"] if name == "get_many" else "k")
        process.server.inject(DOWN)
        assert cache.get("k") is None
        process.server.clear_faults()
        close_breakers(cache)


def test_what_took_its_place_is_not_forgotten(
    process: Process, cache: MomentoCache, other: MomentoCache, call: Call
) -> None:
    """A copy ends, too, when what is found in its place is of no use here."""
    for name in ("get", "get_many", "has_key", "get_or_set", "ttl", "touch"):
        process.pass_(100)
        other.set("k", "old", 7200)
        assert cache.get("k") == "old"
        process.server.put(CACHE, KEY, b"another site's")
        process.pass_(AGE + 1)
        # A default that is too large to be stored.
        more = {"get_or_set": ("k", "x" * 6_000_000), "get_many": (["k"],)}.get(name, ("k",))
        call(cache, name, *more)
        process.server.inject(DOWN)
        assert cache.get("k") is None
        process.server.clear_faults()
        close_breakers(cache)


def test_what_cannot_be_loaded_ends_the_copy(
    process: Process, other: MomentoCache, call: Call
) -> None:
    """An alias that reads JSON has seen that its value was replaced by a pickle."""
    cache = process.alias(SERIALIZER="json")
    cache.set("k", "old", 7200)
    other.set("k", {"a set"}, 7200)
    process.pass_(AGE + 1)
    assert call(cache, "get", "k") is None
    process.server.inject(DOWN)
    assert call(cache, "get", "k") is None


def test_what_was_served_and_not_kept_ends_the_copy(
    process: Process, other: MomentoCache, call: Call
) -> None:
    """A process does not go back behind what it has served, though a write held it off."""
    cache = process.alias(NEAR_MAX_AGE=1)
    cache.set("k", "old", 7200)
    process.pass_(100)
    assert cache.get("k") == "old"
    cache.set(beside(cache, "k"), "a write in the same slot")
    other.set("k", "new", 7200)
    process.pass_(1.5)
    assert call(cache, "get", "k") == "new"
    process.server.inject(DOWN)
    assert call(cache, "get", "k") is None


def beside(cache: MomentoCache, key: str) -> str:
    """Return another key of the same slot."""
    slot = hash(cache._wire_key(key, None)) % SLOTS
    others = map(str, count())
    return next(one for one in others if hash(cache._wire_key(one, None)) % SLOTS == slot)


def test_an_outage_is_said_as_ever(
    process: Process, cache: MomentoCache, caplog: pytest.LogCaptureFixture
) -> None:
    """The usual line, once in ten seconds, and errors are counted."""
    cache.set("k", "old")
    process.pass_(AGE + 1)
    process.server.inject(DOWN)
    with caplog.at_level(logging.WARNING, "django_momento_http"):
        for _ in range(3):
            assert cache.get("k") == "old"
    lines = [record for record in caplog.records if record.message.startswith("get on")]
    assert len(lines) == 1
    assert cache.stats()["errors"]["service_failed"] >= 3


# Tasks


@pytest.mark.parametrize("size", [60_000, 70_000])
def test_a_small_copy_is_loaded_in_the_loop(
    process: Process, cache: MomentoCache, size: int
) -> None:
    """Without a worker thread; one of more than 64 KiB in a worker, which sends nothing."""
    cache.set("k", (Where(), b"x" * size))
    asked(process.server)
    here = threading.get_ident()
    found = [
        twin(cache, "get", "k"),
        twin(cache, "get_many", ["k"])["k"],
        twin(cache, "get_or_set", "k", "default"),
    ]
    for (thread, _), *_ in found:
        assert (thread == here) is (size < 65536)
    assert twin(cache, "has_key", "k")
    assert asked(process.server) == []


class Where:
    """A value that is where it was loaded."""

    def __reduce__(self) -> Any:
        return (_where, ())


def _where() -> tuple[int, None]:
    return threading.get_ident(), None


# Memory, processes, tools


def test_copies_are_bounded(process: Process) -> None:
    """By NEAR_MAX_BYTES; stats() says how much there is and what had to go."""
    cache = process.alias(NEAR_MAX_BYTES=50_000)
    for number in range(100):
        cache.set(str(number), os.urandom(1000))
        process.pass_(40)  # keys that share a mark would hinder each other
    found = numbers(cache)
    assert 45_000 < found["bytes"] <= 50_000
    assert found["evictions"] == 100 - found["entries"] > 50


def test_what_takes_over_an_eighth_is_not_kept(process: Process, call: Call) -> None:
    """One value does not end all other copies."""
    cache = process.alias(NEAR_MAX_BYTES=80_000)
    call(cache, "set", "k", os.urandom(10_000))
    assert len(call(cache, "get", "k")) == 10_000
    assert numbers(cache)["entries"] == 0


def test_counters_of_hits(process: Process, cache: MomentoCache, other: MomentoCache) -> None:
    """near_hits are reads that a copy answered; hits are all values that were given."""
    other.set_many({"a": 1, "b": 2})
    for _ in range(2):
        cache.get("a")
        cache.get_many(["a", "b"])
    cache.has_key("a")
    cache.ttl("a")
    stats = cache.stats()
    assert (stats["hits"], stats["near_hits"], stats["misses"]) == (6, 6, 0)
    assert stats["near_entries"] == 2


def test_a_fork_starts_empty(server: RunningServer, make_cache: Call) -> None:
    """Copies are one process's, and the parent's stay."""
    cache = make_cache(NEAR_MAX_AGE=3600)
    cache.set("k", 1)
    asked(server)
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            entries = cache.stats()["near_entries"]
            found = cache.get("k")
            os.write(write, f"{entries} {found}".encode())
        finally:
            os._exit(0)
    os.close(write)
    said = os.read(read, 100)
    os.waitpid(pid, 0)
    os.close(read)
    assert said == b"0 1"
    assert asked(server) == ["GET"]
    assert cache.get("k") == 1
    assert asked(server) == []


def test_threads_share_the_copies(server: RunningServer, make_cache: Call) -> None:
    """Django makes a backend for each thread and task; they are of one process."""
    make_cache(NEAR_MAX_AGE=3600).set("k", 1)
    asked(server)
    assert make_cache(NEAR_MAX_AGE=3600).get("k") == 1
    assert asked(server) == []


def test_a_server_of_a_test_takes_its_copies_along(make_cache: Call, server: RunningServer) -> None:
    """The next server on its port starts with none."""
    cache = make_cache(NEAR_MAX_AGE=3600)
    cache.set("k", 1)
    from django_momento_http._store.store import forget_endpoint

    forget_endpoint(server.endpoint)
    assert cache.stats()["near_entries"] == 0
    asked(server)
    cache.get("k")
    assert asked(server) == ["GET"]


def test_momento_check_asks_the_service(server: RunningServer) -> None:
    """It never takes a copy's word."""
    counts = []
    for age in (0, 3600):
        with server.override_settings(NEAR_MAX_AGE=age):
            asked(server)
            call_command("momento_check", verbosity=0)
            counts.append(asked(server))
    assert counts[0] == counts[1]
    assert counts[0].count("GET") >= 5
