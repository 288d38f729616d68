"""Copies and signal handlers: whatever one raises, or does to the same cache, at whatever point."""

import pickle
import random
from collections.abc import Callable
from contextlib import suppress

import pytest

from django_momento_http._store import barrier, copies
from django_momento_http._store.copies import MISSING, OVERHEAD
from tests.support.signalled import NEVER_AGAIN, Interrupted, signalled
from tests.support.sizes import sized
from tests.unit.test_copies import Rig

FILES = {barrier.__file__, copies.__file__}
# One point in so many is tried, another each time.
STEP = sized(3, 1)
# Room for three entries.
ROOM = 3 * (OVERHEAD + 60)


def small() -> Rig:
    """Return copies of which each new one needs room."""
    rig = Rig(ROOM)
    rig.copies._largest = ROOM
    for key in "xyz":
        rig.read(key, "old")()
    return rig


def use(rig: Rig) -> None:
    """Do all that is done with copies."""
    rig.copies.get("x")
    under_way = rig.read("a", "old")
    rig.write("a", "new")()
    under_way()
    rig.copies.get_many({"a": "a", "x": "x"})
    rig.read("b", "old")()
    rig.copies.get_stale("b")
    rig.copies.drop("a")
    rig.barrier.forget()
    rig.read("c", "old")()


def check(rig: Rig) -> None:
    """The accounts are right, and all goes on as ever."""
    assert rig.holds() == rig.copies.size <= ROOM
    assert rig.copies.get("a") != "old"
    rig.clocks.pass_(100)
    for key in "pqrst":
        rig.read(key, "one")()
        assert rig.copies.get(key) == "one"
        rig.write(key, "two")()
        assert rig.copies.get(key) == "two"
    assert rig.holds() == rig.copies.size <= ROOM


def test_whatever_interrupts_leaves_copies_whole() -> None:
    """At each point where a handler may raise: what is held is what is counted."""

    def handle() -> None:
        raise Interrupted

    for number in range(random.randrange(STEP), NEVER_AGAIN, STEP):
        rig = small()
        with suppress(Interrupted), signalled(handle, number, FILES) as met:
            use(rig)
        check(rig)
        if not met:
            break
    assert 50 < number < NEVER_AGAIN


def write(rig: Rig) -> None:
    """Write what is being read."""
    rig.write("a", "newer")()


def clear(rig: Rig) -> None:
    """End all copies, as a clear() does."""
    rig.clocks.epoch += 1
    rig.barrier.forget()


def read_others(rig: Rig) -> None:
    """Need room."""
    for key in "mno":
        rig.read(key, "one")()


def drop(rig: Rig) -> None:
    """Delete what is being read."""
    rig.barrier.end(["a"], rig.barrier.begin(["a"], 1.0))


@pytest.mark.parametrize("act", [write, clear, read_others, drop])
def test_a_handler_may_do_the_same_while_its_thread_does(act: Callable[[Rig], None]) -> None:
    """At each point where a handler may write or clear: what was read before is not served."""
    for number in range(random.randrange(STEP), NEVER_AGAIN, STEP):
        rig = small()
        since = rig.copies.moment()
        with signalled(lambda rig=rig: act(rig), number, FILES) as met:  # type: ignore[misc]
            rig.copies.keep("a", pickle.dumps("old"), pickle.loads, None, since, 0)
        if met and act is not read_others:
            assert rig.copies.get("a") in (MISSING, "newer")
        rig.copies.drop("a")
        check(rig)
        if not met:
            break
    assert 3 < number < NEVER_AGAIN


def test_of_a_write_and_its_handlers_none_leaves_the_older() -> None:
    """At each point of a write where a handler may write the same key."""
    for number in range(NEVER_AGAIN):
        rig = Rig()
        with signalled(lambda rig=rig: write(rig), number, FILES) as met:  # type: ignore[misc]
            end = rig.write("a", "older")
            end()
        if not met:
            break
        # Which the service took last is known where one had ended before the other began.
        assert rig.copies.get("a") in (MISSING, "newer", "older")
        began = rig.barrier.slots[hash("a") % barrier.SLOTS]
        assert began.until > rig.clocks.now
    assert 10 < number < NEVER_AGAIN
