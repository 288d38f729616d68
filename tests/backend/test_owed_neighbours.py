"""Writes that are owed where several aliases, threads and answers meet: none revives another's."""

import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from django_momento_http._store.debts import Ledger
from django_momento_http._store.owed import Owed
from django_momento_http._store.store import Store
from django_momento_http.testing import Fault, RunningServer
from tests.support.owing import CACHE, DOWN, KEY, Payer, Process, at_the_service, owed, sent

Make = Callable[..., Any]
K = "OjE6aw"  # b":1:k" on the wire
X = "OjE6eA"


def beside(cache: Process, server: RunningServer, **options: Any) -> Process:
    """Another alias of the same namespace in the same process."""
    other = Process(server, **options)
    other._shared = Store(other._config, cache._shared._namespace)
    return other


class Steps:
    """A plan of a store, carried out request by request."""

    def __init__(self, cache: Process, plan: Any) -> None:
        self._client = cache._shared._client
        self._plan = plan
        self.asked = plan.send(None)
        self.result: Any = None

    def answers(self) -> Any:
        """Send what is asked for, and return what came of it."""
        if isinstance(self.asked, list):
            return [(n, self._run(each)) for n, each in enumerate(self.asked)]
        return self._run(self.asked)

    def go_on(self, answers: Any) -> None:
        """Give the plan its answers."""
        try:
            self.asked = self._plan.send(answers)
        except StopIteration as done:
            self.asked, self.result = None, done.value

    def end(self) -> Any:
        """Carry out what is left."""
        while self.asked is not None:
            self.go_on(self.answers())
        return self.result

    def _run(self, operation: Any) -> Any:
        return self._client.run(operation, time.monotonic() + 9)


@pytest.fixture
def cache(server: RunningServer) -> Process:
    """A process that could not delete an old value; the service answers again."""
    cache = Process(server)
    cache.set("k", "old")
    server.inject(DOWN)
    cache.delete("k")
    server.clear_faults()
    assert at_the_service(server)
    assert owed(cache)[0] == 1
    return cache


def test_a_delete_removes_what_is_absent_but_there(cache: Process, server: RunningServer) -> None:
    """Where nothing may be paid, such as after a 429, a caller's delete() still removes."""
    server.inject(Fault(status=429))
    cache.get("x")
    cache.delete("k")
    assert not at_the_service(server)
    assert cache.get("k") is None
    assert owed(cache)[0] == 0


def test_a_delete_that_fails_again_is_owed_still(cache: Process, server: RunningServer) -> None:
    """What is absent by a debt is not gone: a removal that fails ends nothing."""
    server.inject(Fault(status=500, method="DELETE", times=None))
    cache.delete("k")
    assert owed(cache)[0] == 1
    server.clear_faults()
    cache.now += 1  # payments pause after one that failed
    assert cache.get("k") is None
    assert not at_the_service(server)


def test_another_aliass_delete_ends_no_debt_without_removing(
    cache: Process, server: RunningServer
) -> None:
    """An alias that may not pay for another removes itself what it is told to delete."""
    other = beside(cache, server, COMPRESS_MIN_BYTES=2001)
    other.delete("k")
    assert not at_the_service(server)
    assert cache.get("k") is other.get("k") is None


def test_an_alias_that_may_not_write_takes_no_debt_over(
    cache: Process, server: RunningServer
) -> None:
    """Its own attempt, which is refused for good, ends its own debt alone."""
    reader = beside(cache, server, TOKEN=server.read_only_token)
    server.inject(DOWN)
    reader.delete("k")
    server.clear_faults()
    cache.now += 20
    reader.get("x")
    assert reader.get("k") is None
    assert cache.get("k") is None
    assert not at_the_service(server)
    reader.get("x")
    assert owed(cache)[0] == owed(reader)[0] == 0


