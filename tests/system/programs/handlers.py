"""Signal handlers that use the cache while the main thread is inside it.

``handlers COUNT SEED``. Main thread and handler have keys of their own, so that both know what they
must find. Each alarm sets the next one, so that none interrupts another.
"""

import asyncio
import random
import signal
import sys
from typing import Any

from django.core.cache import caches

from .common import Size, is_of, say, set_up, value_of, what_stays

KEYS = [f"key-{number}" for number in range(3)]
LONGEST = 0.002  # seconds until an alarm rings: a few operations


class Handler:
    """Uses the cache at random moments, and notes what it should not have found."""

    def __init__(self, chance: random.Random, count: int) -> None:
        self.wrong: list[str] = []
        self.rung = 0
        self._chance = chance
        self._count = count
        self._cache = caches["default"]
        signal.signal(signal.SIGALRM, self._ring)

    def set(self) -> None:
        """Let it ring soon."""
        signal.setitimer(signal.ITIMER_REAL, self._chance.uniform(1e-5, LONGEST))

    def _ring(self, *_: object) -> None:
        self.rung += 1
        cache, key = self._cache, f"handler-{self._chance.randrange(3)}"
        match self._chance.randrange(3):
            case 0:
                cache.set(key, value_of(key, self.rung))
                self._judge("set and get", key, cache.get(key), self.rung)
            case 1:
                cache.set_many({key: value_of(key, self.rung)})
                self._judge("get_many", key, cache.get_many([key, "none"]).get(key), self.rung)
            case _:
                cache.delete(key)
                if cache.get(key) is not None:
                    self.wrong.append(f"{key} is there after delete()")
        if self.rung < self._count:
            self.set()

    def _judge(self, method: str, key: str, value: Any, number: int) -> None:
        if value != value_of(key, number):
            self.wrong.append(f"handler: {method} {key}: {value!r:.200}")


class Main:
    """What the main thread does meanwhile."""

    def __init__(self, chance: random.Random, handler: Handler) -> None:
        self.wrong: list[str] = []
        self.calls = 0
        self._chance = chance
        self._handler = handler
        self._cache = caches["default"]
        self._written: dict[str, int] = {}

    def run(self, count: int) -> None:
        """Call every method in turn, sync and async, until the handler was called that often."""
        self._cache.set("counter", 0)
        while self._handler.rung < count:
            if self.calls % 50 == 0:
                asyncio.run(self._tasks())
            self._one(self._chance.choice(KEYS))

    def _one(self, key: str) -> None:
        cache, number = self._cache, self.calls
        self.calls += 1
        match self._chance.randrange(7):
            case 0:
                cache.set(key, value_of(key, number))
                self._written[key] = number
            case 1:
                cache.set_many({name: value_of(name, number) for name in KEYS})
                self._written.update(dict.fromkeys(KEYS, number))
            case 2:
                cache.delete(key)
                self._written.pop(key, None)
            case 3:
                found = cache.get_or_set(key, value_of(key, number))
                self._judge("get_or_set", key, found, self._written.setdefault(key, number))
            case 4:
                self._judge_all("get_many", cache.get_many(KEYS))
            case 5:
                # Where the handler made no call of its own fail, this one succeeds.
                before = cache.get("counter")
                if (total := cache.incr("counter")) != before + 1:
                    self.wrong.append(f"incr: {total} after {before}")
            case _:
                self._judge("get", key, cache.get(key), self._written.get(key))

    async def _tasks(self) -> None:
        values = await asyncio.gather(*[self._cache.aget(key) for key in KEYS])
        found = {key: value for key, value in zip(KEYS, values, strict=True) if value is not None}
        self._judge_all("gather", found)

    def _judge_all(self, method: str, found: dict[str, Any]) -> None:
        for key in KEYS:
            self._judge(method, key, found.get(key), self._written.get(key))

    def _judge(self, method: str, key: str, value: Any, number: int | None) -> None:
        wanted = None if number is None else value_of(key, number)
        if value != wanted or (value is not None and not is_of(key, value)):
            self.wrong.append(f"{method} {key}: {value!r:.200}, not number {number}")


def main() -> None:
    """Use the cache from both sides, and report."""
    count, chance = int(sys.argv[1]), random.Random(int(sys.argv[2]))
    lines = set_up()
    handler = Handler(chance, count)
    work = Main(chance, handler)
    work.run(0)
    handler.set()
    work.run(count // 2)
    warm = Size.now()
    work.run(count)
    late = Size.now()
    say(
        rung=handler.rung,
        calls=work.calls,
        wrong=(handler.wrong + work.wrong)[:20],
        **what_stays(warm, late, count // 2),
        lines=lines.lines[:10],
    )


if __name__ == "__main__":
    main()
