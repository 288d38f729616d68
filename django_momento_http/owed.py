"""Writes that failed, or may have failed, and what pays for them when the service answers again.

A ``set`` or ``delete`` that was not answered leaves an older value behind that is valid and signed:
a session that was logged out, a permission that was revoked. So it is *owed*: until it is paid, a
value of its key that was made before it counts as absent. It is paid by a look and, where an older
value is found, its removal; another process's newer value stays. It sends nothing, and logs through
whom it is given.
"""

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Container, Iterable
from itertools import islice
from typing import Protocol

# Keys that a process remembers; about half a kilobyte each.
MOST_OWED = 100_000
# The share of operations that may each bring along a payment for a write that set a value.
_SHARE_OF_SETS = 0.1
# A payment that has not ended after this many seconds was lost with whoever made it.
_LOST_AFTER = 60.0
_MOST_UNDER_WAY = 256
# A request that was sent and not answered may be carried out late: after others are answered again,
# no later than this many seconds.
_ARRIVES_WITHIN = 1.0
_LINE_SECONDS = 10.0
_FIRST = "a write failed and is owed: until it is paid, values from before it count as absent here"


class Payer(Protocol):
    """Who owes: only through it may the debt be paid, because another's token may not write."""

    def owes(self, change: int) -> None:
        """Take in that so many more writes, or fewer, are owed."""

    def paid(self) -> None:
        """Take in that one was paid."""


class Debt:
    """One write that is owed: what was made before ``since`` (ms since 1970) must not be served.

    For a clear(), ``since`` is the generation that it chose, and ``key`` is empty. A write that was
    sent and not answered ``may_arrive`` late: when it is settled, it is looked at once more.
    """

    __slots__ = (
        "busy_until",
        "is_deletion",
        "is_settled",
        "key",
        "may_arrive",
        "not_before",
        "payer",
        "since",
    )

    def __init__(
        self,
        key: str,
        since: int,
        payer: Payer,
        *,
        is_deletion: bool = True,
        may_arrive: bool = False,
    ) -> None:
        self.key = key
        self.since = since
        self.payer = payer
        self.is_deletion = is_deletion
        self.may_arrive = may_arrive
        self.is_settled = False
        self.not_before = float("-inf")  # it is not to be paid until then
        self.busy_until = float("-inf")  # somebody pays it until then

    def is_busy(self, now: float) -> bool:
        """Whether somebody pays it now."""
        return self.busy_until > now


class Ledger:
    """All debts of a process, which are at most ``most``; safe under threads."""

    def __init__(self, most: int = MOST_OWED) -> None:
        self._most = most
        self.lock = threading.RLock()
        self._sets: dict[tuple[Owed, str], None] = {}
        self._deletions: dict[tuple[Owed, str], None] = {}

    def enter(self, owed: "Owed", debt: Debt) -> "tuple[Owed, str] | None":
        """Note a debt; return which one must be forgotten for it."""
        self.leave(owed, debt.key)
        (self._deletions if debt.is_deletion else self._sets)[owed, debt.key] = None
        if len(self._sets) + len(self._deletions) <= self._most:
            return None
        return next(iter(self._sets or self._deletions))

    def leave(self, owed: "Owed", key: str) -> None:
        """Forget a debt."""
        self._sets.pop((owed, key), None)
        self._deletions.pop((owed, key), None)


