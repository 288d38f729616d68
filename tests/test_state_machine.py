"""Any sequence of operations, faults, lapses of time and spoilt values, against a model.

While nothing is wrong the cache equals the model. In trouble the model holds, for each key, every
state that it may be in: what the cache then returns is the default or a value of one of those,
and an operation that reports success leaves just one of them.

HYPOTHESIS_PROFILE chooses how much is tried: ``ci`` (the default, 80 sequences of 30 steps) or
``nightly`` (500 of 50). A failure prints the code that repeats it.
"""

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

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

from django_momento_http.cache import MomentoCache
from django_momento_http.exceptions import MomentoError
from django_momento_http.namespace import Namespace
from django_momento_http.owed import Ledger
from django_momento_http.store import Store, forget_endpoint
from django_momento_http.testing import Fault, RunningServer, running_server
from tests.markers import marker_key

# Long enough for a busy machine, as what fails without a fault is taken for a mistake.
DEADLINE = 0.8
# The wall clock of the store starts here and moves with the server's.
EPOCH = 1.9e9
# Sums of the steps by which time moves keep ten seconds' distance from every timeout.
STEPS = (30, 300)
TIMEOUTS = (100, 1000, None)
MAX_TTL = 86400

_COMMON: dict[str, Any] = {
    "deadline": None,
    "print_blob": True,
    "suppress_health_check": list(HealthCheck),
}
PROFILES = {
    "ci": settings(max_examples=80, stateful_step_count=30, **_COMMON),
    "nightly": settings(max_examples=500, stateful_step_count=50, **_COMMON),
}


class State(NamedTuple):
    """What may be stored under a key; ``hidden`` once a clear() failed that may yet take effect."""

    value: Any
    expires: float
    hidden: bool = False


# What states may be: a value, nothing, or bytes that are nobody's.
ABSENT = None
SPOILT = "spoilt"
Cell = State | None | str
Place = tuple[str, int]

