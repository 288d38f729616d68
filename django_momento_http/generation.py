"""What this process knows of the clear marker: which values are of the current generation.

The service has no flush. Each value carries the generation that was current when it was written,
and one reserved key, the marker, holds the current one; ``clear()`` raises it. The knowledge only
moves forward, because the service's reads may be stale. It asks nobody: clocks and answers come
from outside.
"""

import threading
from collections.abc import Callable

# Reads are eventually consistent and nobody says by how much: for this long after the marker was
# last seen, "there is none" is taken for a stale answer.
_STALE_SECONDS = 60.0
# A marker that could not be read is asked for again after this long, not by every operation.
_RETRY_SECONDS = 1.0
# The copy is renewed by one operation before it is too old, so that the others need not.
_EARLY = 0.8


class Generation:
    """One marker as this process knows it; safe under threads."""

    def __init__(self, max_age: float, clock: Callable[[], float]) -> None:
        self._max_age = max_age
        self._clock = clock
        self._lock = threading.Lock()
        self._newest = 0
        self._is_known = False
        self._has_marker = False
        self._read_at = self._seen_at = float("-inf")
        self._asked_at = self._retry_at = float("-inf")

    def __repr__(self) -> str:
        return f"<Generation {self._newest} {'marked' if self._has_marker else 'unmarked'}>"

    @property
    def current(self) -> int:
        """The generation to write with; 0 when no marker was ever seen."""
        return self._newest

    def is_due(self) -> bool:
        """Whether the caller must read the marker beside its operation."""
        now = self._clock()
        if now - self._read_at < self._max_age * _EARLY or now < self._retry_at:
            return False
        if now - self._read_at >= self._max_age:
            return True
        with self._lock:
            if now - self._asked_at < self._max_age * (1 - _EARLY):
                return False
            self._asked_at = now
            return True

    def learn(self, found: int | None, asked_at: float) -> None:
        """Take in what a read of the marker found, None for no marker."""
        with self._lock:
            self._is_known = True
            self._read_at = max(self._read_at, asked_at)
            if found is None:
                self._has_marker &= asked_at - self._seen_at < _STALE_SECONDS
            else:
                self._see(found)

    def miss(self) -> None:
        """Take in that the marker could not be read: what was known stays."""
        self._retry_at = self._clock() + min(_RETRY_SECONDS, self._max_age)

    def move(self, generation: int) -> None:
        """Make this generation the current one if it is newer: all others are gone at once."""
        with self._lock:
            self._is_known = True
            self._see(generation)

    @property
    def is_known(self) -> bool:
        """Whether the marker could ever be read; until then nothing can be said of a value."""
        return self._is_known

    def accepts(self, generation: int) -> bool:
        """Whether a value of this generation is to be served."""
        if not self._is_known:
            return False
        if not self._has_marker:
            return True
        if generation > self._newest:
            # Verified, so somebody has cleared and we have not heard of it yet.
            self.move(generation)
        return generation == self._newest

    def _see(self, generation: int) -> None:
        if generation >= self._newest:
            self._newest = generation
            self._has_marker = True
            self._seen_at = self._clock()


class AnyGeneration(Generation):
    """No marker at all (CLEAR_MAX_AGE None): nothing is read and every value is served."""

    def __init__(self) -> None:
        super().__init__(float("inf"), lambda: 0.0)
        self._is_known = True

    def is_due(self) -> bool:
        """There is nothing to read."""
        return False

    def accepts(self, generation: int) -> bool:  # noqa: ARG002 - the base's signature
        """Serve everything."""
        return True
