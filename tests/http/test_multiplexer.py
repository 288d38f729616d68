"""Many at once: all are answered, none holds back another, and nothing is left behind."""

import gc
import socket
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from django_momento_http._http.connection import Connection
from django_momento_http._http.messages import Request
from django_momento_http._http.transport import Transport
from django_momento_http.exceptions import ConnectFailed, TimedOut, TransportError
from tests.support.scripted import (
    GRACE,
    Peer,
    a_request,
    after_request,
    all_of,
    answer,
    bundle,
    drive,
    echo,
    give_back,
    open_in,
    response,
    scripted,
    server_context,
    silent,
    take_from,
    transport_to,
)


def seconds_since(began: float) -> float:
    return time.monotonic() - began


@pytest.mark.parametrize(("count", "connections"), [(1, 1), (10, 1), (100, 8), (8, 64), (500, 64)])
def test_every_call_gets_its_own_answer(count: int, connections: int) -> None:
    """However many calls there are to a connection, each answer goes to its call, once."""
    with (
        scripted(echo) as server,
        transport_to(server.endpoint, connections=connections) as transport,
    ):
        requested = [a_request(f"/{n}", seconds=20) for n in range(count)]
        found = all_of(transport, requested)
        assert {request.target: bytes(response.body) for request, response in found} == {
            f"/{n}": b"/%d" % n for n in range(count)
        }
        assert len(found) == count
        assert server.accepted <= min(count, connections)
        assert len(transport.pool._idle) == len(transport.pool._all) <= connections


def test_nothing_asked_is_nothing_done() -> None:
    """No call, no connection."""
    with scripted(echo) as server, transport_to(server.endpoint) as transport:
        assert all_of(transport, []) == []
        assert server.accepted == 0


def test_waiting_costs_no_computing_after_its_caller_has_computed() -> None:
    """What has come meanwhile is taken at once, and then it waits again."""

    def script(peer: Peer) -> None:
        target = peer.request().target
        peer.pause(0.4 if target == "/slow" else 0.0)
        peer.send(response(200, target.encode()))
        peer.stall()

    with scripted(script) as server, transport_to(server.endpoint) as transport:
        requests = iter([a_request("/slow"), a_request("/fast")])
        multiplexer = transport.multiplexer(lambda: next(requests, None))
        lists = multiplexer.results()
        [(first, _)] = next(lists)
        multiplexer.postpone(0.1)
        began = time.thread_time()
        [(second, _)] = next(lists)
        assert time.thread_time() - began < 0.03
        assert (first.target, second.target) == ("/fast", "/slow")
        assert list(lists) == []


def test_a_slow_one_does_not_hold_back_the_others() -> None:
    """Answers are handed on as they come: the slow one comes last."""

    def script(peer: Peer) -> None:
        while True:
            target = peer.request().target
            if target == "/slow":
                peer.pause(0.3)
            peer.send(response(200, target.encode()))

    with scripted(script) as server, transport_to(server.endpoint, connections=4) as transport:
        requested = [a_request("/slow"), *(a_request(f"/{n}") for n in range(50))]
        order: list[str] = []
        times: list[float] = []
        began = time.monotonic()
        waiting = iter(requested)
        for answers in transport.multiplexer(lambda: next(waiting, None)).results():
            order += [request.target for request, _ in answers]
            times += [seconds_since(began)] * len(answers)
        assert order[-1] == "/slow"
        assert times[-2] < 0.25
        assert len(order) == 51


def test_large_values_among_small_ones_arrive_whole() -> None:
    """Five megabytes in either direction and small ones go side by side."""
    large = bytes(range(256)) * 19_000

    def script(peer: Peer) -> None:
        while True:
            received = peer.request()
            if received.method == "PUT":
                peer.send(response(204 if received.body == large else 400, b""))
            else:
                peer.send(response(200, large if received.target == "/large" else b"small"))

    with scripted(script) as server, transport_to(server.endpoint, connections=4) as transport:
        requested = [a_request(f"/{n}", seconds=20) for n in range(20)]
        requested[3:3] = [a_request("/large", seconds=20), a_request("/put", large, seconds=20)]
        found = {request.target: answer for request, answer in all_of(transport, requested)}
        assert bytes(found["/large"].body) == large
        assert found["/put"].status == 204
        assert all(bytes(found[f"/{n}"].body) == b"small" for n in range(20))


