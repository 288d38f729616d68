"""Debts, and where they stand: the queues of one namespace, and all of those of a process.

A debt is owed while it stands in a queue, and everything else is found from the queues, so that no
interrupt leaves two accounts that differ. The code that puts it there or takes it out calls nothing
between its first step and its last: CPython runs signal handlers only after calls. It knows nothing
of how debts come and go.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import chain, count, islice
from typing import NamedTuple, Protocol

# Keys that a process remembers; about a third of a kilobyte each, and the key.
MOST_OWED = 100_000
# Where there are more, so large a part of them is forgotten at once.
_FORGOTTEN_AT_ONCE = 0.001

# Kinds of debts. Numbers, because an Enum's hash would be a call.
DELETIONS, SETS, SETTLED_DELETIONS, SETTLED_SETS, CLEARS = range(5)
SETTLED = {DELETIONS: SETTLED_DELETIONS, SETS: SETTLED_SETS}
_OPEN = (DELETIONS, SETS, CLEARS)
_FORGOTTEN_IN_TURN = (SETTLED_SETS, SETTLED_DELETIONS, SETS, DELETIONS)
_NEVER = float("-inf")


class Payer(Protocol):
    """Who owes: only through it may the debt be paid, because another's token may not write."""

    def owes(self, ledger: "Ledger") -> None:
        """Take in whose ``count`` says how many writes it owes."""

    def paid(self) -> None:
        """Take in that one was paid."""


class Moment(NamedTuple):
    """When something was asked for: only what was owed before can be ended by the answer."""

    number: int
    clock: float


class Debt:
    """One write that is owed: what was made before ``since`` (ms since 1970) must not be served.

    For a clear(), ``since`` is the generation that it chose, and ``key`` is empty. A write that was
    sent and not answered ``may_arrive`` late: when it is paid, it is settled and looked at once
    more.
    """

    __slots__ = (
        "busy_until",
        "is_removing",
        "key",
        "kind",
        "may_arrive",
        "not_before",
        "number",
        "payer",
        "since",
    )

    def __init__(self, key: str, since: int, payer: Payer, kind: int, number: int) -> None:
        self.key = key
        self.since = since
        self.payer = payer
        self.kind = kind
        self.number = number  # greater than all that were given before
        self.may_arrive = False
        self.not_before = _NEVER  # it is not to be paid until then
        self.busy_until = _NEVER  # somebody pays it until then
        self.is_removing = False

    @property
    def is_settled(self) -> bool:
        """Whether it is paid, and kept for one more look."""
        return self.kind not in _OPEN

    @property
    def is_deletion(self) -> bool:
        """Whether it is owed for what removes a value."""
        return self.kind in (DELETIONS, SETTLED_DELETIONS)

    def renew(self, since: int, number: int, *, may_arrive: bool = False) -> None:
        """Let it stand for a later write of its key, too."""
        self.number = number
        self.since = max(self.since, since)
        self.may_arrive |= may_arrive

    def release(self) -> None:
        """Take in that nobody pays it now."""
        self.busy_until = _NEVER
        self.is_removing = False


class Ledger:
    """All debts of a process, which are at most ``most``; safe under threads."""

    def __init__(self, most: int = MOST_OWED) -> None:
        self._most = most
        self._room = most  # so many more may be owed before they are to be counted
        self.lock = threading.RLock()
        self.owing: dict[Queues, None] = {}

    def count(self, payer: Payer) -> int:
        """Return how many writes a payer owes."""
        with self.lock:
            return sum(queues.count(payer) for queues in list(self.owing))

    def make_room(self) -> "list[Queues]":
        """Take in that one more is owed; return whose deletions had to be forgotten for it."""
        with self.lock:
            self._room -= 1
            if self._room >= 0:
                return []
            size = sum(queues.size() for queues in list(self.owing))
            over = size - self._most
            if over > 0:
                over = max(over, int(self._most * _FORGOTTEN_AT_ONCE))
            self._room = self._most - size + max(over, 0)
            return self._forget(over) if over > 0 else []

    def _forget(self, over: int) -> "list[Queues]":
        """Forget about so many, of each kind what seems the oldest."""
        losers: dict[Queues, None] = {}
        for kind in _FORGOTTEN_IN_TURN:
            owing = list(self.owing)
            each = 4 * over // max(len(owing), 1) + 1
            heads = [(head, owed) for owed in owing for head in owed.heads(kind, each)]
            for debt, queues in sorted(heads, key=lambda pair: pair[0].since)[:over]:
                over -= queues.drop(debt)
                if kind == DELETIONS:
                    losers[queues] = None
            if over <= 0:
                break
        return list(losers)


