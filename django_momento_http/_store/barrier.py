"""Which keys are being written, so that a read that is under way brings back nothing older.

Before a write its keys are marked, until its deadline and a little longer; what began before that
moment is not to be kept. Marks stand in slots, chosen by hash, so that they need neither a list nor
cleaning up: that two keys share a slot costs a copy, never a promise. It knows no values.
"""

import threading
import time
import weakref
from collections.abc import Callable, Collection
from typing import Protocol

from .keys import UncopiedKey

SLOTS = 4096
# Seconds beyond a write for which the service may still answer reads with what was before.
LAG = 2.0


class Mark:
    """What stands in a slot: what began before ``until`` is not to be kept."""

    __slots__ = ("until",)

    def __init__(self, until: float) -> None:
        self.until = until


class Write:
    """One write that is under way, of one key or many."""

    __slots__ = ("is_answered", "keys", "mark", "others_until", "own")

    def __init__(self, keys: Collection[str], mark: Mark) -> None:
        self.keys = keys
        self.mark = mark
        self.others_until = float("-inf")  # the marks that this one took the place of
        self.is_answered = False  # nothing of it can be carried out later
        self.own: set[str] = set()  # the keys that nobody else was writing when it began


_NO_MARK = Mark(float("-inf"))


class Keeper(Protocol):
    """Who keeps copies of one namespace's values."""

    def drop(self, key: str) -> None:
        """Keep no copy of this key."""

    def forget(self) -> None:
        """Keep no copies."""


class Barrier:
    """The writes of one namespace, whatever alias they come through; safe under threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        # Who keeps copies; none of them, and no write needs to be marked.
        self.keepers: tuple[weakref.ref[Keeper], ...] = ()
        self.slots: list[Mark] = []  # none while nobody keeps copies

    def join(self, keeper: Keeper) -> None:
        """Let somebody keep copies, as long as there is another reference to it."""
        with self._lock:
            if not self.slots:
                self.slots = [_NO_MARK] * SLOTS
            living = [each for each in self.keepers if each() is not None]
            self.keepers = (*living, weakref.ref(keeper))

    def begin(self, keys: Collection[str], seconds: float) -> Write:
        """Mark keys that are about to be written, for so long, and end their copies."""
        now = self._clock()
        write = self._mark(keys, now, now + seconds + LAG)
        self._drop(keys)
        return write

    def end(self, keys: Collection[str], write: Write | None) -> None:
        """Take in that a write has ended, however it did; None: nobody kept copies before."""
        now = self._clock()
        if write is not None and now + LAG <= write.mark.until:
            if write.is_answered:
                # Many keys have a long deadline, and need only part of it.
                write.mark.until = max(now + LAG, write.others_until)
            return
        # It took longer than it had: what was read meanwhile may be from before.
        self._mark(keys, now, now + LAG)
        self._drop(keys)

    def forget(self) -> None:
        """End all copies."""
        for keeper in self._living():
            keeper.forget()

    def _mark(self, keys: Collection[str], now: float, until: float) -> Write:
        mark, slots = Mark(until), self.slots
        write = Write(keys, mark)
        for key in keys:
            index = hash(key) % SLOTS
            # Nothing is called between these two, so that of overlapping writes each sees another.
            before = slots[index]
            slots[index] = mark
            if before is mark or before.until <= now:
                write.own.add(key)
            elif before.until > write.others_until:
                write.others_until = before.until
                mark.until = max(until, before.until)
        return write

    def _drop(self, keys: Collection[str]) -> None:
        for keeper in self._living():
            for key in keys:
                keeper.drop(key)

    def _living(self) -> list[Keeper]:
        keepers = [reference() for reference in self.keepers]
        return [keeper for keeper in keepers if keeper is not None]


class Writing:
    """``with Writing(...) as write:`` keys are being written, for so many seconds at most."""

    __slots__ = ("_barrier", "_keys", "_seconds", "_write")

    def __init__(
        self, barrier: Barrier, keys: Collection[str], seconds: Callable[[int], float]
    ) -> None:
        self._barrier = barrier
        self._keys = keys
        self._seconds = seconds
        self._write: Write | None = None

    def __enter__(self) -> Write | None:
        if self._barrier.keepers:
            self._keys = [key for key in self._keys if type(key) is not UncopiedKey]
            self._write = self._barrier.begin(self._keys, self._seconds(len(self._keys)))
        return self._write

    def __exit__(self, *_: object) -> None:
        if self._barrier.keepers:
            self._barrier.end(self._keys, self._write)
