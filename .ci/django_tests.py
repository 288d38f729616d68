"""Runs Django's own cache and session tests, unchanged, on this backend and counts them.

It does not know what the tests promise; it finds them, points them at a local server and counts.

The tests are not installed with Django, so `pip download` fetches the source archive of the
installed version, once, into a folder that git ignores. Django's `runtests.py` then sets up the
project as it does for Django's own suite, and three roads lead to the backend:

- `BaseCacheTests` is a mix-in that Django subclasses once for each of its backends;
  `momento_cache_tests.py`, beside this file, does the same, once for each half of the API.
- Most other classes name `locmem.LocMemCache` in their settings, or subclass it, so that name is
  bound to this backend before they are imported.
- The rest use the default cache, which is this backend; sessions are kept in `cached_db`.

A group fails too if fewer tests pass than Django 5.2 has, or if none of its requests reach the
server. Left out are the tests of Django's own backends: their tables, files and clients.
"""

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import unittest
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.cache.backends import locmem
from django.test.runner import DiscoverRunner
from django.utils.module_loading import import_string

from django_momento_http.testing import RunningServer, running_server

BACKEND = "django_momento_http.cache.MomentoCache"
CACHE_FOLDER = Path(__file__).parent.parent / ".cache"

# The folders of Django's tests that the groups need; each is an application.
TEST_APPS = ["cache", "sessions_tests", "template_tests"]

# The LOCATIONs that Django's tests name, and one for each class of momento_cache_tests.
CACHE_NAMES = ("default", "fragments", "other", "session", "unique-snowflake", "sync", "async")

# Three of its tests suit any backend; the other two read a private dictionary of LocMemCache.
TIMEOUT_TESTS = "DefaultNonExpiringCacheKeyTests"


@dataclass(frozen=True)
class Group:
    """Tests that are counted together, and how many of them Django 5.2 has."""

    name: str
    fewest: int
    module: str
    tests: tuple[str, ...] = ()

    @property
    def labels(self) -> list[str]:
        """What the runner is asked for: these tests of the module, or all of them."""
        return [f"{self.module}.{test}" for test in self.tests] or [self.module]


GROUPS = (
    Group("BaseCacheTests", 51, "momento_cache_tests", ("MomentoCacheTests",)),
    Group("BaseCacheTests, async", 51, "momento_cache_tests", ("MomentoAsyncCacheTests",)),
    Group("cache utils", 16, "cache.tests", ("CacheUtils", "PrefixedCacheUtils")),
    Group("i18n", 12, "cache.tests", ("CacheI18nTest", "PrefixedCacheI18nTest")),
    Group(
        "middleware",
        21,
        "cache.tests",
        ("CacheHEADTest", "CacheMiddlewareTest", "TestWithTemplateResponse"),
    ),
    Group("template fragments", 18, "template_tests.syntax_tests.test_cache"),
    Group(
        "handler and subclasses",
        11,
        "cache.tests",
        (
            "CacheClosingTests",
            "CacheHandlerTest",
            "CustomCacheKeyValidationTests",
            f"{TIMEOUT_TESTS}.test_default_expiration_time_for_keys_is_5_minutes",
            f"{TIMEOUT_TESTS}.test_caches_with_unset_timeout_has_correct_default_timeout",
            f"{TIMEOUT_TESTS}.test_caches_set_with_timeout_as_none_has_correct_default_timeout",
        ),
    ),
    Group(
        "sessions",
        222,
        "sessions_tests.tests",
        (
            "CacheDBSessionTests",
            "CacheDBSessionWithTimeZoneTests",
            "CacheSessionTests",
            "SessionMiddlewareTests",
        ),
    ),
)


class Tally(unittest.TextTestResult):
    """A result that counts each test once, however many of its subtests fail."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.passed = 0

    def addSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802
        """Count a test that passed."""
        super().addSuccess(test)
        self.passed += 1

    @property
    def failed(self) -> int:
        """How many tests failed or could not run."""
        broken = [test for test, _ in self.failures + self.errors] + self.unexpectedSuccesses
        return len({getattr(test, "test_case", test).id() for test in broken})


class CountingRunner(DiscoverRunner):
    """Django's runner, which keeps the result of its last run."""

    last: Tally

    def get_resultclass(self) -> type[Tally]:
        """Name the class of results for the runner to make."""
        return Tally

    def suite_result(self, suite: unittest.TestSuite, result: Tally, **kwargs: Any) -> int:
        """Keep the result and return the number of failures."""
        self.last = result
        return super().suite_result(suite, result, **kwargs)


