"""What may be stored, and who may see it: the model beside the cache of test_state_machine.

A place holds a set of cells, the states that it may be in. Each value is of a generation, which is
the number of the last clear() that its writer may have known of; a process sees no value of a
generation before the last clear() that it must know of, nor one that it has failed to remove.
A process may also see what it keeps a copy of: what it has read or written, for a while.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

Place = tuple[str, int]

# Stamps are in milliseconds, and never the same twice in a process.
_SAME_TIME = 0.01


class Span(NamedTuple):
    """When something was stamped: not before the first of these times, nor after the last."""

    first: float
    last: float


NEVER = Span(float("-inf"), float("-inf"))


class State(NamedTuple):
    """A value under a key: until when the service keeps it, and what its envelope says.

    ``sealed`` and ``made`` are by the clock of the host that wrote it, which may be off.
    """

    value: Any
    expires: float
    sealed: float
    made: Span
    maker: str
    generation: int = 0
    dead_for: frozenset[str] = frozenset()


# What states may be besides: nothing, or bytes that are nobody's.
ABSENT = None
SPOILT = "spoilt"
Cell = State | None | str


@dataclass
class Process:
    """What is known of one process."""

    name: str
    skew: float  # its wall clock beside the others'
    known: int = 0  # the last clear() that it must know of
    # What it failed to write or remove: it may remove whatever was made before.
    debts: dict[Place, Span] = field(default_factory=dict)
    # What it may keep copies of, and when it read or wrote that.
    copies: dict[Place, dict[State, float]] = field(default_factory=dict)

    def keep(self, place: Place, states: "set[Cell]", now: float) -> None:
        """Take in that it may keep a copy of one of these."""
        kept = {state: now for state in states if isinstance(state, State)}
        self.copies[place] = self.copies.get(place, {}) | kept

    def recalled(self, place: Place, now: float, longest: float) -> "set[State]":
        """Return what a copy may answer that answers for so long, and never beyond its expiry."""
        return {
            state
            for state, kept_at in self.copies.get(place, {}).items()
            if now < kept_at + longest and now + self.skew < state.sealed
        }

    def may_see(self, cell: Cell) -> bool:
        """Whether it may find a value."""
        return (
            isinstance(cell, State)
            and cell.generation >= self.known
            and self.name not in cell.dead_for
        )

    def stamp(self, began: float, now: float) -> Span:
        """Return when it stamped what it did between these times, by its own clock."""
        return Span(began + self.skew, now + self.skew)

    def denies(self, state: State, since: Span) -> bool:
        """Whether it takes a value for an older one than what it failed to do then."""
        return state.maker == self.name or state.made.last < since.first - _SAME_TIME

    def may_deny(self, state: State, since: Span) -> bool:
        """Whether it may do so."""
        if state.maker == self.name:
            return state.made < since
        return state.made.first < since.last + _SAME_TIME


class Model:
    """The places, and what is known of the processes."""

    def __init__(self, places: list[Place], processes: list[Process]) -> None:
        self.places: dict[Place, set[Cell]] = {place: {ABSENT} for place in places}
        self.processes = {process.name: process for process in processes}
        self.began = 0.0  # when the call began that is under way
        self.latest = 0  # the number of the last clear()
        self.cleared_at = float("-inf")
        self.certain = 0  # the number of the last one that took effect for sure
        # Something was refused for good: what was there may stay, and is owed by nobody.
        self.is_refused = False

    def cells(self, place: Place, now: float) -> set[Cell]:
        """Return the states that a place may be in now."""
        cells = {
            ABSENT if isinstance(cell, State) and cell.expires <= now else cell
            for cell in self.places[place]
        }
        if any(self._may_be_removed(place, cell) for cell in cells):
            cells.add(ABSENT)
        return cells

    def _may_be_removed(self, place: Place, cell: Cell) -> bool:
        """Whether a process that owes a write may take this value for an older one."""
        if not isinstance(cell, State):
            return False
        return any(
            process.may_deny(cell, process.debts[place])
            for process in self.processes.values()
            if place in process.debts
        )

    def may_be_absent(self, process: Process, cell: Cell) -> bool:
        """Whether a process may find nothing."""
        if not isinstance(cell, State):
            return True
        return cell.generation < self.latest or process.name in cell.dead_for

    # Writes

    def written(self, process: Process, value: Any, now: float, timeout: float) -> set[Cell]:
        """Return the states that a process's write may leave."""
        wall = now + process.skew
        made = process.stamp(self.began, now)
        state = State(value, now + timeout, wall + timeout, made, process.name)
        return {state._replace(generation=each) for each in {process.known, self.latest}}

    def write(self, place: Place, new: set[Cell]) -> None:
        """Take in a write that succeeded; what is still owed is owed for what was before it."""
        self.places[place] = set(new)
        for process in self.processes.values():
            if place in process.debts:
                stamps = [c.made for c in new if isinstance(c, State) and c.maker == process.name]
                process.debts[place] = max([process.debts[place], *stamps])

    def write_perhaps(
        self, process: Process, place: Place, new: set[Cell], now: float, *, owes: bool
    ) -> None:
        """Take in a write that may have changed nothing; where it owes, nothing older is served."""
        before = self.cells(place, now)
        if owes:
            since = process.debts[place] = process.stamp(self.began, now)
            if not self.is_refused:
                before = {self._dead(process, cell, since) for cell in before}
        self.places[place] = before | new | {ABSENT}

    def _dead(self, process: Process, cell: Cell, since: float) -> Cell:
        if not isinstance(cell, State) or not process.denies(cell, since):
            return cell
        return cell._replace(dead_for=cell.dead_for | {process.name})

    def seen(self, process: Process, place: Place, cells: set[Cell]) -> None:
        """Take in that a process has found what one of these states is."""
        self.places[place] = set(cells)
        generations = [cell.generation for cell in cells if isinstance(cell, State)]
        process.known = max(process.known, min(generations))

    # clear()

    def clear(self, process: Process, now: float, *, certain: bool) -> None:
        """Take in a clear(), which this process knows of at once."""
        self.latest += 1
        process.copies.clear()
        if certain:
            self.certain, self.cleared_at = self.latest, now
        if certain or not self.is_refused:
            process.known = self.latest

    def catch_up(self, process: Process, now: float, max_age: float) -> None:
        """Take in that a process reads the marker, if its copy must be too old."""
        if now >= self.cleared_at + max_age:
            process.known = max(process.known, self.certain)

    # Debts

    def refuse(self) -> None:
        """Take in that from now on something may be refused for good: nobody owes it any more."""
        self.is_refused = True
        for process in self.processes.values():
            process.known = min(process.known, self.certain)
        for place, cells in self.places.items():
            self.places[place] = {
                cell._replace(dead_for=frozenset()) if isinstance(cell, State) else cell
                for cell in cells
            }

    def all_is_paid(self, now: float) -> None:
        """Take in that every write that was owed was made up for."""
        for place in self.places:
            self.places[place] = self.cells(place, now)
        for process in self.processes.values():
            process.debts.clear()
        if not self.is_refused and self.certain != self.latest:
            # Paid just now: who has read the marker a moment before hears of it later.
            self.certain, self.cleared_at = self.latest, now
        self.is_refused = False
        for place, cells in self.places.items():
            self.places[place] = {
                ABSENT if isinstance(cell, State) and cell.dead_for else cell for cell in cells
            }


class Frozen(NamedTuple):
    """A list in the model, which must be hashable."""

    items: tuple[Any, ...]

    @classmethod
    def of(cls, value: Any) -> Any:
        """Return the value, frozen where it is a list."""
        return cls(tuple(value)) if isinstance(value, list) else value


def is_state_of(cell: Cell, value: Any) -> bool:
    """Whether this state is of this value, type included."""
    if not isinstance(cell, State):
        return False
    return type(cell.value) is type(Frozen.of(value)) and cell.value == Frozen.of(value)
