"""When to log: one line of a kind in a while, and how many were held back. It holds no logger."""

import threading
import time
from collections.abc import Callable


class LogLimiter:
    """Let one line per operation and kind through in ten seconds, and count the others."""

    _SECONDS = 10.0
    _MOST = 256  # pairs remembered: more than all operations times all kinds of error

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._lines: dict[tuple[str, str], tuple[float, int]] = {}  # next line due, held back

    def allow(self, operation: str, kind: str) -> int | None:
        """Return how many lines were held back since the last one, or None: hold this one back."""
        pair = operation, kind
        now = self._clock()
        with self._lock:
            due, held = self._lines.get(pair, (now, 0))
            if now < due:
                self._lines[pair] = due, held + 1
                return None
            if len(self._lines) >= self._MOST:
                self._lines.pop(min(self._lines, key=self._lines.__getitem__), None)
            self._lines[pair] = now + self._SECONDS, 0
            return held
