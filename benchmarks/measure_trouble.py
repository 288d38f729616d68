"""Measure what a page sees of the real backend while a real server misbehaves.

It runs the simulation's pages on the wall's clock, beside the same goals: see
``simulate_breaker.py``, whose table it can be held against. Run it with
``python benchmarks/measure_trouble.py``; ``--check`` fails on a missed goal. A run of all rows
writes ``trouble.md``. It knows nothing of how the backend decides: what is counted comes from
``stats()``, and the server says whether that is true.
"""

import argparse
import asyncio
import logging
import math
import multiprocessing
import random
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from django.conf import settings
from machine import Neighbours, childrens_seconds, description
from simulate_breaker import (
    BLACK_HOLE,
    BROKEN,
    COLUMNS,
    DEADLINE,
    FAILED,
    GOALS,
    HEALTH,
    HEALTHY,
    LONG_RESTART,
    OCCASIONAL,
    PAGES,
    RARE,
    REFUSED,
    SLOW_BUT_RIGHT,
    TIMED_OUT,
    Result,
    Trouble,
    cells,
    missed,
)

from django_momento_http.cache import MomentoCache
from django_momento_http.exceptions import AccessDenied, CacheNotFound, RateLimited
from django_momento_http.server import Config, Fault, Faults, PartialRequest, Server, Service

TOKEN = "trouble-token"
TOOK_PART = ("processor", "system", "Python", "Django", "requests", "httptools")
WARM_UP = 3.0  # seconds of good service before the trouble
COOL_DOWN = 20.0  # seconds of it afterwards, in which it must be noticed
KEYS = tuple(f"part-{number}" for number in range(PAGES.page))

# The client has long given up when it comes.
NO_ANSWER = Fault(delay=2 * DEADLINE)
BREAK = Fault(drop="before")


@dataclass(frozen=True)
class Case:
    """A trouble, and what the server does to be it; without a fault, nobody listens."""

    trouble: Trouble
    fault: Fault | None


def cases(seconds: float) -> list[Case]:
    """Return all rows, with so many seconds of trouble each, once half as many and once ten."""
    denied = (HEALTHY, AccessDenied("refused token", status=401))
    limited = (HEALTHY, RateLimited("used up", retry_after=2.0))
    missing = (HEALTHY, CacheNotFound("no such cache", status=404))
    rows = [
        Case(HEALTH, NO_ANSWER),
        Case(RARE, NO_ANSWER),
        Case(OCCASIONAL, NO_ANSWER),
        Case(Trouble("10 % time out", 0.1, TIMED_OUT), NO_ANSWER),
        Case(Trouble("20 % time out", 0.2, TIMED_OUT), NO_ANSWER),
        Case(BLACK_HOLE, NO_ANSWER),
        Case(Trouble("100 % refused", 1.0, REFUSED), None),
        Case(Trouble("20 % connections break", 0.2, BROKEN), BREAK),
        Case(Trouble("100 % connections break", 1.0, BROKEN), BREAK),
        Case(Trouble("100 % status 503", 1.0, FAILED), Fault(status=503)),
        Case(Trouble("401, token refused", 1.0, denied), Fault(status=401)),
        Case(
            Trouble("429, Retry-After: 2", 1.0, limited),
            Fault(status=429, headers=(("Retry-After", "2"),)),
        ),
        Case(
            Trouble("404, no such cache", 1.0, missing), Fault(status=404, body=b"Cache Not Found")
        ),
        Case(SLOW_BUT_RIGHT, Fault(delay=0.8 * DEADLINE - HEALTHY)),
    ]
    rows = [replace(row, trouble=replace(row.trouble, seconds=seconds)) for row in rows]
    half = Trouble(f"100 % time out for {seconds / 2:g} s", 1.0, TIMED_OUT, seconds / 2)
    rows.insert(6, Case(half, NO_ANSWER))
    rows.insert(8, Case(LONG_RESTART, None))
    return rows


# The server, in a process of its own


class ShareOfFaults(Faults):
    """One fault for a share of the requests, while it is on."""

    def __init__(self, fault: Fault | None, share: float, chance: random.Random) -> None:
        super().__init__()
        self._fault = fault
        self._share = share
        self._chance = chance
        self.is_on = False

    def take(self, request: PartialRequest) -> Fault | None:  # noqa: ARG002 - the base's signature
        """Return what the request is given instead of a true answer."""
        return self._fault if self.is_on and self._chance.random() < self._share else None


def serve(pipe: Connection, fault: Fault | None, share: float, seed: int) -> None:
    """Serve until the other end of the pipe is closed, in trouble or not as it says."""
    asyncio.run(_serve(pipe, fault, share, seed))


