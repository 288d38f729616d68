"""Measure the package against its goals: ``python benchmarks/run.py``.

Writes ``results.md``, ``results.svg`` and ``results.json``. It knows the order of things, and
leaves each to a module of its own.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import ceiling
import django
import growth
import machine
import plot
import report
import rows
import workloads
from children import Children
from django.conf import settings
from harness import interleave
from rows import Row
from workloads import Bench

_STARTED = time.perf_counter()
_QUICK_ROUNDS = 4
_GROWTH_ROUNDS = 7


def _arguments(slugs: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few rounds of everything")
    parser.add_argument(
        "--only", action="append", default=[], metavar="ROW", choices=slugs,
        help=f"this row and those measured with it (may be given again): {', '.join(slugs)}",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent, metavar="DIR", help="where results go"
    )
    return parser.parse_args()


def _prepare() -> None:
    """Make Django usable, and every client speak to loopback directly."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            del os.environ[name]
    settings.configure(SECRET_KEY="benchmarks")
    django.setup()


def _progress(text: str) -> None:
    """Print the text with the seconds since the start."""
    seconds = time.perf_counter() - _STARTED
    print(f"{seconds:6.1f} s  {text}", file=sys.stderr, flush=True)


def _measure(
    results: report.Results, children: Children, rows_wanted: Sequence[Row], *, quick: bool
) -> None:
    for name in dict.fromkeys(row.workload for row in rows_wanted):
        workload = workloads.ALL[name]
        rounds = _QUICK_ROUNDS if quick else workload.rounds
        with Bench(children) as bench:
            _progress(f"{name}: warming up")
            cases = workload.cases(bench)
            neighbours = machine.Neighbours(children.cpu_seconds())
            measured = interleave(cases, rounds, partial(_tell_round, name, rounds))
            measured.disturbance = neighbours.cores_used(children.cpu_seconds())
            if workload.readings is not None:
                measured.readings = workload.readings(bench, rounds)
        results.measured[name] = measured
        for row in rows_wanted:
            figure = row.figure(measured) if row.workload == name else None
            if figure is not None:
                goal = f", goal {row.goal_text}" if row.goal is not None else ""
                _progress(f"  {row.what}: {report.number(figure.middle)} {row.unit}{goal}")


def _tell_round(name: str, rounds: int, number: int) -> None:
    if number % 5 == 0:
        _progress(f"{name}: round {number + 1} of {rounds}")


def main() -> None:
    """Run what the command line asks for."""
    arguments = _arguments([row.slug for row in rows.ALL])
    _prepare()
    wanted = [row for row in rows.ALL if not arguments.only or row.slug in arguments.only]
    children = Children()
    try:
        _progress("measuring the stand-in's ceiling")
        found = ceiling.measure(children)
        results = report.Results(machine.description(), found, children.are_pinned)
        _measure(results, children, wanted, quick=arguments.quick)
        for curve in () if arguments.only else growth.CURVES:
            rounds = _QUICK_ROUNDS if arguments.quick else _GROWTH_ROUNDS
            results.drawn.append(growth.draw(curve, children, rounds, _progress))
        results.left_out = children.left_out
    finally:
        children.close()
    arguments.out.mkdir(parents=True, exist_ok=True)
    report.write(results, arguments.out)
    plot.write(results, arguments.out / "results.svg")
    _progress(report.conditions(results))
    _progress(f"written: results.md, results.svg, results.json in {arguments.out}")


if __name__ == "__main__":
    main()
