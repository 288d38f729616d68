"""A peer on a real socket that follows a script, one connection at a time, and records what it got.

A script is a function of one accepted connection (a ``Peer``): it reads, answers, drips, lies,
falls silent, or leaves. It knows nothing of the package but how a request is handed to it.
"""

import select
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import trustme

from django_momento_http._http.connection import Connection, Route
from django_momento_http._http.messages import Request
from django_momento_http._http.pool import Pool
from django_momento_http._http.transport import Origin, Transport

# Seconds that an operation may take beyond its deadline (docs/failures.md, One deadline).
GRACE = 0.1
# Longer than any test may need; a script that waits this long has hung.
_LONGEST_WAIT = 20.0


class Received(NamedTuple):
    """One request as it arrived, with the number of the connection that brought it."""

    connection: int
    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    lines: tuple[str, ...]


class Gone(Exception):
    """The client closed the connection, or the server is being stopped."""


class Peer:
    """One accepted connection."""

    def __init__(self, server: "ScriptedServer", sock: Any, number: int) -> None:
        self.server = server
        self.sock = sock
        self.number = number
        self._left = b""

    def send(self, data: bytes) -> None:
        """Send the bytes in one piece."""
        self.sock.sendall(data)

    def drip(self, data: bytes, seconds: float = 0.02) -> None:
        """Send one byte at a time with a pause before each."""
        for byte in data:
            if self.server.stopping.wait(seconds):
                raise Gone
            self.sock.sendall(bytes([byte]))

    def flood(self, data: bytes) -> None:
        """Send the same bytes again and again until the client leaves."""
        while not self.server.stopping.is_set():
            self.sock.sendall(data)

    def pause(self, seconds: float) -> None:
        """Say nothing for a while."""
        if self.server.stopping.wait(seconds):
            raise Gone

    def stall(self) -> None:
        """Neither read nor write any more, and keep the connection."""
        self.server.stopping.wait(_LONGEST_WAIT)
        raise Gone

    def wait_until_left(self) -> None:
        """Read and throw away until the client closes."""
        while self.sock.recv(65536):
            pass
        raise Gone

    def reset(self) -> None:
        """Close so that the client gets a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()

    def head(self) -> bytes:
        """Read up to the end of a request's headers."""
        while b"\r\n\r\n" not in self._left:
            self._left += self._more()
        head, _, self._left = self._left.partition(b"\r\n\r\n")
        return head

    def request(self) -> Received:
        """Read one whole request."""
        first, *lines = self.head().decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }
        length = int(headers.get("content-length", 0))
        while len(self._left) < length:
            self._left += self._more()
        body, self._left = self._left[:length], self._left[length:]
        received = Received(self.number, method, target, headers, body, tuple(lines))
        self.server.received.append(received)
        return received

    def _more(self) -> bytes:
        data = self.sock.recv(65536)
        if not data:
            raise Gone
        return bytes(data)


Script = Callable[[Peer], None]


class ScriptedServer:
    """Accepts connections; the n-th follows the n-th script, later ones the last."""

    def __init__(self, scripts: tuple[Script, ...], tls: ssl.SSLContext | None = None) -> None:
        self.received: list[Received] = []
        self.accepted = 0
        self.resumed: list[bool] = []
        self.stopping = threading.Event()
        self._scripts = scripts
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self._socks: list[Any] = []
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept)

    @property
    def endpoint(self) -> str:
        """The server's URL."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._acceptor.start()

    def stop(self) -> None:
        self.stopping.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(_LONGEST_WAIT)
        for sock in self._socks:
            with suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(_LONGEST_WAIT)
            assert not thread.is_alive(), "a script hung"

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._socks.append(sock)
            number, self.accepted = self.accepted, self.accepted + 1
            thread = threading.Thread(target=self._serve, args=(sock, number))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: Any, number: int) -> None:
        script = self._scripts[min(number, len(self._scripts) - 1)]
        with suppress(Gone, OSError):
            if self._tls is not None:
                # In place of the plain socket, so that stopping reaches whichever is open.
                sock = self._tls.wrap_socket(sock, server_side=True)
                self._socks.append(sock)
                self.resumed.append(sock.session_reused)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            script(Peer(self, sock, number))
        sock.close()


@contextmanager
def scripted(*scripts: Script, tls: ssl.SSLContext | None = None) -> Iterator[ScriptedServer]:
    """Run a scripted server on a free port."""
    server = ScriptedServer(scripts, tls)
    server.start()
    try:
        yield server
    finally:
        server.stop()


# Answers and scripts


def response(
    status: int = 200, body: bytes = b"value", *headers: str, length: int | None = -1
) -> bytes:
    """Return an answer's bytes; ``length`` lies about the body's, None leaves it out."""
    lines = [f"HTTP/1.1 {status} Whatever", *headers]
    if length is not None and status != 204:
        lines.append(f"Content-Length: {len(body) if length == -1 else length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def answer(*responses: bytes) -> Script:
    """Answer each request with the next of these, the last again and again."""

    def script(peer: Peer) -> None:
        for data in responses:
            peer.request()
            peer.send(data)
        while True:
            peer.request()
            peer.send(responses[-1])

    return script


def answer_once(data: bytes) -> Script:
    """Answer one request with these bytes and close the connection."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(data)

    return script


def echo(peer: Peer) -> None:
    """Answer every request with its own target."""
    while True:
        peer.send(response(200, peer.request().target.encode()))


