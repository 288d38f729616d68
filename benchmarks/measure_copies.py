"""Measure what copies in the process save: ``python benchmarks/measure_copies.py``.

Speed is measured side by side, by turns, in one run; requests and answers are counted while four
processes' worth of stores are driven by a clock that the program moves, so that a minute takes
seconds and the figures are exact. ``--check`` fails on a missed goal. Writes ``copies.md``.
"""

import argparse
import bisect
import itertools
import logging
import os
import random
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import django
import machine
from children import Children
from django.conf import settings
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.memcached import PyMemcacheCache

VALUE = {"title": "a row of a page", "text": "v" * 200, "numbers": [1, 2, 3]}
ROUNDS = 15
TIMES = "\N{MULTIPLICATION SIGN}"
# The load: pages in all processes together, and keys that are asked for as Zipf's law says.
PROCESSES, PAGES_A_SECOND, GETS, KEYS, EXPONENT = 4, 20, 20, 10_000, 1.0
AGE, STALE = 5.0, 60.0
WARM_UP, COUNTED, OUTAGE = 30, 60, 60  # seconds of the moved clock
SESSION = "django.contrib.sessions.cached_db" + "a" * 32
TOOK_PART = ("processor", "system", "Python", "Django", "requests", "httptools", "pymemcache")


@dataclass(frozen=True)
class Figure:
    """One row of the table."""

    what: str
    value: float
    unit: str
    goal: float | None = None
    at_least: bool = False

    @property
    def is_met(self) -> bool:
        """Whether it meets its goal, if any."""
        if self.goal is None:
            return True
        return self.value >= self.goal if self.at_least else self.value <= self.goal

    def cells(self) -> str:
        """Return it as a row of Markdown."""
        sign = "≥" if self.at_least else "≤"
        goal = "" if self.goal is None else f"{sign} {self.goal:g} {self.unit}"
        verdict = "" if self.goal is None else ("met" if self.is_met else "**missed**")
        return f"| {self.what} | {self.value:.2f} {self.unit} | {goal} | {verdict} |"


# Speed


def seconds(call: Callable[[], object], times: int, clock: Callable[[], float]) -> float:
    """Return what one call takes."""
    began = clock()
    for _ in range(times):
        call()
    return (clock() - began) / times


def ratio(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    times: int,
    clock: Callable[[], float] = time.process_time,
) -> float:
    """Return the median ratio of both, measured by turns."""
    found = []
    for _ in range(ROUNDS):
        mine = seconds(ours, times, clock)
        found.append(mine / seconds(theirs, times, clock))
    return statistics.median(found)


def page(cache: Any) -> None:
    """Read what a page reads: a session, which is saved again, twenty rows and five values."""
    cache.get(SESSION)
    cache.get_many(ROWS)
    for name in PARTS:
        cache.get_or_set(name, VALUE, 300)
    cache.set(SESSION, VALUE, 300)


ROWS = [f"row-{number}" for number in range(20)]
PARTS = [f"part-{number}" for number in range(5)]


def speeds(children: Children) -> list[Figure]:
    """Compare a hit with Django's cache in memory, and a page with memcached's."""
    from subject import cache

    origin = f"http://127.0.0.1:{children.standin().port}"
    near, local = cache(origin, NEAR_MAX_AGE=3600), LocMemCache("copies", {})
    names = [f"name-{number}" for number in range(100)]
    values = dict.fromkeys([*names, *ROWS, SESSION, "name"], VALUE)
    for backend in (near, local):
        backend.set_many(values)
    time.sleep(3.2)  # until reads leave copies again
    near.get_many(list(values))

    def both(call: Callable[[Any], object]) -> tuple[Callable[[], object], Callable[[], object]]:
        return lambda: call(near), lambda: call(local)

    found = [
        Figure(
            "`get` from a copy, CPU, beside LocMemCache",
            ratio(*both(lambda cache: cache.get("name")), 2000),
            TIMES,
            0.6,
        ),
        Figure(
            "`get_many(100)` from copies, CPU, beside LocMemCache",
            ratio(*both(lambda cache: cache.get_many(names)), 50),
            TIMES,
            0.5,
        ),
    ]
    server = children.memcached()
    if server is not None:
        memcached = PyMemcacheCache(f"127.0.0.1:{server.port}", {})
        memcached.set_many(values)
        pages = (lambda: page(near), lambda: page(memcached))
        for name, clock in (("wall", time.perf_counter), ("CPU", time.process_time)):
            page(near), page(memcached)
            goal = 0.6 if name == "wall" else None
            text = f"a page with copies, {name}, beside PyMemcacheCache"
            found.append(Figure(text, ratio(*pages, 60, clock), TIMES, goal))
        memcached.close()
    return found


# Requests


