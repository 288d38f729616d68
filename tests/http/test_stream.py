"""The stream: how a socket is opened, and whether it may be used again."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from django_momento_http.exceptions import ConnectFailed
from tests.support.scripted import (
    Peer,
    a_request,
    answer,
    bundle,
    connect_to,
    drive,
    least_late,
    response,
    scripted,
    server_context,
    silent,
)

# Use again


@pytest.mark.parametrize(
    ("said", "is_reusable_now"),
    [(b"", True), (b"H", False), (b"\r\n", False), (response(408, b""), False), (None, False)],
)
def test_an_idle_peer_that_speaks_or_leaves_is_noticed(
    said: bytes | None, is_reusable_now: bool
) -> None:
    """Before a connection is used again, anything unasked or an end of connection shows."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(response(200))
        peer.pause(0.05)
        if said is None:
            return
        peer.send(said)
        peer.stall()

    with scripted(script) as server:
        connection = connect_to(server)
        drive(connection, a_request())
        assert connection.reusable
        if not is_reusable_now:
            connection.wait(1, 5.0)
        assert connection.is_reusable_now() is is_reusable_now
        connection.close()


def test_bytes_left_inside_tls_are_not_quiet(tmp_path: Path) -> None:
    """A second answer that TLS has decrypted already does not become the next request's."""

    def script(peer: Peer) -> None:
        peer.request()
        head, _, body = response(200, b"first").partition(b"\r\n\r\n")
        peer.send(head + b"\r\n\r\n")
        peer.pause(0.05)
        peer.send(body + response(200, b"second"))  # one TLS record
        peer.stall()

    with scripted(script, tls=server_context()) as server:
        connection = connect_to(server, bundle(tmp_path))
        assert bytes(drive(connection, a_request()).body) == b"first"
        assert not (connection.reusable and connection.is_reusable_now())
        connection.close()


# Opening


def test_the_next_address_is_tried_after_a_refusal_and_after_silence() -> None:
    """One address that refuses, is unreachable or not to be had does not hide a good one."""
    with scripted(answer(response(200))) as server:
        with socket.create_server(("127.0.0.1", 0)) as gone:
            refused = (socket.AF_INET, gone.getsockname())
        good = (socket.AF_INET, ("127.0.0.1", server.port))
        unsupported = (socket.AF_IPX, ("127.0.0.1", server.port))
        for bad in (refused, unsupported):
            connection = connect_to(server, addresses=[bad, good])
            assert drive(connection, a_request()).status == 200
            assert connection._resolver.avoided == [bad]
            connection.close()


def test_silent_addresses_leave_half_of_the_time_to_the_last(tmp_path: Path) -> None:
    """However many swallow packets, there is time for the handshake with one that answers."""

    def late() -> float:
        with (
            silent_address() as first,
            silent_address() as second,
            scripted(answer(response(200)), tls=server_context()) as server,
        ):
            good = (socket.AF_INET, ("127.0.0.1", server.port))
            connection = connect_to(
                server, bundle(tmp_path), [first, second, good, first], connect_timeout=1.0
            )
            began = time.monotonic()
            assert drive(connection, a_request()).status == 200
            seconds = time.monotonic() - began
            assert connection._resolver.avoided == [first, second]
            connection.close()
            return seconds - 0.5

    assert least_late(late) < 0.3


def test_an_address_that_does_not_secure_is_tried_last_the_next_time(tmp_path: Path) -> None:
    """To accept and fall silent is no better than not to accept."""
    with scripted(silent) as server:
        connection = connect_to(server, bundle(tmp_path), connect_timeout=0.1)
        with pytest.raises(ConnectFailed):
            drive(connection, a_request())
        assert connection._resolver.avoided == [(socket.AF_INET, ("127.0.0.1", server.port))]


@contextmanager
def silent_address() -> Iterator[Any]:
    """Yield an address that answers no attempt to connect."""
    with socket.create_server(("127.0.0.1", 0)) as full, ExitStack() as fillers:
        full.listen(0)
        for _ in range(8):  # until the queue of connections not yet accepted is full
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield (socket.AF_INET, full.getsockname())


def test_no_address_at_all_is_a_failed_connection() -> None:
    """When none answers, the last reason is told, and the request was not sent."""
    with scripted(silent) as server:
        with socket.create_server(("127.0.0.1", 0)) as gone:
            address = (socket.AF_INET, gone.getsockname())
        connection = connect_to(server, addresses=[address, address])
        with pytest.raises(ConnectFailed, match="ECONNREFUSED") as caught:
            drive(connection, a_request())
        assert caught.value.kind == "connect"


def test_small_packets_are_sent_at_once() -> None:
    """Nagle's algorithm is off: the second piece of a request does not wait for the peer."""
    with scripted(answer(response(200))) as server:
        connection = connect_to(server)
        drive(connection, a_request())
        assert connection._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        connection.close()
