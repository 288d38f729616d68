"""One operation on its way: what is sent for it, and what it takes to judge the answer.

It knows how an operation is written as a request, and nothing of what follows from the answer.
"""

from .._http.hedging import Hedging
from .._http.messages import Request
from .breakers import Permits
from .operation import Operation

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
        if is_for_write or method != "GET":
            hedging = None
        super().__init__(method, target, body, deadline, request_timeout, hedging)
        # In Base64, four characters stand for three bytes.
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
