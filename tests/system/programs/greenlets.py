"""Greenlets that use the cache and are timed out or killed at random moments.

``greenlets gevent|eventlet COUNT SEED``. More greenlets than connections work side by side; each
call has a limit of its own, and now and then a greenlet is killed and another takes its place.
"""

# ruff: isort: off
from .patched import Timeout, kill, pause, spawn

import random
import sys
from collections import Counter
from typing import Any

from django.core.cache import caches

from .common import CONNECTIONS, Lines, Size, is_of, say, set_up, what_stays, value_of
# ruff: isort: on

KEYS = [f"key-{number}" for number in range(16)]
WORKERS = 2 * CONNECTIONS
LONGEST = 0.02  # seconds until a limit: a few calls of so many greenlets
KILL_EVERY = 0.01


class Trial:
    """So many calls cut short, and what became of them."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.chance = random.Random(seed)
        self.cut: Counter[str] = Counter()
        self.calls = 0
        self.wrong: list[str] = []
        self.strays: list[str] = []
        self.sizes: list[Size] = []

    @property
    def done(self) -> int:
        """How many were cut short so far."""
        return self.cut.total()

    def run(self) -> None:
        """Cut calls short until it is enough."""
        workers = [spawn(self._work) for _ in range(WORKERS)]
        while self.done < self.count:
            pause(KILL_EVERY)
            index = self.chance.randrange(WORKERS)
            kill(workers[index])
            self.cut["killed"] += 1
            workers[index] = spawn(self._work)
            self._measure()
        # Those that were not killed end by themselves.
        spawn(pause, 0)
        for worker in workers:
            worker.wait() if hasattr(worker, "wait") else worker.join()

    def _measure(self) -> None:
        if self.done >= self.count * (len(self.sizes) + 1) // 2:
            self.sizes.append(Size.now())

    def _work(self) -> None:
        cache = caches["default"]
        while self.done < self.count:
            key = self.chance.choice(KEYS)
            limit = Timeout(self.chance.uniform(0, LONGEST))
            try:
                with limit:
                    self._call(cache, key)
            except Timeout as error:
                if error is not limit:
                    self.strays.append(f"another's limit: {error!r}")
                self.cut["timed out"] += 1
            except Exception as error:  # noqa: BLE001 - judged
                self.strays.append(f"{type(error).__name__}: {error}")

    def _call(self, cache: Any, key: str) -> None:
        self.calls += 1
        match self.chance.randrange(6):
            case 0:
                cache.set(key, value_of(key, self.calls))
            case 1:
                cache.delete(key)
            case 2:
                for name, value in cache.get_many(KEYS).items():
                    self._judge("get_many", name, value)
            case 3:
                cache.set_many({name: value_of(name, self.calls) for name in KEYS[:5]})
            case 4:
                made = cache.get_or_set(key, lambda: pause(0.002) or value_of(key, self.calls))
                self._judge("get_or_set", key, made)
            case _:
                self._judge("get", key, cache.get(key))

    def _judge(self, method: str, key: str, value: Any) -> None:
        if value is not None and not is_of(key, value):
            self.wrong.append(f"{method} {key}: {value!r:.200}")


def report(trial: Trial, lines: Lines) -> None:
    """Say what became of it."""
    late = Size.now()
    warm = (trial.sizes or [late])[0]
    say(
        cut=dict(trial.cut),
        calls=trial.calls,
        wrong=trial.wrong[:20],
        strays=trial.strays[:20],
        **what_stays(warm, late, trial.count // 2),
        lines=lines.lines[:10],
        stats=caches["default"].stats(),
    )


def main() -> None:
    """Cut calls short, and report."""
    lines = set_up()
    caches["default"].set_many({key: value_of(key) for key in KEYS})
    trial = Trial(int(sys.argv[2]), int(sys.argv[3]))
    trial.run()
    report(trial, lines)


if __name__ == "__main__":
    main()
