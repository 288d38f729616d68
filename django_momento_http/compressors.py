"""Bytes to fewer bytes and back, never to more than the reader allows.

A compressor is a class with ``compress(data) -> bytes`` and ``decompress(data, size) -> bytes``,
where ``size`` is the exact number of bytes that must come out. It knows nothing of values or of the
stored format.
"""

import importlib
import zlib
from typing import Any, Protocol

from ._registry import Registry

# On a 20 KB page, zlib's level 1 takes a third of level 6's time for a sixth more bytes; a cache
# reads and writes on the way of a request.
_LEVEL = 1


class Compressor(Protocol):
    """What COMPRESSOR may name."""

    def compress(self, data: bytes) -> bytes:
        """Return the data, compressed."""

    def decompress(self, data: bytes, size: int) -> bytes:
        """Return exactly ``size`` bytes; any exception makes the stored value a miss."""


def _exactly(data: bytes, size: int, *, complete: bool) -> bytes:
    if not complete or len(data) != size:
        raise ValueError("compressed data is incomplete or longer than it says")
    return data


class ZlibCompressor:
    """The standard library's zlib."""

    def compress(self, data: bytes) -> bytes:
        """Deflate the data."""
        return zlib.compress(data, _LEVEL)

    def decompress(self, data: bytes, size: int) -> bytes:
        """Inflate to exactly ``size`` bytes; ValueError or zlib.error where that is not so."""
        inflater = zlib.decompressobj()
        inflated = inflater.decompress(data, size + 1)
        return _exactly(inflated, size, complete=inflater.eof and not inflater.unused_data)


def _zstd_module() -> Any:
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ValueError(
        "'zstd' needs Python 3.14, or the extra: pip install django-momento-http[zstd]"
    )


class ZstdCompressor:
    """Zstandard, from the standard library where it has it, else from its backport."""

    def __init__(self) -> None:
        self._zstd = _zstd_module()

    def compress(self, data: bytes) -> bytes:
        """Compress the data."""
        compressed: bytes = self._zstd.compress(data, _LEVEL)
        return compressed

    def decompress(self, data: bytes, size: int) -> bytes:
        """Decompress at most ``size`` bytes; an exception unless exactly that comes out."""
        reader = self._zstd.ZstdDecompressor()
        out: bytes = reader.decompress(data, size + 1)
        # The end of the frame is read only when more is asked for than the frame holds.
        return _exactly(out, size, complete=reader.eof and not reader.unused_data)


REGISTRY: Registry[Compressor] = Registry(
    {"zlib": (1, ZlibCompressor), "zstd": (2, ZstdCompressor)}, ("compress", "decompress")
)
