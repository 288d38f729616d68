"""Put the measured tables into README: ``python .ci/readme_tables.py``, after a benchmark was run.

What stands after a marker is replaced by the first table of the file that the marker stands for. A
test holds them equal.
"""

from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = {"benchmarks": "benchmarks/results.md", "simulation": "benchmarks/breaker.md"}


def first_table(text: str) -> list[str]:
    """Return the lines of the first table, or none."""
    lines = text.splitlines()
    start = next((n for n, line in enumerate(lines) if line.startswith("|")), len(lines))
    end = next((n for n in range(start, len(lines)) if not lines[n].startswith("|")), len(lines))
    return lines[start:end]


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
    for marker, source in SOURCES.items():
        readme = with_table(readme, marker, first_table((ROOT / source).read_text()))
    path.write_text(readme)


if __name__ == "__main__":
    main()
