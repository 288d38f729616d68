"""Drive the real Breaker, RetryBudget and Hedging through troubles on a virtual clock.

It knows nothing of HTTP: an operation is the seconds that it takes and the error that it ends
with; all are reads. Behind its tables come those of ``simulate_hedging.py``. Run it with
``python benchmarks/simulate_breaker.py``; ``--check`` fails on a missed goal.
"""

import argparse
import heapq
import math
import sys
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from random import Random

from simulate_hedging import Raced, cold_table, estimators_table, race, table

from django_momento_http._client import breaker as circuit
from django_momento_http._client.breaker import Breaker, Condition
from django_momento_http._client.retry import RetryBudget, may_retry
from django_momento_http._http.hedging import MOST_REQUESTS, Hedging, Silence
from django_momento_http.exceptions import (
    ConnectFailed,
    MomentoError,
    ServiceFailed,
    TimedOut,
    TransportError,
)

DEADLINE = 1.0
WAITING = 0.95 * DEADLINE  # what an operation waits at most, so that it keeps the deadline in all
HEALTHY = 0.002  # seconds of an ordinary operation
AT_ONCE = 0.00002  # seconds of an operation that the open breaker answers
WARM_UP = 10.0  # seconds of good service before the trouble
COOL_DOWN = 30.0  # seconds of good service after it, in which it must be noticed

Attempt = tuple[float, MomentoError | None]
Steps = Iterator[float]
Errors = list[MomentoError]


@dataclass(frozen=True)
class Trouble:
    """What a share of the attempts meets, for how long."""

    name: str
    share: float
    attempt: Attempt
    seconds: float = 60.0


@dataclass(frozen=True)
class Workload:
    """Pages of sequential operations on a number of threads."""

    name: str
    threads: int
    page: int
    pages_per_second: float | None = None  # Poisson arrivals; None: a closed loop
    think: float = 0.0  # seconds of a thread's own work after each operation
    keys: int = 1  # requests of one operation, under way at once


TIMED_OUT: Attempt = (WAITING, TimedOut("no answer in time"))
REFUSED: Attempt = (0.0002, ConnectFailed("connection refused"))
BROKEN: Attempt = (0.001, TransportError("connection broken"))
FAILED: Attempt = (HEALTHY, ServiceFailed("unavailable", status=503))
SLOW: Attempt = (0.8 * DEADLINE, None)

HEALTH = Trouble("healthy", 0.0, TIMED_OUT)
BLACK_HOLE = Trouble("100 % time out", 1.0, TIMED_OUT)
RARE = Trouble("1 % time out", 0.01, TIMED_OUT, 600.0)  # long: its openings are few
OCCASIONAL = Trouble("5 % time out", 0.05, TIMED_OUT, 600.0)
SLOW_BUT_RIGHT = Trouble("slow (0.8 s) but right", 1.0, SLOW)
RESTART = Trouble("restart of 0.2 s", 1.0, REFUSED, 0.2)
LONG_RESTART = Trouble("restart of 10 s", 1.0, REFUSED, 10.0)
TROUBLES = (
    HEALTH,
    RARE,
    OCCASIONAL,
    Trouble("20 % time out", 0.2, TIMED_OUT),
    Trouble("50 % time out", 0.5, TIMED_OUT),
    BLACK_HOLE,
    Trouble("100 % time out for 30 s", 1.0, TIMED_OUT, 30.0),
    Trouble("10 s DNS stall", 1.0, (WAITING, ConnectFailed("no address")), 10.0),
    Trouble("100 % refused", 1.0, REFUSED),
    RESTART,
    LONG_RESTART,
    Trouble("20 % connections break", 0.2, BROKEN),
    Trouble("100 % connections break", 1.0, BROKEN),
    Trouble("20 % status 503", 0.2, FAILED),
    Trouble("100 % status 503", 1.0, FAILED),
    SLOW_BUT_RIGHT,
)

