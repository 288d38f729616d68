"""Momento's own Python SDK, for its client CPU; it speaks gRPC to a server of its own."""

from datetime import timedelta

try:
    from momento import CacheClient, Configurations, CredentialProvider
    from momento.responses import CacheGet

    MISSING = ""
except ImportError as error:
    MISSING = f"it cannot be imported here ({error})"

_CACHE = "default-cache"


class MomentoSdk:
    """The SDK's synchronous client."""

    def __init__(self, port: int) -> None:
        self._client = CacheClient(
            Configurations.Laptop.v1(),
            CredentialProvider.for_momento_local("127.0.0.1", port),
            timedelta(hours=1),
        )

    def set(self, key: str, value: bytes) -> None:
        """Store the value."""
        self._client.set(_CACHE, key, value)

    def get(self, key: str) -> bytes:
        """Return the value."""
        response = self._client.get(_CACHE, key)
        if not isinstance(response, CacheGet.Hit):
            raise TypeError(f"the SDK answered {response}")
        value: bytes = response.value_bytes
        return value

    def close(self) -> None:
        """Close the channel."""
        self._client.__exit__(None, None, None)
