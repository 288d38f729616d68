"""The configuration, and what it bounds: names, rates, memory, time. It knows no request."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

# The service says "5 MB" for key and value together. We take the smaller reading, so that what fits
# here fits there, whichever it means.
MAX_ITEM = 5 * 1000 * 1000
# What two items need, so that the second never has to wait for the first.
MIN_MEMORY = 10 * 1024 * 1024
MAX_MEMORY = 512 * 1024 * 1024
CACHE_NAME = re.compile(rb"[A-Za-z0-9._~-]+")


@dataclass(frozen=True)
class Config:
    """What the server serves and which limits it keeps."""

    caches: tuple[str, ...] = ("default-cache",)
    token: str | None = field(default=None, repr=False)  # None: any token will do
    read_only_token: str | None = field(default=None, repr=False)
    latency: float = 0.0  # seconds before every answer
    max_ttl: int | None = 86400  # the service's limit on demand; None: provisioned
    ops_per_second: float | None = None
    fail_rate: float = 0.0
    fail_status: int = 500
    max_memory: int = MAX_MEMORY  # bytes for items; the least recently used go first
    max_connections: int = 1000  # beyond these: 503
    idle_timeout: float = 60.0  # seconds for a request to arrive, and for an answer to be taken

    def __post_init__(self) -> None:
        """Refuse cache names that no request could spell, and limits that nothing could keep."""
        if self.max_memory < MIN_MEMORY:
            raise ValueError(f"max_memory must be at least {MIN_MEMORY} bytes")
        if self.max_connections < 1 or not self.idle_timeout > 0:
            raise ValueError("max_connections and idle_timeout must be more than 0")
        for name in self.caches:
            if not CACHE_NAME.fullmatch(name.encode()):
                raise ValueError(f"a cache's name must be a URL-safe string, not {name!r}")


class TokenBucket:
    """So many operations a second, with a second's worth of them at once."""

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._tokens = self._capacity = max(rate, 1.0)
        self._filled = clock()

    def take(self) -> bool:
        """Say whether one more operation is within the limit."""
        now = self._clock()
        self._tokens = min(self._capacity, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Allowance:
    """So many bytes for all; who wants more than is left waits for their turn."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._waiting: dict[Share, None] = {}  # in the order of asking
        self._is_granting = False

    def ask(self, share: "Share") -> bool:
        """Grant the share now, or say False and let it wait."""
        if self._waiting or share.size > self._left:
            self._waiting[share] = None
            return False
        self._left -= share.size
        return True

    def take_back(self, share: "Share", size: int) -> None:
        """Let the share wait no longer and take back what it had; others may go on."""
        self._waiting.pop(share, None)
        self._left += size
        if not self._is_granting:  # else the loop that grants sees what was given back
            self._is_granting = True
            try:
                self._grant()
            finally:
                self._is_granting = False

    def _grant(self) -> None:
        while self._waiting:
            share = next(iter(self._waiting))
            if share.size > self._left:
                return
            del self._waiting[share]
            self._left -= share.size
            share.arrive()


class Share:
    """What one connection has of an allowance, or waits for."""

    def __init__(self, allowance: Allowance, arrived: Callable[[], None]) -> None:
        self._allowance = allowance
        self._arrived = arrived
        self.size = 0
        self.is_awaited = False

    def take(self, size: int) -> None:
        """Have so much, now or, where ``is_awaited`` says so, later."""
        self.size = size
        self.is_awaited = not self._allowance.ask(self)

    def arrive(self) -> None:
        """Say that the wait is over."""
        self.is_awaited = False
        self._arrived()

    def give_back(self) -> None:
        """Have nothing, and wait for nothing."""
        if not self.size:
            return
        size, self.size = self.size, 0
        was_awaited, self.is_awaited = self.is_awaited, False
        self._allowance.take_back(self, 0 if was_awaited else size)


class IdleTimer:
    """How long a peer has kept the server waiting."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: float | None = clock()

    def start(self) -> None:
        """Begin anew: from now on the peer is waited for."""
        self._since = self._clock()

    def stop(self) -> None:
        """The peer is not waited for."""
        self._since = None

    def is_over(self, seconds: float) -> bool:
        """Say whether the peer has been waited for so long."""
        return self._since is not None and self._clock() - self._since >= seconds
