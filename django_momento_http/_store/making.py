"""What get_or_set asks of the service: looks, and the storing of what was made, as plans.

What was made is stored unless it is out of date: where another value has come in between it yields,
and a write of the key in this process wins. It knows nothing of who makes a value, or of waiting.
"""

import math
import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from .._client.counters import Counters
from .._client.operation import Operation
from .._client.responses import Outcome
from .._conf.options import Options
from .._interrupts import is_raised_by_signal_handler
from ..exceptions import MomentoError, StoredValueError
from .copies import MISSING
from .early import is_early, margin
from .envelope import Stored
from .error_policy import ErrorPolicy
from .flights import Flight, Flights
from .gateway import Gateway
from .namespace import Namespace
from .near import Near
from .values import Values
from .writer import Writer


class Look(NamedTuple):
    """Why a value is to be made: it is absent, nobody can say, or it is ``early``."""

    is_unknown: bool = False
    early: Any = MISSING  # the value that is still there
    seen: bytes = b""  # and as it is stored
    expires_at: float = 0.0


ABSENT = Look()
UNKNOWN = Look(is_unknown=True)


class Draft(NamedTuple):
    """A value that was made: serialized, the generation before, the seconds that it took."""

    payload: bytes
    generation: int
    seconds: float


class Made(NamedTuple):
    """What came of it: what all who wait are given, or the error that each is to raise.

    ``theirs`` is the value that another stored meanwhile, loaded for whoever led.
    """

    stored: Stored
    error: MomentoError | None = None
    theirs: Any = MISSING


MadeFlight = Flight[Draft, Made]


