"""get_or_set without a crowd: one makes a missing value, and what is out of date is not stored."""

import asyncio
import gc
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connection

from django_momento_http.exceptions import AccessDenied, MomentoError
from django_momento_http.testing import Fault, RunningServer
from tests.support.awaited import Awaited
from tests.support.crowd import (
    CACHE,
    KEY,
    LONGEST_WAIT,
    WIRE,
    Crowd,
    Default,
    eventually,
    results,
    until,
)
from tests.support.interrupting import TimeIsUp, at_every_place, interrupts

Make = Callable[..., Any]
BOTH = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


@pytest.fixture
def make(make_cache: Make) -> Make:
    """A function that builds a backend without a marker."""
    return lambda **options: make_cache(**{"CLEAR_MAX_AGE": None, **options})


@pytest.fixture
def gather(make: Make) -> Iterator[Callable[..., Crowd]]:
    """A function that gathers a crowd, whose members have the same configuration."""
    crowds = []

    def build(**options: Any) -> Crowd:
        crowds.append(Crowd(lambda: make(**options)))
        return crowds[-1]

    yield build
    for crowd in crowds:
        crowd.close()


def methods(server: RunningServer) -> list[str]:
    """The requests so far, by method."""
    return [request.method for request in server.requests]


def stored(server: RunningServer) -> bytes | None:
    """The bytes that the service has under the key."""
    return server.items.get((CACHE, WIRE))


# One makes it


@BOTH
def test_one_makes_what_a_mixed_crowd_misses(
    gather: Callable[..., Crowd], server: RunningServer, is_async: bool
) -> None:
    """Threads, and tasks of several loops, get what one thread or task of them made."""
    crowd, default = gather(), Default(["made"])
    leader = crowd.lead(default, is_async=is_async)
    callers = crowd.join(4, default) + crowd.join(4, default, is_async=True)
    default.may_end.set()
    found = results([leader, *callers])
    assert found == [["made"]] * 9
    assert default.count == 1
    assert methods(server).count("PUT") == 1
    assert methods(server).count("GET") == 10  # one each, and the maker's second look
    assert crowd.first.stats()["waited"] == 8


def test_each_gets_a_value_of_its_own(gather: Callable[..., Crowd]) -> None:
    """What one caller does to the value, no other meets."""
    crowd, default = gather(), Default({"a": []})
    leader = crowd.lead(default)
    callers = [*crowd.join(3, default), *crowd.join(2, default, is_async=True)]
    default.may_end.set()
    found = results([leader, *callers])
    assert found == [{"a": []}] * 6
    assert len({id(value) for value in found}) == len({id(value["a"]) for value in found}) == 6


def test_tasks_of_one_loop_hold_no_thread(gather: Callable[..., Crowd]) -> None:
    """A hundred tasks wait for one maker; no worker thread waits with them."""
    crowd, default = gather(), Default()
    leader = crowd.lead(default)
    threads: list[int] = []

    async def ask() -> list[Any]:
        asked = [crowd.first.aget_or_set(KEY, default) for _ in range(100)]
        tasks = asyncio.gather(*asked)
        await eventually(lambda: crowd.waiting() == 100)
        threads.append(threading.active_count())
        default.may_end.set()
        return await tasks

    assert asyncio.run(asyncio.wait_for(ask(), LONGEST_WAIT)) == ["made"] * 100
    assert leader.result(LONGEST_WAIT) == "made"
    assert default.count == 1
    assert max(threads) < 50


def test_a_large_value_is_loaded_beside_the_loop(gather: Callable[..., Crowd]) -> None:
    """A waiting task is given what is too large to be loaded in its loop, too."""
    crowd, default = gather(), Default("x" * 200_000)
    leader = crowd.lead(default)
    callers = crowd.join(3, default, is_async=True)
    default.may_end.set()
    assert {len(value) for value in results([leader, *callers])} == {200_000}
    assert default.count == 1


