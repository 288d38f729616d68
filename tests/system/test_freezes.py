"""A process that is frozen, as AWS Lambda freezes it, while its connections die."""

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from django_momento_http import server as server_module
from django_momento_http.testing import RunningServer
from tests.support.sizes import FULL, sized

from .harness import Program, started

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs POSIX signals")

LONGEST_WAIT = 30.0
# What stands for the limit of 55 seconds, and a freeze beyond it.
IDLE_LIMIT, LONG = 0.2, 0.3
# A deadline, and a freeze after which a breaker that took it for the service's would open.
DEADLINE, VERY_LONG = 0.4, 1.4

Close = Callable[[], None]


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> set[Any]:
    """The connections to the servers of this process that are open."""
    connection, there = server_module.ClientConnection, set()
    made, lost = connection.connection_made, connection.connection_lost

    def connection_made(self: Any, transport: Any) -> None:
        there.add(self)
        made(self, transport)

    def connection_lost(self: Any, error: Exception | None) -> None:
        there.discard(self)
        lost(self, error)

    monkeypatch.setattr(connection, "connection_made", connection_made)
    monkeypatch.setattr(connection, "connection_lost", connection_lost)
    return there


@pytest.fixture
def close(connections: set[Any], server: RunningServer) -> dict[str, Close]:
    """How a peer may treat the connections of a frozen client."""

    def each(act: Callable[[Any], None]) -> Close:
        return lambda: server._in_loop(lambda: [act(one) for one in list(connections)])

    return {
        "kept": lambda: None,
        "closed": each(lambda connection: connection._transport.close()),
        "reset": each(lambda connection: connection.abort()),
    }


@contextmanager
def frozen(program: Program) -> Iterator[None]:
    """Stop the process for so long; it is stopped for sure when the block begins."""
    os.kill(program.pid, signal.SIGSTOP)
    os.waitpid(program.pid, os.WUNTRACED)
    yield
    os.kill(program.pid, signal.SIGCONT)


def wait_for(moment: float) -> None:
    """Wait until that moment of the monotonic clock: the process must be frozen so long."""
    wait_until(lambda: time.monotonic() >= moment)


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so, not for ever."""
    end = time.monotonic() + LONGEST_WAIT
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.001)


CASES = list(itertools.product(["kept", "closed", "reset"], [IDLE_LIMIT, 55.0]))


@pytest.mark.parametrize(("how", "idle_limit"), CASES if FULL else CASES[::2] + CASES[3:4])
def test_after_a_freeze_the_first_read_is_right(
    how: str,
    idle_limit: float,
    close: dict[str, Close],
    connections: set[Any],
    server: RunningServer,
) -> None:
    """Whatever became of idle connections meanwhile, every value is there and is its key's."""
    entry = server.cache_settings(MAX_CONNECTIONS=4, REQUEST_TIMEOUT=10)
    with started("frozen", "idle", idle_limit, entry=entry) as program:
        first = program.hear()
        assert first["missing"] == first["wrong"] == []
        for _ in range(sized(1, 50)):
            with frozen(program):
                end = time.monotonic() + LONG
                close[how]()
                wait_until(lambda: how == "kept" or not connections)
                wait_for(end)
            program.tell("read")
            again = program.hear()
            assert again["missing"] == again["wrong"] == []
            assert again["openings"] == 0
            assert again["descriptors"] <= first["descriptors"] + 4


@pytest.mark.parametrize("how", ["kept", "reset"])
def test_a_freeze_in_the_midst_costs_what_was_under_way(
    how: str, close: dict[str, Close], server: RunningServer
) -> None:
    """Each thread loses at most the one read that was under way, and goes on at once."""
    entry = server.cache_settings(MAX_CONNECTIONS=4, REQUEST_TIMEOUT=DEADLINE)
    with started("frozen", "busy", IDLE_LIMIT, entry=entry) as program:
        program.hear()
        before = report(program)
        for _ in range(sized(1, 30)):
            before = after_reads(program, before, 5)
            with frozen(program):
                end = time.monotonic() + VERY_LONG
                close[how]()
                wait_for(end)
            after = after_reads(program, before, 30)
            assert after["wrong"] == []
            assert after["openings"] == 0
            lost = [b - a for a, b in zip(before["misses"], after["misses"], strict=True)]
            assert max(lost) <= 1
            before = after


def report(program: Program) -> dict[str, Any]:
    """Ask what was found so far."""
    program.tell("report")
    return program.hear()


def after_reads(program: Program, before: dict[str, Any], count: int) -> dict[str, Any]:
    """Return what was found once each thread has found so much more."""
    after = before

    def is_so() -> bool:
        nonlocal after
        after = report(program)
        pairs = zip(before["hits"], after["hits"], strict=True)
        return all(late - early >= count for early, late in pairs)

    wait_until(is_so)
    return after