PAGES = Workload("pages of 20, 5/s, 8 threads", 8, 20, pages_per_second=5.0)
SINGLES = Workload("200 operations/s, 32 threads", 32, 1, pages_per_second=200.0)
ONE_THREAD = Workload("one thread, 5 ms think time", 1, 20, think=0.005)
MANY = Workload("get_many of 64 keys, 5/s, 8 threads", 8, 1, pages_per_second=5.0, keys=64)
BUSY = Workload("six threads, 1 ms think time", 6, 20, think=0.001)
RUNS = (
    (PAGES, TROUBLES),
    (SINGLES, TROUBLES),
    (ONE_THREAD, TROUBLES),
    (MANY, TROUBLES),
    # Without a pause between pages, 5 % that time out are more than the others can pay for.
    (BUSY, (HEALTH, RESTART, LONG_RESTART, SLOW_BUT_RIGHT)),
)


@dataclass
class Result:
    """What one run counted while the trouble lasted, and how it ended."""

    trouble: Trouble
    workload: Workload
    asked: int = 0
    admitted: int = 0
    sent: int = 0
    openings: int = 0
    first_opening: float = math.inf
    recovery: float = math.nan
    pages: list[tuple[float, float]] = field(default_factory=list)  # start, seconds in the cache
    healthy: float = 20 * HEALTHY  # what 95 % of the pages of a healthy service take at most

    @property
    def is_outage(self) -> bool:
        """Whether nothing was answered for longer than a restart takes."""
        return self.trouble.share == 1.0 and self.trouble.seconds > RESTART.seconds

    @property
    def reached(self) -> float:
        """The share of the operations that the breaker let through."""
        return self.admitted / max(1, self.asked)

    @property
    def first_page(self) -> float:
        """The seconds of the first page that the trouble touched."""
        return min(self.pages)[1] if self.pages else math.nan

    @property
    def longest_page(self) -> float:
        """The seconds of the longest page."""
        return max((seconds for _, seconds in self.pages), default=math.nan)

    def percentile(self, share: float) -> float:
        """The seconds of a page begun after the first opening; of any page if there was none."""
        opened = self.first_opening if math.isfinite(self.first_opening) else 0.0
        times = sorted(seconds for start, seconds in self.pages if start >= opened)
        return times[min(len(times) - 1, int(share * len(times)))] if times else math.nan


