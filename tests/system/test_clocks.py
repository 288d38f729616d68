"""clear() where clocks disagree: whatever hosts think of the time, what was cleared stays so.

Sequences of writes, reads and clears by two hosts whose clocks differ by a minute, whose clocks are
set back, and whose processes end and begin anew, in any order.
"""

import itertools
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from django_momento_http.testing import RunningServer
from tests.support.sizes import sized

from .hosts import Host

SKEW = 60.0
SET_BACK = 600.0
STEPS = 14
NEVER = float("-inf")


class Write(NamedTuple):
    """One value as the model knows it."""

    number: int
    time: float
    # Whether its writer knew of every clear() before it.
    is_current: bool


class World:
    """Two hosts on one cache, and what they may and must find under one key."""

    names = ("a", "b")

    def __init__(self, server: RunningServer, max_age: float, prefix: str) -> None:
        self._server = server
        self._options: dict[str, Any] = {
            "CLEAR_MAX_AGE": max_age,
            "KEY_PREFIX": prefix,
            "REQUEST_TIMEOUT": 30,
        }
        self._max_age = max_age
        self._time = 0.0
        self._order = 0
        # The order of each clear(), by who knows of it; and when all do.
        self._cleared: list[tuple[int, float, str]] = []
        self._writes: dict[int, int] = {}
        self._last: Write | None = None
        self._born: dict[str, int] = dict.fromkeys(self.names, 0)
        self._hosts = {"a": self._process(0.0), "b": self._process(-SKEW)}

    def _process(self, ahead: float) -> Host:
        host = Host(self._server, ahead, **self._options)
        host.now = self._time
        host.born -= self._time
        return host

    def _known_to(self, name: str) -> int:
        """Return the order of the last clear() that a host must know of."""
        known = (
            order
            for order, time, clearer in self._cleared
            if clearer == name or self._born[name] > order or self._time - time >= self._max_age
        )
        return max(known, default=0)

    def _is_behind(self, name: str) -> bool:
        return bool(self._cleared) and self._known_to(name) < self._cleared[-1][0]

    # Steps

    def set(self, name: str) -> None:
        """Write a value that nobody wrote before."""
        self._order += 1
        self._hosts[name].set("k", self._order, None)
        self._writes[self._order] = self._order
        self._last = Write(self._order, self._time, not self._is_behind(name))

    def touch(self, name: str) -> None:
        """Write back what is there: that makes nothing young."""
        self._order += 1
        self._hosts[name].touch("k", None)

    def clear(self, name: str) -> None:
        """Forget everything."""
        self._order += 1
        self._hosts[name].clear()
        self._cleared.append((self._order, self._time, name))
        self._last = None

    def get(self, name: str) -> None:
        """Find the last value where everybody knows everything, and never one of the past."""
        found = self._hosts[name].get("k")
        if found is not None:
            assert found > self._known_to(name), f"{name} finds what was cleared"
        elif self._last is not None and self._last.is_current and not self._is_behind(name):
            raise AssertionError(f"{name} does not find what was set after every clear")

    def wait(self, _: str) -> None:
        """Let CLEAR_MAX_AGE pass, everywhere."""
        self._pass(self._max_age)

    def wait_a_little(self, _: str) -> None:
        """Let less than that pass."""
        self._pass(self._max_age / 2)

    def _pass(self, seconds: float) -> None:
        self._time += seconds
        self._server.advance(seconds)
        for host in self._hosts.values():
            host.now = self._time

    def set_back(self, name: str) -> None:
        """Set the clock of a running process back."""
        self._hosts[name].ahead -= SET_BACK

    def end_and_begin(self, name: str) -> None:
        """Begin a new process on the same host."""
        self._order += 1
        self._born[name] = self._order
        self._hosts[name] = self._process(self._hosts[name].ahead)

    def end_and_begin_earlier(self, name: str) -> None:
        """Begin a new process on a host whose clock was set back meanwhile."""
        self.set_back(name)
        self.end_and_begin(name)


ACTS = ("set", "clear", "get", "touch", "wait", "wait_a_little", "set_back")
ACTS += ("end_and_begin", "end_and_begin_earlier")
STEPS_OF_ALL = [(act, name) for act in ACTS for name in World.names]


def play(server: RunningServer, max_age: float, prefix: str, steps: Any) -> None:
    """Go through a sequence and let both hosts look after each step."""
    world = World(server, max_age, prefix)
    done = []
    for act, name in steps:
        done.append(f"{name}.{act}")
        try:
            getattr(world, act)(name)
            for each in World.names:
                world.get(each)
        except AssertionError as error:
            pytest.fail(f"CLEAR_MAX_AGE {max_age}, {', '.join(done)}: {error}")


@pytest.mark.parametrize("max_age", [0, 10])
def test_whatever_the_order_nothing_cleared_comes_back(
    max_age: float, server: RunningServer
) -> None:
    """Two hosts do anything in any order; neither ever finds a value that it knows was cleared."""
    for seed in range(sized(60, 10_000)):
        chance = random.Random(seed)
        steps = [chance.choice(STEPS_OF_ALL) for _ in range(STEPS)]
        play(server, max_age, f"random-{seed}", steps)


def short_orders() -> Iterator[tuple[Any, ...]]:
    """Yield every order of a few writes and clears after which a new process looks."""
    chosen = [(act, name) for act in ("set", "clear") for name in World.names]
    later = [(act, "b") for act in ("get", "end_and_begin", "end_and_begin_earlier")]
    yield from itertools.product(*[chosen] * sized(2, 4), chosen + later, later)


def test_every_short_order(server: RunningServer) -> None:
    """All orders of a few writes and clears, with a process that begins afterwards."""
    for number, steps in enumerate(short_orders()):
        play(server, 10, f"order-{number}", steps)