@BOTH
def test_what_was_made_a_moment_ago_is_not_made_again(
    make: Make, server: RunningServer, is_async: bool
) -> None:
    """A caller that missed just before another stored its value looks again and makes none."""
    cache = Awaited(make()) if is_async else make()
    server.inject(Fault(method="GET", delay=0.3))
    calls: list[str] = []

    def late() -> Any:
        found.append(cache.get_or_set(KEY, lambda: calls.append("late") or "late"))

    found: list[Any] = []
    slow = threading.Thread(target=late)
    slow.start()
    until(lambda: "GET" in methods(server))
    assert make().get_or_set(KEY, lambda: calls.append("first") or "first") == "first"
    slow.join(LONGEST_WAIT)
    assert found == ["first"]
    assert calls == ["first"]


def test_a_default_is_called_by_who_asks(make: Make) -> None:
    """No default runs in another thread than its caller's: it may need the database connection."""
    cache = make()
    here = threading.get_ident()
    assert cache.get_or_set("a", threading.get_ident) == here

    async def ask() -> Any:
        return await cache.aget_or_set("b", threading.get_ident)

    assert asyncio.run(ask()) == here


@pytest.mark.parametrize("wait", [5.0, 0])
def test_it_costs_not_one_request_more(make: Make, server: RunningServer, wait: float) -> None:
    """A miss is GET, GET, PUT and a hit one GET, as without flights."""
    cache = make(SINGLE_FLIGHT_WAIT=wait)
    for default in (lambda: 1, 1):
        server.forget_requests()
        cache.delete_many([KEY])
        assert [cache.get_or_set(KEY, default) for _ in range(2)] == [1, 1]
        assert methods(server) == ["DELETE", "GET", "GET", "PUT", "GET"]


# What goes wrong elsewhere


@BOTH
def test_a_default_that_raises_makes_no_convoy(
    gather: Callable[..., Crowd], is_async: bool
) -> None:
    """The exception is its caller's alone; all who wait go on at once, each by itself."""
    crowd, failing = gather(), Default(error=ValueError("no"))
    leader = crowd.lead(failing, is_async=is_async)
    own = Default("own")
    callers = crowd.join(3, own) + crowd.join(3, own, is_async=True)
    failing.may_end.set()
    with pytest.raises(ValueError, match="no"):
        leader.result(LONGEST_WAIT)
    until(lambda: own.count == 6)  # all at the same time: none waits for another of them
    own.may_end.set()
    assert results(callers) == ["own"] * 6


def test_a_default_that_always_raises_costs_each_its_own_time(
    gather: Callable[..., Crowd],
) -> None:
    """Each caller gets its own exception, and none is an exception of another's."""
    crowd, default = gather(), Default(error=ValueError("no"))
    callers = [crowd.lead(default), *crowd.join(5, default)]
    default.may_end.set()
    for caller in callers:
        with pytest.raises(ValueError, match="no"):
            caller.result(LONGEST_WAIT)
    assert default.count == 6


def test_a_value_that_cannot_be_serialized_is_its_callers_trouble(
    gather: Callable[..., Crowd],
) -> None:
    """What the serializer raises, the others do not see: they make their own."""
    crowd, default = gather(), Default(lambda: 0)
    leader = crowd.lead(default)
    callers = crowd.join(2, lambda: "own")
    default.may_end.set()
    with pytest.raises((pickle.PicklingError, AttributeError)):
        leader.result(LONGEST_WAIT)
    assert results(callers) == ["own", "own"]


class Unreadable:
    """A serializer whose values can be written and never read."""

    def dumps(self, value: Any) -> bytes:
        """Pickle the value."""
        return pickle.dumps(value)

    def loads(self, data: bytes) -> Any:
        """Refuse."""
        raise ValueError("no")


def test_a_value_that_cannot_be_loaded_is_made_by_each(gather: Callable[..., Crowd]) -> None:
    """What comes from the maker and cannot be loaded is a miss, as from the service."""
    crowd, default = gather(SERIALIZER=f"{__name__}.Unreadable"), Default()
    leader = crowd.lead(default)
    callers = crowd.join(2, default) + crowd.join(1, default, is_async=True)
    default.may_end.set()
    assert results([leader, *callers]) == ["made"] * 4
    assert default.count == 4


