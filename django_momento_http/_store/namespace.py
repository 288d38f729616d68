"""What a process knows of one namespace: clear(), writes and values under way, what is owed.

A namespace is an endpoint, a LOCATION and a KEY_PREFIX. Aliases that share it share this, whatever
else they differ in, so that what one of them clears or deletes is gone for all. It sends nothing.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from .._process import RECENT, PerProcess
from .._redaction import shown_name
from .barrier import Barrier
from .debts import Ledger
from .flights import Flights
from .generation import Generation, MarkerAge
from .log_limiter import LogLimiter
from .owed import Owed

logger = logging.getLogger("django_momento_http")

# Stamps that are further ahead of the clock than this, in ms, are of before it was set back.
_SET_BACK = 1000


class NamespaceKey(NamedTuple):
    """The parts that name a namespace."""

    endpoint: str
    location: str
    key_prefix: str

    def __str__(self) -> str:
        """Name it as lines of the log do."""
        prefix = f", KEY_PREFIX {shown_name(self.key_prefix)!r}" if self.key_prefix else ""
        return f"the Momento cache {shown_name(self.location)!r}{prefix}"


class Namespace:
    """One namespace in one process; safe under threads."""

    def __init__(
        self,
        key: NamespaceKey,
        ledger: Ledger,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.key = key
        self._clock = clock
        self._wall_clock = wall_clock
        self.lines = LogLimiter(clock)
        self.owed = Owed(ledger, clock, self._say)
        self.barrier = Barrier(clock)
        # What get_or_set makes; ``making`` says of what types.
        self.flights: Flights[Any, Any] = Flights()
        self.generation = Generation(lambda: self.owed.is_clear_owed, self.barrier.forget)
        self.is_served_whole = False  # an alias without a marker serves what was cleared
        self._ages: dict[tuple[str, ...], MarkerAge] = {}
        self._lock = threading.RLock()
        self._stamped = 0

    def marker_age(self, markers: tuple[str, ...]) -> MarkerAge:
        """Return the age of what was read of these markers, one for each signing key."""
        with self._lock:
            if markers not in self._ages:
                self._ages[markers] = MarkerAge(self._clock, self._wall_clock)
            return self._ages[markers]

    def now_ms(self) -> int:
        """Return the wall clock's milliseconds since 1970."""
        return int(self._wall_clock() * 1000)

    def stamp(self) -> int:
        """Return the milliseconds since 1970, never the same twice: what is later is greater."""
        with self._lock:
            now = int(self._wall_clock() * 1000)
            if now <= self._stamped < now + _SET_BACK:
                now = self._stamped + 1
            self._stamped = now
            return now

    def _say(self, level: int, text: str) -> None:
        logger.log(level, "%s: %s", str(self.key), text)


def _make(key: NamespaceKey) -> Namespace:
    return Namespace(key, _LEDGERS.get(None))


_LEDGERS: PerProcess[None, Ledger] = PerProcess(lambda _: Ledger())
# What is owed keeps its namespace alive.
_NAMESPACES: PerProcess[NamespaceKey, Namespace] = PerProcess(_make, recent=RECENT)


def shared_namespace(key: NamespaceKey) -> Namespace:
    """Return this process's one object for a namespace."""
    return _NAMESPACES.get(key)


def forget_namespaces(endpoint: str) -> None:
    """Forget what is known of an endpoint that is no more, such as a test's."""
    _NAMESPACES.drop(lambda key: key.endpoint == endpoint)
