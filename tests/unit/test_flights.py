"""Flights: who makes a value, who waits for it, and what becomes of it when that goes wrong."""

import asyncio
import gc
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from itertools import count
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async

from django_momento_http._store.flights import Flight, Flights, Lead, is_leading
from tests.support.interrupting import at_every_place, inside_every_place

LONGEST_WAIT = 20.0
ALIAS, OTHER = object(), object()
KEY = "key"

AnyFlights = Flights[str, str]
AnyFlight = Flight[str, str]
AnyLead = Lead[str, str]


@pytest.fixture
def flights() -> AnyFlights:
    """No flights."""
    return Flights()


def lead_of(entered: AnyFlight | AnyLead | None) -> AnyLead:
    """Return what must be a lead."""
    assert isinstance(entered, Lead)
    return entered


def flight_of(entered: AnyFlight | AnyLead | None) -> AnyFlight:
    """Return what must be a flight to wait for."""
    assert isinstance(entered, Flight)
    return entered


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that must come."""
    end = time.monotonic() + LONGEST_WAIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


@contextmanager
def waiting(flight: AnyFlight, count: int) -> Iterator[list["Future[AnyLead | None]"]]:
    """Let so many threads wait for the flight."""
    with ThreadPoolExecutor(count) as pool:
        before = flight.waiting
        futures = [pool.submit(flight.join, LONGEST_WAIT) for _ in range(count)]
        until(lambda: flight.waiting == before + count)
        yield futures


# One makes it


def test_one_leads_and_the_others_wait(flights: AnyFlights) -> None:
    """Who comes first has the lead, and all who come later wait for the same flight."""
    lead = lead_of(flights.enter(ALIAS, KEY))
    assert {flight_of(flights.enter(ALIAS, KEY)) for _ in range(3)} == {lead.flight}
    with waiting(lead.flight, 8) as waiters:
        flights.end(lead, "made")
        assert {waiter.result(LONGEST_WAIT) for waiter in waiters} == {None}
    assert lead.flight.has_ended
    assert lead.flight.outcome == "made"
    assert not flights.under_way


def test_the_next_one_after_the_end_leads(flights: AnyFlights) -> None:
    """Outcomes are not kept."""
    first = lead_of(flights.enter(ALIAS, KEY))
    flights.end(first, "made")
    assert lead_of(flights.enter(ALIAS, KEY)).flight.outcome is None


def test_a_flight_belongs_to_one_alias_and_key(flights: AnyFlights) -> None:
    """What another alias stores may be unreadable here, and another key is another value."""
    leads = [
        lead_of(flights.enter(alias, key)) for alias in (ALIAS, OTHER) for key in (KEY, "other")
    ]
    assert len({lead.flight for lead in leads}) == 4


def test_who_looked_before_it_ended_is_told(flights: AnyFlights) -> None:
    """A caller whose look is older than an outcome looks again instead of making it."""
    before = flights.ended
    flights.end(flights.begin(ALIAS, KEY), "made")
    assert flights.enter(ALIAS, KEY, before) is None
    assert lead_of(flights.enter(ALIAS, KEY, flights.ended))
    assert lead_of(flights.enter(OTHER, KEY, before))
    flights.end(flights.begin(ALIAS, "failed"), None)
    assert lead_of(flights.enter(ALIAS, "failed", before))


def test_what_ended_is_remembered_for_a_few_keys(flights: AnyFlights) -> None:
    """However many keys are made, memory stays as it is, and the latest are known."""
    for number in range(1000):
        flights.end(flights.begin(ALIAS, str(number)), "made")
    assert not flights.under_way
    assert len(flights._ended_lately) <= 256
    assert flights.enter(ALIAS, "999", 0) is None
    assert lead_of(flights.enter(ALIAS, "0", 0))


# What can go wrong with who makes it


def test_a_failure_lets_all_go_on_at_once(flights: AnyFlights) -> None:
    """No convoy: all who wait make their own, none waits for another of them."""
    lead = lead_of(flights.enter(ALIAS, KEY))
    with waiting(lead.flight, 4) as waiters:
        flights.end(lead, None)
        assert {waiter.result(LONGEST_WAIT) for waiter in waiters} == {None}
    assert lead.flight.has_ended
    assert lead.flight.outcome is None


@pytest.mark.parametrize("says_so", [True, False], ids=["leaves", "vanishes"])
def test_one_takes_over_from_who_left(flights: AnyFlights, says_so: bool) -> None:
    """Cancelled, killed or interrupted where it could not even say so: one goes on for all."""
    lead = lead_of(flights.enter(ALIAS, KEY))
    flight = lead.flight
    flight.draft = "draft"
    with waiting(flight, 4) as waiters:
        if says_so:
            with pytest.raises(KeyboardInterrupt), lead:
                raise KeyboardInterrupt
        del lead
        gc.collect()
        until(lambda: sum(waiter.done() for waiter in waiters) == 1)
        [taken] = [waiter.result() for waiter in waiters if waiter.done()]
        new = lead_of(taken)
        assert new.flight is flight
        assert flight.draft == "draft"
        until(lambda: flight.waiting == 3)
        flights.end(new, "made after all")
        assert {waiter.result(LONGEST_WAIT) for waiter in waiters} == {new, None}
    assert flight.outcome == "made after all"


def test_who_comes_after_it_was_left_takes_over(flights: AnyFlights) -> None:
    """Nobody waits for a maker that is gone."""
    lead = lead_of(flights.enter(ALIAS, KEY))
    flight = lead.flight
    with lead, waiting(flight, 1) as waiters:
        lead.__exit__()
        [taken] = [waiter.result(LONGEST_WAIT) for waiter in waiters]
        del lead
    with lead_of(taken):
        pass
    del taken, waiters
    gc.collect()
    assert lead_of(flights.enter(ALIAS, KEY))


def test_a_hanging_maker_costs_one_wait(flights: AnyFlights) -> None:
    """Who waited in vain makes it itself, and those who come later wait for that one."""
    hanging = lead_of(flights.enter(ALIAS, KEY))
    flight = flight_of(flights.enter(ALIAS, KEY))
    for seconds in (0.02, 0.0, -1.0):
        assert flight.join(seconds) is None
        assert not flight.has_ended
    own = flights.begin(ALIAS, KEY)
    assert flight_of(flights.enter(ALIAS, KEY)) is own.flight
    flights.end(own, "made")
    assert flight_of(flights.enter(ALIAS, KEY)) is hanging.flight
    flights.end(hanging, "late")
    assert not flights.under_way


def test_nothing_is_kept_of_who_waited_in_vain(flights: AnyFlights) -> None:
    """A value that takes an hour may be waited for thousands of times."""
    lead = flights.begin(ALIAS, KEY)

    async def wait() -> None:
        await asyncio.gather(*(lead.flight.join_in_loop(0.01) for _ in range(20)))

    for _ in range(20):
        lead.flight.join(0)
    asyncio.run(wait())
    assert lead.flight.waiting == 0


def test_what_an_interrupt_left_behind_goes(flights: AnyFlights) -> None:
    """A flight that nobody leads or waits for is not kept beside new ones."""
    flights.begin(ALIAS, KEY)
    gc.collect()
    lead = flights.begin(ALIAS, KEY)
    assert flights.under_way == {KEY: (lead.flight,)}


def test_what_was_left_by_many_does_not_add_up(flights: AnyFlights) -> None:
    """However many are cancelled, each at a key of its own, neither flight nor value is kept."""
    kept = flights.begin(ALIAS, "kept")
    left: list[AnyFlight] = []

    def cancelled(key: str) -> None:
        with flights.begin(ALIAS, key) as lead:
            lead.flight.draft = "large"
            left.append(lead.flight)
            raise KeyboardInterrupt

    for number in range(1000):
        with pytest.raises(KeyboardInterrupt):
            cancelled(str(number))
    assert len(flights.under_way) < 200
    assert {flight.draft for flight in left} == {None}
    assert flight_of(flights.enter(ALIAS, "kept")) is kept.flight


# Who must not wait


def test_who_makes_a_value_knows_it(flights: AnyFlights) -> None:
    """Two makers that wait for each other would wait for ever, so each can tell."""
    assert not is_leading()
    with flights.begin(ALIAS, KEY) as outer:
        assert is_leading()
        with flights.begin(ALIAS, "other") as inner:
            flights.end(inner, "made")
            assert is_leading()
        flights.end(outer, "made")
        assert not is_leading()
    assert not is_leading()


def test_it_is_known_where_else_its_code_runs(flights: AnyFlights) -> None:
    """sync_to_async and async_to_sync inside a default take the knowledge with them."""

    async def ask() -> list[bool]:
        return [is_leading(), await sync_to_async(is_leading)()]

    with flights.begin(ALIAS, KEY):
        assert async_to_sync(ask)() == [True, True]
    assert async_to_sync(ask)() == [False, False]


def test_it_may_be_left_in_another_context(flights: AnyFlights) -> None:
    """Whoever closes a coroutine may do so elsewhere than where it ran."""

    async def leader() -> None:
        with flights.begin(ALIAS, KEY):
            await asyncio.sleep(LONGEST_WAIT)

    async def main() -> None:
        steps = leader()
        copy_context().run(steps.send, None)
        [flight] = flights.under_way[KEY]
        assert flight.is_led
        copy_context().run(steps.close)
        assert not flight.is_led

    asyncio.run(main())


def test_what_outlives_the_making_leads_nothing(flights: AnyFlights) -> None:
    """A task or thread that was begun inside may wait for others once the value is made."""
    with flights.begin(ALIAS, KEY) as lead:
        context = copy_context()
        assert context.run(is_leading)
        flights.end(lead, "made")
    assert not context.run(is_leading)


# Writes


def test_a_write_marks_what_is_being_made(flights: AnyFlights) -> None:
    """All makers of exactly that key, of every alias, learn that they are out of date."""
    leads = [flights.begin(alias, KEY) for alias in (ALIAS, ALIAS, OTHER)]
    other = flights.begin(ALIAS, "other")
    flights.mark(KEY)
    flights.mark("a third")
    assert all(lead.flight.is_marked for lead in leads)
    assert not other.flight.is_marked


def test_nobody_waits_for_what_is_out_of_date(flights: AnyFlights) -> None:
    """Who asks after a write must not be given what was made before it."""
    old = flights.begin(ALIAS, KEY)
    flights.mark(KEY)
    new = lead_of(flights.enter(ALIAS, KEY))
    assert flight_of(flights.enter(ALIAS, KEY)) is new.flight
    assert not new.flight.is_marked
    flights.end(old, "old")
    assert flight_of(flights.enter(ALIAS, KEY)) is new.flight
    assert old.flight.is_marked


def test_those_who_wait_already_get_what_was_made(flights: AnyFlights) -> None:
    """A write does not send away those who asked before it."""
    lead = flights.begin(ALIAS, KEY)
    with waiting(lead.flight, 2) as waiters:
        flights.mark(KEY)
        flights.end(lead, "made")
        assert {waiter.result(LONGEST_WAIT) for waiter in waiters} == {None}
    assert lead.flight.outcome == "made"


def test_what_a_write_overtakes(flights: AnyFlights) -> None:
    """It marks what was begun meanwhile, and is told what may have been stored over it."""
    before = flights.ended
    assert not flights.overtake([KEY], before)
    young, made = flights.begin(ALIAS, "young"), flights.begin(OTHER, "made")
    made.flight.draft = "draft"
    flights.end(flights.begin(ALIAS, "ended"), "outcome")
    flights.end(flights.begin(ALIAS, "failed"), None)
    keys = ["young", "made", "ended", "failed", KEY]
    assert flights.overtake(keys, before) == {"made", "ended"}
    assert young.flight.is_marked
    assert made.flight.is_marked
    assert not flights.overtake(keys, flights.ended)


def test_a_handler_may_make_values_while_a_write_ends(flights: AnyFlights) -> None:
    """At each place, also where a write looks at what has ended lately."""
    numbers = count()

    def make() -> None:
        flights.end(flights.begin(ALIAS, str(next(numbers))), "outcome")

    def write() -> None:
        before = flights.ended
        make()
        flights.overtake([KEY], before)

    assert inside_every_place(write, make) > 10


def test_what_nobody_would_find_is_marked(flights: AnyFlights) -> None:
    """A value whose maker is gone may be on its way still, and a write could not tell it."""
    gone = flights.begin(ALIAS, KEY)
    flight = gone.flight
    del gone
    gc.collect()
    flights.begin(ALIAS, KEY)
    assert flight.is_superseded


def test_what_another_has_ended_is_superseded(flights: AnyFlights) -> None:
    """Who was cancelled may be storing still when who took over has done so."""
    gone = flights.begin(ALIAS, KEY)
    flight = gone.flight
    del gone
    gc.collect()
    assert not flight.is_superseded
    flights.end(lead_of(flights.enter(ALIAS, KEY)), "outcome")
    assert flight.is_superseded


def test_a_clear_marks_everything(flights: AnyFlights) -> None:
    """Whatever is being made was begun before it."""
    leads = [flights.begin(ALIAS, str(number)) for number in range(10)]
    flights.mark_all()
    assert all(lead.flight.is_marked for lead in leads)
    assert not flights.under_way


# Refreshes


def test_one_refreshes_at_a_time(flights: AnyFlights) -> None:
    """While a value is being made anew, others of the same alias leave it at that."""
    lead = flights.begin_alone(ALIAS, KEY)
    assert lead is not None
    assert flights.begin_alone(ALIAS, KEY) is None
    assert flights.begin_alone(OTHER, KEY) is not None
    assert flight_of(flights.enter(ALIAS, KEY)) is lead.flight
    flights.end(lead, "made")
    assert flights.begin_alone(ALIAS, KEY) is not None


# Tasks


async def leads_of_tasks(flight: AnyFlight, count: int) -> list["asyncio.Task[AnyLead | None]"]:
    """Let so many tasks wait for the flight."""
    before = flight.waiting
    tasks = [asyncio.create_task(flight.join_in_loop(LONGEST_WAIT)) for _ in range(count)]
    end = time.monotonic() + LONGEST_WAIT
    while flight.waiting < before + count:
        assert time.monotonic() < end
        await asyncio.sleep(0)
    return tasks


def test_tasks_of_any_loop_and_threads_wait_together(flights: AnyFlights) -> None:
    """A mixed crowd gets one outcome, whoever made it, and tasks hold no thread meanwhile."""
    lead = flights.begin(ALIAS, KEY)
    threads: list[int] = []

    async def crowd() -> set[AnyLead | None]:
        tasks = await leads_of_tasks(lead.flight, 100)
        threads.append(threading.active_count())
        return set(await asyncio.gather(*tasks))

    with waiting(lead.flight, 2) as waiters, ThreadPoolExecutor(2) as pool:
        loops = [pool.submit(asyncio.run, crowd()) for _ in range(2)]
        until(lambda: lead.flight.waiting == 202)
        flights.end(lead, "made")
        assert [loop.result(LONGEST_WAIT) for loop in loops] == [{None}, {None}]
        assert {waiter.result(LONGEST_WAIT) for waiter in waiters} == {None}
    assert max(threads) <= threading.active_count() + 4


def test_one_task_takes_over_from_a_cancelled_one(flights: AnyFlights) -> None:
    """A task that is cancelled while it makes a value leaves that to one of those who wait."""

    async def make(lead: AnyLead) -> None:
        with lead:
            await asyncio.Event().wait()

    async def scene() -> str | None:
        maker = asyncio.create_task(make(flights.begin(ALIAS, KEY)))
        await asyncio.sleep(0)
        flight = flight_of(flights.enter(ALIAS, KEY))
        tasks = await leads_of_tasks(flight, 3)
        maker.cancel()
        done, _ = await asyncio.wait(
            tasks, return_when=asyncio.FIRST_COMPLETED, timeout=LONGEST_WAIT
        )
        [lead] = [lead_of(task.result()) for task in done]
        flights.end(lead, "made")
        await asyncio.gather(*tasks)
        return flight.outcome

    assert asyncio.run(scene()) == "made"


def test_a_cancelled_waiter_harms_nobody(flights: AnyFlights) -> None:
    """Who leaves is forgotten, and the others are told."""

    async def scene() -> None:
        lead = flights.begin(ALIAS, KEY)
        tasks = await leads_of_tasks(lead.flight, 120)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.sleep(0)
        assert lead.flight.waiting == 60
        flights.end(lead, "made")
        assert await asyncio.gather(*tasks[1::2]) == [None] * 60

    asyncio.run(scene())


def test_many_tasks_do_not_hold_their_loop(flights: AnyFlights) -> None:
    """Of a thousand, a few are woken in one turn, so that others have their turns between."""

    async def scene() -> int:
        lead = flights.begin(ALIAS, KEY)
        tasks = await leads_of_tasks(lead.flight, 1000)
        flights.end(lead, "made")
        turns = 0
        while not all(task.done() for task in tasks):
            assert turns < 100_000
            await asyncio.sleep(0)
            turns += 1
        return turns

    assert asyncio.run(scene()) >= 20


def test_a_loop_that_was_closed_is_no_trouble(flights: AnyFlights) -> None:
    """Its tasks wait no more; the maker ends its flight as always."""
    lead = flights.begin(ALIAS, KEY)
    loop = asyncio.new_event_loop()
    task = loop.create_task(lead.flight.join_in_loop(LONGEST_WAIT))
    loop.run_until_complete(asyncio.sleep(0))
    assert lead.flight.waiting == 1
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    flights.end(lead, "made")
    assert lead.flight.outcome == "made"


def test_a_lost_call_is_made_up_for(flights: AnyFlights) -> None:
    """Tasks and threads look again by themselves when whoever should have told them could not."""

    async def scene() -> AnyLead | None:
        [task] = await leads_of_tasks(lead.flight, 1)
        lead.flight.has_ended = True  # and nobody tells
        return await asyncio.wait_for(task, LONGEST_WAIT)

    lead = flights.begin(ALIAS, KEY)
    began = time.monotonic()
    with waiting(lead.flight, 1) as waiters:
        assert asyncio.run(scene()) is None
        assert waiters[0].result(LONGEST_WAIT) is None
    assert time.monotonic() - began < LONGEST_WAIT / 2


# Forks and interrupts


def _child(flights: AnyFlights, lead: AnyLead, found: Any) -> None:
    flight = lead.flight
    told: list[int] = []
    flight._bells.append(lambda: told.append(1))
    was_leading = is_leading()
    flights.end(lead, "made")
    lead.__exit__()
    found.put((flight.is_inherited, was_leading, told))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_during_a_flight_leads_nothing_of_its_parents() -> None:
    """A child that goes on where its parent makes a value tells nobody of the parent's."""
    context = multiprocessing.get_context("fork")
    flights: AnyFlights = Flights()
    found = context.SimpleQueue()
    with flights.begin(ALIAS, KEY) as lead:
        child = context.Process(target=_child, args=(flights, lead, found))
        child.start()
        child.join(LONGEST_WAIT)
        assert child.exitcode == 0
        assert found.get() == (True, False, [])
        assert is_leading()
        assert not lead.flight.has_ended


