"""What an outage leaves behind: writes that failed are owed, and paid when the service answers."""

import asyncio
import gc
import logging
import multiprocessing
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from django_momento_http._store.debts import Ledger
from django_momento_http._store.owed import Owed
from django_momento_http._store.store import Store
from django_momento_http.cache import MomentoCache
from django_momento_http.exceptions import MomentoError
from django_momento_http.testing import Fault, RunningServer
from tests.support.clocks import Clock
from tests.support.markers import marker_key
from tests.support.owing import CACHE, DOWN, KEY, Payer, Process, at_the_service, owed, sent
from tests.support.scripted import GRACE, least_late

LONGEST_WAIT = 30
SESSION = "django.contrib.sessions.cache" + "a" * 32
CACHED_DB_SESSION = "django.contrib.sessions.cached_db" + "a" * 32

Make = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Call a method of a cache, or its async twin."""

    def sync(cache: MomentoCache, name: str, *arguments: Any, **options: Any) -> Any:
        return getattr(cache, name)(*arguments, **options)

    def twin(cache: MomentoCache, name: str, *arguments: Any, **options: Any) -> Any:
        return asyncio.run(getattr(cache, f"a{name}")(*arguments, **options))

    return sync if request.param == "sync" else twin


DELETIONS: dict[str, tuple[Any, ...]] = {
    "delete": ("k",),
    "delete_many": (["k"],),
    "set": ("k", "new", 0),
    "set_many": ({"k": "new"}, -1),
    "touch": ("k", 0),
}


@pytest.mark.parametrize("method", DELETIONS)
def test_what_was_deleted_in_an_outage_stays_deleted(
    server: RunningServer, call: Callable[..., Any], method: str
) -> None:
    """A deletion that failed is owed: the value is absent afterwards, and removed."""
    cache = Process(server)
    cache.set("k", "old")
    if method == "touch":
        # The look is answered, the removal is not.
        server.inject(Fault(status=500, method="DELETE", times=None))
    else:
        server.inject(DOWN)
    call(cache, method, *DELETIONS[method])
    assert at_the_service(server)
    server.clear_faults()
    assert call(cache, "get", "k", "gone") == "gone"
    assert not at_the_service(server)
    assert owed(cache) == (0, 1)


@pytest.mark.parametrize("method", ["set", "set_many"])
def test_a_set_that_failed_leaves_no_older_value(
    server: RunningServer, call: Callable[..., Any], method: str
) -> None:
    """What should have been replaced is not served, and removed."""
    cache = Process(server)
    cache.set("k", "old")
    server.inject(DOWN)
    call(cache, method, *(("k", "new") if method == "set" else ({"k": "new"},)))
    server.clear_faults()
    for name in ("get", "has_key", "ttl", "touch"):
        assert not call(cache, name, "k")
    assert not at_the_service(server)
    assert owed(cache) == (0, 1)


def test_a_set_that_landed_after_all_is_served(server: RunningServer) -> None:
    """A value that was stored though its answer was lost is recognised, and ends the debt."""
    cache = Process(server)
    cache.set("k", "old")
    server.inject(Fault(status=503, applied=True, times=2))
    cache.set("k", "new")
    assert owed(cache) == (1, 0)
    assert cache.get("k") == "new"
    assert owed(cache) == (0, 1)


def test_another_processs_newer_value_survives(server: RunningServer) -> None:
    """A payment removes nothing that was made after the debt."""
    cache, other = Process(server), Process(server, COMPRESS_MIN_BYTES=2001)
    cache.set("k", "old")
    server.inject(DOWN)
    cache.delete("k")
    server.clear_faults()
    other.born += 1
    other.set("k", "newer")
    cache.get("another")
    assert cache.get("k") == other.get("k") == "newer"
    assert owed(cache) == (0, 1)


def test_what_was_read_before_the_debt_and_written_back_is_absent(server: RunningServer) -> None:
    """touch() and incr() of another process make an old value no younger."""
    cache, other = Process(server), Process(server, COMPRESS_MIN_BYTES=2001)
    cache.set("k", 1)
    server.inject(DOWN)
    cache.delete("k")
    server.clear_faults()
    other.born += 1
    other.touch("k", 1000)
    other.incr("k")
    other.incr_version("k")
    other.decr_version("k", version=2)
    assert cache.get("k") is None
    assert not at_the_service(server)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("get", ("x",)), ("set", ("x", 1)), ("get_many", (["x"],)), ("delete", ("x",))],
)
def test_debts_are_paid_beside_other_operations(
    server: RunningServer, call: Callable[..., Any], name: str, arguments: Any
) -> None:
    """The next operation brings a payment along: a look, and the removal of an older value."""
    cache = Process(server)
    cache.set("k", "old")
    server.inject(DOWN)
    cache.delete("k")
    server.clear_faults()
    server.forget_requests()
    call(cache, name, *arguments)
    assert sent(server) == ["GET", "DELETE"]
    assert owed(cache) == (0, 1)


def test_payments_of_deletions_are_one_request_for_each_operation(server: RunningServer) -> None:
    """However much is owed, a caller's operations bring along as many requests, no more."""
    cache = Process(server)
    keys = [f"k{number}" for number in range(20)]
    cache.set_many(dict.fromkeys(keys, "old"))
    server.inject(DOWN)
    cache.delete_many(keys)
    server.clear_faults()
    cache.outlast_the_breakers()
    paid = owed(cache)[1]
    server.forget_requests()
    for number in range(10):
        cache.get(f"other{number}")
    besides = [request for request in server.requests if b"other" not in request.key]
    assert len(besides) in (10, 11)
    assert owed(cache) == (15 - paid, 5 + paid)
    cache.get_many(f"other{number}" for number in range(40))
    assert owed(cache) == (0, 20)


