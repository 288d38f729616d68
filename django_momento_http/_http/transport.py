"""Bytes over HTTP to one origin: one request at a time, or many under way at once.

All is sockets of our own, which gives true deadlines and costs far less than any client library.
What went wrong is returned, not raised. It knows nothing of caches, breakers or what a status
means.
"""

import ssl
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from .. import __version__
from .._interrupts import is_raised_by_signal_handler
from ..exceptions import MomentoError, TransportError
from .connection import Connection, Route
from .hedging import DECISIVE, Hedging
from .messages import Request, Response, Result
from .multiplexer import Multiplexer
from .polling import READ
from .pool import Pool
from .race import NEVER, Exchange
from .requests_adapter import PLAIN_SEND, InstrumentedSession, SeenRequest, Session
from .resolver import Resolver
from .stream import IOSteps


@dataclass(frozen=True)
class Origin:
    """Where a transport connects to, and how."""

    endpoint: str
    connect_timeout: float
    max_connections: int
    proxy: str | None = field(default=None, repr=False)
    ca_bundle: str | None = None


class Transport:
    """The way to one origin, shared by a process's threads."""

    def __init__(
        self,
        origin: Origin,
        clock: Callable[[], float] = time.monotonic,
        note: Callable[[str], None] | None = None,
    ) -> None:
        """With ``note``, it is told how connections open, and none resumes a TLS session."""
        self._clock = clock
        self._note = note
        self._route = _route(origin)
        # Only the origin: a path holds the key, and instrumentation records URLs.
        self._url = origin.endpoint
        self._common = (
            f"Host: {urlsplit(origin.endpoint).netloc}\r\n"
            f"User-Agent: django-momento-http/{__version__}\r\nAccept-Encoding: identity\r\n"
        )
        self._session = InstrumentedSession(self.exchange_one)
        self._resolver = Resolver(*_first_hop(origin), clock)
        self._tls_session: ssl.SSLSession | None = None
        self._limit = origin.max_connections
        self.pool = Pool(self._connection, origin.max_connections, clock)

    def close(self) -> None:
        """Close all connections."""
        self.pool.close()
        self._session.close()

    def exchange(self, request: Request) -> Result:
        """Send one request, seen by who instruments requests; return its response, or its error."""
        if Session.send is not PLAIN_SEND:
            return self._exchange_seen(request)
        try:
            return self.exchange_one(request)
        except MomentoError as error:
            return request.judge(error.with_traceback(None), self._clock())

    def _exchange_seen(self, request: Request) -> Result:
        """Do so through ``Session.send``."""
        seen = SeenRequest(request, self._url)
        try:
            response = self._session.send(seen, proxies={}, stream=True)
        except MomentoError as error:
            return request.judge(error.with_traceback(None), self._clock())
        except Exception as error:
            if seen.is_interrupted or is_raised_by_signal_handler(error):
                raise
            # Instrumentation may raise anything.
            return TransportError(f"unexpected {type(error).__name__}", kind="internal")
        answered: Response = response.raw  # type: ignore[assignment]  # our adapter puts it there
        return answered

    def exchange_one(self, request: Request, extra: str = "") -> Response:
        """Send one request, with these header lines too; raise a TransportError."""
        pool, clock, deadline, hedging = self.pool, self._clock, request.deadline, request.hedging
        connection = pool.take_now(request.fresh) or self._wait_for_one(request)
        steps = connection.handle(request, self._common, extra)
        try:
            request.began = clock()
            wanted = next(steps)
            while True:
                if hedging is not None and wanted == READ and connection.until == NEVER:
                    return self._listen(request, hedging, connection, steps, extra)
                left = min(deadline, connection.until) - clock()
                # When time is up, a last look: this process may have slept, not the service.
                wanted = steps.send(connection.wait(wanted, left if left > 0 else 0.0))
        except StopIteration as done:
            response: Response = done.value
            return response
        except BaseException:
            # Not left to its finalizer, where what a signal handler raises is lost.
            steps.close()
            raise
        finally:
            reusable = connection.reusable
            pool.put_back(connection)
            pool.tidy(connection, reusable=reusable)

    def _listen(
        self,
        request: Request,
        hedging: Hedging,
        connection: Connection,
        steps: IOSteps[Response],
        extra: str,
    ) -> Response:
        """Return the answer to what was sent, or to what is asked again when that is silent."""
        clock, deadline, longest = self._clock, request.deadline, 0.0
        heard_at = clock()
        try:
            while True:
                until = due = hedging.due_at(heard_at, 1 + request.resends)
                if due > deadline:
                    until = deadline
                ready = connection.wait(READ, until - heard_at if until > heard_at else 0.0)
                if not ready and due < deadline:
                    break
                steps.send(ready)
                now = clock()
                longest, heard_at = max(longest, now - heard_at), now
        except StopIteration as done:
            response: Response = done.value
            if response.status in DECISIVE:
                silence = clock() - heard_at
                if longest > silence:
                    silence = longest
                hedging.silence.record(silence)
            return response
        silent = Exchange.of(request, connection, steps, heard_at, longest)
        return self._ask_again(silent, extra)

    def _ask_again(self, silent: Exchange, extra: str) -> Response:
        """Hand an exchange that is under way to where others may race it."""
        common = self._common + extra
        multiplexer = Multiplexer(self.pool, _nothing, common, self._limit, self._clock)
        multiplexer.adopt(silent)
        # Not left to its finalizer, where what a signal handler raises is lost.
        with closing(multiplexer.results()) as lists:
            [[(_, result)]] = lists
        if isinstance(result, Response):
            return result
        try:
            raise result
        finally:
            del result  # or this frame and the error would keep each other, and the connection

    def _wait_for_one(self, request: Request) -> Connection:
        request.queued = self._clock()
        return self.pool.wait(request.deadline, fresh=request.fresh)

    def multiplexer(
        self, next_request: Callable[[], Request | None], waiting: Callable[[], int] = lambda: -1
    ) -> Multiplexer:
        """Return what sends many requests at once; its ``results`` come in lists, as they arrive.

        ``next_request`` returns None when there is nothing to send now; it is asked again after
        every list, so a caller may put further requests under way. ``waiting`` says how many there
        are to send, -1 where that is not known.
        """
        return Multiplexer(self.pool, next_request, self._common, self._limit, self._clock, waiting)

    def _connection(self) -> Connection:
        if self._note is not None:
            return Connection(self._route, self._resolver, self._clock, note=self._note)
        return Connection(self._route, self._resolver, self._clock, self._tls_session, self._keep)

    def _keep(self, session: ssl.SSLSession) -> None:
        self._tls_session = session


