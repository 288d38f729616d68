"""What the programs share: a configured cache, values that tell their keys, and measures."""

import faulthandler
import gc
import json
import logging
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from django.conf import settings
from django.core.cache import caches

from django_momento_http.exceptions import MomentoError

CONNECTIONS = 4
# The key whose answers the server holds back, so that its requests are under way at once.
SLOW = "slow"


class Lines(logging.Handler):
    """Keeps what the package logs, without the guard that other handlers put round their work."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append(record.getMessage())


def set_up() -> Lines:
    """Configure Django, and let a program that hangs say where."""
    faulthandler.dump_traceback_later(float(os.environ["LONGEST_WAIT"]), exit=True)
    entry = json.loads(os.environ["CACHE"])
    strict = {**entry["OPTIONS"], "ON_ERROR": "raise", "CLEAR_MAX_AGE": None}
    settings.configure(
        SECRET_KEY="for tests only",
        CACHES={"default": entry, "strict": {**entry, "OPTIONS": strict}},
    )
    lines = Lines()
    logger = logging.getLogger("django_momento_http")
    logger.addHandler(lines)
    logger.propagate = False
    return lines


def say(**facts: Any) -> None:
    """Tell the test."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def value_of(key: str, number: int = 0) -> dict[str, Any]:
    """Return a value that tells its key."""
    return {"key": key, "number": number, "fill": key * 20}


def is_of(key: str, value: Any) -> bool:
    """Whether a value is the key's, and whole."""
    return bool(value == value_of(key, value["number"]))


def what_stays(warm: "Size", late: "Size", count: int) -> dict[str, Any]:
    """Return what is there at the end: slots, and what has grown since so many trials."""
    return {
        "slots": slots_that_work(),
        "connections": CONNECTIONS,
        "more_descriptors": late.descriptors - warm.descriptors,
        "more_threads": late.threads - warm.threads,
        "blocks_each": (late.blocks - warm.blocks) / max(1, count),
    }


def slots_that_work() -> int:
    """Return how many of so many slow reads are served at once; the best of up to three times.

    The server holds each back for more than half of the deadline: a read that had to wait for
    another's connection comes too late.
    """
    with suppress(MomentoError):
        caches["strict"].set(SLOW, SLOW)
    found = 0
    for _ in range(3):
        if found < CONNECTIONS:
            found = max(found, _read_at_once())
    return found


def _read_at_once() -> int:
    found: list[Any] = []

    def read() -> None:
        try:
            found.append(caches["strict"].get(SLOW))
        except Exception as error:  # noqa: BLE001 - it is no value
            found.append(error)

    threads = [threading.Thread(target=read) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found.count(SLOW)


class Size(NamedTuple):
    """What a process holds that could grow."""

    descriptors: int
    threads: int
    blocks: int

    @classmethod
    def now(cls) -> "Size":
        """Measure this process, without what is only waiting to be collected."""
        for _ in range(3):
            gc.collect()
        return cls(len(list(Path("/dev/fd").iterdir())), _threads(), sys.getallocatedblocks())

    @classmethod
    def settled(cls, longest_wait: float = 5.0) -> "Size":
        """Measure it once other threads have put away what interrupts left under way."""
        end = time.monotonic() + longest_wait
        size, before = cls.now(), None
        while size != before and time.monotonic() < end:
            time.sleep(0.1)
            size, before = cls.now(), size
        return size


def _threads() -> int:
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else threading.active_count()
