"""get_or_set: of the callers who miss a value, one makes it while the others wait.

Written once for threads and tasks: what either does to wait, ask or serialize is its ``Caller``.
A default is called in the thread or task that asks. It knows Django's transactions, because nobody
should wait long inside one, and nothing of how values are stored.
"""

import asyncio
import copy
import math
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, NamedTuple, Protocol, TypeVar

from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connections

from ._client.operation import Plan
from ._interrupts import is_raised_by_signal_handler
from ._store.copies import MISSING
from ._store.flights import Flight, Lead, is_leading
from ._store.making import Draft, Look, Made, MadeFlight
from ._store.store import Store
from .exceptions import StoredValueError

T = TypeVar("T")
MadeLead = Lead[Draft, Made]

# Whoever makes the value may need what a waiter's transaction has locked.
_LONGEST_WAIT_IN_TRANSACTION = 1.0
# Bytes that a task loads in the event loop's thread, in one call; more go to a worker's.
LOADED_IN_LOOP = 64 * 1024


class Call(NamedTuple):
    """One call of get_or_set; ``ended`` is how many flights had ended before its look."""

    key: str
    default: Any
    timeout: float | None
    ended: int


class Caller(Protocol):
    """What a thread and a task do differently."""

    store: Store

    def may_wait(self) -> bool:
        """Whether nobody needs this thread while it waits."""

    def call(self, default: Any) -> Any:
        """Return what the default returns."""

    async def run(self, begin: Callable[[], Plan[T]]) -> T:
        """Carry a plan out."""

    async def join(self, flight: MadeFlight, seconds: float) -> MadeLead | None:
        """Wait for a flight; return its lead where this caller is to go on with it."""

    async def dumps(self, value: Any, flight: MadeFlight) -> bytes:
        """Serialize a value."""

    async def load(self, made: Made) -> Any:
        """Return a value anew."""


class InThread:
    """A caller that may block its thread."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def may_wait(self) -> bool:
        """Whether no event loop runs here: who makes the value may be one of its tasks."""
        return asyncio._get_running_loop() is None  # noqa: SLF001 - documented, and raises nothing

    def call(self, default: Any) -> Any:
        """Return what the default returns; StopIteration comes out as itself."""
        try:
            return default()
        except StopIteration as error:
            raise _Stopped from error

    async def run(self, begin: Callable[[], Plan[T]]) -> T:
        """Carry a plan out here."""
        return self.store.runner.run(begin)

    async def join(self, flight: MadeFlight, seconds: float) -> MadeLead | None:
        """Block this thread."""
        return flight.join(seconds)

    async def dumps(self, value: Any, flight: MadeFlight) -> bytes:  # noqa: ARG002 - as a task
        """Serialize a value here."""
        return self.store.dumps(value)

    async def load(self, made: Made) -> Any:
        """Load a value here."""
        return self.store.making.loaded(made)


class InLoop:
    """A caller that is a task."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def may_wait(self) -> bool:
        """A task holds nobody up."""
        return True

    def call(self, default: Any) -> Any:
        """Return what the default returns; as Django's own, it is no coroutine."""
        return default()

    async def run(self, begin: Callable[[], Plan[T]]) -> T:
        """Have a plan carried out by a worker thread."""
        return await self.store.runner.arun(begin)

    async def join(self, flight: MadeFlight, seconds: float) -> MadeLead | None:
        """Wait without a thread."""
        return await flight.join_in_loop(seconds)

    async def dumps(self, value: Any, flight: MadeFlight) -> bytes:
        """Serialize in the task, or where Django lets a task query the database."""
        with suppress(SynchronousOnlyOperation):  # an unevaluated queryset
            return self.store.dumps(value)
        # There is one thread for that, and it may be waiting for this value.
        flight.let_go()
        return await sync_to_async(self.store.dumps, thread_sensitive=True)(value)

    async def load(self, made: Made) -> Any:
        """Load a value here, a large one elsewhere."""
        making = self.store.making
        if len(made.stored.body) <= LOADED_IN_LOOP:
            return making.loaded(made)
        return await self.store.runner.arun(lambda: making.load(made))


class _Stopped(Exception):
    """A default raised StopIteration, which no coroutine lets through."""


def in_thread(begin: Callable[[], Coroutine[None, None, T]]) -> T:
    """Return the result of steps that an InThread takes: they never suspend.

    They are made here, one step before they start: see ``Runner.run``.
    """
    steps = begin()
    try:
        steps.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    except _Stopped as stopped:
        cause = stopped.__cause__
    raise cause or RuntimeError("a thread's steps were suspended")


