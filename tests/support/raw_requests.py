"""Requests to the local server, byte for byte, and the command that runs it."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from typing import NamedTuple

from django_momento_http.testing import RunningServer

CACHE = "/cache/default-cache"
A_KEY = f"{CACHE}?key=a"
PUT_A = f"{A_KEY}&ttl_seconds=60"
LONGEST_WAIT = 10


class Response(NamedTuple):
    status: int
    body: bytes
    headers: dict[str, str]


def address(server: RunningServer) -> tuple[str, int]:
    host, port = server.endpoint.removeprefix("http://").split(":")
    return host, int(port)


def ask(
    server: RunningServer,
    method: str,
    target: str,
    body: bytes | None = None,
    *,
    token: str | None = "test-token",
    **headers: str,
) -> Response:
    """Send one request exactly as given."""
    if token is not None:
        headers["Authorization"] = token
    with closing(HTTPConnection(*address(server), timeout=LONGEST_WAIT)) as connection:
        connection.request(method, target, body, headers)
        response = connection.getresponse()
        return Response(
            response.status, response.read(), {k.lower(): v for k, v in response.getheaders()}
        )


def dial(server: RunningServer) -> socket.socket:
    return socket.create_connection(address(server), timeout=LONGEST_WAIT)


def read_to_end(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def talk(server: RunningServer, data: bytes) -> bytes:
    """Send raw bytes, the last request of which ends the connection, and read all that comes."""
    with dial(server) as connection:
        connection.sendall(data)
        return read_to_end(connection)


def raw(method: str, target: str, *lines: str, body: bytes = b"", end: bool = False) -> bytes:
    """Spell a request of the right token."""
    fields = ["Host: localhost", "Authorization: test-token", *lines]
    if end:
        fields.append("Connection: close")
    if body:
        fields.append(f"Content-Length: {len(body)}")
    head = "\r\n".join([f"{method} {target} HTTP/1.1", *fields])
    return head.encode() + b"\r\n\r\n" + body


@contextmanager
def running_command(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start the command with every warning an error; yield it with its first line."""
    command = [sys.executable, "-X", "dev", "-W", "error", "-m", "django_momento_http.server"]
    with subprocess.Popen(
        [*command, "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline()
        finally:
            process.kill()


def stop(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> str:
    """Stop the command, check that it ended cleanly, and return what it printed."""
    process.send_signal(number)
    output, errors = process.communicate(timeout=LONGEST_WAIT)
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert "Warning" not in errors
    return output
