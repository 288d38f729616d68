"""Copies of values in this process: bounded by bytes, read without a lock, never older than said.

A copy is the bytes that the serializer made. Each hit loads them anew, so that nobody meets what
another does to a value. Both clocks must agree that a copy is young: the monotonic one stands still
while a machine is suspended, the wall clock may be set. It knows nothing of requests.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import chain, islice
from typing import Any, NamedTuple, TypeVar

from .._client.counters import NearCounters, Tally
from .._interrupts import is_raised_by_signal_handler
from .barrier import SLOTS, Barrier, Write
from .generation import Generation
from .keys import UncopiedKey

K = TypeVar("K")

MISSING: Any = object()
# What an entry takes beside the characters of its payload and its key, in bytes: 400 to 447 were
# measured with tracemalloc, for any number of entries from 700; 24 more where it may be early.
OVERHEAD = 472
# One entry takes at most this share of the memory.
_LARGEST = 1 / 8
# The wall clock went back when it is this many seconds behind what the monotonic one says. It may
# be a little, without having been set: clocks are read one after the other, and are slewed.
_BACK = -0.1
# Entries that are spared in turn for having been used, before one goes all the same.
_SPARED = 64
_ENDLESS = float("inf")


class Instant(NamedTuple):
    """When something was asked for, by both clocks."""

    clock: float
    wall_clock: float


_LATER = Instant(_ENDLESS, _ENDLESS)


class Limits(NamedTuple):
    """Seconds for which a copy answers, seconds beyond that in an outage, and bytes in all."""

    max_age: float
    max_stale: float
    max_bytes: int


class Copy:
    """One value as it was read or written.

    It answers before ``until``, and before ``ends`` while the service cannot be asked, both by the
    monotonic clock; ``ahead`` is what the wall clock was ahead of that, when it ``began``.
    """

    __slots__ = (
        "ahead",
        "began",
        "ends",
        "epoch",
        "expires_at",
        "is_used",
        "loads",
        "margin",
        "payload",
        "size",
        "until",
    )

    def __init__(
        self,
        payload: bytes,
        loads: Callable[[bytes], Any],
        expires_at: float | None,
        since: Instant,
        epoch: int,
        margin: float = 0.0,
    ) -> None:
        self.payload = payload
        self.margin = margin
        self.loads = loads
        self.expires_at = expires_at
        self.epoch = epoch
        self.began, wall_clock = since
        self.ahead = wall_clock - self.began
        self.until = self.ends = _ENDLESS if expires_at is None else expires_at - self.ahead
        self.is_used = False
        self.size = 0


class Copies:
    """The copies of one alias; safe under threads, and within signal handlers."""

    def __init__(
        self,
        barrier: Barrier,
        generation: Generation,
        limits: Limits,
        counters: NearCounters,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._barrier = barrier
        self._generation = generation
        self._limits = limits
        self._largest = int(limits.max_bytes * _LARGEST)
        self._counters = counters
        self._hit = counters.hits.add
        self._clock = clock
        self._wall_clock = wall_clock
        self._lock = threading.RLock()
        self._entries: OrderedDict[str, Copy] = OrderedDict()
        self.size = 0  # bytes, bookkeeping included
        counters.join(self)
        barrier.join(self)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Copies {len(self)} of {self.size} bytes>"

    # Answering

    def get(self, key: str, most: int | None = None) -> Any:
        """Return the value, loaded anew; MISSING where no copy of at most so many bytes answers."""
        copy = self._entries.get(key)
        if copy is None:
            return MISSING
        # In few steps: this is what copies are for.
        now, until = self._clock(), copy.until
        if (
            now < until
            and _BACK <= self._wall_clock() - now - copy.ahead < until - now
            and copy.epoch == self._generation.epoch
            and (most is None or len(copy.payload) <= most)
        ):
            try:
                value = copy.loads(copy.payload)
            except Exception as error:
                if is_raised_by_signal_handler(error):
                    raise
                # What is wrong with it, whoever asks the service for the key is told.
                return MISSING
            copy.is_used = True
            self._hit()
            return value
        return MISSING

    def get_many(
        self, names: Mapping[str, K], most: int | None = None
    ) -> tuple[dict[K, Any], dict[str, K]]:
        """Return the values under their names, and those of which no copy answers.

        ``most`` is how many bytes are loaded in all.
        """
        found: dict[K, Any] = {}
        left: dict[str, K] = {}
        now, ahead = self._clock(), self._wall_clock()
        ahead -= now
        find, epoch, hit = self._entries.get, self._generation.epoch, self._hit
        for key, name in names.items():
            copy = find(key)
            if (
                copy is not None
                and now < copy.until
                and _BACK <= ahead - copy.ahead < copy.until - now
                and copy.epoch == epoch
                and (most is None or len(copy.payload) <= most)
            ):
                if most is not None:
                    most -= len(copy.payload)
                try:
                    found[name] = copy.loads(copy.payload)
                except Exception as error:
                    if is_raised_by_signal_handler(error):
                        raise
                else:
                    copy.is_used = True
                    hit()
                    continue
            left[key] = name
        return found, left

    def has(self, key: str, most: int | None = None) -> bool:
        """Whether get() would return a value."""
        copy = self.find(key)
        if copy is None or (most is not None and len(copy.payload) > most):
            return False
        return self._loaded(copy, self._counters.looks) is not MISSING

    def expiry(self, key: str, *, is_stale: bool = False) -> tuple[float | None] | None:
        """Return when the value expires, in seconds since 1970; None where no copy answers."""
        copy = self.find(key, is_stale=is_stale)
        if copy is None:
            return None
        (self._counters.stale if is_stale else self._counters.looks).add()
        return (copy.expires_at,)

    def find(self, key: str, *, is_stale: bool = False) -> Copy | None:
        """Return the copy that answers, ``is_stale``: while the service cannot be asked, if any."""
        copy = self._entries.get(key)
        if copy is None:
            return None
        return copy if self._answers(copy, copy.ends if is_stale else copy.until) else None

    def get_stale(self, key: str) -> Any:
        """Return the value as it is served while the service cannot be asked, or MISSING."""
        copy = self.find(key, is_stale=True)
        return MISSING if copy is None else self._loaded(copy, self._counters.stale)

    def _answers(self, copy: Copy, until: float) -> bool:
        now = self._clock()
        return (
            now < until
            and _BACK <= self._wall_clock() - now - copy.ahead < until - now
            and copy.epoch == self._generation.epoch
        )

    def _loaded(self, copy: Copy, tally: Tally) -> Any:
        try:
            value = copy.loads(copy.payload)
        except Exception as error:
            if is_raised_by_signal_handler(error):
                raise
            # Whoever then reads the key from the service is told what is wrong with it.
            return MISSING
        copy.is_used = True
        tally.add()
        return value

    # Keeping

    def moment(self) -> Instant:
        """Return the present: call it before what is to be kept is asked for."""
        return Instant(self._clock(), self._wall_clock())

    @property
    def epoch(self) -> int:
        """A number for which values are served: read it before a value is judged."""
        return self._generation.epoch

    def keep(
        self,
        key: str,
        payload: bytes,
        loads: Callable[[bytes], Any],
        expires_at: float | None,
        since: Instant,
        epoch: int,
        write: Write | None = None,
        margin: float = 0.0,
    ) -> None:
        """Keep what was read since then, or was written, unless it may be out of date.

        ``margin`` says how early it may be made anew (see ``early``).
        """
        copy = Copy(payload, loads, expires_at, since, epoch, margin)
        max_age, max_stale, _ = self._limits
        copy.until = min(copy.until, copy.began + max_age)
        copy.ends = min(copy.ends, copy.began + max_age + max_stale)
        copy.size = len(payload) + len(key) + OVERHEAD
        if type(key) is UncopiedKey:
            return
        if copy.size > self._largest:
            self.drop(key)
        elif write is None or key in write.own:
            self._put(key, copy, write)

    def _put(self, key: str, copy: Copy, write: Write | None) -> None:
        slots, generation, index = self._barrier.slots, self._generation, hash(key) % SLOTS
        mark = write.mark if write is not None else None
        with self._lock:
            while True:
                entries = self._entries
                # From here on nothing is called: no signal handler, and no other thread, writes
                # this key or clears between what is asked and what is done.
                standing = slots[index]
                if standing is not mark and standing.until >= copy.began:
                    return
                if generation.epoch != copy.epoch:
                    return
                size = self.size + copy.size
                if key in entries:
                    if entries[key].began > copy.began:
                        return
                    size -= entries[key].size
                if size <= self._limits.max_bytes:
                    entries[key] = copy
                    self.size = size
                    return
                # Until here.
                self._evict()

    def _evict(self) -> None:
        """Let the first entry go that was not used since its turn came last (CLOCK)."""
        spared = 0
        # In one step, or a signal handler that keeps a copy would be in its way.
        for key in list(islice(chain.from_iterable((self._entries,)), _SPARED + 1)):
            entries = self._entries
            if key not in entries:
                continue
            if spared < _SPARED and entries[key].is_used:
                entries[key].is_used = False
                entries.move_to_end(key)
                spared += 1
                continue
            self.size -= entries[key].size
            del entries[key]
            self._counters.evictions.add()
            return
        if not self._entries:
            self.size = 0

    def drop(self, key: str, before: Instant = _LATER) -> None:
        """Keep no copy of this key that is not from after then."""
        began = before.clock
        with self._lock:
            entries = self._entries
            # From here on nothing is called.
            if key in entries and entries[key].began <= began:
                self.size -= entries[key].size
                del entries[key]

    def forget(self) -> None:
        """Keep no copies."""
        nothing: OrderedDict[str, Copy] = OrderedDict()
        with self._lock:
            # Nothing is called between these two.
            self._entries = nothing
            self.size = 0
