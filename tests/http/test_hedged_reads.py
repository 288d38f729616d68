"""Hedged reads on real sockets: who asks again, when, and what becomes of those who lose."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from django_momento_http._http.connection import Connection
from django_momento_http._http.hedging import COLD, FLOOR, Hedging, Silence
from django_momento_http._http.messages import Request
from django_momento_http._http.transport import Transport
from django_momento_http.exceptions import TimedOut
from tests.support.scripted import (
    GRACE,
    Peer,
    ScriptedServer,
    a_request,
    after_request,
    all_of,
    bundle,
    echo,
    give_back,
    open_in,
    response,
    scripted,
    server_context,
    take_from,
    transport_to,
)

# Where a second request would be wrong, a budget or a longer silence forbids it: busy machines are
# slow.
SILENCE = 0.03
LATE = 4 * SILENCE
MODES = pytest.mark.parametrize("is_many", [False, True], ids=["one", "many"])


class Purse:
    """A budget of so many hedges."""

    def __init__(self, hedges: int = 10) -> None:
        self.hedges = hedges

    def spend_on_hedge(self) -> bool:
        if not self.hedges:
            return False
        self.hedges -= 1
        return True

    def charge(self, tokens: int) -> None:
        """Pay what a large value costs."""


def patient(seconds: float = SILENCE, purse: Purse | None = None, *, well: bool = True) -> Hedging:
    """Return what asks again after so many seconds of silence, whatever it learns."""

    class Fixed(Silence):
        def record(self, seconds: float) -> None:
            recorded.append(seconds)

    recorded: list[float] = []
    silence = Fixed()
    silence.threshold = seconds
    return Hedging(silence, purse or Purse(), lambda: well)


def a_get(target: str = "/x", hedging: Hedging | None = None, seconds: float = 5.0) -> Request:
    """Return a GET that may be asked again."""
    request = a_request(target, seconds=seconds)
    request.hedging = hedging or patient()
    return request


def result_of(transport: Transport, request: Request, *, is_many: bool) -> Any:
    """Return what came of one request, sent alone or as one of many."""
    if not is_many:
        return transport.exchange(request)
    [(_, found)] = all_of(transport, [request])
    return found


@contextmanager
def served(
    *scripts: Callable[[Peer], None], **options: Any
) -> Iterator[tuple[ScriptedServer, Transport]]:
    with scripted(*scripts) as server, transport_to(server.endpoint, **options) as transport:
        yield server, transport


def once(hedging_seconds: float = SILENCE) -> Hedging:
    """Return what asks again once."""
    return patient(hedging_seconds, Purse(1))


def lost_first(left: threading.Event | None = None) -> Callable[[Peer], None]:
    """Take one request and never answer; tell when the client closes."""

    def script(peer: Peer) -> None:
        peer.request()
        try:
            peer.wait_until_left()
        finally:
            if left is not None:
                left.set()

    return script


def late(seconds: float = LATE, status: int = 200, body: bytes = b"late") -> Callable[[Peer], None]:
    """Answer the first request late, others at once."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.pause(seconds)
        peer.send(response(status, body))
        echo(peer)

    return script


def behind(
    requests: int, status: int = 200, body: bytes = b"late", after: threading.Event | None = None
) -> Callable[[Peer], None]:
    """Answer once so many requests have come, and what comes before this one was sent."""
    sent = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        while len(peer.server.received) < requests:
            peer.pause(0.001)
        if after is not None:
            after.wait(10)
        peer.send(response(status, body))
        script.sent.set()  # type: ignore[attr-defined]
        peer.stall()

    script.sent = sent  # type: ignore[attr-defined]
    return script


def one_after_the_other(*statuses: int) -> list[Callable[[Peer], None]]:
    """Return peers that answer with these, in this order, once all were asked."""
    peers: list[Callable[[Peer], None]] = []
    sent = None
    for status in statuses:
        body = b"late" if status == 200 else b"no"
        peers.append(behind(len(statuses), status, body, sent))
        sent = peers[-1].sent  # type: ignore[attr-defined]
    return peers


