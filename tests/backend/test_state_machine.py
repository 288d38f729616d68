"""Any sequence of operations, faults, lapses of time and spoilt values, against a model.

Two processes work on one namespace, on hosts whose clocks may differ by most of a minute; one of
them has two aliases of it. While nothing is wrong the cache equals the model. In trouble the model
holds, for each key, every state that it may be in: what the cache then returns is the default or a
value of one of those, and an operation that reports success leaves just one of them. With copies,
a process may be told for a while what it was told before, unless it has written the key since.

A failure prints the code that repeats it.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from django_momento_http._store.debts import Ledger
from django_momento_http._store.namespace import Namespace
from django_momento_http._store.store import Store, forget_endpoint
from django_momento_http.cache import MomentoCache
from django_momento_http.exceptions import MomentoError
from django_momento_http.testing import Fault, RunningServer, running_server
from tests.support.between import between_read_and_write
from tests.support.markers import marker_key
from tests.support.sizes import sized
from tests.support.state_model import (
    ABSENT,
    SPOILT,
    Cell,
    Frozen,
    Model,
    Place,
    Process,
    State,
    is_state_of,
)

# Long enough for a busy machine, as what fails without a fault is taken for a mistake.
DEADLINE = 0.8
# The wall clock of the store starts here and moves with the server's.
EPOCH = 1.9e9
# Sums of the steps by which time moves keep ten seconds' distance from every timeout.
STEPS = (30, 300)
TIMEOUTS = (100, 1000, None)
MAX_TTL = 86400
# Seconds for which copies answer, and beyond that in an outage: as far from the steps.
NEAR_AGE, NEAR_STALE = 50, 80
# So much later than it should a busy machine may look.
SLACK = 5
# Of the rounds in which each alias makes a call; a payment goes beside each.
PAYMENTS = 100

_COMMON: dict[str, Any] = {
    "deadline": None,
    "print_blob": True,
    "suppress_health_check": list(HealthCheck),
}
SETTINGS = settings(max_examples=sized(60, 500), stateful_step_count=sized(30, 50), **_COMMON)


MARKER = marker_key()
FAULTS = {
    "500": Fault(status=500),
    "500 for a while": Fault(status=500, times=6),
    "an outage": Fault(status=503, times=None),
    "an outage though done": Fault(status=503, applied=True, times=20),
    "503 though done": Fault(status=503, applied=True, times=2),
    "400": Fault(status=400),
    "401": Fault(status=401),
    "403": Fault(status=403, times=2),
    "429": Fault(status=429, times=3),
    "dropped before": Fault(drop="before", times=2),
    "dropped after": Fault(drop="after", times=2),
    "dropped in the headers": Fault(drop="headers"),
    "dropped in the body": Fault(drop="body", times=2),
    "late": Fault(delay=2 * DEADLINE),
    "a proxy's page": Fault(status=404, body=b"<h1>no</h1>"),
    "the marker fails": Fault(status=500, key=MARKER, times=6),
    "the marker is late": Fault(delay=2 * DEADLINE, key=MARKER),
    "encoded": Fault(headers=(("Content-Encoding", "br"),)),
}
# What is answered so is refused for good.
FINAL = (400, 403)
# The aliases: two of one process, which differ in an option, and one of another process.
ALIASES = {"a": "A", "another a": "A", "b": "B"}
# By how much the second host's clock may be off; no timeout ends near what this makes of a step.
SKEWS = (0, 0, -45, 45)

names = st.sampled_from("ab")
versions = st.sampled_from((1, 2))
places = st.tuples(names, versions)
timeouts = st.sampled_from(TIMEOUTS)
aliases = st.sampled_from(("a", "another a", "b", "b"))
values = st.one_of(
    st.integers(-5, 5),
    st.sampled_from(("text", None, b"bytes", ["list", 1], 1.5, "long " * 400)),
)


class CacheMachine(RuleBasedStateMachine):
    """A cache beside its model."""

    @initialize(
        mode=st.sampled_from(("miss", "raise")),
        is_async=st.booleans(),
        max_age=st.sampled_from((0, 10, 10, None)),
        is_warm=st.booleans(),
        skew=st.sampled_from(SKEWS),
        is_near=st.booleans(),
    )
    def begin(
        self,
        mode: str,
        is_async: bool,
        max_age: float | None,
        is_warm: bool,
        skew: float,
        is_near: bool,
    ) -> None:
        """Start a server and backends that have nothing from before."""
        self.context = running_server()
        self.server: RunningServer = self.context.__enter__()
        self.raises = mode == "raise"
        self.is_async = is_async
        self.max_age = max_age
        self.is_near = is_near
        self.jumps = {"A": 0.0, "B": 0.0}
        near = {"NEAR_MAX_AGE": NEAR_AGE * is_near, "NEAR_MAX_STALE": NEAR_STALE}
        self.caches = build(self.server, mode, max_age, skew, self.jumps, **near)
        places = [(name, version) for name in "ab" for version in (1, 2, 3)]
        self.model = Model(places, [Process("A", 0.0), Process("B", skew)])
        self.in_trouble = False
        self.looks = 0
        for cache in self.caches.values() if is_warm else ():
            cache.get("warm")

    def teardown(self) -> None:
        """Leave nothing behind."""
        if hasattr(self, "server"):
            forget_endpoint(self.server.endpoint)
            self.context.__exit__(None, None, None)

    # The world

    @rule(seconds=st.sampled_from(STEPS))
    def time_passes(self, seconds: int) -> None:
        """Let time pass for the server, the stored values and the marker."""
        self.server.advance(seconds)

    @rule(
        name=st.sampled_from(sorted(FAULTS)), method=st.sampled_from((None, "GET", "PUT", "DELETE"))
    )
    def something_breaks(self, name: str, method: str | None) -> None:
        """Let requests misbehave from now on."""
        fault = replace(FAULTS[name], method=method)
        self.server.inject(fault)
        self.in_trouble = True
        if fault.status in FINAL:
            self.model.refuse()

    @precondition(lambda self: self.in_trouble)
    @rule()
    def all_is_well_again(self) -> None:
        """End the trouble, and let everybody notice: breakers, markers, and who owes."""
        self.server.clear_faults()
        for _ in range(PAYMENTS):
            self.server.advance(STEPS[0])
            for cache in self.caches.values():
                with suppress(MomentoError):  # a probe may have been another request's
                    cache.get("warm")
            if not any(cache._shared._namespace.owed.queues for cache in self.caches.values()):
                break
        else:
            pytest.fail("what was owed is not paid")
        self.in_trouble = False
        self.model.all_is_paid(self.now())

    @rule(chosen=st.integers(0, 5), other=st.integers(-1, 5))
    def a_value_is_spoilt(self, chosen: int, other: int) -> None:
        """Put foreign bytes, or another key's value, where one of ours was."""
        raw = self.server.items
        there = sorted(self.model.places)
        stored = [place for place in there if ("default-cache", wire(place)) in raw]
        if not stored:
            return
        place = stored[chosen % len(stored)]
        # Bytes that were put where they do not belong must not be put back.
        sound = [None, *(each for each in stored if SPOILT not in self.model.places[each])]
        source = sound[(other + 1) % len(sound)]
        if source == place:
            return
        data = b"foreign" if source is None else raw["default-cache", wire(source)]
        self.server.put("default-cache", wire(place), data, 1000)
        self.model.places[place] = {SPOILT}

    # Operations

    @rule(alias=aliases, place=places)
    def get(self, alias: str, place: Place) -> None:
        """Return a value that may be there, or the default."""
        found = self.call(alias, "get", place[0], "default", version=place[1])
        self.judge(place, found, "default")

    @rule(alias=aliases, keys=st.lists(names, max_size=3, unique=True), version=versions)
    def get_many(self, alias: str, keys: list[str], version: int) -> None:
        """Return values that may be there."""
        found = self.call(alias, "get_many", iter(keys), version=version)
        if isinstance(found, MomentoError):
            assert any(self.may_fail((key, version)) for key in keys)
            return
        assert set(found) <= set(keys)
        for key in keys:
            self.judge((key, version), found.get(key, "default"), "default")

    @rule(alias=aliases, place=places, value=values, timeout=timeouts)
    def set_one(self, alias: str, place: Place, value: Any, timeout: int | None) -> None:
        """Leave the value."""
        result = self.call(alias, "set", place[0], value, timeout, version=place[1])
        assert result is None or isinstance(result, MomentoError)
        # In "miss" mode nothing says whether it was stored.
        is_certain = result is None and (self.raises or not self.in_trouble)
        self.write(place, self.states(value, timeout), certain=is_certain)
        self.renew(place, self.states(value, timeout))

    @rule(
        alias=aliases,
        data=st.dictionaries(names, values, max_size=3),
        version=versions,
        timeout=timeouts,
    )
    def set_many(self, alias: str, data: dict[str, Any], version: int, timeout: int | None) -> None:
        """Leave the values of all keys that are not returned."""
        failed = self.call(alias, "set_many", data, timeout, version=version)
        is_error = isinstance(failed, MomentoError)
        assert self.in_trouble or failed == []
        for key, value in data.items():
            certain = not is_error and key not in failed
            self.write((key, version), self.states(value, timeout), certain=certain)
            self.renew((key, version), self.states(value, timeout))

    @rule(alias=aliases, place=places, value=values, timeout=timeouts)
    def add(self, alias: str, place: Place, value: Any, timeout: int | None) -> None:
        """Store only where nothing is, and say whether that was done."""
        added = self.call(alias, "add", place[0], value, timeout, version=place[1])
        before = self.before(place)
        new = self.states(value, timeout)
        if added is True:
            assert self.in_trouble or self.may_be_absent(before)
            self.write(place, new, certain=True)
            self.renew(place, new)
        elif added is False and not self.in_trouble:
            assert self.may_be_present(before)
        else:
            assert self.may_fail(place) or added is False
            certain = not self.in_trouble and before == {ABSENT}
            self.write(place, new, certain=certain, owes=False)

    @rule(alias=aliases, place=places, timeout=timeouts)
    def touch(self, alias: str, place: Place, timeout: int | None) -> None:
        """Renew the timeout where there is a value."""
        touched = self.call(alias, "touch", place[0], timeout, version=place[1])
        before = self.before(place)
        self.judge_touch(place, touched, before, self.touched(before, timeout))

    def judge_touch(self, place: Place, result: Any, before: set[Cell], new: set[Cell]) -> None:
        """Check what touch() says, and take it in."""
        if result is True:
            assert new
            self.model.write(place, new)
            self.renew(place)
        elif result is False and not self.in_trouble:
            assert self.may_be_absent(before)
        else:
            assert self.may_fail(place) or result is False
            self.write(place, new, certain=False, owes=False)

    @rule(alias=aliases, place=places)
    def delete(self, alias: str, place: Place) -> None:
        """Remove the value and say whether there was one."""
        deleted = self.call(alias, "delete", place[0], version=place[1])
        before = self.before(place)
        self.renew(place)
        if deleted is True:
            assert self.may_be_present(before)
            self.model.write(place, {ABSENT})
        elif deleted is False and (self.raises or not self.in_trouble):
            assert self.in_trouble or self.may_be_absent(before)
            # Whatever was there must never be seen again.
            self.model.write(place, {SPOILT} if before == {SPOILT} else {ABSENT})
        else:
            assert self.may_fail(place) or deleted is False
            self.write(place, {ABSENT}, certain=False)

    @rule(alias=aliases, keys=st.lists(names, max_size=3, unique=True), version=versions)
    def delete_many(self, alias: str, keys: list[str], version: int) -> None:
        """Remove the values."""
        result = self.call(alias, "delete_many", iter(keys), version=version)
        certain = result is None and (self.raises or not self.in_trouble)
        for key in keys:
            self.write((key, version), {ABSENT}, certain=certain)
            self.renew((key, version))

    @rule(alias=aliases, place=places)
    def has_key(self, alias: str, place: Place) -> None:
        """Say whether there is a value."""
        found = self.call(alias, "has_key", place[0], version=place[1])
        before = self.before(place)
        if found is True:
            assert self.may_be_present(before) or self.recalled(place)
            self.process.keep(place, set(self.visible(before)), self.now())
        elif found is False:
            assert self.in_trouble or self.may_be_absent(before)
        else:
            assert self.may_fail(place)

    @rule(alias=aliases, place=places)
    def ttl(self, alias: str, place: Place) -> None:
        """Return the seconds that are left, by the clock of whoever asks."""
        left = self.call(alias, "ttl", place[0], version=place[1])
        before = self.before(place)
        if isinstance(left, MomentoError):
            assert self.may_fail(place)
        elif left == 0:
            assert self.in_trouble or self.may_be_absent(before)
        else:
            now = self.now() + self.process.skew
            may_be = self.visible(before) | self.recalled(place)
            assert any(abs(left - (state.sealed - now)) < 10 for state in may_be)

    @rule(alias=aliases, place=places, delta=st.integers(-3, 3))
    def incr(self, alias: str, place: Place, delta: int) -> None:
        """Add to a number."""
        result = self.call(alias, "incr", place[0], delta, version=place[1])
        before = self.before(place)
        self.judge_incr(place, result, before, self.raised(before, delta))

    def judge_incr(self, place: Place, result: Any, before: set[Cell], new: set[Cell]) -> None:
        """Check what incr() returns, and take it in."""
        if isinstance(result, TypeError):
            assert any(not is_number(state.value) for state in self.visible(before))
        elif isinstance(result, (ValueError, MomentoError)):
            is_excused = self.in_trouble or self.may_fail(place)
            assert is_excused or self.may_be_absent(before)
            if self.in_trouble:
                self.write(place, new, certain=False, owes=False)
        else:
            seen = {cell for cell in new if isinstance(cell, State) and cell.value == result}
            assert seen
            self.model.write(place, seen)
            self.renew(place)

    @rule(alias=aliases, name=names, version=versions)
    def incr_version(self, alias: str, name: str, version: int) -> None:
        """Move a value to the next version."""
        result = self.call(alias, "incr_version", name, version=version)
        before = self.before((name, version))
        self.judge_move((name, version), result, before, self.moved(before))

    def judge_move(self, old: Place, result: Any, before: set[Cell], moved: set[Cell]) -> None:
        """Check what incr_version() returns, and take it in."""
        new = (old[0], old[1] + 1)
        if result == new[1]:
            assert moved
            self.model.write(new, moved)
            self.renew(new)
            self.renew(old)
            self.write(old, {ABSENT}, certain=self.raises or not self.in_trouble)
        elif not self.in_trouble:
            assert isinstance(result, (ValueError, MomentoError))
            assert self.may_be_absent(before)
        else:
            assert isinstance(result, (ValueError, MomentoError))
            # Refused (400), what stood at the new version is gone.
            self.write(new, moved, certain=False, owes=False)
            self.write(old, {ABSENT}, certain=False, owes=False)

    @rule(alias=aliases, place=places, value=values, timeout=timeouts)
    def get_or_set(self, alias: str, place: Place, value: Any, timeout: int | None) -> None:
        """Return what is there, or else the default, which is then stored."""
        calls = []
        default = lambda: calls.append(1) or value  # noqa: E731
        made = self.call(alias, "get_or_set", place[0], default, timeout, version=place[1])
        before = self.before(place)
        new = self.states(value, timeout)
        assert len(calls) <= 1
        if isinstance(made, MomentoError):
            assert self.may_fail(place)
            self.write(place, new, certain=False, owes=False)
        elif not calls:
            self.judge(place, made, object())
        elif not self.in_trouble:
            assert made == value
            assert self.may_be_absent(before)
            self.model.write(place, new)
            self.renew(place, new)
        else:
            # The look before the write may have found one after all.
            assert made == value or any(is_state_of(cell, made) for cell in before)
            self.write(place, new, certain=False, owes=False)
            self.process.keep(place, new, self.now())

    # Copies

    @precondition(lambda self: not self.in_trouble)
    @rule(alias=aliases, place=places, seconds=st.sampled_from((-3600, 3600)))
    def look_while_a_clock_is_set(self, alias: str, place: Place, seconds: float) -> None:
        """No copy answers while the wall clock says something else than the monotonic one."""
        self.arrive(alias)
        self.jumps[ALIASES[alias]] = seconds
        try:
            cache, (name, version) = self.caches[alias], place
            found = self.call_now("get", cache, name, "default", version=version)
        finally:
            self.jumps[ALIASES[alias]] = 0.0
        if found != "default" and not isinstance(found, MomentoError):
            # A value more than a minute past its expiry is a miss.
            assert any(is_state_of(cell, found) for cell in self.visible(self.before(place)))

    @precondition(lambda self: not self.in_trouble)
    @rule(
        alias=aliases,
        other=aliases,
        place=places,
        value=values,
        another=values,
        name=st.sampled_from(("get", "get_many", "set", "set_many")),
    )
    def two_at_once(
        self, alias: str, other: str, place: Place, value: Any, another: Any, name: str
    ) -> None:
        """Write a value while another thread or task reads or writes the same key."""
        if ALIASES[alias] != ALIASES[other] and not name.startswith("get"):
            return  # two processes: what each must know of the other's clear() would be a maze
        if SPOILT in self.before(place):
            return  # a read may fail
        self.arrive(other)
        self.arrive(alias)
        before, new = self.before(place), self.states(value, 100)
        arguments: dict[str, Any] = {
            "get": (place[0], "default"),
            "get_many": ([place[0]],),
            "set": (place[0], another, 100),
            "set_many": ({place[0]: another}, 100),
        }
        writing = ("set", self.caches[alias], (place[0], value, 100), place[1])
        beside = (name, self.caches[other], arguments[name], place[1])
        self.at_once(writing, beside)
        if not name.startswith("get"):
            new |= self.states(another, 100)
        self.model.write(place, new)
        self.renew(place, new)
        if ALIASES[other] != ALIASES[alias]:
            process = self.model.processes[ALIASES[other]]
            process.keep(place, before | new, self.now())

    def at_once(self, *calls: tuple[str, Any, tuple[Any, ...], int]) -> None:
        """Make calls at the same time, which must all succeed."""
        if self.is_async:

            async def gather() -> None:
                await asyncio.gather(
                    *(
                        getattr(cache, f"a{name}")(*arguments, version=version)
                        for name, cache, arguments, version in calls
                    )
                )

            asyncio.run(gather())
            return
        with ThreadPoolExecutor(len(calls)) as threads:
            futures = [
                threads.submit(getattr(cache, name), *arguments, version=version)
                for name, cache, arguments, version in calls
            ]
            for future in futures:
                future.result(30)

    def renew(self, place: Place, new: set[Cell] = frozenset()) -> None:  # type: ignore[assignment]
        """Take in that the caller's process has written a place: no copy of before answers."""
        self.process.copies.pop(place, None)
        self.process.keep(place, new, self.now())

    def recalled(self, place: Place) -> set[State]:
        """Return what a copy may answer for a place."""
        is_bridged = self.in_trouble and not self.raises
        longest = NEAR_AGE + NEAR_STALE * is_bridged + SLACK
        return self.process.recalled(place, self.now(), longest) if self.is_near else set()

    # clear()

    @precondition(lambda self: self.max_age is not None)
    @rule(alias=aliases)
    def clear(self, alias: str) -> None:
        """Make all values a thing of the past."""
        result = self.call(alias, "clear")
        certain = result is None and (self.raises or not self.in_trouble)
        self.model.clear(self.process, self.now(), certain=certain)

    @precondition(lambda self: self.max_age is not None and not self.in_trouble)
    @rule(
        alias=aliases,
        clearer=aliases,
        place=places,
        name=st.sampled_from(("touch", "incr", "incr_version")),
    )
    def clear_between_read_and_write(
        self, alias: str, clearer: str, place: Place, name: str
    ) -> None:
        """Write back what was read before a clear(): that makes nothing young."""
        cache = self.caches[alias]
        self.arrive(alias)
        before = self.before(place)
        touched, raised = self.touched(before, 100), self.raised(before, 1)
        moved = self.moved(before)
        options = {"timeout": 100} if name == "touch" else {}

        def clear() -> None:
            self.caches[clearer].clear()
            self.model.clear(self.model.processes[ALIASES[clearer]], self.now(), certain=True)

        with between_read_and_write(cache, clear):
            result = self.call_now(name, cache, place[0], version=place[1], **options)
        if name == "touch":
            self.judge_touch(place, result, before, touched)
        elif name == "incr":
            self.judge_incr(place, result, before, raised)
        else:
            self.judge_move(place, result, before, moved)

    @precondition(lambda self: self.max_age is not None and not self.in_trouble)
    @rule(alias=aliases, clearer=aliases, place=places, value=values)
    def clear_while_a_default_is_made(
        self, alias: str, clearer: str, place: Place, value: Any
    ) -> None:
        """What was begun before a clear() is of the past, too."""
        self.arrive(alias)
        before = self.before(place)
        generations = {self.process.known, self.model.latest}

        def default() -> Any:
            assert self.may_be_absent(before)
            self.caches[clearer].clear()
            self.model.clear(self.model.processes[ALIASES[clearer]], self.now(), certain=True)
            return value

        cleared = self.model.latest
        made = self.call_now("get_or_set", self.caches[alias], place[0], default, 100, place[1])
        if isinstance(made, MomentoError):
            assert self.may_fail(place)
        elif self.model.latest == cleared:
            self.judge(place, made, object())
        else:
            assert made == value
            new = {
                state._replace(generation=generation)
                for state in self.states(value, 100)
                for generation in generations
                if isinstance(state, State)
            }
            if ALIASES[clearer] != ALIASES[alias]:
                # It has not heard of the clear() yet.
                self.renew(place, new)
            # Not stored at all, it does no harm either.
            self.model.places[place] = self.before(place) | new

    @invariant()
    def somebody_looks(self) -> None:
        """Let one after the other look at one place after the other."""
        if not hasattr(self, "server"):
            return
        self.looks += 1
        alias = list(ALIASES)[self.looks % len(ALIASES)]
        self.get(alias, ("ab"[self.looks // 2 % 2], 1 + self.looks // 4 % 3))

    @invariant()
    def nothing_else_is_stored(self) -> None:
        """No key was written but those that were asked for, and the marker."""
        if not hasattr(self, "server"):
            return
        known = {wire(place) for place in self.model.places}
        for _, key in self.server.items:
            assert key in known or key.startswith(b"\xff")

    # Helpers

    def begin_call(self, alias: str) -> None:
        """Take in who makes a call, and when."""
        self.process = self.model.processes[ALIASES[alias]]
        self.model.began = self.now()

    def arrive(self, alias: str) -> None:
        """Take in that a process makes a call, beside which it reads the marker if that is due."""
        self.begin_call(alias)
        if self.max_age is not None and not self.in_trouble:
            self.model.catch_up(self.process, self.now(), self.max_age)

    def call(self, alias: str, name: str, *arguments: Any, **options: Any) -> Any:
        """Return the result, or the error that a caller is told to expect."""
        if name == "delete_many":  # which reads no marker
            self.begin_call(alias)
        else:
            self.arrive(alias)
        return self.call_now(name, self.caches[alias], *arguments, **options)

    def call_now(self, name: str, cache: Any, *arguments: Any, **options: Any) -> Any:
        """Do the same without a word to the model."""
        try:
            if self.is_async and name != "get_or_set":
                return asyncio.run(getattr(cache, f"a{name}")(*arguments, **options))
            return getattr(cache, name)(*arguments, **options)
        except MomentoError as error:
            assert self.raises, "an error of the service escaped"
            return error
        except (ValueError, TypeError) as error:
            assert name in ("incr", "incr_version")
            return error

    def now(self) -> float:
        """The time by the server's clock."""
        return clock_of(self.server)()

    def states(self, value: Any, timeout: int | None) -> set[Cell]:
        """The states that a write may leave."""
        seconds = MAX_TTL if timeout is None else timeout
        return self.model.written(self.process, Frozen.of(value), self.now(), seconds)

    def before(self, place: Place) -> set[Cell]:
        """Return the states that a place may be in now."""
        return self.model.cells(place, self.now())

    def visible(self, cells: set[Cell]) -> set[State]:
        """Return the values among them that the caller may find."""
        return {cell for cell in cells if isinstance(cell, State) and self.process.may_see(cell)}

    def may_be_present(self, cells: set[Cell]) -> bool:
        """Whether the caller may find a value."""
        return bool(self.visible(cells))

    def may_be_absent(self, cells: set[Cell]) -> bool:
        """Whether the caller may find nothing."""
        return any(self.model.may_be_absent(self.process, cell) for cell in cells)

    def touched(self, cells: set[Cell], timeout: int | None) -> set[Cell]:
        """Return what touch() makes of values."""
        expires = self.now() + (MAX_TTL if timeout is None else timeout)
        sealed = expires + self.process.skew
        return {state._replace(expires=expires, sealed=sealed) for state in self.visible(cells)}

    def raised(self, cells: set[Cell], delta: int) -> set[Cell]:
        """Return what incr() makes of values."""
        return {
            self.moved_one(state)._replace(value=state.value + delta)
            for state in self.visible(cells)
            if is_number(state.value)
        }

    def moved(self, cells: set[Cell]) -> set[Cell]:
        """Return values as they are under another key, where nothing was owed."""
        return {
            self.moved_one(state)._replace(dead_for=frozenset()) for state in self.visible(cells)
        }

    def moved_one(self, state: State) -> State:
        """Return a value that was stored again for the time that it says is left."""
        now = self.now()
        left = min(max(state.sealed - self.process.skew - now, 1.0), MAX_TTL)
        return state._replace(expires=now + left)

    def may_fail(self, place: Place) -> bool:
        """Whether an error may be raised for this place."""
        return self.raises and (self.in_trouble or SPOILT in self.before(place))

    def write(self, place: Place, new: set[Cell], *, certain: bool, owes: bool = True) -> None:
        """Take in a write; one that is not certain may have changed nothing, or removed all."""
        if certain:
            self.model.write(place, new)
        else:
            self.model.write_perhaps(self.process, place, new, self.now(), owes=owes)

    def judge(self, place: Place, found: Any, default: Any) -> None:
        """Check a value that was read, and take in what it says of the place's state."""
        cells = self.before(place)
        if isinstance(found, MomentoError):
            assert self.may_fail(place)
        elif found == default:
            assert self.in_trouble or self.may_be_absent(cells)
        else:
            seen = {cell for cell in self.visible(cells) if is_state_of(cell, found)}
            recalled = {state for state in self.recalled(place) if is_state_of(state, found)}
            assert seen or recalled, f"{found!r} was served, but {cells} is all that can be there"
            self.process.keep(place, seen, self.now())
            # A copy says nothing of what is there.
            if not recalled:
                self.model.seen(self.process, place, seen)


def is_number(value: Any) -> bool:
    """Whether incr can add to it."""
    return isinstance(value, (int, float))


def wire(place: Place) -> bytes:
    """Return the key's bytes as the service sees them."""
    name, version = place
    return f":{version}:{name}".encode()


def clock_of(server: RunningServer) -> Any:
    """Return the server's clock, which ``advance`` moves."""
    return server._clock


def build(
    server: RunningServer,
    mode: str,
    max_age: float | None,
    skew: float = 0.0,
    jumps: Mapping[str, float] = MappingProxyType({"A": 0.0, "B": 0.0}),
    **further: Any,
) -> dict[str, MomentoCache]:
    """Return the aliases of two processes, all of whose clocks are the server's."""
    common: dict[str, Any] = {
        "ON_ERROR": mode,
        "CLEAR_MAX_AGE": max_age,
        "REQUEST_TIMEOUT": DEADLINE,
        "TIMEOUT": 100,
        **further,
    }
    # Connections and breakers are shared only by what has as many of them.
    options = {
        "a": {},
        "another a": {"COMPRESSOR": None},
        "b": {"MAX_CONNECTIONS": 32},
    }
    clock = clock_of(server)
    namespaces: dict[str, Namespace] = {}
    caches: dict[str, MomentoCache] = {}
    for alias, process in ALIASES.items():
        entry = server.cache_settings(**common, **options[alias])
        cache = caches[alias] = MomentoCache(entry["LOCATION"], entry)
        walls = {
            "A": lambda: EPOCH + jumps["A"] + clock(),
            "B": lambda: EPOCH + jumps["B"] + skew + clock(),
        }
        clocks = clock, walls[process]
        if process not in namespaces:
            namespaces[process] = Namespace(cache._config.namespace, Ledger(), *clocks)
        cache._shared = Store(cache._config, namespaces[process], *clocks)
        client = cache._shared._client
        client._endpoint.breaker._clock = client._breakers.account._clock = clock
    return caches


@contextmanager
def quiet() -> Iterator[None]:
    """Without the thousands of lines that belong to the trouble."""
    logger = logging.getLogger("django_momento_http")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def test_the_cache_equals_its_model() -> None:
    """Whatever happens in whatever order, what is returned may be what was stored, or nothing."""
    with quiet():
        run_state_machine_as_test(CacheMachine, settings=SETTINGS)


@pytest.mark.parametrize("mode", ["miss", "raise"])
@pytest.mark.parametrize("name", ["delete", "delete_many"])
def test_what_was_deleted_never_comes_back(name: str, mode: str) -> None:
    """A value is removed also by a process that could not read the clear marker yet."""
    with quiet(), running_server() as server:
        cache = build(server, mode, 10)["a"]
        server.inject(Fault(status=500, key=MARKER, times=None))
        cache.set("a", 1)
        getattr(cache, name)("a")
        server.clear_faults()
        server.advance(30)
        assert cache.get("a") is None
        forget_endpoint(server.endpoint)
