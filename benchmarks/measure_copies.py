"""Count what copies in the process save: ``python benchmarks/measure_copies.py``.

Requests and answers are counted while four processes' worth of stores are driven by a clock that
the program moves, so that a minute takes seconds, and a busy machine changes no figure. ``run.py``
measures how fast copies are. ``--check`` fails on a missed goal. Writes ``copies.md``.
"""

import argparse
import bisect
import itertools
import logging
import os
import random
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import django
import machine
from django.conf import settings

VALUE = {"title": "a row of a page", "text": "v" * 200, "numbers": [1, 2, 3]}
# The load: pages in all processes together, and keys that are asked for as Zipf's law says.
PROCESSES, PAGES_A_SECOND, GETS, KEYS, EXPONENT = 4, 20, 20, 10_000, 1.0
AGE, STALE = 5.0, 60.0
WARM_UP, COUNTED, OUTAGE = 30, 60, 60  # seconds of the moved clock
TOOK_PART = ("Python", "Django")


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
    """Count, print and write; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--check", action="store_true", help="fail on a missed goal")
    arguments = parser.parse_args()
    settings.configure(SECRET_KEY="benchmarks")
    django.setup()
    logging.getLogger("django_momento_http").setLevel(logging.CRITICAL)
    figures = [*savings(arguments.seed), *memory()]
    for figure in figures:
        print(figure.cells())
    write(figures)
    return int(arguments.check and not all(figure.is_met for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