def test_stop_iteration_comes_out_as_itself(make: Make) -> None:
    """A default may end with whatever it likes."""
    cache, empty = make(), iter(())
    with pytest.raises(StopIteration):
        cache.get_or_set(KEY, lambda: next(empty))
    assert cache.get_or_set(KEY, lambda: 1) == 1


def test_a_default_that_hangs_holds_nobody_up_for_long(gather: Callable[..., Crowd]) -> None:
    """After SINGLE_FLIGHT_WAIT each makes it itself, and who comes later waits for one of those."""
    crowd, hanging = gather(SINGLE_FLIGHT_WAIT=0.2), Default("late")
    leader = crowd.lead(hanging)
    began = time.monotonic()
    assert results(crowd.join(1, lambda: "own")) == ["own"]
    assert 0.2 <= time.monotonic() - began < LONGEST_WAIT / 2
    assert results([crowd.call(lambda: "another")]) == ["own"]
    hanging.may_end.set()
    assert leader.result(LONGEST_WAIT) == "own"  # it yields to what came in between


def test_with_no_wait_each_makes_its_own(gather: Callable[..., Crowd]) -> None:
    """SINGLE_FLIGHT_WAIT 0: nobody waits."""
    crowd, default = gather(SINGLE_FLIGHT_WAIT=0), Default()
    callers = [crowd.call(default) for _ in range(3)]
    until(lambda: default.count == 3)
    default.may_end.set()
    assert results(callers) == ["made"] * 3
    assert crowd.first.stats()["waited"] == 0


@BOTH
def test_a_default_that_reenters_makes_it_itself(make: Make, is_async: bool) -> None:
    """Who makes a value and asks for it inside does not wait for itself."""
    cache = make()
    calls: list[str] = []

    def inner() -> str:
        calls.append("inner")
        return "inner"

    def outer() -> Any:
        calls.append("outer")
        return cache.get_or_set(KEY, inner)

    began = time.monotonic()
    asked = Awaited(cache) if is_async else cache
    assert asked.get_or_set(KEY, outer) == "inner"
    assert calls == ["outer", "inner"]
    assert time.monotonic() - began < 4


def test_two_makers_do_not_wait_for_each_other(make: Make) -> None:
    """One needs what the other makes, and the other way round: neither waits."""
    cache = make()
    met = threading.Barrier(2, timeout=LONGEST_WAIT)

    def default(other: str) -> Callable[[], Any]:
        def make_it() -> Any:
            met.wait()
            return make().get_or_set(other, lambda: f"own {other}")

        return make_it

    crowd = Crowd(make)
    began = time.monotonic()
    found = results([crowd.call(default("b"), key="a"), crowd.call(default("a"), key="b")])
    crowd.close()
    assert set(found) <= {"own a", "own b"}
    assert time.monotonic() - began < 4
    assert cache.stats()["waited"] == 0


def test_a_maker_is_known_behind_sync_to_async(make: Make) -> None:
    """A default that goes through an event loop and back into a thread still does not wait."""
    cache = make()

    async def inside() -> Any:
        return await sync_to_async(cache.get_or_set, thread_sensitive=False)(KEY, lambda: "inner")

    began = time.monotonic()
    assert cache.get_or_set(KEY, lambda: asyncio.run(inside())) == "inner"
    assert time.monotonic() - began < 4


def test_a_sync_call_in_a_loops_thread_does_not_wait(gather: Callable[..., Crowd]) -> None:
    """It would block the loop, and with it the task that may be making the value."""
    crowd, default = gather(), Default()
    leader = crowd.lead(default)

    async def scene() -> Any:
        return crowd.first.get_or_set(KEY, lambda: "own")

    began = time.monotonic()
    assert asyncio.run(scene()) == "own"
    assert time.monotonic() - began < 4
    assert crowd.first.stats()["waited"] == 0
    default.may_end.set()
    assert leader.result(LONGEST_WAIT) == "own"


class Lazy:
    """A value that, like an unevaluated queryset, cannot be serialized in an event loop."""

    def __reduce__(self) -> Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return (str, ("the task's",))
        raise SynchronousOnlyOperation


