"""Say whether a tag may become a release: ``python .ci/release_tag.py v1.2.3``.

The tag is ``v`` and the package's version, which has three numbers, CHANGELOG.md has a dated
heading of that version with something under it, and README has no link that leads nowhere on PyPI.
It knows nothing of git: the tag is an argument.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def package_version(source: str) -> str:
    """Return the version that the package's source states."""
    found = re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE)
    return found[1] if found else ""


def problems(tag: str, version: str, changelog: str) -> list[str]:
    """Return what keeps this tag from being released."""
    found = []
    if not re.fullmatch(r"v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", tag):
        found.append(f"the tag {tag!r} is not of the form v1.2.3")
    if tag != f"v{version}":
        found.append(f"the tag is {tag!r}, but the package's version is {version!r}")
    heading = rf"^## \[{re.escape(version)}\] - \d{{4}}-\d{{2}}-\d{{2}}\n(.*?)(?=^## |^\[|\Z)"
    entry = re.search(heading, changelog, re.MULTILINE | re.DOTALL)
    if entry is None:
        found.append(f"CHANGELOG.md has no heading '## [{version}] - <date>'")
    elif not re.search(r"^- ", entry[1], re.MULTILINE):
        found.append(f"CHANGELOG.md says nothing of {version}")
    return found


def dead_links(readme: str) -> list[str]:
    """Return the links that lead nowhere once README stands alone, as on PyPI."""
    targets = re.findall(r"(?:\]\(|^\[[^\]]+\]: )([^\s)]+)", readme, re.MULTILINE)
    return [
        f"README links to {target}: see CONTRIBUTING.md, Addresses"
        for target in targets
        if not target.startswith(("https://", "http://", "#"))
    ]


def main() -> int:
    """Return the exit status: 0 where the tag may be released."""
    version = package_version((ROOT / "django_momento_http" / "__init__.py").read_text())
    found = problems(sys.argv[1], version, (ROOT / "CHANGELOG.md").read_text())
    found += dead_links((ROOT / "README.md").read_text())
    print("\n".join(found) or f"{sys.argv[1]} may be released")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
