"""Processes whose aliases keep copies, with clocks that a test moves, and what was asked."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from django_momento_http._client.breaker import Condition
from django_momento_http._store.debts import Ledger
from django_momento_http._store.namespace import Namespace
from django_momento_http._store.store import Store
from django_momento_http.cache import MomentoCache
from django_momento_http.testing import RunningServer

CACHE = "default-cache"
AGE, STALE = 5, 60

Call = Callable[..., Any]


def sync(cache: MomentoCache, name: str, *arguments: Any, **options: Any) -> Any:
    """Call a method of a cache."""
    return getattr(cache, name)(*arguments, **options)


def twin(cache: MomentoCache, name: str, *arguments: Any, **options: Any) -> Any:
    """Call its async twin."""
    return asyncio.run(getattr(cache, f"a{name}")(*arguments, **options))


class Process:
    """One process: its clocks, and its namespaces; aliases of it share them."""

    def __init__(self, server: RunningServer, number: int = 0) -> None:
        self.server = server
        self.now = 1000.0
        self.wall = time.time()
        self._number = number
        self._namespaces: dict[Any, Namespace] = {}

    def pass_(self, seconds: float) -> None:
        """Let time pass, for this process alone."""
        self.now += seconds
        self.wall += seconds

    def alias(self, **options: Any) -> MomentoCache:
        """Return the backend of an alias, which keeps copies unless it is told otherwise."""
        given = {"NEAR_MAX_AGE": AGE, "REQUEST_TIMEOUT": 30.0, "CONNECT_TIMEOUT": 20.0}
        # Another process has other counters and breakers.
        given |= {"MAX_CONNECTIONS": 64 - self._number} | options
        entry = self.server.cache_settings(**given)
        cache = MomentoCache(entry.pop("LOCATION"), entry)
        clocks = lambda: self.now, lambda: self.wall
        key = cache._config.namespace
        if key not in self._namespaces:
            self._namespaces[key] = Namespace(key, Ledger(), *clocks)
        cache._shared = Store(cache._config, self._namespaces[key], *clocks)
        return cache


def close_breakers(cache: MomentoCache) -> None:
    """Let both breakers forget what they saw."""
    breakers = cache._shared._client._breakers
    for breaker in (breakers.service, breakers.account):
        breaker.condition = Condition()


def asked(server: RunningServer) -> list[str]:
    """The methods of the requests for keys of users since it was last asked."""
    methods = [request.method for request in server.requests if request.key[:1] != b"\xff"]
    server.forget_requests()
    return methods
