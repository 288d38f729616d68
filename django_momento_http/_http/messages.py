"""HTTP/1.1 messages: a request as it is written, a response as its bytes arrive, and their limits.

Parsing is httptools' business; this gathers what its callbacks say. It knows nothing of sockets or
of what a status means.
"""

from functools import partial
from types import SimpleNamespace
from typing import Any

from httptools import HttpParserError, HttpResponseParser

from ..exceptions import MomentoError, TimedOut
from .hedging import Hedging

Body = bytes | bytearray

# An item is at most 5 MB with its key (Momento's limits page); a little more, so that a limit that
# is counted otherwise turns no stored value into an error.
BODY_LIMIT = 5 * 1024 * 1024 + 64 * 1024
ERROR_BODY_LIMIT = 1024
HEAD_LIMIT = 64 * 1024
_BODY_HEADERS = "Content-Type: application/octet-stream\r\nContent-Length: "
_FRAMING = {b"content-length", b"transfer-encoding"}
# What a parser tells, besides heads and pieces of a body.
_BEGIN, _COMPLETE = "a message begins", "it is complete"
_NEVER = object()


class Request:
    """One request: what to send, and until when.

    ``deadline`` ends it in any case; ``request_timeout`` is how many seconds it may take once it
    has a connection. ``fresh`` asks for a connection that was not used before.

    The transport notes when the request began to wait for a connection (``queued``, 0.0 if it had
    not to) and when it had one (``began``, 0.0 if it got none). Only the time since then is the
    service's.

    With ``hedging`` it is asked for again when its answer is silent for too long; ``hedges`` is
    what came of that. It was sent ``resends`` times before, after a failure.
    """

    __slots__ = (
        "authorization",
        "began",
        "body",
        "deadline",
        "fresh",
        "hedges",
        "hedging",
        "method",
        "queued",
        "request_timeout",
        "resends",
        "target",
    )

    def __init__(
        self,
        method: str,
        target: str,
        body: Body | None,
        deadline: float,
        request_timeout: float,
        hedging: Hedging | None = None,
    ) -> None:
        self.method = method
        self.target = target
        self.authorization = ""
        self.body = body
        self.deadline = deadline
        self.request_timeout = request_timeout
        self.fresh = False
        self.queued = self.began = 0.0
        self.hedging = hedging
        self.hedges: Hedges | None = None
        self.resends = 0

    @property
    def requests(self) -> int:
        """How many requests it has made, with the one under way."""
        return self.resends + (1 if self.hedges is None else 1 + self.hedges.count)

    def postpone(self, seconds: float) -> None:
        """Take these seconds as not passed."""
        self.deadline += seconds
        if self.queued:
            self.queued += seconds
        if self.began:
            self.began += seconds

    def head(self, common: str, extra: str = "") -> bytes:
        """Return the request line and headers as they go on the wire."""
        length = "" if self.body is None else f"{_BODY_HEADERS}{len(self.body)}\r\n"
        return (
            f"{self.method} {self.target} HTTP/1.1\r\n{common}"
            f"Authorization: {self.authorization}\r\n{length}{extra}\r\n"
        ).encode("latin-1")

    def judge(self, error: MomentoError, now: float) -> MomentoError:
        """Return the error, or another where waiting for a connection has used up the time."""
        # It waited for a connection longer than it had left for the service.
        if self.queued and now >= self.deadline <= 2 * self.began - self.queued:
            return TimedOut("a connection came too late", kind="pool_timeout")
        return error


class Response:
    """A whole answer; ``body`` of an error is cut at 1 KiB."""

    # What tracing of `requests` asks of a raw response.
    version = 11
    reason = ""
    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: dict[bytes, bytes], body: Body) -> None:
        self.status = status
        self.headers = headers
        self.body = body


Result = Response | MomentoError


class Hedges:
    """The further requests of one GET; ``lost`` are whole answers that did not count."""

    __slots__ = ("count", "has_won", "lost")

    def __init__(self) -> None:
        self.count = 0
        self.has_won = False
        self.lost: list[Response] = []