def test_each_call_gets_an_answer_or_an_error() -> None:
    """One call's trouble is its own: the others are answered on other connections."""

    def script(peer: Peer) -> None:
        while True:
            target = peer.request().target
            if target == "/leave":
                return
            if target == "/hang":
                peer.stall()
            if target == "/short":
                peer.send(response(200, b"val", length=9))
                return
            peer.send(response(200, target.encode()))

    names = ["/1", "/leave", "/2", "/hang", "/3", "/short", "/4"]
    with scripted(script) as server, transport_to(server.endpoint, connections=2) as transport:
        found = dict(all_of(transport, [a_request(name, seconds=0.5) for name in names]))
        kinds = {
            request.target: getattr(answer, "kind", "fine") for request, answer in found.items()
        }
        assert kinds == {
            "/1": "fine",
            "/leave": "connection",
            "/2": "fine",
            "/hang": "timeout",
            "/3": "fine",
            "/short": "connection",
            "/4": "fine",
        }
        assert len(transport.pool._all) == len(transport.pool._idle)


def test_cold_connections_are_opened_at_once_but_not_all_at_once(tmp_path: Path) -> None:
    """Handshakes go side by side, at most 32 of them."""
    peak, now = [0], [0]
    lock = threading.Lock()

    class SlowTls:
        """Holds every handshake for a moment and counts how many are held together."""

        def wrap_socket(self, sock: Any, **_: Any) -> Any:
            with lock:
                now[0] += 1
                peak[0] = max(peak[0], now[0])
            time.sleep(0.1)
            with lock:
                now[0] -= 1
            return context.wrap_socket(sock, server_side=True)

    context = server_context()
    with (
        scripted(echo, tls=SlowTls()) as server,  # type: ignore[arg-type]
        transport_to(server.endpoint, ca_bundle=bundle(tmp_path), connect_timeout=3.0) as transport,
    ):
        began = time.monotonic()
        found = all_of(transport, [a_request(f"/{n}", seconds=10) for n in range(64)])
        elapsed = seconds_since(began)
    assert all(answer.status == 200 for _, answer in found)
    assert 2 <= peak[0] <= 32
    assert elapsed < 64 * 0.1 / 2


def test_a_refused_port_answers_every_call_at_once() -> None:
    """Where nobody listens each call has its error, quickly and without recursion."""
    with scripted(silent) as server:
        pass
    with transport_to(server.endpoint) as transport:
        began = time.monotonic()
        found = all_of(transport, [a_request(f"/{n}") for n in range(2000)])
        assert seconds_since(began) < 2
        assert len(found) == 2000
        assert all(isinstance(answer, ConnectFailed) for _, answer in found)
        assert not transport.pool._all


@pytest.mark.parametrize(("fails_at_once", "most"), [(True, 1), (False, 32)])
def test_what_cannot_connect_is_handed_on_before_more_is_tried(
    fails_at_once: bool, most: int
) -> None:
    """Whoever decides whether more is to be sent hears of failures as they come."""
    with scripted(silent) as server:
        pass
    with transport_to(server.endpoint) as transport:
        if fails_at_once:
            transport._resolver._known = (float("inf"), (), "gaierror")
        asked: list[str] = []

        def next_request() -> Request | None:
            if len(asked) == 100:
                return None
            asked.append(f"/{len(asked)}")
            return a_request(asked[-1])

        told = 0
        for answers in transport.multiplexer(next_request).results():
            told += len(answers)
            assert len(asked) <= told + most - 1
        assert told == 100


def test_calls_may_be_added_while_answers_come() -> None:
    """What is appended after an answer is sent too, on the connections that are there."""
    with scripted(echo) as server, transport_to(server.endpoint, connections=2) as transport:
        queue = deque([a_request("/0")])
        seen: list[str] = []
        for answers in transport.multiplexer(lambda: queue.popleft() if queue else None).results():
            for request, _ in answers:
                seen.append(request.target)
                if len(seen) < 20:
                    queue.append(a_request(f"/{len(seen)}"))
        assert seen == [f"/{n}" for n in range(20)]
        assert server.accepted <= 2


