"""One HTTP request as the transport takes it, and what may come of it.

It knows how a request is written, and nothing of sockets or of what a status means.
"""

from .exceptions import MomentoError, TimedOut
from .replies import Body, Reply

Answer = Reply | MomentoError


class Call:
    """One request: what to send, and until when.

    ``deadline`` ends it in any case; ``patience`` is how many seconds it may take once it has a
    connection. ``fresh`` asks for a connection that was not used before.

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
        "patience",
        "queued",
        "target",
    )

    def __init__(
        self,
        method: str,
        target: str,
        body: Body | None,
        deadline: float,
        patience: float,
    ) -> None:
        self.method = method
        self.target = target
        self.authorization = ""
        self.body = body
        self.deadline = deadline
        self.patience = patience
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


def _body_headers(length: int) -> str:
    return f"Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n"
