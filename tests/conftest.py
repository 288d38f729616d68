"""What most tests need: a server, and backends that talk to it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_momento_http.testing import RunningServer, running_server


@pytest.fixture
def server() -> Iterator[RunningServer]:
    """A fresh, empty server."""
    with running_server() as running:
        yield running


@pytest.fixture
def make_cache(server: RunningServer) -> Callable[..., Any]:
    """A function that builds a backend against the server; its arguments are as in CACHES."""
    from django_momento_http.cache import MomentoCache

    def make(**options: Any) -> Any:
        entry = server.cache_settings(**options)
        del entry["BACKEND"]
        return MomentoCache(entry.pop("LOCATION"), entry)

    return make
