"""What each cache method does with get, set and delete, as plans; values in, values out.

Each method is a generator for a ``Runner``. It knows stored values, generations and lifetimes, what
ON_ERROR asks for, and nothing of versions, defaults or how requests travel.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from numbers import Number
from typing import Any, TypeVar

from . import client
from .answers import Outcome
from .client import Operation, shared_client
from .envelope import Stored
from .exceptions import BadRequest, MomentoError, StoredValueError
from .generation import AnyGeneration, Generation
from .on_error import OnError
from .process import RECENT, PerProcess
from .runner import Outcomes, Plan, Runner
from .space import Space
from .values import MISSING, Values

K = TypeVar("K")

_UNKNOWN: Any = object()
# The key stays out of it: messages end up in logs.
_NOT_THERE = "the cache has no such key"


class Store:
    """One Momento cache and KEY_PREFIX as this process uses it; safe under threads."""

    def __init__(
        self,
        space: Space,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        options = space.options
        self._clock = clock
        self._generation = (
            AnyGeneration()
            if options.clear_max_age is None
            else Generation(options.clear_max_age, clock)
        )
        self._values = Values(space, self._generation, wall_clock)
        self.dumps = self._values.dumps
        self._client = shared_client(options)
        self._counters = self._client.counters
        self._on_error = OnError(
            options.location, self._counters, raises=options.on_error == "raise", clock=clock
        )
        runner = Runner(self._client)
        self.run, self.arun = runner.run, runner.arun
        # The process that may use it; none once it is closed.
        self.pid = os.getpid()

    def __repr__(self) -> str:
        return f"<Store {self._client!r} {self._generation!r}>"

    def close(self) -> None:
        """Mark this store as left behind; its connections are the client's."""
        self.pid = 0

    def stats(self) -> dict[str, object]:
        """Return the counters of this configuration in this process."""
        return self._client.stats()

    # Reading

    def get(self, key: str, default: Any) -> Plan[Any]:
        """Return the value, or the default."""
        asked = Operation.get(key)
        # As _one does, without a generator of its own: this is the method that is called most.
        outcome = (
            (yield asked) if self._is_alone(asked) else (yield from self._beside_marker(asked))
        )
        errors: list[MomentoError] = []
        value = self._values.value(key, outcome, errors)
        if errors:
            self._on_error.report("get", errors)
        self._counters.served("misses" if value is MISSING else "hits")
        return default if value is MISSING else value

    def get_or_say(self, key: str, missing: Any, unknown: Any) -> Plan[Any]:
        """Return the value, or which it is: not there, or the service could not say."""
        value = yield from self._read("get_or_set", key)
        if value is _UNKNOWN:
            return unknown
        self._counters.served("misses" if value is MISSING else "hits")
        return missing if value is MISSING else value

    def get_many(self, names: Mapping[str, K]) -> Plan[dict[K, Any]]:
        """Return the values that there are, under the names that the keys stand for."""
        keys = list(names)
        values = [MISSING] * len(keys)
        errors: list[MomentoError] = []
        # Each is loaded as it comes, while others are still under way.
        for index, outcome in (yield from self._ask([Operation.get(key) for key in keys])):
            values[index] = self._values.value(keys[index], outcome, errors)
        pairs = zip(names.values(), values, strict=True)
        found = {name: value for name, value in pairs if value is not MISSING}
        self._counters.served("hits", len(found))
        self._counters.served("misses", len(keys) - len(found))
        self._on_error.report("get_many", errors)
        return found

    def has_key(self, key: str) -> Plan[bool]:
        """Return whether there is a value that can be had."""
        value = yield from self._read("has_key", key)
        return value is not MISSING and value is not _UNKNOWN

    def ttl(self, key: str) -> Plan[float | None]:
        """Return the seconds left, None for no expiry, 0 when there is no value."""
        found = yield from self._find("ttl", key)
        if not isinstance(found, Stored):
            return 0.0
        return self._values.seconds_left(found)

    # Writing: payloads are values that went through dumps().

    def set(self, key: str, payload: bytes, timeout: float | None) -> Plan[None]:
        """Store the value, or remove it where the timeout is 0 or less."""
        if (yield from self._write("set", key, *self._values.packed(payload, timeout))):
            self._counters.served("sets")

    def set_many(self, payloads: Mapping[str, bytes], timeout: float | None) -> Plan[list[str]]:
        """Store the values and return the keys of those that were not."""
        items = {key: self._values.packed(payload, timeout) for key, payload in payloads.items()}
        outcomes = yield from self._put_many(items)
        failed = {
            key: outcome
            for key, outcome in zip(items, outcomes, strict=True)
            if isinstance(outcome, MomentoError)
        }
        self._counters.served("sets", len(items) - len(failed))
        self._on_error.report("set_many", list(failed.values()))
        return list(failed)

    def add(self, key: str, payload: bytes, timeout: float | None) -> Plan[bool]:
        """Store the value where there is none, and return whether it was stored; not atomic."""
        if (yield from self._read("add", key)) is not MISSING or not self._generation.is_known:
            return False
        return (yield from self._write("add", key, *self._values.packed(payload, timeout)))

    def get_or_add(self, key: str, value: Any, payload: bytes, timeout: float | None) -> Plan[Any]:
        """Return the value that is there, or else this one, which is then stored."""
        there = yield from self._read("get_or_set", key)
        if there is MISSING:
            yield from self._write("get_or_set", key, *self._values.packed(payload, timeout))
        return value if there is MISSING or there is _UNKNOWN else there

    def touch(self, key: str, timeout: float | None) -> Plan[bool]:
        """Give the value a new lifetime, without loading it, and return whether there was one."""
        found = yield from self._find("touch", key)
        if not isinstance(found, Stored):
            return False
        return (yield from self._write("touch", key, *self._values.renewed(found, timeout)))

    def incr(self, key: str, delta: Any) -> Plan[Any]:
        """Add to a number, which keeps its lifetime, and return it; not atomic."""
        found = yield from self._find("incr", key)
        if not isinstance(found, Stored):
            raise ValueError(_NOT_THERE)
        errors: list[MomentoError] = []
        value = self._values.load(found, errors)
        self._on_error.report("incr", errors)
        if value is MISSING:
            raise ValueError(_NOT_THERE)
        if not isinstance(value, Number):
            raise TypeError(f"cannot add to a value of type {type(value).__name__}")
        total = value + delta
        if not (yield from self._write("incr", key, *self._values.replaced(found, total))):
            raise ValueError(_NOT_THERE)
        return total

    def move(self, key: str, new_key: str) -> Plan[None]:
        """Store the value under another key, with the lifetime that is left, and remove it here."""
        found = yield from self._find("incr_version", key)
        if not isinstance(found, Stored):
            raise ValueError(_NOT_THERE)
        ttl = self._values.ttl_left(found)
        if not (yield from self._write("incr_version", new_key, found, ttl)):
            raise ValueError(_NOT_THERE)
        removed = yield Operation.delete(key)
        if isinstance(removed, MomentoError):
            self._on_error.report("incr_version", [removed])

    def delete(self, key: str) -> Plan[bool]:
        """Remove the value and return whether there was one."""
        outcome = yield from self._one(Operation.get(key))
        if outcome is None:
            return False
        found = self._values.opened(key, outcome)
        # Also where the look failed, or what is there is not for us: what should be gone may be
        # served elsewhere or later, and that is worse than a request more.
        removed = yield Operation.delete(key)
        errors = [error for error in (found, removed) if isinstance(error, MomentoError)]
        is_removed = isinstance(found, Stored) and not errors
        self._counters.served("deletes", int(is_removed))
        self._on_error.report("delete", errors[:1])
        return is_removed

    def delete_many(self, keys: Iterable[str]) -> Plan[None]:
        """Remove the values."""
        outcomes = yield from self._all([Operation.delete(key) for key in keys])
        errors = [error for error in outcomes if isinstance(error, MomentoError)]
        self._counters.served("deletes", len(outcomes) - len(errors))
        self._on_error.report("delete_many", errors)

    def clear(self) -> Plan[None]:
        """Make this KEY_PREFIX's values of all versions a thing of the past."""
        if isinstance(self._generation, AnyGeneration):
            raise NotImplementedError("clear() needs a clear marker: CLEAR_MAX_AGE is None")
        newest = self._values.next_generation()
        # Before the marker is written: whatever becomes of it, this process has forgotten.
        self._generation.move(newest)
        outcome = yield from self._one(self._values.marked(newest))
        if self._generation.current > newest:
            # A clear() not heard of before, by a clock ahead of ours: go beyond it.
            newest = self._generation.current + 1
            self._generation.move(newest)
            outcome = yield self._values.marked(newest)
        if isinstance(outcome, MomentoError):
            self._on_error.report("clear", [outcome])

    def _read(self, name: str, key: str) -> Plan[Any]:
        """Return the value, MISSING where there is none, _UNKNOWN where that cannot be said."""
        errors: list[MomentoError] = []
        value = self._values.value(key, (yield from self._one(Operation.get(key))), errors)
        if not errors:
            return value
        self._on_error.report(name, errors)
        return MISSING if isinstance(errors[0], StoredValueError) else _UNKNOWN

    def _find(self, name: str, key: str) -> Plan[Stored | MomentoError | None]:
        """Return what is stored, None where there is nothing of ours, or what went wrong."""
        found = self._values.opened(key, (yield from self._one(Operation.get(key))))
        if isinstance(found, MomentoError):
            self._on_error.report(name, [found])
        return None if isinstance(found, StoredValueError) else found

    # Requests

    def _write(self, name: str, key: str, stored: Stored, ttl: int) -> Plan[bool]:
        """Store the value, or remove it where the ttl is 0; return whether that was done."""
        generation = self._generation.current
        written = self._values.written(key, stored, ttl)
        outcome = yield from self._one(written)
        if self._generation.current != generation:
            # Another process's clear() came to light: nobody would read what was just written.
            outcome = yield self._values.written(key, stored, ttl)
        if not isinstance(outcome, MomentoError):
            return True
        if isinstance(outcome, BadRequest):
            # What was refused leaves the old value behind, and a stale value is worse than none.
            yield Operation.delete(key)
        self._on_error.report(name, [outcome])
        return False

    def _put_many(self, items: Mapping[str, tuple[Stored, int]]) -> Plan[list[Outcome]]:
        """Do for many what _write does for one."""
        generation = self._generation.current
        outcomes = yield from self._all(
            [self._values.written(key, *item) for key, item in items.items()]
        )
        if self._generation.current != generation:
            outcomes = yield from self._all(
                [self._values.written(key, *item) for key, item in items.items()]
            )
        pairs = zip(items, outcomes, strict=True)
        refused = [key for key, outcome in pairs if isinstance(outcome, BadRequest)]
        yield from self._all([Operation.delete(key) for key in refused])
        return outcomes

    def _one(self, operation: Operation) -> Plan[Outcome]:
        """Return the outcome; the marker is read beside it where it is due."""
        if self._is_alone(operation):
            alone: Outcome = yield operation
            return alone
        return (yield from self._beside_marker(operation))

    def _beside_marker(self, operation: Operation) -> Plan[Outcome]:
        [(_, outcome)] = yield from self._ask_marker([operation])
        return outcome

    def _is_alone(self, operation: Operation) -> bool:
        """Whether the operation needs no look at the marker beside it: ask once."""
        return operation.method == "DELETE" or not self._generation.is_due()

    def _all(self, operations: list[Operation]) -> Plan[list[Outcome]]:
        """Return the outcomes in the order of the operations."""
        outcomes: list[Outcome] = [None] * len(operations)
        for index, outcome in (yield from self._ask(operations)):
            outcomes[index] = outcome
        return outcomes

    def _ask(self, operations: list[Operation]) -> Plan[Outcomes]:
        """Return the outcomes as they come; the marker is read beside them where it is due."""
        if not operations:
            return ()
        if self._is_alone(operations[0]):
            outcomes: Outcomes = yield operations
            return outcomes
        return (yield from self._ask_marker(operations))

    def _ask_marker(self, operations: list[Operation]) -> Plan[Outcomes]:
        asked_at = self._clock()
        outcomes = dict((yield [*operations, self._values.look_at_marker()]))
        marker = self._values.generation_of(outcomes.pop(len(operations)))
        if isinstance(marker, MomentoError):
            self._on_error.log("reading the clear marker", marker)
        if isinstance(marker, StoredValueError):
            # Signed with a key that is no longer ours, as the values of its time are, too.
            marker = None
        if isinstance(marker, MomentoError):
            self._generation.miss()
        else:
            self._generation.learn(marker, asked_at)
        return outcomes.items()


_STORES: PerProcess[Space, Store] = PerProcess(Store, Store.close, RECENT)


def shared_store(space: Space) -> Store:
    """Return this process's store for a space."""
    return _STORES.get(space)


def forget_endpoint(endpoint: str) -> None:
    """Put away all that this process keeps for an endpoint that is no more, such as a test's."""
    _STORES.drop(lambda space: space.options.endpoint == endpoint)
    client.forget_endpoint(endpoint)
