"""Say whether the archives of the last commit may be published: ``tox run -e release``.

They are built twice with SOURCE_DATE_EPOCH set and twice without, from clones in different folders
with different umasks, time zones, hash seeds and file times; the wheel is built from the tree and
from the sdist. What should be the same has to be, byte for byte. Then the archives have to hold the
files that they should and no others, and ``twine check --strict`` has to pass. ``--outdir`` keeps
them.

It knows nothing of versions and tags (``release_tag.py`` does), and uploads nothing.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = "django_momento_http"
# What the sdist holds of the repository; pyproject.toml has the same list for hatchling.
SDIST_FOLDERS = (PACKAGE, "docs", "example_project", "tests")
SDIST_FILES = {
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "benchmarks/breaker.md",
    "benchmarks/copies.md",
    "benchmarks/costs.md",
    "benchmarks/crowd.md",
    "benchmarks/hedging.md",
    "benchmarks/results.md",
    "benchmarks/results.svg",
    "benchmarks/trouble.md",
    "pyproject.toml",
}
WHEEL_METADATA = {"METADATA", "RECORD", "WHEEL", "licenses/LICENSE"}
DAY = 86_400


@dataclass(frozen=True)
class Surroundings:
    """What differs between two machines, and must not be seen in what they build."""

    name: str
    umask: int
    file_time: int
    variables: Mapping[str, str]


MACHINES = (
    Surroundings("here", 0o022, 5_000 * DAY, {"TZ": "UTC", "PYTHONHASHSEED": "1"}),
    Surroundings(
        "elsewhere/deeper", 0o077, 20_000 * DAY, {"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "2"}
    ),
)


@dataclass(frozen=True)
class Built:
    """The archives that one machine built."""

    sdist: Path
    wheel_from_sdist: Path
    wheel_from_tree: Path


def run(*command: str | Path, umask: int = -1, cwd: Path = ROOT, **variables: str) -> str:
    """Return what a command prints, or end with it where the command fails."""
    inherited = {name: os.environ[name] for name in os.environ if name != "SOURCE_DATE_EPOCH"}
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**inherited, **variables},
        umask=umask,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


def build(folder: Path, machine: Surroundings, epoch: str | None) -> Built:
    """Clone the repository as this machine would, and build everything there."""
    clone = folder / machine.name / "clone"
    run("git", "clone", "-q", "--no-hardlinks", ROOT, clone, umask=machine.umask)
    for path in clone.rglob("*"):
        if ".git" not in path.parts:
            os.utime(path, (machine.file_time, machine.file_time))
    variables = {**machine.variables, **({"SOURCE_DATE_EPOCH": epoch} if epoch else {})}
    command = (sys.executable, "-m", "build", "--no-isolation", "--outdir")
    both, tree = clone.parent / "both", clone.parent / "tree"
    run(*command, both, umask=machine.umask, cwd=clone, **variables)
    run(*command, tree, "--wheel", umask=machine.umask, cwd=clone, **variables)
    return Built(next(both.glob("*.tar.gz")), next(both.glob("*.whl")), next(tree.glob("*.whl")))


def differences(builds: list[Built]) -> Iterator[str]:
    """Yield what is not the same in all builds."""
    wheels = [path for built in builds for path in (built.wheel_from_sdist, built.wheel_from_tree)]
    for paths in ([built.sdist for built in builds], wheels):
        hashes = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
        print(f"      {paths[0].name}: {', '.join(sorted(set(hashes.values())))}")
        if len(set(hashes.values())) > 1:
            yield f"not the same: {', '.join(f'{path} {hashes[path]}' for path in paths)}"


def tracked(*folders: str) -> set[str]:
    """Return the files of these folders in the last commit."""
    return set(run("git", "ls-tree", "-r", "--name-only", "HEAD", *folders).splitlines())


def wrong_files(built: Built) -> Iterator[str]:
    """Yield what the archives lack, and what they should not have."""
    with tarfile.open(built.sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(built.wheel_from_tree) as wheel:
        in_wheel = set(wheel.namelist())
    metadata = "-".join(built.wheel_from_tree.name.split("-")[:2]) + ".dist-info"
    expected_in_wheel = tracked(PACKAGE) | {f"{metadata}/{name}" for name in WHEEL_METADATA}
    expected_in_sdist = tracked(*SDIST_FOLDERS) | SDIST_FILES | {"PKG-INFO"}
    for name, found, expected in (
        (built.sdist.name, in_sdist, expected_in_sdist),
        (built.wheel_from_tree.name, in_wheel, expected_in_wheel),
    ):
        print(f"      {name}: {len(found)} files")
        yield from (f"{name} lacks {path}" for path in sorted(expected - found))
        yield from (f"{name} should not hold {path}" for path in sorted(found - expected))


def check(folder: Path, outdir: Path | None) -> list[str]:
    """Build, compare and look, and return all that is wrong."""
    started = time.monotonic()

    def step(number: int, text: str) -> None:
        print(f"[{number}/7] {time.monotonic() - started:5.1f} s  {text}", flush=True)

    problems: list[str] = []
    number = 0
    for epoch in (run("git", "log", "-1", "--format=%ct").strip(), None):
        builds = []
        for machine in MACHINES:
            number += 1
            step(number, f"build {machine.name} with SOURCE_DATE_EPOCH {epoch or 'unset'}")
            builds.append(build(folder / (epoch or "unset"), machine, epoch))
        problems += differences(builds)
    step(5, "what the archives hold")
    problems += wrong_files(builds[0])
    step(6, "twine check --strict")
    archives = (builds[0].sdist, builds[0].wheel_from_sdist)
    run(sys.executable, "-m", "twine", "check", "--strict", *archives)
    step(7, f"{len(problems)} problems")
    if outdir and not problems:
        outdir.mkdir(parents=True, exist_ok=True)
        for path in archives:
            shutil.copy(path, outdir)
    return problems


def main() -> int:
    """Return the exit status: 0 where the archives may be published."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--outdir", type=Path, help="where the checked archives are put")
    outdir = parser.parse_args().outdir
    print("commit", run("git", "log", "-1", "--format=%h %s").strip())
    if run("git", "status", "--porcelain"):
        print("NOTE: what is not committed is not in the archives")
    with tempfile.TemporaryDirectory() as folder:
        problems = check(Path(folder), outdir)
    print(*problems, sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
