"""How values are written and removed so that no older one outlives them.

What the service refuses is followed by a removal; what fails is owed; what was written under a
generation that a clear() ended meanwhile is written once more. It knows nothing of reading.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial

from .._client.operation import Asked, Operation, Together
from .._client.responses import Outcome
from ..exceptions import BadRequest, MomentoError
from .envelope import Stored
from .error_policy import ErrorPolicy
from .gateway import Gateway
from .keys import decode_key
from .namespace import Namespace
from .values import Values

# A key of django.contrib.sessions.backends.cache: its cache_key_prefix and a session key.
_SESSION = re.compile(rb"django\.contrib\.sessions\.cache[A-Za-z0-9]{32}\Z")


class Writer:
    """Writes for one store; ``owes`` says whether a write that fails is owed."""

    def __init__(
        self, namespace: Namespace, gateway: Gateway, values: Values, on_error: ErrorPolicy
    ) -> None:
        self._namespace = namespace
        self._gateway = gateway
        self._values = values
        self._error_policy = on_error

    async def put(
        self, name: str, key: str, payload: bytes, timeout: float | None, *, owes: bool = False
    ) -> bool:
        """Store a new value, or remove it where the timeout is 0 or less; return whether."""
        stamp, generation = self._namespace.stamp(), self._namespace.generation
        stored, ttl = self._values.packed(payload, timeout, stamp, generation.current)
        outcome = await self._gateway.one(self._values.written(key, stored, ttl))
        if stored.generation != generation.current:
            # Another's clear() came to light: nobody would read what was just written.
            stored = stored._replace(generation=generation.current)
            outcome = await self._values.written(key, stored, ttl)
        return await self._end(name, key, stored, ttl, outcome, stamp, owes=owes)

    async def write(
        self, name: str, key: str, stored: Stored, ttl: int, *, owes: bool = False
    ) -> bool:
        """Store a value as it is, or remove it where the ttl is 0; return whether."""
        since = self._namespace.stamp() if ttl == 0 else stored.made_at
        outcome = await self._gateway.one(self._values.written(key, stored, ttl))
        return await self._end(name, key, stored, ttl, outcome, since, owes=owes)

    async def put_many(
        self, payloads: Mapping[str, bytes], timeout: float | None
    ) -> dict[str, Outcome]:
        """Do for many what put() does for one, owing what fails; each is packed as it is sent."""
        stamp, generation = self._namespace.stamp(), self._namespace.generation
        is_removal = timeout is not None and timeout <= 0
        began, keys = generation.current, list(payloads)
        asked = self._makers(payloads, timeout, stamp)
        method = "DELETE" if is_removal else "PUT"
        outcomes = dict(await self._gateway.all(method, asked, keys))
        if generation.current != began:
            outcomes = dict(await Together(asked))
        again = [
            asked[index]
            for index, key in enumerate(keys)
            if not isinstance(outcomes[index], MomentoError)
            and self._gateway.is_overtaken(key, stamp)
        ]
        if again:
            await Together(again)
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
        outcome: Outcome = await Operation.delete(key)
        self._note_removal(key, since, outcome)
        return outcome

    async def remove_many(self, keys: Sequence[str], since: int) -> list[Outcome]:
        """Remove what is under the keys, owing what fails; return what came of it."""
        removals = [Operation.delete(key) for key in keys]
        outcomes = dict(await self._gateway.all("DELETE", removals, keys))
        for index, key in enumerate(keys):
            self._note_removal(key, since, outcomes[index])
        return [outcomes[index] for index in range(len(keys))]

    def _note_removal(self, key: str, since: int, outcome: Outcome) -> None:
        if isinstance(outcome, MomentoError):
            self._gateway.owe(key, since, outcome, is_deletion=True)
        else:
            self._gateway.is_overtaken(key, since)

    async def _end(
        self,
        name: str,
        key: str,
        stored: Stored,
        ttl: int,
        outcome: Outcome,
        since: int,
        *,
        owes: bool,
    ) -> bool:
        if not isinstance(outcome, MomentoError):
            if self._gateway.is_overtaken(key, since):
                await self._values.written(key, stored, ttl)
            return True
        if owes:
            await self._fail_many({key: outcome}, since, is_removal=ttl == 0)
        elif isinstance(outcome, BadRequest):
            await Operation.delete(key)
        self._error_policy.report(name, [outcome])
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
