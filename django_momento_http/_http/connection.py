"""One keep-alive connection: a request's bytes out, one parsed response back.

It speaks HTTP on a stream, and knows nothing of caches, tokens or retries.
"""

import ssl
from binascii import b2a_base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from httptools import HttpParserError, HttpParserUpgrade

from .._interrupts import is_raised_by_signal_handler
from ..exceptions import ConnectFailed, MomentoError, TimedOut, TransportError
from .messages import (
    BODY_LIMIT,
    ERROR_BODY_LIMIT,
    HEAD_LIMIT,
    Body,
    Request,
    Response,
    ResponseParser,
)
from .polling import READ
from .resolver import Resolver
from .stream import LATE, LOOK, Address, IOSteps, Stream

# Below this, one copy costs less than a second system call.
_JOIN_LIMIT = 64 * 1024
# Tried for one connection; the next one begins with those that did not fail.
_TRIED_ADDRESSES = 3


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

    def tunnel_request(self) -> bytes:
        """Return what asks a proxy for a tunnel."""
        # No variable of this frame or of a frame below has the login.
        return (
            f"CONNECT {self.authority} HTTP/1.1\r\nHost: {self.authority}\r\n{self._login()}\r\n"
        ).encode()

    def _login(self) -> str:
        if not self.proxy_credentials:
            return ""
        return (
            "Proxy-Authorization: Basic "
            f"{b2a_base64(self.proxy_credentials.encode(), newline=False).decode()}\r\n"
        )


