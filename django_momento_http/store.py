"""What each cache method does with get, set and delete, as plans; values in, values out.

Each method is a generator for a ``Runner``. It knows stored values, generations and lifetimes, what
ON_ERROR asks for, and nothing of versions, defaults or how requests travel.
"""

import logging
import math
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Number
from typing import Any, NamedTuple, TypeVar

from . import client
from .client import Operation, Outcome, shared_client
from .conf import Options
from .envelope import Envelope, Stored
from .exceptions import AccessDenied, BadRequest, CacheNotFound, MomentoError, StoredValueError
from .failures import LogLimiter
from .generation import AnyGeneration, Generation
from .process import PerProcess
from .runner import Outcomes, Plan, Runner

logger = logging.getLogger("django_momento_http")

K = TypeVar("K")

# The longest time to live that fits every reading of an integer of seconds: 68 years.
_FOREVER = 2**31 - 1
# What waiting does not mend.
_LOUD = (AccessDenied, BadRequest, CacheNotFound)
_MISSING: Any = object()
# The key stays out of it: messages end up in logs.
_NOT_THERE = "the cache has no such key"


class _Lifetime(NamedTuple):
    ttl: int
    expires_at: float | None


@dataclass(frozen=True)
class Space:
    """What tells one store from another: a configuration, a KEY_PREFIX and the signing keys."""

    options: Options
    key_prefix: str
    secrets: tuple[bytes, ...] = field(repr=False)

    @property
    def marker(self) -> str:
        """The clear marker's key on the wire."""
        # No key of a user begins with this byte: they are UTF-8.
        return encode_key(b"\xffclear:" + self.key_prefix.encode("utf-8", "surrogatepass"))

    def envelope(self) -> Envelope:
        """Return what seals and opens the values of this space."""
        options = self.options
        return Envelope(
            options.location,
            self.key_prefix,
            self.secrets,
            options.serializer,
            options.compressor,
            options.compress_min_bytes,
        )


def encode_key(key: bytes) -> str:
    """Return a key as it stands on the wire: unpadded URL-safe Base64."""
    return urlsafe_b64encode(key).rstrip(b"=").decode("ascii")


