"""Where the clear marker is kept, by our own reading of the stored format."""

from hashlib import sha256

_PURPOSE = b"django_momento_http.envelope.1"


def marker_key(key_prefix: bytes = b"", secret: bytes = b"for tests only") -> bytes:
    """Return the key of the clear marker of a KEY_PREFIX and a signing key."""
    key_id = sha256(_PURPOSE + b".id" + sha256(_PURPOSE + secret).digest()).digest()[:4]
    return b"\xffclear:" + key_id + b":" + key_prefix
