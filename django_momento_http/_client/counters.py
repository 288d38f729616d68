"""What one client has done in this process, as numbers."""

import threading
import weakref
from collections import Counter, deque
from collections.abc import Sized
from itertools import count
from typing import Protocol, TypeVar

from .._interrupts import is_raised_by_signal_handler

T = TypeVar("T")

# One operation is billed per started KiB of item moved (Momento's limits page).
_BILLED_BYTES = 1024
# So many notes are added up at once, under the lock, which costs more than ten of them.
_MOST_NOTES = 512
_SERVED = ("hits", "misses", "sets", "deletes", "refreshes", "waited")


class Tally:
    """A number that any thread adds one to with ``add``, without a lock."""

    def __init__(self) -> None:
        self.add = count().__next__
        self._reads = 0
        self._lock = threading.RLock()

    @property
    def total(self) -> int:
        """How often ``add`` was called."""
        with self._lock:
            # Reading calls it, too. No interrupt comes between the two lines.
            reads = self._reads = self._reads + 1
            return self.add() - reads + 1


class Held(Sized, Protocol):
    """Some copies."""

    size: int  # bytes, bookkeeping included


class NearCounters:
    """What copies in the process did, and how many there are."""

    def __init__(self) -> None:
        self.hits = Tally()  # values given
        self.looks = Tally()  # other questions answered
        self.stale = Tally()  # either, while the service could not be asked
        self.evictions = Tally()
        self._copies: tuple[weakref.ref[Held], ...] = ()
        self._lock = threading.RLock()

    def join(self, copies: Held) -> None:
        """Count these, too, as long as there is another reference to them."""
        with self._lock:
            living = [each for each in self._copies if each() is not None]
            self._copies = (*living, weakref.ref(copies))

    def snapshot(self) -> dict[str, int]:
        """Return all counts as they stand."""
        copies = [each for each in (reference() for reference in self._copies) if each is not None]
        return {
            "near_hits": self.hits.total + self.looks.total + self.stale.total,
            "near_entries": sum(map(len, copies)),
            "near_bytes": sum(each.size for each in copies),
            "near_evictions": self.evictions.total,
            "near_stale": self.stale.total,
        }


class Counters:
    """Counts that threads add to."""

    def __init__(self) -> None:
        # Reentrant: a signal handler may use the cache whose own call it interrupted.
        self._lock = threading.RLock()
        self._requests = self._retries = self._hedges = self._hedges_won = self._billed = 0
        self._bytes_in = self._bytes_out = 0
        self._paid = 0
        self._served = dict.fromkeys(_SERVED, 0)
        self._errors: Counter[str] = Counter()
        # What is counted most is noted first, by single steps of C code.
        self._moved: deque[tuple[int, int, int]] = deque()
        self._given: deque[tuple[str, int]] = deque()
        self.near = NearCounters()

    def moved(self, sent: int, received: int, key_size: int) -> None:
        """Count one request that was answered, with the bytes of value it carried each way."""
        self._moved.append((sent, received, key_size))
        if len(self._moved) >= _MOST_NOTES:
            self._add_up()

    def hedged(self, hedges: int, received: int, key_size: int, *, has_won: bool) -> None:
        """Count the requests that one GET made besides; each is billed like the one that won."""
        with self._lock:
            self._requests += hedges
            self._hedges += hedges
            self._hedges_won += has_won
            self._billed += hedges * _billed(received, key_size)

    def lost(self, kind: str) -> None:
        """Count an error that did not matter, as another request of the operation did better."""
        with self._lock:
            self._errors[kind] += 1

    def failed(self, kind: str, *, was_sent: bool = True) -> None:
        """Count one operation that came to nothing, by the kind of its error."""
        with self._lock:
            self._requests += was_sent
            self._errors[kind] += 1

    def retried(self) -> None:
        """Count one request that was sent a second time."""
        with self._lock:
            self._retries += 1

    def served(self, what: str, count: int = 1) -> None:
        """Count what callers were given, or had done: see ``_SERVED``."""
        self._given.append((what, count))
        if len(self._given) >= _MOST_NOTES:
            self._add_up()

    def paid(self) -> None:
        """Count one write that was owed and is paid."""
        with self._lock:
            self._paid += 1

    def snapshot(self) -> dict[str, object]:
        """Return all counts as they stand."""
        with self._lock:
            self._add_up()
            return {
                "requests": self._requests,
                **self._served,
                "hits": self._served["hits"] + self.near.hits.total,
                "errors": dict(self._errors),
                "retries": self._retries,
                "hedges": self._hedges,
                "hedges_won": self._hedges_won,
                "bytes_in": self._bytes_in,
                "bytes_out": self._bytes_out,
                "billed_operations": self._billed,
                "paid": self._paid,
                **self.near.snapshot(),
            }

    def _add_up(self) -> None:
        with self._lock:
            self._take_notes()

    def _take_notes(self) -> None:
        while (moved := _next(self._moved)) is not None:
            sent, received, key_size = moved
            size = max(sent, received)
            self._requests += 1
            self._bytes_out += sent
            self._bytes_in += received
            self._billed += _billed(size, key_size)
        while (given := _next(self._given)) is not None:
            self._served[given[0]] += given[1]


def _next(notes: deque[T]) -> T | None:
    """Take the oldest note; a signal handler of this thread may have taken it meanwhile."""
    try:
        return notes.popleft()
    except IndexError as error:
        if is_raised_by_signal_handler(error):
            raise
        return None


def _billed(size: int, key_size: int) -> int:
    return -(-(size + key_size) // _BILLED_BYTES) if size else 1
