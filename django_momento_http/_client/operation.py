"""What a cache method asks for: an operation, or several at once, awaited for what came of them.

A plan is a coroutine that awaits these; a ``Runner`` drives it, for a thread or in an event loop,
and there is no I/O in it. So each cache method is written once for sync and async. It knows the
service's three verbs, and nothing of requests.
"""

from collections.abc import Callable, Coroutine, Generator, Iterable
from typing import Any, NamedTuple, TypeVar

from .._http.messages import Body
from .responses import Outcome

T = TypeVar("T")


class Operation(NamedTuple):
    """One get, set or delete; ``key`` as it stands on the wire, ``ttl`` in whole seconds.

    One that ``is_beside`` others stands first in their list, and adds nothing to their time. A get
    that is silent for too long is asked again, unless it ``is_for_write``: a write depends on it.
    One that ``can_wait`` is given up soon, as its answer is of no use yet.
    """

    method: str
    key: str
    body: Body | None = None
    ttl: int = 0
    is_beside: bool = False
    is_for_write: bool = False
    can_wait: bool = False

    @classmethod
    def get(cls, key: str, *, is_for_write: bool = False) -> "Operation":
        """Ask for the bytes under a key."""
        return cls("GET", key, None, 0, False, is_for_write)

    @classmethod
    def set(cls, key: str, body: Body, ttl: int) -> "Operation":
        """Store bytes under a key for ``ttl`` seconds."""
        return cls("PUT", key, body, ttl)

    @classmethod
    def delete(cls, key: str) -> "Operation":
        """Remove a key."""
        return cls("DELETE", key)

    def __await__(self) -> Generator["Operation", Outcome, Outcome]:
        """Have it carried out, and return what came of it."""
        return (yield self)


# An operation, or what makes it when its turn to be sent has come.
Asked = Operation | Callable[[], Operation]
# Which of them, and what came of it.
Outcomes = Iterable[tuple[int, Outcome]]


class Together(list[Asked]):
    """Operations that are to be under way at once."""

    def __await__(self) -> Generator["Together", Outcomes, Outcomes]:
        """Have them carried out, and return (index, outcome) pairs in the order of their ends."""
        return (yield self)


# What is sent in is an Outcome for an Operation, Outcomes for Together.
Plan = Coroutine[Operation | Together, Any, T]
