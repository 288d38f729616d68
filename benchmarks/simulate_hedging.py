"""Drive the real Hedging and RetryBudget through latencies on a virtual clock.

A read is the seconds after which its answer comes, and what the answer is. Connections are not
modelled: a second request starts when it is asked for. ``python benchmarks/simulate_breaker.py``
prints these tables behind its own.
"""

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from django_momento_http._client.retry import RetryBudget
from django_momento_http._http import hedging
from django_momento_http._http.hedging import Hedging, Silence
from django_momento_http.exceptions import ConnectFailed, MomentoError, TimedOut

WAITING = 0.95  # seconds that an operation waits at most
PAGES_PER_SECOND = 5.0
WIDTH = 64  # requests of a get_many under way at once
_RECORDED = 8  # of so many answers of a get_many one is recorded: those that come together are one

Attempt = tuple[float, MomentoError | None]
Draw = Callable[[float], Attempt]  # at a moment, in seconds
LOST: Attempt = (math.inf, None)


class Raced(NamedTuple):
    """What came of one GET: its seconds, its error, and how many requests it made."""

    seconds: float
    error: MomentoError | None
    requests: int


def race(start: float, draw: Draw, hedges: Hedging | None, waiting: float = WAITING) -> Raced:
    """Return what comes of a GET that is asked for at a moment."""
    ends = [_end(start, draw)]
    if isinstance(ends[0][2], ConnectFailed):
        hedges = None  # only what was sent can be silent
    due = math.inf if hedges is None else hedges.due_at(start, 1)
    # Asked again only while nothing that counts has come, and something may still come.
    while hedges is not None and due < min(_over(ends), start + waiting):
        if hedges.may_ask():
            ends.append(_end(due, draw))
        due = hedges.due_at(due, len(ends))
    answers = [(end, seconds) for end, seconds, error in ends if error is None]
    end, silence = min(answers, default=(math.inf, 0.0))
    if end <= start + waiting:
        if hedges is not None:
            hedges.silence.record(silence)
        return Raced(end - start, None, len(ends))
    end, _, error = max(ends, key=lambda one: one[0])
    if error is None or end > start + waiting:
        return Raced(waiting, TimedOut("no answer in time"), len(ends))
    return Raced(end - start, error, len(ends))


def _end(sent: float, draw: Draw) -> tuple[float, float, MomentoError | None]:
    seconds, error = draw(sent)
    return sent + seconds, seconds, error


def _over(ends: Sequence[tuple[float, float, MomentoError | None]]) -> float:
    first = min((end for end, _, error in ends if error is None), default=math.inf)
    return min(first, max(end for end, _, _ in ends))


# Latencies


@dataclass(frozen=True)
class Latency:
    """How long answers take, and which of them never come."""

    name: str
    draw: Callable[[Random, float], float]
    lost: float = 0.0
    is_healthy: bool = True  # a second request would only cost
    large: float = 0.0  # the share of values that take ten times as long, whoever is asked

    def drawn(self, chance: Random) -> Draw:
        """Return what gives each request for one key its fate."""
        times = 10 if chance.random() < self.large else 1

        def attempt(moment: float) -> Attempt:
            if chance.random() < self.lost:
                return LOST
            return times * self.draw(chance, moment), None

        return attempt


def _near(chance: Random, _: float) -> float:
    return 0.002 * chance.lognormvariate(0.0, 0.25)


def _with_tail(chance: Random, _: float) -> float:
    tail = chance.paretovariate(1.5) * 0.01 if chance.random() < 0.01 else 0.0
    return 0.002 * chance.lognormvariate(0.0, 0.5) + tail


def _one_in_ten_slow(chance: Random, moment: float) -> float:
    """Behind the endpoint, one of ten machines takes ten times as long."""
    return (10 if chance.random() < 0.1 else 1) * _near(chance, moment)


def _stalling(chance: Random, moment: float) -> float:
    return max(0.2 - moment % 1.0, 0.0) + _near(chance, moment)


def _far(chance: Random, _: float) -> float:
    return 0.080 * chance.lognormvariate(0.0, 0.1)


def _slow(chance: Random, _: float) -> float:
    return 0.400 * chance.lognormvariate(0.0, 0.1)


def _turning_slow(chance: Random, moment: float) -> float:
    return _near(chance, moment) if moment % 120.0 < 60.0 else _slow(chance, moment) / 2


