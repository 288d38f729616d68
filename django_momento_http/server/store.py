"""The items: values by cache and key, until they expire or make room. It knows no HTTP."""

from collections import OrderedDict
from collections.abc import Callable, Iterable

from .limits import MAX_MEMORY
from .messages import Item

# Expired items are looked for when the store has doubled since the last time, and holds this much.
_SWEEP_BYTES = 16 * 1024 * 1024
# What one stored item costs beside its key and its value, measured: slots, objects, their headers.
_ITEM_OVERHEAD = 512


class ItemStore:
    """Items of several caches, until they expire by the clock that is passed in.

    They take ``max_bytes`` at most: the least recently used go first. What has been replaced or
    deleted counts for as long as an answer still sends it.
    """

    def __init__(
        self, caches: Iterable[str], clock: Callable[[], float], max_bytes: int = MAX_MEMORY
    ) -> None:
        self._clock = clock
        self._caches = frozenset(caches)
        self._items: OrderedDict[tuple[str, bytes], Item] = OrderedDict()
        self._max_bytes = max_bytes
        self._bytes = 0
        self._sweep_at = _SWEEP_BYTES

    def __contains__(self, cache: str) -> bool:
        return cache in self._caches

    def get(self, cache: str, key: bytes) -> Item | None:
        """Return the item, or None when it is absent or expired."""
        item = self._items.get((cache, key))
        if item is None:
            return None
        if item.expires > self._clock():
            self._items.move_to_end((cache, key))
            return item
        self.delete(cache, key)
        return None

    def put(self, cache: str, key: bytes, value: bytes, ttl_seconds: float) -> bool:
        """Store the value for so many seconds; False: there is no room, and the old one is gone."""
        if cache not in self._caches:
            raise KeyError(cache)
        self.delete(cache, key)
        item = Item(value, self._clock() + ttl_seconds, len(key) + len(value) + _ITEM_OVERHEAD)
        if not self._has_room(item.size):
            return False
        self._items[cache, key] = item
        self._bytes += item.size
        if self._bytes > self._sweep_at:
            self._sweep()
        return True

    def delete(self, cache: str, key: bytes) -> None:
        """Forget the value, if there is one."""
        item = self._items.pop((cache, key), None)
        if item is not None:
            self._drop(item)

    def hold(self, item: Item) -> None:
        """Count the item as kept until it is released, whatever happens to it meanwhile."""
        item.readers += 1

    def release(self, item: Item) -> None:
        """Undo one ``hold``."""
        item.readers -= 1
        self._count_out(item)

    def items(self) -> dict[tuple[str, bytes], bytes]:
        """Return the values that are alive, by cache and key."""
        self._sweep()
        return {name: item.value for name, item in self._items.items()}

    def _has_room(self, size: int) -> bool:
        while self._bytes + size > self._max_bytes and self._items:
            self._drop(self._items.popitem(last=False)[1])
        return self._bytes + size <= self._max_bytes

    def _drop(self, item: Item) -> None:
        item.is_stored = False
        self._count_out(item)

    def _count_out(self, item: Item) -> None:
        if not item.is_stored and not item.readers:
            self._bytes -= item.size

    def _sweep(self) -> None:
        now = self._clock()
        for name in [name for name, item in self._items.items() if item.expires <= now]:
            self.delete(*name)
        self._sweep_at = max(_SWEEP_BYTES, 2 * self._bytes)
