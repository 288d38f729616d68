"""Copies in the process, as plain objects: how long they answer, what ends them, what they take."""

import gc
import pickle
import random
import sys
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from django_momento_http._client.counters import NearCounters, Tally
from django_momento_http._store.barrier import LAG, SLOTS, Barrier
from django_momento_http._store.copies import MISSING, OVERHEAD, Copies, Limits
from django_momento_http._store.generation import Generation

AGE, STALE = 5.0, 60.0
LONGEST_WAIT = 1.0  # of a write
EPOCH = 1.9e9


class Clocks:
    """Both clocks: ``pass_`` moves them, each can be set; ``epoch`` is the generation's."""

    def __init__(self) -> None:
        self.now = 100.0
        self.wall = EPOCH
        self.epoch = 0

    def pass_(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds


class Rig:
    """The copies of one or more aliases of a namespace."""

    def __init__(self, max_bytes: int = 1_000_000) -> None:
        self.clocks = Clocks()
        self.barrier = Barrier(lambda: self.clocks.now)
        self.max_bytes = max_bytes
        self.counters = NearCounters()
        self.copies = self.alias()

    def alias(self) -> Copies:
        clocks = self.clocks
        limits = Limits(AGE, STALE, self.max_bytes)
        times = lambda: clocks.now, lambda: clocks.wall
        return Copies(self.barrier, clocks, limits, self.counters, *times)

    def read(self, key: str, value: Any, lives: float | None = 1000.0) -> Callable[[], None]:
        """Begin to read a value; what is returned ends it."""
        since, epoch = self.copies.moment(), self.clocks.epoch
        payload = pickle.dumps(value)
        expires_at = None if lives is None else self.clocks.wall + lives
        return lambda: self.copies.keep(key, payload, pickle.loads, expires_at, since, epoch)

    def write(self, key: str, value: Any, longest_wait: float = LONGEST_WAIT) -> Callable[[], None]:
        """Begin to write a value; what is returned ends it."""
        since, epoch = self.copies.moment(), self.clocks.epoch
        write = self.barrier.begin([key], longest_wait)
        payload = pickle.dumps(value)

        def end() -> None:
            self.copies.keep(key, payload, pickle.loads, None, since, epoch, write)
            self.barrier.end([key], write)

        return end

    def holds(self) -> int:
        """Return the size that the entries have in all."""
        return sum(copy.size for copy in self.copies._entries.values())


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_copy_answers_until_its_age_is_reached(rig: Rig) -> None:
    """The age counts from when the read began."""
    end = rig.read("a", "old")
    rig.clocks.pass_(1)
    end()
    rig.clocks.pass_(AGE - 1.001)
    assert rig.copies.get("a") == "old"
    rig.clocks.pass_(0.002)
    assert rig.copies.get("a") is MISSING
    assert rig.copies.get_many({"a": "a"}) == ({}, {"a": "a"})
    assert rig.copies.find("a") is None


def test_a_clock_that_was_set_back_a_little_makes_no_copy_older(rig: Rig) -> None:
    """At its age it is over by the monotonic clock, whatever the other one says."""
    rig.read("a", 1)()
    rig.clocks.pass_(AGE)
    rig.clocks.wall -= 0.05
    assert rig.copies.get("a") is MISSING
    assert rig.copies.get_many({"a": "a"})[0] == {}
    assert rig.copies.find("a") is None


def test_a_copy_ends_with_its_own_expiry(rig: Rig) -> None:
    """A value that expires before the age is reached is served no longer."""
    rig.read("a", 1, lives=2.0)()
    rig.clocks.pass_(1.99)
    assert rig.copies.get("a") == 1
    rig.clocks.pass_(0.02)
    assert rig.copies.get("a") is MISSING
    assert rig.copies.get_stale("a") is MISSING


@pytest.mark.parametrize("seconds", [AGE, 3600.0, -0.2, -3600.0])
def test_a_wall_clock_that_is_set_ends_copies(rig: Rig, seconds: float) -> None:
    """It went on while the monotonic one stood still, or it went back."""
    rig.read("a", 1)()
    rig.clocks.pass_(0.5)
    rig.clocks.wall += seconds
    assert rig.copies.get("a") is MISSING
    assert rig.copies.get_many({"a": "a"})[0] == {}
    assert rig.copies.find("a") is None


def test_a_suspended_machine_counts_as_time(rig: Rig) -> None:
    """The age is that of the clock that has gone further."""
    rig.read("a", 1)()
    rig.clocks.wall += AGE - 2
    assert rig.copies.get("a") == 1
    rig.clocks.pass_(1.99)
    assert rig.copies.get("a") == 1
    rig.clocks.pass_(0.02)
    assert rig.copies.get("a") is MISSING


def test_a_newer_generation_ends_all_copies(rig: Rig) -> None:
    """What clear() ends is not served, and what was read before it is not kept."""
    rig.read("a", 1)()
    end = rig.read("b", 2)
    rig.clocks.epoch += 1
    end()
    for key in "ab":
        assert rig.copies.get(key) is MISSING
        assert rig.copies.get_stale(key) is MISSING
    assert rig.copies.get_many({"a": 1, "b": 2})[0] == {}
    rig.barrier.forget()
    assert (len(rig.copies), rig.copies.size) == (0, 0)


def test_each_end_of_a_generation_has_a_number() -> None:
    """A newer one, and one that is heard of again after its marker had lapsed; no other read."""
    ended: list[int] = []
    generation = Generation(moved=lambda: ended.append(generation.epoch))
    generation.learn(5, 0.0)
    generation.learn(5, 1.0)
    generation.learn(3, 2.0)
    assert ended == [1]
    generation.learn(None, 3.0)
    generation.learn(None, 64.0)
    assert generation.accepts(0)
    assert ended == [1]
    generation.learn(5, 65.0)
    assert not generation.accepts(0)
    assert ended == [1, 2]


def test_every_hit_is_loaded_anew(rig: Rig) -> None:
    """What a caller does to a value harms nobody."""
    rig.read("a", ["one"])()
    rig.copies.get("a").append("two")
    rig.copies.get_many({"a": "a"})[0]["a"].append("three")
    assert rig.copies.get("a") == ["one"]


def test_a_value_that_cannot_be_loaded_is_asked_for(rig: Rig) -> None:
    """The copy does not answer, and nothing is raised."""
    rig.copies.keep("a", b"no pickle", pickle.loads, None, rig.copies.moment(), 0)
    assert rig.copies.get("a") is MISSING
    assert rig.copies.get_many({"a": "a"}) == ({}, {"a": "a"})
    assert rig.copies.get_stale("a") is MISSING
    assert rig.counters.hits.total == 0


def test_a_large_copy_is_left_to_others(rig: Rig) -> None:
    """Who may not take long asks for so many bytes at most, for all keys together."""
    rig.read("a", "x" * 500)()
    rig.read("b", "x" * 500)()
    assert rig.copies.get("a", 500) is MISSING
    assert rig.copies.get("a", 600) == "x" * 500
    found, left = rig.copies.get_many({"a": "a", "b": "b"}, 600)
    assert (list(found), left) == (["a"], {"b": "b"})


# While the service cannot be asked


def test_a_copy_bridges_an_outage_for_so_long(rig: Rig) -> None:
    """Beyond its age, as long as it is said, and not beyond."""
    rig.read("a", 1)()
    rig.clocks.pass_(AGE + STALE - 0.01)
    assert rig.copies.get("a") is MISSING
    assert rig.copies.get_stale("a") == 1
    rig.clocks.pass_(0.02)
    assert rig.copies.get_stale("a") is MISSING
    assert (rig.counters.hits.total, rig.counters.stale.total) == (0, 1)


def test_a_copy_never_outlives_its_own_expiry(rig: Rig) -> None:
    """However long the outage."""
    rig.read("a", 1, lives=AGE + 10)()
    rig.clocks.pass_(AGE + 9.9)
    assert rig.copies.get_stale("a") == 1
    rig.clocks.pass_(0.2)
    assert rig.copies.get_stale("a") is MISSING


@pytest.mark.parametrize("seconds", [AGE + STALE, -0.2, -3600.0])
def test_a_clock_that_is_set_ends_the_bridge(rig: Rig, seconds: float) -> None:
    """The same guard holds for it."""
    rig.read("a", 1)()
    rig.clocks.wall += seconds
    assert rig.copies.get_stale("a") is MISSING


# Reads and writes


def test_a_read_under_way_never_undoes_a_write(rig: Rig) -> None:
    """Whenever a read began before a write ended, it is not kept."""
    before = rig.read("a", "old")
    end = rig.write("a", "new")
    during = rig.read("a", "old")
    end()
    before()
    assert rig.copies.get("a") == "new"
    during()
    assert rig.copies.get("a") == "new"
    rig.copies.drop("a")
    during()
    assert rig.copies.get("a") is MISSING


def test_a_write_bars_reads_until_the_service_must_have_caught_up(rig: Rig) -> None:
    """Two seconds beyond its deadline: a replica may lag."""
    rig.write("a", "new")
    rig.clocks.pass_(LONGEST_WAIT + LAG)
    rig.read("a", "lagging")()
    assert rig.copies.get("a") is MISSING
    rig.clocks.pass_(0.01)
    rig.read("a", "new")()
    assert rig.copies.get("a") == "new"


def test_a_write_ends_the_copy_before_it_is_sent(rig: Rig) -> None:
    """Whatever becomes of it, the old value is not served from here on."""
    rig.read("a", "old")()
    rig.write("a", "new")
    assert rig.copies.get("a") is MISSING
    assert rig.copies.get_stale("a") is MISSING


def test_a_write_through_any_alias_ends_every_aliass_copy(rig: Rig) -> None:
    """Copies are per alias, what ends them is not."""
    other = rig.alias()
    other.keep("a", pickle.dumps("old"), pickle.loads, None, other.moment(), 0)
    end = rig.write("a", "new")
    late = other.moment()
    end()
    other.keep("a", pickle.dumps("old"), pickle.loads, None, late, 0)
    assert other.get("a") is MISSING
    assert rig.copies.get("a") == "new"


@pytest.mark.parametrize("is_first_last", [False, True])
def test_of_overlapping_writes_none_leaves_a_copy(rig: Rig, is_first_last: bool) -> None:
    """Nobody here knows which of them the service took last."""
    first = rig.write("a", "first")
    second = rig.write("a", "second", 10 * LONGEST_WAIT)
    for end in (second, first) if is_first_last else (first, second):
        end()
    assert rig.copies.get("a") is MISSING


@pytest.mark.parametrize("longest_wait", [0.1, 1.0, 10.0])
def test_a_write_soon_after_another_leaves_no_copy(rig: Rig, longest_wait: float) -> None:
    """The first may still be on its way: it was given up, or its answer was lost."""
    rig.write("a", "first", 10.0)
    rig.clocks.pass_(10 + LAG - 0.01)
    rig.write("a", "second", longest_wait)()
    assert rig.copies.get("a") is MISSING
    rig.clocks.pass_(10 + LAG + 0.01)
    rig.write("a", "third")()
    assert rig.copies.get("a") == "third"


def test_a_short_write_never_shortens_the_bar_of_a_long_one(rig: Rig) -> None:
    """Aliases differ in REQUEST_TIMEOUT."""
    rig.write("a", "slow", 10.0)
    rig.write("a", "fast", 0.1)()
    rig.clocks.pass_(9.0)
    rig.read("a", "before the slow one")()
    assert rig.copies.get("a") is MISSING


def test_a_write_that_took_longer_ends_what_was_read_meanwhile(rig: Rig) -> None:
    """A deadline counts what is waited for, and a process may be frozen."""
    end = rig.write("a", "new")
    rig.clocks.pass_(LONGEST_WAIT + LAG + 1)
    rig.read("a", "old")()
    under_way = rig.read("a", "old")
    assert rig.copies.get("a") == "old"
    end()
    assert rig.copies.get("a") is MISSING
    under_way()
    rig.read("a", "old")()
    assert rig.copies.get("a") is MISSING


def test_a_write_that_began_without_copies_ends_those_that_came_since() -> None:
    """An alias with copies may be built while another writes."""
    clocks = Clocks()
    barrier = Barrier(lambda: clocks.now)
    assert not barrier.keepers
    rig = Rig()
    rig.read("a", "old")()
    rig.barrier.end(["a"], None)
    assert rig.copies.get("a") is MISSING


def test_keys_of_one_write_do_not_hinder_each_other(rig: Rig) -> None:
    """Of ten thousand keys most share a slot with another of them."""
    keys = [f"key-{number}" for number in range(3 * SLOTS)]
    since = rig.copies.moment()
    write = rig.barrier.begin(keys, LONGEST_WAIT)
    assert write.own == set(keys)
    rig.copies.keep(keys[0], pickle.dumps(1), pickle.loads, None, since, 0, write)
    assert rig.copies.get(keys[0]) == 1


@pytest.mark.parametrize("is_answered", [True, False])
def test_a_long_deadline_bars_only_what_it_needs(rig: Rig, is_answered: bool) -> None:
    """Ten thousand keys may take minutes; once all are answered, two seconds are enough."""
    keys = [f"key-{number}" for number in range(100)]
    write = rig.barrier.begin(keys, 150.0)
    rig.clocks.pass_(1)
    write.is_answered = is_answered
    rig.barrier.end(keys, write)
    rig.clocks.pass_(LAG - 0.01)
    rig.read("key-7", "lagging")()
    assert rig.copies.get("key-7") is MISSING
    rig.clocks.pass_(0.02)
    rig.read("key-7", "new")()
    assert rig.copies.get("key-7") == ("new" if is_answered else MISSING)


def test_an_answered_write_never_shortens_the_bar_of_another(rig: Rig) -> None:
    """The other one is still under way."""
    rig.write("a", "slow", 100.0)
    write = rig.barrier.begin(["a", "b"], 50.0)
    write.is_answered = True
    rig.barrier.end(["a", "b"], write)
    rig.clocks.pass_(99)
    rig.read("a", "before the slow one")()
    assert rig.copies.get("a") is MISSING


def test_a_slow_read_does_not_replace_a_later_one(rig: Rig) -> None:
    """A process does not go back from what it has read."""
    slow = rig.read("a", "old")
    rig.clocks.pass_(1)
    rig.read("a", "new")()
    slow()
    assert rig.copies.get("a") == "new"


def test_what_was_found_ends_copies_of_before(rig: Rig) -> None:
    """And none of a later read: a slow one knows nothing of that."""
    before = rig.copies.moment()
    rig.clocks.pass_(1)
    rig.read("key", "old")()
    rig.copies.drop("key", before)
    assert rig.copies.get("key") == "old"
    rig.clocks.pass_(1)
    rig.copies.drop("key", rig.copies.moment())
    assert rig.copies.get("key") is MISSING
    assert rig.copies.size == 0


def test_who_keeps_no_copies_any_more_is_forgotten(rig: Rig) -> None:
    """The barrier keeps nobody alive."""
    del rig.copies
    gc.collect()
    rig.barrier.begin(["a"], 1.0)
    rig.barrier.forget()
    rig.copies = rig.alias()
    assert len(rig.barrier.keepers) == 1


# Memory


def filled(rig: Rig, count: int, size: int = 1000) -> list[str]:
    """Keep so many values of this size, and return their keys."""
    keys = [f"{number:08}" for number in range(count)]
    for key in keys:
        payload = bytes(bytearray(size))
        rig.copies.keep(key, payload, bytes, None, rig.copies.moment(), 0)
    return keys


def test_copies_are_bounded_by_bytes() -> None:
    """Whatever is kept, what the entries take in all stays under the limit."""
    rig = Rig(50_000)
    chance = random.Random(1)
    for number in range(2000):
        key = str(chance.randrange(200))
        size = chance.randrange(20_000 if number % 10 == 0 else 500)
        rig.copies.keep(key, bytes(size), bytes, None, rig.copies.moment(), 0)
        if number % 7 == 0:
            rig.copies.drop(str(chance.randrange(200)))
        assert rig.holds() == rig.copies.size <= 50_000
    assert rig.counters.evictions.total > 0


def test_an_entry_takes_at_most_an_eighth() -> None:
    """A larger value is not kept, and ends what was kept of its key."""
    rig = Rig(80_000)
    since = rig.copies.moment()
    rig.copies.keep("a", b"x", bytes, None, since, 0)
    rig.copies.keep("a", bytes(10_000 - OVERHEAD), bytes, None, since, 0)
    assert rig.copies.get("a") is MISSING
    rig.copies.keep("a", bytes(10_000 - OVERHEAD - 1), bytes, None, since, 0)
    assert rig.copies.find("a") is not None


def test_what_is_used_gets_a_second_chance() -> None:
    """When room is needed, the first goes that nobody has asked for since."""
    rig = Rig(10 * (1000 + 8 + OVERHEAD))
    used, unused = filled(rig, 10)[0], "00000001"
    rig.copies.get(used)
    rig.copies.keep("new", bytes(1000), bytes, None, rig.copies.moment(), 0)
    assert rig.copies.find(used) is not None
    assert rig.copies.find(unused) is None
    assert rig.counters.evictions.total == 1


def test_something_goes_also_where_all_is_used() -> None:
    """Nobody waits until a hundred thousand were looked at."""
    rig = Rig(500 * (1000 + 8 + OVERHEAD))
    keys = filled(rig, 500)
    rig.copies.get_many({key: key for key in keys})
    rig.copies.keep("new", bytes(1000), bytes, None, rig.copies.moment(), 0)
    assert rig.copies.find("new") is not None
    assert len(rig.copies) == 500


@pytest.mark.parametrize("size", [0, 100, 3000])
def test_the_limit_holds_for_memory_as_it_is_measured(size: int) -> None:
    """Bookkeeping is counted in."""
    rig = Rig(3_000_000)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        filled(rig, 3_000_000 // (size + OVERHEAD) + 500, size)
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert rig.counters.evictions.total > 0
    assert held <= 3_000_000


def test_a_tally_loses_none() -> None:
    """Not from any thread, and not by being read."""
    tally = Tally()

    def add() -> None:
        for _ in range(2000):
            tally.add()

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert tally.total <= 8000
    for thread in threads:
        thread.join()
    assert tally.total == tally.total == 8000


def test_threads_meet_no_value_of_another_key_or_of_before() -> None:
    """Readers need no lock while others read, write and clear."""
    rig = Rig(40_000)
    keys = [f"{number:08}" for number in range(60)]
    written = dict.fromkeys(keys, 0)  # of each the last that was written
    wrong: list[str] = []
    over = threading.Event()

    def serve(seed: int) -> None:
        chance = random.Random(seed)
        while not over.is_set():
            key = chance.choice(keys)
            least = written[key]
            found = rig.copies.get(key)
            if found is MISSING:
                rig.read(key, (key, least))()
            elif found[0] != key or found[1] < least:
                wrong.append(f"{found} for {key} at {least}")

    threads = [threading.Thread(target=serve, args=(seed,)) for seed in range(3)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        chance = random.Random(9)
        for _ in range(3000):
            key = chance.choice(keys)
            end = rig.write(key, (key, written[key] + 1))
            written[key] += 1
            end()
            rig.clocks.pass_(0.01)
            rig.clocks.epoch += chance.random() < 0.01
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
        sys.setswitchinterval(interval)
    assert not wrong
    assert rig.holds() == rig.copies.size <= 40_000