def test_who_waits_in_the_one_thread_for_sync_code_is_let_go(gather: Callable[..., Crowd]) -> None:
    """A task needs that thread to serialize what queries the database: its waiter goes on."""
    crowd, began = gather(), threading.Event()

    def waiter() -> Any:
        assert began.wait(LONGEST_WAIT)
        return crowd.first.get_or_set(KEY, lambda: "own")

    def make_it() -> Lazy:
        began.set()
        until(lambda: crowd.waiting() == 1)
        return Lazy()

    async def scene() -> list[Any]:
        sync_code = asyncio.ensure_future(sync_to_async(waiter, thread_sensitive=True)())
        await asyncio.sleep(0)
        return await asyncio.gather(sync_code, crowd.first.aget_or_set(KEY, make_it))

    started = time.monotonic()
    assert asyncio.run(asyncio.wait_for(scene(), LONGEST_WAIT)) == ["own", "own"]
    assert time.monotonic() - started < 4


@pytest.mark.django_db
def test_nobody_waits_long_inside_a_transaction(gather: Callable[..., Crowd]) -> None:
    """Whoever makes the value may need what the waiter's transaction has locked."""
    crowd, hanging = gather(SINGLE_FLIGHT_WAIT=15.0), Default("late")
    leader = crowd.lead(hanging)
    assert connection.in_atomic_block  # pytest-django's
    began = time.monotonic()
    assert crowd.first.get_or_set(KEY, lambda: "own") == "own"
    assert 1.0 <= time.monotonic() - began < 10
    hanging.may_end.set()
    leader.result(LONGEST_WAIT)


def test_a_default_that_is_a_value_waits_for_nobody(gather: Callable[..., Crowd]) -> None:
    """There is nothing to save."""
    crowd, hanging = gather(), Default("late")
    leader = crowd.lead(hanging)
    assert crowd.first.get_or_set(KEY, "given") == "given"
    hanging.may_end.set()
    assert leader.result(LONGEST_WAIT) == "given"
    assert crowd.first.stats()["waited"] == 0


@pytest.mark.parametrize(
    "status", [500, 403, 429, 400], ids=["outage", "forbidden", "rate limited", "refused"]
)
@BOTH
def test_what_cannot_be_stored_is_shared_all_the_same(
    gather: Callable[..., Crowd], server: RunningServer, status: int, is_async: bool
) -> None:
    """Nobody makes again what could not be stored."""
    crowd, default = gather(), Default()
    server.inject(Fault(method="PUT", status=status, times=None))
    leader = crowd.lead(default, is_async=is_async)
    callers = crowd.join(3, default) + crowd.join(3, default, is_async=True)
    default.may_end.set()
    assert results([leader, *callers]) == ["made"] * 7
    assert default.count == 1


def test_what_is_too_large_to_be_stored_is_shared(gather: Callable[..., Crowd]) -> None:
    """5 MB and more are made once for all who wait."""
    crowd, default = gather(COMPRESSOR=None), Default(b"x" * 6_000_000)
    leader = crowd.lead(default)
    callers = crowd.join(3, default)
    default.may_end.set()
    assert {len(value) for value in results([leader, *callers])} == {6_000_000}
    assert default.count == 1


def test_in_an_outage_one_makes_it_for_all_who_wait(
    gather: Callable[..., Crowd], server: RunningServer
) -> None:
    """While the service cannot be asked, the crowd still makes one value, and stores nothing."""
    crowd, default = gather(), Default()
    server.inject(Fault(status=500, times=None))
    leader = crowd.lead(default)
    callers = crowd.join(4, default)
    server.forget_requests()
    default.may_end.set()
    assert results([leader, *callers]) == ["made"] * 5
    assert default.count == 1
    assert methods(server) == []


def test_a_store_that_fails_raises_in_each(
    gather: Callable[..., Crowd], server: RunningServer
) -> None:
    """With ON_ERROR "raise" all who wait learn that nothing was stored, each by its own error."""
    crowd, default = gather(ON_ERROR="raise"), Default()
    server.inject(Fault(method="PUT", status=403, times=None))
    leader = crowd.lead(default)
    callers = crowd.join(2, default) + crowd.join(2, default, is_async=True)
    default.may_end.set()
    errors = [caller.exception(LONGEST_WAIT) for caller in [leader, *callers]]
    assert {type(error) for error in errors} == {AccessDenied}
    assert len({id(error) for error in errors}) == 5
    assert len({str(error) for error in errors}) == 1
    assert default.count == 1