def test_payments_of_sets_are_a_tenth(server: RunningServer) -> None:
    """Sets that are owed are paid by one request for ten operations."""
    cache = Process(server)
    keys = [f"k{number}" for number in range(50)]
    cache.set_many(dict.fromkeys(keys, "old"))
    server.inject(DOWN)
    cache.set_many(dict.fromkeys(keys, "new"))
    server.clear_faults()
    cache.outlast_the_breakers()
    server.forget_requests()
    for number in range(100):
        cache.get(f"other{number}")
    besides = [request for request in server.requests if b"other" not in request.key]
    assert len(besides) in (10, 11)


def test_payments_wait_for_a_minute_after_a_429(server: RunningServer) -> None:
    """An account whose limit was reached is asked for nothing that nobody waits for."""
    cache = Process(server)
    cache.set("k", "old")
    server.inject(DOWN)
    cache.delete("k")
    server.clear_faults()
    server.inject(Fault(status=429))
    cache.get("x")
    server.forget_requests()
    cache.get("x")
    assert sent(server) == []
    # A reader gets nothing old all the same.
    assert cache.get("k") is None
    assert at_the_service(server)


FINAL = {"403": Fault(status=403, times=None)}


def test_what_may_never_be_written_is_not_owed(server: RunningServer) -> None:
    """A permission that lacks is said, and not tried again."""
    cache = Process(server)
    cache.set("k", "old")
    server.inject(Fault(status=403, times=None))
    cache.set("k", "new")
    cache.delete("k")
    assert owed(cache) == (0, 0)


@pytest.mark.parametrize("status", [401, 404, 429, 503])
def test_what_waiting_or_a_setting_mends_is_owed(server: RunningServer, status: int) -> None:
    """A token that was refused, a missing cache, a limit and a failure all leave a debt."""
    cache = Process(server)
    cache.set("k", "old")
    server.inject(Fault(status=status, body=b"Cache Not Found", times=None))
    cache.delete("k")
    assert owed(cache) == (1, 0)


def test_while_the_breaker_is_open_writes_are_owed(server: RunningServer) -> None:
    """A write that was not even sent is owed like one that failed."""
    cache = Process(server)
    cache.set("k", "old")
    server.inject(Fault(status=401, times=None))
    cache.get("k")
    server.forget_requests()
    cache.set("k", "new")
    assert server.requests == []
    assert owed(cache) == (1, 0)


def test_what_leaves_nothing_older_owes_nothing(server: RunningServer) -> None:
    """add, incr, touch and get_or_set that fail leave no value that is older than they found."""
    cache = Process(server)
    cache.set("k", 1)
    server.inject(DOWN)
    cache.add("k", 2)
    cache.touch("k", 10)
    with suppress(ValueError):
        cache.incr("k")
    assert cache.get_or_set("k", 3) == 3
    assert owed(cache) == (0, 0)
    server.clear_faults()
    assert cache.get("k") == 1


