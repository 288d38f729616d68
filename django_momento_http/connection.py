"""One keep-alive connection: a request's bytes out, one parsed reply back.

It speaks HTTP on a wire, and knows nothing of caches, tokens or retries.
"""

import ssl
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from httptools import HttpParserError, HttpParserUpgrade

from .exceptions import ConnectFailed, MomentoError, TimedOut, TransportError
from .polling import READ
from .replies import (
    BODY_LIMIT,
    ERROR_BODY_LIMIT,
    HEAD_LIMIT,
    Body,
    Reply,
    ReplyParser,
)
from .wire import LATE, Address, Steps, Wire

# Below this, one copy costs less than a second system call.
_JOIN_LIMIT = 64 * 1024


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


class Connection(Wire):
    """A socket that is opened by its first request and may be used again after a whole reply."""

    __slots__ = (
        "_addresses",
        "_parser",
        "_remember_session",
        "_route",
        "_session",
        "idle_since",
        "reusable",
    )

    def __init__(
        self,
        route: Route,
        addresses: Callable[[float], Sequence[Address]],
        clock: Callable[[], float],
        session: ssl.SSLSession | None = None,
        remember_session: Callable[[ssl.SSLSession], None] = lambda _: None,
    ) -> None:
        super().__init__(clock)
        self._route = route
        self._addresses = addresses
        self._session = session
        self._remember_session = remember_session
        self._parser = ReplyParser()
        self.idle_since = 0.0
        self.reusable = False

    def close(self) -> None:
        """Close the socket; harmless in a forked child, where it is the parent's."""
        self.reusable = False
        super().close()

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
                raise TimedOut(LATE)
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
            self.reusable = parser.keep_alive and whole
            return Reply(parser.status, parser.headers, content)
        # Outside the except block: what went wrong below may hold what nobody should read.
        raise error

    # Opening

    def _open(self, deadline: float) -> Steps[None]:
        now = self.clock()
        limit = min(deadline, now + self._route.connect_timeout)
        try:
            yield from self._connect(self._addresses(limit - now), limit)
            self.until = self._limit
            if self._route.tunnel:
                yield from self._open_tunnel()
            if self._route.tls is not None:
                yield from self._shake_hands(self._route.tls, self._route.host, self._session)
                if not self._sock.session_reused:
                    # The server no longer knows the old one: keep the new.
                    self._session = None
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

    # One exchange

    def _send_rest(self, first: Body, sent: int, rest: Body | None) -> Steps[bool]:
        """Send everything and return True; False when the peer answered or left before the end."""
        if not (yield from self._send_part(memoryview(first)[sent:])):
            return False
        return rest is None or (yield from self._send_part(memoryview(rest)))

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


def _parts(head: bytes, body: Body) -> tuple[Body, Body | None]:
    """Return what to send first, and what then."""
    if len(body) > _JOIN_LIMIT:
        return head, body
    return head + body, None
