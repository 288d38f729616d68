"""README, its like beside it and the pages of ``docs/``, taken apart: headings, blocks, tables.

It knows nothing of what they say. A block or a table is named by its test; what has none is found.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
BESIDE = ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY")
PAGES = sorted((ROOT / "docs").glob("*.md"))
# By name: `README`, `settings`. A page that only includes a document is told apart by its case.
TEXTS = {path.stem: path.read_text() for path in [*(ROOT / f"{n}.md" for n in BESIDE), *PAGES]}
README = TEXTS["README"]
# What they may do beyond Markdown: nothing that a test would have to understand.
DIRECTIVES = {"{include}", "{toctree}"}

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<info>[^\n]*)\n(?P<code>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """A fenced block: what the tests call it, and the code without its indentation."""

    name: str
    code: str


def fenced_blocks(name: str) -> Iterator[Block]:
    """Yield the blocks of a document in their order, named by it and by how they begin."""
    seen = Counter[str]()
    for part in _FENCE.finditer(TEXTS[name]):
        if part["info"].startswith("{"):
            assert part["info"].split()[0] in DIRECTIVES
            continue
        code = re.sub(rf"^{part['indent']}", "", part["code"], flags=re.MULTILINE)
        called = f"{name}: {code.strip().splitlines()[0][:30].strip()}"
        seen[called] += 1
        yield Block(called if seen[called] == 1 else f"{called} ({seen[called]})", code)


BLOCKS = [block for name in TEXTS for block in fenced_blocks(name)]
CODES = {block.name: block.code for block in BLOCKS}
HELD_BLOCKS: Counter[str] = Counter()


def holds(*names: str) -> Any:
    """Give a test the code of these blocks, one at a time, and note that they have a test."""
    HELD_BLOCKS.update(names)
    return pytest.mark.parametrize("code", [CODES.get(name, "") for name in names], ids=names)


class Table(NamedTuple):
    """A table: the comment before it, which names it, and its lines."""

    name: str
    lines: list[str]


def tables() -> Iterator[Table]:
    """Yield all tables of all documents; one that nothing names is called by how it begins."""
    for text in TEXTS.values():
        lines = _FENCE.sub("", text).splitlines()
        for number, line in enumerate(lines):
            before = lines[number - 1] if number else ""
            if not line.startswith("|") or before.startswith("|"):
                continue
            named = re.fullmatch(r"<!-- (.+) -->", before)
            length = next((n for n, row in enumerate(lines[number:]) if row[:1] != "|"), None)
            end = None if length is None else number + length
            yield Table(named[1] if named else line, lines[number:end])


TABLES = list(tables())
HELD_TABLES: Counter[str] = Counter()


def about(*names: str) -> Any:
    """Note that these tables have a test."""
    HELD_TABLES.update(names)
    return lambda test: test


def table(name: str) -> list[str]:
    """Return the lines of the table of this name."""
    return next((found.lines for found in TABLES if found.name == name), [])


def rows(name: str) -> list[list[str]]:
    """Return the cells of a table's rows."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(name)[2:]]


def quoted(text: str) -> list[str]:
    """Return what stands in backquotes."""
    return re.findall(r"`([^`]+)`", text)


def prose(name: str) -> str:
    """Return a document without its blocks and its line ends, so that a sentence can be found."""
    return " ".join(_FENCE.sub("", TEXTS[name]).split())
