"""Hours of a web process in minutes: mixed faults, and nothing wrong is served and nothing grows.

Run ``python benchmarks/soak.py [--minutes 10] [--rate 200] [--faults 0.05] [--seed 1] [--copies
5]``. Threads
with ON_ERROR "raise" and tasks with "miss" share one process's connections and work on keys of
their own, whose possible values each of them knows; a server in another process lets a share of the
requests misbehave, and all of them for two seconds of every minute. The exit status is 1 when a
wrong value was served, or when memory, threads or descriptors grew. With ``--copies`` the process
keeps copies for so many seconds: what it has written itself is told at once all the same, and what
another writes within the time that is said (``watching``). It knows nothing of how the backend
works.

Memory is what is private to the process and written to. glibc keeps what threads free in caches of
theirs, whose pieces keep whole pages from being given back: with values of many sizes that looks
like a leak, in any program with threads. So those caches are off here.
"""

import argparse
import asyncio
import logging
import math
import multiprocessing
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from django.conf import settings

from django_momento_http.cache import MomentoCache
from django_momento_http.exceptions import MomentoError
from django_momento_http.server import Config, Fault, Faults, PartialRequest, Server, Service

TOKEN = "soak-token"
DEADLINE = 0.3
THREADS = 4
TASKS = 8
CONNECTIONS = 32  # fewer than the default, so that all are soon there
KEYS = 40  # of each worker
COUNTERS = 4
PROGRESS_SECONDS = 5.0
# Each outage opens the breaker and closes it again.
OUTAGE_EVERY, OUTAGE_SECONDS = 60.0, 2.0
# While the service cannot be asked, copies answer so much longer; all of them take so much memory.
STALE, COPIES_BYTES = 5.0, 500_000
# Two aliases' copies, and the marks of writes, which fill up within minutes.
FILLING = 2 * COPIES_BYTES + 500_000
# Without faults, but slow, so that every connection, worker thread and generation is there.
CALM_SECONDS = 3.0
CALM = Fault(delay=0.05)
BURST = 64  # twice the backend's worker threads

