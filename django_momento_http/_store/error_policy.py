"""The one place that knows ON_ERROR: what went wrong is raised, or logged and counted as a miss."""

import logging
from collections.abc import Sequence

from .._client.counters import Counters
from .._redaction import shown_name
from ..exceptions import (
    AccessDenied,
    BadRequest,
    CacheNotFound,
    CircuitOpen,
    MomentoError,
    StoredValueError,
)
from .namespace import Namespace

logger = logging.getLogger("django_momento_http")

_FORBIDDEN = 403
# These last until somebody corrects a setting or a value.
_LOUD = (AccessDenied, BadRequest, CacheNotFound)


class ErrorPolicy:
    """What one configuration does with errors; lines never hold a key, a value or a token."""

    def __init__(self, namespace: Namespace, counters: Counters, *, raises: bool) -> None:
        self._location = shown_name(namespace.key.location)
        self._name = str(namespace.key)
        self._counters = counters
        self._raises = raises
        # Aliases of one namespace share their lines, too.
        self._limiter = namespace.lines

    def report(self, operation: str, errors: Sequence[MomentoError]) -> None:
        """Do what ON_ERROR asks for: raise the first, or log them all."""
        for error in errors:
            if isinstance(error, StoredValueError):
                # Requests that fail are counted where they fail; this one was answered.
                self._counters.failed(error.kind, was_sent=False)
        if self._raises and errors:
            raise errors[0].about(operation, self._location)
        for error in errors:
            self.log(operation, error)

    def log(self, operation: str, error: MomentoError) -> None:
        """Log the error, once in a while for its kind; the breaker has said that it is open."""
        if isinstance(error, CircuitOpen):
            return
        held_back = self._limiter.allow(operation, error.kind)
        if held_back is None:
            return
        logger.log(
            logging.ERROR if isinstance(error, _LOUD) else logging.WARNING,
            "%s on %s: %s: %s (%.3f s%s)",
            operation,
            self._name,
            error.kind,
            error,
            error.elapsed,
            f"; {held_back} more like it were not logged" if held_back else "",
        )


def is_final(error: MomentoError) -> bool:
    """Whether the same request can never succeed."""
    if isinstance(error, AccessDenied):
        return error.status == _FORBIDDEN
    return isinstance(error, BadRequest)