class ResponseParser:
    """What httptools' callbacks have told of one response."""

    __slots__ = (
        "_events",
        "_fields",
        "_http",
        "complete",
        "headers",
        "keep_alive",
        "parts",
        "received",
        "status",
    )

    def __init__(self) -> None:
        self._events: list[Any] = []
        self._fields: dict[bytes, bytes] = {}
        self._http = HttpResponseParser.__new__(HttpResponseParser)
        heard = _callbacks(self._http, self._events, self._fields)
        self._http.__init__(heard)  # type: ignore[misc]
        self.keep_alive = False
        self.begin()

    def begin(self) -> None:
        """Make ready for the next response of a connection, of which the last was whole."""
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.parts: list[bytes] = []
        self.received = 0
        self.complete = False

    def feed(self, data: bytes) -> None:
        """Read the next piece; raise what httptools raises."""
        try:
            self._http.feed_data(data)
            has_second = self._heed()
        except HttpParserError:
            self._heed()
            if not self._is_body_of_none(data):
                raise
            self.keep_alive = False
            return
        if self.status:
            self._fields.clear()  # trailers are not for us, however many there are
        if has_second:
            if not self._is_body_of_none(data):
                raise HttpParserError("a second answer to one request: whose it is is unknown")
            self.keep_alive = False

    def _heed(self) -> bool:
        """Take in what was told; return whether something began after the end, and stop there."""
        for event in self._events:
            kind = type(event)
            if kind is bytes:
                self.parts.append(event)
                self.received += len(event)
            elif kind is tuple:
                status, keep_alive, fields = event
                if status >= 200:
                    self.status, self.keep_alive = status, keep_alive
                    for name, value in fields.items():
                        # The first of two counts: no later "chunked" hides a coding.
                        self.headers.setdefault(name.lower(), value)
                    if status == 204 and self.headers.keys() & _FRAMING and self.length != 0:
                        # The body that it announces would be taken for the next answer.
                        self.keep_alive = False
            elif event is _COMPLETE:
                if self.status:
                    self.complete = True
                else:
                    self.parts, self.received = [], 0
            elif self.complete:
                return True
        self._events.clear()
        return False

    def _is_body_of_none(self, data: bytes) -> bool:
        """Whether the data goes on behind a whole 204, and not with another answer."""
        if not self.complete or self.status != 204:
            return False
        _, end, rest = data.partition(b"\r\n\r\n")
        return bool(end) and not b"HTTP/".startswith(rest[:5])

    def content(self) -> Body | None:
        """Return the body if nothing more is to come of a plain response, None otherwise."""
        if not self.complete or b"transfer-encoding" in self.headers:
            return None
        if self.status != 200 and self.received > ERROR_BODY_LIMIT:
            return None
        return self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)

    @property
    def length(self) -> int | None:
        """The body's length; None when it comes in chunks."""
        if b"transfer-encoding" in self.headers:
            return None
        return int(self.headers.get(b"content-length", b"0"))

    @property
    def is_framed(self) -> bool:
        """Whether the end of the body can be told from a broken connection."""
        if self.status in (204, 304):
            return True
        coding = self.headers.get(b"transfer-encoding")
        if coding is not None:
            return coding.strip().lower() == b"chunked"
        return b"content-length" in self.headers


def _callbacks(
    http: HttpResponseParser, events: list[Any], fields: dict[bytes, bytes]
) -> SimpleNamespace:
    """Return what notes down what a parser says, in order; of a head: its status, whether the
    connection is to be kept, and the fields.

    It is C code throughout, within which no signal handler runs. What one raises inside of a
    callback of Python's, httptools hands on as the context of its own error; and where the caller
    is handling an exception, Python puts that in its place.
    """
    note = events.append
    # Each ``next`` calls all that are zipped.
    begin = zip(iter(fields.clear, _NEVER), iter(partial(note, _BEGIN), _NEVER), strict=False)
    asked = (http.get_status_code, http.should_keep_alive, fields.copy)
    head = map(note, zip(*(iter(ask, _NEVER) for ask in asked), strict=False))
    return SimpleNamespace(
        on_message_begin=partial(next, begin),
        on_header=fields.setdefault,
        on_headers_complete=partial(next, head),
        on_body=note,
        on_message_complete=partial(note, _COMPLETE),
    )
