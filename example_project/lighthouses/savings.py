"""How many requests the copies in the process saved, as positions in a box.

It knows nothing of Django, of caches or of SVG. Positions are percentages of the box, counted from
its upper left corner; requests stand on a linear scale that begins at none.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

FEWEST_PLACES = 40  # so that the first few calls are not spread over the whole width
FEWEST_REQUESTS = 4  # what the height has room for at least
MOST_TICKS = 4
TOP, BOTTOM = 6.0, 96.0  # room for words above and below


@dataclass(frozen=True)
class Sample:
    """What a process had counted after one call: requests sent, and reads that copies answered."""

    sent: int
    saved: int


@dataclass(frozen=True)
class Tick:
    """A number of requests across the plot."""

    y: float
    count: int

    @property
    def label(self) -> str:
        return f"{self.count:,}"


@dataclass(frozen=True)
class Plot:
    """Two areas on top of each other, as points of polygons; ``places`` is what the width holds."""

    ticks: list[Tick]
    sent: str
    saved: str
    sent_count: int
    saved_count: int
    places: int

    @property
    def sent_label(self) -> str:
        return f"{self.sent_count:,}"

    @property
    def saved_label(self) -> str:
        return f"{self.saved_count:,}"


def plot(samples: Sequence[Sample]) -> Plot:
    """Give each call since the first sample a column, the newest at the right end."""
    first, *calls = samples
    sent = [sample.sent - first.sent for sample in calls]
    saved = [sample.saved - first.saved for sample in calls]
    both = list(map(sum, zip(sent, saved, strict=True)))
    places = max(len(calls), FEWEST_PLACES)
    most = max([*both, FEWEST_REQUESTS])
    step = _step(most)
    top = step * ceil(most / step)
    lower, upper = _outline(sent, places, top), _outline(both, places, top)
    ground = _outline([0] * len(calls), places, top)
    return Plot(
        ticks=[Tick(_down(count, top), count) for count in range(0, top + 1, step)],
        sent=_points([*lower, *reversed(ground)]),
        saved=_points([*upper, *reversed(lower)]),
        sent_count=sum(sent[-1:]),
        saved_count=sum(saved[-1:]),
        places=places,
    )


def _step(most: int) -> int:
    """Give 1, 2 or 5 times a power of ten, so that there are few ticks and whole numbers."""
    power = 10 ** floor(log10(most / MOST_TICKS)) if most > MOST_TICKS else 1
    return next(power * times for times in (1, 2, 5, 10) if most / (power * times) <= MOST_TICKS)


def _down(count: int, top: int) -> float:
    return round(BOTTOM - (BOTTOM - TOP) * count / top, 2)


def _outline(counts: Sequence[int], places: int, top: int) -> list[tuple[float, float]]:
    """Give the upper corners of the columns from left to right."""
    width, first = 100 / places, places - len(counts)
    corners = []
    for number, count in enumerate(counts, first):
        corners += [(width * number, _down(count, top)), (width * (number + 1), _down(count, top))]
    return corners


def _points(corners: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in ((round(x, 2), y) for x, y in corners))
