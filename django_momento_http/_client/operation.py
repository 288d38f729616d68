"""What a cache method asks for: an operation, or several at once, awaited for what came of them.

A plan is a coroutine that awaits these; a ``Runner`` drives it, for a thread or in an event loop,
and there is no I/O in it. So each cache method is written once for sync and async. An attempt is an
operation on its way. It knows the service's three verbs and how they are written as a request, and
nothing of what follows from an answer.
"""

from collections.abc import Callable, Coroutine, Generator, Iterable
from functools import partial
from typing import Any, NamedTuple, TypeVar

from .._http.hedging import Hedging
from .._http.messages import Body, Request
from .breakers import Permits
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

    @staticmethod
    def get(key: str, *, is_for_write: bool = False) -> "Operation":
        """Ask for the bytes under a key."""
        return _operation(("GET", key, None, 0, False, is_for_write, False))

    @staticmethod
    def set(key: str, body: Body, ttl: int) -> "Operation":
        """Store bytes under a key for ``ttl`` seconds."""
        return _operation(("PUT", key, body, ttl, False, False, False))

    @staticmethod
    def delete(key: str) -> "Operation":
        """Remove a key."""
        return _operation(("DELETE", key, None, 0, False, False, False))

    def __await__(self) -> Generator["Operation", Outcome, Outcome]:
        """Have it carried out, and return what came of it."""
        return (yield self)


# Operation() of a tuple, a quarter of a microsecond faster.
_operation: Callable[[tuple[Any, ...]], Operation] = partial(tuple.__new__, Operation)
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


_NO_PERMITS: Permits = (0, 0)


class Attempt(Request):
    """One operation on its way: its request, and what is needed to judge the answer."""

    __slots__ = ("has_new_token", "is_retry", "key_size", "permits", "started", "tag")

    def __init__(
        self,
        operation: Operation,
        path: str,
        deadline: float,
        request_timeout: float,
        tag: object,
        hedging: Hedging | None,
    ) -> None:
        method, key, body, ttl, _, is_for_write, _ = operation
        target = path + key if method != "PUT" else f"{path}{key}&ttl_seconds={ttl}"
        # As the base does, in one call less for each key of many.
        self.method = method
        self.target = target
        self.authorization = ""
        self.body = body
        self.deadline = deadline
        self.request_timeout = request_timeout
        self.fresh = False
        self.queued = self.began = 0.0
        self.hedging = None if is_for_write or method != "GET" else hedging
        self.hedges = None
        self.resends = 0
        # In Base64 on the wire.
        self.key_size = len(key) * 3 // 4
        self.tag = tag
        self.is_retry = False
        self.has_new_token = False
        self.permits = _NO_PERMITS
        self.started = 0.0

    def postpone(self, seconds: float) -> None:
        """Take these seconds as not passed."""
        super().postpone(seconds)
        self.started += seconds
