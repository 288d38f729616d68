"""README tells the truth: its tables are the code's and the measurements', its snippets run."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from django_momento_http import checks, regions
from django_momento_http.conf import RULES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
MEASURED = {"benchmarks": "benchmarks/results.md", "simulation": "benchmarks/breaker.md"}


def table(text: str, marker: str) -> list[str]:
    """Return the lines of the table that stands after a marker."""
    rest = text.partition(f"<!-- {marker} -->\n")[2]
    return rest.partition("\n\n")[0].splitlines()


def rows(marker: str) -> list[list[str]]:
    """Return the cells of a table's rows."""
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in table(README, marker)[2:]
    ]


def snippets(language: str) -> list[str]:
    """Return the code blocks of a language, without their indentation."""
    blocks = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", README, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", body, flags=re.MULTILINE) for indent, body in blocks]


def test_the_settings_table() -> None:
    """It has a row for each option, in the order of the rules, with the default of the code."""
    expected = [
        [
            f"`{rule.name}`",
            f"env `{rule.environment}`" if rule.environment else f"`{rule.default!r}`",
        ]
        for rule in RULES
    ]
    assert [row[:2] for row in rows("settings")] == expected


def test_the_regions() -> None:
    """All are named."""
    listed = README.partition("\nRegions: ")[2].partition(". A private")[0]
    assert re.findall(r"`([a-z0-9-]+)`", listed) == list(regions.ENDPOINTS)


def test_the_checks_table() -> None:
    """It has a row for each system check."""
    documented = re.findall(r"^([EW]\d{3})  ", checks.__doc__ or "", re.MULTILINE)
    assert [row[0] for row in rows("checks")] == documented


@pytest.mark.parametrize("marker", MEASURED)
def test_the_measured_tables(marker: str) -> None:
    """They are what the programs wrote, to the letter."""
    source = ROOT / MEASURED[marker]
    if not source.exists():
        pytest.skip("the benchmarks are not beside the tests")
    assert len(table(README, marker)) > 5
    assert "\n".join(table(README, marker)) in source.read_text()


def test_the_commands() -> None:
    """Each of the two marked commands is one line that makes its own environment."""
    for name in ("site", "tests"):
        block = README.partition(f"<!-- command: {name} -->\n```sh\n")[2].partition("\n```")[0]
        assert block.startswith("python3 -m venv .venv && ")
        assert "\n" not in block


@pytest.mark.parametrize("code", snippets("python"), ids=lambda code: code.splitlines()[0][:30])
def test_snippets_are_python(code: str) -> None:
    """Each snippet can be compiled, as a module or as the body of a coroutine."""
    compile(code, "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize(
    "code",
    [code for code in snippets("python") if "running_server" in code],
    ids=["pytest", "unittest"],
)
def test_the_snippets_on_testing_run(code: str, tmp_path: Path) -> None:
    """What README says of testing passes as it stands, in a project of its own."""
    (tmp_path / "test_snippet.py").write_text(code)
    (tmp_path / "settings.py").write_text('SECRET_KEY = "x"\n')
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--ds=settings"],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{':'.join(sys.path)}", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
