"""The pool: never more connections than its limit, never one that must not be used again."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from django_momento_http.exceptions import TimedOut
from django_momento_http.transport import Transport

from .scripted import Peer, a_call, after_request, answer, echo, reply, scripted, transport_to


class Clock:
    """The monotonic clock, plus what a test adds."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


def get(transport: Transport, **options: object) -> object:
    return transport.exchange(a_call(**options))  # type: ignore[arg-type]


def test_a_healthy_connection_is_used_again() -> None:
    """Requests one after another need one connection."""
    with scripted(echo) as server, transport_to(server.endpoint) as transport:
        for _ in range(5):
            get(transport)
        assert server.accepted == 1


@pytest.mark.parametrize(
    ("first", "accepted"),
    [
        (after_request(Peer.stall), 2),
        (after_request(), 2),
        (after_request(lambda p: p.send(reply(200, b"val", length=5)), Peer.stall), 2),
        (after_request(lambda p: p.send(reply(500, b"x" * 9_000_000)), Peer.stall), 2),
        (after_request(lambda p: p.send(reply(200, b"", length=10**7)), Peer.stall), 2),
        (after_request(lambda p: p.send(reply(200) + reply(200, b"other")), Peer.stall), 2),
        (after_request(lambda p: p.send(reply(200) + b"H"), Peer.stall), 2),
        (answer(reply(200, b"value", "Connection: close")), 2),
        (after_request(lambda p: p.send(reply(200, b"value", length=None))), 2),
        (after_request(lambda p: p.send(reply(200, b"value")), Peer.reset), 2),
        (after_request(lambda p: p.send(reply(400, b"no")), lambda p: answer(reply(200))(p)), 1),
        (after_request(lambda p: p.send(reply(204, b"")), lambda p: answer(reply(200))(p)), 1),
    ],
    ids=[
        "timeout",
        "left",
        "truncated",
        "abandoned",
        "too-large",
        "two-answers",
        "surplus",
        "close",
        "no-length",
        "reset",
        "refused",
        "empty",
    ],
)
def test_a_doubtful_connection_is_never_used_again(first: object, accepted: int) -> None:
    """After anything but a whole answer and silence, the next request gets a new connection."""
    with scripted(first, echo) as server, transport_to(server.endpoint) as transport:  # type: ignore[arg-type]
        get(transport, seconds=0.2)
        idle = list(transport.pool._idle)
        for connection in idle:
            if accepted == 2:
                connection.wait(1, 2.0)  # until what was unasked has arrived
        found = get(transport, target="/second")
        assert found.status == 200  # type: ignore[attr-defined]
        assert server.accepted == accepted


@pytest.mark.parametrize(("seconds", "accepted"), [(54.9, 1), (55.1, 2)])
def test_a_connection_is_retired_before_a_load_balancer_does_it(
    seconds: float, accepted: int
) -> None:
    """Idle for 55 seconds is too long."""
    clock = Clock()
    with scripted(echo) as server, transport_to(server.endpoint, clock=clock) as transport:
        get(transport)
        clock.ahead = seconds
        call = a_call()
        call.deadline += seconds
        transport.exchange(call)
        assert server.accepted == accepted


def test_idle_connections_below_busy_ones_are_retired_too() -> None:
    """What a burst left behind does not stay for ever while one connection does all the work."""
    clock = Clock()
    with scripted(echo) as server, transport_to(server.endpoint, clock=clock) as transport:
        taken = [transport.pool.take(time.monotonic() + 5) for _ in range(5)]
        transport.exchange(a_call())  # another opens beside them
        busy = transport.pool._idle[-1]
        for connection in taken:
            connection.reusable = True
            transport.pool.give_back(connection)
        assert len(transport.pool._idle) == 6
        clock.ahead = 56.0
        busy.idle_since = clock()
        busy.reusable = True
        transport.pool._idle.remove(busy)
        transport.pool.give_back(busy)
        assert transport.pool._idle == [busy]
        assert len(transport.pool._all) == 1


