"""How one store is configured, and what follows from that: marker keys, envelope, lifetimes.

It knows settings and the stored format, and asks nobody.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from .._conf.options import Options
from .envelope import Envelope
from .keys import encode_key
from .namespace import NamespaceKey

# The longest time to live that fits every reading of an integer of seconds: 68 years.
_FOREVER = 2**31 - 1


class Lifetime(NamedTuple):
    """A timeout as the service takes it, in whole seconds, and as the envelope keeps it."""

    ttl: int
    expires_at: float | None


# Lifetime() of a tuple, a quarter of a microsecond faster.
_lifetime: Callable[[tuple[int, float | None]], Lifetime] = partial(tuple.__new__, Lifetime)


@dataclass(frozen=True)
class StoreConfig:
    """A configuration, a KEY_PREFIX and the signing keys."""

    options: Options
    key_prefix: str
    secrets: tuple[bytes, ...] = field(repr=False)

    @property
    def namespace(self) -> NamespaceKey:
        """The namespace that the configuration belongs to."""
        return NamespaceKey(self.options.endpoint, self.options.location, self.key_prefix)

    def marker(self, key_id: bytes) -> str:
        """Return the key on the wire of the clear marker of one signing key.

        Sites with other keys, whose values nobody here could verify, never meet this one.
        """
        # No key of a user begins with this byte: they are UTF-8.
        prefix = self.key_prefix.encode("utf-8", "surrogatepass")
        return encode_key(b"\xffclear:" + key_id + b":" + prefix)

    def envelope(self) -> Envelope:
        """Return what seals and opens the values of this configuration."""
        options = self.options
        return Envelope(
            options.location,
            self.key_prefix,
            self.secrets,
            options.serializer,
            options.compressor,
            options.compress_min_bytes,
        )

    def lifetime(self, timeout: float | None, now: float) -> Lifetime:
        """Return what a timeout in seconds means; a ttl of 0: no life at all."""
        longest = self.options.max_ttl
        if timeout is None and longest is None:
            return Lifetime(_FOREVER, None)
        if timeout is not None and timeout <= 0:
            return Lifetime(0, None)
        limit = _FOREVER if longest is None else longest
        seconds = limit if timeout is None else min(timeout, limit)
        return _lifetime((math.ceil(seconds), now + seconds))
