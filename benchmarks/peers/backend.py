"""The same backend over a plain ``requests.Session``: what one would write first.

Keys, stored values and their verification are the package's own; it has no breaker, no retry and no
``clear()``, so that it does less. Its ``*_many`` and async methods are those that Django gives it.
"""

import time
from typing import Any

import requests
from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache
from wire import CACHE, TOKEN, key_base64

from django_momento_http import compressors, serializers
from django_momento_http._store.envelope import Envelope

_PREFIX = "requests"
_COMPRESS_MIN_BYTES = 1024
_SECONDS = 5.0


class RequestsCache(BaseCache):
    """A cache backend over ``Session.get`` and ``Session.put``."""

    def __init__(self, origin: str) -> None:
        super().__init__({"KEY_PREFIX": _PREFIX})
        self._url = f"{origin}/cache/{CACHE}"
        self._session = requests.Session()
        self._envelope = Envelope(
            CACHE,
            _PREFIX,
            [b"benchmarks"],
            serializers.REGISTRY.find("pickle"),
            compressors.REGISTRY.find("zlib"),
            _COMPRESS_MIN_BYTES,
        )

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        """Return the value, or the default where there is none."""
        wire_key = key_base64(self.make_and_validate_key(key, version))
        response = self._session.get(
            self._url,
            params={"key_base64": wire_key},
            headers={"Authorization": TOKEN},
            timeout=_SECONDS,
        )
        if response.status_code == 404:
            return default
        response.raise_for_status()
        return self._envelope.load(self._envelope.open(wire_key, response.content, time.time()))

    def set(
        self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        """Store the value."""
        wire_key = key_base64(self.make_and_validate_key(key, version))
        seconds: Any = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
        payload = self._envelope.dumps(value)
        now = time.time()
        stored = self._envelope.pack(payload, now + seconds, int(now * 1000), 0)
        self._session.put(
            self._url,
            params={"key_base64": wire_key, "ttl_seconds": str(seconds)},
            headers={"Authorization": TOKEN},
            data=self._envelope.seal(wire_key, stored),
            timeout=_SECONDS,
        ).raise_for_status()

    def close(self, **_: object) -> None:
        """Close the connections."""
        self._session.close()