def download(folder: Path) -> Path:
    """Return the source archive of the installed Django, fetched if the folder lacks it."""
    version = django.get_version()
    archive = folder / f"django-{version}.tar.gz"
    if not archive.exists():
        # pip reads the metadata in an environment of its own; nothing is built or installed.
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--no-binary=django", f"--dest={folder}", f"django=={version}"]
        subprocess.run(command, check=True)
    return archive


def unpack_tests(archive: Path, folder: Path) -> Path:
    """Unpack the tests of the archive and return their folder."""
    root = archive.name.removesuffix(".tar.gz")
    with tarfile.open(archive) as tar:
        tests = [m for m in tar.getmembers() if m.name.startswith(f"{root}/tests/")]
        tar.extractall(folder, members=tests, filter="data")
    return folder / root / "tests"


@contextmanager
def serve(backend: str) -> Iterator[tuple[dict[str, Any], RunningServer | None]]:
    """Give a CACHES entry for the backend and, for ours, the server behind it."""
    if backend != BACKEND:
        yield {"BACKEND": backend, "LOCATION": "default"}, None
        return
    with running_server(caches=CACHE_NAMES) as server:
        yield server.cache_settings(LOCATION="default"), server


def replace_locmem(entry: dict[str, Any]) -> None:
    """Let the name LocMemCache stand for the backend of the entry, with the entry's options."""
    backend = import_string(entry["BACKEND"])

    class LocMemCache(backend):
        def __init__(self, location: str, params: dict[str, Any]) -> None:
            options = {**entry.get("OPTIONS", {}), **params.get("OPTIONS", {})}
            super().__init__(location or entry["LOCATION"], {**params, "OPTIONS": options})

    locmem.LocMemCache = LocMemCache


def set_up(tests: Path, entry: dict[str, Any]) -> None:
    """Set Django up for the groups, in the way of its own `runtests.py`."""
    sys.path.insert(0, str(tests))
    import runtests
    import test_sqlite

    base = {name: value for name, value in vars(test_sqlite).items() if name.isupper()}
    settings.configure(
        **base,
        CACHES={"default": entry},
        SESSION_ENGINE="django.contrib.sessions.backends.cached_db",
    )
    replace_locmem(entry)
    os.environ["TMPDIR"] = str(tests.parent)
    runtests.setup_run_tests(verbosity=0, start_at=None, start_after=None, test_labels=TEST_APPS)


def run(group: Group, server: RunningServer | None) -> tuple[Tally, list[str]]:
    """Run a group and return its result and what is wrong with it as a whole."""
    print(f"\n{group.name}", flush=True)
    runner = CountingRunner(verbosity=1, interactive=False)
    runner.run_tests(group.labels)
    complaints = []
    if runner.last.passed < group.fewest:
        complaints.append(f"{group.name}: fewer than {group.fewest} tests passed")
    if server is not None:
        if not server.requests:
            complaints.append(f"{group.name}: no request reached the server")
        server.forget_requests()
    return runner.last, complaints


def report(results: dict[str, Tally], complaints: list[str]) -> bool:
    """Print the counts and return whether everything is as it should be."""
    print(f"\nDjango {django.get_version()}, Python {sys.version.split()[0]}\n")
    print(f"{'group':24}{'passed':>8}{'failed':>8}{'skipped':>8}")
    for name, tally in results.items():
        print(f"{name:24}{tally.passed:8}{tally.failed:8}{len(tally.skipped):8}")
    skips = Counter(
        f"{test.id().rpartition('.')[2]}: {reason}"
        for tally in results.values()
        for test, reason in tally.skipped
    )
    for skip, times in sorted(skips.items()):
        print(f"skipped {times} x {skip}")
    for complaint in complaints:
        print(f"ERROR: {complaint}")
    passed = sum(tally.passed for tally in results.values())
    failed = sum(tally.failed for tally in results.values())
    print(f"{passed} passed, {failed} failed, {sum(skips.values())} skipped")
    return not failed and not complaints


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", default=BACKEND, help="dotted path of another cache backend")
    parser.add_argument("--cache-dir", type=Path, default=CACHE_FOLDER, help="folder of archives")
    return parser.parse_args()


def main() -> int:
    """Run every group and return the exit status."""
    arguments = parse_arguments()
    archive = download(arguments.cache_dir)
    results, complaints = {}, []
    with tempfile.TemporaryDirectory() as folder, serve(arguments.backend) as (entry, server):
        set_up(unpack_tests(archive, Path(folder)), entry)
        for group in GROUPS:
            results[group.name], found = run(group, server)
            complaints += found
    return 0 if report(results, complaints) else 1


if __name__ == "__main__":
    sys.exit(main())
