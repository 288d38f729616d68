"""How cost grows: with keys, with the size of a value, with threads, with latency.

A curve is one number varied, and a workload at each of its points. It knows nothing of goals.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import workloads
from children import Children
from harness import Case, interleave
from workloads import Bench


@dataclass(frozen=True)
class Curve:
    """One varied number; ``whole_call`` counts milliseconds a call, else operations per second."""

    slug: str
    title: str
    varied: str
    points: Sequence[float]
    cases: Callable[[Bench, float], list[Case]]
    whole_call: bool = True

    @property
    def counted(self) -> str:
        """What the curve's values are."""
        return "ms a call" if self.whole_call else "gets per second"


@dataclass(frozen=True)
class Drawn:
    """A measured curve: a value per client and point."""

    curve: Curve
    points: list[float]
    series: dict[str, list[float]]


CURVES = (
    Curve(
        "keys", "get_many @ 2 ms", "keys", (1, 3, 10, 30, 100, 300, 1000),
        lambda bench, count: workloads.many(bench, int(count)),
    ),
    Curve(
        "size", "get of one value", "bytes", (100, 1_000, 10_000, 100_000, 1_000_000, 4_000_000),
        lambda bench, size: workloads.sized(bench, int(size)),
    ),
    Curve(
        "threads", "get @ 2 ms in threads", "threads", (1, 2, 4, 8, 16, 32),
        lambda bench, count: workloads.threads(bench, int(count)), whole_call=False,
    ),
    Curve(
        "latency", "get_many(100)", "ms of latency", (0, 1, 2, 5, 10, 20),
        lambda bench, latency: workloads.many(bench, 100, latency),
    ),
)  # fmt: skip


def draw(curve: Curve, children: Children, rounds: int, progress: Callable[[str], None]) -> Drawn:
    """Measure a curve, point by point."""
    drawn = Drawn(curve, [], {})
    for point in curve.points:
        progress(f"growth with {curve.slug}: {point:,.0f} {curve.varied}")
        with Bench(children) as bench:
            cases = curve.cases(bench, point)
            measured = interleave(cases, rounds, lambda _: None)
        drawn.points.append(point)
        for case in cases:
            seconds = measured.median(case.name, "wall")
            value = seconds * case.operations * 1e3 if curve.whole_call else 1 / seconds
            drawn.series.setdefault(case.name, []).append(value)
    return drawn
