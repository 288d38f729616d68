"""Copies and races: plans of one process that overlap in every way, and answers that are lost.

A plan asks for operations and waits for what comes of them (``operation``), so that a test can
carry several out by turns, one step at a time, and choose whose turn it is. Whatever the order:
when no write is under way, a copy is what the service has.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_momento_http._client.operation import Operation, Together
from django_momento_http._store.copies import MISSING
from django_momento_http.cache import MomentoCache
from django_momento_http.exceptions import TimedOut
from django_momento_http.testing import Fault, RunningServer
from tests.support.near import CACHE, Process, close_breakers
from tests.support.sizes import sized

ROUNDS = sized(400, 20_000)
# Longer than any test, so that a copy which is out of date is never saved by its age.
FOREVER = 10**9


class UnderWay:
    """One plan: each step sends what it asks for, or hands it what came of that."""

    def __init__(self, cache: MomentoCache, plan: Any, *, writes: bool) -> None:
        self.writes = writes
        self.has_begun = self.has_ended = False
        self._client = cache._shared._client
        self._plan = plan
        self._asked: Any = None
        self._sent: Any = None

    def step(self, lose: Callable[[Operation], bool]) -> None:
        """Take one step; what is lost was carried out, or was not, and nobody is told."""
        if self._asked is not None and self._sent is None:
            asked = self._asked
            operations = asked if isinstance(asked, Together) else [asked]
            made = [each if isinstance(each, Operation) else each() for each in operations]
            outcomes = [self._outcome(operation, lose) for operation in made]
            self._sent = (
                list(enumerate(outcomes)) if isinstance(asked, Together) else outcomes[0],
            )
            return
        sent, self._sent = (self._sent or (None,))[0], None
        self.has_begun = True
        try:
            self._asked = self._plan.send(sent)
        except (StopIteration, ValueError, TypeError):
            self.has_ended = True

    def _outcome(self, operation: Operation, lose: Callable[[Operation], bool]) -> Any:
        deadline = self._client.clock() + 30
        if not lose(operation):
            return self._client.run(operation, deadline)
        if lose(operation):
            self._client.run(operation, deadline)
        return TimedOut("lost on purpose")


class Round:
    """Some plans on one key, and who knows what the service has."""

    def __init__(self, process: Process, aliases: list[MomentoCache], key: str) -> None:
        self.process, self.aliases, self.key = process, aliases, key
        self.number = 0

    def plan(self, name: str, cache: MomentoCache) -> UnderWay:
        """Return a plan that has not begun."""
        store, key = cache._shared, cache._wire_key(self.key, None)
        self.number += 1
        payload = store.dumps(self.number)
        plans: dict[str, Callable[[], Any]] = {
            "get": lambda: store.get(key, None),
            "get_many": lambda: store.get_many({key: "k"}),
            "has_key": lambda: store.has_key(key),
            "look": lambda: store.look(key, 1.0),
            "set": lambda: store.set(key, payload, 3600),
            "set_many": lambda: store.set_many({key: payload}, 3600),
            "set for no time": lambda: store.set(key, payload, 0),
            "add": lambda: store.add(key, payload, 3600),
            "touch": lambda: store.touch(key, 7200),
            "incr": lambda: store.incr(key, 1000),
            "delete": lambda: store.delete(key),
            "delete_many": lambda: store.delete_many([key]),
            "clear": store.clear,
            "move": lambda: store.move(key, cache._wire_key(self.key, 2)),
            "move here": lambda: store.move(cache._wire_key(self.key, 2), key),
        }
        return UnderWay(cache, plans[name](), writes=name not in READS)

    def copies(self) -> Iterator[Any]:
        """Yield what copies answer."""
        for cache in self.aliases:
            value = cache._shared.near.copies.get(cache._wire_key(self.key, None))
            if value is not MISSING:
                yield value


READS = ("get", "get_many", "has_key", "look")
WRITES = ("set", "set_many", "set for no time", "add", "touch", "incr", "delete", "delete_many")
RARE = ("clear", "move", "move here")


class Service:
    """What the service has, as a process sees it that keeps nothing."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.cache = Process(server, 1).alias(NEAR_MAX_AGE=0, CLEAR_MAX_AGE=0)

    def check(self, round_: Round) -> None:
        """A copy is what is there, and is not older than what is owed."""
        for value in round_.copies():
            assert value == self.cache.get(round_.key)
            store = round_.aliases[0]._shared
            wire_key = round_.aliases[0]._wire_key(round_.key, None)
            debt = store._namespace.owed.find(wire_key)
            raw = self.server.items[CACHE, f":1:{round_.key}".encode()]
            assert debt is None or store._values.made_at(wire_key, raw) >= debt.since


@pytest.fixture
def service(server: RunningServer) -> Service:
    return Service(server)


