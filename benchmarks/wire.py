"""The floors: the least that a client in Python does for one GET, and for many at once.

No error, no odd answer and no timeout is handled: this is a yardstick, not a client. It knows
nothing of Django or of the stored format.
"""

import selectors
import socket
import ssl
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

CACHE = "default-cache"
# As long as a real one, so that every client writes and copies as many bytes.
TOKEN = "eyJhbGciOiJIUzUxMiJ9." + "t" * 160


def key_base64(key: str) -> str:
    """Return the key as the wire has it."""
    return urlsafe_b64encode(key.encode()).rstrip(b"=").decode()


def target(key: str) -> str:
    """Return path and query of a GET."""
    return f"/cache/{CACHE}?key_base64={key_base64(key)}"


@cache
def get_request(port: int, key: str) -> bytes:
    """Return the whole GET, made once: what a floor sends costs it nothing to write."""
    head = f"GET {target(key)} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: {TOKEN}\r\n\r\n"
    return head.encode()


def put_request(port: int, key: str, value: bytes) -> bytes:
    """Return the whole PUT."""
    head = (
        f"PUT {target(key)}&ttl_seconds=3600 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Authorization: {TOKEN}\r\nContent-Length: {len(value)}\r\n\r\n"
    )
    return head.encode() + value


def split(data: bytes | bytearray) -> tuple[int, int]:
    """Return where the body starts and ends, (0, 0) while the head is incomplete."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return 0, 0
    at = data.find(b"Content-Length: ", 0, end)
    length = int(data[at + 16 : data.find(b"\r", at)]) if at >= 0 else 0
    return end + 4, end + 4 + length


class RawSocket:
    """One GET at a time: ``sendall``, ``recv``, on one keep-alive connection."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._port = port
        self._sock = socket.create_connection(("127.0.0.1", port))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self._sock = tls.wrap_socket(self._sock, server_hostname="127.0.0.1")

    def put(self, key: str, value: bytes) -> None:
        """Store the value."""
        self._sock.sendall(put_request(self._port, key, value))
        answer = self._sock.recv(4096)
        if not answer.startswith(b"HTTP/1.1 204"):
            raise RuntimeError(f"the stand-in answered {answer[:40]!r}")

    def get(self, key: str) -> bytes | bytearray:
        """Return the value."""
        self._sock.sendall(get_request(self._port, key))
        data = self._sock.recv(65536)
        start, end = split(data)
        if len(data) >= end > 0:
            return data[start:end]
        return self._get_rest(data)

    def _get_rest(self, data: bytes) -> bytearray:
        parts = [data]
        while (bounds := split(data))[1] == 0:
            parts.append(self._sock.recv(65536))
            data = b"".join(parts)
        start, end = bounds
        body = bytearray(end - start)
        body[: len(data) - start] = data[start:]
        view, filled = memoryview(body), len(data) - start
        while filled < len(body):
            filled += self._sock.recv_into(view[filled:])
        return body

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()


class SelectorsFloor:
    """Many GETs at once: all written on as many keep-alive connections, replies as they come."""

    def __init__(self, port: int, width: int) -> None:
        self._port = port
        self._selector = selectors.DefaultSelector()
        self._socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(width)]
        for sock in self._socks:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            self._selector.register(sock, selectors.EVENT_READ)

    def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return the values."""
        left = iter(keys)
        under_way: dict[Any, tuple[str, bytes]] = {}
        for sock, key in zip(self._socks, left, strict=False):
            sock.send(get_request(self._port, key))
            under_way[sock] = (key, b"")
        return self._read_all(under_way, left)

    def _read_all(
        self, under_way: dict[Any, tuple[str, bytes]], left: Iterator[str]
    ) -> dict[str, bytes]:
        values = {}
        while under_way:
            for ready, _ in self._selector.select():
                sock: Any = ready.fileobj
                key, data = under_way[sock]
                data += sock.recv(65536)
                start, end = split(data)
                if not end or len(data) < end:
                    under_way[sock] = (key, data)
                    continue
                values[key] = data[start:end]
                following = next(left, None)
                if following is None:
                    del under_way[sock]
                else:
                    sock.send(get_request(self._port, following))
                    under_way[sock] = (following, b"")
        return values

    def close(self) -> None:
        """Close the connections."""
        self._selector.close()
        for sock in self._socks:
            sock.close()
