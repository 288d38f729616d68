"""Debts and signal handlers: whatever one raises, or does to the same cache, at whatever point."""

import random
from collections.abc import Callable
from contextlib import suppress

import pytest

from django_momento_http._store import debts, generation, owed, payments
from django_momento_http._store.debts import Ledger
from django_momento_http._store.generation import Generation
from django_momento_http._store.owed import Owed
from tests.support.owing import Payer
from tests.support.signalled import NEVER_AGAIN, Interrupted, signalled
from tests.support.sizes import sized

FILES = {module.__file__ for module in (debts, payments, owed, generation)}
# One point in so many is tried, another each time.
STEP = sized(8, 1)


class Book:
    """Debts of one namespace, their clock, and which of them must be there."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ledger, self.payer = Ledger(most=100), Payer()
        self.owed = Owed(self.ledger, lambda: self.now, lambda *_: None)
        self.promised: set[str] = set()

    def owe(self, key: str, since: int, *, is_deletion: bool, may_arrive: bool = False) -> None:
        """Owe a write; only then it must be found."""
        self.owed.add(key, since, self.payer, is_deletion=is_deletion, may_arrive=may_arrive)
        self.promised.add(key)

    def use(self) -> None:
        """Do all that is done with debts."""
        payments, payer = self.owed.payments, self.payer
        self.owe("a", 1, is_deletion=True)
        self.owe("b", 2, is_deletion=False, may_arrive=True)
        self.owe("a", 3, is_deletion=False)
        self.owe("b", 4, is_deletion=True)
        self.owe("c", 5, is_deletion=False)
        self.owed.owe_clear(6, payer)
        self.promised.add("")
        taken = payments.due(payer, 3, {"a"}, is_reading=True)
        payments.spend(taken, is_reading=False)
        asked = self.owed.moment()
        clear = payments.claim(payer, "")
        for debt in taken:
            payments.may_remove(debt, asked)
            payments.failed(debt)
            debt.release()
        self.promised.discard("c")
        self.owed.written("c", 7)
        self.promised.discard("b")
        self.owed.end("b", self.owed.moment())
        if clear is not None:
            self.promised.discard("")
            self.owed.end_clears(6, self.owed.moment())

    def check(self) -> None:
        """Whatever is owed is found, is paid in the end, and leaves nothing behind."""
        assert all(self.owed.all_of(key) for key in self.promised)
        assert self.ledger.count(self.payer) >= len(self.promised)
        for _ in range(50):
            self.now += 70
            for debt in self.owed.payments.due(self.payer, 10, (), is_reading=False):
                self.owed.end(debt.key, self.owed.moment())
                debt.release()
            clear = self.owed.payments.claim(self.payer, "")
            if clear is not None:
                self.owed.end_clears(clear.since, self.owed.moment())
        assert not self.owed.queues
        assert not self.ledger.owing
        assert self.ledger.count(self.payer) == 0
        self.owed.end_all(self.owed.moment())


def test_whatever_interrupts_leaves_debts_whole() -> None:
    """At each point where a handler may raise: nothing owed is lost, nothing is owed for ever."""

    def handle() -> None:
        raise Interrupted

    for number in range(random.randrange(STEP), NEVER_AGAIN, STEP):
        book = Book()
        with suppress(Interrupted), signalled(handle, number, FILES) as met:
            book.use()
        book.check()
        if not met:
            break
    assert 100 < number < NEVER_AGAIN


def owe_the_same(book: Book) -> None:
    """Owe what is owed already, and something else."""
    book.owe("a", 10, is_deletion=False, may_arrive=True)
    book.owe("handler", 11, is_deletion=True)


def pay_all(book: Book) -> None:
    """Pay for everything."""
    book.promised.clear()
    book.owed.end_all(book.owed.moment())


def write_the_same(book: Book) -> None:
    """Write two of the keys anew."""
    for key in "ab":
        book.promised.discard(key)
        book.owed.written(key, 20)


def claim(book: Book) -> None:
    """Begin payments and fail to make them."""
    for debt in book.owed.payments.due(book.payer, 5, (), is_reading=False):
        book.owed.payments.failed(debt)
        debt.release()


@pytest.mark.parametrize("use", [owe_the_same, pay_all, write_the_same, claim])
def test_a_handler_may_owe_and_pay_while_its_thread_does(use: Callable[[Book], None]) -> None:
    """At each point where a handler may use the same debts, what it does holds."""
    for number in range(random.randrange(STEP), NEVER_AGAIN, STEP):
        book = Book()
        with signalled(lambda book=book: use(book), number, FILES) as met:  # type: ignore[misc]
            book.use()
        if use is pay_all:
            # What was being owed meanwhile may be paid or owed.
            book.promised.clear()
        if use is write_the_same:
            book.promised -= {"a", "b"}
        book.check()
        if not met:
            break
    assert 100 < number < NEVER_AGAIN


def test_a_handler_that_clears_is_not_undone() -> None:
    """A generation never goes back, whatever a handler does between two steps."""
    for number in range(NEVER_AGAIN):
        known = Generation()
        with signalled(lambda known=known: known.move(9), number, FILES) as met:  # type: ignore[misc]
            known.move(3)
            known.learn(5, 1.0)
            known.accepts(7)
        assert known.current == (9 if met else 7)
        if not met:
            break
    assert number < NEVER_AGAIN
