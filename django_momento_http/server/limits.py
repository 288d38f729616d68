"""The configuration and the limits: names, sizes, rates. It knows no request."""

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