def whole(transport: Transport) -> bool:
    """Whether every slot of the pool is idle and can be taken."""
    return open_in(transport.pool) == set(transport.pool._idle)


# Which answer counts


@MODES
def test_a_lost_answer_is_asked_for_again(is_many: bool) -> None:
    """A GET whose answer never comes is answered on another connection; the first is closed."""
    left = threading.Event()
    with served(lost_first(left), echo) as (server, transport):
        request = a_get(hedging=once())
        began = time.monotonic()
        assert result_of(transport, request, is_many=is_many).body == b"/x"
        assert SILENCE <= time.monotonic() - began < 2.0
        assert [one.connection for one in server.received] == [0, 1]
        assert server.received[0].lines == server.received[1].lines
        assert request.hedges is not None
        assert (request.hedges.count, request.hedges.has_won, request.hedges.lost) == (1, True, [])
        assert left.wait(5)
        assert whole(transport)


@MODES
def test_the_first_request_may_win_after_all(is_many: bool) -> None:
    """A late answer counts when it is the first; the connection of the hedge is closed."""
    left = threading.Event()
    with served(behind(2), lost_first(left)) as (server, transport):
        request = a_get(hedging=once())
        assert result_of(transport, request, is_many=is_many).body == b"late"
        assert len(server.received) == 2
        assert request.hedges is not None
        assert (request.hedges.count, request.hedges.has_won) == (1, False)
        assert left.wait(5)
        assert whole(transport)
        assert len(transport.pool._idle) == 1


@MODES
def test_both_answers_may_arrive(is_many: bool) -> None:
    """Two whole answers at one moment are one result, and neither is taken for another's."""
    both = threading.Barrier(2)

    def script(peer: Peer) -> None:
        while True:
            target = peer.request().target
            if target == "/x":
                both.wait(10)
            peer.send(response(200, target.encode()))

    with served(script) as (_, transport):
        for _ in range(5):
            request = a_get(hedging=once())
            assert result_of(transport, request, is_many=is_many).body == b"/x"
            assert whole(transport)
            for number in range(4):
                target = f"/{number}"
                found = result_of(transport, a_get(target), is_many=is_many)
                assert found.body == target.encode()


@MODES
@pytest.mark.parametrize("status", [401, 429, 500, 403])
def test_what_a_second_request_betters_is_kept(is_many: bool, status: int) -> None:
    """Any other whole answer waits for the one that is under way; what it says is not lost."""
    with served(*one_after_the_other(status, 200)) as (_, transport):
        request = a_get(hedging=once())
        assert result_of(transport, request, is_many=is_many).body == b"late"
        assert request.hedges is not None
        assert [answer.status for answer in request.hedges.lost] == [status]
        assert request.hedges.has_won
        assert whole(transport)


@MODES
def test_absence_counts_at_once(is_many: bool) -> None:
    """A 404 is a whole answer like a 200."""
    with served(lost_first(), late(0, 404, b"Key Not Found")) as (_, transport):
        assert result_of(transport, a_get(), is_many=is_many).status == 404


@MODES
def test_the_last_answer_counts_whatever_it_is(is_many: bool) -> None:
    """Where none is better, the last to end is the result."""
    with served(*one_after_the_other(503, 500)) as (_, transport):
        request = a_get(hedging=once())
        assert result_of(transport, request, is_many=is_many).status == 500
        assert request.hedges is not None
        assert [answer.status for answer in request.hedges.lost] == [503]
        assert not request.hedges.has_won
        assert whole(transport)


@MODES
def test_nobody_answers(is_many: bool) -> None:
    """Three requests at most, one deadline for all, one error; no connection stays."""
    with served(lost_first()) as (server, transport):
        request = a_get(seconds=0.4)
        began = time.monotonic()
        found = result_of(transport, request, is_many=is_many)
        assert time.monotonic() - began < 0.4 + 10 * GRACE
        assert isinstance(found, TimedOut)
        assert found.kind == "timeout"
        assert len(server.received) == 3
        assert whole(transport)
        assert not transport.pool._all


