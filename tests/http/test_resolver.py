"""The resolver: addresses of a host, without waiting for them."""

import _thread
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from django_momento_http._http.resolver import Resolver
from django_momento_http.exceptions import ConnectFailed
from tests.support.clocks import Clock
from tests.support.interrupting import TimeIsUp, at_every_place
from tests.support.scripted import a_request, all_of, echo, scripted, short, transport_to

ROWS = [
    (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 80, 0, 0)),
    (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80)),
    (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", 80)),
]
FOUND = [(row[0], row[4]) for row in ROWS]


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


def known(resolver: Resolver) -> Sequence[Any]:
    """Return the addresses, once the lookup that is under way has ended."""
    end = time.monotonic() + 10
    while (found := resolver.addresses()) is None:
        assert time.monotonic() < end
        time.sleep(0.001)
    return found


def test_addresses_come_in_the_resolver_s_order() -> None:
    """What the system prefers is tried first."""
    assert known(Resolver("host", 80, Clock(100.0), Lookup(ROWS))) == FOUND


@pytest.mark.parametrize("kind", [RuntimeError, TimeIsUp])
def test_what_a_signal_handler_raises_comes_out_of_a_lookup(kind: type[BaseException]) -> None:
    """It is no sign that no thread can be started; the next lookup is as ever."""
    resolver = Resolver("host", 80, Clock(), Lookup(ROWS))

    def look_up() -> None:
        nonlocal resolver
        resolver = Resolver("host", 80, Clock(), Lookup(ROWS))
        resolver.addresses()

    for error in at_every_place(look_up, kind):
        del error
        assert known(resolver) == FOUND


def test_a_burst_looks_up_once_and_a_later_connection_again() -> None:
    """A lookup serves the next five seconds, no longer."""
    clock, lookup = Clock(100.0), Lookup(ROWS)
    resolver = Resolver("host", 80, clock, lookup)
    for now, count in ((100.0, 1), (104.9, 1), (105.0, 2)):
        clock.now = now
        known(resolver)
        assert lookup.count == count


@pytest.mark.parametrize(
    "failure",
    [
        socket.gaierror(-2, "Name or service not known"),
        OSError("out of files"),
        UnicodeError("label too long"),
        TimeoutError(),
        [],
    ],
    ids=lambda one: type(one).__name__,
)
def test_a_failed_lookup_is_a_failed_connection_and_is_kept_for_a_second(failure: Any) -> None:
    """A lookup that fails says so in our words, without the host, and is soon made again."""
    clock, lookup = Clock(100.0), Lookup(failure, ROWS)
    resolver = Resolver("host.example", 80, clock, lookup)
    for now in (100.0, 100.9):
        clock.now = now
        with pytest.raises(ConnectFailed) as caught:
            known(resolver)
        assert caught.value.kind == "dns"
        assert "host.example" not in str(caught.value)
        assert lookup.count == 1
    clock.now = 101.0
    assert len(known(resolver)) == 3


def test_a_hanging_lookup_is_not_waited_for() -> None:
    """The resolver's own timeout is not ours, and one that hangs holds one thread."""
    go = threading.Event()
    count: list[int] = []

    def hang(*_: Any, **__: Any) -> Any:
        count.append(1)
        go.wait(10)
        return ROWS

    resolver = Resolver("host", 80, Clock(100.0), hang)
    assert [resolver.addresses() for _ in range(100)] == [None] * 100
    assert len(count) <= 1
    go.set()
    assert len(known(resolver)) == 3
    assert len(count) == 1


def test_a_moment_without_threads_is_a_failed_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """When no thread can be started, that is trouble of this connection alone."""
    resolver = Resolver("host", 80, Clock(100.0), Lookup(ROWS))

    def refuse(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", refuse)
        with pytest.raises(ConnectFailed):
            resolver.addresses()
    assert len(known(resolver)) == 3


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", (socket.AF_INET, ("127.0.0.1", 80))),
        ("::1", (socket.AF_INET6, ("::1", 80, 0, 0))),
    ],
)
def test_a_host_that_is_an_address_is_not_looked_up(host: str, address: Any) -> None:
    """Where there is nothing to find, nobody is asked and no thread is needed."""
    lookup = Lookup(ROWS)
    clock = Clock(100.0)
    resolver = Resolver(host, 80, clock, lookup)
    for clock.now in (100.0, 1e9):
        assert resolver.addresses() == [address]
    assert lookup.count == 0


def test_addresses_that_failed_are_tried_last_for_a_while() -> None:
    """The next connection begins with those that did not fail, or failed longest ago."""
    clock = Clock(100.0)
    resolver = Resolver("host", 80, clock, Lookup(ROWS))
    first, second, third = known(resolver)
    resolver.avoid(first)
    assert known(resolver) == [second, third, first]
    clock.now = 103.0
    resolver.avoid(second)
    assert known(resolver) == [third, first, second]
    resolver.avoid(third)
    assert known(resolver) == [first, second, third]
    clock.now = 131.0  # and looked up anew meanwhile
    assert known(resolver) == [first, second, third]
    resolver.avoid(first)
    clock.now = 134.0
    assert known(resolver) == [second, third, first]


def test_a_failed_lookup_is_made_once_for_many_calls() -> None:
    """While names are not found, many calls cost a lookup a second, and none its deadline."""
    with transport_to("http://host.invalid:1") as transport:
        lookup = Lookup(socket.gaierror(-2, "Name or service not known"))
        transport._resolver._lookup = lambda: lookup("host.invalid", 1)
        began = time.monotonic()
        found = all_of(transport, [a_request(f"/{number}") for number in range(640)])
        assert {short(answer) for _, answer in found} == {"ConnectFailed dns"}
        assert lookup.count <= 1 + (time.monotonic() - began)


def test_a_lookup_under_way_holds_back_no_request_of_an_open_connection() -> None:
    """Names are waited for beside all else: an answer that comes meanwhile is handed on."""
    go = threading.Event()
    with scripted(echo) as server:
        endpoint = server.endpoint.replace("127.0.0.1", "localhost")
        with transport_to(endpoint, connections=2, connect_timeout=5) as transport:
            transport.exchange(a_request("/warm"))
            transport._resolver._known = (float("-inf"), (), "")
            transport._resolver._lookup = lambda: go.wait(10) and ROWS[1:2]
            waiting = iter([a_request("/quick"), a_request("/needs a connection")])
            for answers in transport.multiplexer(lambda: next(waiting, None)).results():
                for request, answer in answers:
                    if request.target == "/quick":
                        assert not go.is_set()
                        assert answer.status == 200  # type: ignore[union-attr]
                        go.set()
        assert go.is_set()
