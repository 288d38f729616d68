"""How many calls of our own stand between a method of the cache and the socket."""

import pytest

from django_momento_http.testing import RunningServer
from tests.support.calls import METHODS, calls_of, warm_cache

# The most that a method may make; a get of 60 calls through 20 modules was hard to follow.
MOST_CALLS = {"get": 55, "set": 70, "get_many": 245}
MOST_MODULES = {"get": 15, "set": 26, "get_many": 26}


@pytest.mark.parametrize("method", METHODS)
def test_few_calls_lead_to_the_socket(server: RunningServer, method: str) -> None:
    """A warm method makes no more calls of our own, through no more modules, than can be read."""
    calls = calls_of(method, warm_cache(server))
    assert len(calls) <= MOST_CALLS[method]
    assert len({module for module, _ in calls}) <= MOST_MODULES[method]
