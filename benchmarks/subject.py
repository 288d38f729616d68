"""What is measured: the package's cache, and the transport below it.

This is the one file here that knows the package's inner entries.
"""

import time
from collections.abc import Sequence
from typing import Any

from wire import CACHE, TOKEN, target

from django_momento_http._http.messages import Request
from django_momento_http._http.transport import Origin, Transport
from django_momento_http.cache import MomentoCache
from django_momento_http.exceptions import MomentoError

WIDTH = 64
_SECONDS = 5.0


def params(origin: str, **options: object) -> dict[str, Any]:
    """Return what Django hands to a backend's constructor besides LOCATION."""
    return {"OPTIONS": {"ENDPOINT": origin, "TOKEN": TOKEN, **options}}


def cache(origin: str, **options: object) -> MomentoCache:
    """Return our cache, with defaults but for the options named."""
    return MomentoCache(CACHE, params(origin, **options))


class TransportClient:
    """The transport alone: bytes of one key, or of many."""

    def __init__(self, origin: str, authority: str | None = None) -> None:
        self._transport = Transport(Origin(origin, _SECONDS, WIDTH, ca_bundle=authority))

    def get(self, key: str) -> object:
        """Return the value."""
        answer = self._transport.exchange(self._call(key))
        return answer if isinstance(answer, MomentoError) else answer.body

    def get_many(self, keys: Sequence[str]) -> dict[str, object]:
        """Return the values."""
        calls = {self._call(key): key for key in keys}
        left = iter(calls)
        values: dict[str, object] = {}
        for answers in self._transport.multiplexer(lambda: next(left, None)).results():
            for call, answer in answers:
                ok = not isinstance(answer, MomentoError)
                values[calls[call]] = answer.body if ok else answer
        return values

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def _call(self, key: str) -> Request:
        deadline = time.monotonic() + _SECONDS
        call = Request("GET", target(key), None, deadline, _SECONDS)
        call.authorization = TOKEN
        return call
