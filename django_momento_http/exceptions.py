"""What can go wrong, as one tree.

::

    MomentoError
    ├── TransportError        no usable answer arrived                    transient
    │   ├── ConnectFailed     the request was not sent (DNS, TCP, TLS, proxy)
    │   └── TimedOut          it may or may not have been applied
    ├── ResponseError         the service answered: no                    .status
    │   ├── BadRequest        400, or too large to be sent
    │   ├── AccessDenied      401, 403
    │   ├── CacheNotFound     404 on the cache itself, never a miss
    │   ├── RateLimited       429                                         .retry_after
    │   └── ServiceFailed     5xx                                         transient
    ├── CircuitOpen           not attempted: the breaker is open
    └── StoredValueError      these bytes are not ours, or not for this key

No message, attribute or ``repr`` holds a token, a key or a value.
"""

__all__ = [
    "AccessDenied",
    "BadRequest",
    "CacheNotFound",
    "CircuitOpen",
    "ConnectFailed",
    "MomentoError",
    "RateLimited",
    "ResponseError",
    "ServiceFailed",
    "StoredValueError",
    "TimedOut",
    "TransportError",
]


# What to do, by kind; a kind that is missing here has the advice of its class. In these words it
# stands in messages and in the log; ``momento_check`` says more where it has found out more.
_ADVICE = {
    "access_denied": "Check TOKEN: its region, its expiry and its permissions",
    "bad_request": "Check MAX_TTL, LOCATION, and the size of the value (5 MB with its key)",
    "cache_not_found": "Create the cache in the Momento console, or correct LOCATION or REGION",
    "circuit_open": "Requests resume by themselves",
    "connect": "Check REGION or ENDPOINT, PROXY, CA_BUNDLE, and this host's way to the service",
    "connection": "Check the network, ENDPOINT, and what stands between this host and the service",
    "internal": "This is not the network: a time limit of this process, or an error in what"
    " instruments requests; if it is neither, report it",
    "no_thread": "Raise the limit of threads that this process may have",
    "no_time": "Raise REQUEST_TIMEOUT, or ask for less in one call",
    "pool_timeout": "Raise MAX_CONNECTIONS, or let fewer operations run at once",
    "rate_limited": "Send fewer operations, or ask Momento for a higher limit",
    "refresh": "Look at what the default raises",
    "service_failed": "Try again later; if it persists, ask Momento's support",
    "stored_value": "Check that all hosts share SECRET_KEY (or SIGNING_KEY) and SERIALIZER; another"
    " site needs a KEY_PREFIX of its own",
    "timeout": "Check the network, use a cache in a nearer region, or raise REQUEST_TIMEOUT",
    "token": "Check the callable TOKEN: it must return an API key, and in time",
    "unusable": "Check ENDPOINT, and what stands between this host and the service",
}


class MomentoError(Exception):
    """Trouble with the service or with what it stores.

    ``reason`` says in words what happened, ``kind`` names it in logs and counters,
    ``elapsed`` is the seconds that it cost. ``transient`` is true where the trouble is the
    service's or the network's, and the same request may succeed a moment later.
    """

    kind: str = "error"
    transient = False

    def __init__(self, reason: str = "", *, kind: str = "", elapsed: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.advice = _ADVICE.get(kind) or _ADVICE.get(self.kind, "")
        if kind:
            self.kind = kind
        self.elapsed = elapsed
        self.subject: str = ""

    def about(self, operation: str, location: str) -> "MomentoError":
        """Name the operation and the Momento cache that this error belongs to."""
        self.subject = f"{operation} on the Momento cache {location!r}: "
        return self

    def __str__(self) -> str:
        return f"{self.subject}{self.reason}{'. ' if self.advice else ''}{self.advice}"


class TransportError(MomentoError):
    """No usable answer arrived."""

    kind = "connection"
    transient = True


class ConnectFailed(TransportError):
    """The request was not sent: no connection could be made."""

    kind = "connect"


class TimedOut(TransportError):
    """No answer in time; the request may or may not have been applied."""

    kind = "timeout"


class ResponseError(MomentoError):
    """The service answered, and the answer is no; ``status`` is the HTTP status, 0 if not sent."""

    kind = "response"

    def __init__(
        self, reason: str = "", *, status: int = 0, kind: str = "", elapsed: float = 0.0
    ) -> None:
        super().__init__(reason, kind=kind, elapsed=elapsed)
        self.status = status


class BadRequest(ResponseError):
    """The request was refused as it stands (status 400 or 413), or is too large to be sent."""

    kind = "bad_request"


class AccessDenied(ResponseError):
    """The token is invalid or expired (401), or does not grant this operation (403)."""

    kind = "access_denied"


class CacheNotFound(ResponseError):
    """The Momento cache of this name does not exist (404); never a miss."""

    kind = "cache_not_found"


class RateLimited(ResponseError):
    """The account's limit of operations is used up (429); ``retry_after`` is in seconds."""

    kind = "rate_limited"

    def __init__(self, reason: str = "", *, status: int = 429, retry_after: float = 0.0) -> None:
        super().__init__(reason, status=status)
        self.retry_after = retry_after


class ServiceFailed(ResponseError):
    """The service failed (5xx)."""

    kind = "service_failed"
    transient = True


class CircuitOpen(MomentoError):
    """Not attempted: the breaker is open after earlier trouble."""

    kind = "circuit_open"


class StoredValueError(MomentoError):
    """The stored bytes are not ours, not intact, or not for this key."""

    kind = "stored_value"
