"""Python values to bytes and back.

A serializer is a class with ``dumps(value) -> bytes`` and ``loads(bytes)``. It never sees bytes
whose signature was not verified first, and knows nothing of compression or of the stored format.
"""

import json
import pickle
from typing import Any, Protocol

from .registry import Coded, Registry

# The newest protocol that every supported Python reads and writes.
_PICKLE_PROTOCOL = 5


class Serializer(Protocol):
    """What SERIALIZER may name."""

    def dumps(self, value: Any) -> bytes:
        """Return the value as bytes; any exception reaches the caller of the cache."""

    def loads(self, data: bytes) -> Any:
        """Return the value again; any exception makes the stored value a miss."""


class PickleSerializer:
    """Any picklable value, as Django's own backends store it."""

    def dumps(self, value: Any) -> bytes:
        """Pickle the value."""
        return pickle.dumps(value, _PICKLE_PROTOCOL)

    def loads(self, data: bytes) -> Any:
        """Unpickle bytes that were verified to be our own."""
        return pickle.loads(data)


class JSONSerializer:
    """Values that JSON can hold; tuples come back as lists, keys of dictionaries as strings."""

    def dumps(self, value: Any) -> bytes:
        """Encode the value; TypeError or ValueError when JSON cannot hold it."""
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()

    def loads(self, data: bytes) -> Any:
        """Decode the value."""
        return json.loads(bytes(data))


_REGISTRY: Registry[Serializer] = Registry(
    {"pickle": (1, PickleSerializer), "json": (2, JSONSerializer)}, ("dumps", "loads")
)


def find(spec: str) -> Coded[Serializer]:
    """Return the serializer that SERIALIZER names; ValueError says why there is none."""
    return _REGISTRY.find(spec)


def by_code(code: int, configured: Coded[Serializer]) -> Serializer | None:
    """Return the serializer that wrote a stored value, None when this process does not know it."""
    return _REGISTRY.by_code(code, configured)
