"""Python values to bytes and back.

A serializer is a class with ``dumps(value) -> bytes`` and ``loads(bytes)``. It never sees bytes
whose signature was not verified first, and knows nothing of compression or of the stored format.
"""

import json
import pickle
from functools import partial
from typing import Any, Protocol

from ._registry import Coded, Registry
from .exceptions import StoredValueError

# The newest protocol that every supported Python reads and writes.
_PICKLE_PROTOCOL = 5
# Its number in stored values.
_PICKLE = 1


class Serializer(Protocol):
    """What SERIALIZER may name."""

    def dumps(self, value: Any) -> bytes:
        """Return the value as bytes; any exception reaches the caller of the cache."""

    def loads(self, data: bytes) -> Any:
        """Return the value again; any exception makes the stored value a miss."""


class PickleSerializer:
    """Any picklable value, as Django's own backends store it."""

    # Without a call of Python code; what is loaded was verified to be our own.
    dumps = staticmethod(partial(pickle.dumps, protocol=_PICKLE_PROTOCOL))
    loads = staticmethod(pickle.loads)


class JSONSerializer:
    """Values that JSON can hold; tuples come back as lists, keys of dictionaries as strings."""

    def dumps(self, value: Any) -> bytes:
        """Encode the value; TypeError or ValueError when JSON cannot hold it."""
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()

    def loads(self, data: bytes) -> Any:
        """Decode the value."""
        return json.loads(bytes(data))


REGISTRY: Registry[Serializer] = Registry(
    {"pickle": (_PICKLE, PickleSerializer), "json": (2, JSONSerializer)}, ("dumps", "loads")
)


def by_code(code: int, configured: Coded[Serializer]) -> Serializer:
    """Return the serializer that wrote a stored value; StoredValueError where it may not load one.

    Loading a pickle runs code, so only an alias that is configured to does it.
    """
    if code == configured.code:
        return configured.codec
    if code == _PICKLE:
        raise StoredValueError(
            'a stored value was written with SERIALIZER "pickle", which this alias does not load'
        )
    serializer = REGISTRY.by_code(code, configured)
    if serializer is None:
        raise StoredValueError("a stored value was written with an unknown SERIALIZER")
    return serializer
