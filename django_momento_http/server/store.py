"""The items: values by cache and key, until they expire. It knows no limits and no HTTP."""

from collections.abc import Callable, Iterable

# Expired items are looked for when the store has doubled since the last time, and holds this much.
_SWEEP_BYTES = 16 * 1024 * 1024
# What one stored item costs beside its key and its value: dictionary slot, tuple, three headers.
_ITEM_OVERHEAD = 256


class Store:
    """Items of several caches, until they expire by the clock that is passed in."""

    def __init__(self, caches: Iterable[str], clock: Callable[[], float]) -> None:
        self._clock = clock
        self._caches: dict[str, dict[bytes, tuple[bytes, float]]] = {name: {} for name in caches}
        self._bytes = 0
        self._sweep_at = _SWEEP_BYTES

    def __contains__(self, cache: str) -> bool:
        return cache in self._caches

    def get(self, cache: str, key: bytes) -> bytes | None:
        """Return the value, or None when it is absent or expired."""
        found = self._caches[cache].get(key)
        if found is None:
            return None
        value, expires = found
        if expires > self._clock():
            return value
        self.delete(cache, key)
        return None

    def put(self, cache: str, key: bytes, value: bytes, ttl_seconds: float) -> None:
        """Store the value for so many seconds."""
        self.delete(cache, key)
        self._caches[cache][key] = (value, self._clock() + ttl_seconds)
        self._bytes += len(key) + len(value) + _ITEM_OVERHEAD
        if self._bytes > self._sweep_at:
            self._sweep()

    def delete(self, cache: str, key: bytes) -> None:
        """Forget the value, if there is one."""
        found = self._caches[cache].pop(key, None)
        if found is not None:
            self._bytes -= len(key) + len(found[0]) + _ITEM_OVERHEAD

    def items(self) -> dict[tuple[str, bytes], bytes]:
        """Return the values that are alive, by cache and key."""
        self._sweep()
        return {
            (cache, key): value
            for cache, items in self._caches.items()
            for key, (value, _) in items.items()
        }

    def _sweep(self) -> None:
        now = self._clock()
        for cache, items in self._caches.items():
            for key in [key for key, (_, expires) in items.items() if expires <= now]:
                self.delete(cache, key)
        self._sweep_at = max(_SWEEP_BYTES, 2 * self._bytes)
