"""Put what is measured, and the links, up to date: ``python .ci/readme_tables.py``.

What stands after a marker in README or in ``docs/`` is replaced by the table that the marker stands
for; most pages need none, because they include what the benchmarks wrote. Once pyproject.toml names
the documentation in ``[project.urls]``, README's links lead there, so that they work on PyPI, too.
Tests hold all this.
"""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
CLIENTS = ("MomentoCache.get", "PyMemcacheCache.get", "RedisCache.get", "Momento SDK get")
# Beside these, README shows every goal that was missed.
HEADLINES = (
    "`cache.get` vs PyMemcacheCache",
    "`cache.get` vs RedisCache",
    "`get_many(100)` @ 2 ms vs 32 threads over requests",
)
MISSED = "**missed**"
# A link of README to a file beside it, which is a page of the documentation.
LINK = re.compile(r"^(\[[^\]]+\]: )(?:docs/)?([\w-]+)\.md(#[\w-]+)?$", re.MULTILINE)


def tables(name: str) -> list[list[str]]:
    """Return the lines of each table of a file in `benchmarks`."""
    text = (ROOT / "benchmarks" / name).read_text()
    paragraphs = [paragraph.splitlines() for paragraph in text.split("\n\n")]
    return [lines for lines in paragraphs if lines[0].startswith("|")]


def headlines() -> list[str]:
    """Return the goals that README shows."""
    head, line, *goals = tables("results.md")[0]
    starts = tuple(f"| {name} |" for name in HEADLINES)
    return [head, line, *(goal for goal in goals if goal.startswith(starts) or MISSED in goal)]


def absolute() -> list[str]:
    """Return the table of absolute figures."""
    return next(lines for lines in tables("results.md") if lines[0].startswith("| workload |"))


def clients() -> list[str]:
    """Return the absolute figures of one small get, one row for each client."""
    table = absolute()
    starts = tuple(f"| single | {client} |" for client in CLIENTS)
    return table[:2] + [line for line in table if line.startswith(starts)]


# By marker: the file that has it, and the table.
TABLES: dict[str, tuple[str, Callable[[], list[str]]]] = {
    "benchmarks": ("README.md", headlines),
    "clients": ("docs/performance.md", clients),
}


def with_table(text: str, marker: str, table: list[str]) -> str:
    """Return the text with this table after the marker, in place of the one that stands there."""
    head, mark, rest = text.partition(f"<!-- {marker} -->\n")
    lines = rest.splitlines()
    old = next((n for n, line in enumerate(lines) if not line.startswith("|")), len(lines))
    return head + mark + "\n".join([*table, *lines[old:]]) + "\n"


def documentation(pyproject: str) -> str | None:
    """Return the address of the documentation, None as long as there is none."""
    urls: dict[str, str] = tomllib.loads(pyproject)["project"].get("urls", {})
    return urls.get("Documentation")


def with_links(text: str, address: str | None) -> str:
    """Return the text with its links to files as links to pages under an address."""
    if address is None:
        return text
    base = address.rstrip("/")
    return LINK.sub(
        lambda link: f"{link[1]}{base}/{link[2].lower()}.html{link[3] or ''}",
        text,
    )


def main() -> None:
    """Bring README and docs/ up to date."""
    for marker, (name, table) in TABLES.items():
        path = ROOT / name
        path.write_text(with_table(path.read_text(), marker, table()))
    readme = ROOT / "README.md"
    address = documentation((ROOT / "pyproject.toml").read_text())
    readme.write_text(with_links(readme.read_text(), address))


if __name__ == "__main__":
    main()