@pytest.mark.parametrize(("key", "debts"), [(SESSION, 0), (CACHED_DB_SESSION, 1)])
def test_a_session_that_only_the_cache_has_is_not_ended(
    server: RunningServer, key: str, debts: int
) -> None:
    """A failed save of such a session owes nothing, as its removal would log the user out."""
    cache = Process(server)
    cache.set(key, "signed in")
    server.inject(DOWN)
    cache.set(key, "signed in, with a cart")
    assert owed(cache) == (debts, 0)
    server.clear_faults()
    assert cache.get(key) == (None if debts else "signed in")
    server.inject(DOWN)
    cache.delete(key)
    assert owed(cache)[0] == 1


def test_the_removal_after_a_refusal_is_owed(server: RunningServer) -> None:
    """Where a value was refused (400), and the old one could not be removed, it is absent."""
    cache = Process(server)
    cache.set("k", "old")
    server.inject(Fault(status=400, method="PUT"))
    server.inject(Fault(status=500, method="DELETE", times=2))
    cache.set("k", "new")
    assert owed(cache) == (1, 0)
    assert cache.get("k") is None
    assert not at_the_service(server)


def test_incr_version_owes_the_removal(server: RunningServer) -> None:
    """A value that was moved is absent where it was, though its removal failed."""
    cache = Process(server)
    cache.set("k", "v")
    server.inject(Fault(status=500, method="DELETE", times=2))
    assert cache.incr_version("k") == 2
    assert cache.get("k") is None
    assert cache.get("k", version=2) == "v"
    assert not at_the_service(server)


def test_a_write_that_succeeds_ends_the_debt(server: RunningServer) -> None:
    """What is written later is what counts: nothing is removed any more."""
    cache = Process(server)
    cache.set("k", "old")
    server.inject(DOWN)
    cache.delete("k")
    server.clear_faults()
    server.forget_requests()
    cache.set("k", "new")
    cache.get("x")
    assert sent(server) == ["PUT"]
    assert cache.get("k") == "new"
    assert owed(cache) == (0, 1)


def test_a_write_beside_a_payment_is_sent_once_more(server: RunningServer) -> None:
    """A removal that is under way cannot remove what is written meanwhile."""
    cache = Process(server)
    cache.set("k", "old")
    server.inject(DOWN)
    cache.delete("k")
    server.clear_faults()
    store = cache._shared
    client = store._client
    plan = store.get("eHg", None)
    asked = plan.send(None)
    outcomes = [(index, client.run(each, time.monotonic() + 9)) for index, each in enumerate(asked)]
    # The payment has looked, and is about to remove what it saw.
    [removal] = plan.send(outcomes)
    assert removal.method == "DELETE"
    server.forget_requests()
    cache.set("k", "new")
    client.run(removal, time.monotonic() + 9)
    plan.close()
    assert sent(server) == ["PUT", "PUT", "DELETE"]


def test_payments_go_through_the_client_that_owes(server: RunningServer) -> None:
    """An alias with a read-only token pays no debts of another, but serves nothing older."""
    cache = Process(server)
    reader = Process(server, TOKEN=server.read_only_token)
    reader._shared = Store(reader._config, cache._shared._namespace)
    cache.set("k", "old")
    server.inject(DOWN)
    cache.delete("k")
    server.clear_faults()
    server.forget_requests()
    assert reader.get("k") is None
    assert sent(server) == ["GET"]
    assert (owed(cache), owed(reader)) == ((1, 0), (0, 0))
    cache.get("x")
    assert not at_the_service(server)


@pytest.mark.parametrize("is_read_at_once", [True, False])
@pytest.mark.parametrize("ended_by", ["delete", "set", "get"])
def test_a_write_that_arrives_late_revives_nothing(
    server: RunningServer, ended_by: str, *, is_read_at_once: bool
) -> None:
    """After an answer that was lost the key is looked at once more: what came late is removed."""
    cache, other = Process(server), Process(server, COMPRESS_MIN_BYTES=2001)
    cache.set("k", "from before", None)
    late = server.items[CACHE, KEY]
    server.discard(CACHE, KEY)
    server.inject(Fault(drop="before", times=2))
    cache.set("k", "lost")
    assert owed(cache) == (1, 0)
    if ended_by == "delete":
        cache.delete("k")
    elif ended_by == "set":
        cache.set("k", "young")
    else:
        cache.get("k")
    assert owed(cache) == (0, 1)
    server.put(CACHE, KEY, late)
    if is_read_at_once:
        assert cache.get("k") is None
    else:
        cache.now += 5
        for _ in range(20):  # of sets, a tenth is paid
            cache.get("another")
    assert other.get("k") is None
    server.forget_requests()
    cache.get("another")
    assert len(server.requests) == 1


