"""One keep-alive connection: a request's bytes out, one parsed reply back.

Everything that may have to wait is a generator that yields the poll events it waits for and is sent
the events that came, 0 when its time is up; whoever drives it owns the clock. So the same steps
serve one request or many at once. It knows nothing of caches, tokens or retries.
"""

import errno
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from httptools import HttpParserError, HttpParserUpgrade

from .exceptions import ConnectFailed, MomentoError, TimedOut, TransportError
from .polling import READ, WRITE, Poll, new_poll
from .replies import (
    BODY_LIMIT,
    ERROR_BODY_LIMIT,
    HEAD_LIMIT,
    Body,
    Reply,
    ReplyParser,
)

A = TypeVar("A")
T = TypeVar("T")
Steps = Generator[int, int, T]
Address = tuple[socket.AddressFamily, Any]

_READ_SIZE = 64 * 1024
# Below this, one copy costs less than a second system call.
_JOIN_LIMIT = 64 * 1024
_LATE = "no whole answer in time"


@dataclass(frozen=True)
class Route:
    """How to reach the one origin that a transport speaks to."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    connect_timeout: float
    tunnel: bool = False
    proxy_credentials: str = field(default="", repr=False)

    @property
    def authority(self) -> str:
        """``host:port``, as CONNECT and Host want it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Connection:
    """A socket that is opened by its first request and may be used again after a whole reply."""

    __slots__ = (
        "_addresses",
        "_awaited",
        "_parser",
        "_pending",
        "_poll",
        "_remember_session",
        "_route",
        "_session",
        "_sock",
        "clock",
        "idle_since",
        "reusable",
        "until",
    )

    def __init__(
        self,
        route: Route,
        addresses: Callable[[float], Sequence[Address]],
        clock: Callable[[], float],
        session: ssl.SSLSession | None = None,
        remember_session: Callable[[ssl.SSLSession], None] = lambda _: None,
    ) -> None:
        self._route = route
        self._addresses = addresses
        self._session = session
        self._remember_session = remember_session
        self._sock: Any = None
        self._pending: Callable[[], int] = _nothing
        self._parser = ReplyParser()
        self._poll: Poll = new_poll()
        self._awaited = 0
        self.clock = clock
        self.idle_since = 0.0
        self.reusable = False
        self.until = float("inf")

    @property
    def is_open(self) -> bool:
        """Whether requests can be sent without connecting first."""
        return self._sock is not None and self.until == float("inf")

    def fileno(self) -> int:
        """Return the socket's descriptor, -1 when there is none."""
        return self._sock.fileno() if self._sock is not None else -1

    def is_quiet(self) -> bool:
        """Whether the idle peer has neither closed nor said anything unasked."""
        return not self._pending() and not self.wait(READ, 0.0)

    def wait(self, events: int, seconds: float) -> int:
        """Wait for the events and return those that came, 0 when none did in time."""
        if events != self._awaited:
            self._poll.register(self._sock.fileno(), events)
            self._awaited = events
        ready = self._poll.poll(seconds * 1000)
        return ready[0][1] if ready else 0

    def close(self) -> None:
        """Close the socket; harmless in a forked child, where it is the parent's."""
        sock, self._sock = self._sock, None
        self.reusable = False
        if sock is not None:
            sock.close()

    def request(self, head: bytes, body: Body | None, deadline: float) -> Steps[Reply]:
        """Send one request and return its whole reply; raise a TransportError."""
        self.reusable = False
        error: MomentoError
        try:
            if self._sock is None:
                yield from self._open(deadline)
            # What fits into the socket's buffer goes there at once, as nearly all requests do.
            first, rest = (head, None) if body is None else _parts(head, body)
            sent = self._try_send(first)
            whole = sent == len(first) and rest is None
            if not whole:
                whole = yield from self._send_rest(first, sent, rest)
            parser = self._parser
            parser.begin()
            # Nearly all answers come in one piece, too.
            if not self._pending() and not (yield READ):
                raise TimedOut(_LATE)
            data = self._try_receive() or (yield from self._read())
            parser.feed(data)
            content = parser.content()
            if content is None:
                # What is read past the parser leaves it in the middle of an answer.
                self._parser = ReplyParser()
                content = yield from self._receive_rest(parser, len(data))
            if self._route.tls is not None and self._session is None:
                self._remember(self._sock.session)
        except MomentoError as known:
            error = known
        except (OSError, HttpParserError, HttpParserUpgrade, ValueError) as broken:
            # Subclasses of SSLError say that the peer left, itself that TLS went wrong.
            kind = "tls" if type(broken) is ssl.SSLError else "connection"
            error = TransportError(f"the connection broke ({type(broken).__name__})", kind=kind)
        else:
            self.reusable = parser.keep_alive and whole and not self._pending()
            return Reply(parser.status, parser.headers, content)
        # Outside the except block: what went wrong below may hold what nobody should read.
        raise error

    # Opening

    def _open(self, deadline: float) -> Steps[None]:
        now = self.clock()
        limit = min(deadline, now + self._route.connect_timeout)
        try:
            yield from self._connect(self._addresses(limit - now), limit)
            self.until = limit
            if self._route.tunnel:
                yield from self._open_tunnel()
            if self._route.tls is not None:
                yield from self._shake_hands(self._route.tls)
            self.until = float("inf")
            return
        except ConnectFailed as known:
            error = known
        except TimedOut:
            error = ConnectFailed("no connection in time", kind="connect_timeout")
        except TransportError:
            error = ConnectFailed("the proxy left before it opened a tunnel", kind="proxy")
        except ssl.SSLCertVerificationError as refused:
            error = ConnectFailed(f"TLS: {refused.verify_message}", kind="tls")
        except ssl.SSLError as broken:
            error = ConnectFailed(f"TLS failed ({type(broken).__name__})", kind="tls")
        except (OSError, HttpParserError, HttpParserUpgrade, ValueError) as broken:
            error = ConnectFailed(f"no connection ({type(broken).__name__})")
        self.close()
        raise error

    def _connect(self, addresses: Sequence[Address], limit: float) -> Steps[None]:
        failure = "no address"
        for index, (family, address) in enumerate(addresses):
            now = self.clock()
            # One address that swallows packets must not use up the time of the next.
            last = index == len(addresses) - 1
            self.until = limit if last else now + (limit - now) / 2
            try:
                sock = self._sock = socket.socket(family, socket.SOCK_STREAM)
                self._poll, self._awaited = new_poll(), 0
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.connect(address)
            except BlockingIOError:
                ready = yield WRITE
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if ready else None
            except OSError as refused:
                code = refused.errno
            else:
                code = 0
            if code == 0:
                return
            self.close()
            failure = "no answer in time" if code is None else errno.errorcode.get(code, str(code))
        raise ConnectFailed(f"no connection ({failure})")

    def _open_tunnel(self) -> Steps[None]:
        head = f"CONNECT {self._route.authority} HTTP/1.1\r\nHost: {self._route.authority}\r\n"
        if self._route.proxy_credentials:
            login = b64encode(self._route.proxy_credentials.encode()).decode()
            head += f"Proxy-Authorization: Basic {login}\r\n"
        yield from self._send_part(memoryview(f"{head}\r\n".encode()))
        parser = ReplyParser()
        received = 0
        while parser.status == 0 and received < HEAD_LIMIT:
            data = yield from self._read()
            received += len(data)
            parser.feed(data)
        if not 200 <= parser.status < 300:
            raise ConnectFailed(f"the proxy answered {parser.status} to CONNECT", kind="proxy")
        if parser.received:
            raise ConnectFailed("the proxy spoke before the tunnel was used", kind="proxy")

    def _shake_hands(self, context: ssl.SSLContext) -> Steps[None]:
        self._sock = context.wrap_socket(
            self._sock,
            do_handshake_on_connect=False,
            server_hostname=self._route.host,
            session=self._session,
        )
        while True:
            try:
                self._sock.do_handshake()
            except ssl.SSLWantReadError:
                wanted = READ
            except ssl.SSLWantWriteError:
                wanted = WRITE
            else:
                break
            if not (yield wanted):
                raise TimedOut("no TLS handshake in time")
        self._pending = self._sock.pending
        if not self._sock.session_reused:
            # The server no longer knows the old one: keep the new.
            self._session = None

    # One exchange

    def _try_send(self, data: Body) -> int:
        """Send what can be sent at once and return how much; whoever sends the rest sees why."""
        try:
            sent: int = self._sock.send(data)
        except (BlockingIOError, ssl.SSLError, BrokenPipeError, ConnectionResetError):
            return 0
        return sent

    def _try_receive(self) -> bytes:
        """Return what has come; whoever reads on sees why it is nothing."""
        try:
            data: bytes = self._sock.recv(_READ_SIZE)
        except (BlockingIOError, ssl.SSLWantReadError):
            return b""
        return data

    def _send_rest(self, first: Body, sent: int, rest: Body | None) -> Steps[bool]:
        """Send everything and return True; False when the peer answered or left before the end."""
        if not (yield from self._send_part(memoryview(first)[sent:])):
            return False
        return rest is None or (yield from self._send_part(memoryview(rest)))

    def _send_part(self, view: memoryview) -> Steps[bool]:
        while view:
            try:
                view = view[self._sock.send(view) :]
                continue
            except (BlockingIOError, ssl.SSLWantWriteError):
                # An answer that comes before the end of the request is its refusal. Under TLS a
                # readable socket says nothing: it may be a session ticket.
                wanted = WRITE if self._route.tls is not None else WRITE | READ
            except ssl.SSLWantReadError:
                wanted = READ
            except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
                return False
            ready = yield wanted
            if not ready:
                raise TimedOut("the request could not be sent in time")
            if wanted == WRITE | READ and not ready & WRITE:
                return False
        return True

    def _take(self, receive: Callable[[A], T], wanted: A) -> Steps[T]:
        """Return what ``receive(wanted)`` gives of the socket, once there is something."""
        while True:
            if not self._pending() and not (yield READ):
                raise TimedOut(_LATE)
            try:
                taken = receive(wanted)
            except (BlockingIOError, ssl.SSLWantReadError):
                continue
            if not taken:
                raise TransportError("the connection was closed before a whole answer arrived")
            return taken

    def _read(self) -> Steps[bytes]:
        data: bytes = yield from self._take(self._sock.recv, _READ_SIZE)
        return data

    def _receive_rest(self, parser: ReplyParser, head: int) -> Steps[Body]:
        """Return the body of a reply of which so many bytes have come."""
        while parser.status == 0:
            if head > HEAD_LIMIT:
                raise TransportError("the answer's headers have no end", kind="unusable")
            data = yield from self._read()
            head += len(data)
            parser.feed(data)
        if not parser.is_framed:
            raise TransportError("an answer without a length cannot be told from a broken one")
        if parser.status != 200:
            return (yield from self._receive_error(parser))
        if parser.length is None:
            return (yield from self._receive_chunks(parser))
        return (yield from self._receive_sized(parser, parser.length))

    def _remember(self, session: ssl.SSLSession | None) -> None:
        # A server hands its tickets out after the handshake, so only now is there one to keep.
        self._session = session
        if session is not None:
            self._remember_session(session)

    def _receive_error(self, parser: ReplyParser) -> Steps[bytes]:
        framed = 0
        while not parser.complete and parser.received <= ERROR_BODY_LIMIT and framed <= HEAD_LIMIT:
            data = yield from self._read()
            framed += len(data)
            parser.feed(data)
        parser.keep_alive &= parser.complete
        return b"".join(parser.parts)[:ERROR_BODY_LIMIT]

    def _receive_chunks(self, parser: ReplyParser) -> Steps[Body]:
        # Gathered as they come: millions of tiny parts would cost many times what they hold.
        body = bytearray().join(parser.parts)
        framed = 0
        while not parser.complete:
            data = yield from self._read()
            framed += len(data)
            parser.parts.clear()
            parser.feed(data)
            body += b"".join(parser.parts)
            # The framing of chunks may cost as much as they hold and a head besides, no more.
            if parser.received > BODY_LIMIT or framed > 2 * parser.received + HEAD_LIMIT:
                raise TransportError("the answer is larger than an item can be", kind="unusable")
        return body

    def _receive_sized(self, parser: ReplyParser, length: int) -> Steps[Body]:
        if length > BODY_LIMIT:
            raise TransportError("the answer is larger than an item can be", kind="unusable")
        if parser.complete:
            return b"".join(parser.parts)
        # The rest goes from the socket to where it stays, without the parser: its end is known.
        body = bytearray(length)
        view = memoryview(body)
        filled = 0
        for part in parser.parts:
            view[filled : filled + len(part)] = part
            filled += len(part)
        while filled < length:
            filled += yield from self._take(self._sock.recv_into, view[filled:])
        return body


def _parts(head: bytes, body: Body | None) -> tuple[Body, Body | None]:
    """Return what to send first, and what then."""
    if body is None or len(body) > _JOIN_LIMIT:
        return head, body
    return head + body, None


def _nothing() -> int:
    """Say that a plain socket holds no bytes back, as TLS may."""
    return 0
