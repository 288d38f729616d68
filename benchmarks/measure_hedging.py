"""Measure what a page sees with HEDGE and without it, on real sockets, side by side.

Each row runs twice at once, plain and hedged, each in a process of its own with a server of its
own, so that both have the same machine. ``python benchmarks/measure_hedging.py`` writes
``hedging.md``; ``--only`` measures some rows and writes nothing.
"""

import argparse
import asyncio
import logging
import multiprocessing
import random
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from django.conf import settings
from machine import Neighbours, childrens_seconds, description
from measure_trouble import TOKEN, TOOK_PART, ShareOfFaults

from django_momento_http.cache import MomentoCache
from django_momento_http.server import Config, Fault, Server, Service

LATENCY = 0.002
LOST = Fault(delay=10.0)  # the client has long given up when it comes
WARM_UP = 40  # pages of good service
INTERVAL = 0.1  # seconds from one page to the next, at least: as a site has them
FROZEN = 1.5  # seconds; longer than a connection is taken for alive
SHARES = (0.5, 0.95, 0.99)


@dataclass(frozen=True)
class Row:
    """What a share of the answers meets; ``dies``: each connection, once, while nobody looks."""

    name: str
    fault: Fault | None = None
    share: float = 0.0
    dies: bool = False
    is_cold: bool = False


ROWS = (
    Row("healthy"),
    *(Row(f"{share:g} % lost", LOST, share / 100) for share in (1, 5, 10, 20)),
    Row("1 % come 400 ms late", Fault(delay=0.4), 0.01),
    Row("everything takes 200 ms", Fault(delay=0.2 - LATENCY), 1.0),
    Row("thawed, all connections dead", dies=True),
    Row("first page of a process, 5 % lost", LOST, 0.05, is_cold=True),
)


def one_by_one(cache: MomentoCache, keys: list[str]) -> int:
    """Read 20 keys, one after the other; return how many were found."""
    return sum(cache.get(key) is not None for key in keys[:20])


def at_once(cache: MomentoCache, keys: list[str]) -> int:
    """Read 100 keys with one get_many."""
    return len(cache.get_many(keys))


PAGES: dict[str, tuple[Callable[[MomentoCache, list[str]], int], int]] = {
    "20 gets": (one_by_one, 20),
    "get_many(100)": (at_once, 100),
}


# The server, in a process of its own


def serve(pipe: Connection, row: Row, seed: int) -> None:
    """Serve until the pipe is closed, in trouble or not as it says; "die": fall silent."""
    asyncio.run(_serve(pipe, row, seed))


async def _serve(pipe: Connection, row: Row, seed: int) -> None:
    service = Service(Config(token=TOKEN, latency=LATENCY))
    service.faults = faults = ShareOfFaults(row.fault, row.share, random.Random(seed))
    server = Server(service)
    await server.start()
    pipe.send(server.endpoint)
    while True:
        try:
            told = await asyncio.to_thread(pipe.recv)
        except EOFError:
            break
        if told == "die":
            for connection in list(server._shared.connections):
                # As if something in between had forgotten it: bytes go nowhere.
                connection._transport.pause_reading()
        else:
            faults.is_on = told
        pipe.send(None)
    await server.stop()


@contextmanager
def running(row: Row, seed: int) -> Iterator[tuple[str, Callable[[object], None]]]:
    """Run the server of a row; give its endpoint, and what tells it something."""
    processes = multiprocessing.get_context("spawn")
    here, there = processes.Pipe()
    process = processes.Process(target=serve, args=(there, row, seed))
    process.start()
    there.close()

    def tell(what: object) -> None:
        here.send(what)
        here.recv()

    try:
        yield here.recv(), tell
    finally:
        here.close()
        process.join(20)


# The client


def _cache(endpoint: str, *, hedge: bool) -> MomentoCache:
    options = {"ENDPOINT": endpoint, "TOKEN": TOKEN, "HEDGE": hedge}
    return MomentoCache("default-cache", {"KEY_PREFIX": "hedging", "OPTIONS": options})


