"""Values that are being made: of the callers who miss one, one makes it while the others wait.

A flight is one value under way, of one alias and key. Who makes it has its lead; the others wait
for the outcome, which is theirs, too. A write of the key marks its flights: what they make is out
of date. It knows nothing of what a value is, nor where it is kept.
"""

import math
import os
import threading
import time
import weakref
from collections.abc import Collection, Iterable
from contextvars import ContextVar, Token
from typing import Any, Generic, TypeVar

from .._interrupts import is_raised_by_signal_handler
from .._waitable import Waitable

D = TypeVar("D")  # what is made, before it is stored
T = TypeVar("T")  # what came of it, for all who wait

# How many keys are remembered as made a moment ago.
_REMEMBERED = 256
# So many keys at once are looked through for what nobody makes any longer.
_MANY = 64


class Flight(Waitable, Generic[D, T]):
    """One value under way.

    ``draft`` is what was made, once it is, and ``outcome`` what came of it. A flight that has ended
    without an outcome leaves it to each to make its own. One that ``is_marked`` is out of date.
    """

    __slots__ = (
        "_lock",
        "_pid",
        "alias",
        "draft",
        "has_ended",
        "is_let_go",
        "is_marked",
        "key",
        "leader",
        "outcome",
    )

    def __init__(self, alias: object, key: str) -> None:
        super().__init__()
        self.alias = alias
        self.key = key
        self.draft: D | None = None
        self.outcome: T | None = None
        self.has_ended = False
        self.is_let_go = False
        self.is_marked = False
        # Weak: if an interrupt takes a maker away before it can say so, its lead goes with it.
        self.leader: weakref.ref[Lead[D, T]] | None = None
        self._lock = threading.RLock()
        self._pid = os.getpid()

    @property
    def is_led(self) -> bool:
        """Whether somebody is making it."""
        return not self.has_ended and self.leader is not None and self.leader() is not None

    @property
    def is_open(self) -> bool:
        """Whether callers may still wait for it."""
        return not (self.has_ended or self.is_let_go or self.is_marked)

    @property
    def is_superseded(self) -> bool:
        """Whether what was made is not to be stored, or not any more.

        It is out of date, or its maker was cancelled and another has gone on with it to the end.
        """
        return self.is_marked or self.has_ended

    @property
    def is_over(self) -> bool:
        """Whether who waits has something to do: take the outcome, or take over."""
        return self.is_let_go or not self.is_led

    @property
    def is_inherited(self) -> bool:
        """Whether it is the parent's: this process was forked while it was under way."""
        return self._pid != os.getpid()

    def join(self, seconds: float) -> "Lead[D, T] | None":
        """Wait in a thread, at most so many seconds, until it has ended.

        Return the lead where its maker is gone and this caller is to go on.
        """
        end = time.monotonic() + seconds
        while self.wait(end - time.monotonic()):
            if self.has_ended or self.is_let_go:
                return None
            if (lead := self.take_over()) is not None:
                return lead
        return None

    async def join_in_loop(self, seconds: float) -> "Lead[D, T] | None":
        """See join(); in a task."""
        end = time.monotonic() + seconds
        while await self.wait_in_loop(end - time.monotonic()):
            if self.has_ended or self.is_let_go:
                return None
            if (lead := self.take_over()) is not None:
                return lead
        return None

    def take_over(self) -> "Lead[D, T] | None":
        """Return the lead of a flight that nobody leads; None where another was first."""
        with self._lock:
            return None if self.has_ended or self.is_led else Lead(self)

    def let_go(self) -> None:
        """Let all who wait make their own, while this goes on."""
        self.is_let_go = True
        if not self.is_inherited:
            self.tell()


class Lead(Generic[D, T]):
    """The making of one flight's value, as long as this is held; ``with`` it, in its context."""

    __slots__ = ("__weakref__", "_token", "flight")

    def __init__(self, flight: Flight[D, T]) -> None:
        self.flight = flight
        self._token: Token[tuple[weakref.ref[Lead[Any, Any]], ...]] | None = None
        flight.leader = weakref.ref(self)

    def __enter__(self) -> "Lead[D, T]":
        others = (lead for lead in _LEADING.get() if _is_under_way(lead))
        self._token = _LEADING.set((weakref.ref(self), *others))
        return self

    def __exit__(self, *_: object) -> None:
        """Leave what did not end to those who wait."""
        token, self._token = self._token, None
        if token is not None:
            _forget(token)
        if not self.flight.has_ended:
            if not self.flight.waiting:
                self.flight.draft = None  # nobody might ever come for it
            self.flight.leader = None
            if not self.flight.is_inherited:
                self.flight.tell()


# The flights that this thread or task leads, and those for which they were begun: it goes with
# what sync_to_async and async_to_sync call.
_LEADING: ContextVar[tuple["weakref.ref[Lead[Any, Any]]", ...]] = ContextVar("leading", default=())