def _late(chance: Random, moment: float) -> float:
    return (0.4 if chance.random() < 0.01 else 0.0) + _near(chance, moment)


LATENCIES = (
    Latency("2 ms", _near),
    Latency("2 ms, log-normal with a tail", _with_tail),
    Latency("2 ms, one value in ten 20 ms", _near, large=0.1),
    Latency("2 ms, one machine in ten 20 ms", _one_in_ten_slow),
    Latency("2 ms, a stall of 200 ms each second", _stalling),
    Latency("80 ms, far away", _far),
    Latency("400 ms, slow but right", _slow),
    Latency("2 ms, 200 ms every other minute", _turning_slow),
    Latency("1 % come 400 ms late", _late, is_healthy=False),
    *(
        Latency(f"{lost:.0%} lost".replace("%", " %"), _near, lost, is_healthy=False)
        for lost in (0.01, 0.05, 0.1, 0.2)
    ),
)


# Runs


@dataclass
class Pages:
    """The pages of one run, in the order of their beginnings."""

    seconds: list[float]
    asked: int = 0
    sent: int = 0
    failed: int = 0

    def percentile(self, share: float) -> float:
        """The milliseconds that this share of the pages stays under."""
        times = sorted(self.seconds)
        return 1000 * times[min(len(times) - 1, int(share * len(times)))]

    @property
    def extra(self) -> float:
        """The share of requests beyond one for each key."""
        return self.sent / self.asked - 1


class Reads:
    """One process that reads pages; ``silence`` None: it never asks again."""

    def __init__(self, latency: Latency, seed: int, silence: Silence | None) -> None:
        self._chance = Random(f"{seed} {latency.name}")
        self._latency = latency
        self._budget = RetryBudget()
        self._hedging = None
        if silence is not None:
            self._hedging = Hedging(silence, self._budget, lambda: True)

    def pages(self, count: int, page: Callable[[float, Pages], float]) -> Pages:
        """Read so many pages, which come at random."""
        found, now = Pages([]), 0.0
        for _ in range(count):
            now += self._chance.expovariate(PAGES_PER_SECOND)
            found.seconds.append(page(now, found))
        return found

    def one_by_one(self, start: float, found: Pages) -> float:
        """Read 20 keys, one after the other."""
        now = start
        for _ in range(20):
            now += self._read(now, found, self._hedging)
        return now - start

    def at_once(self, start: float, found: Pages) -> float:
        """Read 100 keys with one get_many."""
        ends = [start] * WIDTH
        for number in range(100):
            begun = heapq.heappop(ends)
            chosen = self._hedging
            if chosen is not None and number % _RECORDED:
                chosen = _Unheard(chosen)
            heapq.heappush(ends, begun + self._read(begun, found, chosen))
        return max(ends) - start

    def _read(self, start: float, found: Pages, chosen: Hedging | None) -> float:
        raced = race(start, self._latency.drawn(self._chance), chosen)
        self._budget.earn()
        found.asked += 1
        found.sent += raced.requests
        found.failed += raced.error is not None
        return raced.seconds


class _Unheard(Hedging):
    """Decides like another, and takes in nothing."""

    def __init__(self, other: Hedging) -> None:
        super().__init__(_Deaf(other.silence), other._budget, lambda: True)


class _Deaf(Silence):
    def __init__(self, other: Silence) -> None:
        super().__init__()
        self.threshold = other.threshold

    def record(self, seconds: float) -> None:
        """Take in nothing."""


# Estimators


class Quantile(Silence):
    """A multiple of a quantile, like the real one, with numbers of its own."""

    def __init__(
        self, share: float, factor: float, floor: float, every: int = hedging.RENEWED_EVERY
    ) -> None:
        super().__init__()
        self._share, self._factor, self._floor, self._every = share, factor, floor, every
        self._recent: list[float] = []

    def record(self, seconds: float) -> None:
        """Take in the longest silence of an answer."""
        self._recent.append(seconds)
        if len(self._recent) >= hedging.ENOUGH and not len(self._recent) % self._every:
            self._recent = self._recent[-hedging.WINDOW :]
            longest = sorted(self._recent)[int(self._share * len(self._recent))]
            self.threshold = max(self._floor, self._factor * longest)


