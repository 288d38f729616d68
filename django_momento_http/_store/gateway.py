"""How a store's operations are sent, and what goes beside them: the clear marker, and payments.

A read of the marker goes beside the operation that needs it, and so do payments of writes that are
owed; neither lengthens a deadline. It knows markers and debts, and nothing of what a method
promises.
"""

from collections.abc import Awaitable, Sequence
from enum import Enum

from .._client.client import MomentoClient
from .._client.operation import Asked, Operation, Outcomes, Together
from .._client.responses import Outcome
from ..exceptions import ConnectFailed, MomentoError, StoredValueError, TransportError
from .clear_marker import Marker
from .debts import Debt, Moment
from .error_policy import is_final
from .namespace import Namespace
from .values import Values

# Kinds of what was never sent.
_NOT_SENT = frozenset({"no_thread", "no_time", "pool_timeout"})


class _Verdict(Enum):
    """What a look at an owed key says."""

    OLDER = "there is a value from before the debt"
    OVER = "there is none, or a newer one"
    UNKNOWN = "the service could not say"


class Gateway:
    """Sends for one store; most methods are plans (see ``operation``)."""

    def __init__(
        self, client: MomentoClient, namespace: Namespace, marker: Marker, values: Values
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._owed = namespace.owed
        self._payments = namespace.owed.payments
        self._marker = marker
        self._values = values

    # Sending

    def one(self, operation: Operation) -> Awaitable[Outcome]:
        """Return what gives the outcome of an operation: mostly the operation itself."""
        is_due = operation.method != "DELETE" and self._marker.is_due()
        if is_due or self._owed.queues:
            return self.accompanied(operation, is_due=is_due)
        return operation

    async def accompanied(self, operation: Operation, *, is_due: bool) -> Outcome:
        """Return the outcome of an operation beside which something goes, the marker if due."""
        together = self._together(operation.method, [operation], [operation.key], is_due=is_due)
        [(_, outcome)] = await together
        return outcome

    async def all(self, method: str, operations: Sequence[Asked], keys: Sequence[str]) -> Outcomes:
        """Return the outcomes of operations of one method on these keys, as they come."""
        if not operations:
            return ()
        is_due = method != "DELETE" and self._marker.is_due()
        if is_due or self._owed.queues:
            return await self._together(method, operations, keys, is_due=is_due)
        return await Together(operations)

    async def _together(
        self, method: str, operations: Sequence[Asked], keys: Sequence[str], *, is_due: bool
    ) -> Outcomes:
        """Return the outcomes once what came beside them was taken in."""
        clear, debts = self._claimed_clear(), self._due(method, keys)
        try:
            return await self._beside(method, operations, keys, clear, debts, is_due=is_due)
        finally:
            for debt in [clear, *debts] if clear is not None else debts:
                debt.release()

    async def _beside(
        self,
        method: str,
        operations: Sequence[Asked],
        keys: Sequence[str],
        clear: Debt | None,
        debts: list[Debt],
        *,
        is_due: bool,
    ) -> Outcomes:
        looks = []
        if is_due or clear is not None:
            looks = self._marker.looks(is_needed=clear is not None)
        payments = [Operation("GET", debt.key, is_beside=True, is_for_write=True) for debt in debts]
        asked, asked_at = self._owed.moment(), self._marker.now()
        outcomes: list[Outcome] = [None] * (len(looks) + len(debts) + len(operations))
        for index, outcome in await Together([*looks, *payments, *operations]):
            outcomes[index] = outcome
        first, own = len(looks), len(looks) + len(debts)
        if looks:
            found = await self._marker.heed(outcomes[:first], asked_at)
            if clear is not None:
                await self._pay_clear(clear, found, asked)
        looked = zip(debts, outcomes[first:own], strict=True)
        older = [debt for debt, outcome in looked if self._is_older(debt, outcome, asked)]
        outcomes = outcomes[own:]
        read = self._hide_older(keys, outcomes, asked) if method == "GET" else []
        self._payments.spend(older, is_reading=False)
        self._payments.spend(read, is_reading=True)
        try:
            await self._remove(older + read, asked)
        finally:
            for debt in read:
                debt.release()
        return enumerate(outcomes)

    # clear()

    async def clear(self) -> MomentoError | None:
        """Clear the namespace, or owe it; return what went wrong."""
        asked = self._owed.moment()
        chosen, error = await self._marker.clear()
        if error is None:
            self._owed.end_clears(chosen, asked)
            if not self._namespace.is_served_whole:
                self._owed.end_all(asked)
        elif not is_final(error):
            self._owed.owe_clear(chosen, self._client)
        return error

    def _claimed_clear(self) -> Debt | None:
        if not self._owed.is_clear_owed or not self._client.may_send_extra:
            return None
        return self._payments.claim(self._client, "")

    async def _pay_clear(self, clear: Debt, found: int | None, asked: Moment) -> None:
        if found == -1:
            self._payments.failed(clear)
            return
        if found == clear.since:
            found = None  # its own, written without an answer: what was set since is to survive
        error = await self._marker.raise_above(found, clear.since)
        if error is not None and not is_final(error):
            self._payments.failed(clear)
        elif error is not None:
            self._owed.lose(clear)
        else:
            self._owed.end_clears(clear.since, asked)

    # Writes that are owed

    def owe(self, key: str, since: int, error: MomentoError, *, is_deletion: bool) -> None:
        """Owe a write that failed, unless it can never succeed."""
        if not is_final(error):
            self._owed.add(
                key, since, self._client, is_deletion=is_deletion, may_arrive=_may_arrive(error)
            )

    def is_owed(self, key: str) -> bool:
        """Whether something is owed for a key, so that what is absent here may be there."""
        return bool(self._owed.queues) and self._owed.find(key) is not None

    @property
    def removals(self) -> int:
        """How many removals of payments have ended: read it before a write is sent."""
        return self._payments.removals

    def is_overtaken(self, key: str, since: int, removals: int) -> bool:
        """Whether a write that succeeded must be sent once more.

        A payment may have removed it: one that is under way, or has ended since the write began.
        """
        is_overtaken = bool(self._owed.queues) and self._owed.written(key, since)
        if self._payments.removals != removals:
            is_overtaken |= self._payments.was_removed(key, removals)
        return is_overtaken

    def _due(self, method: str, keys: Sequence[str]) -> list[Debt]:
        if not self._owed.queues or not self._client.may_send_extra:
            return []
        return self._payments.due(self._client, len(keys), set(keys), is_reading=method == "GET")

    def _is_older(self, debt: Debt, outcome: Outcome, asked: Moment) -> bool:
        """Whether a payment's look found what must be removed."""
        verdict = self._verdict(debt, outcome)
        if verdict is _Verdict.OVER:
            self._owed.end(debt.key, asked)
        elif verdict is _Verdict.UNKNOWN:
            self._fail(debt, outcome)
        return verdict is _Verdict.OLDER

    def _fail(self, debt: Debt, outcome: Outcome) -> None:
        if isinstance(outcome, MomentoError) and is_final(outcome):
            self._owed.lose(debt)
        else:
            self._payments.failed(debt)

    def _hide_older(
        self, keys: Sequence[str], outcomes: list[Outcome], asked: Moment
    ) -> list[Debt]:
        """Make absent what is from before a debt; return whose values are to be removed."""
        older: list[Debt] = []
        if not self._owed.queues:
            return older
        may_pay = self._client.may_send_extra
        for index, key in enumerate(keys):
            debt = self._owed.find(key)
            if debt is None:
                continue
            verdict = self._verdict(debt, outcomes[index])
            if verdict is _Verdict.OVER:
                self._owed.end(key, asked)
            elif verdict is _Verdict.OLDER:
                outcomes[index] = None
                claimed = self._payments.claim(self._client, key) if may_pay else None
                if claimed is not None:
                    older.append(claimed)
        return older

    def _verdict(self, debt: Debt, outcome: Outcome) -> _Verdict:
        made_at = self._values.made_at(debt.key, outcome)
        if isinstance(made_at, int):
            return _Verdict.OLDER if made_at < debt.since else _Verdict.OVER
        # What is not ours is served to nobody.
        is_unknown = made_at is not None and not isinstance(made_at, StoredValueError)
        return _Verdict.UNKNOWN if is_unknown else _Verdict.OVER

    async def _remove(self, debts: list[Debt], asked: Moment) -> None:
        """Remove what was found, but for what was written since."""
        older = [debt for debt in debts if self._payments.may_remove(debt, asked)]
        if not older:
            return
        asked = self._owed.moment()
        removals = [Operation("DELETE", debt.key, is_beside=True) for debt in older]
        try:
            for index, outcome in await Together(removals):
                self._payments.removed((older[index],))
                if isinstance(outcome, MomentoError):
                    self._fail(older[index], outcome)
                else:
                    self._owed.end(older[index].key, asked)
        finally:
            self._payments.removed(older)


def _may_arrive(error: MomentoError) -> bool:
    """Whether a request that failed may still be carried out."""
    is_sent = isinstance(error, TransportError) and not isinstance(error, ConnectFailed)
    return is_sent and error.kind not in _NOT_SENT