# clear()


def test_a_clear_that_could_not_be_read_is_owed(
    server: RunningServer, call: Callable[..., Any]
) -> None:
    """It takes effect for all when the service answers, and keeps what was written since."""
    cache, other = Process(server), Process(server, COMPRESS_MIN_BYTES=2001)
    cache.set_many({"k": "old", "x": "old"})
    server.inject(DOWN)
    call(cache, "clear")
    assert cache.get("k") is None
    server.clear_faults()
    server.forget_requests()
    assert all(request.method != "PUT" for request in server.requests)
    cache.now += 1  # payments pause after one that failed
    call(cache, "set", "k", "young")
    other.now += 10
    assert other.get_many(["k", "x"]) == {"k": "young"}
    assert cache.get_many(["k", "x"]) == {"k": "young"}
    assert owed(cache) == (0, 1)


def test_until_it_is_paid_a_clear_holds_here(server: RunningServer) -> None:
    """That there is no marker proves nothing while a clear() is owed."""
    cache = Process(server)
    cache.set("k", "old", None)
    server.inject(DOWN)
    cache.clear()
    server.clear_faults()
    server.inject(Fault(status=500, method="PUT", times=None))
    for _ in range(10):
        cache.now += 20
        assert cache.get("k") is None
    server.clear_faults()
    cache.now += 100
    assert cache.get("k") is None
    assert owed(cache) == (0, 1)
    assert Process(server).get("k") is None


def test_a_clear_ends_all_debts(server: RunningServer) -> None:
    """What is cleared need not be removed one by one."""
    cache = Process(server)
    cache.set_many(dict.fromkeys("abc", "old"))
    server.inject(DOWN)
    cache.delete_many("abc")
    server.clear_faults()
    cache.clear()
    assert owed(cache) == (0, 3)
    server.forget_requests()
    assert cache.get("a") is None
    assert len(server.requests) == 1


# What it costs, and where it ends


def test_payments_lengthen_no_deadline(server: RunningServer) -> None:
    """A payment that is not answered holds a caller no longer than its own operation may take."""
    cache = Process(server, REQUEST_TIMEOUT=0.4)
    cache.set("k", "old")
    server.inject(DOWN)
    cache.delete("k")
    server.clear_faults()
    server.inject(Fault(delay=5, key=KEY, times=None))

    def late() -> float:
        began = time.monotonic()
        cache.get("x")
        return time.monotonic() - began - 0.4

    assert least_late(late) < GRACE
    assert owed(cache) == (1, 0)


def test_without_debts_nothing_is_asked_for(server: RunningServer) -> None:
    """Trouble that leaves nothing owed costs no request later."""
    cache = Process(server)
    server.inject(Fault(status=500, times=2))
    cache.get("k")
    cache.get("k")
    server.forget_requests()
    cache.get("k")
    assert len(server.requests) == 1


def test_what_is_owed_is_not_let_go(server: RunningServer, make_cache: Make) -> None:
    """A namespace that owes is kept, however many others a process uses meanwhile."""
    make_cache(KEY_PREFIX="owing").set("k", "old", 10000)
    server.inject(Fault(status=500, method="DELETE", times=2))
    make_cache(KEY_PREFIX="owing").delete("k")
    server.inject(Fault(status=503, key=marker_key(b"clearing"), times=2))
    make_cache(KEY_PREFIX="clearing").clear()
    for number in range(200):
        make_cache(KEY_PREFIX=f"p{number}").close()
    gc.collect()
    assert make_cache(KEY_PREFIX="owing").get("k") is None
    assert owed(make_cache())[0] == 1
    make_cache(KEY_PREFIX="clearing").get("k")
    assert owed(make_cache()) == (0, 2)


def test_debts_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """Over the bound sets are forgotten first, then the oldest deletions, of any namespace."""
    ledger, payer, said = Ledger(most=4), Payer(), []
    one, two = (Owed(ledger, lambda: 0.0, lambda *line: said.append(line)) for _ in range(2))
    for number, is_deletion in enumerate((True, False, True, False, True, True, True)):
        owner = (one, two)[number % 2]
        owner.add(str(number), number, payer, is_deletion=is_deletion, may_arrive=False)
    left = sorted(key for owner in (one, two) for key in "0123456" if owner.find(key))
    assert left == ["2", "4", "5", "6"]
    assert ledger.count(payer) == 4
    assert [level for level, _ in said].count(logging.ERROR) == 1


