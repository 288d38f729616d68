"""Which debts may be paid beside a caller's operations, and by whom.

Nobody waits for payments: they take a bounded share of requests, pause when they fail, and none is
made twice at once. It sends nothing.
"""

from collections.abc import Callable, Collection, Iterable

from .debts import DELETIONS, SETS, SETTLED, Debt, Ledger, Moment, Payer, Queues

# The share of operations that may each bring along a payment for a write that set a value.
_SHARE_OF_SETS = 0.1
# A payment that has not ended after this many seconds was lost with whoever made it.
_LOST_AFTER = 60.0
# Debts that are looked at, beyond twice those wanted, for such as can be paid now.
_SPARE = 8
# Seconds without payments after one that failed, doubled by each in a row: what nobody waits for
# must not open a breaker.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
# Keys of which it is remembered that they were removed.
_REMEMBERED = 256
_NEVER = float("-inf")


class Payments:
    """The payments of one namespace; safe under threads, and within signal handlers."""

    def __init__(self, queues: Queues, ledger: Ledger, clock: Callable[[], float]) -> None:
        self._queues = queues
        self._lock = ledger.lock
        self._clock = clock
        self._credit = self._credit_of_sets = 0.0
        self._resume_at, self._pause = _NEVER, _FIRST_PAUSE
        self.removals = 0  # that have ended
        self._removed: dict[str, int] = {}  # of the latest keys, how many there were then

    def due(
        self, payer: Payer, operations: int, besides: Collection[str], *, is_reading: bool
    ) -> list[Debt]:
        """Claim what is to be paid beside so many operations of a caller, who asks for some keys.

        For each operation there is at most one request for deletions, and a tenth of one for sets.
        A payment may take two, and a key that is owed and read may take one.
        """
        with self._lock:
            self._credit = min(self._credit, 0.0) + operations
            share = self._credit_of_sets + operations * _SHARE_OF_SETS
            self._credit_of_sets = min(share, max(1.0, operations * _SHARE_OF_SETS))
            if self._clock() < self._resume_at:
                return []
            read = sum(bool(self._queues.all_of(key)) for key in besides) if is_reading else 0
            deletions = self._take(payer, besides, self._credit - read, DELETIONS)
            self._credit -= len(deletions)
            sets = self._take(payer, besides, self._credit_of_sets, SETS)
            self._credit_of_sets -= len(sets)
            return deletions + sets

    def claim(self, payer: Payer, key: str) -> Debt | None:
        """Claim what the payer owes for a key, unless somebody pays it; "" is for a clear()."""
        with self._lock:
            now = self._clock()
            owed = [debt for debt in self._queues.all_of(key) if debt.payer is payer]
            if now < self._resume_at or any(debt.busy_until > now for debt in owed):
                return None
            for debt in owed[:1]:
                debt.busy_until = now + _LOST_AFTER
                return debt
            return None

    def spend(self, debts: Iterable[Debt], *, is_reading: bool) -> None:
        """Count a second request for each of these payments, or one for what a caller has read."""
        with self._lock:
            for debt in debts:
                if debt.is_deletion or is_reading:
                    self._credit -= 1
                else:
                    self._credit_of_sets -= 1

    def may_remove(self, debt: Debt, asked: Moment) -> bool:
        """Say whether what was found then is still to be removed, and note that this begins."""
        with self._lock:
            is_owed = self._queues.at(debt.payer, debt.kind, debt.key) is debt
            if not is_owed or debt.number > asked.number:
                return False
            debt.is_removing = True
            return True

    def is_removing(self, debts: Iterable[Debt]) -> bool:
        """Whether a payment of one of these removes what it found."""
        now = self._clock()
        return any(debt.is_removing and debt.busy_until > now for debt in debts)

    def removed(self, debts: Iterable[Debt]) -> None:
        """Take in that removals have ended, however they did."""
        with self._lock:
            for debt in debts:
                self.removals += 1
                self._removed.pop(debt.key, None)
                self._removed[debt.key] = self.removals
                if len(self._removed) > _REMEMBERED:
                    self._removed.pop(next(iter(self._removed)), None)

    def was_removed(self, key: str, removals: int) -> bool:
        """Whether a removal of this key has ended since there had been so many."""
        return self._removed.get(key, 0) > removals

    def succeeded(self) -> None:
        """Take in that a debt was paid."""
        self._pause = _FIRST_PAUSE

    def failed(self, debt: Debt) -> None:
        """Take in that a payment failed: others come first now, and none at once."""
        with self._lock:
            now = self._clock()
            if now >= self._resume_at:
                self._resume_at = now + self._pause
                self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            self._queues.postpone(debt)

    def _take(self, payer: Payer, besides: Collection[str], credit: float, kind: int) -> list[Debt]:
        most = (int(credit) + 1) // 2
        if most <= 0:
            return []
        now = self._clock()
        first = self._queues.first(payer, kind, 2 * most + _SPARE)
        first += self._queues.first(payer, SETTLED[kind], 2 * most + _SPARE)
        ready = [debt for debt in first if max(debt.busy_until, debt.not_before) <= now]
        taken = [debt for debt in ready if debt.key not in besides][:most]
        for debt in taken:
            debt.busy_until = now + _LOST_AFTER
            self._queues.postpone(debt)
        return taken
