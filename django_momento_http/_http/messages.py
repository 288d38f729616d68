"""HTTP/1.1 messages: a request as it is written, a response as its bytes arrive, and their limits.

Parsing is httptools' business; this gathers what its callbacks say. It knows nothing of sockets or
of what a status means.
"""

import sys

from httptools import HttpParserCallbackError, HttpParserError, HttpResponseParser

from ..exceptions import MomentoError, TimedOut, TransportError

Body = bytes | bytearray

# An item is at most 5 MB with its key (service-facts, Limits); a little more, so that a limit that
# counts otherwise does not turn a stored value into an error.
BODY_LIMIT = 5 * 1024 * 1024 + 64 * 1024
ERROR_BODY_LIMIT = 1024
HEAD_LIMIT = 64 * 1024
_FRAMING = {b"content-length", b"transfer-encoding"}


class Request:
    """One request: what to send, and until when.

    ``deadline`` ends it in any case; ``request_timeout`` is how many seconds it may take once it
    has a connection. ``fresh`` asks for a connection that was not used before.

    The transport says when: ``queued`` it had to wait for a connection, 0.0 if it had not to, and
    ``began`` it had one, 0.0 if it got none. Only what came then was time of the service's.
    """

    __slots__ = (
        "authorization",
        "began",
        "body",
        "deadline",
        "fresh",
        "method",
        "queued",
        "request_timeout",
        "target",
    )

    def __init__(
        self,
        method: str,
        target: str,
        body: Body | None,
        deadline: float,
        request_timeout: float,
    ) -> None:
        self.method = method
        self.target = target
        self.authorization = ""
        self.body = body
        self.deadline = deadline
        self.request_timeout = request_timeout
        self.fresh = False
        self.queued = self.began = 0.0

    def postpone(self, seconds: float) -> None:
        """Take these seconds as not passed."""
        self.deadline += seconds
        if self.queued:
            self.queued += seconds
        if self.began:
            self.began += seconds

    def head(self, common: str, extra: str = "") -> bytes:
        """Return the request line and headers as they go on the wire."""
        length = "" if self.body is None else _body_headers(len(self.body))
        return (
            f"{self.method} {self.target} HTTP/1.1\r\n{common}"
            f"Authorization: {self.authorization}\r\n{length}{extra}\r\n"
        ).encode("latin-1")

    def judge(self, error: MomentoError, now: float) -> MomentoError:
        """Return the error, named for what it is where time ran out that a connection had cost."""
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


class ResponseParser:
    """httptools' callbacks, and what they have gathered of one response."""

    __slots__ = (
        "_http",
        "complete",
        "has_second",
        "headers",
        "keep_alive",
        "parts",
        "received",
        "status",
    )

    def __init__(self) -> None:
        self._http = HttpResponseParser(self)
        self.keep_alive = False
        self.has_second = False
        self.begin()

    def begin(self) -> None:
        """Make ready for the next response of a connection, of which the last was whole."""
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.parts: list[bytes] = []
        self.received = 0
        self.complete = False

    def feed(self, data: bytes) -> None:
        """Read the next piece; raise what httptools raises, or what interrupted it."""
        try:
            self._http.feed_data(data)
        except HttpParserError as error:
            if self._is_body_of_none(data):
                self.keep_alive = False
                return
            if not isinstance(error, HttpParserCallbackError) or self.has_second:
                raise
            interrupt = error.__context__
        else:
            return
        # A callback below raised nothing of its own. What came from outside is the context, but
        # where an exception is being handled, when Python puts that in its place.
        try:
            if interrupt is not None and interrupt is not sys.exception():
                raise interrupt
        finally:
            del interrupt  # or this frame and the interrupt would keep each other
        raise TransportError("an answer could not be read", kind="internal")

    def _is_body_of_none(self, data: bytes) -> bool:
        """Whether the data goes on behind a whole 204, and not with another answer."""
        if not self.complete or self.status != 204:
            return False
        _, end, rest = data.partition(b"\r\n\r\n")
        return bool(end) and not b"HTTP/".startswith(rest[:5])

    def on_message_begin(self) -> None:
        if self.complete:
            self.has_second = True
            raise ValueError("a second answer to one request: whose it is cannot be known")

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers are not for us. The first of two counts: a later "chunked" hides no coding.
        if self.status == 0:
            self.headers.setdefault(name.lower(), value)

    def on_headers_complete(self) -> None:
        status = self._http.get_status_code()
        if status >= 200:
            self.status = status
            self.keep_alive = self._http.should_keep_alive()
            if status == 204 and self.headers.keys() & _FRAMING and self.length != 0:
                # The body that it announces would be taken for the next answer.
                self.keep_alive = False
        else:
            self.headers = {}

    def on_body(self, data: bytes) -> None:
        self.parts.append(data)
        self.received += len(data)

    def on_message_complete(self) -> None:
        self.complete = self.status != 0
        if not self.complete:
            self.parts, self.received = [], 0

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


def _body_headers(length: int) -> str:
    return f"Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n"