def test_a_payment_that_is_lost_gives_way_when_its_time_is_over() -> None:
    """From the moment on when another may make it, it removes nothing any more."""
    clock, payer = Clock(), Payer()
    owed = Owed(Ledger(), clock, lambda *_: None)
    owed.add("k", 1, payer, is_deletion=True, may_arrive=False)
    [debt] = owed.payments.due(payer, 1, (), is_reading=False)
    assert owed.payments.may_remove(debt, owed.moment())
    clock.now = debt.busy_until - 0.001
    assert owed.payments.is_removing([debt])
    assert owed.payments.claim(payer, "k") is None
    clock.now = debt.busy_until
    assert not owed.payments.is_removing([debt])
    assert owed.payments.claim(payer, "k") is debt


def test_a_deletion_takes_over_what_a_set_owed() -> None:
    """One debt a key is enough, unless the set's is being paid at the moment."""
    clock, payer, ledger = Clock(), Payer(), Ledger()
    owed = Owed(ledger, clock, lambda *_: None)
    for key in ("idle", "busy"):
        owed.add(key, 1, payer, is_deletion=False, may_arrive=False)
    assert owed.payments.claim(payer, "busy") is not None
    for key in ("idle", "busy"):
        owed.add(key, 2, payer, is_deletion=True, may_arrive=False)
    assert [debt.is_deletion for debt in owed.all_of("idle")] == [True]
    assert sorted(debt.is_deletion for debt in owed.all_of("busy")) == [False, True]
    assert ledger.count(payer) == 3


def test_a_payment_that_failed_lets_the_others_go_first() -> None:
    """However often one fails, all are tried in turn."""
    clock, payer = Clock(), Payer()
    owed = Owed(Ledger(), clock, lambda *_: None)
    for key in "abc":
        owed.add(key, 1, payer, is_deletion=True, may_arrive=False)
    tried = []
    for _ in range(6):
        [debt] = owed.payments.due(payer, 1, (), is_reading=False)
        owed.payments.failed(debt)
        debt.release()
        tried.append(debt.key)
        clock.now += 1000
    assert tried == ["a", "b", "c"] * 2


def test_what_a_caller_reads_is_no_share_of_the_payments_of_sets(server: RunningServer) -> None:
    """One operation in ten pays for a set, also after a look at a key whose set was owed."""
    cache = Process(server)
    cache.set_many({"a": "old", "b": "old"})
    server.inject(DOWN)
    cache.set_many({"a": "new", "b": "new"})
    server.clear_faults()
    assert cache.get("a") is None
    assert owed(cache) == (1, 1)
    reads = 0
    while owed(cache)[0] and reads < 100:
        cache.get("x")
        reads += 1
    assert reads <= 11


def test_one_line_when_it_begins_and_one_when_it_ends(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    """However many writes are owed, the log says once that they are, and once that all are paid."""
    cache = Process(server, KEY_PREFIX="p")
    with caplog.at_level(logging.INFO, "django_momento_http"):
        server.inject(DOWN)
        cache.delete_many("abcdef")
        cache.set("k", 1)
        server.clear_faults()
        cache.outlast_the_breakers()
        cache.get_many(str(number) for number in range(30))
    lines = [record for record in caplog.records if "owed" in record.getMessage()]
    assert [record.levelname for record in lines] == ["WARNING", "INFO"]
    assert all("'default-cache'" in r.getMessage() and "'p'" in r.getMessage() for r in lines)
    assert "7" in lines[1].getMessage()


def ask_in_child(cache: MomentoCache, answers: Any) -> None:
    """Say what a forked process owes."""
    answers.put(owed(cache))


def test_a_fork_inherits_no_debts(server: RunningServer, make_cache: Make) -> None:
    """What the parent owes, the parent pays."""
    cache = make_cache()
    cache.set("k", "old")
    server.inject(DOWN)
    cache.delete("k")
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=ask_in_child, args=(cache, answers))
    child.start()
    child.join(LONGEST_WAIT)
    assert answers.get() == (0, 0)
    assert owed(cache) == (1, 0)


def test_raise_mode_owes_as_well(server: RunningServer) -> None:
    """Who is told of the error need not repeat the write to be safe from the old value."""
    cache = Process(server, ON_ERROR="raise")
    cache.set("k", "old")
    server.inject(DOWN)
    with pytest.raises(MomentoError):
        cache.delete("k")
    server.clear_faults()
    assert cache.get("k") is None
