"""The resolver: addresses of a host, without waiting longer than asked."""

import socket
import threading
import time
from typing import Any

import pytest

from django_momento_http.exceptions import ConnectFailed
from django_momento_http.resolver import Resolver

ROWS = [
    (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 80, 0, 0)),
    (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80)),
]


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Lookup:
    """Stands for getaddrinfo: counts, and answers what it is told."""

    def __init__(self, *outcomes: Any) -> None:
        self.count = 0
        self._outcomes = outcomes

    def __call__(self, host: str, port: int, **_: Any) -> Any:
        outcome = self._outcomes[min(self.count, len(self._outcomes) - 1)]
        self.count += 1
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def test_addresses_come_in_the_resolver_s_order() -> None:
    """What the system prefers is tried first."""
    found = Resolver("host", 80, Clock(), Lookup(ROWS)).addresses(5)
    assert found == [(row[0], row[4]) for row in ROWS]


def test_a_burst_looks_up_once_and_a_later_connection_again() -> None:
    """A lookup serves the next five seconds, no longer."""
    clock, lookup = Clock(), Lookup(ROWS)
    resolver = Resolver("host", 80, clock, lookup)
    for now, count in ((100.0, 1), (104.9, 1), (105.0, 2)):
        clock.now = now
        resolver.addresses(5)
        assert lookup.count == count


@pytest.mark.parametrize(
    "error",
    [
        socket.gaierror(-2, "Name or service not known"),
        OSError("out of files"),
        UnicodeError("label too long"),
        TimeoutError(),
    ],
)
def test_a_failed_lookup_is_a_failed_connection_and_is_not_kept(error: Exception) -> None:
    """A lookup that fails says so in our words, without the host, and the next one asks again."""
    resolver = Resolver("host.example", 80, Clock(), Lookup(error, ROWS))
    with pytest.raises(ConnectFailed) as caught:
        resolver.addresses(5)
    assert caught.value.kind == "dns"
    assert "host.example" not in str(caught.value)
    assert len(resolver.addresses(5)) == 2


def test_a_hanging_lookup_is_not_waited_for() -> None:
    """The resolver's own patience is not ours, and one that hangs holds one thread."""
    go = threading.Event()
    count: list[int] = []

    def hang(*_: Any, **__: Any) -> Any:
        count.append(1)
        go.wait(10)
        return ROWS

    resolver = Resolver("host", 80, Clock(), hang)
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(ConnectFailed, match="took too long") as caught:
            resolver.addresses(0.05)
        assert caught.value.kind == "dns"
    assert time.monotonic() - began < 0.15 + 0.1
    assert len(count) == 1
    go.set()
    assert len(resolver.addresses(5)) == 2


def test_a_moment_without_threads_is_a_failed_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """When no thread can be started, that is trouble of this connection alone."""
    resolver = Resolver("host", 80, Clock(), Lookup(ROWS))

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(ConnectFailed):
            resolver.addresses(0.1)
    assert len(resolver.addresses(5)) == 2
