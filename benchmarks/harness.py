"""How things are measured: short interleaved rounds, wall and CPU, ratios per round.

A round runs every case once, one after the other, so that what disturbs the machine disturbs all of
them; a ratio is taken within a round. It knows nothing of what the cases do.
"""

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles

_WARM_UP_SECONDS = 0.15
_MIN_WARM_UP_CALLS = 3


@dataclass(frozen=True)
class Case:
    """One client doing one thing; ``expected`` is what a call must return."""

    name: str
    call: Callable[[], object]
    expected: object
    operations: int = 1
    # Measured in every third round only.
    slow: bool = False

    def check(self) -> None:
        """Raise unless a call returns what it must: a failure would look fast."""
        got = self.call()
        if got != self.expected:
            raise RuntimeError(f"{self.name} returned {str(got)[:80]}")


@dataclass(frozen=True)
class Sample:
    """Seconds of one operation."""

    wall: float
    cpu: float


@dataclass
class Measured:
    """What the rounds of one workload gave, per case and round; None where a case sat out."""

    samples: dict[str, list[Sample | None]]
    operations: dict[str, int]
    readings: dict[str, list[float]] = field(default_factory=dict)
    # Cores that other programs kept busy meanwhile; None where it cannot be told.
    disturbance: float | None = None

    def median(self, name: str, measure: str) -> float:
        """Return the median seconds of one operation."""
        samples = [sample for sample in self.samples[name] if sample is not None]
        return float(median(getattr(sample, measure) for sample in samples))

    def ratio(self, subject: str, peer: str, measure: str) -> "Spread":
        """Return subject divided by peer, round by round."""
        pairs = zip(self.samples[subject], self.samples[peer], strict=True)
        values = [
            getattr(a, measure) / getattr(b, measure)
            for a, b in pairs
            if a is not None and b is not None
        ]
        return Spread.of(values)


@dataclass(frozen=True)
class Spread:
    """A median with the quartiles around it."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Summarize values; one alone has no spread."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, middle, high = quantiles(values, n=4, method="inclusive")
        return cls(low, middle, high)

    def inverse(self) -> "Spread":
        """Return the spread of one divided by these values."""
        return Spread(1 / self.high, 1 / self.middle, 1 / self.low)


def _warm_up(case: Case, sample_seconds: float) -> int:
    """Check the case, run it warm, and return how many calls make a sample."""
    case.check()
    started = time.perf_counter()
    calls = 0
    while calls < _MIN_WARM_UP_CALLS or time.perf_counter() - started < _WARM_UP_SECONDS:
        case.call()
        calls += 1
        if time.perf_counter() - started > _WARM_UP_SECONDS * 4:
            break
    return max(1, round(sample_seconds / ((time.perf_counter() - started) / calls)))


def _measure(case: Case, calls: int) -> Sample:
    call = case.call
    count = range(calls)
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in count:
        call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    operations = calls * case.operations
    return Sample(wall / operations, cpu / operations)


def interleave(
    cases: Sequence[Case],
    rounds: int,
    progress: Callable[[int], None],
    sample_seconds: float = 0.04,
) -> Measured:
    """Run A B C, A B C, … and return what each round gave."""
    calls = {case.name: _warm_up(case, sample_seconds) for case in cases}
    measured = Measured(
        {case.name: [] for case in cases}, {case.name: case.operations for case in cases}
    )
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        for number in range(rounds):
            progress(number)
            for case in cases:
                sits_out = case.slow and number % 3 != 0
                sample = None if sits_out else _measure(case, calls[case.name])
                measured.samples[case.name].append(sample)
    finally:
        gc.enable()
        gc.unfreeze()
    for case in cases:
        case.check()
    return measured