class Queues:
    """The debts of one namespace, by who owes and of which kind, in the order of their turn."""

    def __init__(self, ledger: Ledger, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._clock = clock
        # None is empty: where there is none, nothing is owed.
        self.queues: dict[tuple[Payer, int], OrderedDict[str, Debt]] = {}
        self._numbers = count(1)

    def moment(self) -> Moment:
        """Return the present."""
        return Moment(next(self._numbers), self._clock())

    def find(self, key: str) -> Debt | None:
        """Return the debt of this key, if any; of several that which makes most absent."""
        found = self.all_of(key)
        if len(found) > 1:
            return max(found, key=lambda debt: debt.since)
        return found[0] if found else None

    def all_of(self, key: str) -> list[Debt]:
        """Return all debts of a key."""
        found = [queue.get(key) for queue in list(self.queues.values())]
        return [debt for debt in found if debt is not None]

    def at(self, payer: Payer, kind: int, key: str) -> Debt | None:
        """Return the debt of a kind that a payer owes for a key, if any."""
        queue = self.queues.get((payer, kind))
        return queue.get(key) if queue is not None else None

    def first(self, payer: Payer, kind: int, most: int) -> list[Debt]:
        """Return the first so many whose turn it is."""
        queue: Mapping[str, Debt] = self.queues.get((payer, kind), {})
        # The chain begins to look at the queue within list(): a signal handler comes before or
        # after that, never between.
        return list(islice(chain.from_iterable((queue.values(),)), most))

    def count(self, payer: Payer) -> int:
        """Return how many writes a payer owes here."""
        queues = list(self.queues.items())
        return sum(len(queue) for (who, kind), queue in queues if who is payer and kind in _OPEN)

    def size(self) -> int:
        """Return how many debts there are, settled ones included."""
        return sum(len(queue) for queue in list(self.queues.values()))

    def heads(self, kind: int, most: int) -> list[Debt]:
        """Return of each payer the first debts of a kind."""
        payers = [payer for payer, each in list(self.queues) if each == kind]
        return [head for payer in payers for head in self.first(payer, kind, most)]

    @property
    def is_any_open(self) -> bool:
        """Whether anything is owed that is not settled."""
        return any(kind in _OPEN for _, kind in list(self.queues))

    @property
    def is_clear_owed(self) -> bool:
        """Whether a clear() is owed."""
        return any(kind == CLEARS for _, kind in list(self.queues))

    def new(self, key: str, since: int, payer: Payer, kind: int) -> Debt:
        """Return a debt that is not owed yet."""
        return Debt(key, since, payer, kind, next(self._numbers))

    def renew(self, debt: Debt, since: int, *, may_arrive: bool) -> None:
        """Let a debt stand for a later write of its key, too."""
        debt.renew(since, next(self._numbers), may_arrive=may_arrive)

    def put(self, debt: Debt) -> None:
        """Owe a debt from now on, in place of one of its key, kind and payer."""
        with self._ledger.lock:
            queues, owing, fresh = self.queues, self._ledger.owing, OrderedDict[str, Debt]()
            queue, key = (debt.payer, debt.kind), debt.key
            # From here on nothing is called.
            owing[self] = None
            if queue not in queues:
                queues[queue] = fresh
            queues[queue][key] = debt

    def drop(self, debt: Debt) -> bool:
        """Owe a debt no more, whatever became of it; return whether it was owed until now."""
        with self._ledger.lock:
            queues, owing = self.queues, self._ledger.owing
            queue, key = (debt.payer, debt.kind), debt.key
            # From here on nothing is called.
            if queue not in queues or key not in queues[queue] or queues[queue][key] is not debt:
                return False
            del queues[queue][key]
            if not queues[queue]:
                del queues[queue]
            if not queues and self in owing:
                del owing[self]
            return True

    def postpone(self, debt: Debt) -> None:
        """Let others of its queue come first."""
        with self._ledger.lock:
            queue = self.queues.get((debt.payer, debt.kind))
            if queue is not None and debt.key in queue:
                queue.move_to_end(debt.key)

    def say_lost(self, text: str) -> None:
        """Say that a deletion was given up."""
        raise NotImplementedError
