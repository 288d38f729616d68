"""What each cache method does with get, set and delete, as plans; values in, values out.

Each method is a coroutine that a ``Runner`` drives. It knows stored values, generations, lifetimes
and what ON_ERROR asks for, and nothing of versions, defaults or how requests travel.
"""

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from numbers import Number
from typing import Any, TypeVar

from .._client import client
from .._client.client import shared_client
from .._client.operation import Operation, Plan
from .._process import RECENT, PerProcess
from ..exceptions import MomentoError, StoredValueError
from .clear_marker import Marker
from .config import StoreConfig
from .copies import MISSING
from .envelope import Stored
from .error_policy import ErrorPolicy
from .gateway import Gateway
from .generation import EARLY
from .making import ABSENT, UNKNOWN, Making
from .namespace import Namespace, forget_namespaces, shared_namespace
from .near import Near
from .runner import Runner
from .values import Values
from .writer import Writer

K = TypeVar("K")

# Neither a process's id nor 0, which stands for one that is not known yet.
_NO_PROCESS = -1
# The key stays out of it: messages end up in logs.
_NOT_THERE = "the cache has no such key"


class Store:
    """One Momento cache and KEY_PREFIX as this process uses it; safe under threads."""

    def __init__(
        self,
        config: StoreConfig,
        namespace: Namespace,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        options = config.options
        self._namespace = namespace
        self._client = shared_client(options)
        self._counters = self._client.counters
        raises = options.on_error == "raise"
        self._error_policy = ErrorPolicy(namespace, self._counters, raises=raises)
        self._can_clear = options.clear_max_age is not None
        values = self._values = Values(config, namespace, wall_clock)
        self._owed, self._age = namespace.owed, values.age
        max_age = self._max_age = options.clear_max_age or 0.0
        # As long as it was read less than so many seconds ago, nobody need read it again.
        self._young = max_age * EARLY if self._can_clear else math.inf
        self._clock, self._wall_clock = clock, wall_clock
        marker = Marker(namespace, max_age, values, self._error_policy, clock, wall_clock)
        self._gateway = Gateway(self._client, namespace, marker, values)
        # Copies in this process, or none.
        self.near: Near | None = None
        shared = namespace, self._gateway, values, self._error_policy, self._counters
        if options.near_max_age:
            self.near = Near(options, *shared, clock, wall_clock)
        seconds = partial(self._client.deadline, began=0.0)  # that so many operations may wait
        self._writer = Writer(*shared[:4], self.near, seconds)
        self.making = Making(options, *shared, self._writer, self.near, clock, wall_clock)
        self._flights = namespace.flights
        self.runner = Runner(self._client)
        # The process that may use it; none once it is closed.
        self.pid = os.getpid()

    def __repr__(self) -> str:
        return f"<Store {self._client!r} {self._namespace!r}>"

    def close(self) -> None:
        """Mark this store as left behind; its connections are the client's."""
        self.pid = _NO_PROCESS

    def stats(self) -> dict[str, object]:
        """Return the counters of this configuration in this process."""
        return self._client.stats()

    def dumps(self, value: Any) -> bytes:
        """Serialize a value; raise what the serializer raises.

        It may run any code, a query of the database for one: call it in the caller's own thread.
        """
        return self._values.envelope.dumps(value)

    # Reading

    async def get(self, key: str, default: Any) -> Any:
        """Return the value, or the default."""
        if self.near is not None:
            return await self.near.get(key, default)
        asked = Operation.get(key)
        # As the gateway does, in fewer steps: this is the method that is called most.
        age, young = self._age, self._young
        is_due = not (
            self._clock() - age.read_at < young and 0 <= self._wall_clock() - age.read_wall < young
        ) and age.is_due(self._max_age)
        if is_due or self._owed.queues:
            outcome = await self._gateway.accompanied(asked, is_due=is_due)
        else:
            outcome = await asked
        errors: list[MomentoError] = []
        value = self._values.value(key, outcome, errors)
        if errors:
            self._error_policy.report("get", errors)
        self._counters.served("misses" if value is MISSING else "hits")
        return default if value is MISSING else value

    def look(self, key: str, draw: float) -> Plan[Any]:
        """Return the plan that returns the value, or a Look: why it is to be made."""
        if self.making.is_eager:
            return self.making.look(key, draw)
        return self.lookup(key)

    async def lookup(self, key: str) -> Any:
        """Return the value; ABSENT where there is none, UNKNOWN where the service cannot say."""
        if self.near is not None:
            value = self.near.copies.get(key)
            if value is not MISSING:
                return value
        value = await self._look("get_or_set", key)
        if value is UNKNOWN:
            return value
        self._counters.served("misses" if value is MISSING else "hits")
        return ABSENT if value is MISSING else value

    async def get_many(self, names: Mapping[str, K]) -> dict[K, Any]:
        """Return the values that there are, under the names that the keys stand for."""
        copied: dict[K, Any] = {}
        if self.near is not None:
            copied, names = self.near.copies.get_many(names)
        keys, errors = list(names), list[MomentoError]()
        values = [MISSING] * len(keys)
        if self.near is not None:
            values = await self.near.read_many(keys, errors)
        else:
            # Each is loaded as it comes, while others are still under way.
            reads = [Operation.get(key) for key in keys]
            for index, outcome in await self._gateway.all("GET", reads, keys):
                values[index] = self._values.value(keys[index], outcome, errors)
        pairs = zip(names.values(), values, strict=True)
        found = {name: value for name, value in pairs if value is not MISSING}
        self._counters.served("hits", len(found))
        self._counters.served("misses", len(keys) - len(found))
        self._error_policy.report("get_many", errors)
        return copied | found

    async def has_key(self, key: str) -> bool:
        """Return whether there is a value that can be had."""
        if self.near is not None and self.near.copies.has(key):
            return True
        value = await self._look("has_key", key)
        return value is not MISSING and value is not UNKNOWN

    async def ttl(self, key: str) -> float | None:
        """Return the seconds left, None for no expiry, 0 when there is no value."""
        near, expiry = self.near, None
        if near is None or (expiry := near.copies.expiry(key)) is None:
            found = await self._find("ttl", key)
            if isinstance(found, Stored):
                expiry = (found.expires_at,)
            elif near is not None and isinstance(found, MomentoError) and near.bridges(found):
                expiry = near.copies.expiry(key, is_stale=True)
        return self._values.seconds_left(*expiry) if expiry is not None else 0.0

    # Writing: payloads are values that went through dumps().

    async def set(self, key: str, payload: bytes, timeout: float | None) -> None:
        """Store the value, or remove it where the timeout is 0 or less."""
        if self._flights.under_way:
            self._flights.mark(key)
        if await self._writer.put("set", key, payload, timeout, owes=True):
            self._counters.served("sets")

    async def set_many(self, payloads: Mapping[str, bytes], timeout: float | None) -> list[str]:
        """Store the values and return the keys of those that were not."""
        self._flights.mark_many(payloads)
        outcomes = await self._writer.put_many(payloads, timeout)
        failed = {key: error for key, error in outcomes.items() if isinstance(error, MomentoError)}
        self._counters.served("sets", len(payloads) - len(failed))
        self._error_policy.report("set_many", list(failed.values()))
        return list(failed)

    async def add(self, key: str, payload: bytes, timeout: float | None) -> bool:
        """Store the value where there is none, and return whether it was stored; not atomic."""
        there = await self._read("add", key, is_for_write=True)
        if there is not MISSING or not self._values.can_judge:
            return False
        return await self._writer.put("add", key, payload, timeout)

    async def touch(self, key: str, timeout: float | None) -> bool:
        """Give the value a new lifetime, without loading it, and return whether there was one."""
        found = await self._find("touch", key, is_for_write=True)
        if not isinstance(found, Stored):
            return False
        self._flights.mark(key)
        stored, ttl = self._values.renewed(found, timeout)
        return await self._writer.write("touch", key, stored, ttl, owes=ttl == 0)

    async def incr(self, key: str, delta: Any) -> Any:
        """Add to a number, which keeps its lifetime, and return it; not atomic."""
        found = await self._find("incr", key, is_for_write=True)
        if not isinstance(found, Stored):
            raise ValueError(_NOT_THERE)
        errors: list[MomentoError] = []
        value = self._values.load(found, errors)
        self._error_policy.report("incr", errors)
        if value is MISSING:
            raise ValueError(_NOT_THERE)
        if not isinstance(value, Number):
            raise TypeError(f"cannot add to a value of type {type(value).__name__}")
        self._flights.mark(key)
        total = value + delta
        stored, ttl = self._values.replaced(found, total)
        if not (await self._writer.write("incr", key, stored, ttl)):
            raise ValueError(_NOT_THERE)
        return total

    async def move(self, key: str, new_key: str) -> None:
        """Store the value under another key, with the lifetime that is left, and remove it here."""
        self._flights.mark_many((key, new_key))
        found = await self._find("incr_version", key, is_for_write=True)
        if not isinstance(found, Stored):
            raise ValueError(_NOT_THERE)
        since = self._namespace.stamp()
        ttl = self._values.ttl_left(found)
        if not (await self._writer.write("incr_version", new_key, found, ttl)):
            raise ValueError(_NOT_THERE)
        removed = await self._writer.remove(key, since)
        if isinstance(removed, MomentoError):
            self._error_policy.report("incr_version", [removed])

    async def delete(self, key: str) -> bool:
        """Remove the value and return whether there was one."""
        self._flights.mark(key)
        with self._writer.writing((key,)):
            since = self._namespace.stamp()
            outcome = await self._gateway.one(Operation.get(key, is_for_write=True))
            if outcome is None and not self._gateway.is_owed(key):
                return False
            found = self._values.opened(key, outcome)
            # Also where the look failed, or what is there is not for us: what should be gone may be
            # served elsewhere or later, and that is worse than a request more.
            removed = await self._writer.remove(key, since)
        errors = [error for error in (found, removed) if isinstance(error, MomentoError)]
        is_removed = isinstance(found, Stored) and not errors
        self._counters.served("deletes", int(is_removed))
        self._error_policy.report("delete", errors[:1])
        return is_removed

    async def delete_many(self, keys: Iterable[str]) -> None:
        """Remove the values."""
        names = list(keys)
        self._flights.mark_many(names)
        outcomes = await self._writer.remove_many(names, self._namespace.stamp())
        errors = [error for error in outcomes if isinstance(error, MomentoError)]
        self._counters.served("deletes", len(names) - len(errors))
        self._error_policy.report("delete_many", errors)

    async def clear(self) -> None:
        """Make absent what this KEY_PREFIX has of all versions."""
        if not self._can_clear:
            raise NotImplementedError("clear() needs a clear marker: CLEAR_MAX_AGE is None")
        self._flights.mark_all()
        error = await self._gateway.clear()
        if error is not None:
            self._error_policy.report("clear", [error])

    async def _read(self, name: str, key: str, *, is_for_write: bool = False) -> Any:
        """Return the value, MISSING where there is none, UNKNOWN where that cannot be said."""
        errors: list[MomentoError] = []
        asked = Operation.get(key, is_for_write=is_for_write)
        value = self._values.value(key, (await self._gateway.one(asked)), errors)
        if not errors:
            return value
        return self._judged(name, value, errors)

    async def _look(self, name: str, key: str) -> Any:
        """Do the same where a copy may answer while the service cannot be asked."""
        if self.near is None:
            return await self._read(name, key)
        errors: list[MomentoError] = []
        return self._judged(name, await self.near.read(key, errors), errors)

    def _judged(self, name: str, value: Any, errors: list[MomentoError]) -> Any:
        self._error_policy.report(name, errors)
        if value is not MISSING or not errors or isinstance(errors[0], StoredValueError):
            return value
        return UNKNOWN

    async def _find(
        self, name: str, key: str, *, is_for_write: bool = False
    ) -> Stored | MomentoError | None:
        """Return what is stored, None where there is nothing of ours, or what went wrong."""
        asked = Operation.get(key, is_for_write=is_for_write)
        found = self._values.opened(key, (await self._gateway.one(asked)))
        if isinstance(found, MomentoError):
            self._error_policy.report(name, [found])
        if not isinstance(found, StoredValueError | None):
            return found
        if self.near is not None:
            # Whatever is there, it is not what was copied.
            self.near.copies.drop(key)
        return None


def _make(config: StoreConfig) -> Store:
    return Store(config, shared_namespace(config.namespace))


_STORES: PerProcess[StoreConfig, Store] = PerProcess(_make, Store.close, RECENT)


def shared_store(config: StoreConfig) -> Store:
    """Return this process's store for a configuration."""
    return _STORES.get(config)


def forget_endpoint(endpoint: str) -> None:
    """Put away all that this process keeps for an endpoint that is no more, such as a test's."""
    _STORES.drop(lambda config: config.options.endpoint == endpoint)
    forget_namespaces(endpoint)
    client.forget_endpoint(endpoint)
