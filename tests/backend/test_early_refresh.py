"""EARLY_REFRESH: one makes a value anew before it expires, and stores nothing out of date."""

import logging
import signal
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection

from django_momento_http.cache import MomentoCache
from django_momento_http.testing import Fault, RunningServer, running_server
from tests.support.awaited import Awaited
from tests.support.crowd import CACHE, KEY, LONGEST_WAIT, WIRE, Crowd, Default, results
from tests.support.interrupting import TimeIsUp, interrupts
from tests.support.near import Process

Make = Callable[..., Any]
BOTH = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
MADE_IN = struct.Struct("!I")  # at byte 40 of what is stored, in milliseconds
FULL = 60


class Eager:
    """Backends whose callers all volunteer: as eager as can be, and their draw is next to 0."""

    def __init__(self, make_cache: Make) -> None:
        self._make_cache = make_cache

    def __call__(self, **options: Any) -> Any:
        given = {"CLEAR_MAX_AGE": None, "EARLY_REFRESH": 1000, **options}
        cache: Any = self._make_cache(**given)
        if given["EARLY_REFRESH"]:
            cache._store.making.draw = lambda: 1e-300
        return cache


@pytest.fixture
def make(make_cache: Make) -> Make:
    """A function that builds a backend without a marker, whose callers all volunteer."""
    return Eager(make_cache)


@pytest.fixture
def crowd(make: Make) -> Iterator[Crowd]:
    """Callers that all volunteer."""
    gathered = Crowd(make)
    yield gathered
    gathered.close()


def stored(server: RunningServer) -> bytes:
    """The bytes that the service has under the key."""
    return server.items[CACHE, WIRE]


def made_in(server: RunningServer) -> int:
    """How many milliseconds the stored value says that it took."""
    return int(MADE_IN.unpack_from(stored(server), 40)[0])


def methods(server: RunningServer) -> list[str]:
    """The requests so far, by method."""
    return [request.method for request in server.requests]


def old_value(cache: Any, value: Any = "old", timeout: Any = FULL) -> None:
    """Let a value be there that somebody made."""
    cache.delete(KEY)
    assert cache.get_or_set(KEY, lambda: value, timeout) == value


# Who volunteers, and what the others get


@BOTH
def test_one_makes_it_anew_while_the_others_get_what_is_there(
    crowd: Crowd, server: RunningServer, is_async: bool
) -> None:
    """Nobody waits, and only one of a process is at it, in its own thread."""
    old_value(crowd.first)
    default = Default("new")
    volunteer = crowd.lead(default, is_async=is_async)
    server.forget_requests()
    others = [crowd.call(default, is_async=both) for both in (False, True) * 3]
    assert results(others) == ["old"] * 6
    assert methods(server) == ["GET"] * 6
    default.may_end.set()
    assert volunteer.result(LONGEST_WAIT) == "new"
    assert default.count == 1
    assert crowd.first.get(KEY) == "new"
    stats = crowd.first.stats()
    assert (stats["refreshes"], stats["waited"]) == (1, 0)


def test_it_is_off_by_default(make_cache: Make, server: RunningServer) -> None:
    """A value that is there is returned, and no default is called, until it is gone."""
    cache = make_cache(CLEAR_MAX_AGE=None)
    cache._store.making._chance = lambda: 1 - 2**-53
    old_value(cache, timeout=1)
    server.forget_requests()
    assert cache.get_or_set(KEY, Default) == "old"
    assert methods(server) == ["GET"]
    assert cache.stats()["refreshes"] == 0


def test_what_was_made_lives_as_long_as_a_new_value(make: Make, server: RunningServer) -> None:
    """A refresh stores with the caller's timeout."""
    cache = make()
    old_value(cache, timeout=20)
    assert cache.get_or_set(KEY, lambda: "new", FULL) == "new"
    assert cache.ttl(KEY) == pytest.approx(FULL, abs=5)


@pytest.mark.django_db
def test_nobody_volunteers_inside_a_transaction(make: Make) -> None:
    """Its default might see, and store, what is never committed."""
    cache = make()
    old_value(cache)
    assert connection.in_atomic_block  # pytest-django's
    assert cache.get_or_set(KEY, lambda: "new") == "old"


def test_nobody_volunteers_for_what_does_not_expire() -> None:
    """A value without expiry stays."""
    with running_server(max_ttl=None) as server:
        options = server.cache_settings(CLEAR_MAX_AGE=None, EARLY_REFRESH=1000, MAX_TTL=None)
        cache: Any = MomentoCache(CACHE, options)
        cache._store.making.draw = lambda: 1e-300
        old_value(cache, timeout=None)
        assert cache.get_or_set(KEY, lambda: "new") == "old"
        old_value(cache, timeout=FULL)
        assert cache.get_or_set(KEY, lambda: "new") == "new"


def test_nobody_volunteers_with_a_value_for_a_default(make: Make) -> None:
    """There is nothing to make."""
    cache = make()
    old_value(cache)
    assert cache.get_or_set(KEY, "new") == "old"