MARKER = marker_key()
FAULTS = {
    "500": Fault(status=500),
    "500 for a while": Fault(status=500, times=6),
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

names = st.sampled_from(("a", "b", "c"))
versions = st.sampled_from((1, 2))
places = st.tuples(names, versions)
timeouts = st.sampled_from(TIMEOUTS)
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
    )
    def begin(self, mode: str, is_async: bool, max_age: float | None, is_warm: bool) -> None:
        """Start a server and a backend that have nothing from before."""
        self.context = running_server()
        self.server: RunningServer = self.context.__enter__()
        self.raises = mode == "raise"
        self.is_async = is_async
        self.has_marker = max_age is not None
        self.cache = build(self.server, mode, max_age)
        self.model: dict[Place, set[Cell]] = {
            (name, version): {ABSENT} for name in "abc" for version in (1, 2, 3)
        }
        self.in_trouble = False
        if is_warm:
            self.cache.get("warm")

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

    @rule(name=st.sampled_from(sorted(FAULTS)), method=st.sampled_from((None, "GET", "PUT")))
    def something_breaks(self, name: str, method: str | None) -> None:
        """Let requests misbehave from now on."""
        fault = FAULTS[name]
        self.server.inject(replace(fault, method=method))
        self.in_trouble = True

    @precondition(lambda self: self.in_trouble)
    @rule()
    def all_is_well_again(self) -> None:
        """End the trouble, and let the breakers, and the marker's copy, notice."""
        self.server.clear_faults()
        self.server.advance(30)
        self.cache.get("warm")
        self.in_trouble = False

    @rule(chosen=st.integers(0, 5), other=st.integers(-1, 5))
    def a_value_is_spoilt(self, chosen: int, other: int) -> None:
        """Put foreign bytes, or another key's value, where one of ours was."""
        raw = self.server.items
        stored = [place for place in sorted(self.model) if ("default-cache", wire(place)) in raw]
        if not stored:
            return
        place = stored[chosen % len(stored)]
        # Bytes that were put where they do not belong must not be put back.
        sound = [None, *(each for each in stored if SPOILT not in self.model[each])]
        source = sound[(other + 1) % len(sound)]
        if source == place:
            return
        data = b"foreign" if source is None else raw["default-cache", wire(source)]
        self.server.put("default-cache", wire(place), data, 1000)
        self.model[place] = {SPOILT}

    # Operations

    @rule(place=places)
    def get(self, place: Place) -> None:
        """Return a value that may be there, or the default."""
        found = self.call("get", place[0], "default", version=place[1])
        self.judge(place, found, "default")

    @rule(keys=st.lists(names, max_size=3, unique=True), version=versions)
    def get_many(self, keys: list[str], version: int) -> None:
        """Return values that may be there."""
        found = self.call("get_many", iter(keys), version=version)
        if isinstance(found, MomentoError):
            assert any(self.may_fail((key, version)) for key in keys)
            return
        assert set(found) <= set(keys)
        for key in keys:
            self.judge((key, version), found.get(key, "default"), "default")

    @rule(place=places, value=values, timeout=timeouts)
    def set_one(self, place: Place, value: Any, timeout: int | None) -> None:
        """Leave the value."""
        result = self.call("set", place[0], value, timeout, version=place[1])
        assert result is None or isinstance(result, MomentoError)
        # In "miss" mode nothing says whether it was stored.
        is_certain = result is None and (self.raises or not self.in_trouble)
        self.write(place, {self.state(value, timeout)}, certain=is_certain)

    @rule(data=st.dictionaries(names, values, max_size=3), version=versions, timeout=timeouts)
    def set_many(self, data: dict[str, Any], version: int, timeout: int | None) -> None:
        """Leave the values of all keys that are not returned."""
        failed = self.call("set_many", data, timeout, version=version)
        is_error = isinstance(failed, MomentoError)
        assert self.in_trouble or failed == []
        for key, value in data.items():
            certain = not is_error and key not in failed
            self.write((key, version), {self.state(value, timeout)}, certain=certain)

    @rule(place=places, value=values, timeout=timeouts)
    def add(self, place: Place, value: Any, timeout: int | None) -> None:
        """Store only where nothing is, and say whether that was done."""
        before = self.cells(place)
        added = self.call("add", place[0], value, timeout, version=place[1])
        new = {self.state(value, timeout)}
        if added is True:
            assert any(may_be_absent(cell) for cell in before) or self.in_trouble
            self.write(place, new, certain=True)
        elif added is False and not self.in_trouble:
            assert any(is_present(cell) for cell in before)
        else:
            assert self.may_fail(place) or added is False
            self.write(place, new, certain=not self.in_trouble and before == {ABSENT})

    @rule(place=places, timeout=timeouts)
    def touch(self, place: Place, timeout: int | None) -> None:
        """Renew the timeout where there is a value."""
        before = self.cells(place)
        touched = self.call("touch", place[0], timeout, version=place[1])
        new = {
            State(cell.value, self.expiry(timeout)) for cell in before if isinstance(cell, State)
        }
        if touched is True:
            assert new
            self.model[place] = new
        elif touched is False and not self.in_trouble:
            assert any(may_be_absent(cell) for cell in before)
        else:
            assert self.may_fail(place) or touched is False
            self.model[place] = before | new

    @rule(place=places)
    def delete(self, place: Place) -> None:
        """Remove the value and say whether there was one."""
        before = self.cells(place)
        deleted = self.call("delete", place[0], version=place[1])
        if deleted is True:
            assert any(is_present(cell) for cell in before)
            self.model[place] = {ABSENT}
        elif deleted is False and (self.raises or not self.in_trouble):
            assert any(may_be_absent(cell) for cell in before) or self.in_trouble
            # Whatever was there must never be seen again.
            self.model[place] = {SPOILT} if before == {SPOILT} else {ABSENT}
        else:
            assert self.may_fail(place) or deleted is False
            self.model[place] = before | {ABSENT}

    @rule(keys=st.lists(names, max_size=3, unique=True), version=versions)
    def delete_many(self, keys: list[str], version: int) -> None:
        """Remove the values."""
        result = self.call("delete_many", iter(keys), version=version)
        certain = result is None and (self.raises or not self.in_trouble)
        for key in keys:
            self.write((key, version), {ABSENT}, certain=certain)

    @rule(place=places)
    def has_key(self, place: Place) -> None:
        """Say whether there is a value."""
        before = self.cells(place)
        found = self.call("has_key", place[0], version=place[1])
        if found is True:
            assert any(is_present(cell) for cell in before)
        elif found is False:
            assert self.in_trouble or any(may_be_absent(cell) for cell in before)
        else:
            assert self.may_fail(place)

    @rule(place=places)
    def ttl(self, place: Place) -> None:
        """Return the seconds that are left."""
        before = self.cells(place)
        left = self.call("ttl", place[0], version=place[1])
        if isinstance(left, MomentoError):
            assert self.may_fail(place)
        elif left == 0:
            assert self.in_trouble or any(may_be_absent(cell) for cell in before)
        else:
            now = self.now()
            wanted = [cell.expires - now for cell in before if isinstance(cell, State)]
            assert any(abs(left - seconds) < 10 for seconds in wanted)

    @rule(place=places, delta=st.integers(-3, 3))
    def incr(self, place: Place, delta: int) -> None:
        """Add to a number."""
        before = self.cells(place)
        result = self.call("incr", place[0], delta, version=place[1])
        numbers = [cell for cell in before if isinstance(cell, State) and is_number(cell.value)]
        new: set[Cell] = {State(cell.value + delta, cell.expires) for cell in numbers}
        if isinstance(result, TypeError):
            assert any(isinstance(c, State) and not is_number(c.value) for c in before)
        elif isinstance(result, (ValueError, MomentoError)):
            is_excused = self.in_trouble or self.may_fail(place)
            assert is_excused or any(may_be_absent(cell) for cell in before)
            self.model[place] = before | new | {ABSENT} if self.in_trouble else before
        else:
            self.model[place] = {
                cell for cell in new if isinstance(cell, State) and cell.value == result
            }
            assert self.model[place]

    @rule(name=names, version=versions)
    def incr_version(self, name: str, version: int) -> None:
        """Move a value to the next version."""
        old, new = (name, version), (name, version + 1)
        before, there = self.cells(old), self.cells(new)
        moved: set[Cell] = {
            State(cell.value, cell.expires) for cell in before if isinstance(cell, State)
        }
        result = self.call("incr_version", name, version=version)
        if result == version + 1:
            assert moved
            self.model[new] = moved
            certain = self.raises or not self.in_trouble
            self.model[old] = {ABSENT} if certain else before | {ABSENT}
        elif not self.in_trouble:
            assert isinstance(result, (ValueError, MomentoError))
            assert any(may_be_absent(cell) for cell in before)
        else:
            assert isinstance(result, (ValueError, MomentoError))
            # Refused (400), what stood at the new version is gone.
            self.model[new] = there | moved | {ABSENT}
            self.model[old] = before | {ABSENT}

    @rule(place=places, value=values, timeout=timeouts)
    def get_or_set(self, place: Place, value: Any, timeout: int | None) -> None:
        """Return what is there, or else the default, which is then stored."""
        before = self.cells(place)
        calls = []
        made = self.call(
            "get_or_set", place[0], lambda: calls.append(1) or value, timeout, version=place[1]
        )
        new = {self.state(value, timeout)}
        assert len(calls) <= 1
        if isinstance(made, MomentoError):
            assert self.may_fail(place)
            self.model[place] = before | new | {ABSENT}
        elif not calls:
            self.judge(place, made, object())
        elif not self.in_trouble:
            assert made == value
            assert any(may_be_absent(cell) for cell in before)
            self.model[place] = new
        else:
            # The look before the write may have found one after all.
            assert made == value or any(is_state_of(cell, made) for cell in before)
            self.model[place] = before | new | {ABSENT}

    @precondition(lambda self: self.has_marker)
    @rule()
    def clear(self) -> None:
        """Make all values a thing of the past."""
        result = self.call("clear")
        certain = result is None and (self.raises or not self.in_trouble)
        for place in self.model:
            cells = self.cells(place)
            if certain:
                self.model[place] = {SPOILT if cell == SPOILT else ABSENT for cell in cells}
            else:
                # Gone here, until this process has reason to believe that nobody knows of it.
                self.model[place] = {
                    cell._replace(hidden=True) if isinstance(cell, State) else cell
                    for cell in cells
                }

    @invariant()
    def nothing_else_is_stored(self) -> None:
        """No key was written but those that were asked for, and the marker."""
        if not hasattr(self, "server"):
            return
        known = {wire(place) for place in self.model}
        for _, key in self.server.items:
            assert key in known or key.startswith(b"\xff")

    # Helpers

    def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Return the result, or the error that a caller is told to expect."""
        try:
            if self.is_async:
                return asyncio.run(getattr(self.cache, f"a{name}")(*arguments, **options))
            return getattr(self.cache, name)(*arguments, **options)
        except MomentoError as error:
            assert self.raises, "an error of the service escaped"
            return error
        except (ValueError, TypeError) as error:
            assert name in ("incr", "incr_version")
            return error

    def now(self) -> float:
        """The time by the server's clock."""
        return clock_of(self.server)()

    def expiry(self, timeout: int | None) -> float:
        """When a value with this timeout, set now, is gone."""
        return self.now() + (MAX_TTL if timeout is None else timeout)

    def state(self, value: Any, timeout: int | None) -> State:
        """The state that a write leaves."""
        return State(Frozen.of(value), self.expiry(timeout))

    def cells(self, place: Place) -> set[Cell]:
        """Return the states that a place may be in now."""
        now = self.now()
        return {
            ABSENT if isinstance(cell, State) and cell.expires <= now else cell
            for cell in self.model[place]
        }

    def may_fail(self, place: Place) -> bool:
        """Whether an error may be raised for this place."""
        return self.raises and (self.in_trouble or SPOILT in self.cells(place))

    def write(self, place: Place, new: set[Any], *, certain: bool) -> None:
        """Take in a write; one that is not certain may have changed nothing, or removed all."""
        self.model[place] = set(new) if certain else self.cells(place) | new | {ABSENT}

    def judge(self, place: Place, found: Any, default: Any) -> None:
        """Check a value that was read, and take in what it says of the place's state."""
        cells = self.cells(place)
        if isinstance(found, MomentoError):
            assert self.may_fail(place)
        elif found == default:
            assert self.in_trouble or any(may_be_absent(cell) for cell in cells)
        else:
            seen = {cell for cell in cells if is_state_of(cell, found)}
            assert seen, f"{found!r} was served, but {cells} is all that can be there"
            self.model[place] = seen


