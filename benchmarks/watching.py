"""Whether copies in one process ever answer with what another wrote over longer ago than is said.

A writer, whose backend shares nothing with the readers' as another process's would, writes numbers
under a few keys; each reader notes when it is told a number that was written over too long before.
"""

import random
import threading
import time
from collections import defaultdict

from django_momento_http._store.namespace import Namespace
from django_momento_http._store.owed import Ledger
from django_momento_http._store.store import Store
from django_momento_http.cache import MomentoCache
from django_momento_http.exceptions import MomentoError

KEYS = 10
WRITES_A_SECOND = 20
READS_A_SECOND = 50
# A write that failed may land so much later; until then its key is left alone.
LANDS_WITHIN = 2.0
# Between two looks at a clock, on a busy machine.
SLACK = 0.1


def stranger(cache: MomentoCache) -> MomentoCache:
    """Return the backend as if it were another process's."""
    cache._shared = Store(cache._config, Namespace(cache._config.namespace, Ledger()))
    return cache


class Watch:
    """One writer, and readers that may be told what is at most so many seconds out of date."""

    def __init__(
        self, writer: MomentoCache, readers: dict[str, tuple[MomentoCache, float]], end: float
    ) -> None:
        self._writer = writer
        self._readers = readers
        self._end = end
        # Of each key: numbers that were stored for sure, and when that was known.
        self._stored: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
        self.wrong: list[str] = []
        self.reads = 0
        self.oldest = 0.0

    def threads(self) -> list[threading.Thread]:
        """Return what is to be run."""
        readers = [
            threading.Thread(target=self._read, args=(name, cache, longest))
            for name, (cache, longest) in self._readers.items()
        ]
        return [threading.Thread(target=self._write), *readers]

    def _write(self) -> None:
        chance, number = random.Random(1), 0
        rests = dict.fromkeys((f"watched:{index}" for index in range(KEYS)), 0.0)
        while time.monotonic() < self._end:
            time.sleep(1 / WRITES_A_SECOND)
            key = chance.choice(list(rests))
            if time.monotonic() < rests[key]:
                continue
            number += 1
            try:
                self._writer.set(key, number, 3600)
            except MomentoError:
                rests[key] = time.monotonic() + LANDS_WITHIN
            else:
                self._stored[key].append((number, time.monotonic()))

    def _read(self, name: str, cache: MomentoCache, longest: float) -> None:
        chance = random.Random(name)
        while time.monotonic() < self._end:
            time.sleep(1 / READS_A_SECOND)
            key = f"watched:{chance.randrange(KEYS)}"
            began = time.monotonic()
            try:
                number = cache.get(key)
            except MomentoError:
                continue
            if number is not None:
                self._judge(name, key, number, began, longest)

    def _judge(self, name: str, key: str, number: int, began: float, longest: float) -> None:
        """Note a number that was written over too long before it was asked for."""
        self.reads += 1
        over = next((at for newer, at in list(self._stored[key]) if newer > number), began)
        self.oldest = max(self.oldest, began - over)
        if began - over > longest + SLACK:
            self.wrong.append(f"{name}: a value that was written over {began - over:.1f} s before")
