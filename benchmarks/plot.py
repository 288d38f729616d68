"""The picture of a run: every goal with its distance, and how cost grows. It measures nothing."""

from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
from growth import Drawn
from harness import Spread
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter
from report import Results, number
from rows import GOALS, Row

_MET, _MISSED = "#2a7f5f", "#c4472b"
_COLOURS = {
    "MomentoCache": "#2a7f5f",
    "selectors floor": "#8a8a8a",
    "raw socket": "#8a8a8a",
    "transport": "#7fbfa5",
    "urllib3": "#4a78b5",
    "requests": "#c4472b",
}


def write(results: Results, path: Path) -> None:
    """Draw the goals above the growth curves."""
    # The same figures give the same file, and text stays text.
    mpl.rcParams.update({"svg.hashsalt": "benchmarks", "svg.fonttype": "none", "font.size": 9})
    goals = results.figures(GOALS)
    heights = [1.2 + 0.26 * len(goals)] + [3.2] * ((len(results.drawn) + 1) // 2)
    figure = plt.figure(figsize=(11, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    _draw_goals(parts[0].add_subplot(), goals)
    for index, drawn in enumerate(results.drawn):
        part = parts[1 + index // 2]
        _draw_growth(part.add_subplot(1, 2, 1 + index % 2), drawn)
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)


def _draw_goals(axes: Axes, figures: dict[Row, Spread]) -> None:
    """Draw cost as a part of what the goal allows: left of 1 is met, whichever way it is put."""
    for index, (row, spread) in enumerate(figures.items()):
        assert row.goal is not None
        parts = [row.goal / value for value in (spread.low, spread.middle, spread.high)]
        low, middle, high = parts if row.kind == "at least" else [1 / part for part in parts]
        colour = _MET if row.is_met(spread) else _MISSED
        axes.barh(index, middle, color=colour, height=0.62)
        axes.plot([low, high], [index, index], color="black", linewidth=1)
        text = f" {number(spread.middle)} {row.unit} (goal {row.goal_text})"
        axes.text(max(low, middle, high), index, text, va="center")
    axes.axvline(1, color="black", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(figures)), [row.what.replace("`", "") for row in figures])
    axes.invert_yaxis()
    axes.set_xlim(0, max(1.9, axes.get_xlim()[1] * 1.35))
    axes.set_xlabel("cost as a part of what the goal allows: left of the line is met")
    axes.set_title("Goals")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_growth(axes: Axes, drawn: Drawn) -> None:
    for name, values in drawn.series.items():
        colours = (colour for start, colour in _COLOURS.items() if name.startswith(start))
        axes.plot(drawn.points, values, marker="o", markersize=3, label=name, color=next(colours))
    if 0 not in drawn.points:
        axes.set_xscale("log")
    if drawn.curve.whole_call:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xticks(drawn.points, [EngFormatter(sep="")(point) for point in drawn.points])
    axes.minorticks_off()
    axes.set_title(drawn.curve.title)
    axes.set_xlabel(drawn.curve.varied)
    axes.set_ylabel(drawn.curve.counted)
    axes.grid(visible=True, which="major", linewidth=0.3)
    axes.legend(fontsize=7)
    axes.spines[["top", "right"]].set_visible(False)