@MODES
def test_a_third_request_wins(is_many: bool) -> None:
    """It is asked again twice, the second time on a new connection."""
    with served(lost_first(), lost_first(), echo) as (server, transport):
        request = a_get()
        assert result_of(transport, request, is_many=is_many).body == b"/x"
        assert [one.connection for one in server.received] == [0, 1, 2]
        assert request.requests == 3
        assert whole(transport)


@MODES
def test_a_request_that_was_sent_twice_before_is_asked_again_once(is_many: bool) -> None:
    """The retry counts among the three."""
    with served(lost_first()) as (server, transport):
        request = a_get(seconds=0.3)
        request.resends = 1
        assert isinstance(result_of(transport, request, is_many=is_many), TimedOut)
        assert len(server.received) == 2


# When it is asked again


@MODES
def test_silence_wakes_it_in_time(is_many: bool) -> None:
    """It is asked again when the silence is long enough, not when something else happens."""

    def script(peer: Peer) -> None:
        while True:
            if (target := peer.request().target) == "/x" and peer.number == 0:
                asked.append(time.monotonic())
                peer.stall()
            asked.append(time.monotonic())
            peer.send(response(200, target.encode()))

    asked: list[float] = []
    with served(script) as (_, transport):
        # On a connection that was used before: nothing but the silence can wake it.
        warm = a_get("/warm", patient(5.0))
        assert result_of(transport, warm, is_many=is_many).status == 200
        del asked[:]
        assert result_of(transport, a_get(hedging=patient(0.05)), is_many=is_many).body == b"/x"
        assert 0.04 < asked[1] - asked[0] < 2.0


def test_each_of_many_is_woken_in_time() -> None:
    """Also a request that took over the connection of another, while others end later."""

    def script(peer: Peer) -> None:
        while True:
            target = peer.request().target
            asked.setdefault(target, []).append(time.monotonic())
            if len(asked[target]) == 1 and target in ("/4", "/9"):
                peer.stall()
            peer.send(response(200, target.encode()))

    asked: dict[str, list[float]] = {}
    with served(script, connections=6) as (_, transport):
        hedging = patient(0.1)
        found = all_of(transport, [a_get(f"/{number}", hedging) for number in range(10)])
        assert {request.target: answer.body.decode() for request, answer in found} == {
            f"/{number}": f"/{number}" for number in range(10)
        }
        for target in ("/4", "/9"):
            first, second = asked[target]
            assert 0.08 < second - first < 2.0


@MODES
def test_what_arrives_steadily_is_not_asked_again(is_many: bool) -> None:
    """A large value on a slow line is paid once, however long it takes in all."""
    body = bytes(30_000)

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(response(200, body[:1000], length=len(body)))
        for at in range(1000, len(body), 1000):
            peer.pause(0.02)
            peer.send(body[at : at + 1000])
        peer.stall()

    with served(script) as (server, transport):
        request = a_get(hedging=patient(0.25))
        assert bytes(result_of(transport, request, is_many=is_many).body) == body
        assert len(server.received) == 1
        assert request.hedges is None


@MODES
def test_an_answer_that_breaks_off_is_asked_for_again(is_many: bool) -> None:
    """Silence in the middle of an answer is silence, too."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(response(200, b"half", length=8))
        peer.stall()

    with served(script, echo) as (server, transport):
        assert result_of(transport, a_get(hedging=once()), is_many=is_many).body == b"/x"
        assert len(server.received) == 2


@MODES
def test_a_slow_handshake_is_no_silence(is_many: bool, tmp_path: Path) -> None:
    """What connecting takes is not the answer's."""

    class SlowTls:
        def wrap_socket(self, sock: Any, **_: Any) -> Any:
            time.sleep(0.5)  # a peer that takes long
            return context.wrap_socket(sock, server_side=True)

    context = server_context()
    with (
        scripted(echo, tls=SlowTls()) as server,  # type: ignore[arg-type]
        transport_to(server.endpoint, ca_bundle=bundle(tmp_path), connect_timeout=4) as transport,
    ):
        request = a_get(hedging=patient(0.4))
        assert result_of(transport, request, is_many=is_many).body == b"/x"
        assert len(server.received) == server.accepted == 1


