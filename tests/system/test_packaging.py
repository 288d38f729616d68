"""What is published says the truth: metadata, archives, and which tag may become a release.

The programs that build and publish are outside the package; where they are not beside the tests, as
in the sdist, their tests are skipped.
"""

import importlib.util
import io
import re
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import django_momento_http

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
RELEASED = "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-12-01\n\n### Added\n\n- A thing.\n"


def beside(path: str) -> Path:
    """Return a path of the repository, or skip the test where it is not beside the tests."""
    if not (ROOT / path).exists():
        pytest.skip(f"{path} is not beside the tests")
    return ROOT / path


@cache
def program(name: str) -> ModuleType:
    """Return a program of the repository as a module."""
    spec = importlib.util.spec_from_file_location(name, beside(f".ci/{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def tox_pairs() -> list[tuple[str, str]]:
    """Return the pairs of Python and Django that are tested."""
    first, rest = PROJECT["tool"]["tox"]["env_list"]
    names = [
        first,
        *(f"{python}-{django}" for python in rest["product"][0] for django in rest["product"][1]),
    ]
    return [(python, django) for python, _, django in (name.partition("-django") for name in names)]


def classified(prefix: str) -> list[str]:
    """Return the versions that the classifiers with this prefix name."""
    found = (
        re.fullmatch(rf"{prefix} :: (\d+\.\d+)", line) for line in PROJECT["project"]["classifiers"]
    )
    return [match[1] for match in found if match]


def test_the_classifiers_name_what_is_tested() -> None:
    """Each Python and each Django that a classifier claims is in a tested pair, and no others."""
    assert classified("Programming Language :: Python") == sorted({pair[0] for pair in tox_pairs()})
    assert classified("Framework :: Django") == sorted({pair[1] for pair in tox_pairs()})


def test_the_lowest_versions_are_required() -> None:
    """What pip refuses is what is older than every tested version."""
    lowest = tox_pairs()[0]
    assert PROJECT["project"]["requires-python"] == f">={lowest[0]}"
    assert f"django>={lowest[1]}" in PROJECT["project"]["dependencies"]


def test_the_package_says_that_it_is_typed() -> None:
    """Type checkers find its marker in the package."""
    assert (Path(django_momento_http.__file__).parent / "py.typed").is_file()


def test_the_licence() -> None:
    """The expression in the metadata is that of the text."""
    assert PROJECT["project"]["license"] == "MIT"
    assert beside("LICENSE").read_text().startswith("MIT License\n")


def test_the_changelog_knows_this_version() -> None:
    """Its newest entry is of this version, or of what comes after it."""
    newest = re.findall(r"^## \[(.+?)\]", CHANGELOG, re.MULTILINE)[0]
    assert newest in {"Unreleased", django_momento_http.__version__}


@pytest.mark.parametrize(
    ("tag", "version", "changelog", "complaint"),
    [
        ("v1.2.3", "1.2.3", RELEASED, None),
        ("1.2.3", "1.2.3", RELEASED, "not of the form v1.2.3"),
        ("v1.2", "1.2", RELEASED.replace("1.2.3", "1.2"), "not of the form v1.2.3"),
        ("v1.2.3rc1", "1.2.3rc1", RELEASED.replace("1.2.3", "1.2.3rc1"), "not of the form v1.2.3"),
        ("v01.2.3", "01.2.3", RELEASED.replace("1.2.3", "01.2.3"), "not of the form v1.2.3"),
        ("v1.2.4", "1.2.3", RELEASED, "the package's version is '1.2.3'"),
        ("v1.2.3", "1.2.3", RELEASED.replace("1.2.3", "1.2.2"), "has no heading"),
        ("v1.2.3", "1.2.3", RELEASED.replace("1.2.3", "1x2.3"), "has no heading"),
        ("v1.2.3", "1.2.3", RELEASED.replace(" - 2026-12-01", ""), "has no heading"),
        ("v1.2.3", "1.2.3", RELEASED.replace("- A thing.", ""), "says nothing of 1.2.3"),
        (
            "v1.2.3",
            "1.2.3",
            RELEASED.replace("- A", "## [1.2.2] - 2026-11-01\n\n- A"),
            "says nothing",
        ),
    ],
    ids=[
        "right",
        "no-v",
        "two-numbers",
        "candidate",
        "leading-zero",
        "another-version",
        "older-heading",
        "dot-is-no-wildcard",
        "undated",
        "empty",
        "empty-before-the-next",
    ],
)
def test_which_tag_may_be_released(
    tag: str, version: str, changelog: str, complaint: str | None
) -> None:
    """One that is the package's version, and of which the changelog says something."""
    found = program("release_tag").problems(tag, version, changelog)
    if complaint is None:
        assert found == []
    else:
        assert complaint in "\n".join(found)


@pytest.mark.parametrize(
    ("readme", "dead"),
    [
        ("[a](https://x.example/) [b] <https://y.example/> [c](#heading)\n", 0),
        ("[a](docs/a.md)\n", 1),
        ("![a](benchmarks/a.svg)\n", 1),
        ("[a] [b]\n\n[a]: docs/a.md#heading\n[b]: SECURITY.md\n", 2),
    ],
    ids=["addresses", "inline", "picture", "at-the-end"],
)
def test_dead_links_are_not_released(readme: str, dead: int) -> None:
    """On PyPI, README stands alone: what leads to a file beside it is named."""
    assert len(program("release_tag").dead_links(readme)) == dead


def test_the_version_is_read_without_an_import() -> None:
    """The tag is compared with the version that the package has."""
    source = Path(django_momento_http.__file__).read_text()
    assert program("release_tag").package_version(source) == django_momento_http.__version__


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A function that makes archives with these files beside those that they should hold."""
    check = program("release_check")
    monkeypatch.setattr(check, "tracked", lambda *folders: {"django_momento_http/py.typed"})
    package = "django_momento_http/py.typed"
    in_sdist = {package, "PKG-INFO", *check.SDIST_FILES}
    in_wheel = {package, *(f"p-1.dist-info/{name}" for name in check.WHEEL_METADATA)}

    def make(
        sdist: set[str] = frozenset(), wheel: set[str] = frozenset(), without: str = ""
    ) -> Any:
        files = tmp_path / "p-1.tar.gz", tmp_path / "p-1-py3-none-any.whl"
        with tarfile.open(files[0], "w:gz") as archive:
            for name in sorted((in_sdist | sdist) - {without}):
                archive.addfile(tarfile.TarInfo(f"p-1/{name}"), io.BytesIO())
        with zipfile.ZipFile(files[1], "w") as archive:
            for name in sorted((in_wheel | wheel) - {without}):
                archive.writestr(name, "")
        return check.Built(files[0], files[1], files[1])

    return make


def test_archives_with_the_right_files(built: Callable[..., Any]) -> None:
    """Nothing is said of archives that hold what they should."""
    assert list(program("release_check").wrong_files(built())) == []


@pytest.mark.parametrize(
    ("change", "complaints"),
    [
        ({"sdist": {".cache/x"}}, ["p-1.tar.gz should not hold .cache/x"]),
        ({"wheel": {"tests/x.py"}}, ["p-1-py3-none-any.whl should not hold tests/x.py"]),
        ({"without": "LICENSE"}, ["p-1.tar.gz lacks LICENSE"]),
        (
            {"without": "django_momento_http/py.typed"},
            [
                "p-1.tar.gz lacks django_momento_http/py.typed",
                "p-1-py3-none-any.whl lacks django_momento_http/py.typed",
            ],
        ),
    ],
)
def test_archives_with_wrong_files(
    change: dict[str, Any], complaints: list[str], built: Callable[..., Any]
) -> None:
    """A file too many or too few is named."""
    archives = built(**change)
    assert list(program("release_check").wrong_files(archives)) == complaints


def test_builds_that_differ(tmp_path: Path) -> None:
    """One byte of difference between two builds is noticed, and none is not."""
    check = program("release_check")
    paths = [tmp_path / name for name in ("a.tar.gz", "a.whl", "b.tar.gz", "b.whl")]
    for path in paths:
        path.write_bytes(b"x")
    builds = [check.Built(paths[0], paths[1], paths[1]), check.Built(paths[2], paths[1], paths[3])]
    assert list(check.differences(builds)) == []
    paths[3].write_bytes(b"y")
    (difference,) = check.differences(builds)
    assert difference.startswith("not the same: ")


def test_a_python_of_pyenv_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The matrix runs on what is not on PATH, and passes over what is broken or absent."""
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    for version in (f"{minor}.0", f"{minor}.1"):
        (tmp_path / "versions" / version / "bin").mkdir(parents=True)
    (tmp_path / "versions" / f"{minor}.0" / "bin" / "python").touch(mode=0o755)
    sound = tmp_path / "versions" / f"{minor}.1" / "bin" / "python"
    sound.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    sound.chmod(0o755)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program("matrix").find_python(minor) == sys.executable
    assert program("matrix").find_python("3.99") is None


def test_a_row_of_the_matrix() -> None:
    """It has the full versions, and what pytest counted last."""
    matrix = program("matrix")
    report = {
        "python": {"version_info": [3, 12, 1, "final", 0]},
        "installed_packages": ["asgiref==3.13.0", "Django==6.0.10", "x @ file:///x"],
        "test": [
            {"output": "collected 3 items\n===== 2 passed, 1 skipped in 61.10s (0:01:01) =====\n"}
        ],
    }
    outcome = matrix.Outcome(
        matrix.Pair("3.12-django6.0"),
        "passed",
        matrix.versions(report),
        matrix.counts(report),
        65.2,
    )
    expected = "| 3.12 | 6.0 | passed | 3.12.1, 6.0.10 | 2 passed, 1 skipped | 65 |"
    assert matrix.table([outcome]).splitlines()[2:] == [expected]


@pytest.mark.parametrize("name", ["ci.yml", "release.yml"])
def test_foreign_actions_are_pinned(name: str) -> None:
    """Each stands with the hash of a commit, and the version that it is."""
    workflow = beside(f".github/workflows/{name}").read_text()
    used = re.findall(r"uses: (?!\$/)(.+)", workflow)
    assert used
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)


@pytest.mark.parametrize("name", ["ci.yml", "release.yml"])
def test_commands_with_colons_are_quoted(name: str) -> None:
    """To YAML a colon and a space make a mapping: the whole workflow would not be read."""
    lines = beside(f".github/workflows/{name}").read_text().splitlines()
    commands = [line.partition("run: ")[2] for line in lines if "run: " in line]
    assert commands
    assert [command for command in commands if ": " in command and command[0] not in "'\""] == []


@pytest.mark.parametrize(("workflow", "name"), [("ci.yml", "tox"), ("release.yml", "release")])
def test_what_workflows_install_is_pinned(workflow: str, name: str) -> None:
    """Each workflow installs nothing but what stands in one file, with versions and hashes."""
    text = beside(f".github/workflows/{workflow}").read_text()
    installed = re.findall(r"pip install ([^'\n]+)", text)
    assert set(installed) == {f"--require-hashes --only-binary :all: -r .ci/{name}.txt"}
    pinned = beside(f".ci/{name}.txt").read_text().replace("\\\n", "")
    lines = [line for line in pinned.splitlines() if not line.startswith("#")]
    for line in lines:
        assert re.fullmatch(r"[\w-]+==[\w.]+ (?: *--hash=sha256:[0-9a-f]{64} *)+", line)
    wanted = beside(f".ci/{name}.in").read_text().split()
    assert set(wanted) <= {line.partition("==")[0] for line in lines}


def test_what_builds_a_release_is_what_is_checked() -> None:
    """The build is looked at with the same tools, and tox has no part in it."""
    assert "tox" not in beside(".github/workflows/release.yml").read_text()
    release = PROJECT["tool"]["tox"]["env"]["release"]["deps"]
    wanted = beside(".ci/release.in").read_text().split()
    assert {name.partition(">=")[0] for name in release} == set(wanted)


def test_the_extras_of_contributors() -> None:
    """`test`, `docs` and `dev` are there; a developer has all that the tests need."""
    extras = PROJECT["project"]["optional-dependencies"]
    assert {"test", "docs", "dev"} <= set(extras)
    assert f"{PROJECT['project']['name']}[test]" in extras["dev"]
    tests = {re.split(r"[<>=~;\[]", requirement)[0] for requirement in extras["test"]}
    assert {"pytest", "pytest-django", "pytest-randomly", "hypothesis"} <= tests


def test_only_publishing_may_identify_itself() -> None:
    """The one job with `id-token` is the last, which runs no code of the repository's."""
    workflow = beside(".github/workflows/release.yml").read_text()
    before, _, publish = workflow.partition("\n  publish:\n")
    assert "id-token" not in before
    assert publish.count("id-token: write") == 1
    assert "run:" not in publish
    assert "checkout" not in publish
    assert "secrets." not in workflow


def test_the_workflow_runs_every_pair() -> None:
    """The pairs in the workflow are those of pyproject.toml."""
    workflow = beside(".github/workflows/ci.yml").read_text()
    assert re.findall(r'- "(3\.\d+):(\d\.\d)"', workflow) == tox_pairs()


MUTABLE = '''"""What it is for."""

from typing import cast

LIMIT = 5.0


def spend(self: "Budget", left: int) -> int:
    """Take one."""
    if not left or left < LIMIT or len(it) < 2:
        raise ValueError(f"only {left} are left")
    self.left = left - 1
    print("a message, \\N{EURO SIGN}"), self.note("word")
    return cast("int", self.left)
'''
MUTANTS = [
    "5.0 -> (6.0)",
    "not left or left < LIMIT or len(it) < 2 -> (not (not left or left < LIMIT or len(it) < 2))",
    "not left or left < LIMIT or len(it) < 2 -> (not left and left < LIMIT and (len(it) < 2))",
    "not left -> (left)",
    "left < LIMIT -> (left >= LIMIT)",
    "len(it) < 2 -> (len(it) >= 2)",
    "len(it) < 2 -> (len(it) <= 2)",
    "2 -> (3)",
    'raise ValueError(f"only {left} are left") -> pass',
    "self.left = left - 1 -> pass",
    "left - 1 -> (left + 1)",
    "1 -> (2)",
    "\"word\" -> ('wordX')",
    'return cast("int", self.left) -> return None',
]


def test_a_mutant_is_one_change_of_what_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What tests may notice is changed: no docstring, annotation or message; the rest stays."""
    pytest.importorskip("coverage", reason="coverage is not installed")
    mutate = program("mutate")
    monkeypatch.setattr(mutate, "ROOT", tmp_path)
    path = tmp_path / "mutable.py"
    path.write_text(MUTABLE)
    found = list(mutate.mutants_of(path))
    assert sorted(f"{mutant.old} -> {mutant.text}" for mutant in found) == sorted(MUTANTS)
    for mutant in found:
        changed = mutant.within(path.read_bytes()).decode()
        assert changed.replace(mutant.text, mutant.old, 1) == MUTABLE or mutant.text == "pass"
        compile(changed, path, "exec")
