"""The token that requests carry: a constant, or asked for again when the service refuses it.

Code that waits for a token holds none, so that an interrupt leaves none in its frames.
"""

from collections.abc import Callable

from .._conf.credentials import split_token
from .._http.messages import Request
from .._interrupts import is_raised_by_signal_handler
from .._singleflight import SingleFlight
from ..exceptions import AccessDenied


class TokenSource:
    """The token of one account; threads that need a new one share one call of the callable."""

    def __init__(self, token: str | Callable[[], str]) -> None:
        self.known = token if isinstance(token, str) else ""  # none yet
        self._callable = None if isinstance(token, str) else token
        # By the token to be replaced: nobody shares a call that began before that was refused.
        self._flights: dict[str, SingleFlight[str]] = {}

    def __repr__(self) -> str:
        return f"<TokenSource {'constant' if self._callable is None else 'callable'}>"

    @property
    def is_renewable(self) -> bool:
        """Whether another can be asked for."""
        return self._callable is not None

    def current(self, timeout: float) -> str:
        """Return the token; AccessDenied when the callable gives none in ``timeout`` seconds."""
        if not self.known and self._callable is not None:
            self._ask(_Renewal(self, self._callable, ""), timeout)
        return self.known

    def renew(self, refused: Request, timeout: float) -> bool:
        """Get another token than the one that a request was refused with; False: there is none.

        AccessDenied when the callable gives none in ``timeout`` seconds.
        """
        if self._callable is None:
            return False
        if self.known == refused.authorization:
            self._ask(_Renewal(self, self._callable, refused.authorization), timeout)
        return self.known != refused.authorization

    def _ask(self, renewal: "_Renewal", timeout: float) -> None:
        flight = self._flights.setdefault(renewal.refused, SingleFlight(renewal))
        try:
            failure = flight.result(timeout)
        except TimeoutError as error:
            if is_raised_by_signal_handler(error):
                raise
            failure = "took too long"
        except RuntimeError as error:
            if is_raised_by_signal_handler(error):
                raise
            failure = "was not called: no thread could be started"
        else:
            self._flights.pop(renewal.refused, None)
        if failure:
            raise AccessDenied(f"the callable TOKEN {failure}", status=401, kind="token")


class _Renewal:
    """One call of a user's callable, for a token in the place of another; its repr shows neither.

    Called, it returns what went wrong, "" if nothing did.
    """

    def __init__(self, source: TokenSource, token: Callable[[], str], refused: str) -> None:
        self._source = source
        self._token = token
        self.refused = refused

    def __call__(self) -> str:
        if self._source.known != self.refused:
            return ""  # another thread was faster
        try:
            found = self._token()
        except BaseException as error:
            # Under gevent this may be the main thread.
            if isinstance(error, KeyboardInterrupt) or is_raised_by_signal_handler(error):
                raise
            return f"failed ({type(error).__name__})"
        try:
            # A v1 key that a callable returns has an endpoint inside; what is configured stays.
            self._source.known = split_token(found).secret
        except ValueError as error:
            if is_raised_by_signal_handler(error):
                raise
            return "returned what is no API key"
        return ""
