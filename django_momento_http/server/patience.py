"""How long a connection has kept the server waiting. It knows nothing else."""

from collections.abc import Callable


class Patience:
    """Runs while it is the peer that is waited for."""

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