def after_request(*actions: Callable[[Peer], object]) -> Script:
    """Read one request, then act."""

    def script(peer: Peer) -> None:
        peer.request()
        for action in actions:
            action(peer)

    return script


def silent(peer: Peer) -> None:
    """Accept, and neither read nor say anything."""
    peer.stall()


def tunnel(port: int, login: str | None = None) -> Script:
    """Be an HTTP proxy: connect every CONNECT to this port; 407 without the right login."""

    def script(peer: Peer) -> None:
        received = peer.request()
        wanted = f"Basic {b64encode(login.encode()).decode()}" if login else None
        if wanted is not None and received.headers.get("proxy-authorization") != wanted:
            peer.send(response(407, b"who are you?"))
            return
        with socket.create_connection(("127.0.0.1", port)) as other:
            peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            _relay(peer, other)

    return script


def _relay(peer: Peer, other: socket.socket) -> None:
    ways = {peer.sock: other, other: peer.sock}
    while not peer.server.stopping.is_set():
        for ready in select.select(list(ways), [], [], 0.05)[0]:
            data = ready.recv(65536)
            if not data:
                return
            ways[ready].sendall(data)


# TLS


@lru_cache
def authority() -> trustme.CA:
    """Return the one certificate authority of these tests."""
    return trustme.CA()


def server_context(
    *names: str, ca: trustme.CA | None = None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> ssl.SSLContext:
    """Return what a server named so needs; by default for the loopback address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = version
    (ca or authority()).issue_cert(*(names or ("127.0.0.1",))).configure_cert(context)
    return context


def bundle(directory: Path) -> str:
    """Write the authority's certificate to a file and return its path."""
    path = directory / "ca.pem"
    authority().cert_pem.write_to_path(str(path))
    return str(path)


# The transport under test


@contextmanager
def transport_to(
    endpoint: str,
    *,
    connections: int = 64,
    connect_timeout: float = 0.5,
    clock: Callable[[], float] = time.monotonic,
    proxy: str | None = None,
    ca_bundle: str | None = None,
) -> Iterator[Transport]:
    """A transport to an endpoint, closed at the end."""
    origin = Origin(endpoint, connect_timeout, connections, proxy, ca_bundle)
    transport = Transport(origin, clock)
    try:
        yield transport
    finally:
        transport.close()


def give_back(pool: Pool, connection: Connection) -> None:
    """Give a connection back, as the transport does."""
    reusable = connection.reusable
    pool.put_back(connection)
    pool.tidy(connection, reusable=reusable)


def open_in(pool: Pool) -> set[Connection | None]:
    """Return the connections that stand in the pool's slots."""
    return {reference() for reference in pool._all}


def a_request(
    target: str = "/cache/c?key_base64=a2V5",
    body: bytes | bytearray | None = None,
    *,
    seconds: float = 5.0,
    method: str = "",
    fresh: bool = False,
) -> Request:
    """Return a request that has so many seconds from now."""
    deadline = time.monotonic() + seconds
    verb = method or ("GET" if body is None else "PUT")
    call = Request(verb, target, body, deadline, seconds)
    call.authorization = "a-secret-token"
    call.fresh = fresh
    return call


def take_from(pool: Pool, deadline: float) -> Connection:
    """Return an idle connection of a pool, or a new one, as a single request takes it."""
    return pool.take_now() or pool.wait(deadline)


def all_of(transport: Transport, calls: list[Request]) -> list[tuple[Request, Any]]:
    """Return every (request, answer) of one many-call, in the order in which they came."""
    waiting = iter(calls)
    lists = transport.multiplexer(lambda: next(waiting, None)).results()
    return [pair for answers in lists for pair in answers]


def drive(connection: Any, call: Request) -> Any:
    """Carry one request out on a connection, as the transport would, and return its response."""
    steps = connection.handle(call, "Host: x\r\n")
    try:
        wanted = next(steps)
        while True:
            left = min(call.deadline, connection.until) - time.monotonic()
            wanted = steps.send(connection.wait(wanted, max(left, 0.0)))
    except StopIteration as done:
        return done.value


def short(error: object) -> str:
    """Return an error's class and kind, for tables."""
    return f"{type(error).__name__} {getattr(error, 'kind', '')}"


def least_late(operation: Callable[[], float]) -> float:
    """Return the fewest seconds beyond a deadline, of up to three runs.

    A busy machine is late now and then; a peer that can hold an operation holds it every time.
    """
    late = operation()
    for _ in range(2):
        if late < GRACE:
            break
        late = min(late, operation())
    return late


class Addresses:
    """Stands for the resolver: knows the addresses, and remembers which failed."""

    def __init__(self, *found: Any) -> None:
        self.found = found
        self.avoided: list[Any] = []

    def addresses(self) -> Any:
        return self.found

    def avoid(self, address: Any) -> None:
        self.avoided.append(address)


def connect_to(
    server: ScriptedServer, ca: str | None = None, addresses: Any = None, **options: Any
) -> Connection:
    """Return a connection to the server; its route may be changed by options."""
    context = None
    if ca is not None:
        context = ssl.create_default_context(cafile=ca)
    route = Route("127.0.0.1", server.port, context, options.pop("connect_timeout", 0.5), **options)
    found = addresses or [(socket.AF_INET, ("127.0.0.1", server.port))]
    resolver: Any = Addresses(*found)
    return Connection(route, resolver, time.monotonic)
