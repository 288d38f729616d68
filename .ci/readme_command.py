"""Print the command that README gives for a purpose: the line after ``<!-- command: NAME -->``."""

import sys
from pathlib import Path


def command(name: str) -> str:
    """Return the one command in the code block that follows the marker."""
    lines = (Path(__file__).parent.parent / "README.md").read_text().splitlines()
    start = lines.index(f"<!-- command: {name} -->")
    block = lines[start + 1 :]
    end = block.index("```", 1)
    if not block[0].startswith("```") or end != 2:
        raise SystemExit(f"README's command {name!r} is not one line in a code block")
    return block[1]


if __name__ == "__main__":
    print(command(sys.argv[1]))
