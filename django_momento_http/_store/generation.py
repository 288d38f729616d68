"""What ``clear()`` means for one namespace in this process: which values are of the present.

The service has no flush. Each value carries the generation that was current when it was written,
and a reserved key, the clear marker, holds the current one; ``clear()`` raises it. The knowledge
only moves forward, because the service's reads may be stale. It asks nobody: clocks and what was
read come from outside.
"""

import threading
from collections.abc import Callable

# Reads are eventually consistent and nobody says by how much: only two reads so far apart that find
# no marker mean that there is none.
_STALE_SECONDS = 60.0
# A marker that could not be read is asked for again after this long, not by every operation.
_RETRY_SECONDS = 1.0
# The copy is renewed by one operation before it is too old, so that the others need not.
EARLY = 0.8


class Generation:
    """The newest generation that this process has heard of; safe under threads."""

    def __init__(
        self,
        is_held: Callable[[], bool] = lambda: False,
        moved: Callable[[], object] = lambda: None,
    ) -> None:
        # Whether a clear() is owed: that there is no marker proves nothing then.
        self._is_held = is_held
        self._moved = moved  # called when values of before are served no longer
        self.epoch = 0  # a new number whenever that is so
        self._lock = threading.RLock()
        self.current = 0  # to write with; 0 while no clear() was ever heard of
        self._accepts_none = False  # values that were written where no clear() was heard of
        self._none_since = float("inf")  # the first read in a row that found no marker

    def __repr__(self) -> str:
        return f"<Generation {self.current}>"

    def accepts(self, generation: int) -> bool:
        """Whether a value of this generation is to be served."""
        if generation == self.current:
            return True
        if generation > self.current:
            # Verified, so somebody has cleared and we have not heard of it yet.
            self.move(generation)
            return True
        return generation == 0 and self._accepts_none and not self._is_held()

    def move(self, generation: int) -> None:
        """Make this generation the current one if it is newer: all others are gone at once."""
        nothing = float("inf")
        with self._lock:
            before = self.epoch
            # From here on nothing is called, after which a signal handler could move it.
            if self._accepts_none or generation > self.current:
                self.epoch += 1
            self._accepts_none = False
            self._none_since = nothing
            if generation > self.current:
                self.current = generation
        if self.epoch != before:
            self._moved()

    def learn(self, found: int | None, asked_at: float) -> None:
        """Take in what a read of the marker found, None for no marker."""
        if found is not None:
            self.move(found)
            return
        with self._lock:
            self._none_since = min(self._none_since, asked_at)
            self._accepts_none |= asked_at - self._none_since >= _STALE_SECONDS

    def next(self, now_ms: int) -> int:
        """Return a generation above all that were heard of, and above the clock's milliseconds."""
        return max(self.current + 1, now_ms)


class MarkerAge:
    """How old this process's copy of the marker is, and who is to renew it; safe under threads.

    Both clocks must agree that it is young: the monotonic one stands still while a machine is
    suspended, the wall clock may be set.
    """

    def __init__(self, clock: Callable[[], float], wall_clock: Callable[[], float]) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._lock = threading.RLock()
        self.read_at = self.read_wall = float("-inf")
        self._asked_at = self._retry_at = float("-inf")
        self.is_known = False  # whether it could ever be read; until then nothing can be said

    def is_due(self, max_age: float) -> bool:
        """Whether the caller must read the marker beside its operation."""
        now = self._clock()
        young = max_age * EARLY
        if now - self.read_at < young and 0 <= self._wall_clock() - self.read_wall < young:
            return False
        return self._is_due(now, max_age)

    def _is_due(self, now: float, max_age: float) -> bool:
        if now < self._retry_at:
            return False
        age = max(now - self.read_at, self._wall_clock() - self.read_wall)
        if age >= max_age or self._wall_clock() < self.read_wall:
            return True
        with self._lock:
            if now - self._asked_at < max_age * (1 - EARLY):
                return False
            self._asked_at = now
            return True

    def is_young(self, max_age: float) -> bool:
        """Whether what was read may still be trusted."""
        wall_age = self._wall_clock() - self.read_wall
        return self._clock() - self.read_at < max_age and 0 <= wall_age < max_age

    def was_read(self, asked_at: float, asked_wall: float) -> None:
        """Take in that it was read, and when it was asked for."""
        with self._lock:
            self.is_known = True
            self.read_at = max(self.read_at, asked_at)
            self.read_wall = asked_wall

    def could_not_be_read(self, max_age: float) -> None:
        """Take in that the marker could not be read: what was known stays."""
        self._retry_at = self._clock() + min(_RETRY_SECONDS, max_age)


class NoMarkerAge(MarkerAge):
    """No marker at all (CLEAR_MAX_AGE None): nothing is ever read."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0, lambda: 0.0)
        self.is_known = True
        self.read_at = self.read_wall = 0.0

    def is_due(self, max_age: float) -> bool:  # noqa: ARG002 - the base's signature
        """There is nothing to read."""
        return False