async def make(call: Call, look: Look, caller: Caller) -> Any:
    """Return the value that is missing or early: another's, or one made here and stored."""
    making = caller.store.making
    if look.early is not MISSING:
        return await _make_early(call, look, caller)
    if not callable(call.default):
        return await _make_alone(call, look, caller)
    if not _may_wait(caller):
        return await _lead(making.flights.begin(making.alias, call.key), call, look, caller)
    entered = making.flights.enter(
        making.alias, call.key, math.inf if look.is_unknown else call.ended
    )
    if entered is None:  # it was made between this caller's look and now
        found = await caller.run(lambda: caller.store.lookup(call.key))
        if not isinstance(found, Look):
            return found
        entered, look = making.flights.enter(making.alias, call.key), found
    if isinstance(entered, Flight):
        return await _wait(entered, call, look, caller)
    lead = entered or making.flights.begin(making.alias, call.key)
    return await _lead(lead, call, look, caller)


def _may_wait(caller: Caller) -> bool:
    return caller.store.making.longest_wait > 0 and not is_leading() and caller.may_wait()


async def _wait(flight: MadeFlight, call: Call, look: Look, caller: Caller) -> Any:
    """Return what another makes, or make it when that takes too long or comes to nothing."""
    making = caller.store.making
    making.counters.served("waited")
    seconds = making.longest_wait
    if _is_in_transaction():
        seconds = min(seconds, _LONGEST_WAIT_IN_TRANSACTION)
    lead = await caller.join(flight, seconds)
    made = flight.outcome
    if lead is not None or made is None:
        lead = lead or making.flights.begin(making.alias, call.key)
        return await _lead(lead, call, look, caller)
    if made.error is not None:
        raise copy.copy(made.error)
    value = await _loaded(made, caller)
    if value is MISSING:
        return await _lead(making.flights.begin(making.alias, call.key), call, look, caller)
    return value


async def _loaded(made: Made, caller: Caller) -> Any:
    """Return the value anew; MISSING where it was made of what cannot be loaded."""
    try:
        return await caller.load(made)
    except StoredValueError as error:
        if is_raised_by_signal_handler(error):
            raise
        return MISSING


async def _lead(lead: MadeLead, call: Call, look: Look, caller: Caller) -> Any:
    """Make the value, store it and let all who wait have it."""
    making, flight = caller.store.making, lead.flight
    with lead:
        try:
            value, made = await _made(flight, call, look, caller)
        except Exception as error:
            # A time limit is this caller's own: another takes over.
            if not is_raised_by_signal_handler(error):
                making.flights.end(lead, None)
            raise
        making.flights.end(lead, made)
    if made is not None and made.error is not None:
        raise made.error
    return value


async def _make_alone(call: Call, look: Look, caller: Caller) -> Any:
    """Store a default that is a value: nothing is made, so nobody waits for it."""
    if look.is_unknown:
        return call.default
    making = caller.store.making
    generation = making.generation
    with making.flights.begin(making.alias, call.key) as lead:
        lead.flight.let_go()
        payload = await caller.dumps(call.default, lead.flight)
        draft = lead.flight.draft = Draft(payload, generation, 0.0)
        made = await caller.run(
            lambda: making.store(call.key, lead.flight, draft, call.timeout, look)
        )
        making.flights.end(lead, made)
    if made.error is not None:
        raise made.error
    return call.default if made.theirs is MISSING else made.theirs


async def _make_early(call: Call, look: Look, caller: Caller) -> Any:
    """Make a value anew that has not expired; whatever goes wrong, it is still there."""
    making = caller.store.making
    if not callable(call.default) or _stores_nothing(call) or _is_in_transaction():
        return look.early
    lead = making.flights.begin_alone(making.alias, call.key)
    if lead is None:  # another of this process is at it
        return look.early
    making.counters.served("refreshes")
    with lead:
        try:
            value, made = await _made(lead.flight, call, look, caller)
        except Exception as error:
            if is_raised_by_signal_handler(error):
                raise
            making.flights.end(lead, None)
            failed = error.__cause__ if isinstance(error, _Stopped) else error
        else:
            making.flights.end(lead, made)
            if made is not None and made.error is not None:
                making.error_policy.log("get_or_set", made.error)
            return value
    making.say_failed(type(failed).__name__)
    return look.early


async def _made(
    flight: MadeFlight, call: Call, look: Look, caller: Caller
) -> tuple[Any, Made | None]:
    """Return the value, and what came of storing it."""
    making = caller.store.making
    draft, value = flight.draft, MISSING
    if draft is not None:  # of a leader that is gone
        value = await _loaded(making.bare(draft), caller)
    if draft is None or value is MISSING:
        generation, began = making.generation, making.clock()
        value = caller.call(call.default)
        if flight.is_inherited:  # the default forked, and this is the child
            return value, None
        payload = await caller.dumps(value, flight)
        draft = flight.draft = Draft(payload, generation, making.clock() - began)
    made = await caller.run(lambda: making.store(call.key, flight, draft, call.timeout, look))
    return (value if made.theirs is MISSING else made.theirs), made


def _stores_nothing(call: Call) -> bool:
    return call.timeout is not None and call.timeout <= 0


def _is_in_transaction() -> bool:
    return any(one.in_atomic_block for one in connections.all(initialized_only=True))