def measure(
    index: int, page: str, hedge: bool, seconds: float, seed: int
) -> tuple[list[float], int, int, int, int]:
    """Return the seconds of each page, and what was asked, found, sent and hedged."""
    row, (read, size) = ROWS[index], PAGES[page]
    if not settings.configured:
        settings.configure(SECRET_KEY="hedging")
        logging.getLogger("django_momento_http").addHandler(logging.NullHandler())
    keys = [f"part-{number}" for number in range(100)]
    times, found, asked, sent, hedged = [], 0, 0, 0, 0
    with running(row, seed) as (endpoint, tell):
        cache = _cache(endpoint, hedge=hedge)
        cache.set_many(dict.fromkeys(keys, "a value"))
        if not row.is_cold:
            for _ in range(WARM_UP):
                read(cache, keys)
        tell(True)
        before: Any = cache.stats()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if row.dies:
                tell("die")
                time.sleep(FROZEN)
            began = time.monotonic()
            found += read(cache, keys)
            times.append(time.monotonic() - began)
            asked += size
            time.sleep(max(0.0, began + INTERVAL - time.monotonic()))
            if row.is_cold:
                break
        after: Any = cache.stats()
        sent = after["requests"] - before["requests"]
        hedged = after["hedges"] - before["hedges"]
        tell(False)
    return times, asked, found, sent, hedged


def cold(index: int, page: str, hedge: bool, seconds: float, seed: int) -> Any:
    """Return the same of many first pages, each in a process of its own."""
    processes = multiprocessing.get_context("spawn")
    end = time.monotonic() + 3 * seconds
    found: list[Any] = []
    with ProcessPoolExecutor(1, mp_context=processes, max_tasks_per_child=1) as pool:
        while time.monotonic() < end:
            found.append(
                pool.submit(measure, index, page, hedge, seconds, seed + len(found)).result()
            )
    return [time for times, *_ in found for time in times], *(
        sum(one[column] for one in found) for column in range(1, 5)
    )


def percentile(times: list[float], share: float) -> str:
    """Return the milliseconds that this share of the pages stays under."""
    return f"{1000 * sorted(times)[min(len(times) - 1, int(share * len(times)))]:.0f}"


def lines(chosen: list[int], seconds: float, seed: int) -> Iterator[str]:
    """Yield the lines of the tables as they are measured."""
    processes = multiprocessing.get_context("spawn")
    each = "p50 ms | p95 | p99 | found"
    for page in PAGES:
        yield f"a page of {page}:"
        yield ""
        yield f"| answers | plain: {each} | hedged: {each} | extra | pages |"
        yield "|---" + "|--:" * 10 + "|"
        for index in chosen:
            work = cold if ROWS[index].is_cold else measure
            with ProcessPoolExecutor(2, mp_context=processes, max_tasks_per_child=1) as pool:
                both = [
                    pool.submit(work, index, page, hedge, seconds, seed) for hedge in (False, True)
                ]
                cells = []
                for one in both:
                    times, asked, found, _, hedged = one.result()
                    cells += [percentile(times, share) for share in SHARES]
                    cells.append(f"{found / asked:.2%}")
            cells += [f"{hedged / asked:.2%}", f"{len(times)}"]
            yield f"| {ROWS[index].name} | {' | '.join(cells)} |"
        yield ""


def main() -> int:
    """Measure the rows and print their tables; write the report when they are all there."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", metavar="ROW", action="append")
    parser.add_argument("--seconds", type=float, default=30.0, help="of trouble in a row")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    wanted = arguments.only or [""]
    chosen = [n for n, row in enumerate(ROWS) if any(row.name.startswith(word) for word in wanted)]
    neighbours = Neighbours(childrens_seconds())
    text = []
    for line in lines(chosen, arguments.seconds, arguments.seed):
        print(line, flush=True)
        text.append(line)
    if len(chosen) == len(ROWS):
        found = description()
        machine = "".join(f"- {name}: {found[name]}\n" for name in TOOK_PART if name in found)
        report = Path(__file__).with_name("hedging.md")
        used = neighbours.cores_used(childrens_seconds()) or 0.0
        report.write_text(_report("\n".join(text), arguments.seconds, machine, used))
    return 0


def _report(tables: str, seconds: float, machine: str, others: float) -> str:
    return f"""# Hedged reads, measured

Written by `python benchmarks/measure_hedging.py`; do not edit.

{tables}
One thread reads pages for {seconds:g} s, ten a second at most; the server, on a loopback socket,
answers after {LATENCY * 1000:g} ms. Plain (`HEDGE` off) and hedged run at the same time, each with
a process and a server of its own. `found` is the share of the keys that were found, `extra` that of
the requests that hedging added. The first page of a process follows a `set_many` of its keys.

- used by other programs meanwhile: {others:.2f} cores on average

{machine}"""


if __name__ == "__main__":
    sys.exit(main())
