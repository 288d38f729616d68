"""Put the measured tables into README: ``python .ci/readme_tables.py``, after a benchmark was run.

What stands after a marker is replaced by the table that the marker stands for. A test holds them
equal.
"""

from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
CLIENTS = ("MomentoCache.get", "PyMemcacheCache.get", "RedisCache.get", "Momento SDK get")


def tables(name: str) -> list[list[str]]:
    """Return the lines of each table of a file in `benchmarks`."""
    text = (ROOT / "benchmarks" / name).read_text()
    paragraphs = [paragraph.splitlines() for paragraph in text.split("\n\n")]
    return [lines for lines in paragraphs if lines[0].startswith("|")]


def clients() -> list[str]:
    """Return the absolute figures of one small get, one row for each client."""
    table = next(lines for lines in tables("results.md") if lines[0].startswith("| workload |"))
    starts = tuple(f"| single | {client} |" for client in CLIENTS)
    return table[:2] + [line for line in table if line.startswith(starts)]


TABLES: dict[str, Callable[[], list[str]]] = {
    "benchmarks": lambda: tables("results.md")[0],
    "clients": clients,
    "costs": lambda: tables("costs.md")[0],
    "simulation": lambda: tables("breaker.md")[0],
    "trouble": lambda: tables("trouble.md")[0],
}


def with_table(readme: str, marker: str, table: list[str]) -> str:
    """Return the text with this table after the marker, in place of the one that stands there."""
    head, mark, rest = readme.partition(f"<!-- {marker} -->\n")
    lines = rest.splitlines()
    old = next((n for n, line in enumerate(lines) if not line.startswith("|")), len(lines))
    return head + mark + "\n".join([*table, *lines[old:]]) + "\n"


def main() -> None:
    """Bring README up to date."""
    path = ROOT / "README.md"
    readme = path.read_text()
    for marker, table in TABLES.items():
        readme = with_table(readme, marker, table())
    path.write_text(readme)


if __name__ == "__main__":
    main()
