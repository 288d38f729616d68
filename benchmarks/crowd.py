"""How often one value is made while many ask for it: ``python benchmarks/crowd.py``.

Processes of several threads call ``get_or_set`` for one key against the local server, and each
makes the value when it must. Everything is ten times as fast as the goal says, unless ``--scale 1``
is given; the ratios are the same. It writes ``crowd.md``, and ``--check`` fails on a missed goal.
"""

import argparse
import multiprocessing
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.queues import SimpleQueue  # noqa: TC003 - short, and no cost here
from pathlib import Path
from typing import Any

import machine
from django.conf import settings

from django_momento_http.cache import MomentoCache
from django_momento_http.testing import running_server

# In seconds, before they are scaled.
_LIFETIME, _TO_MAKE = 60.0, 0.5
_READS_A_SECOND = 200.0
_PROCESSES, _THREADS = 8, 8
_TO_START = 8.0  # seconds for all processes to import what they need
_TO_STORE = 0.5
_INTRODUCTION = """# A value that many ask for

Written by `python benchmarks/crowd.py`; do not edit. How often a value of {lifetime:g} s that takes
{to_make:g} s to make was made in each lifetime, by {processes} processes of {threads} threads that
ask for it {reads:.0f} times a second in all. Measured for {lifetimes} lifetimes, {scale}.
"""


@dataclass(frozen=True)
class Mode:
    """A way to call get_or_set, and how often the value may be made in a lifetime."""

    name: str
    options: dict[str, object]
    goal: float | None = None


_MODES = (
    Mode("each makes its own (`SINGLE_FLIGHT_WAIT` 0)", {"SINGLE_FLIGHT_WAIT": 0}),
    Mode("default", {}, 8.0),
    Mode("`EARLY_REFRESH` 1", {"EARLY_REFRESH": 1}, 3.0),
)


@dataclass(frozen=True)
class Load:
    """What is asked, in seconds as they are."""

    scale: float
    lifetimes: int

    @property
    def lifetime(self) -> float:
        """How long the value lives."""
        return _LIFETIME / self.scale

    @property
    def to_make(self) -> float:
        """How long it takes to make."""
        return _TO_MAKE / self.scale

    @property
    def seconds(self) -> float:
        """How long to ask, so that it expires so often."""
        return self.lifetime * (self.lifetimes + 0.5)

    @property
    def pause(self) -> float:
        """How long a thread waits between two calls, on average."""
        return _PROCESSES * _THREADS / (_READS_A_SECOND * self.scale)


