"""Reads that ask the service and leave copies in this process, and writes that do.

It knows stored values and what the service answers; ``copies`` knows how long each copy answers.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from .._client.counters import Counters
from .._client.operation import Operation
from .._client.responses import Outcome
from .._conf.options import Options
from ..exceptions import CircuitOpen, MomentoError, RateLimited, StoredValueError
from .barrier import Write
from .copies import MISSING, Copies, Instant, Limits
from .early import margin
from .envelope import Stored
from .error_policy import ErrorPolicy
from .gateway import Gateway
from .namespace import Namespace
from .values import Values


class KeepWritten(Protocol):
    """Keeps a serialized value that was stored; see ``Copies.keep``."""

    def __call__(
        self, key: str, payload: bytes, expires_at: float | None, margin: float = 0.0, /
    ) -> None: ...


class Near:
    """What one store does with copies; they answer by themselves, without a plan."""

    def __init__(
        self,
        options: Options,
        namespace: Namespace,
        gateway: Gateway,
        values: Values,
        error_policy: ErrorPolicy,
        counters: Counters,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        limits = Limits(options.near_max_age, options.near_max_stale, options.near_max_bytes)
        shared = namespace.barrier, namespace.generation
        self.copies = Copies(*shared, limits, counters.near, clock, wall_clock)
        self._gateway = gateway
        self._values = values
        self._error_policy = error_policy
        self._counters = counters
        self._loads = options.serializer.codec.loads
        self._bridges = options.on_error == "miss"

    async def get(self, key: str, default: Any) -> Any:
        """Return the value, from a copy that came meanwhile or the service, or the default."""
        value = self.copies.get(key)
        if value is not MISSING:
            return value
        errors: list[MomentoError] = []
        value = await self.read(key, errors)
        self._error_policy.report("get", errors)
        self._counters.served("misses" if value is MISSING else "hits")
        return default if value is MISSING else value

    async def read(self, key: str, errors: list[MomentoError]) -> Any:
        """Return the service's value, or MISSING, with what went wrong added to the errors.

        While it cannot be asked, a copy of before may answer.
        """
        since = self.copies.moment()
        return self._taken(key, await self._gateway.one(Operation.get(key)), errors, since)

    async def read_many(self, keys: Sequence[str], errors: list[MomentoError]) -> list[Any]:
        """Do the same for many."""
        since, values = self.copies.moment(), [MISSING] * len(keys)
        reads = [Operation.get(key) for key in keys]
        for index, outcome in await self._gateway.all("GET", reads, keys):
            values[index] = self._taken(keys[index], outcome, errors, since)
        return values

    def _taken(self, key: str, outcome: Outcome, errors: list[MomentoError], since: Instant) -> Any:
        epoch = self.copies.epoch
        return self.taken(key, self._values.opened(key, outcome), errors, since, epoch)

    def taken(
        self,
        key: str,
        found: Stored | MomentoError | None,
        errors: list[MomentoError],
        since: Instant,
        epoch: int,
    ) -> Any:
        """Return the value of what was read since then, and keep a copy; else as read() does."""
        copies = self.copies
        if isinstance(found, MomentoError) and not isinstance(found, StoredValueError):
            errors.append(found)
            return copies.get_stale(key) if self.bridges(found) else MISSING
        # Whatever was found, what was copied before may not come back in an outage.
        if not isinstance(found, Stored):
            copies.drop(key)
            errors += [found] if found is not None else []
            return MISSING
        copies.drop(key, since)
        keep = partial(
            copies.keep,
            key,
            expires_at=found.expires_at,
            since=since,
            epoch=epoch,
            margin=margin(found),
        )
        return self._values.load(found, errors, keep)

    def bridges(self, error: MomentoError) -> bool:
        """Whether a copy of before may answer in place of this error."""
        return self._bridges and (error.transient or isinstance(error, CircuitOpen | RateLimited))

    def keeper(self, write: Write) -> KeepWritten:
        """Return what keeps what is stored from now on."""
        copies, loads, values = self.copies, self._loads, self._values
        epoch, since = copies.epoch, copies.moment()

        def keep(key: str, payload: bytes, expires_at: float | None, margin: float = 0.0) -> None:
            # Until the marker could be read, nothing can be said of a value.
            if values.can_judge:
                copies.keep(key, bytes(payload), loads, expires_at, since, epoch, write, margin)

        return keep
