"""Processes of hosts whose clocks differ, all in this one: none knows what another knows."""

import time

from django_momento_http._store.debts import Ledger
from django_momento_http._store.namespace import Namespace
from django_momento_http._store.store import Store
from django_momento_http.cache import MomentoCache
from django_momento_http.testing import RunningServer


class Host(MomentoCache):
    """The backend of one process; a test moves its clocks."""

    def __init__(self, server: RunningServer, ahead: float = 0.0, **options: object) -> None:
        self.now = 0.0
        # What the wall clock is off by; that of another host is off by something else.
        self.ahead = ahead
        self.born = time.time()
        entry = server.cache_settings(**options)
        super().__init__(entry.pop("LOCATION"), entry)

    def _find_store(self) -> Store:
        clocks = lambda: self.now, lambda: self.born + self.now + self.ahead
        namespace = Namespace(self._config.namespace, Ledger(), *clocks)
        return Store(self._config, namespace, *clocks)
