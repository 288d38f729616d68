"""Change one thing at a time in a copy of the source, and name the changes that no test notices.

    .venv/bin/python .ci/mutate.py --sample 100 --seed 7 --at-least 95

A change that makes the tests hang was noticed, too. It ends with 1 when too few were.
"""

import argparse
import ast
import copy
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from coverage import CoverageData

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "django_momento_http"
CHANGED = ("_store", "_client", "_http")
TESTS = ["tests/unit", "tests/http", "tests/backend"]
PYTEST = ["-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider"]
# An interrupt that strikes while coverage takes notes leaves its lock held: these run without.
INTERRUPTS = "interrupt or signal"
# No single test takes as many seconds.
LIMIT = 120
# So many failures end a run; those that do not happen again are a busy machine's.
CHANCY = 3
# Operators that take each other's place.
PAIRS: list[set[type[ast.AST]]] = [
    *({ast.Lt, ast.GtE}, {ast.LtE, ast.Gt}, {ast.Eq, ast.NotEq}, {ast.Is, ast.IsNot}),
    *({ast.In, ast.NotIn}, {ast.And, ast.Or}, {ast.Add, ast.Sub}, {ast.Mult, ast.Div}),
    {ast.BitAnd, ast.BitOr},
]
# Only where something is counted: two moments of a clock are hardly ever equal.
BOUNDARIES: list[set[type[ast.AST]]] = [{ast.Lt, ast.LtE}, {ast.Gt, ast.GtE}]


class Mutant(NamedTuple):
    """A change: where in a file, and what stands there instead."""

    path: str
    line: int
    start: int
    end: int
    old: str
    text: str

    def within(self, source: bytes) -> bytes:
        """Return the source with the change."""
        return source[: self.start] + self.text.encode() + source[self.end :]

    def __str__(self) -> str:
        return f"{self.path}:{self.line}  {self.old}  ->  {self.text}"


def swapped(node: ast.AST, field: str, op: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Yield the node with each other operator."""
    counts = any(map(is_count, ast.iter_child_nodes(node)))
    for pair in PAIRS + BOUNDARIES if counts else PAIRS:
        if type(op) in pair:
            [new] = pair - {type(op)}
            other = copy.copy(node)
            setattr(other, field, [new()] if field == "ops" else new())
            yield node, other


def is_count(node: ast.AST) -> bool:
    """Whether an operand counts something."""
    match node:
        case ast.Call(func=ast.Name("len")) | ast.Constant(value=int()):
            return True
    return False


def other_constant(value: object) -> object:
    """Return another constant of the same kind, the same where there is none."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1 if value in range(100) else value * 3
        case str():
            return f"{value}X"
        case bytes():
            return value + b"X"
    return value


def variants(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Yield what may be replaced in a node, and by what."""
    match node:
        case ast.Compare(ops=[op]):
            yield from swapped(node, "ops", op)
        case ast.BoolOp(op=op) | ast.BinOp(op=op) | ast.AugAssign(op=op):
            yield from swapped(node, "op", op)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield node, operand
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            yield test, ast.UnaryOp(ast.Not(), test)
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield node, ast.Return(ast.Constant(None))
        case ast.Constant(value=value) if other_constant(value) != value:
            yield node, ast.Constant(other_constant(value))
    if is_effect(node):
        yield node, ast.Pass()


def is_effect(node: ast.AST) -> bool:
    """Whether a statement may be left out, and what follows still knows its names."""
    match node:
        case ast.Break() | ast.Continue() | ast.Delete() | ast.Raise():
            return True
        case ast.Expr(value=ast.Call() | ast.Await()):
            return True
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            return True
    return False


def is_idle(node: ast.AST) -> bool:
    """Whether a node is for readers and type checkers, or is a message."""
    match node:
        case ast.Constant(value=str(text)) if " " in text:
            return True
        case (
            ast.JoinedStr()
            | ast.Expr(value=ast.Constant())
            | ast.If(test=ast.Name("TYPE_CHECKING"))
        ):
            return True
        case ast.Assign(targets=[ast.Name(name)]) if name in ("__slots__", "__all__"):
            return True
        case ast.Call(func=ast.Name("cast" | "TypeVar")):
            return True
    return False


def below(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node's parts that run."""
    for field, value in ast.iter_fields(node):
        if field not in ("annotation", "returns", "decorator_list"):
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, ast.AST) and not is_idle(part):
                    yield part
                    yield from below(part)


def mutants_of(path: Path) -> Iterator[Mutant]:
    """Yield all changes of a file."""
    source = path.read_bytes()
    starts = [0, *accumulate(map(len, source.splitlines(keepends=True)))]
    for node in below(ast.parse(source)):
        for old, new in variants(node):
            text = ast.unparse(ast.fix_missing_locations(new))
            start = starts[old.lineno - 1] + old.col_offset
            end = starts[old.end_lineno - 1] + old.end_col_offset
            was = b" ".join(source[start:end].split()).decode()
            becomes = f"({text})" if isinstance(new, ast.expr) else text
            yield Mutant(str(path.relative_to(ROOT)), old.lineno, start, end, was, becomes)


def copied(tree: Path) -> Path:
    """Copy what git knows, and what it does not ignore."""
    names = subprocess.check_output(["git", "ls-files", "-zco", "--exclude-standard"], cwd=ROOT)
    for name in filter(None, names.decode().split("\0")):
        if (ROOT / name).exists():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    return tree


def environment(tree: Path) -> dict[str, str]:
    """Return what lets programs of a tree import its package, and no stale bytecode."""
    return os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}