@pytest.mark.parametrize("is_explicit", [True, False])
def test_a_consumer_that_leaves_leaves_the_pool_clean(is_explicit: bool) -> None:
    """Requests under way when the iteration ends take their connections with them."""

    def script(peer: Peer) -> None:
        while True:
            target = peer.request().target
            if target != "/quick":
                peer.stall()
            peer.send(response(200))

    with scripted(script) as server, transport_to(server.endpoint, connections=5) as transport:
        requested = deque([a_request("/quick"), *(a_request(f"/{n}") for n in range(4))])
        answers = transport.multiplexer(
            lambda: requested.popleft() if requested else None
        ).results()
        next(answers)
        if is_explicit:
            answers.close()  # type: ignore[attr-defined]
        else:
            del answers
            gc.collect()
        assert open_in(transport.pool) == set(transport.pool._idle)
        assert len(transport.pool._all) <= 1
        assert transport.exchange(a_request("/quick")).status == 200  # type: ignore[union-attr]


def test_the_limit_is_shared_with_single_requests() -> None:
    """Threads and many-calls together stay within the pool's limit, and all are answered."""
    with (
        scripted(echo) as server,
        transport_to(server.endpoint, connections=4) as transport,
        ThreadPoolExecutor(8) as threads,
    ):
        many = [
            threads.submit(all_of, transport, [a_request(f"/{n}", seconds=20) for n in range(100)])
            for _ in range(4)
        ]
        single = [
            threads.submit(transport.exchange, a_request("/one", seconds=20)) for _ in range(50)
        ]
        assert all(one.result(30).status == 200 for one in single)  # type: ignore[union-attr]
        for found in many:
            assert [answer.status for _, answer in found.result(30)] == [200] * 100
        assert server.accepted <= 4


def test_a_long_many_call_does_not_starve_a_single_request() -> None:
    """Whoever waits for a connection gets the next one that is free."""

    def script(peer: Peer) -> None:
        while True:
            target = peer.request().target
            peer.pause(0.005)
            peer.send(response(200, target.encode()))

    with (
        scripted(script) as server,
        transport_to(server.endpoint, connections=2) as transport,
        ThreadPoolExecutor(2) as threads,
    ):
        requested = [a_request(f"/{n}", seconds=20) for n in range(300)]
        many = threads.submit(all_of, transport, requested)
        while len(server.received) < 10:
            time.sleep(0.001)
        for number in range(5):
            single = threads.submit(transport.exchange, a_request(f"/one/{number}", seconds=20))
            while not transport.pool.has_waiters and not single.done():
                time.sleep(0)
            before = len(server.received)
            assert single.result(20).status == 200  # type: ignore[union-attr]
            targets = [received.target for received in server.received]
            assert targets.index(f"/one/{number}") - before <= 8
        assert not many.done()
        assert len(many.result(20)) == 300


def test_answers_do_not_wait_for_a_connection_to_the_next_request() -> None:
    """What has been answered is handed on, also while all connections are others'."""
    asked, has_waiters = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        asked.set()
        has_waiters.wait(10)
        peer.send(response(200))
        peer.stall()

    with (
        scripted(script) as server,
        transport_to(server.endpoint, connections=1) as transport,
        ThreadPoolExecutor(1) as threads,
    ):
        # While the first is under way, another thread waits for the only connection and keeps it.
        def take() -> Any:
            asked.wait(10)
            return take_from(transport.pool, time.monotonic() + 5)

        def announce() -> None:
            while not transport.pool.has_waiters:
                time.sleep(0)
            has_waiters.set()

        taken = threads.submit(take)
        announcer = threading.Thread(target=announce)
        announcer.start()
        waiting = iter([a_request("/1"), a_request("/2", seconds=0.5)])
        handed = []
        began = time.monotonic()
        for answers in transport.multiplexer(lambda: next(waiting, None)).results():
            handed += [(type(answer).__name__, seconds_since(began)) for _, answer in answers]
        announcer.join()
        assert [name for name, _ in handed] == ["Response", "TimedOut"]
        assert handed[0][1] < 0.3
        give_back(transport.pool, taken.result(5))


@pytest.mark.parametrize("connections", [1, 4])
def test_no_connection_in_time_is_each_call_s_error(connections: int) -> None:
    """When all connections stay with others, every call is told at the deadline."""
    with (
        scripted(echo) as server,
        transport_to(server.endpoint, connections=connections) as transport,
    ):
        taken = [take_from(transport.pool, time.monotonic() + 1) for _ in range(connections)]
        began = time.monotonic()
        found = all_of(transport, [a_request(seconds=0.2) for _ in range(10)])
        assert seconds_since(began) < 0.2 + GRACE
        assert len(found) == 10
        assert {answer.kind for _, answer in found} <= {"pool_timeout", "no_time"}
        for connection in taken:
            give_back(transport.pool, connection)