async def _serve(pipe: Connection, fault: Fault | None, share: float, seed: int) -> None:
    received: list[object] = []
    service = Service(Config(token=TOKEN, latency=HEALTHY), observer=received.append)
    service.faults = faults = ShareOfFaults(fault, share, random.Random(seed))
    server = Server(service)
    await server.start()
    pipe.send(server.endpoint)
    port = int(server.endpoint.rpartition(":")[2])
    while True:
        try:
            faults.is_on = await asyncio.to_thread(pipe.recv)
        except EOFError:
            break
        if fault is None and faults.is_on:
            await server.stop()
        elif fault is None:
            await server.start(port=port)
        pipe.send(len(received))
    await server.stop()


class Remote:
    """That server as the measuring process has it."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.endpoint: str = pipe.recv()

    def be_in_trouble(self, trouble: bool) -> int:
        """Begin or end the trouble and return how many requests have arrived until now."""
        self._pipe.send(trouble)
        received: int = self._pipe.recv()
        return received


@contextmanager
def running(case: Case, seed: int) -> Iterator[Remote]:
    """Run the server of a case."""
    processes = multiprocessing.get_context("spawn")
    here, there = processes.Pipe()
    arguments = (there, case.fault, case.trouble.share, seed)
    process = processes.Process(target=serve, args=arguments)
    process.start()
    there.close()
    try:
        yield Remote(here)
    finally:
        here.close()
        process.join(10)


# The site


class Site:
    """Threads that make pages of reads one after the other, as visitors come."""

    def __init__(self, cache: MomentoCache, chance: random.Random) -> None:
        self._cache = cache
        self._chance = chance
        self._lock = threading.Lock()
        self._next_page = time.monotonic()
        self._over = threading.Event()
        self._restored = math.inf
        self.recovered = threading.Event()
        self.recovery = math.nan
        self.pages: list[tuple[float, float, float]] = []  # start, end, seconds in the cache
        self.first_opening = math.inf

    @contextmanager
    def open(self) -> Iterator[None]:
        """Serve visitors; those who are there at the end are served."""
        threads = [threading.Thread(target=self._work) for _ in range(PAGES.threads)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def restored(self, moment: float) -> None:
        """Take note that the service has been well since then: the next answer is its recovery."""
        self._restored = moment

    def _work(self) -> None:
        openings = _openings(self._cache)
        while not self._over.wait(self._until_next_page()):
            start = time.monotonic()
            if _openings(self._cache) > openings:
                self.first_opening = min(self.first_opening, start)
            in_cache = sum(self._read(key) for key in KEYS)
            self.pages.append((start, time.monotonic(), in_cache))

    def _until_next_page(self) -> float:
        """Take the next page from the queue that all threads share."""
        with self._lock:
            self._next_page += self._chance.expovariate(PAGES.pages_per_second or math.inf)
            return max(0.0, self._next_page - time.monotonic())

    def _read(self, key: str) -> float:
        """Read one value and return the seconds that it took."""
        began = time.monotonic()
        found = self._cache.get(key)
        ended = time.monotonic()
        if found is not None and began >= self._restored and not self.recovered.is_set():
            self.recovery = ended - self._restored
            self.recovered.set()
        return ended - began


@dataclass(frozen=True)
class Counts:
    """What the backend says that it did until now."""

    admitted: int
    refused: int
    sent: int
    openings: int

    @classmethod
    def of(cls, cache: MomentoCache) -> "Counts":
        """Read them."""
        stats: Any = cache.stats()
        sent = stats["requests"]
        refused = stats["errors"].get("circuit_open", 0)
        again = stats["retries"] + stats["hedges"]
        return cls(sent - again, refused, sent, stats["breaker_openings"])


def _openings(cache: MomentoCache) -> int:
    return Counts.of(cache).openings


def _cache(endpoint: str) -> MomentoCache:
    """Return a backend with the defaults that a site has."""
    options = {"ENDPOINT": endpoint, "TOKEN": TOKEN}
    return MomentoCache("default-cache", {"KEY_PREFIX": "trouble", "OPTIONS": options})


def _compare(received: int, sent: int) -> None:
    """Refuse figures that the server contradicts, but for what is under way and not yet counted."""
    if received > sent + 2 * PAGES.threads:
        raise RuntimeError(f"the server received {received} requests, the backend says {sent}")


def measure(index: int, seconds: float, seed: int) -> dict[str, Any]:
    """Run one case in this process and return the fields of its result."""
    case = cases(seconds)[index]
    settings.configure(SECRET_KEY="trouble")
    logging.getLogger("django_momento_http").addHandler(logging.NullHandler())
    with running(case, seed) as server:
        cache = _cache(server.endpoint)
        cache.set_many(dict.fromkeys(KEYS, "a value"))
        site = Site(cache, random.Random(seed))
        with site.open():
            time.sleep(WARM_UP)
            sent_before = Counts.of(cache).sent
            received = server.be_in_trouble(True)
            begin, before = time.monotonic(), Counts.of(cache)
            time.sleep(case.trouble.seconds)
            end, after = time.monotonic(), Counts.of(cache)
            received = server.be_in_trouble(False) - received
            site.restored(time.monotonic())
            _compare(received, Counts.of(cache).sent - sent_before)
            site.recovered.wait(COOL_DOWN)
    admitted = after.admitted - before.admitted
    return {
        "asked": admitted + after.refused - before.refused,
        "admitted": admitted,
        "sent": after.sent - before.sent,
        "openings": after.openings - before.openings,
        "first_opening": site.first_opening - begin,
        "recovery": site.recovery,
        "pages": [
            (start - begin, in_cache)
            for start, ended, in_cache in site.pages
            if start < end and ended > begin
        ],
    }


# The report


def run(
    chosen: Sequence[int], seconds: float, seed: int, jobs: int, troubles: Sequence[Trouble]
) -> list[Result]:
    """Measure the chosen rows, some at a time, each in a fresh process."""
    began = time.monotonic()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn, max_tasks_per_child=1) as pool:
        futures = {pool.submit(measure, index, seconds, seed): index for index in chosen}
        results = {}
        for future in as_completed(futures):
            trouble = troubles[futures[future]]
            results[futures[future]] = Result(trouble, PAGES, **future.result())
            done = f"{len(results)}/{len(chosen)}"
            elapsed = f"{time.monotonic() - began:.0f} s"
            print(f"{done} rows, {elapsed}: {trouble.name}", file=sys.stderr, flush=True)
    rows = [results[index] for index in chosen]
    for row in rows:
        if row.trouble.name == HEALTH.name:
            # On this machine, with whatever else it does meanwhile.
            for other in rows:
                other.healthy = row.percentile(0.95)
    return rows


def table(results: Sequence[Result]) -> str:
    """Return the Markdown table: the simulation's columns, and whether the goals were met."""
    lines = [[*cells(result), "**missed**" if missed(result) else "met"] for result in results]
    head = f"| {' | '.join(COLUMNS)} | goals |\n|---{'|--:' * (len(COLUMNS) - 1)}|---|\n"
    return head + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def verdict(results: Sequence[Result]) -> str:
    """Return the goals, each with how many rows it concerns, or those that missed it."""
    text = ""
    for name, concerns, is_met in GOALS:
        held = [result for result in results if concerns(result)]
        failures = [result.trouble.name for result in held if not is_met(result)]
        told = (
            f"**missed** by {', '.join(failures)}"
            if failures
            else f"met by {len(held)} of {len(held)}"
        )
        text += f"- {name}: {told}\n" if held else ""
    return text


