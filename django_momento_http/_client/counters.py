"""What one client has done in this process, as numbers."""

import threading
from collections import Counter

# One operation is billed per started KiB of item moved (service-facts, Limits).
_BILLED_BYTES = 1024


class Counters:
    """Counts that threads add to."""

    def __init__(self) -> None:
        # Reentrant: a signal handler may use the cache whose own call it interrupted.
        self._lock = threading.RLock()
        self._requests = self._retries = self._billed = 0
        self._bytes_in = self._bytes_out = 0
        self._paid = 0
        self._served = {"hits": 0, "misses": 0, "sets": 0, "deletes": 0}
        self._errors: Counter[str] = Counter()

    def moved(self, sent: int, received: int, key_size: int) -> None:
        """Count one request that was answered, with the bytes of value it carried each way."""
        size = max(sent, received)
        with self._lock:
            self._requests += 1
            self._bytes_out += sent
            self._bytes_in += received
            self._billed += -(-(size + key_size) // _BILLED_BYTES) if size else 1

    def failed(self, kind: str, *, was_sent: bool = True) -> None:
        """Count one operation that came to nothing, by the kind of its error."""
        with self._lock:
            self._requests += was_sent
            self._errors[kind] += 1

    def retried(self) -> None:
        """Count one request that was sent a second time."""
        with self._lock:
            self._retries += 1

    def served(self, what: str, count: int = 1) -> None:
        """Count what callers were given: ``hits``, ``misses``, ``sets`` or ``deletes``."""
        with self._lock:
            self._served[what] += count

    def paid(self) -> None:
        """Count one write that was owed and is paid."""
        with self._lock:
            self._paid += 1

    def snapshot(self) -> dict[str, object]:
        """Return all counts as they stand."""
        with self._lock:
            return {
                "requests": self._requests,
                **self._served,
                "errors": dict(self._errors),
                "retries": self._retries,
                "bytes_in": self._bytes_in,
                "bytes_out": self._bytes_out,
                "billed_operations": self._billed,
                "paid": self._paid,
            }
