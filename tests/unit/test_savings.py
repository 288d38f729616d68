"""The plot of what copies saved, as the example works it out, in a module that imports nothing."""

import re
import runpy
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

EXAMPLE = Path(__file__).parents[2] / "example_project"
Corners = list[tuple[float, float]]


@pytest.fixture
def savings() -> SimpleNamespace:
    """The module that works the plot out."""
    return SimpleNamespace(**runpy.run_path(str(EXAMPLE / "lighthouses" / "savings.py")))


def corners(points: str) -> Corners:
    """Read the points of a polygon."""
    return [tuple(map(float, point.split(","))) for point in points.split()]


def height_at_the_end(points: str) -> float:
    """Say how high an area is at its right edge."""
    found = corners(points) or [(0, 0)]
    right = max(x for x, _ in found)
    ends = [y for x, y in found if x == right]
    return max(ends) - min(ends)


COUNTED = {
    "nothing": [(0, 0)],
    "one request": [(0, 0), (1, 0)],
    "all saved": [(7, 3), (7, 40)],
    "none saved": [(0, 0), (60, 0), (120, 0)],
    "both": [(0, 0), (10, 0), (10, 30), (12, 1000)],
    "a full record": [(count, 2 * count) for count in range(201)],
    "many": [(0, 0), (10**7, 10**8)],
}


@pytest.mark.parametrize("counted", COUNTED.values(), ids=COUNTED)
def test_both_areas_are_inside_the_box(
    savings: SimpleNamespace, counted: list[tuple[int, int]]
) -> None:
    """Whatever the counts, areas and lines stand between 0 and 100 per cent."""
    plot = savings.plot([savings.Sample(*each) for each in counted])

    for x, y in corners(plot.sent) + corners(plot.saved):
        assert 0 <= x <= 100
        assert 0 < y < 100
    assert len(counted) == 1 or max(x for x, _ in corners(plot.sent)) == 100
    assert all(0 < tick.y < 100 for tick in plot.ticks)


@pytest.mark.parametrize("counted", COUNTED.values(), ids=COUNTED)
def test_heights_are_the_counts(savings: SimpleNamespace, counted: list[tuple[int, int]]) -> None:
    """At the right edge each area is as high as its count, on the scale that the lines have."""
    plot = savings.plot([savings.Sample(*each) for each in counted])

    (first_sent, first_saved), (sent, saved) = counted[0], counted[-1]
    assert (plot.sent_count, plot.saved_count) == (sent - first_sent, saved - first_saved)
    none, *_, top = plot.ticks
    unit = (none.y - top.y) / top.count
    assert none.count == 0
    assert height_at_the_end(plot.sent) == pytest.approx(plot.sent_count * unit, abs=0.02)
    assert height_at_the_end(plot.saved) == pytest.approx(plot.saved_count * unit, abs=0.02)


@pytest.mark.parametrize("counted", COUNTED.values(), ids=COUNTED)
def test_the_lines_have_round_numbers(
    savings: SimpleNamespace, counted: list[tuple[int, int]]
) -> None:
    """There are few of them, at equal distances, each 1, 2 or 5 times a power of ten apart."""
    plot = savings.plot([savings.Sample(*each) for each in counted])

    numbers = [tick.count for tick in plot.ticks]
    assert 3 <= len(numbers) <= 6
    assert len({after - before for before, after in pairwise(numbers)}) == 1
    assert re.fullmatch("(1|2|5)0*", str(numbers[1]))
    assert numbers[-1] >= plot.sent_count + plot.saved_count


def test_the_newest_call_is_at_the_right(savings: SimpleNamespace) -> None:
    """Few calls stand at the right end, each as a column; many take the whole width."""
    few = savings.plot([savings.Sample(0, 0), savings.Sample(1, 0), savings.Sample(1, 3)])
    many = savings.plot([savings.Sample(count, 0) for count in range(201)])

    assert sorted({x for x, _ in corners(few.sent)}) == [95, 97.5, 100]
    assert min(x for x, _ in corners(many.sent)) == 0
    assert (few.places, many.places) == (40, 200)
