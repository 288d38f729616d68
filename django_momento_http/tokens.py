"""The token that requests carry: a constant, or asked for again when the service refuses it."""

from collections.abc import Callable

from .credentials import split_token
from .exceptions import AccessDenied
from .flight import SingleFlight


class TokenSource:
    """One client's token; threads that need a new one share one call for it."""

    def __init__(self, token: str | Callable[[], str]) -> None:
        self.known = token if isinstance(token, str) else ""  # none yet
        self._refused = ""
        self._flight = None if isinstance(token, str) else SingleFlight(lambda: self._fetch(token))

    def __repr__(self) -> str:
        return f"<TokenSource {'constant' if self._flight is None else 'callable'}>"

    def current(self, timeout: float) -> str:
        """Return the token; AccessDenied when the callable gives none in ``timeout`` seconds."""
        return self.known or self._ask("", timeout)

    def renew(self, refused: str, timeout: float) -> str | None:
        """Return a token other than the refused one, None when there is none to be had."""
        if self._flight is None:
            return None
        # Another thread may have asked for it already.
        token = self.known if self.known != refused else self._ask(refused, timeout)
        return token if token != refused else None

    def _ask(self, refused: str, timeout: float) -> str:
        failure = "cannot be asked"
        self._refused = refused
        try:
            if self._flight is not None:
                failure = self._flight.result(timeout)
        except TimeoutError:
            failure = "took too long"
        except RuntimeError:
            failure = "was not called: no thread could be started"
        if not failure and self.known:
            return self.known
        raise AccessDenied(f"the callable TOKEN {failure}", status=401, kind="token")

    def _fetch(self, token: Callable[[], str]) -> str:
        """Renew the token, unless another thread just did; return what went wrong, if anything."""
        if self.known and self.known != self._refused:
            return ""
        try:
            # A v1 key that a callable returns has an endpoint inside; what is configured stays.
            self.known = split_token(token()).secret
        except BaseException as error:  # noqa: BLE001 - a user's callable may fail in any way
            return f"failed ({type(error).__name__})"
        return ""
