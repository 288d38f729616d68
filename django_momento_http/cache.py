"""The cache backend that ``BACKEND`` names: Django's contract in Django's words.

It knows keys, versions, timeouts and defaults. What each method does with the service is a plan of
``Store``. Each stands here twice, for threads and for tasks, because before Django 6.1 the ``a*``
methods of ``BaseCache`` do not call those that a backend overrides.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from asgiref.sync import sync_to_async
from django.core.cache.backends.base import DEFAULT_TIMEOUT, InvalidCacheKey
from django.core.exceptions import SynchronousOnlyOperation

from ._backend import StoreBackend
from ._get_or_set import LOADED_IN_LOOP, Call, InLoop, InThread, in_thread, make
from ._process import known_pid, remember_pid
from ._redaction import EmptiedFrames
from ._store.copies import MISSING
from ._store.keys import LONGEST_PLAIN, SESSIONS, UncopiedKey, encode_made_key, encode_plain_key
from ._store.making import Look
from ._store.store import Store


class MomentoCache(StoreBackend):
    """Django's cache, kept in Momento over plain HTTP.

    LOCATION is the cache's name; ``docs/settings.md`` describes OPTIONS. Building one raises
    ``ImproperlyConfigured``; methods raise ``MomentoError`` only with ON_ERROR "raise". Instances
    are cheap, because Django makes one per thread and task: those of one configuration share
    connections and everything else that is worth keeping.
    """

    # Reading

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        store, wire_key = self._store, self._wire_key(key, version)
        if store.near is not None:
            value = store.near.copies.get(wire_key)
            if value is not MISSING:
                return value
        return store.runner.run(lambda: store.get(wire_key, default))

    async def aget(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        store, wire_key = self._store, self._wire_key(key, version)
        if store.near is not None:
            value = store.near.copies.get(wire_key, LOADED_IN_LOOP)
            if value is not MISSING:
                return value
        return await store.runner.arun(lambda: store.get(wire_key, default))

    def get_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        store, names = self._store, self._wire_keys(keys, version)
        if store.near is None:
            return store.runner.run(lambda: store.get_many(names))
        found, left = store.near.copies.get_many(names)
        return found | store.runner.run(lambda: store.get_many(left)) if left else found

    async def aget_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        store, names = self._store, self._wire_keys(keys, version)
        if store.near is None:
            return await store.runner.arun(lambda: store.get_many(names))
        found, left = store.near.copies.get_many(names, LOADED_IN_LOOP)
        return found | await store.runner.arun(lambda: store.get_many(left)) if left else found

    def has_key(self, key: Any, version: int | None = None) -> bool:
        store, wire_key = self._store, self._wire_key(key, version)
        return store.runner.run(lambda: store.has_key(wire_key))

    async def ahas_key(self, key: Any, version: int | None = None) -> bool:
        store, wire_key = self._store, self._wire_key(key, version)
        if store.near is not None and store.near.copies.has(wire_key, LOADED_IN_LOOP):
            return True
        return await store.runner.arun(lambda: store.has_key(wire_key))

    def ttl(self, key: Any, version: int | None = None) -> float | None:
        """Return the seconds left, None for no expiry, 0 when the key is absent; one request."""
        store, wire_key = self._store, self._wire_key(key, version)
        return store.runner.run(lambda: store.ttl(wire_key))

    async def attl(self, key: Any, version: int | None = None) -> float | None:
        """See ttl()."""
        store, wire_key = self._store, self._wire_key(key, version)
        return await store.runner.arun(lambda: store.ttl(wire_key))

    # Writing

    def set(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        store, wire_key = self._store, self._wire_key(key, version)
        payload, seconds = store.dumps(value), self._seconds(timeout)
        store.runner.run(lambda: store.set(wire_key, payload, seconds))

    async def aset(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        store, wire_key = self._store, self._wire_key(key, version)
        payload, seconds = await self._dumps(value), self._seconds(timeout)
        await store.runner.arun(lambda: store.set(wire_key, payload, seconds))

    def set_many(
        self,
        data: Mapping[Any, Any],
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> list[Any]:
        store = self._store
        names = self._wire_keys(data, version)
        payloads = {wire_key: store.dumps(data[key]) for wire_key, key in names.items()}
        seconds = self._seconds(timeout)
        failed = store.runner.run(lambda: store.set_many(payloads, seconds))
        return [names[wire_key] for wire_key in failed]

    async def aset_many(
        self,
        data: Mapping[Any, Any],
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> list[Any]:
        store = self._store
        names = self._wire_keys(data, version)
        payloads = {wire_key: await self._dumps(data[key]) for wire_key, key in names.items()}
        seconds = self._seconds(timeout)
        failed = await store.runner.arun(lambda: store.set_many(payloads, seconds))
        return [names[wire_key] for wire_key in failed]

    def add(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        store, wire_key = self._store, self._wire_key(key, version)
        payload, seconds = store.dumps(value), self._seconds(timeout)
        return store.runner.run(lambda: store.add(wire_key, payload, seconds))

    async def aadd(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        store, wire_key = self._store, self._wire_key(key, version)
        payload, seconds = await self._dumps(value), self._seconds(timeout)
        return await store.runner.arun(lambda: store.add(wire_key, payload, seconds))

    def get_or_set(
        self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Any:
        store, wire_key = self._store, self._wire_key(key, version)
        ended, draw = store.making.flights.ended, store.making.draw()
        if store.near is not None:
            value = store.making.copied(wire_key, draw)
            if value is not MISSING:
                return value
        found = store.runner.run(lambda: store.look(wire_key, draw))
        if type(found) is not Look:
            return found
        call = Call(wire_key, default, self._seconds(timeout), ended)
        caller = InThread(store)
        return in_thread(lambda: make(call, found, caller))

    async def aget_or_set(
        self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Any:
        store, wire_key = self._store, self._wire_key(key, version)
        making = store.making
        ended, draw = making.flights.ended, making.draw()
        if store.near is not None:
            value = making.copied(wire_key, draw, LOADED_IN_LOOP)
            if value is not MISSING:
                return value
        found = await store.runner.arun(lambda: store.look(wire_key, draw))
        if type(found) is not Look:
            return found
        call = Call(wire_key, default, self._seconds(timeout), ended)
        return await make(call, found, InLoop(store))

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        store = self._store
        wire_key, seconds = self._wire_key(key, version), self._seconds(timeout)
        return store.runner.run(lambda: store.touch(wire_key, seconds))

    async def atouch(
        self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        store = self._store
        wire_key, seconds = self._wire_key(key, version), self._seconds(timeout)
        return await store.runner.arun(lambda: store.touch(wire_key, seconds))

    def incr(self, key: Any, delta: Any = 1, version: int | None = None) -> Any:
        store, wire_key = self._store, self._wire_key(key, version)
        return store.runner.run(lambda: store.incr(wire_key, delta))

    async def aincr(self, key: Any, delta: Any = 1, version: int | None = None) -> Any:
        store, wire_key = self._store, self._wire_key(key, version)
        return await store.runner.arun(lambda: store.incr(wire_key, delta))

    def decr(self, key: Any, delta: Any = 1, version: int | None = None) -> Any:
        return self.incr(key, -delta, version)

    async def adecr(self, key: Any, delta: Any = 1, version: int | None = None) -> Any:
        return await self.aincr(key, -delta, version)

    def incr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        store = self._store
        old = self.version if version is None else version
        there, to = self._wire_key(key, old), self._wire_key(key, old + delta)
        store.runner.run(lambda: store.move(there, to))
        return old + delta

    async def aincr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        store = self._store
        old = self.version if version is None else version
        there, to = self._wire_key(key, old), self._wire_key(key, old + delta)
        await store.runner.arun(lambda: store.move(there, to))
        return old + delta

    def decr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        return self.incr_version(key, -delta, version)

    async def adecr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        return await self.aincr_version(key, -delta, version)

    def delete(self, key: Any, version: int | None = None) -> bool:
        store, wire_key = self._store, self._wire_key(key, version)
        return store.runner.run(lambda: store.delete(wire_key))

    async def adelete(self, key: Any, version: int | None = None) -> bool:
        store, wire_key = self._store, self._wire_key(key, version)
        return await store.runner.arun(lambda: store.delete(wire_key))

    def delete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        store, wire_keys = self._store, self._wire_keys(keys, version)
        store.runner.run(lambda: store.delete_many(wire_keys))

    async def adelete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        store, wire_keys = self._store, self._wire_keys(keys, version)
        await store.runner.arun(lambda: store.delete_many(wire_keys))

    def clear(self) -> None:
        store = self._store
        store.runner.run(store.clear)

    async def aclear(self) -> None:
        store = self._store
        await store.runner.arun(store.clear)

    def close(self, **_: Any) -> None:
        """Keep the connections: Django calls this after every request."""

    async def aclose(self, **_: Any) -> None:
        """See close()."""

    def stats(self) -> dict[str, object]:
        """Return what this configuration did in this process: see ``docs/methods.md``."""
        return self._store.stats()

    # Keys, timeouts and the shared store

    def _wire_key(self, key: Any, version: int | None) -> str:
        if self._makes_keys:
            made = self.make_and_validate_key(key, version=version)
        else:
            made = self.make_key(key, version=version)
            if len(made) <= LONGEST_PLAIN and not self._checks_all_keys:
                wire_key = encode_plain_key(made)
                if wire_key:
                    return _uncopied(key, wire_key) if self._hides_keys else wire_key
            self.validate_key(made)
        with suppress(UnicodeEncodeError):
            wire_key = encode_made_key(made)
            return _uncopied(key, wire_key) if self._hides_keys else wire_key
        # Without the error as its cause, which would show the key.
        raise InvalidCacheKey("a cache key must be text that UTF-8 can encode; it has a surrogate")

    def _wire_keys(self, keys: Iterable[Any], version: int | None) -> dict[str, Any]:
        return {self._wire_key(key, version): key for key in keys}

    def _seconds(self, timeout: Any) -> Any:
        if timeout is DEFAULT_TIMEOUT:
            return self.default_timeout
        if timeout != timeout:
            raise ValueError(f"timeout must be a number of seconds, or None, not {timeout!r}")
        return timeout

    async def _dumps(self, value: Any) -> bytes:
        """Serialize in the task, or where Django lets a task query the database."""
        with suppress(SynchronousOnlyOperation):  # an unevaluated queryset
            return self._store.dumps(value)
        return await sync_to_async(self._store.dumps, thread_sensitive=True)(value)

    @property
    def _store(self) -> Store:
        shared = self._shared
        if shared.pid == known_pid[0] or shared.pid == remember_pid():
            return shared
        # Closed, or inherited through a fork.
        with EmptiedFrames():  # signers are made anew, with the keys at hand
            self._shared = self._find_store()
        return self._shared


def _uncopied(key: Any, wire_key: str) -> str:
    """Return the key on the wire so that no copies are kept of a session, by the caller's key."""
    is_session = isinstance(key, str) and key.startswith(SESSIONS)
    return UncopiedKey(wire_key) if is_session else wire_key
