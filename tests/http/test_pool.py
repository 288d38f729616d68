"""The pool: never more connections than its limit, never one that must not be used again."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from django_momento_http._http.connection import Connection
from django_momento_http._http.transport import Transport
from django_momento_http.exceptions import TimedOut
from tests.support.clocks import ClockAhead
from tests.support.scripted import (
    Peer,
    a_request,
    after_request,
    all_of,
    answer,
    echo,
    give_back,
    open_in,
    response,
    scripted,
    take_from,
    transport_to,
)


def get(transport: Transport, **options: object) -> object:
    return transport.exchange(a_request(**options))  # type: ignore[arg-type]


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
        (after_request(lambda p: p.send(response(200, b"val", length=5)), Peer.stall), 2),
        (after_request(lambda p: p.send(response(500, b"x" * 9_000_000)), Peer.stall), 2),
        (after_request(lambda p: p.send(response(200, b"", length=10**7)), Peer.stall), 2),
        (after_request(lambda p: p.send(response(200) + response(200, b"other")), Peer.stall), 2),
        (after_request(lambda p: p.send(response(200) + b"H"), Peer.stall), 2),
        (answer(response(200, b"value", "Connection: close")), 2),
        (after_request(lambda p: p.send(response(200, b"value", length=None))), 2),
        (after_request(lambda p: p.send(response(200, b"value")), Peer.reset), 2),
        (
            after_request(
                lambda p: p.send(response(400, b"no")), lambda p: answer(response(200))(p)
            ),
            1,
        ),
        (
            after_request(lambda p: p.send(response(204, b"")), lambda p: answer(response(200))(p)),
            1,
        ),
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
    clock = ClockAhead()
    with scripted(echo) as server, transport_to(server.endpoint, clock=clock) as transport:
        get(transport)
        clock.ahead = seconds
        request = a_request()
        request.deadline += seconds
        transport.exchange(request)
        assert server.accepted == accepted


@pytest.mark.parametrize(("seconds", "accepted"), [(54.0, 1), (56.0, 2), (-9.0, 1)])
def test_a_machine_that_slept_opens_new_connections(seconds: float, accepted: int) -> None:
    """The monotonic clock may stand still meanwhile; what was idle is old all the same."""
    with scripted(echo) as server, transport_to(server.endpoint) as transport:
        get(transport)
        transport.pool._wall = lambda: time.time() + seconds
        assert get(transport).status == 200  # type: ignore[attr-defined]
        assert server.accepted == accepted


def test_a_process_that_slept_takes_the_answer_that_came_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When it wakes after its deadline, it looks once more before it gives up."""
    sent, answered = threading.Event(), threading.Event()

    class Sleep(ClockAhead):
        """Sleeps for a minute when the request has been sent."""

        def __call__(self) -> float:
            if sent.is_set() and not self.ahead and answered.wait(5):
                self.ahead = 60.0
            return super().__call__()

    def try_send(connection: Connection) -> bool:
        is_whole = original(connection)
        sent.set()
        return is_whole

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(response(200))
        peer.pause(0.05)
        answered.set()

    original = Connection._try_send
    monkeypatch.setattr(Connection, "_try_send", try_send)
    clock = Sleep()
    with scripted(script) as server, transport_to(server.endpoint, clock=clock) as transport:
        assert get(transport).status == 200  # type: ignore[attr-defined]
        assert clock.ahead


def test_a_process_that_slept_while_its_peers_left_goes_on() -> None:
    """What was idle and is closed meanwhile costs nobody an answer."""
    with scripted(*[after_request(lambda p: p.send(response(200)))] * 8, echo) as server:
        clock = ClockAhead()
        with transport_to(server.endpoint, clock=clock) as transport:
            all_of(transport, [a_request() for _ in range(8)])
            for connection in list(transport.pool._idle):
                connection.wait(1, 5.0)
            found = all_of(transport, [a_request(f"/{number}") for number in range(20)])
            assert [answer.status for _, answer in found] == [200] * 20