class Connection(Stream):
    """A socket that is opened by its first request and may be used again after a whole response."""

    __slots__ = (
        "_note",
        "_parser",
        "_remember_session",
        "_resolver",
        "_route",
        "_session",
        "idle_since",
        "idle_since_wall",
        "reusable",
    )

    def __init__(
        self,
        route: Route,
        resolver: Resolver,
        clock: Callable[[], float],
        session: ssl.SSLSession | None = None,
        remember_session: Callable[[ssl.SSLSession], None] = lambda _: None,
        note: Callable[[str], None] = lambda _: None,  # told of each step of opening
    ) -> None:
        super().__init__(clock)
        self._note = note
        self._route = route
        self._resolver = resolver
        self._session = session
        self._remember_session = remember_session
        self._parser = ResponseParser()
        self.idle_since = self.idle_since_wall = 0.0
        self.reusable = False

    def close(self) -> None:
        """Close the socket; harmless in a forked child, where it is the parent's."""
        self.reusable = False
        super().close()

    def handle(self, request: Request, common: str, extra: str = "") -> IOSteps[Response]:
        """Return the whole response to one request; raise a TransportError, or an interrupt."""
        self.reusable = False
        try:
            if self._sock is None:
                yield from self._open(request.deadline)
            parser = self._parser
            parser.begin()
            # Nearly all requests fit the socket's buffer, nearly all answers come at once.
            if request.body is None:
                self._unsent = request.head(common, extra)
                is_whole = self._try_send()
            else:
                is_whole = self._send_with_body(request, common, extra)
            content, size = None, 0
            if not is_whole:
                is_whole = yield from self._send_slowly(parser, request.body)
            elif self.pending() or (yield READ):
                data = self._try_receive() or (yield from self._read())
                parser.feed(data)
                content, size = parser.content(), len(data)
            else:
                raise TimedOut(LATE)  # noqa: TRY301 - named below, like the others
            if content is None:
                self._parser = ResponseParser()  # the old one may stay in the middle of an answer
                content = yield from self._receive_rest(parser, size)
            if self._session is None and self._route.tls is not None:
                self._remember(self._sock.session)
        except Exception as broken:
            if is_raised_by_signal_handler(broken):
                raise
            error = _broken(broken)
        else:
            self.reusable = parser.keep_alive and is_whole
            return Response(parser.status, parser.headers, content)
        try:
            raise error  # outside the except block: the error below may show what nobody may see
        finally:
            del error  # or the frame and its error would keep each other, and the connection

    # Opening

    def _open(self, deadline: float) -> IOSteps[None]:
        self.until = self._limit = min(deadline, self.clock() + self._route.connect_timeout)
        note, address = self._note, None
        note("begin")
        try:
            addresses = yield from self._look_up()
            note("lookup")
            address = yield from self._reach(addresses)
            note("connect")
            if self._route.tunnel:
                yield from self._open_tunnel()
                note("tunnel")
            if self._route.tls is not None:
                yield from self._start_tls(self._route.tls, self._route.host, self._session)
                note("tls")
                if not self._sock.session_reused:
                    # The server has forgotten the old session: keep the new one.
                    self._session = None
            self.until = float("inf")
            return
        except (MomentoError, OSError, HttpParserError, HttpParserUpgrade, ValueError) as failure:
            if is_raised_by_signal_handler(failure):
                raise
            error = _not_opened(failure)
        if address is not None:
            self._resolver.avoid(address)
        self.close()
        try:
            raise error
        finally:
            del error

    def _look_up(self) -> IOSteps[Sequence[Address]]:
        while (addresses := self._resolver.addresses()) is None:
            if not (yield LOOK):
                raise ConnectFailed("name resolution took too long", kind="dns")
        return addresses[:_TRIED_ADDRESSES]

    def _reach(self, addresses: Sequence[Address]) -> IOSteps[Address]:
        """Connect to the first address that answers, and return it."""
        # All but the last share half of the time: the last needs it for a handshake, too.
        share = (self._limit - self.clock()) / 2 / max(len(addresses) - 1, 1)
        failure = "no address"
        for count, address in enumerate(addresses, 1):
            self.until = self._limit if count == len(addresses) else self.clock() + share
            failure = yield from self._connect(address)
            if not failure:
                self.until = self._limit
                return address
            self._resolver.avoid(address)
            self.close()
        raise ConnectFailed(f"no connection ({failure})")

    def _open_tunnel(self) -> IOSteps[None]:
        self._unsent = self._route.tunnel_request()
        parser = ResponseParser()
        yield from self._send_slowly(parser, None)
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

    def _send_with_body(self, request: Request, common: str, extra: str) -> bool:
        """Send what can be sent at once and return whether that was all."""
        body = request.body or b""
        if len(body) > _JOIN_LIMIT:
            self._unsent = request.head(common, extra)
            self._try_send()
            return False
        self._unsent = request.head(common, extra) + body
        return self._try_send()

    def _send_slowly(self, parser: ResponseParser, body: Body | None) -> IOSteps[bool]:
        """Send the rest and return True; False when the peer answered or left before the end."""
        heard = 0

        def is_answered(data: bytes) -> bool:
            # A final answer that comes before the request has been sent refuses it.
            nonlocal heard
            heard += len(data)
            parser.feed(data)
            if parser.status == 0 and heard > HEAD_LIMIT:
                raise TransportError("the answer's headers have no end", kind="unusable")
            return parser.status != 0

        if not (yield from self._send_rest(is_answered)):
            return False
        if body is None or len(body) <= _JOIN_LIMIT:
            return True
        self._unsent = memoryview(body)
        return (yield from self._send_rest(is_answered))

    def _receive_rest(self, parser: ResponseParser, head: int) -> IOSteps[Body]:
        """Return the body of a response of which so many bytes have come."""
        while parser.status == 0:
            if head > HEAD_LIMIT:
                raise TransportError("the answer's headers have no end", kind="unusable")
            data = yield from self._read()
            head += len(data)
            parser.feed(data)
        if parser.status != 200:
            return (yield from self._receive_error(parser))
        if not parser.is_framed:
            raise TransportError("an answer without a length cannot be told from a broken one")
        if parser.length is None:
            return (yield from self._receive_chunks(parser))
        return (yield from self._receive_sized(parser, parser.length))

    def _remember(self, session: ssl.SSLSession | None) -> None:
        # A server hands its tickets out after the handshake, so only now is there one to keep.
        self._session = session
        if session is not None:
            self._remember_session(session)

    def _receive_error(self, parser: ResponseParser) -> IOSteps[bytes]:
        """Return what explains a status; where it has no length, as far as it comes."""
        framed = 0
        while not parser.complete and parser.received <= ERROR_BODY_LIMIT and framed <= HEAD_LIMIT:
            try:
                data = yield from self._read()
            except (TransportError, OSError) as end:
                if parser.is_framed or is_raised_by_signal_handler(end):
                    raise
                break
            framed += len(data)
            parser.feed(data)
        parser.keep_alive &= parser.complete
        return b"".join(parser.parts)[:ERROR_BODY_LIMIT]

    def _receive_chunks(self, parser: ResponseParser) -> IOSteps[Body]:
        # Gathered as they come: millions of tiny parts would cost many times what they hold.
        body = bytearray().join(parser.parts)
        framed = 0
        while not parser.complete:
            data = yield from self._read()
            framed += len(data)
            parser.parts.clear()
            parser.feed(data)
            body += b"".join(parser.parts)
            # Framing may take as many bytes as the chunks hold, and a head besides, no more.
            if parser.received > BODY_LIMIT or framed > 2 * parser.received + HEAD_LIMIT:
                raise TransportError("the answer is larger than an item can be", kind="unusable")
        return body

    def _receive_sized(self, parser: ResponseParser, length: int) -> IOSteps[Body]:
        if length > BODY_LIMIT:
            raise TransportError("the answer is larger than an item can be", kind="unusable")
        if parser.complete:
            return b"".join(parser.parts)
        # The length is known, so the rest is read into its place, past the parser.
        body = bytearray(length)
        view = memoryview(body)
        filled = 0
        for part in parser.parts:
            view[filled : filled + len(part)] = part
            filled += len(part)
        while filled < length:
            filled += yield from self._take(self._sock.recv_into, view[filled:])
        return body


def _broken(error: Exception) -> MomentoError:
    """Return what an error below says about a connection that was open."""
    if isinstance(error, MomentoError):
        return error
    if not isinstance(error, OSError | HttpParserError | HttpParserUpgrade | ValueError):
        return TransportError(f"unexpected {type(error).__name__}", kind="internal")
    # A subclass of SSLError says that the peer left, SSLError itself that TLS went wrong.
    kind = "tls" if type(error) is ssl.SSLError else "connection"
    return TransportError(f"the connection broke ({type(error).__name__})", kind=kind)


def _not_opened(error: Exception) -> ConnectFailed:
    """Return what an error below says about a connection that was being opened."""
    if isinstance(error, ConnectFailed):
        return error
    if isinstance(error, TimedOut):
        return ConnectFailed("no connection in time", kind="connect_timeout")
    if isinstance(error, TransportError):
        return ConnectFailed("the proxy left before it opened a tunnel", kind="proxy")
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConnectFailed(f"TLS: {error.verify_message}", kind="tls")
    if isinstance(error, ssl.SSLError):
        return ConnectFailed(f"TLS failed ({type(error).__name__})", kind="tls")
    return ConnectFailed(f"no connection ({type(error).__name__})")
