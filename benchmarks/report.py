"""What a run found, as Markdown and JSON: it measures nothing, and judges by the rows' goals."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ceiling import Ceiling
from growth import Drawn
from harness import Measured, Spread
from rows import FOR_INFORMATION, GOALS, TIMES, Row

_ENOUGH = 5
_INTRODUCTION = """# Benchmark results

Written by `python benchmarks/run.py`; do not edit. Figures are medians of interleaved rounds, in
brackets the quartiles; a ratio is taken within a round.
"""
_WORDS = {True: "met", False: "**missed**", None: ""}


@dataclass
class Results:
    """Everything that a run found."""

    machine: dict[str, str]
    ceiling: Ceiling
    pinned: bool
    measured: dict[str, Measured] = field(default_factory=dict)
    drawn: list[Drawn] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def figures(self, rows: Sequence[Row]) -> dict[Row, Spread]:
        """Return what was found for each row that was run."""
        figures = {}
        for row in rows:
            measured = self.measured.get(row.workload)
            figure = row.figure(measured) if measured is not None else None
            if figure is not None:
                figures[row] = figure
        return figures

    def fastest(self) -> tuple[str, float] | None:
        """Return the client that had the most of the stand-in, and its requests per second."""
        rates = [
            (1 / measured.median(name, "wall"), f"{name} ({workload})")
            for workload, measured in self.measured.items()
            for name in measured.samples
            # Beside a core that is shared, these others do not ask the stand-in.
            if workload not in ("near", "instance", "copies", "page")
            and not name.startswith(("PyMem", "Redis", "Momento SDK"))
        ]
        return (max(rates)[1], max(rates)[0]) if rates else None


def write(results: Results, folder: Path) -> None:
    """Write ``results.md`` and ``results.json``."""
    (folder / "results.md").write_text(_markdown(results), encoding="utf-8")
    (folder / "results.json").write_text(json.dumps(_plain(results), indent=1) + "\n")


def number(value: float) -> str:
    """Return three significant digits without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table: the first column to the left, the others to the right."""
    lines = [heads, ["---"] + ["--:"] * (len(heads) - 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _ceiling(results: Results) -> str:
    ceiling, fastest = results.ceiling, results.fastest()
    text = f"Stand-in server ({ceiling.kind}): {ceiling.pipelined:,.0f} requests/s pipelined"
    if ceiling.one_by_one:
        text += f", {ceiling.one_by_one:,.0f} requests/s with a packet each (from its CPU time)"
    if fastest is None:
        return text + "."
    name, rate = fastest
    # A client that waits for its replies sends a packet each: that ceiling is the one that counts.
    factor = (ceiling.one_by_one or ceiling.pipelined) / rate
    verdict = "" if factor >= _ENOUGH else f" **That is less than the {_ENOUGH} {TIMES} wanted.**"
    text += f". The fastest client, {name}, reached {rate:,.0f} requests/s:"
    return f"{text} the ceiling is {factor:.1f} {TIMES} that.{verdict}"


def _markdown(results: Results) -> str:
    parts = [
        _INTRODUCTION,
        _goals(results),
        "![Goals and how cost grows](results.svg)\n",
        _information(results),
        _absolute(results),
        *map(_growth, results.drawn),
        _conditions(results),
    ]
    return "\n".join(part for part in parts if part)


def _spread(figure: Spread) -> str:
    return f"{number(figure.middle)} ({number(figure.low)} to {number(figure.high)})"


def _goals(results: Results) -> str:
    lines = [
        [
            row.what,
            row.goal_text,
            f"{_spread(figure)} {row.unit}",
            _WORDS[row.is_met(figure)],
            _disturbance(results.measured[row.workload]),
        ]
        for row, figure in results.figures(GOALS).items()
    ]
    met = sum(row.is_met(figure) is True for row, figure in results.figures(GOALS).items())
    heading = f"## Goals: {met} of {len(lines)} met\n\n"
    return heading + table(["what", "goal", "measured", "", "cores used by others"], lines)


def _disturbance(measured: Measured) -> str:
    return "unknown" if measured.disturbance is None else f"{measured.disturbance:.2f}"


def _information(results: Results) -> str:
    lines = [
        [row.what, f"{_spread(figure)} {row.unit}"]
        for row, figure in results.figures(FOR_INFORMATION).items()
    ]
    return "## To know\n\n" + table(["what", "measured"], lines) if lines else ""


def _absolute(results: Results) -> str:
    lines = [
        [workload, name, f"{measured.operations[name]}", *_times(measured, name)]
        for workload, measured in results.measured.items()
        for name in measured.samples
    ]
    heads = ["workload", "client", "operations a call", "wall of a call", "client CPU of a call"]
    return "## Absolute figures\n\n" + table(heads, lines)


def _times(measured: Measured, name: str) -> list[str]:
    count = measured.operations[name]
    return [_duration(measured.median(name, measure) * count) for measure in ("wall", "cpu")]


def _duration(seconds: float) -> str:
    return f"{number(seconds * 1e6)} µs" if seconds < 1e-3 else f"{number(seconds * 1e3)} ms"


def _growth(drawn: Drawn) -> str:
    curve = drawn.curve
    lines = [[name, *(number(value) for value in values)] for name, values in drawn.series.items()]
    heads = [f"{curve.counted}, by {curve.varied}", *(f"{point:,.0f}" for point in drawn.points)]
    return f"## {curve.title}, by {curve.varied}\n\n" + table(heads, lines)


def conditions(results: Results) -> str:
    """Say under which conditions the run was made, in sentences."""
    text = _ceiling(results)
    if results.pinned:
        text += " Client and servers are pinned to a core each."
    else:
        text += " Client and servers are not pinned: the platform cannot, or has one core."
    disturbances = [
        measured.disturbance
        for measured in results.measured.values()
        if measured.disturbance is not None
    ]
    if disturbances:
        text += f" Other programs kept up to {max(disturbances):.2f} of a core busy meanwhile."
    return text


def _conditions(results: Results) -> str:
    versions = "".join(f"- {name}: {text}\n" for name, text in results.machine.items())
    left_out = "".join(f"- left out: {name}: {why}\n" for name, why in results.left_out.items())
    return f"## Conditions\n\n{conditions(results)}\n\n{versions}{left_out}"


def _plain(results: Results) -> Mapping[str, object]:
    return {
        "machine": results.machine,
        "ceiling": vars(results.ceiling),
        "rows": {
            row.slug: {
                "what": row.what,
                "goal": row.goal_text,
                "unit": row.unit,
                **vars(figure),
                "met": row.is_met(figure),
            }
            for row, figure in results.figures(GOALS + FOR_INFORMATION).items()
        },
        "seconds_per_operation": {
            workload: {
                name: {measure: measured.median(name, measure) for measure in ("wall", "cpu")}
                for name in measured.samples
            }
            for workload, measured in results.measured.items()
        },
        "growth": {
            drawn.curve.slug: {"points": drawn.points, **drawn.series} for drawn in results.drawn
        },
        "left_out": results.left_out,
        "cores_used_by_others": {
            workload: measured.disturbance for workload, measured in results.measured.items()
        },
    }
