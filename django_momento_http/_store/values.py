"""Values as they are stored: made into operations, and found again in what comes back.

It knows the stored format, lifetimes and the current generation, and what makes an operation; it
sends nothing and decides nothing of errors.
"""

from collections.abc import Callable
from typing import Any

from .._client.operation import Operation
from .._client.responses import Outcome
from ..exceptions import MomentoError, StoredValueError
from .config import Lifetime, StoreConfig
from .copies import MISSING
from .envelope import Keep, Stored
from .generation import NoMarkerAge
from .namespace import Namespace


class Values:
    """The values of one configuration; ``wall_clock`` is in seconds since 1970."""

    def __init__(
        self, config: StoreConfig, namespace: Namespace, wall_clock: Callable[[], float]
    ) -> None:
        self._config = config
        self._generation = namespace.generation
        self._wall_clock = wall_clock
        self.envelope = config.envelope()
        # Of each signing key one: by its key on the wire, the key's id.
        self.markers = {config.marker(key_id): key_id for key_id in self.envelope.key_ids}
        self._serves_all = config.options.clear_max_age is None
        namespace.is_served_whole |= self._serves_all
        self.age = NoMarkerAge() if self._serves_all else namespace.marker_age(tuple(self.markers))

    @property
    def can_judge(self) -> bool:
        """Whether the marker could ever be read; until then nothing can be said of a value."""
        return self.age.is_known

    # What came back

    def value(self, key: str, outcome: Outcome, errors: list[MomentoError]) -> Any:
        """Return the value, or MISSING, with what went wrong added to the errors."""
        if outcome is None:
            return MISSING
        if isinstance(outcome, MomentoError):
            errors.append(outcome)
            return MISSING
        try:
            stored = self.envelope.open(key, outcome, self._wall_clock())
            is_current = stored.generation == self._generation.current and self.age.is_known
            if is_current or self._is_served(stored):
                return self.envelope.load(stored)
        except StoredValueError as error:
            errors.append(error.with_traceback(None))
        return MISSING

    def opened(self, key: str, outcome: Outcome) -> Stored | MomentoError | None:
        """Return what is stored, None where nothing of this generation is, or what went wrong."""
        stored = self._verified(key, outcome)
        if not isinstance(stored, Stored):
            return stored
        return stored if self._is_served(stored) else None

    def _is_served(self, stored: Stored) -> bool:
        if self._serves_all:
            return True
        # Before the marker could be read, nothing can be said of a value.
        return self.age.is_known and self._generation.accepts(stored.generation)

    def load(self, stored: Stored, errors: list[MomentoError], keep: Keep | None = None) -> Any:
        """Return the value, or MISSING, with what went wrong added to the errors."""
        try:
            return self.envelope.load(stored, keep)
        except StoredValueError as error:
            errors.append(error.with_traceback(None))
            return MISSING

    def seconds_left(self, expires_at: float | None) -> float | None:
        """Return how long a value lives that expires then, None for no expiry."""
        if expires_at is None:
            return None
        return max(expires_at - self._wall_clock(), 0.0)

    def marked_generation(self, marker: str, outcome: Outcome) -> int | MomentoError | None:
        """Return the generation that a clear marker names, None for no marker."""
        stored = self._verified(marker, outcome)
        return stored.generation if isinstance(stored, Stored) else stored

    def made_at(self, key: str, outcome: Outcome) -> int | MomentoError | None:
        """Return when a stored value was made, in ms since 1970; None where there is none.

        It need not verify: another alias, or site, may be able to read it.
        """
        stored = self._verified(key, outcome)
        if isinstance(stored, Stored):
            return stored.made_at
        if isinstance(stored, StoredValueError) and not isinstance(outcome, MomentoError | None):
            return self.envelope.made_at(outcome) or stored
        return stored

    def _verified(self, key: str, outcome: Outcome) -> Stored | MomentoError | None:
        if outcome is None or isinstance(outcome, MomentoError):
            return outcome
        try:
            return self.envelope.open(key, outcome, self._wall_clock())
        except StoredValueError as error:
            return error.with_traceback(None)

    # What is sent

    def packed(
        self, payload: bytes, timeout: float | None, made_at: int, generation: int
    ) -> tuple[Stored, int]:
        """Return a serialized value with this timeout, and its time to live in whole seconds."""
        ttl, expires_at = self._config.lifetime(timeout, self._wall_clock())
        return self.envelope.pack(payload, expires_at, made_at, generation), ttl

    def expires_at(self, timeout: float | None) -> float | None:
        """Return when a value with this timeout expires, if it is packed now."""
        return self._lifetime(timeout).expires_at

    def replaced(self, stored: Stored, value: Any) -> tuple[Stored, int]:
        """Return another value that lives as long as this one, and its time to live."""
        changed = self.envelope.pack(
            self.envelope.dumps(value), stored.expires_at, stored.made_at, stored.generation
        )
        return changed, self.ttl_left(stored)

    def renewed(self, stored: Stored, timeout: float | None) -> tuple[Stored, int]:
        """Return the same bytes with a new timeout, and their time to live."""
        life = self._lifetime(timeout)
        return stored._replace(expires_at=life.expires_at), life.ttl

    def ttl_left(self, stored: Stored) -> int:
        """Return the time to live that is left, in whole seconds."""
        left = self.seconds_left(stored.expires_at)
        # Present to the service, whatever our clock says: at least one second more.
        return max(self._lifetime(left).ttl, 1)

    def written(self, key: str, stored: Stored, ttl: int) -> Operation:
        """Return what stores the value, or removes it where the ttl is 0."""
        if ttl == 0:
            return Operation.delete(key)
        return Operation.set(key, self.envelope.seal(key, stored), ttl)

    def marked(self, marker: str, generation: int, made_at: int) -> Operation:
        """Return what makes this generation the current one for whoever reads this marker."""
        life = self._lifetime(None)
        key_id = self.markers[marker]
        body = self.envelope.seal_marker(marker, key_id, generation, life.expires_at, made_at)
        return Operation.set(marker, body, life.ttl)

    def _lifetime(self, timeout: float | None) -> Lifetime:
        return self._config.lifetime(timeout, self._wall_clock())
