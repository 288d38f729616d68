"""What most tests need: a server, and backends that talk to it."""

from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from django_momento_http.testing import RunningServer, running_server
from tests.support import canary


def pytest_configure() -> None:
    """Watch over the token from the first test on."""
    canary.watch_session()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """Fail whatever shows the token."""
    report = yield
    canary.SESSION.check_report(report)
    if sightings := canary.SESSION.take():
        report.outcome = "failed"
        report.longrepr = f"the token was seen in {', '.join(sightings)}"
    return report


PATIENT = {"REQUEST_TIMEOUT": 30.0, "CONNECT_TIMEOUT": 30.0}


@pytest.fixture
def server() -> Iterator[RunningServer]:
    """A fresh, empty server."""
    with running_server() as running:
        yield running


@pytest.fixture
def make_cache(server: RunningServer) -> Callable[..., Any]:
    """A function that builds a backend against the server; its arguments are as in CACHES."""
    from django_momento_http.cache import MomentoCache

    canary.SESSION.check_targets(server)

    def make(**options: Any) -> Any:
        # Where a test is not about time, a busy machine must not make it one.
        longest_wait = {} if "REQUEST_TIMEOUT" in options else PATIENT
        options = longest_wait | options
        entry = server.cache_settings(**options)
        del entry["BACKEND"]
        return MomentoCache(entry.pop("LOCATION"), entry)

    return make