def _forget(token: "Token[tuple[weakref.ref[Lead[Any, Any]], ...]]") -> None:
    try:
        _LEADING.reset(token)
    except ValueError as error:  # a coroutine is closed in another context than it ran in
        if is_raised_by_signal_handler(error):
            raise


def is_leading() -> bool:
    """Whether the caller makes a value: if it waited for another, both might wait for ever."""
    return any(_is_under_way(lead) for lead in _LEADING.get())


def _is_under_way(lead: "weakref.ref[Lead[Any, Any]]") -> bool:
    held = lead()
    return held is not None and not held.flight.has_ended and not held.flight.is_inherited


class Flights(Generic[D, T]):
    """The flights of one namespace in one process; safe under threads.

    An alias is told by identity: what one stores, another may not be able to load.
    ``under_way`` holds them by key, all but those that are marked. ``ended`` counts those that had
    an outcome: who looked for a value before one ended, and found none, looks again.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.under_way: dict[str, tuple[Flight[D, T], ...]] = {}
        self._many = _MANY
        self.ended = 0
        self._ended_lately: dict[tuple[object, str], int] = {}

    def enter(
        self, alias: object, key: str, ended: float = math.inf
    ) -> Flight[D, T] | Lead[D, T] | None:
        """Return the flight to wait for, or the lead of one that nobody leads, or of a new one.

        None where the value was made after so many flights had ended: look again.
        """
        with self._lock:
            for flight in reversed(self.under_way.get(key, ())):
                if flight.alias is alias and flight.is_open:
                    return flight.take_over() or flight
            if self._ended_lately.get((alias, key), 0) > ended:
                return None
            return self.begin(alias, key)

    def begin(self, alias: object, key: str) -> Lead[D, T]:
        """Return the lead of a new flight, beside those that there may be."""
        flight: Flight[D, T] = Flight(alias, key)
        lead = Lead(flight)
        with self._lock:
            self.under_way[key] = (*self._alive(key), flight)
            if len(self.under_way) > self._many:
                self._tidy()
        return lead

    def begin_alone(self, alias: object, key: str) -> Lead[D, T] | None:
        """Return the lead of a new flight; None where one of this alias is under way."""
        with self._lock:
            if any(flight.alias is alias and flight.is_led for flight in self._alive(key)):
                return None
            return self.begin(alias, key)

    def end(self, lead: Lead[D, T], outcome: T | None) -> None:
        """Hand the outcome to all who wait; None: each makes its own."""
        flight = lead.flight
        flight.outcome = outcome
        if flight.is_inherited:
            flight.has_ended = True
            return
        with self._lock:
            if outcome is not None:
                self._note(flight)
            flight.has_ended = True
            left = self._alive(flight.key)
            if left:
                self.under_way[flight.key] = left
            else:
                self.under_way.pop(flight.key, None)
        flight.let_go()

    def mark(self, key: str) -> None:
        """Let what is being made of this key be out of date; nobody else waits for it."""
        if not self.under_way:  # as nearly always
            return
        with self._lock:
            for flight in self.under_way.pop(key, ()):
                flight.is_marked = True

    def mark_many(self, keys: Iterable[str]) -> None:
        """Do the same for many keys."""
        if self.under_way:
            for key in keys:
                self.mark(key)

    def overtake(self, keys: Collection[str], ended: int) -> frozenset[str]:
        """Take in that keys were written, in a write that began when so many had ended.

        Return those of which a value may have been stored meanwhile, over what was written.
        """
        if self.ended == ended and not self.under_way:  # as nearly always
            return frozenset()
        made = set()
        for key in keys:
            if any(flight.draft is not None for flight in self.under_way.get(key, ())):
                made.add(key)
            self.mark(key)
        # After that, or one could end in between; in one step, as handlers of signals make values.
        lately = [] if self.ended == ended else list(self._ended_lately.items())
        made.update(key for (_, key), number in lately if number > ended)
        return frozenset(made.intersection(keys))

    def mark_all(self) -> None:
        """Let all that is being made be out of date."""
        self.mark_many(list(self.under_way))

    def _alive(self, key: str) -> tuple[Flight[D, T], ...]:
        """Return those that somebody leads, or waits for; what an interrupt left behind goes."""
        alive = []
        for flight in self.under_way.get(key, ()):
            if flight.has_ended:
                continue
            if flight.is_led or flight.waiting:
                alive.append(flight)
            else:
                # It may still be on its way to the service, and no write would find it any more.
                flight.is_marked = True
        return tuple(alive)

    def _tidy(self) -> None:
        """Forget what nobody leads or waits for: who was cancelled or interrupted left it."""
        for key in list(self.under_way):
            if alive := self._alive(key):
                self.under_way[key] = alive
            else:
                self.under_way.pop(key, None)
        self._many = max(_MANY, 2 * len(self.under_way))

    def _note(self, flight: Flight[D, T]) -> None:
        self.ended += 1
        name = flight.alias, flight.key
        self._ended_lately.pop(name, None)
        self._ended_lately[name] = self.ended
        while len(self._ended_lately) > _REMEMBERED:
            self._ended_lately.pop(next(iter(self._ended_lately)), None)