def test_an_alias_that_may_not_write_takes_no_clear_over(server: RunningServer) -> None:
    """Both owe a clear(); the one that is refused leaves the other's."""
    cache, new = Process(server), Process(server, COMPRESS_MIN_BYTES=2002)
    reader = beside(cache, server, TOKEN=server.read_only_token)
    cache.set("k", "old")
    server.inject(DOWN)
    cache.clear()
    reader.clear()
    server.clear_faults()
    cache.now += 20
    reader.get("x")
    cache.get("x")
    assert new.get("k") is None
    reader.get("x")
    assert owed(cache)[0] == owed(reader)[0] == 0


def test_what_arrives_after_two_reads_is_absent_too(server: RunningServer) -> None:
    """As long as a write may still arrive, no read ends its debt."""
    cache = Process(server)
    cache.set("k", "from before", None)
    late = server.items[CACHE, KEY]
    server.discard(CACHE, KEY)
    server.inject(Fault(drop="before", times=2))
    cache.set("k", "lost")
    assert [cache.get("k"), cache.get("k"), cache.get("k")] == [None] * 3
    server.put(CACHE, KEY, late)
    assert cache.get("k") is None
    assert not at_the_service(server)


def test_a_read_under_way_ends_no_later_debt(server: RunningServer) -> None:
    """What a read found before a write failed says nothing of that."""
    cache = Process(server)
    server.inject(DOWN)
    cache.delete("y")
    server.clear_faults()
    cache.now += 1
    reading = Steps(cache, cache._shared.get(K, None))
    answers = reading.answers()  # there is nothing yet
    cache.set("k", "old")
    server.inject(DOWN)
    cache.delete("k")
    server.clear_faults()
    reading.go_on(answers)
    assert reading.end() is None
    assert cache.get("k") is None
    assert not at_the_service(server)


def test_a_payment_under_way_ends_no_later_debt(cache: Process, server: RunningServer) -> None:
    """A debt that was renewed while its payment looked is paid once more."""
    server.discard(CACHE, KEY)
    paying = Steps(cache, cache._shared.get(X, None))
    answers = paying.answers()
    server.inject(DOWN)
    cache.delete("k")
    server.clear_faults()
    paying.go_on(answers)
    paying.end()
    assert owed(cache)[0] == 1


def test_a_payment_removes_nothing_that_was_written_meanwhile(
    cache: Process, server: RunningServer
) -> None:
    """A write that succeeded between a payment's look and its removal stays."""
    paying = Steps(cache, cache._shared.get(X, None))
    answers = paying.answers()
    cache.set("k", "new")
    server.forget_requests()
    paying.go_on(answers)
    paying.end()
    assert sent(server) == []
    assert cache.get("k") == "new"
    assert owed(cache) == (0, 1)


def test_a_payment_that_is_broken_off_is_made_again(cache: Process, server: RunningServer) -> None:
    """Whatever interrupts who pays, the next operation may pay at once."""
    paying = Steps(cache, cache._shared.get(X, None))
    paying._plan.close()
    cache.get("x")
    assert not at_the_service(server)


def test_two_threads_pay_a_debt_once(cache: Process, server: RunningServer) -> None:
    """What somebody pays is nobody else's."""
    server.forget_requests()
    first = Steps(cache, cache._shared.get(X, None))
    second = Steps(cache, cache._shared.get(X, None))
    reading = Steps(cache, cache._shared.get(K, None))
    for plan in (first, second, reading):
        plan.end()
    assert sent(server).count("DELETE") == 1
    assert reading.result is None
    assert owed(cache) == (0, 1)


def test_a_value_of_another_signing_key_is_no_proof(server: RunningServer) -> None:
    """What this alias cannot verify, and another could serve, is removed if it is older."""
    cache = Process(server)
    other = beside(cache, server, SIGNING_KEY="another key, of thirty-two letters or more")
    other.set("k", "old")
    server.inject(DOWN)
    cache.delete("k")
    server.clear_faults()
    cache.now += 1
    cache.get("k")
    assert other.get("k") is None
    other.set("k", "new")
    assert other.get("k") == "new"


def test_a_newer_value_of_another_signing_key_survives(
    cache: Process, server: RunningServer
) -> None:
    """A payment removes nothing that was made after the debt, whoever signed it."""
    other = Process(server, SIGNING_KEY="another key, of thirty-two letters or more")
    other.born += 1
    other.set("k", "new")
    cache.get("x")
    assert other.get("k") == "new"
    assert owed(cache) == (0, 1)