class Owed:
    """The debts of one namespace; safe under threads, and within signal handlers."""

    def __init__(
        self, ledger: Ledger, clock: Callable[[], float], say: Callable[[int, str], None]
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._say = say
        self._debts: dict[str, Debt] = {}
        # The same by who owes and of which kind, in the order in which they are to be paid.
        self._queues: defaultdict[tuple[Payer, bool], dict[str, Debt]] = defaultdict(dict)
        self._credit = self._credit_of_sets = 0.0
        self.clear: Debt | None = None
        self.is_any = False
        self._is_announced = False
        self._open = 0  # owed and not settled
        self._next_line = float("-inf")
        self._since_line = 0  # paid since the last line

    def find(self, key: str) -> Debt | None:
        """Return the debt of this key, if any."""
        return self._debts.get(key)

    def add(
        self, key: str, since: int, payer: Payer, *, is_deletion: bool, may_arrive: bool
    ) -> None:
        """Owe a write; ``may_arrive``: it was sent, and what became of it is not known."""
        with self._ledger.lock:
            old = self._debts.get(key)
            if old is not None and old.since > since:
                return
            if old is not None:
                self._drop(old)
                may_arrive |= old.may_arrive
                # What was deleted must not come back because a later set failed, too.
                is_deletion |= old.is_deletion
            debt = Debt(key, since, payer, is_deletion=is_deletion, may_arrive=may_arrive)
            self._debts[key] = self._queues[payer, is_deletion][key] = debt
            self._open += 1
            payer.owes(1)
            over = self._ledger.enter(self, debt)
        self._say_first()
        if over is not None:
            over[0].forget(over[1])

    def owe_clear(self, generation: int, payer: Payer) -> None:
        """Owe a clear() that chose this generation."""
        with self._ledger.lock:
            if self.clear is not None:
                self._drop(self.clear)
            self.clear = Debt("", generation, payer)
            self._open += 1
            payer.owes(1)
            self._ledger.enter(self, self.clear)
        self._say_first()

    def forget(self, key: str) -> None:
        """Give a debt up for want of room."""
        debt = self._debts.get(key) if key else self.clear
        if debt is None:
            return
        self._drop(debt)
        if debt.is_deletion:
            self._say(logging.ERROR, f"more than {MOST_OWED} writes are owed: a deletion is lost")

    def end(self, debt: Debt) -> bool:
        """Take in that a debt is paid; return whether it was owed until now."""
        with self._ledger.lock:
            if debt is not self.clear and self._debts.get(debt.key) is not debt:
                return False
            was_owed = not debt.is_settled
            if debt.may_arrive and was_owed:
                self._settle(debt)
            else:
                self._drop(debt)
        if was_owed:
            self._paid(debt)
        return was_owed

    def end_all(self) -> None:
        """Take in that all values from before now are gone."""
        for debt in [*self._debts.values(), *([self.clear] if self.clear else [])]:
            self._drop(debt)
            if not debt.is_settled:
                self._paid(debt)

    def written(self, key: str, since: int) -> bool:
        """Take in that a write succeeded; return whether it must be sent once more.

        That is so where a payment is under way, which may remove what was just written.
        """
        with self._ledger.lock:
            debt = self._debts.get(key)
            if debt is None or debt.since > since:
                return False
            # What may still arrive is older than this, too.
            debt.since = since
            is_busy = debt.is_busy(self._clock())
            if debt.is_settled:
                debt.not_before = self._clock() + _ARRIVES_WITHIN
            else:
                self.end(debt)
            return is_busy

    def due(self, payer: Payer, operations: int, besides: Container[str]) -> list[Debt]:
        """Claim what is to be paid beside so many operations of a caller, who asks for some keys.

        For each operation there is at most one request for deletions, and a tenth of one for sets.
        """
        with self._ledger.lock:
            self._credit = min(self._credit, 0.0) + operations
            share = self._credit_of_sets + operations * _SHARE_OF_SETS
            self._credit_of_sets = min(share, max(1.0, operations * _SHARE_OF_SETS))
            deletions = self._take(payer, besides, int(self._credit), is_deletion=True)
            sets = self._take(payer, besides, int(self._credit_of_sets), is_deletion=False)
            self._credit -= len(deletions)
            self._credit_of_sets -= len(sets)
            return deletions + sets

    def claim(self, debt: Debt) -> bool:
        """Say whether the caller is to pay this debt: nobody else does."""
        with self._ledger.lock:
            now = self._clock()
            if debt.is_busy(now):
                return False
            debt.busy_until = now + _LOST_AFTER
            return True

    def spend(self, debts: Iterable[Debt]) -> None:
        """Count a second request for each of these payments."""
        with self._ledger.lock:
            for debt in debts:
                if debt.is_deletion:
                    self._credit -= 1
                else:
                    self._credit_of_sets -= 1

    def put_back(self, debt: Debt) -> None:
        """Take in that a payment failed: others come first now."""
        debt.busy_until = float("-inf")
        with self._ledger.lock:
            queue = self._queues[debt.payer, debt.is_deletion]
            if queue.pop(debt.key, None) is not None:
                queue[debt.key] = debt

    def _take(
        self, payer: Payer, besides: Container[str], most: int, *, is_deletion: bool
    ) -> list[Debt]:
        if most <= 0:
            return []
        now = self._clock()
        # Of the first ones, some may be under way already.
        first = list(islice(self._queues[payer, is_deletion].values(), most + _MOST_UNDER_WAY))
        ready = [debt for debt in first if max(debt.busy_until, debt.not_before) <= now]
        taken = [debt for debt in ready if debt.key not in besides][:most]
        for debt in taken:
            debt.busy_until = now + _LOST_AFTER
        return taken

    def _settle(self, debt: Debt) -> None:
        """Keep a debt that is paid for one more look."""
        debt.is_settled = True
        debt.not_before = self._clock() + _ARRIVES_WITHIN
        self._open -= 1
        debt.payer.owes(-1)
        self.put_back(debt)

    def _drop(self, debt: Debt) -> None:
        """Owe a debt no more, whatever became of it."""
        with self._ledger.lock:
            if debt is self.clear:
                self.clear = None
            elif self._debts.get(debt.key) is debt:
                del self._debts[debt.key]
                self._queues[debt.payer, debt.is_deletion].pop(debt.key, None)
            else:
                return
            self._ledger.leave(self, debt.key)
            self.is_any = bool(self._debts) or self.clear is not None
            if not debt.is_settled:
                self._open -= 1
                debt.payer.owes(-1)

    def _say_first(self) -> None:
        self.is_any = True
        now = self._clock()
        if not self._is_announced and now >= self._next_line:
            self._next_line = now + _LINE_SECONDS
            self._since_line = 0
            self._is_announced = True
            self._say(logging.WARNING, _FIRST)

    def _paid(self, debt: Debt) -> None:
        debt.payer.paid()
        self._since_line += 1
        if self._is_announced and not self._open:
            self._is_announced = False
            self._say(logging.INFO, f"all writes that were owed are paid ({self._since_line})")