def _nothing() -> None:
    """Send nothing besides."""


def _port(url: SplitResult) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _first_hop(origin: Origin) -> tuple[str, int]:
    url = urlsplit(origin.proxy or origin.endpoint)
    return url.hostname or "", _port(url)


def _route(origin: Origin) -> Route:
    url = urlsplit(origin.endpoint)
    return Route(
        host=url.hostname or "",
        port=_port(url),
        tls=_tls_context(origin.ca_bundle) if url.scheme == "https" else None,
        connect_timeout=origin.connect_timeout,
        tunnel=origin.proxy is not None,
        proxy_credentials=_login(urlsplit(origin.proxy or "")),
    )


def _login(proxy: SplitResult) -> str:
    login = f"{unquote(proxy.username or '')}:{unquote(proxy.password or '')}"
    return login if login != ":" else ""


def _tls_context(ca_bundle: str | None) -> ssl.SSLContext:
    # Not ssl.create_default_context: it obeys SSLKEYLOGFILE and the environment's trust stores.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A name belongs among the alternative names (RFC 9525); authorities check no other.
    context.hostname_checks_common_name = False
    context.set_alpn_protocols(["http/1.1"])
    context.load_verify_locations(ca_bundle or DEFAULT_CA_BUNDLE_PATH)
    return context
