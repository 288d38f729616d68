"""One connection: every way in which a peer can answer, and whether it may be used again."""

import socket
import ssl
import time
import tracemalloc
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_momento_http._http.connection import Connection, Route
from django_momento_http._http.messages import BODY_LIMIT, ERROR_BODY_LIMIT, Request
from django_momento_http.exceptions import ConnectFailed, MomentoError, TransportError
from tests.support.scripted import (
    GRACE,
    Addresses,
    Peer,
    a_request,
    after_request,
    answer,
    answer_once,
    bundle,
    connect_to,
    drive,
    echo,
    response,
    scripted,
    server_context,
    short,
    silent,
    tunnel,
)

CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("data", "status", "body", "is_kept"),
    [
        (response(200, b"value"), 200, b"value", True),
        (response(200, b""), 200, b"", True),
        (response(204, b""), 204, b"", True),
        (
            response(200, b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", CHUNKED, length=None),
            200,
            b"abcde",
            True,
        ),
        (response(100, b"", length=None) + response(200, b"value"), 200, b"value", True),
        (response(404, b"Key Not Found"), 404, b"Key Not Found", True),
        (response(500, b"x" * 1500), 500, b"x" * ERROR_BODY_LIMIT, True),
        (response(302, b"moved", "Location: http://elsewhere/"), 302, b"moved", True),
        (response(200, b"value", "Connection: close"), 200, b"value", False),
        (response(200).replace(b"1.1", b"1.0"), 200, b"value", False),
        (response(500, b"x" * 9_000_000), 500, b"x" * ERROR_BODY_LIMIT, False),
        (response(503, b"busy", length=4_000_000), 503, b"busy", False),
    ],
    ids=range(12),
)
def test_an_answer_is_returned_and_its_connection_kept_or_not(
    data: bytes, status: int, body: bytes, is_kept: bool
) -> None:
    """A whole answer is returned; the connection is kept only where nothing more can come of it."""
    with scripted(after_request(lambda p: p.send(data), Peer.stall)) as server:
        connection = connect_to(server)
        request = a_request(seconds=5.0)
        if status == 503:
            # Less came than was announced: an error's text is not worth waiting for more.
            request.deadline = time.monotonic() + 0.2
            with pytest.raises(TransportError, match="no whole answer"):
                drive(connection, request)
        else:
            found = drive(connection, request)
            assert (found.status, bytes(found.body)) == (status, body)
        assert connection.reusable is is_kept
        connection.close()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "TransportError connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "TransportError connection"),
        (response(200, b"val", length=5), "TransportError connection"),
        (response(200, b"5\r\nval", CHUNKED, length=None), "TransportError connection"),
        (response(200, b"value", length=None), "TransportError connection"),
        (
            response(200, b"value", "Transfer-Encoding: gzip", length=None),
            "TransportError connection",
        ),
        (response(200, b"value", "Content-Length: 7"), "TransportError connection"),
        (response(200, b"value") + response(200, b"other"), "TransportError connection"),
        (response(101, b"", "Upgrade: x", "Connection: Upgrade"), "TransportError connection"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TransportError connection"),
        (response(200, b"", length=BODY_LIMIT + 1), "TransportError unusable"),
        (response(200, b"", length=10**30), "TransportError connection"),
    ],
    ids=range(12),
)
def test_half_an_answer_or_a_doubtful_one_is_an_error(data: bytes, error: str) -> None:
    """What is truncated, has no end, or may be read in two ways is never a value."""
    with scripted(answer_once(data)) as server:
        connection = connect_to(server)
        with pytest.raises(MomentoError) as caught:
            drive(connection, a_request())
        assert short(caught.value) == error
        assert not connection.reusable
        connection.close()


@pytest.mark.parametrize("end", [Peer.reset, Peer.stall, lambda _: None])
@pytest.mark.parametrize(
    ("data", "is_whole"),
    [
        (response(401, b"no", "Connection: close", length=None), False),
        (response(429, b"no", "Retry-After: 2", length=None), False),
        (response(401, b"no", length=None).replace(b"1.1", b"1.0"), False),
        (response(403, b"no", "Transfer-Encoding: gzip", length=None), False),
        (response(404, b"Key Not Found", length=None), False),
        (response(500, b"", length=None), False),
        (response(400, b"no", length=2), True),
    ],
    ids=range(7),
)
def test_a_status_stands_without_the_end_of_what_explains_it(
    data: bytes, is_whole: bool, end: Any
) -> None:
    """Only a value needs an end that can be told from a broken connection."""
    with scripted(after_request(lambda p: p.send(data), lambda p: p.pause(0.05), end)) as server:
        connection = connect_to(server)
        found = drive(connection, a_request(seconds=0.3))
        assert f" {found.status} ".encode() in data
        assert data.endswith(bytes(found.body))
        assert connection.reusable is is_whole
        connection.close()