class Simulation:
    """One workload in one trouble: threads are generators that yield the seconds they take."""

    def __init__(self, trouble: Trouble, workload: Workload, seed: int) -> None:
        self.now = 0.0
        self.end = WARM_UP + trouble.seconds
        self._random = Random(f"{seed} {trouble.name} {workload.name}")
        self._trouble = trouble
        self._workload = workload
        self._budget = RetryBudget()
        self._breaker = Breaker(DEADLINE, lambda: self.now, self._random.random, self._changed)
        self._hedging = Hedging(Silence(), self._budget, lambda: self._breaker.state == "closed")
        self._waiting: list[tuple[float, int, Steps]] = []
        self._steps = 0
        self._next_page = 0.0
        self._result = Result(trouble, workload)

    def run(self) -> Result:
        """Let the threads work until the trouble is over and its end has been seen."""
        for _ in range(self._workload.threads):
            self._wait(0.0, self._work())
        while self.now < self.end + COOL_DOWN and math.isnan(self._result.recovery):
            self.now, _, thread = heapq.heappop(self._waiting)
            self._wait(next(thread), thread)
        return self._result

    def _wait(self, seconds: float, thread: Steps) -> None:
        self._steps += 1
        heapq.heappush(self._waiting, (self.now + seconds, self._steps, thread))

    def _work(self) -> Steps:
        while True:
            yield self._until_next_page()
            start, in_cache = self.now, 0.0
            for _ in range(self._workload.page):
                before = self.now
                yield from self._operate()
                in_cache += self.now - before
                yield self._workload.think
            if start < self.end and self.now > WARM_UP:
                self._result.pages.append((start, in_cache))

    def _until_next_page(self) -> float:
        """Take the next page from the queue that all threads share."""
        if self._workload.pages_per_second is None:
            return 0.0
        self._next_page += self._random.expovariate(self._workload.pages_per_second)
        return max(0.0, self._next_page - self.now)

    def _operate(self) -> Steps:
        """Do what the client does: ask the breaker, send, retry once if allowed, report."""
        start, keys = self.now, self._workload.keys
        in_trouble = self._in_trouble(start)
        self._result.asked += keys * in_trouble
        permit = self._breaker.admit()
        if permit is None:
            yield AT_ONCE
            return
        self._result.admitted += keys * in_trouble
        reads = [race(start, self._attempt, self._hedging, WAITING) for _ in range(keys)]
        yield max(read.seconds for read in reads)
        left = DEADLINE - (self.now - start)
        failed = [read for read in reads if read.error]
        for _ in range(keys - len(failed)):
            self._budget.earn()
        errors = yield from self._retry(failed, left)
        # What a second request has won says nothing of the service.
        hedged = sum(read.requests > 1 and not read.error for read in reads)
        self._report(permit, errors, self.now - start, hedged)
        if len(errors) < keys and start >= self.end and math.isnan(self._result.recovery):
            self._result.recovery = self.now - self.end

    def _retry(self, failed: list[Raced], left: float) -> Generator[float, None, Errors]:
        """Give each failed request one more attempt, all at once; return what still failed."""
        attempts = [self._attempt_again(read, left) for read in failed]
        if failed:
            yield min(left, max(seconds for seconds, _ in attempts))
        return [error for _, error in attempts if error]

    def _attempt_again(self, read: Raced, left: float) -> Attempt:
        assert read.error is not None
        may = read.requests < MOST_REQUESTS and may_retry(read.error, left, DEADLINE)
        if may and self._budget.spend():
            return self._attempt(self.now)
        self._budget.earn()
        return 0.0, read.error

    def _report(self, permit: int, errors: Errors, elapsed: float, hedged: int) -> None:
        """Record successes, which come early, then failures: each with its share of the seconds."""
        for _ in range(self._workload.keys - len(errors) - hedged):
            self._breaker.record(permit, None, elapsed)
        for error in errors:
            self._breaker.record(permit, error, elapsed, concurrency=self._workload.keys)

    def _attempt(self, moment: float) -> Attempt:
        in_trouble = self._in_trouble(moment)
        self._result.sent += in_trouble
        if in_trouble and self._random.random() < self._trouble.share:
            return self._trouble.attempt
        return HEALTHY, None

    def _in_trouble(self, moment: float) -> bool:
        return WARM_UP <= moment < self.end

    def _changed(self, _: Condition, after: Condition) -> None:
        if after.state == "open":
            self._result.openings += 1
            self._result.first_opening = min(self._result.first_opening, self.now)


Goal = tuple[str, Callable[[Result], bool], Callable[[Result], bool]]
GOALS: tuple[Goal, ...] = (
    (
        "requests sent at most 110 % of those asked for",
        lambda _: True,
        lambda r: r.sent <= 1.1 * r.asked,
    ),
    (
        "recovery seen within 11 s",
        lambda r: r.trouble.share == 1.0,
        lambda r: r.recovery <= 11.0,
    ),
    (
        "black hole: a page takes at most 3 s once",
        lambda r: r.trouble.attempt[0] == WAITING and r.trouble.share == 1.0,
        lambda r: r.longest_page <= 3.0,
    ),
    (
        "black hole, refusals: then 95 % of pages under 5 ms",
        lambda r: r.trouble.attempt in (TIMED_OUT, REFUSED) and r.is_outage,
        lambda r: r.percentile(0.95) < 0.005,
    ),
    (
        "1 % time out: 95 % of operations reach the service",
        lambda r: r.trouble.share == RARE.share,
        lambda r: r.reached >= 0.95,
    ),
    (
        "5 % time out: 99 % of operations reach the service",
        lambda r: r.trouble.share == OCCASIONAL.share,
        lambda r: r.reached >= 0.99,
    ),
    (
        "1 or 5 % time out, pages of 20: p95 at most 100 ms above the healthy one",
        lambda r: (
            r.trouble.share in (RARE.share, OCCASIONAL.share) and r.workload.page == PAGES.page
        ),
        lambda r: r.percentile(0.95) <= r.healthy + 0.1,
    ),
    (
        "1 or 5 % time out: at most 107 % of the requests",
        lambda r: r.trouble.share in (RARE.share, OCCASIONAL.share),
        lambda r: r.sent <= 1.07 * r.asked,
    ),
    (
        "healthy, slow but right, or restarted in 0.2 s: never opens",
        lambda r: r.trouble.name in (HEALTH.name, SLOW_BUT_RIGHT.name, RESTART.name),
        lambda r: r.openings == 0,
    ),
)


