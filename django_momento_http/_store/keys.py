"""Keys as they stand on the wire: unpadded URL-safe Base64 (HTTP API, key_base64)."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import lru_cache

# Django accepts such a key, and its own check costs several times this one.
LONGEST_PLAIN = 250
_is_plain = re.compile(rf"[!-~]{{1,{LONGEST_PLAIN}}}").fullmatch
# How many are remembered: at most 3 MB, and far less with usual keys.
_REMEMBERED = 4096


# Keys that Django's sessions make: a copy of one would lose what another process put into it, and
# outlive a logout.
SESSIONS = "django.contrib.sessions."


class UncopiedKey(str):
    """A key on the wire of which no copies are kept."""

    __slots__ = ()


def encode_made_key(made: str) -> str:
    """Return a made key as it stands on the wire; UnicodeEncodeError where UTF-8 has no such."""
    wire_key = encode_key(made.encode())
    return UncopiedKey(wire_key) if SESSIONS in made else wire_key


def encode_key(key: bytes) -> str:
    """Return a key as it stands on the wire: unpadded URL-safe Base64."""
    return urlsafe_b64encode(key).rstrip(b"=").decode("ascii")


def decode_key(key: str) -> bytes:
    """Return the key that stands so on the wire."""
    return urlsafe_b64decode(key + "=" * (-len(key) % 4))


@lru_cache(_REMEMBERED)
def encode_plain_key(made: str) -> str:
    """Return a made key as it stands on the wire, "" for one that Django must check.

    Do not ask for longer ones than ``LONGEST_PLAIN``: all that was asked for is kept for a while.
    """
    return encode_made_key(made) if _is_plain(made) else ""
