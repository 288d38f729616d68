"""How values are written and removed so that no older one outlives them.

What the service refuses is followed by a removal; what fails is owed; what was written under a
generation that a clear() ended meanwhile is written once more. It knows nothing of reading.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from .._client.operation import Asked, Operation, Together
from .._client.responses import Outcome
from ..exceptions import BadRequest, MomentoError
from .barrier import Write, Writing
from .early import margin
from .envelope import Stored
from .error_policy import ErrorPolicy
from .gateway import Gateway
from .keys import UncopiedKey, decode_key
from .namespace import Namespace
from .near import KeepWritten, Near
from .values import Values

# A key of django.contrib.sessions.backends.cache: its cache_key_prefix and a session key.
_SESSION = re.compile(rb"django\.contrib\.sessions\.cache[A-Za-z0-9]{32}\Z")


def _keep_nothing(_: str, __: bytes, ___: float | None, ____: float = 0.0, /) -> None:
    """Leave no copy."""


class Writer:
    """Writes for one store; ``owes`` says whether a write that fails is owed."""

    def __init__(
        self,
        namespace: Namespace,
        gateway: Gateway,
        values: Values,
        error_policy: ErrorPolicy,
        near: Near | None,
        seconds: Callable[[int], float],
    ) -> None:
        self._namespace = namespace
        self._barrier = namespace.barrier
        self._flights = namespace.flights
        self._gateway = gateway
        self._values = values
        self._error_policy = error_policy
        self._near = near
        self._seconds = seconds  # that so many operations may wait

    def writing(self, keys: Collection[str]) -> Writing:
        """Return what keeps copies out of the way, in a ``with``, while keys are written."""
        return Writing(self._barrier, keys, self._seconds)

    def _keeper(self, write: Write | None) -> KeepWritten:
        return _keep_nothing if write is None or self._near is None else self._near.keeper(write)

    async def put(
        self, name: str, key: str, payload: bytes, timeout: float | None, *, owes: bool = False
    ) -> bool:
        """Store a new value, or remove it where the timeout is 0 or less; return whether."""
        # As ``writing`` does, in fewer steps: this is what most writes are.
        barrier, keys = self._barrier, () if type(key) is UncopiedKey else (key,)
        write = barrier.begin(keys, self._seconds(1)) if barrier.keepers else None
        try:
            stamp, generation = self._namespace.stamp(), self._namespace.generation
            flights = self._flights
            ended, removals = flights.ended, self._gateway.removals
            keep = None if write is None else self._keeper(write)
            stored, ttl = self._values.packed(payload, timeout, stamp, generation.current)
            outcome = await self._gateway.one(self._values.written(key, stored, ttl))
            if stored.generation != generation.current:
                # Another's clear() came to light: nobody would read what was just written.
                stored = stored._replace(generation=generation.current)
                outcome = await self._values.written(key, stored, ttl)
            if isinstance(outcome, MomentoError):
                return await self._fail(name, key, ttl, outcome, stamp, owes=owes)
            is_overtaken = self._gateway.is_overtaken(key, stamp, removals)
            if owes and (flights.under_way or flights.ended != ended):
                is_overtaken |= bool(flights.overtake((key,), ended))
            if is_overtaken:
                await self._again(key, stored, ttl, write)
            if keep is not None and ttl:
                keep(key, payload, stored.expires_at)
            return True
        finally:
            if barrier.keepers:
                barrier.end(keys, write)

    async def write(
        self,
        name: str,
        key: str,
        stored: Stored,
        ttl: int,
        *,
        owes: bool = False,
        payload: bytes | None = None,
    ) -> bool:
        """Store a value as it is, or remove it where the ttl is 0; return whether.

        A copy is left where its payload is given.
        """
        with self.writing((key,)) as write:
            since = self._namespace.stamp() if ttl == 0 else stored.made_at
            keep, removals = self._keeper(write), self._gateway.removals
            is_current = stored.generation == self._namespace.generation.current
            outcome = await self._gateway.one(self._values.written(key, stored, ttl))
            if isinstance(outcome, MomentoError):
                return await self._fail(name, key, ttl, outcome, since, owes=owes)
            if self._gateway.is_overtaken(key, since, removals):
                await self._again(key, stored, ttl, write)
            if ttl and payload is not None and is_current:
                keep(key, payload, stored.expires_at, margin(stored))
            return True

    async def put_many(
        self, payloads: Mapping[str, bytes], timeout: float | None
    ) -> dict[str, Outcome]:
        """Do for many what put() does for one, owing what fails; each is packed as it is sent."""
        keys = list(payloads)
        with self.writing(keys) as write:
            return await self._put_many(payloads, timeout, keys, write)

    async def _put_many(
        self,
        payloads: Mapping[str, bytes],
        timeout: float | None,
        keys: list[str],
        write: Write | None,
    ) -> dict[str, Outcome]:
        stamp, generation = self._namespace.stamp(), self._namespace.generation
        is_removal = timeout is not None and timeout <= 0
        keep, expires_at = self._keeper(write), self._values.expires_at(timeout)
        began, ended = generation.current, self._flights.ended
        removals = self._gateway.removals
        asked = self._makers(payloads, timeout, stamp)
        method = "DELETE" if is_removal else "PUT"
        outcomes = dict(await self._gateway.all(method, asked, keys))
        if generation.current != began:
            outcomes = dict(await Together(asked))
        done = [n for n in range(len(keys)) if not isinstance(outcomes[n], MomentoError)]
        is_overtaken = self._gateway.is_overtaken
        again = [index for index in done if is_overtaken(keys[index], stamp, removals)]
        made = self._flights.overtake([keys[index] for index in done], ended)
        again += [index for index in done if keys[index] in made and index not in again]
        if again:
            await Together([asked[index] for index in again])
        if write is not None:
            write.is_answered = len(done) == len(keys) and not again
        if write is not None and not is_removal:
            write.own.difference_update(keys[index] for index in again)
            for index in done:
                keep(keys[index], payloads[keys[index]], expires_at)
        named = {key: outcomes[index] for index, key in enumerate(keys)}
        await self._fail_many(named, stamp, is_removal=is_removal)
        return named

    def _makers(
        self, payloads: Mapping[str, bytes], timeout: float | None, stamp: int
    ) -> list[Asked]:
        generation = self._namespace.generation

        def make(key: str) -> Operation:
            packed = self._values.packed(payloads[key], timeout, stamp, generation.current)
            return self._values.written(key, *packed)

        return [partial(make, key) for key in payloads]

    async def remove(self, key: str, since: int) -> Outcome:
        """Remove what is under a key, owing it where that fails; return what came of it."""
        with self.writing((key,)):
            outcome: Outcome = await Operation.delete(key)
            self._note_removal(key, since, outcome)
        return outcome

    async def remove_many(self, keys: Sequence[str], since: int) -> list[Outcome]:
        """Remove what is under the keys, owing what fails; return what came of it."""
        removals = [Operation.delete(key) for key in keys]
        with self.writing(keys) as write:
            outcomes = dict(await self._gateway.all("DELETE", removals, keys))
            for index, key in enumerate(keys):
                self._note_removal(key, since, outcomes[index])
            if write is not None:
                errors = (isinstance(each, MomentoError) for each in outcomes.values())
                write.is_answered = not any(errors)
        return [outcomes[index] for index in range(len(keys))]

    def _note_removal(self, key: str, since: int, outcome: Outcome) -> None:
        if isinstance(outcome, MomentoError):
            self._gateway.owe(key, since, outcome, is_deletion=True)
        else:
            self._gateway.is_overtaken(key, since, self._gateway.removals)

    async def _again(self, key: str, stored: Stored, ttl: int, write: Write | None) -> None:
        """Write once more what something else that was under way may have removed or replaced."""
        if write is not None:
            write.own.discard(key)
        await self._values.written(key, stored, ttl)

    async def _fail(
        self, name: str, key: str, ttl: int, error: MomentoError, since: int, *, owes: bool
    ) -> bool:
        if owes:
            await self._fail_many({key: error}, since, is_removal=ttl == 0)
        elif isinstance(error, BadRequest):
            await Operation.delete(key)
        self._error_policy.report(name, [error])
        return False

    async def _fail_many(
        self, outcomes: Mapping[str, Outcome], since: int, *, is_removal: bool
    ) -> None:
        """See to it that no older value outlives the writes that failed."""
        refused = []
        for key, error in outcomes.items():
            if not isinstance(error, MomentoError):
                continue
            if isinstance(error, BadRequest) and not is_removal:
                # What was refused leaves the old value behind: worse than none.
                refused.append(key)
            elif is_removal or not _is_session(key):
                self._gateway.owe(key, since, error, is_deletion=is_removal)
        if refused:
            await self.remove_many(refused, since)


def _is_session(key: str) -> bool:
    """Whether a key is of a session that is kept in the cache alone: to remove it ends it."""
    return _SESSION.search(decode_key(key)) is not None