def make(flights: AnyFlights) -> None:
    """Lead a flight to its end, whatever comes."""
    entered = flights.enter(ALIAS, KEY)
    if isinstance(entered, Flight):
        raise AssertionError("somebody seems to make it")
    with lead_of(entered) as lead:
        flights.mark("other")
        flights.end(lead, "made")


def test_an_interrupted_maker_blocks_nobody(flights: AnyFlights) -> None:
    """Wherever it strikes, the interrupt comes out, and the next caller makes the value at once."""
    places = 0
    for error in at_every_place(lambda: make(flights)):
        del error
        places += 1
        assert not is_leading()
        make(flights)
        assert repr(flights._lock).startswith("<unlocked")
        assert not flights.under_way
    assert places > 20


def test_an_interrupted_waiter_leaves_it_as_it_was(flights: AnyFlights) -> None:
    """Wherever it strikes, the interrupt comes out, and nothing is kept of who waited."""
    lead = flights.begin(ALIAS, KEY)
    for error in at_every_place(lambda: lead.flight.join(0.001)):
        del error
        assert lead.flight.waiting <= 1
        lead.flight._bells.clear()
    assert lead.flight.is_led


def test_a_handler_may_make_a_value_inside_another(flights: AnyFlights) -> None:
    """A signal handler may ask for the value that the code it interrupts is making."""

    def inner() -> None:
        entered = flights.begin(ALIAS, KEY) if is_leading() else flights.enter(ALIAS, KEY)
        if isinstance(entered, Lead):
            with entered as lead:
                flights.end(lead, "made")

    assert inside_every_place(lambda: make_or_leave(flights), inner) > 20


def make_or_leave(flights: AnyFlights) -> None:
    """Lead a flight to its end, unless it is another's."""
    entered = flights.enter(ALIAS, KEY)
    if isinstance(entered, Lead):
        with entered as lead:
            flights.end(lead, "made")