@pytest.mark.parametrize("loss", [0.0, 0.3], ids=["answered", "some are lost"])
@pytest.mark.parametrize("passing", [0.0, 0.3], ids=["at once", "with pauses"])
def test_when_no_write_is_under_way_a_copy_is_what_the_service_has(
    server: RunningServer, service: Service, loss: float, passing: float
) -> None:
    """Whichever reads and writes of two aliases overlap, however their steps are ordered."""
    process = Process(server)
    limits = {"NEAR_MAX_AGE": FOREVER, "CLEAR_MAX_AGE": FOREVER}
    aliases = [process.alias(**limits), process.alias(COMPRESSOR=None, **limits)]
    chance = random.Random(random.randrange(2**32))
    service.cache.get("nothing")
    kept = 0
    for number in range(ROUNDS // 4):
        seed = chance.randrange(2**32)
        round_ = Round(process, aliases, f"key-{number}")
        kept += overlap(round_, service, random.Random(seed), loss, passing)
        process.pass_(100)
        server.forget_requests()
    assert kept > ROUNDS // 40


def overlap(
    round_: Round, service: Service, chance: random.Random, loss: float, passing: float
) -> int:
    """Let a few plans overlap; return how often copies were there to be looked at."""
    process, kept = round_.process, 0
    for _ in range(2):
        if chance.random() < 0.5:
            round_.aliases[0].set(round_.key, 0, 3600)
        process.pass_(chance.choice((0, 40)))
        chosen = [chance.choice(READS), chance.choice(READS), chance.choice(WRITES)]
        chosen += [chance.choice((*READS, *WRITES, *RARE))]
        plans = [round_.plan(name, chance.choice(round_.aliases)) for name in chosen]
        while left := [plan for plan in plans if not plan.has_ended]:
            chance.choice(left).step(lambda operation: chance.random() < loss)
            if chance.random() < passing:
                process.pass_(chance.choice((0.5, 3, 40)))
            if not any(plan.writes and plan.has_begun for plan in left):
                kept += len(list(round_.copies()))
                service.check(round_)
    return kept


def test_a_late_answer_of_any_read_is_not_kept(server: RunningServer, service: Service) -> None:
    """A read that began before a write and ends after it, for each pair of them."""
    process = Process(server)
    cache = process.alias(NEAR_MAX_AGE=FOREVER)
    for number, (read, write) in enumerate((r, w) for r in READS for w in (*WRITES, "clear")):
        round_ = Round(process, [cache], f"key-{number}")
        cache.set(round_.key, 1, 3600)
        process.pass_(100)
        cache._shared.near.copies.forget()
        late, plan = round_.plan(read, cache), round_.plan(write, cache)
        late.step(no_loss)
        late.step(no_loss)
        while not plan.has_ended:
            plan.step(no_loss)
        while not late.has_ended:
            late.step(no_loss)
        service.check(round_)
        assert cache.get(round_.key) == service.cache.get(round_.key)


@pytest.mark.parametrize("lost", [(False,), (True, True)], ids=["answered", "not answered"])
@pytest.mark.parametrize("write", ["set", "set_many"])
def test_what_a_payment_removed_is_written_once_more(
    server: RunningServer, service: Service, write: str, lost: tuple[bool, ...]
) -> None:
    """Also where the removal came after the write, and ended before it: no removal undoes it."""
    process = Process(server)
    cache = process.alias(NEAR_MAX_AGE=FOREVER)
    round_ = Round(process, [cache], "k")
    cache.set("k", "old", 3600)
    server.inject(Fault(status=500, method="PUT", times=None))
    cache.set("k", "owed", 3600)
    server.clear_faults()
    close_breakers(cache)
    process.pass_(100)
    payment, plan, losses = round_.plan("get", cache), round_.plan(write, cache), iter(lost)
    for _ in range(3):
        payment.step(no_loss)  # asks, is answered, and asks for the removal of what it found
    plan.step(no_loss)
    plan.step(no_loss)  # is carried out
    payment.step(lambda _: next(losses))
    while not payment.has_ended:
        payment.step(no_loss)
    assert f":1:{round_.key}".encode() not in {key for _, key in server.items}
    while not plan.has_ended:
        plan.step(no_loss)
    service.check(round_)
    assert service.cache.get("k") == 2


def no_loss(_: Operation) -> bool:
    """Lose nothing."""
    return False


def test_a_write_that_raises_in_the_middle_bars_reads(server: RunningServer) -> None:
    """Whoever is interrupted leaves no copy, and no read brings the old value back."""
    process = Process(server)
    cache = process.alias(NEAR_MAX_AGE=FOREVER)
    cache.set("k", "old")
    process.pass_(100)
    round_ = Round(process, [cache], "k")
    plan, late = round_.plan("set", cache), round_.plan("get", cache)
    cache._shared.near.copies.forget()
    late.step(no_loss)
    late.step(no_loss)
    plan.step(no_loss)
    plan.step(no_loss)
    with pytest.raises(KeyboardInterrupt):
        plan._plan.throw(KeyboardInterrupt())
    late.step(no_loss)
    assert late.has_ended
    assert list(round_.copies()) == []
    assert cache.get("k") == 1


def test_a_cancelled_write_bars_reads(server: RunningServer) -> None:
    """A plan that is let go ends its write, too."""
    process = Process(server)
    cache = process.alias(NEAR_MAX_AGE=FOREVER)
    cache.set("k", "old")
    process.pass_(100)
    round_ = Round(process, [cache], "k")
    plan = round_.plan("delete", cache)
    plan.step(no_loss)
    plan._plan.close()
    assert list(round_.copies()) == []
    cache.get("k")
    assert list(round_.copies()) == []
