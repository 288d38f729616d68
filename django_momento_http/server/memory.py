"""Memory that all connections share: how much of it may be in use, and who waits for more.

It knows neither heads, bodies nor sockets.
"""

from collections.abc import Callable


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
        if not self._is_granting:  # else whoever went on has finished at once: the loop sees it
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