class Making:
    """One store's part in get_or_set; the ``flights`` are those of its namespace."""

    def __init__(
        self,
        options: Options,
        namespace: Namespace,
        gateway: Gateway,
        values: Values,
        error_policy: ErrorPolicy,
        counters: Counters,
        writer: Writer,
        near: Near | None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.flights: Flights[Draft, Made] = namespace.flights
        # By it flights tell one alias from another; the store itself they would keep alive.
        self.alias = object()
        self.longest_wait = options.single_flight_wait
        self.is_eager = options.early_refresh > 0
        self.counters = counters
        self.error_policy = error_policy
        self.clock = clock
        self._wall_clock = wall_clock
        self._beta = options.early_refresh
        self._chance = chance
        self._near = near
        self._namespace = namespace
        self._gateway = gateway
        self._values = values
        self._writer = writer

    # Looking

    def draw(self) -> float:
        """Return this call's chance, uniform above 0 and up to 1; 1 where nobody is early."""
        return 1 - self._chance() if self.is_eager else 1.0

    def copied(self, key: str, draw: float, most: int | None = None) -> Any:
        """Return the value of a copy of at most so many bytes; MISSING where none may answer.

        Who would be early asks the service first: another process may have made it anew.
        """
        if self._near is None:
            return MISSING
        copies = self._near.copies
        copy = copies.find(key) if self.is_eager else None
        if copy is not None and self._is_early(copy.expires_at, copy.margin, draw):
            return MISSING
        return copies.get(key, most)

    async def look(self, key: str, draw: float) -> Any:
        """Return the value, or a Look where it is to be made, perhaps before it expires."""
        value = self.copied(key, draw)
        if value is not MISSING:
            return value
        near = self._near
        since = near.copies.moment() if near is not None else None
        outcome = await self._gateway.one(Operation.get(key))
        errors: list[MomentoError] = []
        epoch = near.copies.epoch if near is not None else 0
        found = self._values.opened(key, outcome)
        if near is not None and since is not None:
            value = near.taken(key, found, errors, since, epoch)
        else:
            value = self._value(found, errors)
        self.error_policy.report("get_or_set", errors)
        if value is MISSING and not _are_misses(errors):
            return UNKNOWN
        self.counters.served("misses" if value is MISSING else "hits")
        if value is MISSING:
            return ABSENT
        if isinstance(found, Stored) and self._is_early(found.expires_at, margin(found), draw):
            seen = bytes(outcome)  # type: ignore[arg-type]  # what was found came from bytes
            return Look(early=value, seen=seen, expires_at=found.expires_at or 0.0)
        return value

    def _is_early(self, expires_at: float | None, margin: float, draw: float) -> bool:
        left = self._values.seconds_left(expires_at)
        return left is not None and is_early(left, margin, self._beta, draw)

    def loaded(self, made: Made) -> Any:
        """Return the value anew, so that no two callers share one."""
        return self._values.envelope.load(made.stored)

    async def load(self, made: Made) -> Any:
        """Do the same, as a plan."""
        return self.loaded(made)

    # Storing

    @property
    def generation(self) -> int:
        """Return the generation that is current as far as this process knows."""
        return self._namespace.generation.current

    def bare(self, draft: Draft) -> Made:
        """Return what was made as all who wait are given it, whether or not it can be stored."""
        return Made(self._values.envelope.bare(draft.payload))

    def say_failed(self, failure: str) -> None:
        """Log that a value could not be made anew, by the name of what was raised."""
        reason = f"a value could not be made anew ({failure}); the present one is returned"
        self.error_policy.log("get_or_set", MomentoError(reason, kind="refresh"))

    async def store(
        self, key: str, flight: MadeFlight, draft: Draft, timeout: float | None, look: Look
    ) -> Made:
        """Store what was made, unless it is out of date, and return what came of it."""
        ours = self.bare(draft)
        is_removal = timeout is not None and timeout <= 0
        # Where the service could not be asked, it is not asked again: callers have waited enough.
        if flight.is_superseded or look.is_unknown or is_removal:
            return ours
        try:
            asked_at = self.clock()
            outcome = await self._gateway.one(Operation.get(key, is_for_write=True))
            # The write is taken to last as long as this look.
            seconds = draft.seconds + 2 * (self.clock() - asked_at)
            other = self._other(key, outcome, look, ours)
            if other is None:
                await self._put(key, flight, draft, timeout, seconds)
        except MomentoError as error:  # with ON_ERROR "raise"
            if is_raised_by_signal_handler(error):
                raise
            return ours._replace(error=error.with_traceback(None))
        return other or ours

    def _other(self, key: str, outcome: Outcome, look: Look, ours: Made) -> Made | None:
        """Return what callers get where ours is not to be stored, None where it is."""
        if look.early is not MISSING and outcome == look.seen:
            return None
        errors: list[MomentoError] = []
        found = self._values.opened(key, outcome)
        value = self._value(found, errors)
        self.error_policy.report("get_or_set", errors)
        if not _are_misses(errors):
            return ours
        if self._near is not None:
            # Whatever there is, it is not what was copied.
            self._near.copies.drop(key)
        if isinstance(found, Stored) and value is not MISSING:
            return Made(found, theirs=value)
        # What was to be made anew is gone before its time: somebody deleted it.
        is_deleted = look.early is not MISSING and self._wall_clock() < look.expires_at
        return ours if is_deleted else None

    async def _put(
        self, key: str, flight: MadeFlight, draft: Draft, timeout: float | None, seconds: float
    ) -> None:
        stamp = self._namespace.stamp()
        stored, ttl = self._values.packed(draft.payload, timeout, stamp, draft.generation)
        stored = stored._replace(made_in=math.ceil(seconds * 1000))
        if flight.is_superseded:
            return
        try:
            await self._writer.write("get_or_set", key, stored, ttl, payload=draft.payload)
        except MomentoError as error:  # with ON_ERROR "raise"; it may be there all the same
            if flight.is_superseded and not is_raised_by_signal_handler(error):
                await self._take_back(key, stored)
            raise
        if flight.is_superseded:
            await self._take_back(key, stored)

    async def _take_back(self, key: str, stored: Stored) -> None:
        """Remove what was stored while another wrote the key, if it is what remained."""
        outcome = await Operation.get(key, is_for_write=True)
        since = stored.made_at + 1
        if isinstance(outcome, MomentoError):
            # Nobody can say now; what the other wrote is no older than this.
            self._gateway.owe(key, since, outcome, is_deletion=True)
            return
        found = self._values.opened(key, outcome)
        if (
            isinstance(found, Stored)
            and found.made_at == stored.made_at
            and found.body == stored.body
        ):
            with self._writer.writing((key,)):
                await self._writer.remove(key, since)

    def _value(self, found: Stored | MomentoError | None, errors: list[MomentoError]) -> Any:
        """Return the value, or MISSING, with what went wrong added to the errors."""
        if isinstance(found, Stored):
            return self._values.load(found, errors)
        if found is not None:
            errors.append(found)
        return MISSING


def _are_misses(errors: list[MomentoError]) -> bool:
    """Whether what went wrong means that there is no value, and not that nobody can say."""
    return all(isinstance(error, StoredValueError) for error in errors)
