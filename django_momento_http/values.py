"""Values as they are stored: made into operations, and found again in what comes back.

It knows the stored format, lifetimes and the current generation, and what makes an operation; it
sends nothing and decides nothing of errors.
"""

from collections.abc import Callable
from typing import Any

from .answers import Outcome
from .client import Operation
from .envelope import Stored
from .exceptions import MomentoError, StoredValueError
from .generation import Generation
from .space import Lifetime, Space

MISSING: Any = object()


class Values:
    """The values of one space; ``wall_clock`` is in seconds since 1970."""

    def __init__(
        self, space: Space, generation: Generation, wall_clock: Callable[[], float]
    ) -> None:
        self._space = space
        self._generation = generation
        self._wall_clock = wall_clock
        self._marker = space.marker
        self._envelope = space.envelope()
        # Serializing may run any code, a query of the database for one: it is for the caller's
        # own thread.
        self.dumps = self._envelope.dumps

    # What came back

    def value(self, key: str, outcome: Outcome, errors: list[MomentoError]) -> Any:
        """Return the value, or MISSING, with what went wrong added to the errors."""
        found = self.opened(key, outcome)
        if isinstance(found, Stored):
            return self.load(found, errors)
        if found is not None:
            errors.append(found)
        return MISSING

    def opened(self, key: str, outcome: Outcome) -> Stored | MomentoError | None:
        """Return what is stored, None where nothing of this generation is, or what went wrong."""
        if outcome is None or isinstance(outcome, MomentoError):
            return outcome
        try:
            stored = self._envelope.open(key, outcome, self._wall_clock())
        except StoredValueError as error:
            return error.with_traceback(None)
        return stored if self._generation.accepts(stored.generation) else None

    def load(self, stored: Stored, errors: list[MomentoError]) -> Any:
        """Return the value, or MISSING, with what went wrong added to the errors."""
        try:
            return self._envelope.load(stored)
        except StoredValueError as error:
            errors.append(error.with_traceback(None))
            return MISSING

    def seconds_left(self, stored: Stored) -> float | None:
        """Return how long the value lives, None for no expiry."""
        if stored.expires_at is None:
            return None
        return max(stored.expires_at - self._wall_clock(), 0.0)

    def generation_of(self, outcome: Outcome) -> int | MomentoError | None:
        """Return the generation that the clear marker names, None for no marker."""
        if outcome is None or isinstance(outcome, MomentoError):
            return outcome
        try:
            return self._envelope.open(self._marker, outcome, self._wall_clock()).generation
        except StoredValueError as error:
            return error.with_traceback(None)

    # What is sent

    def packed(self, payload: bytes, timeout: float | None) -> tuple[Stored, int]:
        """Return a serialized value with this timeout, and its time to live in whole seconds."""
        life = self._lifetime(timeout)
        return self._envelope.pack(payload, life.expires_at), life.ttl

    def replaced(self, stored: Stored, value: Any) -> tuple[Stored, int]:
        """Return another value that lives as long as this one, and its time to live."""
        changed = self._envelope.pack(self.dumps(value), stored.expires_at)
        return changed, self.ttl_left(stored)

    def renewed(self, stored: Stored, timeout: float | None) -> tuple[Stored, int]:
        """Return the same bytes with a new timeout, and their time to live."""
        life = self._lifetime(timeout)
        return stored._replace(expires_at=life.expires_at), life.ttl

    def ttl_left(self, stored: Stored) -> int:
        """Return the time to live that is left, in whole seconds."""
        left = self.seconds_left(stored)
        # Present to the service, whatever our clock says: at least one second more.
        return max(self._lifetime(left).ttl, 1)

    def written(self, key: str, stored: Stored, ttl: int) -> Operation:
        """Return what stores the value, or removes it where the ttl is 0."""
        if ttl == 0:
            return Operation.delete(key)
        sealed = self._envelope.seal(key, stored, self._generation.current)
        return Operation.set(key, sealed, ttl)

    def look_at_marker(self) -> Operation:
        """Return what reads the clear marker."""
        return Operation.get(self._marker)

    def marked(self, generation: int) -> Operation:
        """Return what makes this generation the current one for everybody."""
        body = self._envelope.seal_marker(self._marker, generation)
        return Operation.set(self._marker, body, self._lifetime(None).ttl)

    def next_generation(self) -> int:
        """Return a generation that no process has used before, as far as clocks agree."""
        return max(self._generation.current + 1, int(self._wall_clock() * 1000))

    def _lifetime(self, timeout: float | None) -> Lifetime:
        return self._space.lifetime(timeout, self._wall_clock())