class Deviations(Silence):
    """A moving mean and four mean deviations (Jacobson, 1988)."""

    def __init__(self) -> None:
        super().__init__()
        self._seen, self._mean, self._deviation = 0, 0.0, 0.0

    def record(self, seconds: float) -> None:
        """Take in the longest silence of an answer."""
        self._seen += 1
        off = seconds - self._mean
        self._mean += off / 8
        self._deviation += (abs(off) - self._deviation) / 4
        if self._seen >= hedging.ENOUGH:
            self.threshold = max(hedging.FLOOR, self._mean + 4 * self._deviation)


Make = Callable[[], Silence]
ESTIMATORS: tuple[tuple[str, Make], ...] = (
    *(
        (
            f"p{100 * share:.0f} x {factor:g}",
            lambda s=share, f=factor: Quantile(s, f, hedging.FLOOR),
        )
        for share in (0.9, 0.95, 0.99)
        for factor in (1, 2, 3)
    ),
    *(
        (f"p95 x 2, every {every}", lambda e=every: Quantile(0.95, 2, hedging.FLOOR, e))
        for every in (8, 32)
    ),
    ("mean + 4 deviations", Deviations),
    *(
        (f"p95 x 2, floor {1000 * floor:g} ms", lambda f=floor: Quantile(0.95, 2, f))
        for floor in (0.002, 0.005, 0.02, 0.05)
    ),
)

WORKLOADS = (("20 gets, one after the other", Reads.one_by_one), ("get_many of 100", Reads.at_once))


def table(seed: int, pages: int = 1000) -> Iterator[str]:
    """Yield, for each workload, what a page takes without and with hedging."""
    yield "reads, plain and hedged, by how long answers take"
    yield ""
    for name, page in WORKLOADS:
        yield f"a page of {name}:"
        yield ""
        yield "| latency | plain: p50 ms | p95 | p99 | hedged: p50 | p95 | p99 | failed | extra |"
        yield "|---" + "|--:" * 8 + "|"
        for latency in LATENCIES:
            cells = []
            for silence in (None, Silence()):
                reads = Reads(latency, seed, silence)
                found = reads.pages(pages, page.__get__(reads))
                cells += [f"{found.percentile(share):.0f}" for share in (0.5, 0.95, 0.99)]
            cells += [f"{found.failed / found.asked:.2%}", f"{found.extra:.2%}"]
            yield f"| {latency.name} | {' | '.join(cells)} |"
        yield ""


def cold_table(seed: int, runs: int = 300) -> Iterator[str]:
    """Yield what the first page of a process takes."""
    yield "the first page of a process, of 20 gets:"
    yield ""
    yield "| latency | plain: p95 ms | hedged: p95 ms | extra |"
    yield "|---|--:|--:|--:|"
    for latency in (one for one in LATENCIES if one.lost or "late" in one.name):
        cells = []
        for is_hedged in (False, True):
            found = Pages([])
            for number in range(runs):
                silence = Silence() if is_hedged else None
                reads = Reads(latency, seed * runs + number, silence)
                found.seconds.append(reads.one_by_one(0.0, found))
            cells.append(f"{found.percentile(0.95):.0f}")
        yield f"| {latency.name} | {' | '.join(cells)} | {found.extra:.2%} |"


def estimators_table(seed: int, pages: int = 300) -> Iterator[str]:
    """Yield what ways to find the threshold cost where all is well, and save where it is not."""
    healthy = [one for one in LATENCIES if one.is_healthy]
    troubled = [one for one in LATENCIES if one.name in ("5 % lost", "1 % come 400 ms late")]
    yield "ways to find what is too long: extra requests, and a page's p95"
    yield ""
    heads = [f"extra: {one.name}" for one in healthy]
    heads += [f"page p95 ms: {one.name}" for one in troubled]
    yield f"| threshold | {' | '.join(heads)} |"
    yield "|---" + "|--:" * len(heads) + "|"
    for name, make in ESTIMATORS:
        cells = []
        for latency in healthy + troubled:
            reads = Reads(latency, seed, make())
            found = reads.pages(pages, reads.one_by_one)
            is_healthy = latency in healthy
            cells.append(f"{found.extra:.2%}" if is_healthy else f"{found.percentile(0.95):.0f}")
        yield f"| {name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    print(*table(1), *cold_table(1), "", *estimators_table(1), sep="\n")