def test_nobody_volunteers_for_a_value_that_is_not_to_live(
    make: Make, server: RunningServer
) -> None:
    """With a timeout of 0 or less nothing would be stored, and what is there stays."""
    cache = make()
    old_value(cache)
    server.forget_requests()
    for timeout in (0, -5):
        assert cache.get_or_set(KEY, Default, timeout) == "old"
    assert methods(server) == ["GET"] * 2
    assert cache.stats()["refreshes"] == 0


def test_what_a_set_stored_is_never_early(make: Make, server: RunningServer) -> None:
    """Nobody knows how long it took, or whether a default would make the same."""
    cache = make()
    cache.set(KEY, "set", FULL)
    assert made_in(server) == 0
    assert cache.get_or_set(KEY, lambda: "new") == "set"


# How long it took


@BOTH
def test_the_value_says_how_long_it_took(make: Make, server: RunningServer, is_async: bool) -> None:
    """The default, what serializes, and the two requests that storing takes are counted in."""
    cache = Awaited(make()) if is_async else make()
    cache.get(KEY)
    server.inject(Fault(method="GET", delay=0.2))
    began = time.monotonic()
    server.inject(Fault(method="GET", delay=0.2))  # the second look, and so the write
    assert cache.get_or_set(KEY, lambda: time.sleep(0.05) or "made") == "made"
    took = time.monotonic() - began
    assert 450 <= made_in(server) <= took * 1000 + 300


def test_what_keeps_it_and_what_does_not(make: Make, server: RunningServer) -> None:
    """touch and incr_version keep how long a value took; incr makes another value."""
    cache = make()
    old_value(cache, 1)
    before = made_in(server)
    assert before > 0
    cache.touch(KEY, 50)
    assert made_in(server) == before
    cache.incr(KEY)
    assert made_in(server) == 0
    assert cache.get_or_set(KEY, lambda: 0) == 2


def test_a_value_that_took_longer_than_can_be_said(make: Make, server: RunningServer) -> None:
    """49 days and more are told as 49 days."""
    cache = make()
    making = cache._store.making
    clock, making.clock = making.clock, lambda: next(times)
    times = iter([0.0, 1e8, 1e8, 1e8])
    cache.get_or_set(KEY, lambda: "made", FULL)
    making.clock = clock
    assert made_in(server) == 2**32 - 1
    assert cache.get(KEY) == "made"


# Nothing that is out of date


def test_a_deletion_by_another_process_stands(make: Make, server: RunningServer) -> None:
    """What was deleted while it was made anew is not brought back."""
    cache = make()
    old_value(cache)

    def default() -> str:
        server.discard(CACHE, WIRE)
        return "new"

    assert cache.get_or_set(KEY, default) == "new"
    assert (CACHE, WIRE) not in server.items


def test_another_processs_newer_value_stands(make: Make, server: RunningServer) -> None:
    """A refresh replaces the bytes that it saw, and nothing else; its caller gets what is there."""
    cache = make()
    cache.set(KEY, "theirs", FULL)
    theirs = stored(server)
    old_value(cache)

    def default() -> str:
        server.put(CACHE, WIRE, theirs)
        return "new"

    assert cache.get_or_set(KEY, default) == "theirs"
    assert stored(server) == theirs


@pytest.mark.parametrize("write", ["set", "delete", "clear", "incr", "touch"])
def test_a_write_in_this_process_stands(make: Make, write: str) -> None:
    """It is newer than what is being made; the volunteer gets what it made."""
    cache = make(CLEAR_MAX_AGE=10)
    old_value(cache, 1)
    writes: dict[str, Callable[[], object]] = {
        "set": lambda: cache.set(KEY, 7),
        "delete": lambda: cache.delete(KEY),
        "clear": lambda: cache.clear(),
        "incr": lambda: cache.incr(KEY),
        "touch": lambda: cache.touch(KEY, 30),
    }

    def default() -> int:
        writes[write]()
        return 100

    assert cache.get_or_set(KEY, default) == 100
    expected = {"set": 7, "delete": None, "clear": None, "incr": 2, "touch": 1}
    assert cache.get(KEY) == expected[write]


def test_what_expired_while_it_was_made_is_stored_for_all(
    crowd: Crowd, server: RunningServer
) -> None:
    """Who misses it meanwhile waits for the volunteer, and it is stored like any missing value."""
    old_value(crowd.first)
    default = Default("new")
    volunteer = crowd.lead(default)
    server.advance(FULL + 1)
    callers = crowd.join(2, default)
    crowd.first._store.making._wall_clock = lambda: time.time() + FULL + 1
    default.may_end.set()
    assert results([volunteer, *callers]) == ["new"] * 3
    assert default.count == 1
    assert crowd.first.get(KEY) == "new"


# What goes wrong