class Frozen(NamedTuple):
    """A list in the model, which must be hashable."""

    items: tuple[Any, ...]

    @classmethod
    def of(cls, value: Any) -> Any:
        """Return the value, frozen where it is a list."""
        return cls(tuple(value)) if isinstance(value, list) else value


def is_state_of(cell: Cell, value: Any) -> bool:
    """Whether this state is of this value, type included."""
    if not isinstance(cell, State):
        return False
    return type(cell.value) is type(Frozen.of(value)) and cell.value == Frozen.of(value)


def is_present(cell: Cell) -> bool:
    """Whether a reader may find a value."""
    return isinstance(cell, State)


def may_be_absent(cell: Cell) -> bool:
    """Whether a reader may find nothing."""
    return not isinstance(cell, State) or cell.hidden


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


def build(server: RunningServer, mode: str, max_age: float | None) -> MomentoCache:
    """Return a backend of the server, all of whose clocks are the server's."""
    entry = server.cache_settings(
        ON_ERROR=mode, CLEAR_MAX_AGE=max_age, REQUEST_TIMEOUT=DEADLINE, TIMEOUT=100
    )
    cache = MomentoCache(entry["LOCATION"], {**entry, "OPTIONS": entry["OPTIONS"]})
    clock = clock_of(server)
    clocks = clock, lambda: EPOCH + clock()
    namespace = Namespace(cache._space.namespace, Ledger(), *clocks)
    cache._shared = Store(cache._space, namespace, *clocks)
    client = cache._shared._client
    client._service.breaker._clock = client._gates._account._clock = clock
    return cache


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


@pytest.mark.parametrize("profile", [os.environ.get("HYPOTHESIS_PROFILE", "ci")])
def test_the_cache_equals_its_model(profile: str) -> None:
    """Whatever happens in whatever order, what is returned may be what was stored, or nothing."""
    with quiet():
        run_state_machine_as_test(CacheMachine, settings=PROFILES[profile])


@pytest.mark.parametrize("mode", ["miss", "raise"])
@pytest.mark.parametrize("name", ["delete", "delete_many"])
def test_what_was_deleted_never_comes_back(name: str, mode: str) -> None:
    """A value is removed also by a process that could not read the clear marker yet."""
    with quiet(), running_server() as server:
        cache = build(server, mode, 10)
        server.inject(Fault(status=500, key=MARKER, times=None))
        cache.set("a", 1)
        getattr(cache, name)("a")
        server.clear_faults()
        server.advance(30)
        assert cache.get("a") is None
        forget_endpoint(server.endpoint)
