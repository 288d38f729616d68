"""What `requests` and its instrumentation need: a session, and what they see of a request.

A single request passes through ``Session.send`` where that is instrumented, so that instrumentation
sees it and the headers that it adds go on the wire. It knows nothing of sockets: who sends is
handed in.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.structures import CaseInsensitiveDict

from ..exceptions import MomentoError
from .messages import Request, Response

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
    from requests import Session as Session
else:
    # Another class may have been put in its place, such as requests-cache's, which is no use here.
    Session = next(
        (one for one in requests.Session.__mro__ if one.__module__ == "requests.sessions"),
        requests.Session,
    )


def _send_of_requests() -> Any:
    """Return ``Session.send`` as requests defines it, None where it was replaced before us."""
    send = Session.__dict__.get("send")
    # Wrappers have globals of their own, or only look like a function.
    is_own = type(send) is FunctionType and send.__globals__ is vars(requests.sessions)
    return send if is_own else None


# As long as this is in place nobody looks on, and a seventh of a get's CPU is saved: 3 us.
PLAIN_SEND = _send_of_requests()


class SeenRequest(requests.PreparedRequest):
    """What instrumentation of `requests` sees: neither token nor key nor value."""

    # What a request of the base class has, without what it takes to make it.
    method = url = body = _cookies = _body_position = None
    hooks: Any = {"response": []}  # noqa: RUF012 - never written to
    added: Any = None
    # Whether what passes through instrumentation came from below it, and is no error of ours.
    is_interrupted = False

    def __init__(self, request: Request, endpoint: str) -> None:
        self.method = request.method
        self.url = endpoint + request.target.partition("?")[0]
        self.request = request

    @property
    def headers(self) -> Any:
        """What instrumentation adds to the headers, made when it first asks."""
        if self.added is None:
            self.added = CaseInsensitiveDict()
        return self.added

    @headers.setter
    def headers(self, headers: Any) -> None:
        self.added = headers


class _SeenResponse(requests.Response):
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

    def __init__(self, request: SeenRequest, response: Response) -> None:
        # The base class would make a cookie jar, which nobody needs here.
        self.request = request
        self.url = request.url or ""
        self.status_code = response.status
        self.raw = response


class _Adapter(HTTPAdapter):
    """requests' adapter, with the work done by whom it is given.

    Certificates, proxies and timeouts are the transport's; what is passed for them is not used.
    """

    def __init__(self, send: Callable[[Request, str], Response]) -> None:
        super().__init__()
        self._send = send

    def send(self, request: Any, *_: Any, **__: Any) -> requests.Response:
        extra = _render(request.added) if request.added else ""
        try:
            response = self._send(request.request, extra)
        except MomentoError:
            raise
        except BaseException:
            request.is_interrupted = True
            raise
        return _SeenResponse(request, response)


class InstrumentedSession(Session):
    """A session that always speaks to one adapter and never redirects."""

    def __init__(self, send: Callable[[Request, str], Response]) -> None:
        super().__init__()
        self.trust_env = False
        self._adapter = _Adapter(send)

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
