"""How long cache calls took: a summary in numbers, and a plot as positions in a box.

It knows nothing of Django, of caches or of SVG. Positions are percentages of the box, counted from
its upper left corner; times stand on a logarithmic scale, the longest at the top.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

SHORTEST = 0.001  # milliseconds; a logarithm needs more than nothing
EDGE = 0.08  # decades kept free at both ends, so that no mark stands on the border
FEWEST_DECADES = 2
FEWEST_PLACES = 40  # so that the first few calls are not spread over the whole width

# Across: the calls in their order, then how often each length of time occurs.
STRIP_AT, STRIP_WIDTH = 2.0, 76.0
BARS_WIDTH = 16.0
BARS_PER_DECADE = 6
# Down: room for words above and below the lines.
TOP, BOTTOM = 6.0, 96.0


@dataclass(frozen=True)
class Call:
    """One call of a cache; the outcome is ``hit`` (of every key), ``miss`` or ``write``."""

    name: str
    outcome: str
    milliseconds: float


@dataclass(frozen=True)
class Summary:
    """How long the calls of one name took, in milliseconds."""

    name: str
    count: int
    p50: float
    p95: float
    longest: float


@dataclass(frozen=True)
class Mark:
    """Where one call stands."""

    x: float
    y: float
    call: Call


@dataclass(frozen=True)
class Line:
    """A length of time across the plot."""

    y: float
    milliseconds: float
    name: str = ""


@dataclass(frozen=True)
class Bar:
    """How many calls took about so long."""

    y: float
    height: float
    width: float
    count: int


@dataclass(frozen=True)
class Plot:
    """Everything to draw, oldest call first; ``places`` is how many the width has room for."""

    marks: list[Mark]
    ticks: list[Line]
    quantiles: list[Line]
    bars: list[Bar]
    places: int


class Scale:
    """Whole decades of milliseconds, from the bottom of the box to its top."""

    def __init__(self, times: Iterable[float]) -> None:
        logs = [log10(max(time, SHORTEST)) for time in times] or [0.0]
        self.low = floor(min(logs) - EDGE)
        self.high = max(ceil(max(logs) + EDGE), self.low + FEWEST_DECADES)

    def y(self, milliseconds: float) -> float:
        """Say how far from the top a length of time stands."""
        return self._down(log10(max(milliseconds, SHORTEST)))

    def ticks(self) -> list[Line]:
        """Give one line per decade."""
        return [Line(self._down(power), 10.0**power) for power in range(self.low, self.high + 1)]

    def bars(self, times: Iterable[float]) -> list[Bar]:
        """Count the times by sixths of a decade; the most frequent has the full width."""
        counts = Counter(
            floor(log10(max(time, SHORTEST)) * BARS_PER_DECADE) / BARS_PER_DECADE for time in times
        )
        height = self._down(0) - self._down(1 / BARS_PER_DECADE)
        return [
            Bar(
                self._down(start + 1 / BARS_PER_DECADE),
                round(height, 2),
                round(BARS_WIDTH * count / max(counts.values()), 2),
                count,
            )
            for start, count in sorted(counts.items())
        ]

    def _down(self, power: float) -> float:
        share = (power - self.low) / (self.high - self.low)
        return round(BOTTOM - (BOTTOM - TOP) * share, 2)


def plot(calls: Sequence[Call]) -> Plot:
    """Place the calls from left to right, the newest at the right end, and count them beside."""
    times = [call.milliseconds for call in calls]
    scale = Scale(times)
    places = max(len(calls), FEWEST_PLACES)
    first = places - len(calls)
    step = STRIP_WIDTH / (places - 1)
    marks = [
        Mark(round(STRIP_AT + step * number, 2), scale.y(call.milliseconds), call)
        for number, call in enumerate(calls, first)
    ]
    return Plot(marks, scale.ticks(), _quantiles(calls, scale), scale.bars(times), places)


def summary(name: str, calls: Iterable[Call]) -> Summary:
    """Summarize calls, of which there is at least one."""
    times = sorted(call.milliseconds for call in calls)
    return Summary(name, len(times), quantile(times, 0.5), quantile(times, 0.95), times[-1])


def summaries(calls: Sequence[Call]) -> list[Summary]:
    """Summarize the calls of each name, the most frequent name first."""
    names = Counter(call.name for call in calls)
    return [
        summary(name, [call for call in calls if call.name == name])
        for name, _ in names.most_common()
    ]


def _quantiles(calls: Sequence[Call], scale: Scale) -> list[Line]:
    if not calls:
        return []
    every = summary("all", calls)
    return [
        Line(scale.y(every.p50), every.p50, "p50"),
        Line(scale.y(every.p95), every.p95, "p95"),
    ]


def quantile(ordered: Sequence[float], share: float) -> float:
    """Give the smallest value that this share of the values does not exceed."""
    return ordered[max(ceil(share * len(ordered)), 1) - 1]


def duration(milliseconds: float) -> str:
    """Write a length of time in three digits or fewer, with its unit."""
    if milliseconds >= 999.5:
        return f"{milliseconds / 1000:.3g} s"
    if milliseconds >= 0.09995:
        return f"{milliseconds:.3g} ms"
    return f"{milliseconds * 1000:.3g} µs"