# One arena for all threads and no cache for each: read by glibc when a process starts.
ALLOCATOR = {"MALLOC_ARENA_MAX": "1", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
WARM = 0.2  # the share of the run after which nothing may grow
# What an operation may add to memory, and what comes and goes in any case.
BYTES_PER_OPERATION, NOISE_BYTES = 10, 1_000_000

# What a misbehaving request is given; the value is how often beside the others.
MIX = {
    Fault(status=500): 3,
    Fault(status=503): 2,
    Fault(status=500, applied=True): 1,
    Fault(drop="before"): 3,
    Fault(drop="after"): 3,
    Fault(drop="headers"): 2,
    Fault(drop="body"): 2,
    Fault(delay=2 * DEADLINE): 2,
    Fault(status=429): 2,
    Fault(status=404, body=b"<html>no such page</html>"): 1,
    Fault(headers=(("Content-Encoding", "gzip"),)): 1,
}
OUTAGE = Fault(status=503)

# A step of a worker: it yields a method with its arguments and is sent what came of it.
Step = Generator[tuple[str, tuple[Any, ...]], Any, None]


class MixedFaults(Faults):
    """Let a share of the requests misbehave, and all of them during an outage."""

    def __init__(self, share: float, chance: random.Random) -> None:
        super().__init__()
        self._share = share
        self._chance = chance
        self._began = time.monotonic()

    def take(self, request: PartialRequest) -> Fault | None:  # noqa: ARG002 - the base's signature
        """Return what the request is given instead of a true answer."""
        age = time.monotonic() - self._began
        if age < CALM_SECONDS:
            return CALM
        if not self._share:
            return None
        if age % OUTAGE_EVERY > OUTAGE_EVERY - OUTAGE_SECONDS:
            return OUTAGE
        if self._chance.random() >= self._share:
            return None
        return self._chance.choices(list(MIX), list(MIX.values()))[0]


def serve(pipe: Connection, share: float, seed: int) -> None:
    """Serve until the other end of the pipe is closed; the endpoint is the first thing said."""

    async def run() -> None:
        service = Service(Config(token=TOKEN))
        service.faults = MixedFaults(share, random.Random(seed))
        server = Server(service)
        await server.start()
        pipe.send(server.endpoint)
        over = asyncio.Event()
        asyncio.get_running_loop().add_reader(pipe.fileno(), over.set)
        await over.wait()
        await server.stop()

    asyncio.run(run())


class Histogram:
    """Latencies in buckets of 5 %, so that a long run needs no more memory than a short one."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """Count one."""
        self._buckets[round(math.log(max(seconds, 1e-6), 1.05))] += 1

    def percentile(self, share: float) -> float:
        """Return the milliseconds that this share of all stayed under."""
        left = share * self._buckets.total()
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                return 1.05**bucket * 1000
        return 0.0


class Worker:
    """One caller with keys of its own: what it may find under each, and what it found wrong.

    ``possible`` holds the numbers of the writes that may be the last one to have landed, None for
    no value. A value is a function of its key and number, so a wrong one shows.
    """

    def __init__(self, name: str, chance: random.Random, *, raises: bool) -> None:
        self._name = name
        self._chance = chance
        self._raises = raises
        self._number = 0
        self._keys = [f"{name}:{index}" for index in range(KEYS)]
        self._counters = [f"{name}:count:{index}" for index in range(COUNTERS)]
        self.possible: dict[str, set[int | None]] = {
            key: {None} for key in (*self._keys, *self._counters)
        }
        self.wrong: list[str] = []

    def step(self) -> Step:
        """Do one thing, chosen by chance."""
        steps = (self._get, self._get_many, self._set_many, self._delete, self._touch, self._count)
        [step] = self._chance.choices(steps, (40, 10, 25, 5, 5, 15))
        yield from step()

    def _value(self, key: str, number: int) -> list[Any]:
        return [key, number, f"{number:05}" * (number * 97 % 1200)]

    def _get(self) -> Step:
        key = self._chance.choice(self._keys)
        try:
            found = yield "get", (key,)
        except MomentoError:
            return
        self._judge(key, found)

    def _get_many(self) -> Step:
        keys = self._chance.sample(self._keys, 8)
        try:
            found = yield "get_many", (keys,)
        except MomentoError:
            return
        self._note(set(found) <= set(keys), "get_many returned keys that were not asked for")
        for key in keys:
            self._judge(key, found.get(key))

    def _set_many(self) -> Step:
        self._number += 1
        number = self._number
        keys = self._chance.sample(self._keys, self._chance.choice((1, 1, 1, 6)))
        try:
            failed = yield "set_many", ({key: self._value(key, number) for key in keys}, 3600)
        except MomentoError:
            failed = keys
        for key in keys:
            # What a write that failed should have replaced is absent from then on: it is owed.
            maybe = self.possible[key] | {number, None}
            self.possible[key] = maybe if key in failed else {number}

    def _delete(self) -> Step:
        key = self._chance.choice(self._keys)
        before = self.possible[key]
        try:
            was_there = yield "delete", (key,)
        except MomentoError:
            self.possible[key] = before | {None}
            return
        if was_there:
            self._note(before != {None}, "delete found what was not there")
            self.possible[key] = {None}
        elif self._raises:
            self._note(None in before, "delete missed what was there")
            self.possible[key] = {None}
        else:
            self.possible[key] = before | {None}

    def _touch(self) -> Step:
        key = self._chance.choice(self._keys)
        try:
            touched = yield "touch", (key, 3600)
        except MomentoError:
            return
        if touched:
            self._note(self.possible[key] != {None}, "touch found what was not there")

    def _count(self) -> Step:
        key = self._chance.choice(self._counters)
        if self.possible[key] == {None}:
            yield from self._begin(key)
            return
        before = self.possible[key]
        after = {None if count is None else count + 1 for count in before}
        try:
            count = yield "incr", (key,)
        except (MomentoError, ValueError):
            # Of "miss" mode's two kinds of ValueError, either may be meant.
            self.possible[key] = before | after
            return
        self._note(count in after, "incr returned a count that was never due")
        self.possible[key] = {count}

    def _begin(self, key: str) -> Step:
        try:
            failed = yield "set_many", ({key: 0}, 3600)
        except MomentoError:
            failed = [key]
        self.possible[key] = {None, 0} if failed else {0}

    def _judge(self, key: str, found: Any) -> None:
        if found is None:
            if self._raises:
                self._note(None in self.possible[key], "a value was lost without an error")
            return
        number = found[1]
        self._note(found == self._value(key, number), "a value of another key, or a broken one")
        self._note(number in self.possible[key], "a value that had been written over or deleted")
        self.possible[key] = {number}

    def _note(self, is_right: bool, problem: str) -> None:
        if not is_right:
            self.wrong.append(f"{self._name}: {problem}")


@dataclass(frozen=True)
class Size:
    """What this process holds after so many operations."""

    operations: int
    memory: int
    threads: int
    descriptors: int

    @classmethod
    def now(cls, operations: int) -> "Size":
        """Measure it."""
        rollup = Path("/proc/self/smaps_rollup").read_text()
        kilobytes = int(rollup.partition("Private_Dirty:")[2].split()[0])
        descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - one system call
        return cls(operations, kilobytes * 1024, threading.active_count(), descriptors)

    def growth(self, early: "Size") -> float:
        """Return the bytes that each operation since then has added."""
        return (self.memory - early.memory) / max(1, self.operations - early.operations)

    def has_outgrown(self, early: "Size", filling: int = 0) -> bool:
        """Whether this is more than noise above what it was, and than bytes that fill up once."""
        allowed = BYTES_PER_OPERATION * (self.operations - early.operations) + NOISE_BYTES + filling
        return (
            self.memory > early.memory + allowed
            or self.threads > early.threads + 2
            or self.descriptors > early.descriptors + 8
        )


class Lines(logging.Handler):
    """Counts what is logged instead of showing it."""

    count = 0

    def emit(self, _: logging.LogRecord) -> None:
        """Count one; the handler's lock is held."""
        self.count += 1


class Soak:
    """One run."""

    def __init__(
        self, endpoint: str, rate: float, seconds: float, seed: int, copies: float = 0.0
    ) -> None:
        self._interval = (THREADS + TASKS) / rate
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self.caches = {mode: _cache(endpoint, mode, copies) for mode in ("raise", "miss")}
        self.watch: Any = _watch(self.caches, endpoint, copies, self._end) if copies else None
        self.latency = Histogram()
        self.operations = 0
        self._lock = threading.Lock()
        self.sizes: list[Size] = []
        self.escaped: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self.threaded = [self._worker("thread", n, raises=True) for n in range(THREADS)]
        self.tasked = [self._worker("task", n, raises=False) for n in range(TASKS)]

    def _worker(self, kind: str, number: int, *, raises: bool) -> Worker:
        return Worker(f"{kind}{number}", random.Random(self._chance.random()), raises=raises)

    @property
    def wrong(self) -> list[str]:
        """All that was found wrong."""
        found = [problem for worker in self.threaded + self.tasked for problem in worker.wrong]
        return found + (self.watch.wrong if self.watch else [])

    def run(self, progress: Callable[["Soak"], None]) -> None:
        """Run to the end."""
        threads = [
            threading.Thread(target=self._in_thread, args=(worker,)) for worker in self.threaded
        ]
        threads.append(threading.Thread(target=lambda: asyncio.run(self._in_loop())))
        threads += self.watch.threads() if self.watch else []
        for thread in threads:
            thread.start()
        pause = min(PROGRESS_SECONDS, self._seconds / 20)
        # Not at the end itself, when threads are leaving.
        while time.monotonic() < self._end - pause:
            time.sleep(pause)
            self.sizes.append(Size.now(self.operations))
            progress(self)
        for thread in threads:
            thread.join(30)
            self._note_hang(thread)

    def _note_hang(self, thread: threading.Thread) -> None:
        if thread.is_alive():
            self.escaped["a worker hangs"] += 1

    def _in_thread(self, worker: Worker) -> None:
        cache = self.caches["raise"]
        due = time.monotonic()
        while due < self._end:
            time.sleep(max(0.0, due - time.monotonic()))
            due += self._interval
            steps = worker.step()
            method, arguments = next(steps)
            began = time.perf_counter()
            result: Any = None
            error: Exception | None = None
            try:
                result = getattr(cache, method)(*arguments)
            except Exception as raised:  # noqa: BLE001 - judged below
                error = raised
            self._finish(steps, result, error, time.perf_counter() - began)

    async def _in_loop(self) -> None:
        await self._start_workers()
        await asyncio.gather(*(self._in_task(worker) for worker in self.tasked))

    async def _start_workers(self) -> None:
        """Ask for so much at once, turn after turn, that every thread of the backend is started."""
        burst = []
        for _ in range(BURST):
            burst.append(asyncio.ensure_future(self.caches["miss"].aget("nothing")))
            await asyncio.sleep(0)
        await asyncio.gather(*burst)

    async def _in_task(self, worker: Worker) -> None:
        cache = self.caches["miss"]
        due = time.monotonic()
        while due < self._end:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due += self._interval
            steps = worker.step()
            method, arguments = next(steps)
            began = time.perf_counter()
            result: Any = None
            error: Exception | None = None
            try:
                result = await getattr(cache, f"a{method}")(*arguments)
            except Exception as raised:  # noqa: BLE001 - judged below
                error = raised
            self._finish(steps, result, error, time.perf_counter() - began, escapes=True)

    def _finish(
        self,
        steps: Step,
        result: Any,
        error: Exception | None,
        elapsed: float,
        *,
        escapes: bool = False,
    ) -> None:
        with self._lock:
            self.operations += 1
            self.latency.add(elapsed)
            if isinstance(error, MomentoError) and escapes:
                self.escaped[type(error).__name__] += 1
        try:
            if error is not None:
                steps.throw(error)
            else:
                steps.send(result)
        except StopIteration:
            return
        except Exception as unexpected:  # noqa: BLE001 - what no step foresees
            with self._lock:
                self.escaped[type(unexpected).__name__] += 1


def _watch(caches: dict[str, MomentoCache], endpoint: str, copies: float, end: float) -> Any:
    # Only here, so that the soak can be loaded without what is beside it.
    from watching import Watch, stranger

    longest = {"raise": copies, "miss": copies + STALE}
    readers = {mode: (cache, longest[mode]) for mode, cache in caches.items()}
    return Watch(stranger(_cache(endpoint, "raise", 0.0, CONNECTIONS - 1)), readers, end)


def _cache(endpoint: str, mode: str, copies: float, connections: int = CONNECTIONS) -> MomentoCache:
    options = {
        "ENDPOINT": endpoint,
        "TOKEN": TOKEN,
        "ON_ERROR": mode,
        "REQUEST_TIMEOUT": DEADLINE,
        "MAX_CONNECTIONS": connections,
        "NEAR_MAX_AGE": copies,
        "NEAR_MAX_STALE": STALE,
        "NEAR_MAX_BYTES": COPIES_BYTES,
    }
    return MomentoCache("default-cache", {"KEY_PREFIX": "soak", "OPTIONS": options})


def _errors(soak: Soak) -> Counter[str]:
    total: Counter[str] = Counter()
    for cache in soak.caches.values():
        total.update(cache.stats()["errors"])  # type: ignore[call-overload]  # a dictionary
    return total


def show_progress(soak: Soak) -> None:
    """Print one line."""
    size = soak.sizes[-1]
    errors = " ".join(f"{kind}={count}" for kind, count in sorted(_errors(soak).items()))
    print(
        f"{soak.operations:8} operations, {size.memory / 1e6:6.2f} MB, {size.threads} threads,"
        f" {size.descriptors} descriptors, {len(soak.wrong)} wrong; {errors}",
        flush=True,
    )


def report(soak: Soak, lines: int) -> bool:
    """Print what came of it and return whether all is well."""
    early, late = soak.sizes[int(WARM * len(soak.sizes))], soak.sizes[-1]
    print(f"\n{'':22}{f'{WARM:.0%}':>10}{'100%':>10}")
    print(f"{'memory, MB':22}{early.memory / 1e6:10.2f}{late.memory / 1e6:10.2f}")
    print(f"{'threads':22}{early.threads:10}{late.threads:10}")
    print(f"{'descriptors':22}{early.descriptors:10}{late.descriptors:10}")
    print(f"{'bytes an operation':22}{late.growth(early):20.1f}")
    print(f"{'lines logged':22}{lines:20}")
    for share in (0.5, 0.95, 0.99, 0.999):
        print(f"{f'p{share * 100:g} of latency, ms':22}{soak.latency.percentile(share):20.2f}")
    for mode, cache in soak.caches.items():
        print(f"{mode:8}{cache.stats()}")
    if soak.watch:
        watch = soak.watch
        print(f"watched {watch.reads} reads, the oldest written over {watch.oldest:.2f} s before")
    print(f"operations {soak.operations}, wrong values {len(soak.wrong)}, escaped {soak.escaped}")
    for problem in sorted(set(soak.wrong))[:20]:
        print(f"  {problem}")
    filling = FILLING if soak.watch else 0
    return not soak.wrong and not soak.escaped and not late.has_outgrown(early, filling)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=200.0, help="operations a second")
    parser.add_argument("--faults", type=float, default=0.05, help="share of requests, 0-1")
    parser.add_argument("--copies", type=float, default=0.0, help="NEAR_MAX_AGE, in seconds")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    return parser.parse_args()


def main() -> int:
    """Run one soak."""
    arguments = _arguments()
    print(f"seed {arguments.seed}", flush=True)
    settings.configure(SECRET_KEY="soak")
    lines = Lines()
    logging.getLogger("django_momento_http").addHandler(lines)
    processes = multiprocessing.get_context("spawn")
    here, there = processes.Pipe()
    server = processes.Process(target=serve, args=(there, arguments.faults, arguments.seed))
    server.start()
    there.close()
    try:
        seconds = arguments.minutes * 60
        soak = Soak(here.recv(), arguments.rate, seconds, arguments.seed, arguments.copies)
        soak.run(show_progress)
        return 0 if report(soak, lines.count) else 1
    finally:
        here.close()
        server.join(10)


def with_allocator() -> None:
    """Start this program anew under the allocator's settings, unless it has them."""
    if not ALLOCATOR.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ALLOCATOR)


if __name__ == "__main__":
    with_allocator()
    sys.exit(main())