def missed(result: Result) -> list[str]:
    """Name the goals that concern this run and were not met."""
    return [name for name, concerns, is_met in GOALS if concerns(result) and not is_met(result)]


COLUMNS = (
    "trouble",
    "asked",
    "reached",
    "sent/asked",
    "page p50 ms",
    "p95 ms",
    "max ms",
    "first ms",
    "openings",
    "recovery s",
)


def cells(result: Result) -> list[str]:
    """Format the cells of one line of the table."""
    milliseconds = [
        1000 * seconds
        for seconds in (
            result.percentile(0.5),
            result.percentile(0.95),
            result.longest_page,
            result.first_page,
        )
    ]
    return [
        result.trouble.name,
        f"{result.asked}",
        f"{result.reached:.1%}",
        f"{result.sent / max(1, result.asked):.1%}",
        *(f"{value:.1f}" for value in milliseconds),
        f"{result.openings}",
        f"{result.recovery:.2f}",
    ]


LASTING_TRIED = (0.0, 0.25, 0.5, 1.0, 2.0)
RESTARTS = (0.2, 0.4, 0.8)


def lasting_table(seed: int) -> Iterator[str]:
    """Yield a table of what restarts cost, by how long instant failures must last to open it."""
    yield f"{BUSY.name}; the service refuses for some seconds, by `LASTING`"
    yield ""
    heads = [f"{seconds:g} s: {what}" for seconds in RESTARTS for what in ("openings", "back s")]
    yield f"| LASTING s | {' | '.join(heads)} | dead: refused before it opens | page max ms |"
    yield "|--:" * (len(heads) + 3) + "|"
    chosen = circuit.LASTING
    for lasting in LASTING_TRIED:
        circuit.LASTING = lasting
        yield f"| {lasting:g} | {' | '.join(_lasting_cells(seed))} |"
    circuit.LASTING = chosen


def _lasting_cells(seed: int) -> Iterator[str]:
    for seconds in RESTARTS:
        restart = Simulation(replace(RESTART, seconds=seconds), BUSY, seed).run()
        yield f"{restart.openings}"
        yield f"{restart.recovery:.2f}"
    dead = Simulation(LONG_RESTART, BUSY, seed).run()
    yield f"{dead.admitted}"
    yield f"{1000 * dead.longest_page:.1f}"


def main() -> int:
    """Print a table for each workload, then the goals that were missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--check", action="store_true", help="exit 1 when a goal is missed")
    arguments = parser.parse_args()
    began = time.monotonic()
    misses = []
    print(f"seed {arguments.seed}; p50 and p95 are of the pages begun after the first opening")
    for workload, troubles in RUNS:
        print(f"\n{workload.name}\n\n| {' | '.join(COLUMNS)} |")
        print("|---" + "|--:" * (len(COLUMNS) - 1) + "|")
        for trouble in troubles:
            result = Simulation(trouble, workload, arguments.seed).run()
            print(f"| {' | '.join(cells(result))} |", flush=True)
            misses += [f"{workload.name}, {trouble.name}: {goal}" for goal in missed(result)]
    print("", *lasting_table(arguments.seed), sep="\n")
    for lines in (table, cold_table, estimators_table):
        print("", *lines(arguments.seed), sep="\n")
    print(f"\n{len(misses)} goals missed", *misses, sep="\n- ")
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    return 1 if misses and arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