@BOTH
def test_one_takes_over_from_a_cancelled_leader(
    gather: Callable[..., Crowd], server: RunningServer, is_async: bool
) -> None:
    """A task that is cancelled while it stores leaves the value, and the storing, to the others."""
    crowd = gather()
    calls: list[str] = []
    callers: list[Any] = []

    def make_it() -> str:
        calls.append("leader")
        callers.extend(crowd.join(3, lambda: calls.append("own"), is_async=is_async))
        server.inject(Fault(method="PUT", delay=0.5))
        return "made"

    async def leader() -> None:
        task = asyncio.ensure_future(crowd.first.aget_or_set(KEY, make_it))
        await eventually(lambda: "PUT" in methods(server))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(leader(), LONGEST_WAIT))
    assert results(callers) == ["made"] * 3
    assert calls == ["leader"]
    assert crowd.first.get(KEY) == "made"


class Killed(BaseException):
    """What ends a worker or a greenlet."""


def test_one_takes_over_from_a_killed_leader(gather: Callable[..., Crowd]) -> None:
    """Who is ended inside its default leaves it to one of those who wait; the others wait on."""
    crowd, killed = gather(), Default(error=Killed())
    leader = crowd.lead(killed)
    own = Default("own")
    callers = crowd.join(3, own) + crowd.join(2, own, is_async=True)
    killed.may_end.set()
    assert own.began.wait(LONGEST_WAIT)
    until(lambda: crowd.waiting() == 4)
    own.may_end.set()
    assert isinstance(leader.exception(LONGEST_WAIT), Killed)
    assert results(callers) == ["own"] * 5
    assert own.count == 1


def test_a_job_runners_time_limit_is_the_leaders_own(gather: Callable[..., Crowd]) -> None:
    """A limit that strikes in a default comes out as it is, and one of those who wait goes on."""
    crowd = gather()
    own = Default("own")
    callers: list[Any] = []

    def strike() -> None:
        callers.extend(crowd.join(3, own))
        signal.raise_signal(signal.SIGUSR1)

    with interrupts() as handler:
        with pytest.raises(TimeIsUp) as found:
            crowd.first.get_or_set(KEY, strike)
        assert handler.judged(found.value) is not None
        found.value.__traceback__ = None
    assert own.began.wait(LONGEST_WAIT)
    until(lambda: crowd.waiting() == 2)
    own.may_end.set()
    assert results(callers) == ["own"] * 3
    assert own.count == 1


def test_an_interrupted_call_leaves_no_flight(make: Make, server: RunningServer) -> None:
    """Wherever an interrupt strikes a miss, the next caller makes the value at once."""
    cache = make()
    cache.get(KEY)

    for error in at_every_place(lambda: cache.get_or_set(KEY, lambda: "made")):
        del error
        gc.collect(0)
        server.discard(CACHE, WIRE)
        began = time.monotonic()
        assert cache.get_or_set(KEY, lambda: "made") == "made"
        assert time.monotonic() - began < 4
        assert cache.stats()["waited"] == 0
        server.discard(CACHE, WIRE)


# What is out of date


