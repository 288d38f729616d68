"""A host's addresses, without waiting for the resolver longer than asked."""

import socket
from collections.abc import Callable, Sequence
from typing import Any

from .exceptions import ConnectFailed
from .flight import SingleFlight
from .wire import Address

# A burst of new connections looks its host up once.
_KEEP_SECONDS = 5.0


class Resolver:
    """Looks one host up; safe under threads."""

    def __init__(
        self,
        host: str,
        port: int,
        clock: Callable[[], float],
        lookup: Callable[..., Sequence[Any]] = socket.getaddrinfo,
    ) -> None:
        self._clock = clock
        self._flight = SingleFlight(lambda: lookup(host, port, type=socket.SOCK_STREAM))
        self._found: tuple[float, Sequence[Address]] = (float("-inf"), ())

    def addresses(self, timeout: float) -> Sequence[Address]:
        """Return where to connect, in the resolver's order; ConnectFailed after ``timeout`` s."""
        found_at, found = self._found
        if self._clock() - found_at < _KEEP_SECONDS:
            return found
        try:
            rows = self._flight.result(timeout)
        except TimeoutError:
            failure = "took too long"
        except (OSError, RuntimeError, UnicodeError) as error:  # RuntimeError: no thread left
            failure = f"failed ({type(error).__name__})"
        else:
            found = [(row[0], row[4]) for row in rows]
            self._found = (self._clock(), found)
            return found
        raise ConnectFailed(f"name resolution {failure}", kind="dns")
