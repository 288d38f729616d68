"""Run the tests on every supported pair of Python and Django: ``.venv/bin/python .ci/matrix.py``.

``pyproject.toml`` lists the pairs, and tox makes a fresh environment for each, one after the other.
This adds what tox lacks: Pythons of pyenv are found, the run says how far it is, and the end is a
table with the versions. It knows nothing of the tests; ``--tests`` is handed to pytest.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULT = ROOT / ".cache" / "tox" / "result.json"


@dataclass(frozen=True)
class Pair:
    """A minor version of Python and one of Django; tox knows it as ``environment``."""

    environment: str

    @property
    def python(self) -> str:
        """The minor version of Python."""
        return self.environment.partition("-")[0]

    @property
    def django(self) -> str:
        """The minor version of Django."""
        return self.environment.partition("-django")[2]

    def __str__(self) -> str:
        return f"{self.python}:{self.django}"


@dataclass(frozen=True)
class Outcome:
    """One row of the table."""

    pair: Pair
    result: str
    versions: str = "-"
    tests: str = "-"
    seconds: float = 0.0


def supported() -> list[Pair]:
    """Return the pairs that pyproject.toml lists."""
    command = (sys.executable, "-m", "tox", "list", "--no-desc", "-q")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"tox cannot be run:\n{done.stderr}{done.stdout}")
    names = re.findall(r"^3\.\d+-django\d+\.\d+$", done.stdout, re.MULTILINE)
    return [Pair(name) for name in names]


def candidates(minor: str) -> Iterator[str]:
    """Yield where a Python of this minor version may be: on PATH, then among pyenv's."""
    yield f"python{minor}"
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from (str(path) for path in sorted(pyenv.glob(f"versions/{minor}.*/bin/python")))


def find_python(minor: str) -> str | None:
    """Return the path of a Python of this minor version that runs, None where there is none."""
    program = "import sys; print(sys.executable); print('%d.%d' % sys.version_info[:2])"
    for candidate in candidates(minor):
        command = [candidate, "-c", program]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError:
            continue
        if done.stdout.splitlines()[1:] == [minor]:
            return done.stdout.splitlines()[0]
    return None


def run_tox(pair: Pair, python: str, tests: list[str]) -> dict[str, Any]:
    """Run the tests on one pair and return what tox reports of it."""
    RESULT.unlink(missing_ok=True)
    options = (
        "--recreate",
        "--no-recreate-pkg",
        "--discover",
        python,
        "--result-json",
        str(RESULT),
    )
    command = (sys.executable, "-m", "tox", "run", *options, "-e", pair.environment, "--", *tests)
    subprocess.run(command, cwd=ROOT, check=False)
    report: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {"testenvs": {}}
    found: dict[str, Any] = report["testenvs"].get(pair.environment, {})
    return found


def versions(report: dict[str, Any]) -> str:
    """Return the full versions of Python and Django."""
    python = ".".join(map(str, report["python"]["version_info"][:3]))
    installed = dict(line.partition("==")[::2] for line in report.get("installed_packages", []))
    return f"{python}, {installed.get('Django', 'no Django')}"


def counts(report: dict[str, Any]) -> str:
    """Return what pytest's last line says."""
    output = "".join(command["output"] for command in report.get("test", []))
    found = re.findall(r"^=+ (.+) in [\d.]+s.* =+$", output, re.MULTILINE)
    return found[-1] if found else "-"


def run_pair(pair: Pair, tests: list[str]) -> Outcome:
    """Run the tests on one pair, where this machine has its Python."""
    python = find_python(pair.python)
    if python is None:
        return Outcome(pair, "absent")
    started = time.monotonic()
    report = run_tox(pair, python, tests)
    seconds = time.monotonic() - started
    if "python" not in report:
        return Outcome(pair, "FAILED", seconds=seconds)
    result = "passed" if report["result"]["success"] else "FAILED"
    return Outcome(pair, result, versions(report), counts(report), seconds)


def table(outcomes: list[Outcome]) -> str:
    """Return the outcomes as a Markdown table."""
    rows = [
        f"| {outcome.pair.python} | {outcome.pair.django} | {outcome.result} | {outcome.versions}"
        f" | {outcome.tests} | {outcome.seconds:.0f} |"
        for outcome in outcomes
    ]
    head = [
        "| Python | Django | result | versions | tests | seconds |",
        "|---|---|---|---|---|--:|",
    ]
    return "\n".join([*head, *rows])


def arguments(pairs: list[Pair]) -> argparse.Namespace:
    """Return what the command line asks for; ``only`` is a list of pairs."""
    known = {str(pair): pair for pair in pairs}
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--only",
        nargs="+",
        choices=known,
        default=list(known),
        metavar="3.12:6.0",
        help="these pairs",
    )
    parser.add_argument("--tests", nargs="+", default=[], metavar="PATH", help="these tests")
    options = parser.parse_args()
    options.only = [known[name] for name in options.only]
    return options


def main() -> int:
    """Return the exit status: 1 where a pair failed, or none could be tried."""
    options = arguments(supported())
    started = time.monotonic()
    outcomes = []
    for number, pair in enumerate(options.only, 1):
        spent = time.monotonic() - started
        where = f"[{number}/{len(options.only)}] Python {pair.python}, Django {pair.django}"
        print(f"\n== {where}, after {spent:.0f} s", flush=True)
        outcomes.append(run_pair(pair, options.tests))
    print(f"\n{table(outcomes)}\n\n{time.monotonic() - started:.0f} s in all")
    results = {outcome.result for outcome in outcomes}
    return 0 if "passed" in results and "FAILED" not in results else 1


if __name__ == "__main__":
    sys.exit(main())