def test_debts_made_during_a_clear_outlive_it(server: RunningServer) -> None:
    """What was deleted of the values written after a clear() stays deleted."""
    cache = Process(server)
    clearing = Steps(cache, cache._shared.clear())
    clearing.go_on(clearing.answers())
    answers = clearing.answers()  # the marker is written
    cache.set("k", "new")
    server.inject(DOWN)
    cache.delete("k")
    server.clear_faults()
    cache.now += 20
    clearing.go_on(answers)
    assert cache.get("k") is None
    assert not at_the_service(server)


def test_a_clear_ends_no_debt_that_an_alias_without_a_marker_needs(
    cache: Process, server: RunningServer
) -> None:
    """Who reads no marker serves what was cleared, but not what was deleted."""
    other = beside(cache, server, CLEAR_MAX_AGE=None)
    cache.clear()
    assert other.get("k") is None


def test_who_owes_is_not_let_go(server: RunningServer, make_cache: Make) -> None:
    """A client that owes is kept, however many others a process uses meanwhile."""
    make_cache(COMPRESS_MIN_BYTES=1).set("k", "old", 10000)
    server.inject(Fault(status=500, method="DELETE", times=2))
    make_cache(COMPRESS_MIN_BYTES=1).delete("k")
    for number in range(200):
        make_cache(COMPRESS_MIN_BYTES=number + 2).close()
    assert owed(make_cache(COMPRESS_MIN_BYTES=1))[0] == 1
    make_cache(COMPRESS_MIN_BYTES=1).get("x")
    assert owed(make_cache(COMPRESS_MIN_BYTES=1)) == (0, 1)
    assert not at_the_service(server)


def test_a_debt_that_cannot_be_paid_opens_no_breaker(cache: Process, server: RunningServer) -> None:
    """One key that always fails costs pauses, and nobody anything else."""
    server.inject(Fault(status=500, key=KEY, times=None))
    ended = time.monotonic() + 1.5
    while time.monotonic() < ended:
        cache.now = time.time() - cache.born
        cache.get("x")
    assert cache.stats()["breaker_openings"] == 0
    assert len(sent(server)) < 30


def test_a_debt_whose_payment_is_refused_for_good_is_given_up(
    cache: Process, server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said, and costs no request with each operation for ever; it does not count as paid."""
    server.inject(Fault(status=403, method="DELETE", times=None))
    cache.get("x")
    server.forget_requests()
    cache.get("x")
    assert sent(server) == []
    assert owed(cache) == (0, 0)
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 1


def test_payments_never_exceed_the_operations(server: RunningServer) -> None:
    """Over any sequence, at most one request more than callers asked for."""
    cache = Process(server)
    keys = [f"k{number}" for number in range(200)]
    cache.set_many(dict.fromkeys(keys, "old"))
    server.inject(DOWN)
    cache.delete_many(keys)
    server.clear_faults()
    cache.outlast_the_breakers()
    server.forget_requests()
    asked = 0
    for names in (["x"], [*keys[:5], "x"], keys[5:45], ["y"], [f"x{n}" for n in range(50)], ["x"]):
        cache.get_many(names)
        asked += len(names)
        assert len(server.requests) <= 2 * asked + 1
    while owed(cache)[0]:
        cache.get("x")
        asked += 1
        assert len(server.requests) <= 2 * asked + 1


def test_what_is_forgotten_is_said_once_in_a_while() -> None:
    """However many deletions are lost, the log is not flooded."""
    said: list[tuple[int, str]] = []
    ledger, payer = Ledger(most=10), Payer()
    owed = Owed(ledger, lambda: 0.0, lambda *line: said.append(line))
    for number in range(1000):
        owed.add(str(number), number, payer, is_deletion=True, may_arrive=False)
    assert ledger.count(payer) == 10
    assert [level for level, _ in said].count(logging.ERROR) == 1
