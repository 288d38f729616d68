"""Bytes over HTTP to one origin: one request through ``requests``, or many under way at once.

Single requests pass through ``Session.send``, so that instrumentation of `requests` sees them and
the headers that it adds go on the wire; everything below is sockets of our own, which gives true
deadlines and costs far less. What went wrong is returned, not raised. It knows nothing of caches,
breakers or what a status means.
"""

import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote, urlsplit

import requests
from requests import PreparedRequest, Response
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from . import __version__
from .calls import Answer, Call
from .connection import Connection, Route
from .exceptions import MomentoError, TransportError
from .fan import Fan
from .interrupts import is_raised_by_signal_handler
from .pool import Pool
from .replies import Reply
from .resolver import Resolver

# Instrumentation may add headers, never these.
_OUR_HEADERS = frozenset(
    {
        "accept-encoding",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "host",
        "transfer-encoding",
        "user-agent",
    }
)
# RFC 9110, 5.6.2: a token.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

if TYPE_CHECKING:
    from requests import Session
else:
    # Another class may have been put in its place, such as requests-cache's, which is no use here.
    Session = next(
        (one for one in requests.Session.__mro__ if one.__module__ == "requests.sessions"),
        requests.Session,
    )


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

    def __init__(self, origin: Origin, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._route = _route(origin)
        # Only the origin: a path holds the key, and instrumentation records URLs.
        self._url = origin.endpoint
        self._common = (
            f"Host: {urlsplit(origin.endpoint).netloc}\r\n"
            f"User-Agent: django-momento-http/{__version__}\r\nAccept-Encoding: identity\r\n"
        )
        self._session = _Session(_Adapter(self))
        self._resolver = Resolver(*_first_hop(origin), clock)
        self._tls_session: ssl.SSLSession | None = None
        self._limit = origin.max_connections
        self.pool = Pool(self._connection, origin.max_connections, clock)

    def close(self) -> None:
        """Close all connections."""
        self.pool.close()
        self._session.close()

    def exchange(self, call: Call) -> Answer:
        """Send one request through ``Session.send`` and return its reply, or what went wrong."""
        request = _Prepared(call, self._url)
        try:
            response = self._session.send(request, proxies={}, stream=True)
        except MomentoError as error:
            return call.judge(error.with_traceback(None), self._clock())
        except Exception as error:
            if request.is_interrupted or is_raised_by_signal_handler(error):
                raise
            # Instrumentation may raise anything.
            return TransportError(f"unexpected {type(error).__name__}", kind="internal")
        reply: Reply = response.raw  # type: ignore[assignment]  # our adapter puts it there
        return reply

    def exchange_one(self, call: Call, extra: str = "") -> Reply:
        """Send one request, with these header lines too; raise a TransportError."""
        pool, clock, deadline = self.pool, self._clock, call.deadline
        connection = pool.take_now(call.fresh) or self._wait_for_one(call)
        steps = connection.request(call, self._common, extra)
        try:
            call.began = clock()
            wanted = next(steps)
            while True:
                left = min(deadline, connection.until) - clock()
                # When time is up, a last look: this process may have slept, not the service.
                wanted = steps.send(connection.wait(wanted, left if left > 0 else 0.0))
        except StopIteration as done:
            reply: Reply = done.value
            return reply
        except BaseException:
            # Not left to its finalizer, where what a signal handler raises is lost.
            steps.close()
            raise
        finally:
            reusable = connection.reusable
            pool.put_back(connection)
            pool.tidy(connection, reusable=reusable)

    def _wait_for_one(self, call: Call) -> Connection:
        call.queued = self._clock()
        return self.pool.wait(call.deadline, fresh=call.fresh)

    def exchange_many(
        self, next_call: Callable[[], Call | None]
    ) -> Iterator[list[tuple[Call, Answer]]]:
        """Send what ``next_call`` gives, many at once, and yield the answers as they come.

        ``next_call`` returns None when there is nothing to send now; it is asked again after every
        list of answers, so a caller may put further requests under way.
        """
        return self.fan(next_call).answers()

    def fan(self, next_call: Callable[[], Call | None]) -> Fan:
        """Return what ``exchange_many`` runs, for a caller whose own code takes long."""
        return Fan(self.pool, next_call, self._common, self._limit, self._clock)

    def _connection(self) -> Connection:
        return Connection(self._route, self._resolver, self._clock, self._tls_session, self._keep)

    def _keep(self, session: ssl.SSLSession) -> None:
        self._tls_session = session


class _Prepared(PreparedRequest):
    """What instrumentation of `requests` sees: neither token nor key nor value."""

    # What a request of the base class has, without what it takes to make it.
    method = url = body = _cookies = _body_position = None
    hooks: Any = {"response": []}  # noqa: RUF012 - never written to
    added: Any = None
    # Whether what passes through instrumentation came from below it, and is no error of ours.
    is_interrupted = False

    def __init__(self, call: Call, endpoint: str) -> None:
        self.method = call.method
        self.url = endpoint + call.target.partition("?")[0]
        self.call = call

    @property
    def headers(self) -> Any:
        """What instrumentation adds to the headers, made when it first asks."""
        if self.added is None:
            self.added = CaseInsensitiveDict()
        return self.added

    @headers.setter
    def headers(self, headers: Any) -> None:
        self.added = headers


class _Response(Response):
    """The least that ``Session.send`` and instrumentation ask of a response."""

    url = ""
    status_code = 0
    raw: Any = None
    is_redirect = False
    reason = ""
    encoding = None
    headers = CaseInsensitiveDict()
    history: Any = ()
    _content = b""
    _content_consumed = True

    def __init__(self, request: PreparedRequest, reply: Reply) -> None:
        # The base class would make a cookie jar, which nobody needs here.
        self.request = request
        self.url = request.url or ""
        self.status_code = reply.status
        self.raw = reply


class _Adapter(HTTPAdapter):
    """requests' adapter with the wire work done by a transport.

    Certificates, proxies and timeouts are the transport's; what is passed for them is not used.
    """

    def __init__(self, transport: Transport) -> None:
        super().__init__()
        self._transport = transport

    def send(self, request: Any, *_: Any, **__: Any) -> Response:
        extra = _render(request.added) if request.added else ""
        try:
            reply = self._transport.exchange_one(request.call, extra)
        except MomentoError:
            raise
        except BaseException:
            request.is_interrupted = True
            raise
        return _Response(request, reply)


class _Session(Session):
    """A session that always speaks to one adapter and never redirects."""

    def __init__(self, adapter: BaseAdapter) -> None:
        super().__init__()
        self.trust_env = False
        self._adapter = adapter

    def get_adapter(self, *_: Any, **__: Any) -> BaseAdapter:
        return self._adapter

    def resolve_redirects(self, *_: Any, **__: Any) -> Iterator[Any]:
        return iter(())


def _render(headers: Mapping[str, str]) -> str:
    """Return added headers as they go on the wire, without those that could change the request."""
    return "".join(
        f"{name}: {value}\r\n"
        for name, value in headers.items()
        if isinstance(name, str)
        and isinstance(value, str)
        and _HEADER_NAME.fullmatch(name)
        and name.lower() not in _OUR_HEADERS
        and value.isascii()
        and value.isprintable()
    )


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