@MODES
def test_a_pause_of_this_process_is_not_the_service_s(
    is_many: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the answer came while this process slept, it is read and not asked for again."""
    answered = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(response(200))
        answered.set()
        echo(peer)

    with served(script) as (server, transport):
        waited: list[float] = []

        def asleep(poll: Callable[[float], Any]) -> Callable[[float], Any]:
            def waiting(milliseconds: float) -> Any:
                waited.append(milliseconds)
                if milliseconds <= 0 or len(waited) > 1:
                    return poll(milliseconds)
                assert answered.wait(5)
                time.sleep(2 * SILENCE)  # as if it had been stopped; the time was up meanwhile
                return []

            return waiting

        _put_to_sleep(monkeypatch, transport, asleep, is_many=is_many)
        request = a_get()
        assert result_of(transport, request, is_many=is_many).body == b"value"
        assert request.hedges is None
        assert len(server.received) == 1


def _put_to_sleep(
    monkeypatch: pytest.MonkeyPatch, transport: Transport, asleep: Any, *, is_many: bool
) -> None:
    """Let the first wait for an answer be a sleep."""
    connection = take_from(transport.pool, time.monotonic() + 5)
    # Opened before, so that the first wait is the one for the answer.
    steps = connection._open(time.monotonic() + 5)
    try:
        wanted = next(steps)
        while True:
            wanted = steps.send(connection.wait(wanted, 5))
    except StopIteration:
        connection.reusable = True
    give_back(transport.pool, connection)

    class Sleepy:
        def __init__(self, poll: Any) -> None:
            self.register, self.unregister = poll.register, poll.unregister
            self.poll = asleep(poll.poll)

    if is_many:
        from django_momento_http._http import exchanges

        new_poll = exchanges.new_poll
        monkeypatch.setattr(exchanges, "new_poll", lambda: Sleepy(new_poll()))
        return
    wait = Connection.wait

    def sleeping(self: Any, events: int, seconds: float) -> int:
        if self._awaited == events and not isinstance(self._poll, Sleepy):
            self._poll = Sleepy(self._poll)
        return wait(self, events, seconds)

    connection.wait(1, 0.0)
    monkeypatch.setattr(Connection, "wait", sleeping)


# When it is not


@MODES
def test_without_a_token_it_waits(is_many: bool) -> None:
    """An empty budget sends nothing; the late answer counts."""
    with served(late()) as (server, transport):
        request = a_get(hedging=patient(purse=Purse(0)))
        assert result_of(transport, request, is_many=is_many).body == b"late"
        assert len(server.received) == server.accepted == 1
        assert whole(transport)


@MODES
def test_a_token_that_is_earned_later_is_used(is_many: bool) -> None:
    """Who could not ask again is asked again as soon as others have earned it."""
    purse = Purse(0)

    def script(peer: Peer) -> None:
        peer.request()
        peer.pause(2.5 * SILENCE)
        purse.hedges = 1
        peer.stall()

    with served(script, echo) as (server, transport):
        assert (
            result_of(transport, a_get(hedging=patient(purse=purse)), is_many=is_many).body == b"/x"
        )
        assert len(server.received) == 2


@MODES
def test_in_trouble_it_waits(is_many: bool) -> None:
    """While a breaker is not closed nothing is sent besides, and no token is spent."""
    purse = Purse()
    with served(late()) as (server, transport):
        request = a_get(hedging=patient(purse=purse, well=False))
        assert result_of(transport, request, is_many=is_many).body == b"late"
        assert len(server.received) == 1
        assert purse.hedges == 10


@MODES
def test_never_more_connections_than_the_limit(is_many: bool) -> None:
    """With all connections in use it waits, and spends no token."""
    purse = Purse()
    with served(late(), connections=1) as (server, transport):
        request = a_get(hedging=patient(purse=purse))
        assert result_of(transport, request, is_many=is_many).body == b"late"
        assert (server.accepted, len(server.received)) == (1, 1)
        assert purse.hedges == 10
        assert whole(transport)


def test_a_hedge_takes_no_connection_from_a_request_that_is_unsent() -> None:
    """While a key of a many-call has no connection yet, none is asked twice."""

    def script(peer: Peer) -> None:
        while True:
            target = peer.request().target
            peer.pause(2 * SILENCE)
            peer.send(response(200, target.encode()))

    with served(script, connections=2) as (server, transport):
        hedging = patient()
        found = all_of(transport, [a_get(f"/{number}", hedging) for number in range(5)])
        assert len(found) == 5
        first = [one.target for one in server.received][:4]
        assert sorted(first) == ["/0", "/1", "/2", "/3"]
        assert server.accepted <= 3


@MODES
def test_a_hedge_that_cannot_connect_harms_nobody(is_many: bool) -> None:
    """The request that is under way goes on; its late answer counts."""

    def script(peer: Peer) -> None:
        peer.request()
        # From now on nobody listens.
        peer.server._listener.shutdown(socket.SHUT_RDWR)
        peer.server._listener.close()
        peer.pause(LATE)
        peer.send(response(200, b"late"))
        peer.stall()

    with served(script) as (server, transport):
        assert result_of(transport, a_get(), is_many=is_many).body == b"late"
        assert len(server.received) == 1
        assert whole(transport)


@MODES
def test_a_hedge_that_breaks_is_followed_by_another(is_many: bool) -> None:
    """It is asked again in time though one of two has left; nothing else would wake it."""
    with served(lost_first(), after_request(Peer.reset), echo) as (server, transport):
        began = time.monotonic()
        assert result_of(transport, a_get(), is_many=is_many).body == b"/x"
        assert time.monotonic() - began < 2.0
        assert [one.connection for one in server.received] == [0, 1, 2]


@MODES
def test_a_hedge_whose_handshake_fails_is_followed_by_another(
    is_many: bool, tmp_path: Path
) -> None:
    """While one is connecting it waits for that, and goes on when that has failed."""

    class SecondFails:
        def wrap_socket(self, sock: Any, **_: Any) -> Any:
            count.append(sock)
            if len(count) == 2:
                sock.close()
                raise OSError
            return context.wrap_socket(sock, server_side=True)

    count: list[Any] = []
    context = server_context()
    with (
        scripted(lost_first(), lost_first(), echo, tls=SecondFails()) as server,  # type: ignore[arg-type]
        transport_to(server.endpoint, ca_bundle=bundle(tmp_path), connect_timeout=4) as transport,
    ):
        began = time.monotonic()
        assert result_of(transport, a_get(), is_many=is_many).body == b"/x"
        assert time.monotonic() - began < 2.0
        assert [one.connection for one in server.received] == [0, 2]


@MODES
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_write_is_never_sent_twice(is_many: bool, method: str) -> None:
    """Without a hedging of its own a request is sent once, however long its answer takes."""
    with served(late()) as (server, transport):
        request = a_request("/x", b"value" if method == "PUT" else None, method=method)
        assert result_of(transport, request, is_many=is_many).body == b"late"
        assert len(server.received) == server.accepted == 1


def test_headers_that_instrumentation_adds_go_with_each_request() -> None:
    """Both requests carry the same ``traceparent``."""
    with served(lost_first(), echo) as (server, transport):
        transport.exchange_one(a_get(hedging=once()), "traceparent: 00-1-2-01\r\n")
        assert [one.headers["traceparent"] for one in server.received] == ["00-1-2-01"] * 2


# Which connection


@MODES
def test_a_warm_connection_is_taken_and_an_old_one_is_not(
    is_many: bool,
) -> None:
    """A hedge goes to a connection that was used within the last second, or to a new one."""
    now = [0.0]

    def script(peer: Peer) -> None:
        while True:
            target = peer.request().target
            if target == "/x" and sum(one.target == "/x" for one in server.received) == 1:
                peer.stall()
            peer.send(response(200, target.encode()))

    for seconds, accepted in ((0.0, 2), (1.5, 3)):
        with (
            scripted(script) as server,
            transport_to(server.endpoint, clock=lambda: time.monotonic() + now[0]) as transport,
        ):
            now[0] = 0.0
            assert len(all_of(transport, [a_get(f"/{n}", patient(5.0)) for n in (1, 2)])) == 2
            assert server.accepted == 2
            now[0] = seconds
            request = a_get(hedging=once(), seconds=5 + seconds)
            assert result_of(transport, request, is_many=is_many).body == b"/x"
            assert server.accepted == accepted
            assert whole(transport)


# What is learnt


@MODES
def test_what_is_learnt_of_answers(is_many: bool) -> None:
    """A hundred answers, single or of many-calls alone, teach it what silence is."""
    silence = Silence()
    hedging = Hedging(silence, Purse(), lambda: True)
    with served(echo) as (_, transport):
        assert silence.threshold == COLD
        for _ in range(150):
            requested = [a_get(f"/{number}", hedging) for number in range(4 if is_many else 1)]
            assert len(
                all_of(transport, requested) if is_many else [transport.exchange(requested[0])]
            )
        assert silence.threshold < COLD
        assert silence.threshold >= FLOOR


def test_many_answers_that_come_together_teach_once() -> None:
    """A many-call records less often than it has keys: they waited together."""
    hedging = patient(5.0)
    recorded: list[float] = []
    hedging.silence.record = recorded.append  # type: ignore[method-assign]
    go = threading.Event()

    def script(peer: Peer) -> None:
        while True:
            target = peer.request().target
            if len(server.received) >= 32:
                go.set()
            go.wait(5)
            peer.send(response(200, target.encode()))

    with scripted(script) as server, transport_to(server.endpoint) as transport:
        assert len(all_of(transport, [a_get(f"/{number}", hedging) for number in range(32)])) == 32
    assert 1 <= len(recorded) <= 32


@MODES
def test_what_was_lost_teaches_nothing(is_many: bool) -> None:
    """A silence that a hedge has ended does not make it more patient: the winner's counts."""
    hedging = patient(0.1)
    recorded: list[float] = []
    hedging.silence.record = recorded.append  # type: ignore[method-assign]
    with served(lost_first(), echo) as (_, transport):
        assert result_of(transport, a_get(hedging=hedging), is_many=is_many).body == b"/x"
    assert len(recorded) == 1
    assert recorded[0] < 0.1


def test_threads_that_are_hedged_get_their_own_answers() -> None:
    """Eight threads, one answer in ten lost: every answer is its own request's."""
    losing = threading.Lock()
    asked: set[str] = set()

    def script(peer: Peer) -> None:
        while True:
            target = peer.request().target
            with losing:
                # Never what is asked again: of one in a thousand all three answers would be lost.
                is_lost = target not in asked and len(asked) % 10 == 9
                asked.add(target)
            if is_lost:
                peer.stall()
            peer.send(response(200, target.encode()))

    hedging = patient(0.05, Purse(10_000))

    def work(number: int) -> None:
        for step in range(20):
            target = f"/{number}/{step}"
            found = result_of(transport, a_get(target, hedging, 20), is_many=bool(step % 2))
            assert found.body == target.encode()

    with served(script, connections=32) as (_, transport), ThreadPoolExecutor(8) as threads:
        for one in [threads.submit(work, number) for number in range(8)]:
            one.result(60)
        assert whole(transport)
        assert len(transport.pool._all) <= 32