def test_a_call_whose_time_is_over_is_not_sent() -> None:
    """What had to wait for a connection beyond its deadline never reaches the wire."""

    def script(peer: Peer) -> None:
        while True:
            target = peer.request().target
            peer.pause(0.2)
            peer.send(response(200, target.encode()))

    with scripted(script) as server, transport_to(server.endpoint, connections=2) as transport:
        taken = take_from(transport.pool, time.monotonic() + 1)
        requested = [a_request("/first", seconds=2), a_request("/second", seconds=0.1)]
        found = dict(all_of(transport, requested))
        assert found[requested[0]].status == 200
        assert isinstance(found[requested[1]], TimedOut)
        assert [one.target for one in server.received] == ["/first"]
        give_back(transport.pool, taken)
        assert len(transport.pool._idle) == 1


def test_a_fresh_call_gets_a_fresh_connection() -> None:
    """A retry inside a many-call does not go to a connection that was used."""
    with scripted(echo) as server, transport_to(server.endpoint, connections=2) as transport:
        all_of(
            transport, [a_request("/1"), a_request("/2", fresh=True), a_request("/3", fresh=True)]
        )
        by_target = {one.target: one.connection for one in server.received}
        assert len(set(by_target.values())) == 3


def test_an_error_of_a_reused_connection_says_that_it_broke() -> None:
    """Idle connections that the peer has closed are replaced before anything is sent."""
    with (
        scripted(
            after_request(lambda p: p.send(response(200))), answer(response(200, b"new"))
        ) as server,
        transport_to(server.endpoint) as transport,
    ):
        assert not isinstance(transport.exchange(a_request()), TransportError)
        [idle] = transport.pool._idle
        idle.wait(1, 5.0)
        [(_, found)] = all_of(transport, [a_request()])
        assert bytes(found.body) == b"new"


