"""What the collector runs when it puts away what interrupts have left behind.

``collected``: interrupts each method at every place, keeps what comes out in a cycle, and reports
the code of Python's that runs while that is collected.
"""

import gc
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from django.core.cache import caches

from tests.support.interrupting import at_every_place

from .common import say, set_up

CALLS: dict[str, Callable[[Any], object]] = {
    "get": lambda cache: cache.get("k0"),
    "get by a new connection": lambda cache: cache.get("k0") if forget(cache) else None,
    "set": lambda cache: cache.set("k0", 0),
    "get_many": lambda cache: cache.get_many(["k0", "k1", "k2"]),
    "set_many": lambda cache: cache.set_many({"k0": 0, "k1": 1}),
    "incr": lambda cache: cache.incr("k0"),
    "get_or_set": lambda cache: cache.get_or_set("k0", 0),
    "get_or_set that makes": lambda cache: cache.get_or_set("k4", list),
    "get_or_set that stores nothing": lambda cache: cache.get_or_set("k5", list, 0),
    "touch": lambda cache: cache.touch("k0"),
    "delete": lambda cache: cache.delete("k3"),
    "clear": lambda cache: cache.clear(),
}


def forget(cache: Any) -> bool:
    """Let the next connection be a new one."""
    pool = cache._store._client._endpoint.transport.pool
    while pool._idle:
        pool.tidy(pool._idle[-1], reusable=False)
    return True


def run_by_the_collector() -> set[str]:
    """Collect, and return what code ran; a generator expression has nothing to do at its end."""
    seen: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        name = frame.f_code.co_qualname
        if event == "call" and not name.endswith("<genexpr>"):
            seen.add(f"{frame.f_globals.get('__name__')}: {name}")

    sys.setprofile(note)
    try:
        gc.collect()
    finally:
        sys.setprofile(None)
    return seen


def left_by(call: Callable[[], object]) -> Iterator[set[str]]:
    """Yield what the collector runs for each interrupt of a call."""
    for error in at_every_place(call):
        cycle: list[Any] = [error]
        cycle.append(cycle)
        del error, cycle
        yield run_by_the_collector()


def main() -> None:
    """Interrupt, collect, and report."""
    set_up()
    cache = caches["default"]
    cache.set_many({"k0": 0, "k1": 1, "k2": 2})
    # What is there now need not be looked at again and again.
    gc.collect()
    gc.freeze()
    interrupts, run = 0, set[str]()
    for name, call in CALLS.items():
        for seen in left_by(lambda call=call: call(cache)):  # type: ignore[misc]
            interrupts += 1
            run |= {f"{name}: {one}" for one in seen}
    say(interrupts=interrupts, run=sorted(run))


if __name__ == "__main__":
    main()
