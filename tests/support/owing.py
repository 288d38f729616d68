"""Writes that are owed: a process whose clocks a test moves, and what the service has."""

import time
from typing import Any

from django_momento_http._client.breaker import Condition
from django_momento_http._store.debts import Ledger
from django_momento_http._store.namespace import Namespace
from django_momento_http._store.store import Store
from django_momento_http.cache import MomentoCache
from django_momento_http.testing import Fault, RunningServer

CACHE = "default-cache"
KEY = b":1:k"
DOWN = Fault(status=500, times=None)


class Process(MomentoCache):
    """The backend of one more process, whose breakers stay closed; a test moves its clocks."""

    def __init__(self, server: RunningServer, **options: Any) -> None:
        self.now = 0.0
        self.born = time.time()
        # The options make it a client of its own, with breakers of its own.
        entry = server.cache_settings(**{"COMPRESS_MIN_BYTES": 2000, **options})
        super().__init__(entry.pop("LOCATION"), entry)

    def _find_store(self) -> Store:
        clocks = lambda: self.now, lambda: self.born + self.now
        return Store(self._config, Namespace(self._config.namespace, Ledger(), *clocks), *clocks)

    def outlast_the_breakers(self) -> None:
        """Let both breakers see that the service answers again."""
        client = self._shared._client
        for breaker in (client._breakers.service, client._breakers.account):
            breaker.condition = Condition()
        self.now += 20  # longer than payments pause
        super().get("probe")


def at_the_service(server: RunningServer, key: bytes = KEY) -> bool:
    """Whether the service has a value under the key."""
    return (CACHE, key) in server.items


def sent(server: RunningServer, key: bytes = KEY) -> list[str]:
    """The methods of the requests for a key since the last ones were forgotten."""
    return [request.method for request in server.requests if request.key == key]


def owed(cache: MomentoCache) -> tuple[object, object]:
    """How many writes are owed, and how many were paid."""
    stats = cache.stats()
    return stats["owed"], stats["paid"]


class Payer:
    """Who owes, for tests of the ledger alone."""

    def __init__(self) -> None:
        self.payments = 0

    def owes(self, ledger: Ledger) -> None:
        """The ledger is known."""

    def paid(self) -> None:
        self.payments += 1