@BOTH
@pytest.mark.parametrize("fails", ["default", "serializer"])
def test_a_refresh_that_fails_returns_what_is_there(
    make: Make, caplog: pytest.LogCaptureFixture, is_async: bool, fails: str
) -> None:
    """It says so in the log, without a word of what the exception said."""
    cache = make()
    old_value(cache)

    def default() -> Any:
        if fails == "default":
            raise LookupError("a secret of the customer")
        return lambda: 0

    asked = Awaited(cache) if is_async else cache
    with caplog.at_level(logging.WARNING, "django_momento_http"):
        assert asked.get_or_set(KEY, default) == "old"
    [line] = caplog.messages
    assert "refresh" in line
    assert "secret" not in line
    if fails == "default":
        assert "LookupError" in line
    assert cache.get(KEY) == "old"


def test_a_time_limit_in_a_refresh_passes(make: Make) -> None:
    """What a signal handler raised ends the job, not only the refresh."""
    cache = make()
    old_value(cache)
    with interrupts() as handler:
        with pytest.raises(TimeIsUp) as found:
            cache.get_or_set(KEY, lambda: signal.raise_signal(signal.SIGUSR1))
        assert handler.judged(found.value) is not None
        found.value.__traceback__ = None
    assert cache.get(KEY) == "old"
    assert cache.get_or_set(KEY, lambda: "new") == "new"


@pytest.mark.parametrize("on_error", ["miss", "raise"])
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_refresh_that_cannot_be_stored_returns_what_was_made(
    make: Make, server: RunningServer, on_error: str, method: str
) -> None:
    """There was a value, so the service's trouble with the next one is none of the caller's."""
    cache = make(ON_ERROR=on_error)
    old_value(cache)

    def default() -> str:
        server.inject(Fault(method=method, status=403))
        return "new"

    assert cache.get_or_set(KEY, default) == "new"
    assert cache.get(KEY) == "old"


def test_an_unreadable_or_absent_value_is_a_miss(make: Make, server: RunningServer) -> None:
    """Without a value there is no refresh, and no error either."""
    cache = make()
    assert cache.get_or_set(KEY, lambda: "made") == "made"
    server.put(CACHE, WIRE, b"what somebody else wrote")
    assert cache.get_or_set(KEY, lambda: "made again") == "made again"
    server.inject(Fault(status=500, times=2))
    assert cache.get_or_set(KEY, lambda: "in an outage") == "in an outage"
    assert cache.stats()["refreshes"] == 0


# Copies in the process


def eager_alias(process: Process, draw: float = 1e-300) -> Any:
    """Return an alias of a process that draws so, and has a copy of what took it a second."""
    cache: Any = process.alias(NEAR_MAX_AGE=FULL, CLEAR_MAX_AGE=None, EARLY_REFRESH=1000)
    cache.get_or_set(KEY, lambda: process.pass_(1.0) or "old", FULL)
    assert len(cache._store.near.copies) == 1
    cache._store.making.draw = lambda: draw
    return cache


@BOTH
def test_a_volunteer_that_saw_a_copy_asks_the_service_first(
    server: RunningServer, is_async: bool
) -> None:
    """Where another process has made it anew meanwhile, it is given that and makes none."""
    here, there = eager_alias(Process(server)), Process(server, 1).alias(NEAR_MAX_AGE=0)
    there.set(KEY, "theirs", FULL)  # of a kind that is never early
    assert here.get(KEY) == "old"
    server.forget_requests()
    asked = Awaited(here) if is_async else here
    assert asked.get_or_set(KEY, lambda: "new") == "theirs"
    assert methods(server) == ["GET"]
    assert here.stats()["refreshes"] == 0


@BOTH
def test_a_volunteer_that_saw_a_copy_decides_again_with_the_same_draw(
    server: RunningServer, is_async: bool
) -> None:
    """Where the service still has what was copied, it is made anew."""
    here = eager_alias(Process(server))
    server.forget_requests()
    asked = Awaited(here) if is_async else here
    assert asked.get_or_set(KEY, lambda: "new") == "new"
    assert methods(server) == ["GET", "GET", "PUT"]
    assert here.get(KEY) == "new"


@BOTH
def test_what_stood_in_the_way_of_a_refresh_ends_the_copy(
    server: RunningServer, is_async: bool
) -> None:
    """A process that has served another's newer value does not go back to its copy."""
    process = Process(server)
    here, there = eager_alias(process), Process(server, 1).alias(NEAR_MAX_AGE=0)
    process.pass_(0.5)
    asked = Awaited(here) if is_async else here
    assert asked.get_or_set(KEY, lambda: there.set(KEY, "theirs", FULL)) == "theirs"
    assert here.get(KEY) == "theirs"


@BOTH
def test_who_is_not_early_is_answered_by_a_copy(server: RunningServer, is_async: bool) -> None:
    """A draw that does not volunteer costs no request."""
    here = eager_alias(Process(server), draw=1.0)
    server.forget_requests()
    asked = Awaited(here) if is_async else here
    assert asked.get_or_set(KEY, lambda: "new") == "old"
    assert methods(server) == []
