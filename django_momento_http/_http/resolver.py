"""A host's addresses, best first; nobody waits here for the system's resolver."""

import ipaddress
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from .._interrupts import is_raised_by_signal_handler
from .._singleflight import SingleFlight
from ..exceptions import ConnectFailed
from .stream import Address

# A burst of new connections looks its host up once ...
_KEEP_SECONDS = 5.0
# ... also where that fails.
_KEEP_FAILURE_SECONDS = 1.0
# Seconds for which an address that failed is tried after all others.
_AVOID_SECONDS = 30.0


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
        self._lookup: Callable[[], Sequence[Any]] = partial(
            lookup, host, port, type=socket.SOCK_STREAM
        )
        self._flight = SingleFlight(self._look_up)
        numeric = _numeric(host, port)
        # Until when it is believed, and what was found or why nothing was.
        self._known: tuple[float, Sequence[Address], str] = (
            float("inf") if numeric else float("-inf"),
            numeric,
            "",
        )
        self._failed_at: dict[Address, float] = {}

    def addresses(self) -> Sequence[Address] | None:
        """Return where to connect, None while a lookup is under way; ConnectFailed if it failed."""
        until, found, failure = self._known
        now = self._clock()
        if now >= until:
            failure = self._begin()
            if not failure:
                return None
        if failure:
            raise ConnectFailed(f"name resolution failed ({failure})", kind="dns")
        return sorted(found, key=lambda one: self._avoided_since(one, now))

    def avoid(self, address: Address) -> None:
        """Let the others be tried before this one for a while."""
        self._failed_at[address] = self._clock()

    def _avoided_since(self, address: Address, now: float) -> float:
        failed_at = self._failed_at.get(address, float("-inf"))
        return failed_at if now - failed_at < _AVOID_SECONDS else float("-inf")

    def _begin(self) -> str:
        """Begin a lookup if none is under way, or return why there can be none."""
        try:
            self._flight.start()
        except RuntimeError as error:  # no thread can be started
            if is_raised_by_signal_handler(error):
                raise
            return type(error).__name__
        return ""

    def _look_up(self) -> None:
        """Learn the addresses, in a thread of its own."""
        found: list[Address] = []
        failure = "no address"
        try:
            found = [(row[0], row[4]) for row in self._lookup()]
        except BaseException as error:  # noqa: BLE001 - it is this thread's own, and ends here
            failure = type(error).__name__
        self._failed_at = {one: at for one, at in list(self._failed_at.items()) if one in found}
        keep = _KEEP_SECONDS if found else _KEEP_FAILURE_SECONDS
        self._known = (self._clock() + keep, found, "" if found else failure)


def _numeric(host: str, port: int) -> Sequence[Address]:
    """Return the one address of a host that is no name, nothing for a name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError as error:
        if is_raised_by_signal_handler(error):
            raise
        return ()
    if address.version == 4:
        return ((socket.AF_INET, (host, port)),)
    return () if "%" in host else ((socket.AF_INET6, (host, port, 0, 0)),)