class Processes:
    """Stores that share nothing but a server, on a clock that the program moves."""

    def __init__(self, server: Any, count: int, **options: Any) -> None:
        self.now = 1000.0
        self.born = time.time()
        self.server = server
        self.caches = [self._process(number, options) for number in range(count)]

    def _process(self, number: int, options: dict[str, Any]) -> Any:
        from django_momento_http._store.namespace import Namespace
        from django_momento_http._store.owed import Ledger
        from django_momento_http._store.store import Store
        from django_momento_http.cache import MomentoCache

        entry = self.server.cache_settings(
            MAX_CONNECTIONS=8 + number, REQUEST_TIMEOUT=5, HEDGE=False, **options
        )
        cache = MomentoCache(entry.pop("LOCATION"), entry)
        clocks = lambda: self.now, lambda: self.born + self.now
        namespace = Namespace(cache._config.namespace, Ledger(), *clocks)
        store = cache._shared = Store(cache._config, namespace, *clocks)
        client = store._client
        client._endpoint.breaker._clock = client._breakers.account._clock = clocks[0]
        return cache

    def pages(self, seconds_: float, draw: Callable[[], list[str]]) -> tuple[int, int]:
        """Let pages be asked for; return how many values were wanted, and how many found."""
        wanted = found = 0
        for number in range(int(seconds_ * PAGES_A_SECOND)):
            cache, names = self.caches[number % len(self.caches)], draw()
            values = [cache.get(name) for name in names]
            wanted += len(names)
            found += sum(value is not None for value in values)
            self.now += 1 / PAGES_A_SECOND
        return wanted, found


def zipf(chance: random.Random) -> Callable[[], list[str]]:
    """Return what draws the keys of a page."""
    weights = itertools.accumulate(1 / rank**EXPONENT for rank in range(1, KEYS + 1))
    steps: Sequence[float] = list(weights)
    return lambda: [f"key-{bisect.bisect(steps, chance.random() * steps[-1])}" for _ in range(GETS)]


def savings(seed: int) -> list[Figure]:
    """Count the requests that copies save, and the reads that they answer in an outage."""
    from django_momento_http.testing import Fault, running_server

    found = []
    for age in (1.0, AGE, 30.0):
        with running_server() as server:
            load = Processes(server, PROCESSES, NEAR_MAX_AGE=age, NEAR_MAX_STALE=STALE)
            load.caches[0].set_many({f"key-{rank}": VALUE for rank in range(KEYS)}, 86400)
            load.now += 100
            draw = zipf(random.Random(seed))
            load.pages(WARM_UP, draw)
            server.forget_requests()
            wanted, _ = load.pages(COUNTED, draw)
            asked = sum(request.method == "GET" for request in server.requests)
            saved = 100 * (1 - asked / wanted)
            goal = 40 if age == AGE else None
            text = f"requests saved, NEAR_MAX_AGE {age:g}"
            found.append(Figure(text, saved, "%", goal, at_least=True))
            server.inject(Fault(status=503, times=None))
            wanted, answered = load.pages(OUTAGE, draw)
            text = f"reads still answered in an outage of a minute, NEAR_MAX_AGE {age:g}"
            found.append(Figure(text, 100 * answered / wanted, "%"))
    return found


def memory() -> list[Figure]:
    """Fill copies beyond their limit, and compare what they hold with it."""
    from django_momento_http.testing import running_server

    found = []
    limit = 32 * 1024 * 1024
    for size in (100, 2000, 50_000):
        with running_server() as server:
            load = Processes(server, 1, NEAR_MAX_AGE=3600, NEAR_MAX_BYTES=limit)
            [cache] = load.caches
            copies = cache._shared.near.copies
            since, loads = copies.moment(), bytes
            tracemalloc.start()
            for number in range(int(1.3 * limit / (size + 450))):
                key = f"OjE6a2V5{number:08}"
                copies.keep(key, os.urandom(size), loads, 2e9, since, copies.epoch)
            held = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
            text = f"memory held of NEAR_MAX_BYTES, values of {size} bytes"
            found.append(Figure(text, 100 * held / limit, "%", 100))
            assert copies.size <= limit
    return found


def write(figures: Sequence[Figure]) -> None:
    """Write the table, and what it was measured on."""
    on = machine.description()
    lines = [
        "| what | measured | goal | |",
        "|---|---|---|---|",
        *(figure.cells() for figure in figures),
        "",
        f"{PROCESSES} processes, {PAGES_A_SECOND} pages a second in all, {GETS} `get`s each, Zipf"
        f" {EXPONENT:g} over {KEYS:,} keys. " + ", ".join(
            f"{name} {on[name]}" for name in TOOK_PART if name in on
        ) + ". Made by `python benchmarks/measure_copies.py`.",
        "",
    ]  # fmt: skip
    (Path(__file__).parent / "copies.md").write_text("\n".join(lines))


def main() -> int:
    """Measure, print and write; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--check", action="store_true", help="fail on a missed goal")
    arguments = parser.parse_args()
    settings.configure(SECRET_KEY="benchmarks")
    django.setup()
    logging.getLogger("django_momento_http").setLevel(logging.CRITICAL)
    children = Children()
    try:
        figures = speeds(children)
    finally:
        children.close()
    figures += [*savings(arguments.seed), *memory()]
    for figure in figures:
        print(figure.cells())
    write(figures)
    return int(arguments.check and not all(figure.is_met for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