@pytest.mark.parametrize("pause", [0, 0.05])
@pytest.mark.parametrize("header", ["Content-Length: 5", "X: y", "Transfer-Encoding: chunked"])
def test_a_body_of_a_204_is_nobody_s(header: str, pause: float) -> None:
    """What was stored was stored; the connection is not used again."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(f"HTTP/1.1 204 No Content\r\n{header}\r\n\r\n".encode())
        if header != "X: y":
            peer.pause(pause)
        peer.send(b"value")
        peer.stall()

    with scripted(script) as server:
        connection = connect_to(server)
        assert drive(connection, a_request(body=b"value")).status == 204
        if connection.reusable:
            connection.wait(1, 5.0)
        assert not (connection.reusable and connection.is_reusable_now())
        connection.close()


@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_an_answer_in_pieces_is_the_same(pieces: int) -> None:
    """Where a body's bytes are cut by the network makes no difference."""
    body = bytes(range(256)) * 800
    data = response(200, body)
    size = len(data) // pieces + 1

    def script(peer: Peer) -> None:
        peer.request()
        for start in range(0, len(data), size):
            peer.send(data[start : start + size])
            peer.pause(0.01)
        peer.stall()

    with scripted(script) as server:
        connection = connect_to(server)
        assert bytes(drive(connection, a_request()).body) == body
        assert connection.reusable
        connection.close()


