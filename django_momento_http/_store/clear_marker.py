"""The clear marker, read and written: plans over the current generation of one namespace.

There is one marker for each signing key, so that every process that can read our values finds one
that it can read, too; the highest counts. It knows nothing of other keys.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial

from .._client.operation import Operation, Together
from .._client.responses import Outcome
from ..exceptions import MomentoError, StoredValueError, TimedOut
from .error_policy import ErrorPolicy, is_final
from .namespace import Namespace
from .values import Values


class Marker:
    """The marker of one store; ``max_age`` is the seconds for which a copy of it is trusted."""

    def __init__(
        self,
        namespace: Namespace,
        max_age: float,
        values: Values,
        error_policy: ErrorPolicy,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._namespace = namespace
        self._generation = namespace.generation
        self._age = values.age
        # Whether it must be read beside the next operation: ask once.
        self.is_due: Callable[[], bool] = partial(values.age.is_due, max_age)
        self._max_age = max_age
        self._values = values
        self._error_policy = error_policy
        self._clock = clock
        self._wall_clock = wall_clock

    def looks(self, *, is_beside: bool = True, is_needed: bool = False) -> list[Operation]:
        """Return what reads it.

        Beside others, who need not wait long for it while the copy may still be trusted.
        """
        can_wait = is_beside and not is_needed and self._age.is_young(self._max_age)
        return [
            Operation("GET", key, is_beside=is_beside, can_wait=can_wait)
            for key in self._values.markers
        ]

    def now(self) -> tuple[float, float]:
        """Return both clocks, as they stand when it is asked for."""
        return self._clock(), self._wall_clock()

    async def heed(self, outcomes: Sequence[Outcome], asked_at: tuple[float, float]) -> int | None:
        """Take in what was read; return the generation that was found, -1 where none could be."""
        found, error = self._found(outcomes)
        if found is not None or error is None:
            self._generation.learn(found, asked_at[0])
        if error is not None:
            # Given up while the copy was young: nobody missed it.
            if not (isinstance(error, TimedOut) and self._age.is_young(self._max_age)):
                self._error_policy.log("reading the clear marker", error)
            if not isinstance(error, StoredValueError):
                self._age.could_not_be_read(self._max_age)
                return -1
        was_known = self._age.is_known
        self._age.was_read(*asked_at)
        if error is not None and not was_known:
            # It was tampered with, and nothing is known: as if somebody had cleared.
            await self.raise_above(found, self._chosen())
        return found

    async def clear(self) -> tuple[int, MomentoError | None]:
        """Raise it above all that was ever there; return the generation, and what went wrong.

        Whatever becomes of it, this process serves nothing older from now on, unless the service
        refuses: no other process would hear of it, and what those write would be gone here alone.
        """
        chosen = newest = self._chosen()
        refused = False
        try:
            asked_at = self.now()
            outcomes = await _in_order(self.looks(is_beside=False))
            found, error = self._found(outcomes)
            if error is None or isinstance(error, StoredValueError):
                self._age.was_read(*asked_at)
                newest = _above(found, chosen)
                outcomes = await _in_order(self._marked(newest))
                error = _first_error(outcomes)
            refused = _are_refused(outcomes)
        finally:
            if not refused:
                self._generation.move(newest)
        return chosen, error

    async def raise_above(self, found: int | None, chosen: int) -> MomentoError | None:
        """Write the chosen generation, or one above what was found; return what went wrong."""
        newest = _above(found, chosen)
        self._generation.move(newest)
        return _first_error(await _in_order(self._marked(newest)))

    def _marked(self, generation: int) -> list[Operation]:
        stamp = self._namespace.stamp()
        return [self._values.marked(key, generation, stamp) for key in self._values.markers]

    def _chosen(self) -> int:
        return self._generation.next(self._namespace.now_ms())

    def _found(self, outcomes: Sequence[Outcome]) -> tuple[int | None, MomentoError | None]:
        """Return the highest generation that was read, and what went wrong."""
        found: int | None = None
        failed: MomentoError | None = None
        for key, outcome in zip(self._values.markers, outcomes, strict=True):
            named = self._values.marked_generation(key, outcome)
            if named is None:
                continue
            if not isinstance(named, MomentoError):
                found = named if found is None else max(found, named)
            elif failed is None or isinstance(failed, StoredValueError):
                # What could not be asked counts for more than what is not ours.
                failed = named
        return found, failed


async def _in_order(operations: list[Operation]) -> list[Outcome]:
    outcomes: list[Outcome] = [None] * len(operations)
    for index, outcome in await Together(operations):
        outcomes[index] = outcome
    return outcomes


def _above(found: int | None, chosen: int) -> int:
    # Go beyond a clear() not heard of before: its host's clock is ahead, or it came just now.
    return chosen if found is None else max(chosen, found + 1)


def _first_error(outcomes: list[Outcome]) -> MomentoError | None:
    return next((error for error in outcomes if isinstance(error, MomentoError)), None)


def _are_refused(outcomes: list[Outcome]) -> bool:
    refused = [one for one in outcomes if isinstance(one, MomentoError) and is_final(one)]
    return len(refused) == len(outcomes)