def test_there_are_never_more_connections_than_the_limit() -> None:
    """Threads beyond the limit wait, and all are served."""
    with (
        scripted(echo) as server,
        transport_to(server.endpoint, connections=3) as transport,
        ThreadPoolExecutor(12) as threads,
    ):
        found = list(threads.map(lambda n: get(transport, target=f"/{n}"), range(60)))
        assert [one.body for one in found] == [b"/%d" % n for n in range(60)]  # type: ignore[attr-defined]
        assert server.accepted <= 3
        assert (
            repr(transport.pool) == f"<Pool open={server.accepted} idle={server.accepted} limit=3>"
        )


def test_waiting_for_a_connection_ends_with_the_deadline() -> None:
    """Who gets no connection in time is told so, and nothing was sent."""
    with (
        scripted(echo) as server,
        transport_to(server.endpoint, connections=1) as transport,
    ):
        taken = transport.pool.take(time.monotonic() + 1)
        began = time.monotonic()
        error = get(transport, seconds=0.15)
        assert 0.14 < time.monotonic() - began < 0.25
        assert isinstance(error, TimedOut)
        assert error.kind == "pool_timeout"
        assert not transport.pool.is_wanted
        transport.pool.give_back(taken)
        assert get(transport).status == 200  # type: ignore[attr-defined]
        assert server.accepted == 1


def test_one_given_back_goes_to_the_one_who_waits() -> None:
    """A waiting thread is woken by the connection that comes back, also by one that is closed."""
    with (
        scripted(echo) as server,
        transport_to(server.endpoint, connections=1) as transport,
        ThreadPoolExecutor(1) as threads,
    ):
        for is_reusable in (False, True):
            taken = transport.pool.take(time.monotonic() + 1)
            waiting = threads.submit(get, transport)
            while not transport.pool.is_wanted:
                time.sleep(0)
            if is_reusable:
                assert taken.is_open
                taken.reusable = True
            transport.pool.give_back(taken)
            assert waiting.result(5).status == 200  # type: ignore[attr-defined]


def test_a_fresh_connection_is_asked_for_and_given() -> None:
    """A retry gets a connection that was never used, also when the pool is full of idle ones."""
    for limit in (1, 5):
        with (
            scripted(echo) as server,
            transport_to(server.endpoint, connections=limit) as transport,
        ):
            get(transport)
            get(transport, fresh=True)
            assert server.accepted == 2
            assert len(transport.pool._all) <= limit


def test_closing_leaves_those_in_use_to_their_users() -> None:
    """Who is in the middle of a request gets the answer; afterwards nothing stays open."""
    may_answer = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        may_answer.wait(10)
        peer.send(reply(200, b"late"))
        peer.wait_until_left()

    with (
        scripted(script) as server,
        transport_to(server.endpoint) as transport,
        ThreadPoolExecutor(1) as threads,
    ):
        under_way = threads.submit(get, transport)
        while not server.received:
            time.sleep(0)
        transport.close()
        may_answer.set()
        assert bytes(under_way.result(5).body) == b"late"  # type: ignore[attr-defined]
        assert transport.pool._idle == []
        assert not transport.pool._all


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_closes_its_copies_and_the_parent_goes_on() -> None:
    """In a child all inherited sockets are closed, those in use too; the parent's stay open."""
    with scripted(echo) as server, transport_to(server.endpoint) as transport:
        get(transport)
        in_use = transport.pool.take(time.monotonic() + 5)
        get(transport)
        assert len(transport.pool._all) == 2
        inherited = list(transport.pool._all)
        child = os.fork()
        if child == 0:
            transport.close()
            os._exit(sum(connection.fileno() != -1 for connection in inherited))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        in_use.reusable = True
        transport.pool.give_back(in_use)
        assert get(transport, target="/still").body == b"/still"  # type: ignore[attr-defined]
        assert server.accepted == 2
