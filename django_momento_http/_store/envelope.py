"""What is stored: a value's bytes with everything that a reader must know, signed.

Byte by byte, integers unsigned and big-endian::

    offset  size  what
         0     3  magic, "DMH"
         3     1  version of this format, 1
         4     2  code of the serializer (serializers)
         6     2  code of the compressor (compressors), 0 where the body is not compressed
         8     4  id of the signing key
        12     8  generation that was current at the write; 0: none was known
        20     8  expiry in milliseconds since 1970 (UTC); 0: none
        28     8  when the value was made, in milliseconds since 1970 (UTC)
        36     4  length of the body before compression
        40     4  how many milliseconds it took to make (get_or_set); 0: not known
        44     4  reserved for a time beyond expiry; written as 0, read by nobody
        48    32  HMAC-SHA256 over scope, wire key, bytes 0 to 47 and body
        80     -  body

The scope is the cache's name and the KEY_PREFIX; it and the wire key are each preceded by their
length in 4 bytes, so that nothing can be moved from one to the next. A reader verifies before it
looks at anything else. It knows nothing of HTTP or of Django.
"""

import hashlib
import hmac
import math
import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from .. import compressors, serializers
from .._interrupts import is_raised_by_signal_handler
from .._registry import FOREIGN, Coded
from ..compressors import Compressor
from ..exceptions import StoredValueError
from ..serializers import Serializer

_HEADER = struct.Struct("!3sBHH4sQQQIII")
_SEALED = struct.Struct(f"{_HEADER.format}32s")  # the same and the signature
_BODY_AT = _SEALED.size
_BLOCK_SIZE = 64  # of SHA-256
_MAGIC, _VERSION = b"DMH", 1
_UNCOMPRESSED = 0
_LONGEST_MAKING = 2**32 - 1  # what the field takes, 49 days
# Separates these signatures from everything else that SECRET_KEY signs.
_PURPOSE = b"django_momento_http.envelope.1"
# A body of 5 MB that inflates to more than this was not made by sensible use of a cache; it bounds
# the memory of whoever reads it.
INFLATED_LIMIT = 64 * 1024 * 1024
# A value this many seconds past its own expiry is a replay, not two clocks that differ a little.
_REPLAY_SECONDS = 60.0


class Stored(NamedTuple):
    """A verified value, not yet loaded.

    ``expires_at`` is in seconds since 1970, None for never; ``made_at`` in milliseconds since 1970;
    ``made_in`` are the milliseconds that it took to make, 0 where nobody measured.
    """

    serializer: int
    compressor: int
    generation: int
    expires_at: float | None
    made_at: int
    length: int
    body: memoryview
    made_in: int = 0


# Stored() of a tuple, a quarter of a microsecond faster.
_stored: Callable[[tuple[Any, ...]], Stored] = partial(tuple.__new__, Stored)

# A function that is given the payload of a value, and what loads it.
Keep = Callable[[bytes, Callable[[bytes], Any]], object]


class _Signer:
    """One signing key, bound to one scope."""

    __slots__ = ("_inner", "_outer", "id")

    def __init__(self, secret: bytes, scope: bytes) -> None:
        key = hashlib.sha256(_PURPOSE + secret).digest()
        self.id = hashlib.sha256(_PURPOSE + b".id" + key).digest()[:4]
        # HMAC as RFC 2104 defines it, begun once: with a copy of hmac's object for each value, a
        # signature of 300 bytes took 1.7 us, with these two 1.0.
        block = key.ljust(_BLOCK_SIZE, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + scope)
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def sign(self, wire_key: str, header: bytes | bytearray, body: memoryview) -> bytes:
        inner = self._inner.copy()
        key = wire_key.encode()
        inner.update(len(key).to_bytes(4) + key + header)
        inner.update(body)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()


