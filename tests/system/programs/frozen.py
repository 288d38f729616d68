"""A process that is frozen from outside, idle or in the midst of its work.

``frozen idle|busy IDLE_LIMIT``. Idle, it reads what is there each time that it is told to. Busy,
two threads read all the time; told to, it says what each has found since the last time.
"""

import sys
import threading
from typing import Any

from django.core.cache import caches

from django_momento_http._http import pool

from .common import Size, is_of, say, set_up, value_of

KEYS = [f"key-{number}" for number in range(8)]
THREADS = 2


def read_all() -> dict[str, Any]:
    """Read each key alone and all together, and return what was missing or wrong."""
    cache = caches["default"]
    found = {key: cache.get(key) for key in KEYS}
    many = cache.get_many(KEYS)
    pairs = [*found.items(), *((key, many.get(key)) for key in KEYS)]
    return {
        "missing": [key for key, value in pairs if value is None],
        "wrong": [key for key, value in pairs if value is not None and not is_of(key, value)],
        "descriptors": Size.now().descriptors,
        "openings": cache.stats()["breaker_openings"],
    }


class Reader(threading.Thread):
    """Reads key after key and counts what it finds."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.is_over = False
        self.hits = self.misses = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        """Read until it is over."""
        cache, turn = caches["default"], 0
        while not self.is_over:
            turn += 1
            key = KEYS[turn % len(KEYS)]
            value = cache.get(key)
            if value is None:
                self.misses += 1
            elif is_of(key, value):
                self.hits += 1
            else:
                self.wrong.append(key)


def idle() -> None:
    """Read when told to."""
    for _ in sys.stdin:
        say(**read_all())


def busy() -> None:
    """Read all the time and report when told to."""
    readers = [Reader() for _ in range(THREADS)]
    for reader in readers:
        reader.start()
    for _ in sys.stdin:
        say(
            hits=[reader.hits for reader in readers],
            misses=[reader.misses for reader in readers],
            wrong=[key for reader in readers for key in reader.wrong],
            openings=caches["default"].stats()["breaker_openings"],
        )
    for reader in readers:
        reader.is_over = True
        reader.join()


def main() -> None:
    """Store what is to be read, say so, and wait to be told."""
    set_up()
    pool._IDLE_SECONDS = float(sys.argv[2])
    caches["default"].set_many({key: value_of(key) for key in KEYS})
    say(**read_all())
    idle() if sys.argv[1] == "idle" else busy()


if __name__ == "__main__":
    main()