class Store:
    """One Momento cache and KEY_PREFIX as this process uses it; safe under threads."""

    def __init__(
        self,
        space: Space,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        options = space.options
        self._location = options.location
        self._raises = options.on_error == "raise"
        self._max_ttl = options.max_ttl
        self._clock = clock
        self._wall_clock = wall_clock
        self._marker = space.marker
        self._generation: Generation | AnyGeneration = AnyGeneration()
        if options.clear_max_age is not None:
            self._generation = Generation(options.clear_max_age, clock)
        self._envelope = space.envelope()
        self._client = shared_client(options)
        self._counters = self._client.counters
        self._limiter = LogLimiter(clock)
        runner = Runner(self._client)
        self.run, self.arun = runner.run, runner.arun
        self.is_closed = False

    def __repr__(self) -> str:
        return f"<Store {self._location!r} {self._client!r} {self._generation!r}>"

    def close(self) -> None:
        """Mark this store as left behind; its connections are the client's."""
        self.is_closed = True

    def stats(self) -> dict[str, object]:
        """Return the counters of this configuration in this process."""
        return self._client.stats()

    # Reading

    def get(self, key: str, default: Any, unknown: Any = _MISSING) -> Plan[Any]:
        """Return the value, or the default; ``unknown`` where the service could not say."""
        failures: list[MomentoError] = []
        [value] = yield from self._values("get", [key], failures)
        if value is not _MISSING:
            return value
        is_known = unknown is _MISSING or all(isinstance(f, StoredValueError) for f in failures)
        return default if is_known else unknown

    def get_many(self, names: Mapping[str, K]) -> Plan[dict[K, Any]]:
        """Return the values that there are, under the names that the keys stand for."""
        values = yield from self._values("get_many", list(names), [])
        pairs = zip(names.values(), values, strict=True)
        return {name: value for name, value in pairs if value is not _MISSING}

    def has_key(self, key: str) -> Plan[bool]:
        """Return whether there is a value."""
        found = yield from self._find("has_key", key)
        return isinstance(found, Stored)

    def ttl(self, key: str) -> Plan[float | None]:
        """Return the seconds left, None for no expiry, 0 when there is no value."""
        found = yield from self._find("ttl", key)
        if not isinstance(found, Stored):
            return 0.0
        if found.expires_at is None:
            return None
        return max(found.expires_at - self._wall_clock(), 0.0)

    # Writing: payloads are values that went through dumps().

    def dumps(self, value: Any) -> bytes:
        """Return the value, serialized; raise what the serializer raises.

        It is for the caller's own thread: serializing may run any code, a query of the database for
        one.
        """
        return self._envelope.dumps(value)

    def set(self, key: str, payload: bytes, timeout: float | None) -> Plan[None]:
        """Store the value, or remove it where the timeout is 0 or less."""
        yield from self.set_many({key: payload}, timeout, "set")

    def set_many(
        self, payloads: Mapping[str, bytes], timeout: float | None, name: str = "set_many"
    ) -> Plan[list[str]]:
        """Store the values and return the keys of those that were not."""
        life = self._lifetime(timeout)
        failed = yield from self._write(name, self._packed(payloads, life), life.ttl)
        self._counters.served("sets", len(payloads) - len(failed))
        return failed

    def add(self, key: str, payload: bytes, timeout: float | None) -> Plan[bool]:
        """Store the value where there is none, and return whether it was stored; not atomic."""
        life = self._lifetime(timeout)
        items = self._packed({key: payload}, life)
        found = yield from self._find("add", key)
        if found is not None:
            return False
        return not (yield from self._write("add", items, life.ttl))

    def get_or_add(self, key: str, value: Any, payload: bytes, timeout: float | None) -> Plan[Any]:
        """Return the value that is there, or else this one, which is then stored."""
        life = self._lifetime(timeout)
        items = self._packed({key: payload}, life)
        found = yield from self._find("get_or_set", key)
        if isinstance(found, Stored):
            there = self._loaded("get_or_set", found)
            return value if there is _MISSING else there
        if found is None:
            yield from self._write("get_or_set", items, life.ttl)
        return value

    def touch(self, key: str, timeout: float | None) -> Plan[bool]:
        """Give the value a new lifetime, without loading it, and return whether there was one."""
        found = yield from self._find("touch", key)
        if not isinstance(found, Stored):
            return False
        life = self._lifetime(timeout)
        renewed = found._replace(expires_at=life.expires_at)
        return not (yield from self._write("touch", {key: renewed}, life.ttl))

    def incr(self, key: str, delta: Any) -> Plan[Any]:
        """Add to a number, which keeps its lifetime, and return it; not atomic."""
        found = yield from self._find("incr", key)
        value = self._loaded("incr", found) if isinstance(found, Stored) else _MISSING
        if value is _MISSING or not isinstance(found, Stored):
            raise ValueError(_NOT_THERE)
        if not isinstance(value, Number):
            raise TypeError(f"cannot add to a value of type {type(value).__name__}")
        total = value + delta
        changed = self._envelope.pack(self._envelope.dumps(total), found.expires_at)
        if (yield from self._write("incr", {key: changed}, self._ttl_left(found))):
            raise ValueError(_NOT_THERE)
        return total

    def move(self, key: str, new_key: str) -> Plan[None]:
        """Store the value under another key, with the lifetime that is left, and remove it here."""
        found = yield from self._find("incr_version", key)
        if not isinstance(found, Stored):
            raise ValueError(_NOT_THERE)
        if (yield from self._write("incr_version", {new_key: found}, self._ttl_left(found))):
            raise ValueError(_NOT_THERE)
        yield from self._remove("incr_version", [key])

    def delete(self, key: str) -> Plan[bool]:
        """Remove the value and return whether there was one."""
        [outcome] = yield from self._all([Operation.get(key)])
        if outcome is None:
            return False
        found = self._opened(key, outcome)
        # Also where the look failed, or what is there is not for us: what should be gone may be
        # served elsewhere or later, and that is worse than a request more.
        [removed] = yield from self._all([Operation.delete(key)])
        failures = [error for error in (found, removed) if isinstance(error, MomentoError)]
        is_removed = isinstance(found, Stored) and not failures
        self._counters.served("deletes", int(is_removed))
        self._report("delete", failures[:1])
        return is_removed

    def delete_many(self, keys: Iterable[str]) -> Plan[None]:
        """Remove the values."""
        removed = yield from self._remove("delete_many", list(keys))
        self._counters.served("deletes", removed)

    def clear(self) -> Plan[None]:
        """Make this KEY_PREFIX's values of all versions a thing of the past."""
        if isinstance(self._generation, AnyGeneration):
            raise NotImplementedError("clear() needs a clear marker: CLEAR_MAX_AGE is None")
        if self._generation.is_due():
            yield from self._ask_marker([])
        newest = max(self._generation.current + 1, int(self._wall_clock() * 1000))
        # Before the marker is written: whatever becomes of it, this process has forgotten.
        self._generation.move(newest)
        body = self._envelope.seal_marker(self._marker, newest)
        ttl = self._lifetime(None).ttl
        [outcome] = yield from self._all([Operation.set(self._marker, body, ttl)])
        if isinstance(outcome, MomentoError):
            self._report("clear", [outcome])

    # Stored values

    def _values(self, name: str, keys: list[str], failures: list[MomentoError]) -> Plan[list[Any]]:
        """Return the values in the order of the keys, _MISSING where none is to be had."""
        values = [_MISSING] * len(keys)
        # Each is loaded as it comes, while others are still under way.
        for index, outcome in (yield from self._ask([Operation.get(key) for key in keys])):
            found = self._opened(keys[index], outcome)
            if isinstance(found, Stored):
                values[index] = self._load(found, failures)
            elif found is not None:
                failures.append(found)
        hits = len(values) - values.count(_MISSING)
        self._counters.served("hits", hits)
        self._counters.served("misses", len(values) - hits)
        self._report(name, failures)
        return values

    def _find(self, name: str, key: str) -> Plan[Stored | MomentoError | None]:
        """Return what is stored, None where there is nothing of ours, or what went wrong."""
        found = yield from self._look(key)
        if isinstance(found, MomentoError):
            self._report(name, [found])
        return None if isinstance(found, StoredValueError) else found

    def _look(self, key: str) -> Plan[Stored | MomentoError | None]:
        [outcome] = yield from self._all([Operation.get(key)])
        return self._opened(key, outcome)

    def _opened(self, key: str, outcome: Outcome) -> Stored | MomentoError | None:
        if outcome is None or isinstance(outcome, MomentoError):
            return outcome
        try:
            stored = self._envelope.open(key, outcome, self._wall_clock())
        except StoredValueError as error:
            return error.with_traceback(None)
        return stored if self._generation.accepts(stored.generation) else None

    def _load(self, stored: Stored, failures: list[MomentoError]) -> Any:
        try:
            return self._envelope.load(stored)
        except StoredValueError as error:
            failures.append(error.with_traceback(None))
            return _MISSING

    def _loaded(self, name: str, stored: Stored) -> Any:
        failures: list[MomentoError] = []
        value = self._load(stored, failures)
        self._report(name, failures)
        return value

    def _packed(self, payloads: Mapping[str, bytes], life: "_Lifetime") -> dict[str, Stored]:
        return {key: self._envelope.pack(data, life.expires_at) for key, data in payloads.items()}

    def _lifetime(self, timeout: float | None) -> "_Lifetime":
        longest = self._max_ttl
        if timeout is None and longest is None:
            return _Lifetime(_FOREVER, None)
        if timeout is not None and timeout <= 0:
            return _Lifetime(0, None)
        limit = _FOREVER if longest is None else longest
        seconds = limit if timeout is None else min(timeout, limit)
        return _Lifetime(math.ceil(seconds), self._wall_clock() + seconds)

    def _ttl_left(self, stored: Stored) -> int:
        if stored.expires_at is None:
            return self._lifetime(None).ttl
        # Present to the service, whatever our clock says: at least one second more.
        return max(self._lifetime(stored.expires_at - self._wall_clock()).ttl, 1)

    # Requests

    def _write(self, name: str, items: Mapping[str, Stored], ttl: int) -> Plan[list[str]]:
        """Store the items, or remove them where the ttl is 0; return the keys that failed."""
        if ttl == 0:
            outcomes = yield from self._all([Operation.delete(key) for key in items])
        else:
            outcomes = yield from self._put(items, ttl)
        pairs = list(zip(items, outcomes, strict=True))
        self._report(name, [error for _, error in pairs if isinstance(error, MomentoError)])
        return [key for key, outcome in pairs if isinstance(outcome, MomentoError)]

    def _put(self, items: Mapping[str, Stored], ttl: int) -> Plan[list[Outcome]]:
        generation = self._generation.current
        outcomes = yield from self._all(self._sealed(items, ttl))
        if self._generation.current != generation:
            # Another process's clear() came to light: nobody would read what was just written.
            outcomes = yield from self._all(self._sealed(items, ttl))
        pairs = zip(items, outcomes, strict=True)
        # What was refused leaves the old value behind, and a stale value is worse than none.
        refused = [key for key, outcome in pairs if isinstance(outcome, BadRequest)]
        yield from self._all([Operation.delete(key) for key in refused])
        return outcomes

    def _sealed(self, items: Mapping[str, Stored], ttl: int) -> list[Operation]:
        generation = self._generation.current
        return [
            Operation.set(
                key, self._envelope.seal(key, stored._replace(generation=generation)), ttl
            )
            for key, stored in items.items()
        ]

    def _remove(self, name: str, keys: list[str]) -> Plan[int]:
        outcomes = yield from self._all([Operation.delete(key) for key in keys])
        failures = [error for error in outcomes if isinstance(error, MomentoError)]
        self._report(name, failures)
        return len(outcomes) - len(failures)

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
        if operations[0].method == "DELETE" or not self._generation.is_due():
            return (yield operations)
        return (yield from self._ask_marker(operations))

    def _ask_marker(self, operations: list[Operation]) -> Plan[Outcomes]:
        asked_at = self._clock()
        outcomes = dict((yield [*operations, Operation.get(self._marker)]))
        marker = self._opened_marker(outcomes.pop(len(operations)))
        if isinstance(marker, MomentoError):
            self._log("reading the clear marker", marker)
            self._generation.miss()
        else:
            self._generation.learn(marker, asked_at)
        return outcomes.items()

    def _opened_marker(self, outcome: Outcome) -> int | MomentoError | None:
        if outcome is None or isinstance(outcome, MomentoError):
            return outcome
        try:
            return self._envelope.open(self._marker, outcome, self._wall_clock()).generation
        except StoredValueError as error:
            # Signed with a key that is no longer ours, as the values of its time are, too.
            self._log("reading the clear marker", error)
            return None

    # Trouble

    def _report(self, name: str, failures: list[MomentoError]) -> None:
        """Do what ON_ERROR asks for: raise the first, or log them all."""
        if self._raises and failures:
            raise failures[0].about(name, self._location)
        for error in failures:
            self._log(name, error)

    def _log(self, name: str, error: MomentoError) -> None:
        held_back = self._limiter.allow(name, error.kind)
        if held_back is None:
            return
        logger.log(
            logging.ERROR if isinstance(error, _LOUD) else logging.WARNING,
            "%s on the Momento cache %r: %s: %s (%.3f s; %d more like it were not logged)",
            name,
            self._location,
            error.kind,
            error.reason,
            error.elapsed,
            held_back,
        )


_STORES: PerProcess[Space, Store] = PerProcess(Store, Store.close)


def shared_store(space: Space) -> Store:
    """Return this process's store for a space."""
    return _STORES.get(space)


def forget_endpoint(endpoint: str) -> None:
    """Put away all that this process keeps for an endpoint that is no more, such as a test's."""
    _STORES.drop(lambda space: space.options.endpoint == endpoint)
    client.forget_endpoint(endpoint)