WRITES: dict[str, Callable[[Any], object]] = {
    "set": lambda cache: cache.set(KEY, "newer"),
    "set_many": lambda cache: cache.set_many({KEY: "newer"}),
    "delete": lambda cache: cache.delete(KEY),
    "delete_many": lambda cache: cache.delete_many([KEY]),
    "timeout 0": lambda cache: cache.set(KEY, "gone", 0),
    "clear": lambda cache: cache.clear(),
    "incr_version": lambda cache: (
        cache.set(KEY, "newer", version=5),
        cache.incr_version(KEY, -4, version=5),
    ),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("through", ["own alias", "another alias"])
def test_a_write_of_the_key_wins_over_what_was_made_before(
    gather: Callable[..., Crowd], make: Make, write: str, is_async: bool, through: str
) -> None:
    """What a flight made before the write is given to its callers, and not stored."""
    crowd, default = gather(CLEAR_MAX_AGE=10), Default("older")
    other = make(CLEAR_MAX_AGE=10, **({} if through == "own alias" else {"MAX_TTL": 5000}))
    callers = [crowd.lead(default), *crowd.join(1, default)]
    WRITES[write](Awaited(other) if is_async else other)
    default.may_end.set()
    assert results(callers) == ["older"] * 2
    is_there = write in ("set", "set_many", "incr_version")
    assert crowd.first.get(KEY) == ("newer" if is_there else None)


@pytest.mark.parametrize("write", ["set", "delete", "clear"])
def test_a_write_of_the_default_itself_counts_as_any(make: Make, write: str) -> None:
    """Its caller is given what it returns, and what it wrote stands."""
    cache = make(CLEAR_MAX_AGE=10)
    calls: list[str] = []

    def default() -> str:
        calls.append(write)
        WRITES[write](cache)
        return "made"

    assert cache.get_or_set(KEY, default) == "made"
    assert cache.get(KEY) == ("newer" if write == "set" else None)
    assert calls == [write]


def test_a_write_of_another_key_changes_nothing(gather: Callable[..., Crowd]) -> None:
    """Flights are marked exactly, not by hash."""
    crowd, default = gather(), Default()
    leader = crowd.lead(default)
    crowd.first.set_many({f"other-{number}": 1 for number in range(5000)})
    default.may_end.set()
    assert leader.result(LONGEST_WAIT) == "made"
    assert crowd.first.get(KEY) == "made"


@pytest.mark.parametrize("write", ["delete", "delete_many", "clear", "timeout 0"])
def test_who_asks_after_a_write_is_given_nothing_older(
    gather: Callable[..., Crowd], write: str
) -> None:
    """A caller that comes after it does not wait for a value from before it."""
    crowd, old = gather(CLEAR_MAX_AGE=10), Default("older")
    leader = crowd.lead(old)
    WRITES[write](crowd.first)
    assert crowd.first.get_or_set(KEY, lambda: "newer") == "newer"
    old.may_end.set()
    assert leader.result(LONGEST_WAIT) == "older"
    assert crowd.first.get(KEY) == "newer"


@pytest.mark.parametrize("write", ["set", "delete", "clear"])
@pytest.mark.parametrize("when", ["before it is sent", "on its way"])
def test_a_write_while_it_is_being_stored_wins(
    make: Make, server: RunningServer, write: str, when: str
) -> None:
    """A write that comes after the last look is not overtaken by the older value."""
    cache, other = make(CLEAR_MAX_AGE=10), make(CLEAR_MAX_AGE=10)
    making = cache._store.making
    judge, send = making._other, making._writer.write

    def judge_late(*arguments: Any) -> Any:
        WRITES[write](other)
        return judge(*arguments)

    async def send_late(*arguments: Any, **options: Any) -> Any:
        WRITES[write](other)  # begins and ends while the older value is on its way
        return await send(*arguments, **options)

    server.forget_requests()
    with pytest.MonkeyPatch.context() as patch:
        if when == "before it is sent":
            patch.setattr(making, "_other", judge_late)
        else:
            patch.setattr(making._writer, "write", send_late)
        assert cache.get_or_set(KEY, lambda: "older") == "older"
    if when == "before it is sent":
        assert cache.get(KEY) == ("newer" if write == "set" else None)
        assert [request.key for request in server.requests if request.method == "PUT"].count(
            WIRE
        ) == (write == "set")
    else:
        assert cache.get(KEY) is None


@pytest.mark.parametrize("write", ["set", "set_many"])
def test_a_write_that_had_begun_before_wins(make: Make, write: str) -> None:
    """What is made while the key is being set, and stored a moment later, does not replace it."""
    one, two = make(), make(MAX_TTL=5000)
    writer: list[threading.Thread] = []

    def begin(go_on: Callable[[], object]) -> None:
        # The set is under way, and is carried out when the maker is about to store.
        writer.append(threading.Thread(target=go_on))

    with held_up(one, begin), ThreadPoolExecutor(1) as pool:
        setter = pool.submit(WRITES[write], one)
        until(lambda: bool(writer))
        with before_storing(two, lambda: (writer[0].start(), setter.result(LONGEST_WAIT))):
            assert two.get_or_set(KEY, lambda: "default") == "default"
    assert one.get(KEY) in ("newer", None)


@pytest.mark.parametrize("default", [lambda: "default", "default"], ids=["made", "given"])
@pytest.mark.parametrize("write", ["set", "set_many"])
def test_a_write_whose_answer_comes_late_wins(
    make: Make, server: RunningServer, write: str, default: Any
) -> None:
    """Also where the value was made and stored between the set and its answer."""
    one, two = make(), make(MAX_TTL=5000)
    server.inject(Fault(method="PUT", delay=0.5))
    with ThreadPoolExecutor(1) as pool:
        setter = pool.submit(WRITES[write], one)
        until(lambda: "PUT" in methods(server))
        server.discard(CACHE, WIRE)  # as if the other had looked a moment earlier
        assert two.get_or_set(KEY, default) == "default"
        setter.result(LONGEST_WAIT)
    assert one.get(KEY) == "newer"


def test_what_a_cancelled_leader_still_stores_brings_nothing_back(make: Make) -> None:
    """Another has gone on with it, and the key was deleted, before its request was sent."""
    cache, may_go_on, is_there = make(), threading.Event(), threading.Event()

    def hold() -> None:
        is_there.set()
        assert may_go_on.wait(LONGEST_WAIT)

    async def main() -> None:
        leader = asyncio.ensure_future(cache.aget_or_set(KEY, lambda: "older"))
        await eventually(is_there.is_set)
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        assert await sync_to_async(cache.get_or_set)(KEY, lambda: "own") == "own"
        assert await sync_to_async(cache.delete)(KEY)
        before = cache.stats()["requests"]
        may_go_on.set()
        await eventually(lambda: cache.stats()["requests"] >= before + 3)  # PUT, GET, DELETE
        assert cache.get(KEY) is None

    with before_storing(cache, hold):
        asyncio.run(asyncio.wait_for(main(), LONGEST_WAIT))


def test_what_cannot_be_taken_back_is_owed(make: Make, server: RunningServer) -> None:
    """A value that overtook a newer one is served to nobody, though it could not be looked at."""
    one, two = make(), make(MAX_TTL=5000)

    def overtaken() -> None:
        one.set(KEY, "newer")
        server.inject(Fault(method="GET", status=500, times=2))

    with before_storing(two, overtaken):
        assert two.get_or_set(KEY, lambda: "older") == "older"
    server.clear_faults()
    assert one.get(KEY) in ("newer", None)
    assert two.get(KEY) in ("newer", None)


@pytest.mark.parametrize("on_error", ["miss", "raise"])
def test_what_was_stored_without_an_answer_is_taken_back(
    make: Make, server: RunningServer, on_error: str
) -> None:
    """Whether its caller is told or not: a value that overtook a newer one goes."""
    one, two = make(), make(MAX_TTL=5000, ON_ERROR=on_error)

    def overtaken() -> None:
        one.set(KEY, "newer")
        server.inject(Fault(method="PUT", drop="after", times=3))

    with before_storing(two, overtaken), suppress(MomentoError):
        two.get_or_set(KEY, lambda: "older")
    server.clear_faults()
    assert one.get(KEY) in ("newer", None)


@BOTH
@pytest.mark.parametrize("timeout", [0, -5])
def test_what_is_not_to_live_is_not_stored(
    make: Make, server: RunningServer, is_async: bool, timeout: int
) -> None:
    """A timeout of 0 or less removes nothing that another process stores meanwhile."""
    cache = make()
    cache.set(KEY, "theirs")
    theirs = stored(server)
    server.discard(CACHE, WIRE)
    asked = Awaited(cache) if is_async else cache

    def default() -> str:
        server.put(CACHE, WIRE, theirs or b"")
        return "made"

    assert asked.get_or_set(KEY, default, timeout) == "made"
    assert stored(server) == theirs


@contextmanager
def held_up(cache: Any, begin: Callable[[Callable[[], object]], None]) -> Iterator[None]:
    """Hold up the next write where it is about to be sent; ``begin`` is given what lets it go."""
    gateway, may_go_on = cache._store._gateway, threading.Event()
    one, all_ = gateway.one, gateway.all

    def hold() -> None:
        begin(may_go_on.set)
        assert may_go_on.wait(LONGEST_WAIT)

    async def held_all(*arguments: Any) -> Any:
        hold()
        return await all_(*arguments)

    gateway.one = lambda operation: (hold(), one(operation))[1]
    gateway.all = held_all
    try:
        yield
    finally:
        del gateway.one, gateway.all


@contextmanager
def before_storing(cache: Any, act: Callable[[], object]) -> Iterator[None]:
    """Act once, when what get_or_set made is about to be sent."""
    values, acts = cache._store._values, [act]
    written = values.written

    def acting(*arguments: Any) -> Any:
        if acts:
            acts.pop()()
        return written(*arguments)

    values.written = acting
    try:
        yield
    finally:
        del values.written


def test_a_write_after_it_was_given_up_is_seen_by_all_makers(
    gather: Callable[..., Crowd],
) -> None:
    """Those who make it themselves, having waited in vain, store nothing older either."""
    crowd, hanging, own = gather(SINGLE_FLIGHT_WAIT=0.05), Default("late"), Default("own")
    leader = crowd.lead(hanging)
    callers = [crowd.call(own) for _ in range(2)]
    until(lambda: own.count == 2)
    crowd.first.set(KEY, "newer")
    own.may_end.set()
    hanging.may_end.set()
    assert results([leader, *callers]) == ["late", "own", "own"]
    assert crowd.first.get(KEY) == "newer"


def test_another_alias_makes_its_own(gather: Callable[..., Crowd], make: Make) -> None:
    """What one alias serializes, another may not be able to load."""
    crowd, default = gather(), Default(("a", "tuple"))
    leader = crowd.lead(default)
    assert make(SERIALIZER="json").get_or_set(KEY, lambda: ["a", "list"]) == ["a", "list"]
    default.may_end.set()
    leader.result(LONGEST_WAIT)


# Forks


def _child(cache: Any, found: Any) -> None:
    began = time.monotonic()
    found.put((cache.get_or_set(KEY, lambda: "the child's"), time.monotonic() - began))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("by", ["the maker", "another thread"])
def test_a_fork_during_a_flight_starts_with_none(
    gather: Callable[..., Crowd], make: Make, by: str
) -> None:
    """A child waits for nobody who is not there, whoever forked."""
    context = multiprocessing.get_context("fork")
    found = context.SimpleQueue()

    def fork() -> str:
        child = context.Process(target=_child, args=(make(), found))
        child.start()
        child.join(LONGEST_WAIT)
        assert child.exitcode == 0
        return "the parent's"

    crowd, default = gather(), Default("the parent's")
    if by == "the maker":
        assert crowd.first.get_or_set(KEY, fork) == "the child's"  # which was stored meanwhile
    else:
        leader = crowd.lead(default)
        fork()
        default.may_end.set()
        leader.result(LONGEST_WAIT)
    value, seconds = found.get()
    assert value == "the child's"
    assert seconds < 4


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_that_goes_on_with_a_default_sends_nothing(
    make: Make, server: RunningServer
) -> None:
    """A default that forks returns twice: the child has its value, and the parent its sockets."""
    cache, pids, found = make(), [], None

    def fork() -> str:
        pids.append(os.fork())
        return "made"

    try:
        found = cache.get_or_set(KEY, fork)
    finally:
        if pids == [0]:
            os._exit(0 if found == "made" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 0
    assert found == cache.get(KEY) == "made"
    assert methods(server) == ["GET", "GET", "PUT", "GET"]


# Errors of looks


def test_a_failed_look_raises_before_anything_is_made(make: Make, server: RunningServer) -> None:
    """With ON_ERROR "raise" nobody makes a value of which nothing can be said."""
    cache = make(ON_ERROR="raise")
    server.inject(Fault(status=500, times=None))
    calls: list[int] = []
    with pytest.raises(MomentoError):
        cache.get_or_set(KEY, lambda: calls.append(1))
    assert calls == []
