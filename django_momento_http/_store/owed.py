"""Writes that failed, or may have failed, and what pays for them when the service answers again.

A ``set`` or ``delete`` that was not answered leaves an older value behind that is valid and signed:
a session that was logged out, a permission that was revoked. So it is *owed*: until it is paid, a
value of its key that was made before it counts as absent. It is paid by a look and, where an older
value is found, its removal; another process's newer value stays. It sends nothing, and logs
through a function that it is given.
"""

import logging
from collections.abc import Callable, Collection, Iterable

from .debts import CLEARS, DELETIONS, MOST_OWED, SETS, SETTLED, Debt, Ledger, Moment, Payer, Queues
from .payments import Payments

# A request that was sent and not answered may be carried out late: after others are answered again,
# no later than this many seconds.
_ARRIVES_WITHIN = 1.0
_LINE_SECONDS = 10.0
_FIRST = "a write failed and is owed: until it is paid, values from before it count as absent here"
_FULL = f"more than {MOST_OWED} writes are owed: a deletion is lost"
_REFUSED = "a write that was owed was refused for good: an older value may be served"
_NEVER = float("-inf")


class Owed(Queues):
    """What is owed in one namespace; safe under threads, and within signal handlers."""

    def __init__(
        self, ledger: Ledger, clock: Callable[[], float], say: Callable[[int, str], None]
    ) -> None:
        super().__init__(ledger, clock)
        self.payments = Payments(self, ledger, clock)
        self._say = say
        self._is_announced = False
        self._next_line = self._next_error = _NEVER
        self._since_line = 0  # paid since the last line

    # Owing

    def add(
        self, key: str, since: int, payer: Payer, *, is_deletion: bool, may_arrive: bool
    ) -> None:
        """Owe a write; ``may_arrive``: it was sent, and what became of it is not known."""
        with self._ledger.lock:
            deletion, set_ = self.at(payer, DELETIONS, key), self.at(payer, SETS, key)
            if is_deletion and deletion is None:
                deletion = self.new(key, since, payer, DELETIONS)
            # What was deleted must not come back because a later set failed, too.
            debt = deletion or set_ or self.new(key, since, payer, SETS)
            self.renew(debt, since, may_arrive=may_arrive)
            self.put(debt)
            if set_ is not None and set_ is not debt and set_.busy_until <= self._clock():
                self.renew(debt, set_.since, may_arrive=set_.may_arrive)
                self.drop(set_)
        self._note(payer)
        for queues in self._ledger.make_room():
            queues.say_lost(_FULL)

    def owe_clear(self, generation: int, payer: Payer) -> None:
        """Owe a clear() that chose this generation."""
        self.put(self.new("", generation, payer, CLEARS))
        self._note(payer)

    def lose(self, debt: Debt) -> None:
        """Give up what can never be paid."""
        if self.drop(debt) and debt.kind in (DELETIONS, CLEARS):
            self.say_lost(_REFUSED)

    # Ending

    def end(self, key: str, asked: Moment) -> None:
        """Take in that a look which began then found no older value."""
        self._end((debt for debt in self.all_of(key) if debt.number < asked.number), asked.clock)

    def end_all(self, asked: Moment) -> None:
        """Take in that all values from before then are gone."""
        queues = [list(queue.values()) for queue in list(self.queues.values())]
        over = [debt for queue in queues for debt in queue if debt.number < asked.number]
        self._paid([debt for debt in over if self.drop(debt) and not debt.is_settled])

    def end_clears(self, generation: int, asked: Moment) -> None:
        """Take in that this generation is the current one for all."""
        clears = [debt for debt in self.all_of("") if debt.number < asked.number]
        self._end((debt for debt in clears if debt.since <= generation), asked.clock)

    def written(self, key: str, since: int) -> bool:
        """Take in that a write succeeded; return whether it must be sent once more.

        That is so while a payment removes what it found before, as that may be the last to arrive.
        """
        if self.find(key) is None:
            return False
        with self._ledger.lock:
            over = [debt for debt in self.all_of(key) if debt.since <= since]
            is_overtaken = self.payments.is_removing(over)
            for debt in over:
                # What may still arrive is older than this, too.
                debt.since = since
                if debt.is_settled:
                    self._settle(debt)
        self._end((debt for debt in over if not debt.is_settled), self._clock())
        return is_overtaken

    def _end(self, debts: Iterable[Debt], asked_at: float) -> None:
        paid = []
        with self._ledger.lock:
            for debt in list(debts):
                if debt.is_settled and asked_at < debt.not_before:
                    continue
                if debt.may_arrive and not debt.is_settled:
                    self._settle(debt)
                if self.drop(debt) and not debt.is_settled:
                    paid.append(debt)
        self._paid(paid)

    def _settle(self, debt: Debt) -> None:
        """Keep a debt that is paid for one more look."""
        payer, key = debt.payer, debt.key
        kind = SETTLED.get(debt.kind, debt.kind)
        kept = self.at(payer, kind, key) or self.new(key, debt.since, payer, kind)
        kept.not_before = self._clock() + _ARRIVES_WITHIN
        self.renew(kept, debt.since, may_arrive=True)
        self.put(kept)
        self.postpone(kept)

    # Saying

    def say_lost(self, text: str) -> None:
        """Say that a deletion was given up, once in a while."""
        now = self._clock()
        if now >= self._next_error:
            self._next_error = now + _LINE_SECONDS
            self._say(logging.ERROR, text)

    def _note(self, payer: Payer) -> None:
        payer.owes(self._ledger)
        now = self._clock()
        if not self._is_announced and now >= self._next_line:
            self._next_line = now + _LINE_SECONDS
            self._since_line = 0
            self._is_announced = True
            self._say(logging.WARNING, _FIRST)

    def _paid(self, debts: Collection[Debt]) -> None:
        for debt in debts:
            debt.payer.paid()
            self.payments.succeeded()
        self._since_line += len(debts)
        if self._is_announced and not self.is_any_open:
            self._is_announced = False
            self._say(logging.INFO, f"all writes that were owed are paid ({self._since_line})")