def document(results: Sequence[Result], seconds: float, jobs: int, others: float | None) -> str:
    """Return the whole report as Markdown."""
    busy = "unknown" if others is None else f"{others:.2f} cores on average"
    found = description()
    machine = "".join(f"- {name}: {found[name]}\n" for name in TOOK_PART if name in found)
    return f"""# What a page sees of trouble, measured

Written by `python benchmarks/measure_trouble.py`; do not edit.

{table(results)}
The goals:

{verdict(results)}
A page is {PAGES.page} `cache.get` of stored values, one after the other; {PAGES.threads} threads
serve {PAGES.pages_per_second:g} pages a second, which come at random. The backend has its default
options; the server, on a loopback socket, answers after {HEALTHY * 1000:g} ms and is well for
{WARM_UP:g} s, in trouble for {seconds:g} s or as its row says, and then well again. Each row has
processes of its own, {jobs} rows run at a time. What is asked and sent includes the reads of the
clear marker. p50 and p95 are of the pages begun after the breaker first opened, of all where it did
not; recovery is from the end of the trouble to the first value read.

- used by other programs meanwhile: {busy}
{machine}"""


def _arguments() -> argparse.Namespace:
    names = [case.trouble.name for case in cases(60.0)]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", metavar="ROW", action="append", help=f"of {', '.join(names)}")
    parser.add_argument("--seconds", type=float, default=60.0, help="of trouble in a row")
    parser.add_argument("--jobs", type=int, default=4, help="rows measured at a time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--check", action="store_true", help="exit 1 when a goal is missed")
    return parser.parse_args()


def main() -> int:
    """Measure the rows and print their table; write the report when they are all there."""
    arguments = _arguments()
    troubles = [case.trouble for case in cases(arguments.seconds)]
    wanted = arguments.only or [""]
    chosen = [
        index
        for index, trouble in enumerate(troubles)
        if any(trouble.name.startswith(word) for word in wanted)
    ]
    neighbours = Neighbours(childrens_seconds())
    results = run(chosen, arguments.seconds, arguments.seed, arguments.jobs, troubles)
    print(table(results), verdict(results), sep="\n")
    if len(results) == len(troubles):
        others = neighbours.cores_used(childrens_seconds())
        report = document(results, arguments.seconds, arguments.jobs, others)
        Path(__file__).with_name("trouble.md").write_text(report)
    return 1 if arguments.check and any(missed(result) for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