@pytest.mark.parametrize(
    ("head", "flood", "bound"),
    [
        (response(200, b"", length=10 * BODY_LIMIT), b"x" * 65536, 1 << 20),
        (response(200, b"", CHUNKED, length=None), b"10000\r\n" + b"x" * 65536 + b"\r\n", 13 << 20),
        (response(200, b"", CHUNKED, length=None), b"2\r\nxx\r\n" * 5000, 13 << 20),
        (response(200, b"0\r\n", CHUNKED, length=None), b"", 1 << 20),
        (response(500, b"0\r\n", CHUNKED, length=None), b"", 1 << 20),
        (response(500, b"1;", CHUNKED, length=None), b"x" * 65536, 1 << 20),
        (response(500, b"", length=10**9), b"x" * 65536, 1 << 20),
        (b"HTTP/1.1 200 OK\r\n", b"", 2 << 20),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x" * 65536, 1 << 20),
        (b"", response(100, b"", length=None) * 100, 1 << 20),
        (b"", b"HTTP/1.1 099 Odd\r\nContent-Length: 30000\r\n\r\n" + b"x" * 30000, 1 << 20),
    ],
    ids=[
        "length",
        "chunks",
        "crumbs",
        "trailers",
        "error-trailers",
        "extension",
        "error",
        "headers",
        "header",
        "interim",
        "odd",
    ],
)
def test_an_endless_answer_costs_little_memory_and_ends_early(
    head: bytes, flood: bytes, bound: int
) -> None:
    """However a peer goes on, it is cut off long before the deadline, and memory is bounded."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(head)
        if flood:
            peer.flood(flood)
        for start in range(0, 10**7, 5000):  # different names, so that none replaces another
            peer.send(b"".join(b"x%d: y\r\n" % n for n in range(start, start + 5000)))

    with scripted(script) as server:
        connection = connect_to(server)
        tracemalloc.start()
        began = time.monotonic()
        found = answer_or_error(connection, a_request(seconds=10.0))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        connection.close()
        assert time.monotonic() - began < 5
        if isinstance(found, TransportError):
            assert found.kind in ("unusable", "connection")
        else:
            assert found.status == 500
            assert len(found.body) <= ERROR_BODY_LIMIT
        assert peak < bound
        assert not connection.reusable


def answer_or_error(connection: Connection, request: Request) -> Any:
    """Return what a request ends with, also when that is an error of ours."""
    try:
        return drive(connection, request)
    except MomentoError as error:
        return error


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.builds(
            lambda status, headers, body: response(status, body, *headers),
            st.integers(0, 999),
            st.lists(
                st.sampled_from(
                    [
                        CHUNKED,
                        "Connection: close",
                        "Content-Length: 3",
                        "X: \xff",
                        "Upgrade: h2",
                        "Transfer-Encoding: br",
                        "Content-Encoding: gzip",
                        ": ",
                        "Trailer: X",
                    ]
                ),
                max_size=3,
            ),
            st.binary(max_size=30),
        ),
    )
)
def test_whatever_comes_only_our_errors_come_out(data: bytes) -> None:
    """Hostile bytes are an answer or a MomentoError, never anything else."""
    with scripted(answer_once(data)) as server:
        connection = connect_to(server)
        found = answer_or_error(connection, a_request(seconds=2.0))
        if isinstance(found, MomentoError):
            assert found.__cause__ is None
            assert found.__context__ is None
            assert not connection.reusable
        else:
            assert 200 <= found.status <= 999
        connection.close()


# Sending


def test_a_large_body_arrives_whole_at_a_slow_reader() -> None:
    """A peer that reads slowly gets every byte once and in order."""
    body = bytes(range(256)) * 16_000

    def script(peer: Peer) -> None:
        head = peer.head()
        assert b"Content-Length: 4096000" in head
        while len(peer._left) < len(body):
            peer._left += peer.sock.recv(200_000)
            peer.pause(0.001)
        is_same = peer._left == body
        peer.send(response(204 if is_same else 400, b""))
        peer.stall()

    with scripted(script) as server:
        connection = connect_to(server)
        assert drive(connection, a_request(body=body, seconds=10.0)).status == 204
        assert connection.reusable
        connection.close()


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("is_closed", [False, True], ids=["open", "closed"])
def test_an_answer_before_the_request_is_read_is_its_refusal(
    is_closed: bool, is_tls: bool, tmp_path: Path
) -> None:
    """A 413 in the middle of a large body is returned, and the connection is not used again."""

    def script(peer: Peer) -> None:
        peer.head()
        peer.send(response(413, b"too large"))
        if is_closed:
            socket.socket.shutdown(peer.sock, socket.SHUT_WR)
        peer.stall()

    with scripted(script, tls=server_context() if is_tls else None) as server:
        connection = connect_to(server, bundle(tmp_path) if is_tls else None)
        found = drive(connection, a_request(body=bytes(8_000_000), seconds=5.0))
        assert (found.status, found.body) == (413, b"too large")
        assert not connection.reusable
        connection.close()


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(
    "interim", [response(100, b"", length=None), response(103, b"", "Link: x")]
)
def test_interim_answers_do_not_stop_the_request(
    interim: bytes, is_tls: bool, tmp_path: Path
) -> None:
    """Also unasked they are no refusal: the body arrives whole, however they are cut."""
    body = bytes(range(256)) * 48_000  # more than the sockets' buffers take

    def script(peer: Peer) -> None:
        peer.head()
        arrived = bytearray(peer._left)
        for part in (interim, interim[:10], interim[10:]):
            peer.send(part)
            for _ in range(10):
                arrived += peer._more()
        while len(arrived) < len(body):
            arrived += peer._more()
        peer._left = b""
        peer.send(interim + response(204 if arrived == body else 400, b""))
        peer.stall()

    with scripted(script, tls=server_context() if is_tls else None) as server:
        connection = connect_to(server, bundle(tmp_path) if is_tls else None)
        assert drive(connection, a_request(body=body, seconds=10.0)).status == 204
        assert connection.reusable
        connection.close()


def test_endless_interim_answers_end_the_request() -> None:
    """Who says nothing else while a body is sent is cut off."""

    def script(peer: Peer) -> None:
        peer.head()
        peer.flood(response(100, b"", length=None) * 100)

    with scripted(script) as server:
        connection = connect_to(server)
        with pytest.raises(TransportError) as caught:
            drive(connection, a_request(body=bytes(50_000_000), seconds=10.0))
        assert caught.value.kind == "unusable"
        connection.close()


@pytest.mark.parametrize("is_tls", [False, True])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_peer_that_leaves_while_we_send_is_a_broken_connection(
    is_tls: bool, how: str, tmp_path: Path
) -> None:
    """To leave in the middle of a request is kind "connection", also with TLS: it is retried."""

    def script(peer: Peer) -> None:
        peer.head()
        if how == "reset":
            peer.reset()

    with scripted(script, tls=server_context() if is_tls else None) as server:
        connection = connect_to(server, bundle(tmp_path) if is_tls else None)
        with pytest.raises(TransportError) as caught:
            drive(connection, a_request(body=bytes(8_000_000), seconds=5.0))
        assert short(caught.value) == "TransportError connection"
        connection.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_tls_session_is_resumed_and_renewed_when_it_was_refused(
    version: ssl.TLSVersion, tmp_path: Path
) -> None:
    """The next handshake is a short one; a session that the server no longer knows is replaced."""
    context = ssl.create_default_context(cafile=bundle(tmp_path))
    kept: list[Any] = []
    for server_run in range(2):  # the second knows nothing of the first's sessions
        with scripted(answer(response(200)), tls=server_context(version=version)) as server:
            route = Route("127.0.0.1", server.port, context, 0.5)
            for _ in range(3):
                resolver: Any = Addresses((socket.AF_INET, ("127.0.0.1", server.port)))
                connection = Connection(
                    route,
                    resolver,
                    time.monotonic,
                    kept[-1] if kept else None,
                    kept.append,
                )
                assert drive(connection, a_request()).status == 200
                connection.close()
            assert server.resumed == [False, True, True], server_run


# Through a proxy


@pytest.mark.parametrize("is_tls", [False, True])
@pytest.mark.parametrize("login", ["", "user:pa ss:word"])
def test_a_tunnel_is_opened_through_a_proxy(is_tls: bool, login: str, tmp_path: Path) -> None:
    """CONNECT names the origin and carries the login; what follows is between us and the origin."""
    tls = server_context() if is_tls else None
    with (
        scripted(answer(response(200, b"inside")), tls=tls) as server,
        scripted(tunnel(server.port, login or None)) as proxy,
    ):
        connection = connect_to(
            server,
            bundle(tmp_path) if is_tls else None,
            [(socket.AF_INET, ("127.0.0.1", proxy.port))],
            tunnel=True,
            proxy_credentials=login,
        )
        for _ in range(2):
            assert bytes(drive(connection, a_request()).body) == b"inside"
        connection.close()
    [connect] = proxy.received
    assert (connect.method, connect.target) == ("CONNECT", f"127.0.0.1:{server.port}")
    assert "authorization" not in connect.headers
    assert len(server.received) == 2
    assert all("proxy-authorization" not in one.headers for one in server.received)


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (
            answer_once(response(407, b"who are you?", 'Proxy-Authenticate: Basic realm="x"')),
            "proxy",
        ),
        (answer_once(response(502, b"no")), "proxy"),
        (answer_once(response(302, b"", "Location: /")), "proxy"),
        (answer_once(b""), "proxy"),
        (answer_once(b"HTTP/1.1 200 Conn"), "proxy"),
        (answer_once(response(200, b"surprise", length=None)), "proxy"),
        (answer_once(b"SSH-2.0-OpenSSH\r\n"), "connect"),
        (answer_once(response(101, b"", "Upgrade: x", "Connection: Upgrade")), "connect"),
        (after_request(lambda p: p.flood(response(100, b"", length=None))), "proxy"),
        (after_request(Peer.stall), "connect_timeout"),
        (
            after_request(lambda p: p.drip(b"HTTP/1.1 200 Connection established\r\n")),
            "connect_timeout",
        ),
    ],
    ids=range(11),
)
def test_a_proxy_s_refusal_is_a_failed_connection_without_credentials(
    script: Any, kind: str
) -> None:
    """Whatever the proxy does instead of opening a tunnel, the request was not sent."""
    with scripted(silent) as server, scripted(script) as proxy:
        connection = connect_to(
            server,
            addresses=[(socket.AF_INET, ("127.0.0.1", proxy.port))],
            tunnel=True,
            proxy_credentials="user:hunter2",
            connect_timeout=0.2,
        )
        began = time.monotonic()
        with pytest.raises(ConnectFailed) as caught:
            drive(connection, a_request())
        assert caught.value.kind == kind
        assert time.monotonic() - began < 0.2 + GRACE
        assert "hunter2" not in f"{caught.value} {caught.value!r} {connection._route!r}"
        assert connection.fd == -1
    assert server.accepted == 0


@pytest.mark.parametrize(("refused", "is_reached"), [(0, True), (2, True), (3, False)])
def test_three_addresses_are_tried_for_a_connection(refused: int, is_reached: bool) -> None:
    """A host with many addresses that do not answer is given up for the next one to try."""
    with ExitStack() as stack:
        server = stack.enter_context(scripted(echo))
        ports = []
        for _ in range(refused):
            bound = stack.enter_context(socket.socket())
            bound.bind(("127.0.0.1", 0))
            ports.append(bound.getsockname()[1])
        addresses = [(socket.AF_INET, ("127.0.0.1", port)) for port in (*ports, server.port)]
        connection = connect_to(server, addresses=addresses, connect_timeout=5.0)
        if is_reached:
            assert drive(connection, a_request("/x")).body == b"/x"
        else:
            with pytest.raises(ConnectFailed):
                drive(connection, a_request("/x"))
        connection.close()
    assert server.accepted == is_reached
