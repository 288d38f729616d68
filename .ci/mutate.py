"""Change one thing at a time in a copy of the source, and name the changes that no test notices.

    .venv/bin/python .ci/mutate.py --sample 100 --seed 7 --at-least 95

A change that makes the tests hang was noticed, too. It ends with 1 when too few were.
"""

import argparse
import ast
import copy
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "django_momento_http"
# What is changed, and whose tests must notice it: those of the module's name and these first, which
# are quick, then all of the folders.
TESTS = {
    "_store": ["tests/backend/test_cache.py", "tests/backend/test_clear.py"],
    "_client": ["tests/backend/test_client.py", "tests/backend/test_cache.py"],
    "_http": ["tests/http/test_transport.py", "tests/backend/test_client.py"],
}
FOLDERS = ["tests/http", "tests/unit", "tests/backend"]
PYTEST = ["-m", "pytest", "-x", "-q", "-p", "no:randomly", "-p", "no:cacheprovider"]
# No single test takes as many seconds.
LIMIT = 120
# Operators that take each other's place.
PAIRS: list[set[type[ast.AST]]] = [
    *({ast.Lt, ast.GtE}, {ast.LtE, ast.Gt}, {ast.Eq, ast.NotEq}, {ast.Is, ast.IsNot}),
    *({ast.Lt, ast.LtE}, {ast.Gt, ast.GtE}, {ast.In, ast.NotIn}, {ast.And, ast.Or}),
    *({ast.Add, ast.Sub}, {ast.Mult, ast.Div}, {ast.BitAnd, ast.BitOr}),
]


class Mutant(NamedTuple):
    """A change: where in a file, and what stands there instead."""

    path: str
    line: int
    start: int
    end: int
    text: str

    def within(self, source: bytes) -> bytes:
        """Return the source with the change."""
        return source[: self.start] + self.text.encode() + source[self.end :]

    def __str__(self) -> str:
        source = (ROOT / self.path).read_bytes()
        old = b" ".join(source[self.start : self.end].split()).decode()
        return f"{self.path}:{self.line}  {old}  ->  {self.text}"


def swapped(node: ast.AST, field: str, op: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Yield the node with each other operator."""
    for pair in PAIRS:
        if type(op) in pair:
            [new] = pair - {type(op)}
            other = copy.copy(node)
            setattr(other, field, [new()] if field == "ops" else new())
            yield node, other


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


def mutants_of(path: str) -> Iterator[Mutant]:
    """Yield all changes of a file, first ones first."""
    source = (ROOT / path).read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node in below(ast.parse(source)):
        for old, new in variants(node):
            text = ast.unparse(ast.fix_missing_locations(new))
            start = starts[old.lineno - 1] + old.col_offset
            end = starts[old.end_lineno - 1] + old.end_col_offset
            yield Mutant(
                path, old.lineno, start, end, f"({text})" if isinstance(new, ast.expr) else text
            )


def copied(tree: Path) -> Path:
    """Copy what git knows, and what it does not ignore."""
    names = subprocess.check_output(["git", "ls-files", "-zco", "--exclude-standard"], cwd=ROOT)
    for name in filter(None, names.decode().split("\0")):
        if (ROOT / name).exists():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    return tree


def tests_of(path: str) -> list[list[str]]:
    """Return the tests of a file: those that go first, and all."""
    stem, first = Path(path).stem, TESTS[Path(path).parts[1]]
    own = [str(test.relative_to(ROOT)) for test in sorted(ROOT.glob(f"tests/*/test_*{stem}*.py"))]
    return [[*own, *first], FOLDERS]


def failure(tree: Path, *arguments: str) -> str:
    """Run tests in a tree and return the first that fails, or how they ended; "" if they pass."""
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        [sys.executable, *PYTEST, *arguments],
        cwd=tree,
        env=environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
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
        return ""
    found = [
        line
        for line in said.decode().splitlines()
        if line.startswith(("FAILED tests", "ERROR tests"))
    ]
    return found[0].split(" ", 1)[1].partition(" - ")[0] if found else "they hung or broke"


def verdict(tree: Path, path: str) -> str:
    """Return the test that notices a change, twice; "" if none does."""
    chancy: list[str] = []
    for tests in tests_of(path):
        while found := failure(tree, *tests, *(f"--deselect={test}" for test in chancy)):
            if "::" not in found or failure(tree, found):
                return found
            chancy.append(found)
    return ""


def main() -> int:
    """Draw the sample, try it, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=100)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--at-least", type=int, default=95, help="so many of a hundred noticed")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="", help="part of the path of the files to change")
    given = parser.parse_args()
    paths = [
        str(p.relative_to(ROOT)) for name in TESTS for p in (ROOT / PACKAGE / name).glob("*.py")
    ]
    every = [m for path in sorted(paths) if given.only in path for m in mutants_of(path)]
    sample = random.Random(given.seed).sample(every, min(given.sample, len(every)))
    print(f"{len(sample)} of {len(every)} changes", flush=True)
    survivors, trees = [], SimpleQueue()

    def attempt(mutant: Mutant) -> None:
        began, tree = time.monotonic(), trees.get()
        changed = tree / mutant.path
        original = changed.read_bytes()
        changed.write_bytes(mutant.within(original))
        outcome = verdict(tree, mutant.path)
        changed.write_bytes(original)
        trees.put(tree)
        if not outcome:
            survivors.append(mutant)
        print(
            f"{time.monotonic() - began:6.1f} s  {mutant}\n          {outcome or 'NOT NOTICED'}",
            flush=True,
        )

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(given.workers) as threads:
        for number in range(given.workers):
            trees.put(copied(Path(folder, str(number))))
        list(threads.map(attempt, sample))
    noticed = len(sample) - len(survivors)
    print(f"\n{noticed} of {len(sample)} noticed; not noticed:", *survivors, sep="\n  ")
    return int(noticed * 100 < given.at_least * len(sample))


if __name__ == "__main__":
    sys.exit(main())
