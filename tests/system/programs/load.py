"""Threads that read and write all the time, whatever the service does.

``load THREADS``. Each has keys of its own and knows what it wrote last. Told to, the program says
how the threads fared; it ends with its input.
"""

import sys
import threading
import time
from typing import Any

from django.core.cache import caches

from .common import Lines, Size, say, set_up, value_of


class Worker(threading.Thread):
    """Writes and reads its keys in turn."""

    def __init__(self, number: int) -> None:
        super().__init__(daemon=True)
        self.keys = [f"key-{number}-{index}" for index in range(4)]
        self.is_over = False
        self.turns = self.hits = 0
        self.hit_at = 0.0
        self.wrong: list[str] = []

    def run(self) -> None:
        """Work until it is over."""
        cache = caches["default"]
        while not self.is_over:
            self.turns += 1
            key = self.keys[self.turns % len(self.keys)]
            cache.set(key, value_of(key, self.turns))
            self._judge(key, cache.get(key), self.turns)
            for name, value in cache.get_many(self.keys).items():
                self._judge(name, value, 0)

    def _judge(self, key: str, value: Any, number: int) -> None:
        """Take nothing, or the key's own value; an older one where a write may have failed."""
        if value is None:
            return
        if value != value_of(key, value["number"]):
            self.wrong.append(f"{key}: {value!r:.200}")
        if value["number"] == number:
            self.hits += 1
            self.hit_at = time.monotonic()


def state(workers: list[Worker], lines: Lines) -> dict[str, Any]:
    """Return how they fare."""
    stats: dict[str, Any] = caches["default"].stats()
    return {
        "turns": [worker.turns for worker in workers],
        "hits": [worker.hits for worker in workers],
        "hit_at": [worker.hit_at for worker in workers],
        "wrong": [line for worker in workers for line in worker.wrong],
        "alive": sum(worker.is_alive() for worker in workers),
        "openings": stats["breaker_openings"],
        "errors": stats["errors"],
        "size": Size.now()._asdict(),
        "lines": lines.lines[:10],
    }


def main() -> None:
    """Work until the input ends."""
    lines = set_up()
    say(size=Size.now()._asdict())
    workers = [Worker(number) for number in range(int(sys.argv[1]))]
    for worker in workers:
        worker.start()
    for _ in sys.stdin:
        say(**state(workers, lines))
    for worker in workers:
        worker.is_over = True
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main()
