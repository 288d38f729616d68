"""Reading requests: where each one begins and ends, and what matters of its head.

It answers nothing and knows no socket.
"""

from dataclasses import dataclass
from typing import Protocol

import httptools

# Enough for any key that Django makes; more than common load balancers accept.
MAX_HEAD = 64 * 1024
# For what stands between the pieces of a body: extensions of chunks, trailers.
_MAX_BETWEEN = 8 * 1024


class Malformed(Exception):
    """What arrives is not HTTP; nothing behind it can be read."""


@dataclass(slots=True)
class Head:
    """What matters of a request's head."""

    method: str = ""
    target: bytes = b""
    host: bytes = b""
    token: bytes = b""
    length: int = 0
    is_chunked: bool = False
    expects: bool = False  # the body is sent only when it is asked for
    is_of_a_page: bool = False
    is_malformed: bool = False


class Handler(Protocol):
    """Who is told of requests."""

    def begin(self, head: Head) -> None:
        """Take note of a request; its body follows."""

    def take(self, data: bytes) -> None:
        """Take a piece of the body."""

    def finish(self, *, keep_alive: bool) -> None:
        """Take note of the request's end."""


class Reader:
    """httptools' callbacks, fed in steps none of which goes beyond the end of a request.

    So a request is handled before anything of the next has been looked at.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._parser = httptools.HttpRequestParser(self)
        self._head = Head()
        self._since_progress = 0  # bytes since the parser last got anywhere
        self._is_in_head = False
        self.is_between = True  # no byte of the next request has come
        self.body_left = 0  # of a body whose length is known

    @property
    def head_size(self) -> int:
        """How much of a head has come that is not whole yet."""
        return self._since_progress if self._is_in_head else 0

    def step(self, data: bytes | bytearray, start: int, end: int) -> int:
        """Feed the parser some of the data and return where that ended."""
        stop = self._stop(data, start, end)
        self._since_progress += stop - start
        try:
            self._parser.feed_data(memoryview(data)[start:stop])
        except httptools.HttpParserCallbackError:
            raise  # a mistake of ours: asyncio reports it and closes this connection
        except httptools.HttpParserUpgrade:
            return end
        except httptools.HttpParserError:
            raise Malformed from None
        if self._since_progress > (MAX_HEAD if self._is_in_head else _MAX_BETWEEN):
            raise Malformed
        return stop

    def _stop(self, data: bytes | bytearray, start: int, end: int) -> int:
        if self.body_left:
            return min(end, start + self.body_left)
        if self.is_between:
            found = data.find(b"\r\n\r\n", start, end)
            if found >= 0:
                return found + 4
        # A head that came in pieces, or chunks: both end with a line.
        return data.find(b"\n", start, end) + 1 or end

    # Called by the parser.

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._head = Head()
        self._is_in_head = True
        self.is_between = False

    def on_url(self, url: bytes) -> None:
        """Collect the target, which may come in pieces."""
        self._head.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note the headers that matter; trailers do not."""
        if not self._is_in_head:
            return
        head, name = self._head, name.lower()
        if name == b"host":
            head.is_malformed = bool(head.host)
            head.host = value
        elif name == b"authorization":
            head.token = value
        elif name == b"content-length":
            head.length = int(value)
        elif name == b"transfer-encoding":
            head.is_chunked = True
        elif name == b"expect":
            head.expects = value.lower() == b"100-continue"
        elif name == b"origin" or (name == b"sec-fetch-site" and value != b"none"):
            head.is_of_a_page = True

    def on_headers_complete(self) -> None:
        """Hand the head over."""
        head = self._head
        head.method = self._parser.get_method().decode()
        if not head.host and self._parser.get_http_version() == "1.1":
            head.is_malformed = True
        self._since_progress = 0
        self._is_in_head = False
        self.body_left = head.length
        self._head = Head()
        self._handler.begin(head)

    def on_body(self, data: bytes) -> None:
        """Hand a piece of the body over."""
        self._since_progress = 0
        self.body_left = max(0, self.body_left - len(data))
        self._handler.take(data)

    def on_message_complete(self) -> None:
        """Say that the request is whole."""
        self._since_progress = 0
        self.is_between = True
        # An upgrade is answered as if it had not been asked for; what follows may be no HTTP.
        parser = self._parser
        self._handler.finish(keep_alive=parser.should_keep_alive() and not parser.should_upgrade())