@dataclass
class Counts:
    """What one process did, or all of them."""

    calls: int = 0
    made: int = 0
    requests: int = 0
    waited: int = 0
    refreshes: int = 0
    longest: float = 0.0  # seconds of a call

    def add(self, other: "Counts") -> None:
        """Take in what another did."""
        for name in ("calls", "made", "requests", "waited", "refreshes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.longest = max(self.longest, other.longest)


# One process


def _make(load: Load) -> str:
    time.sleep(load.to_make)
    return "a value"


def _ask(
    cache: MomentoCache, load: Load, end: float, chance: random.Random, counts: Counts
) -> None:
    """Call get_or_set until the end, at random moments."""

    def make() -> str:
        counts.made += 1
        return _make(load)

    time.sleep(max(end - load.seconds - time.monotonic(), 0.0) + chance.uniform(0, load.pause))
    while (now := time.monotonic()) < end:
        cache.get_or_set("crowd", make, load.lifetime)
        counts.calls += 1
        counts.longest = max(counts.longest, time.monotonic() - now)
        time.sleep(chance.expovariate(1 / load.pause))


def _process(
    entry: dict[str, Any], load: Load, end: float, seed: int, found: "SimpleQueue[Counts]"
) -> None:
    """Ask until the end in several threads, and put what was done into the queue."""
    settings.configure(SECRET_KEY="crowd")
    location = entry.pop("LOCATION")
    caches = [MomentoCache(location, entry) for _ in range(_THREADS)]
    each = [Counts() for _ in caches]
    threads = [
        threading.Thread(target=_ask, args=(cache, load, end, random.Random(seed + number), counts))
        for number, (cache, counts) in enumerate(zip(caches, each, strict=True))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats: dict[str, Any] = caches[0].stats()
    total = Counts(requests=stats["requests"], waited=stats["waited"], refreshes=stats["refreshes"])
    for counts in each:
        total.add(counts)
    found.put(total)


# All of them


def _measure(mode: Mode, load: Load) -> Counts:
    context = multiprocessing.get_context("spawn")
    found: SimpleQueue[Counts] = context.SimpleQueue()
    with running_server() as server:
        entry = server.cache_settings(REQUEST_TIMEOUT=5.0, **mode.options)
        # The monotonic clock is the machine's.
        end = time.monotonic() + _TO_START + load.seconds
        children = [
            context.Process(target=_process, args=(entry, load, end, number * 100, found))
            for number in range(_PROCESSES)
        ]
        for child in children:
            child.start()
        # It is there when they begin to ask.
        time.sleep(max(end - load.seconds - load.to_make - _TO_STORE - time.monotonic(), 0.0))
        location = entry.pop("LOCATION")
        MomentoCache(location, entry).get_or_set("crowd", partial(_make, load), load.lifetime)
        total = Counts()
        for _ in children:
            total.add(found.get())
        for child in children:
            child.join()
    return total


def _rows(load: Load, say: Callable[[str], None]) -> Iterator[tuple[str, float, float | None]]:
    plain = None
    for mode in _MODES:
        counts = _measure(mode, load)
        made = counts.made / load.lifetimes
        plain = plain or made
        goal = "" if mode.goal is None else f"≤ {mode.goal:g}"
        row = (
            f"| {mode.name} | {made:.1f} | {goal} | {plain / made:.1f} |"
            f" {counts.requests / counts.calls:.3f} | {counts.waited / load.lifetimes:.1f} |"
            f" {counts.longest / load.to_make:.1f} times the making |"
        )
        say(f"{row}  {counts.calls} calls, {counts.refreshes} refreshes")
        yield row, made, mode.goal


_HEAD = """
| | made in a lifetime | goal | times fewer | requests a call | callers that waited | longest call |
| --- | --: | --: | --: | --: | --: | --: |
"""


def main() -> int:
    """Measure, write the table, and say whether the goals are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=10.0, help="1: the seconds of the goal")
    parser.add_argument("--lifetimes", type=int, default=5)
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a missed goal")
    given = parser.parse_args()
    settings.configure(SECRET_KEY="crowd")
    load = Load(given.scale, given.lifetimes)
    neighbours = machine.Neighbours(machine.childrens_seconds())
    rows = list(_rows(load, lambda row: print(row, file=sys.stderr, flush=True)))
    missed = [row for row, made, goal in rows if goal is not None and made > goal]
    if given.check:
        return len(missed)
    as_is = given.scale == 1
    text = _INTRODUCTION.format(
        lifetime=load.lifetime,
        to_make=load.to_make,
        processes=_PROCESSES,
        threads=_THREADS,
        reads=_READS_A_SECOND * load.scale,
        lifetimes=load.lifetimes,
        scale="as the goal says" if as_is else f"{load.scale:g} times as fast as the goal says",
    )
    table = _HEAD + "\n".join(row for row, _, _ in rows)
    others = neighbours.cores_used(machine.childrens_seconds()) or 0.0
    ran_on = f"- used by other programs meanwhile: {others:.2f} cores on average\n\n"
    ran_on += "".join(f"- {name}: {what}\n" for name, what in machine.description().items())
    path = Path(__file__).with_suffix(".md")
    path.write_text(f"{text}{table}\n\n{ran_on}", encoding="utf-8")
    return len(missed)


if __name__ == "__main__":
    sys.exit(main())