def test_an_unexpected_error_is_one_call_s_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a defect below costs only the call that it struck."""
    send = Connection._try_send

    def broken(self: Connection) -> bool:
        if b"/3" in bytes(self._unsent):
            raise ZeroDivisionError
        return send(self)

    monkeypatch.setattr(Connection, "_try_send", broken)
    with scripted(echo) as server, transport_to(server.endpoint, connections=2) as transport:
        found = all_of(transport, [a_request(f"/{n}") for n in range(6)])
        kinds = {request.target: getattr(answer, "kind", "fine") for request, answer in found}
        assert kinds == {f"/{n}": "internal" if n == 3 else "fine" for n in range(6)}
        assert open_in(transport.pool) == set(transport.pool._idle)


@pytest.mark.skipif(not hasattr(socket, "MSG_MORE"), reason="needs MSG_MORE")
def test_a_lane_whose_peer_leaves_unannounced_is_not_used_again() -> None:
    """A peer that closes after each answer without saying so costs connections, no answers."""

    def script(peer: Peer) -> None:
        # The end comes in the same packet as the answer.
        peer.sock.send(response(200, peer.request().target.encode()), socket.MSG_MORE)

    with scripted(script) as server, transport_to(server.endpoint, connections=1) as transport:
        found = all_of(transport, [a_request(f"/{number}", seconds=20) for number in range(50)])
        assert [getattr(answer, "status", answer) for _, answer in found] == [200] * 50


def at_once(transport: Transport, targets: list[str], waiting: int) -> dict[str, Any]:
    """Send requests of which so many were announced; return what came of each."""
    requested = iter([a_request(target) for target in targets])
    lists = transport.multiplexer(lambda: next(requested, None), lambda: waiting).results()
    return {request.target: result for results in lists for request, result in results}


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("last_words", [b"", response(200, b"unasked")], ids=["leaves", "speaks"])
def test_no_idle_connection_is_used_whose_peer_has_left_or_spoken(
    last_words: bytes, is_tls: bool, tmp_path: Path
) -> None:
    """Of connections taken together those are used that are as good as new, the others closed."""
    may_part, parted = threading.Event(), threading.Semaphore(0)

    def script(peer: Peer) -> None:
        target = peer.request().target
        peer.send(response(200, target.encode()))
        if target in ("/1", "/4", "/6"):
            may_part.wait(10)
            if last_words:
                peer.send(last_words)
            else:
                peer.sock.shutdown(socket.SHUT_WR)
            parted.release()
            peer.stall()
        echo(peer)

    trusted = {"ca_bundle": bundle(tmp_path)} if is_tls else {}
    targets = [f"/{number}" for number in range(8)]
    with (
        scripted(script, tls=server_context() if is_tls else None) as server,
        transport_to(server.endpoint, connections=8, connect_timeout=5, **trusted) as transport,
    ):
        # One after the other: each has opened a connection of its own.
        taken = [take_from(transport.pool, time.monotonic() + 5) for _ in targets]
        for connection, target in zip(taken, targets, strict=True):
            drive(connection, a_request(target))
        for connection in taken:
            give_back(transport.pool, connection)
        used = open_in(transport.pool)
        may_part.set()
        assert all(parted.acquire(timeout=10) for _ in range(3))
        again = [f"/again{number}" for number in range(8)]
        found = at_once(transport, again, 7)
        assert {target: bytes(result.body) for target, result in found.items()} == {
            target: target.encode() for target in again
        }
        assert server.accepted == 11
        assert len(open_in(transport.pool) & used) == 5
        assert open_in(transport.pool) == set(transport.pool._idle)


def test_what_was_taken_for_nothing_is_given_back() -> None:
    """Announced and not sent: the connections are idle again before anything is waited for."""
    with scripted(echo) as server, transport_to(server.endpoint, connections=8) as transport:
        at_once(transport, [f"/{number}" for number in range(8)], 7)
        assert len(transport.pool._idle) == 8
        requested = iter([a_request("/a"), a_request("/b"), None])
        idle: list[int] = []

        def next_request() -> Any:
            request = next(requested, None)
            if request is None:
                idle.append(len(transport.pool._idle))
            return request

        lists = transport.multiplexer(next_request, lambda: 8).results()
        found = [result.status for results in lists for _, result in results]  # type: ignore[union-attr]
        assert found == [200, 200]
        assert idle[0] == 0
        assert len(transport.pool._idle) == 8
        assert server.accepted == 8
        assert at_once(transport, [f"/{number}" for number in range(8)], 7).keys() == {
            f"/{number}" for number in range(8)
        }
        assert server.accepted == 8


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
def test_what_follows_a_large_answer_is_nobody_s(is_tls: bool, tmp_path: Path) -> None:
    """A second answer behind a large one is not taken for the next call's."""
    large = b"v" * 200_000

    def script(peer: Peer) -> None:
        while True:
            target = peer.request().target
            peer.pause(0.01)
            second = response(404, b"Key Not Found") if target == "/large" else b""
            peer.send(response(200, large if target == "/large" else target.encode()) + second)

    trusted = {"ca_bundle": bundle(tmp_path)} if is_tls else {}
    with (
        scripted(script, tls=server_context() if is_tls else None) as server,
        transport_to(server.endpoint, connections=1, connect_timeout=5, **trusted) as transport,
    ):
        targets = ["/large", *(f"/{number}" for number in range(5))]
        found = all_of(transport, [a_request(target, seconds=20) for target in targets])
        assert {request.target: answer.status for request, answer in found} == dict.fromkeys(
            targets, 200
        )


def test_a_large_value_on_a_used_connection_is_sent_whole() -> None:
    """A connection that waited for an answer waits to send again when the next one is large."""
    large = bytes(range(256)) * 19_000

    def script(peer: Peer) -> None:
        while True:
            received = peer.request()
            peer.send(response(204 if received.body in (b"", large) else 400, b""))

    with scripted(script) as server, transport_to(server.endpoint, connections=1) as transport:
        requested = [a_request("/1", method="DELETE"), a_request("/2", large, seconds=20)]
        found = all_of(transport, [*requested, a_request("/3", large, seconds=20)])
        assert [getattr(answer, "status", answer) for _, answer in found] == [204] * 3


@pytest.mark.parametrize(("seconds", "request_timeout"), [(0.2, 9.0), (9.0, 0.2)])
def test_a_request_of_many_ends_at_its_deadline_and_by_its_timeout(
    seconds: float, request_timeout: float
) -> None:
    """The earlier of the two ends it."""
    with scripted(silent) as server, transport_to(server.endpoint) as transport:
        request = a_request(seconds=seconds)
        request.request_timeout = request_timeout
        began = time.monotonic()
        [(_, found)] = all_of(transport, [request])
        assert found.kind == "timeout"
        assert 0.15 < time.monotonic() - began < 5
