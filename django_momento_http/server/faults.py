"""Faults on demand: which requests misbehave next, and how. It does not carry them out."""

from dataclasses import dataclass
from typing import Literal

from .messages import PartialRequest


@dataclass(frozen=True)
class Fault:
    """How the next matching requests misbehave.

    With a ``status`` that answer is given and nothing is done (``applied``: done all the same).
    Without one the true answer is given: late, with ``headers`` added, or cut off. ``drop`` closes
    the connection ``"before"`` anything is done, ``"after"`` it is done and before a byte is sent,
    in the middle of the ``"headers"``, or in the ``"body"``, one byte short of its Content-Length
    (an answer that has no body is cut in its headers).
    """

    status: int | None = None
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    delay: float = 0.0
    drop: Literal["before", "after", "headers", "body"] | None = None
    times: int | None = 1
    method: str | None = None
    key: bytes | None = None
    applied: bool = False

    def __post_init__(self) -> None:
        """Refuse a body that would never be sent."""
        if self.body and self.status is None:
            raise ValueError("a fault with a body needs a status")


class Faults:
    """The faults that wait for their requests, in the order in which they were injected."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Fault, int | None]] = []

    def add(self, fault: Fault) -> None:
        """Let the fault wait for its requests."""
        self._waiting.append((fault, fault.times))

    def clear(self) -> None:
        """Forget all of them."""
        self._waiting.clear()

    def take(self, request: PartialRequest) -> Fault | None:
        """Return the first fault for this request and count it down."""
        for index, (fault, times) in enumerate(self._waiting):
            if fault.method not in (None, request.method) or fault.key not in (None, request.key):
                continue
            if times == 1:
                del self._waiting[index]
            elif times is not None:
                self._waiting[index] = (fault, times - 1)
            return fault
        return None