class Envelope:
    """Seals and opens the values of one cache and KEY_PREFIX.

    The first of ``secrets`` signs, all of them verify; ValueError where there is none, or an empty
    one.
    """

    def __init__(
        self,
        cache_name: str,
        key_prefix: str,
        secrets: Sequence[bytes],
        serializer: Coded[Serializer],
        compressor: Coded[Compressor] | None = None,
        compress_min_bytes: int = 0,
    ) -> None:
        if not secrets or not all(secrets):
            raise ValueError("there must be a secret, and none may be empty")
        scope = _sized(cache_name.encode()) + _sized(key_prefix.encode("utf-8", "surrogatepass"))
        signers = [_Signer(secret, scope) for secret in secrets]
        self._signer = signers[0]
        self._signers = {signer.id: signer for signer in signers}
        self._serializer = serializer
        self._codecs = {serializer.code: serializer.codec}
        self._compressor = compressor
        self._compress_min_bytes = math.inf if compressor is None else compress_min_bytes

    def dumps(self, value: Any) -> bytes:
        """Return the value, serialized; raise what the serializer raises."""
        return self._serializer.codec.dumps(value)

    @property
    def key_ids(self) -> tuple[bytes, ...]:
        """The ids of the signing keys, that which signs first."""
        return tuple(self._signers)

    def pack(
        self, payload: bytes, expires_at: float | None, made_at: int, generation: int
    ) -> Stored:
        """Return a serialized value, compressed where that pays."""
        compressor, body = _UNCOMPRESSED, payload
        # A payload past the field's range is refused by its size, whatever is written here.
        length = min(len(payload), 2**32 - 1)
        if length >= self._compress_min_bytes:
            compressor, body = self._compressed(payload)
        code, view = self._serializer.code, memoryview(body)
        return _stored((code, compressor, generation, expires_at, made_at, length, view, 0))

    def bare(self, payload: bytes) -> Stored:
        """Return a serialized value as it is handed on in this process: never to be stored."""
        return Stored(
            self._serializer.code, _UNCOMPRESSED, 0, None, 0, len(payload), memoryview(payload)
        )

    def seal(self, wire_key: str, stored: Stored, key_id: bytes = b"") -> bytes:
        """Return the bytes to store under this key, signed, if need be with the key of an id."""
        signer = self._signers[key_id] if key_id else self._signer
        expiry = 0 if stored.expires_at is None else max(int(stored.expires_at * 1000), 1)
        header = _HEADER.pack(
            _MAGIC,
            _VERSION,
            stored.serializer,
            stored.compressor,
            signer.id,
            stored.generation,
            expiry,
            stored.made_at,
            stored.length,
            min(stored.made_in, _LONGEST_MAKING),
            0,
        )
        mac = signer.sign(wire_key, header, stored.body)
        return b"".join((header, mac, stored.body))

    def seal_marker(
        self, wire_key: str, key_id: bytes, generation: int, expires_at: float | None, made_at: int
    ) -> bytes:
        """Return a value that says nothing but its generation, signed with the key of this id."""
        nothing = Stored(0, _UNCOMPRESSED, generation, expires_at, made_at, 0, memoryview(b""))
        return self.seal(wire_key, nothing, key_id)

    def open(self, wire_key: str, data: bytes | bytearray, now: float) -> Stored:
        """Return what was sealed for this key; StoredValueError for anything else."""
        if len(data) < _BODY_AT:
            raise StoredValueError("a stored value is too short to be ours")
        magic, version, codec, packer, key_id, generation, expiry, made_at, length, took, _, mac = (
            _SEALED.unpack_from(data)
        )
        signer = self._signers.get(key_id)
        if signer is None or magic != _MAGIC or version != _VERSION:
            raise StoredValueError("a stored value was not written with one of our keys")
        body = memoryview(data)[_BODY_AT:]
        if not hmac.compare_digest(signer.sign(wire_key, data[: _HEADER.size], body), mac):
            raise StoredValueError("a stored value has a wrong signature")
        expires_at = expiry / 1000 if expiry else None
        if expires_at is not None and now > expires_at + _REPLAY_SECONDS:
            raise StoredValueError("a stored value is older than its expiry")
        return _stored((codec, packer, generation, expires_at, made_at, length, body, took))

    def made_at(self, data: bytes | bytearray) -> int | None:
        """Return when a value says that it was made, whoever signed it; None for what is none."""
        if len(data) < _BODY_AT:
            return None
        magic, version, *_, made_at, _, _, _, _ = _SEALED.unpack_from(data)
        return int(made_at) if (magic, version) == (_MAGIC, _VERSION) else None

    def load(self, stored: Stored, keep: Keep | None = None) -> Any:
        """Return the value; StoredValueError when this process cannot make it again.

        ``keep`` is given its payload, in bytes of its own, and what loads it.
        """
        codec = self._codecs.get(stored.serializer) or self._codec(stored.serializer)
        payload: Any = stored.body
        if stored.compressor != _UNCOMPRESSED:
            payload = self._inflated(stored)
        if keep is not None or stored.serializer >= FOREIGN:
            # Ours take the received buffer, others get bytes.
            payload = bytes(payload)
        try:
            value = codec.loads(payload)
        except Exception as error:
            if is_raised_by_signal_handler(error):
                raise
            failure = type(error).__name__
        else:
            if keep is not None:
                keep(payload, codec.loads)
            return value
        raise StoredValueError(f"a stored value could not be loaded ({failure})")

    def _codec(self, code: int) -> Serializer:
        codec = self._codecs[code] = serializers.by_code(code, self._serializer)
        return codec

    def _compressed(self, payload: bytes) -> tuple[int, bytes]:
        if self._compressor is None or len(payload) > INFLATED_LIMIT:
            return _UNCOMPRESSED, payload
        body = self._compressor.codec.compress(payload)
        return (
            (self._compressor.code, body) if len(body) < len(payload) else (_UNCOMPRESSED, payload)
        )

    def _inflated(self, stored: Stored) -> Any:
        codec = compressors.REGISTRY.by_code(stored.compressor, self._compressor)
        if codec is None:
            raise StoredValueError("a stored value was written with an unknown COMPRESSOR")
        if stored.length > INFLATED_LIMIT:
            raise StoredValueError("a stored value inflates to more than is accepted")
        try:
            body: Any = stored.body if stored.compressor < FOREIGN else bytes(stored.body)
            inflated = codec.decompress(body, stored.length)
        except Exception as error:
            if is_raised_by_signal_handler(error):
                raise
            failure = type(error).__name__
        else:
            if len(inflated) == stored.length:
                return inflated
            failure = "wrong length"
        raise StoredValueError(f"a stored value could not be inflated ({failure})")


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(4) + data
