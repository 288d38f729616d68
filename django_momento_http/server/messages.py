"""What the modules of the server hand each other. Values only: nothing is decided here."""

import time
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(slots=True, eq=False)
class Item:
    """A value that is or was stored, and how many answers are sending it."""

    value: bytes
    expires: float
    size: int  # of what it costs to keep
    is_stored: bool = True
    readers: int = 0


class Answer(NamedTuple):
    """What a request is answered with; ``item`` is where the body is stored, if it is."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    item: Item | None = None


class Delivery(NamedTuple):
    """An answer and how it is delivered."""

    answer: Answer
    delay: float = 0.0
    drop: str | None = None


class Refused(Exception):
    """Ends the reading of a request with an answer."""

    def __init__(self, status: int, text: str, *headers: tuple[str, str]) -> None:
        super().__init__(text)
        self.answer = Answer(status, text.encode(), (("Content-Type", "text/plain"), *headers))


@dataclass(slots=True)
class PartialRequest:
    """One request, as far as it has been read."""

    method: str
    path: bytes = b""
    cache: str = ""
    key: bytes = b""
    ttl_seconds: int | None = None
    refusal: Answer | None = None
    started: float = field(default_factory=time.perf_counter)


class ServedRequest(NamedTuple):
    """A request as it was served; ``status`` is 0 where the connection was dropped instead.

    ``size`` counts the bytes of the value that travelled, ``path`` has no query, and ``seconds``
    includes what the answer was held back.
    """

    method: str
    cache: str
    key: bytes
    ttl_seconds: int | None
    status: int
    size: int
    path: str = ""
    seconds: float = 0.0