def test_idle_connections_below_busy_ones_are_retired_too() -> None:
    """What a burst left behind does not stay for ever while one connection does all the work."""
    clock = ClockAhead()
    with scripted(echo) as server, transport_to(server.endpoint, clock=clock) as transport:
        taken = [take_from(transport.pool, time.monotonic() + 5) for _ in range(5)]
        transport.exchange(a_request())  # another opens beside them
        busy = transport.pool._idle[-1]
        for connection in taken:
            connection.reusable = True
            give_back(transport.pool, connection)
        assert len(transport.pool._idle) == 6
        clock.ahead = 56.0
        busy.idle_since = clock()
        busy.reusable = True
        transport.pool._idle.remove(busy)
        give_back(transport.pool, busy)
        assert list(transport.pool._idle) == [busy]
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
        taken = take_from(transport.pool, time.monotonic() + 1)
        began = time.monotonic()
        error = get(transport, seconds=0.15)
        assert 0.14 < time.monotonic() - began < 0.25
        assert isinstance(error, TimedOut)
        assert error.kind == "pool_timeout"
        assert not transport.pool.has_waiters
        give_back(transport.pool, taken)
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
            taken = take_from(transport.pool, time.monotonic() + 1)
            waiting = threads.submit(get, transport)
            while not transport.pool.has_waiters:
                time.sleep(0)
            if is_reusable:
                assert taken.is_open
                taken.reusable = True
            give_back(transport.pool, taken)
            assert waiting.result(5).status == 200  # type: ignore[attr-defined]


def test_a_short_pool_serves_what_its_connections_can() -> None:
    """Far more threads than connections: those are never idle for long, and nobody is too late."""
    busy: list[float] = []
    seconds = 0.05

    def script(peer: Peer) -> None:
        while True:
            target = peer.request().target
            began = time.monotonic()
            peer.pause(seconds)
            peer.send(response(200, target.encode()))
            busy.append(time.monotonic() - began)

    def work(number: int) -> list[str]:
        found = [transport.exchange(a_request(seconds=9.5 * seconds)) for _ in range(2)]
        return [getattr(one, "kind", "served") for one in found]

    def idle_share() -> float:
        busy.clear()
        began = time.monotonic()
        with ThreadPoolExecutor(40) as threads:
            kinds = [kind for found in threads.map(work, range(40)) for kind in found]
        assert set(kinds) == {"served", "pool_timeout"}
        return 1 - sum(busy) / (2 * (time.monotonic() - began))

    with (
        scripted(script) as server,
        transport_to(server.endpoint, connections=2) as transport,
    ):
        # A busy machine wakes threads late; a pool that is unfair is so every time.
        assert min(idle_share() for _ in range(2)) < 0.1


def test_who_waited_too_long_is_served_after_who_did_not() -> None:
    """Else those whose time is nearly over would leave none in time."""
    order: list[str] = []
    with (
        scripted(echo) as server,
        transport_to(server.endpoint, connections=1) as transport,
        ThreadPoolExecutor(3) as threads,
    ):
        pool = transport.pool
        clock = pool._clock = ClockAhead()
        taken = take_from(pool, clock() + 90)

        def wait(name: str, seconds: float) -> None:
            connection = pool.wait(clock() + seconds)
            order.append(name)
            give_back(pool, connection)

        waiting = []
        for name, seconds in (("late", 10), ("first", 90), ("second", 90)):
            waiting.append(threads.submit(wait, name, seconds))
            while len(pool._waiting) < len(waiting):
                time.sleep(0)
        clock.ahead = 6.0
        give_back(pool, taken)
        for one in waiting:
            one.result(10)
        assert order == ["first", "second", "late"]
        assert not pool.has_waiters


@pytest.mark.parametrize("is_dropped", [True, False])
def test_a_connection_that_is_lost_leaves_its_slot(is_dropped: bool) -> None:
    """A slot is counted by the connection in it, so nobody needs to give it back."""
    with scripted(echo) as server, transport_to(server.endpoint, connections=2) as transport:
        pool = transport.pool
        lost = [take_from(pool, time.monotonic() + 5) for _ in range(2)]
        assert pool.take_now() is None
        if is_dropped:
            lost.clear()
        else:
            give_back(pool, lost.pop())
            give_back(pool, lost.pop())
        assert len(pool._all) == 0
        assert pool.take_now() is not None


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
        peer.send(response(200, b"late"))
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
        assert not transport.pool._idle
        assert not transport.pool._all


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_closes_its_copies_and_the_parent_goes_on() -> None:
    """In a child all inherited sockets are closed, those in use too; the parent's stay open."""
    with scripted(echo) as server, transport_to(server.endpoint) as transport:
        get(transport)
        in_use = take_from(transport.pool, time.monotonic() + 5)
        get(transport)
        assert len(transport.pool._all) == 2
        inherited = list(open_in(transport.pool))
        child = os.fork()
        if child == 0:
            transport.close()
            os._exit(sum(one is None or one.fd != -1 for one in inherited))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        in_use.reusable = True
        give_back(transport.pool, in_use)
        assert get(transport, target="/still").body == b"/still"  # type: ignore[attr-defined]
        assert server.accepted == 2
