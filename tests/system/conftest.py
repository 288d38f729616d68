"""What the proofs share: a cache of few connections on a server with one slow key."""

from collections.abc import Callable
from typing import Any

import pytest

from django_momento_http.testing import Fault, RunningServer
from tests.support.sizes import sized

from .programs.common import CONNECTIONS, SLOW

Options = Callable[..., dict[str, Any]]


@pytest.fixture
def options(server: RunningServer) -> Options:
    """A function that returns what ``report_of`` is given, its arguments as in CACHES."""
    # Over half of a deadline: of two reads on one connection the second comes too late.
    slow = Fault(key=f":1:{SLOW}".encode(), method="GET", delay=1.1, times=None)
    server.inject(slow)
    common = {"REQUEST_TIMEOUT": 2.0, "MAX_CONNECTIONS": CONNECTIONS, "CLEAR_MAX_AGE": 0.05}

    def make(**more: Any) -> dict[str, Any]:
        return {"server": server, "longest_wait": sized(90, 3600), **common, **more}

    return make
