"""One HTTP request as the transport takes it, and what may come of it.

It knows how a request is written, and nothing of sockets or of what a status means.
"""

from .exceptions import MomentoError
from .replies import Body, Reply

Answer = Reply | MomentoError


class Call:
    """One request: what to send, and until when.

    ``deadline`` ends it in any case; ``patience`` is how many seconds it may take once it has a
    connection. ``fresh`` asks for a connection that was not used before.
    """

    __slots__ = ("authorization", "body", "deadline", "fresh", "method", "patience", "target")

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

    def postpone(self, seconds: float) -> None:
        """Take these seconds as not passed."""
        self.deadline += seconds

    def head(self, common: str, extra: str = "") -> bytes:
        """Return the request line and headers as they go on the wire."""
        length = "" if self.body is None else _body_headers(len(self.body))
        return (
            f"{self.method} {self.target} HTTP/1.1\r\n{common}"
            f"Authorization: {self.authorization}\r\n{length}{extra}\r\n"
        ).encode("latin-1")


def _body_headers(length: int) -> str:
    return f"Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n"