class Reach:
    """Which tests run which lines, and how long they take: one run of all, under coverage."""

    def __init__(self, tree: Path) -> None:
        (tree / "coverage.ini").write_text(
            f"[run]\ndynamic_context = test_function\nsource = {PACKAGE}\n"
        )
        command = [sys.executable, "-m", "coverage", "run", "--rcfile=coverage.ini", *PYTEST]
        done = subprocess.run(
            [*command, "--durations=0", "-k", f"not ({INTERRUPTS})", *TESTS],
            cwd=tree,
            env=environment(tree),
            text=True,
            stdout=subprocess.PIPE,
        )
        self._tree = tree
        self._seconds: Counter[str] = Counter()
        for seconds, test in re.findall(r"^([\d.]+)s \w+ +(\S+?::\w+)", done.stdout, re.MULTILINE):
            self._seconds[test] += float(seconds)
        self._data = CoverageData(str(tree / ".coverage"))
        self._data.read()
        print(done.stdout.splitlines()[-1], flush=True)

    def tests(self, mutant: Mutant) -> list[str]:
        """Return the tests that run a line, the quickest first; all where it runs at import."""
        known = self._data.contexts_by_lineno(str(self._tree / mutant.path))
        line = max((line for line in known if line <= mutant.line), default=0)
        names = [name.rpartition(".") for name in known.get(line, []) if name.startswith("tests.")]
        tests = [f"{module.replace('.', '/')}.py::{test}" for module, _, test in names]
        return sorted(tests, key=lambda test: self._seconds[test]) or TESTS


def failures(tree: Path, *arguments: str) -> list[str]:
    """Run tests in a tree and return which fail, or how they ended."""
    process = subprocess.Popen(
        [sys.executable, *PYTEST, "--maxfail", str(CHANCY), *arguments],
        cwd=tree,
        env=environment(tree),
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    said, more = b"", b" "
    while more and select.select([process.stdout], [], [], LIMIT)[0]:
        more = os.read(process.stdout.fileno(), 65536)
        said += more
    # Whoever still runs in its group hangs, or was left behind.
    with suppress(subprocess.TimeoutExpired):
        process.wait(0 if more else LIMIT)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.stdout.close()
    if process.wait() == 0:
        return []
    failed = re.findall(r"^(?:FAILED|ERROR) (tests/.+?)(?: - .*)?$", said.decode(), re.MULTILINE)
    return list(dict.fromkeys(failed)) or ["the tests hung or broke"]


def noticed_by(tree: Path, tests: list[str]) -> str:
    """Return the test that notices a change, twice; "" if none does."""
    chancy: list[str] = []
    while failed := failures(tree, *tests, *(f"--deselect={test}" for test in chancy)):
        if "::" not in failed[0]:
            return failed[0]
        if again := failures(tree, *failed):
            return again[0]
        if len(failed) < CHANCY:
            break
        chancy += failed
    return ""


def arguments() -> argparse.Namespace:
    """Return what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=100)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--at-least", type=int, default=95, help="so many of a hundred noticed")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="", help="part of the path of the files to change")
    return parser.parse_args()


def main() -> int:
    """Draw the sample, try it, and say what came of it."""
    given = arguments()
    paths = sorted(path for name in CHANGED for path in (ROOT / PACKAGE / name).glob("*.py"))
    every = [m for path in paths if given.only in str(path) for m in mutants_of(path)]
    sample = random.Random(given.seed).sample(every, min(given.sample, len(every)))
    print(f"{len(sample)} of {len(every)} changes", flush=True)
    survivors, trees = [], SimpleQueue()

    def attempt(mutant: Mutant) -> None:
        began, tree = time.monotonic(), trees.get()
        changed = tree / mutant.path
        original = changed.read_bytes()
        changed.write_bytes(mutant.within(original))
        found = noticed_by(tree, reach.tests(mutant)) or noticed_by(
            tree, ["-k", INTERRUPTS, *TESTS]
        )
        changed.write_bytes(original)
        trees.put(tree)
        if not found:
            survivors.append(mutant)
        print(
            f"{time.monotonic() - began:6.1f} s  {mutant}\n{'':10}{found or 'NOT NOTICED'}",
            flush=True,
        )

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(given.workers) as threads:
        copies = [copied(Path(folder, str(number))) for number in range(given.workers)]
        reach = Reach(copies[0])
        for tree in copies:
            trees.put(tree)
        list(threads.map(attempt, sample))
    noticed = len(sample) - len(survivors)
    print(f"\n{noticed} of {len(sample)} noticed; not noticed:", *survivors, sep="\n  ")
    return int(noticed * 100 < given.at_least * len(sample))


if __name__ == "__main__":
    sys.exit(main())
