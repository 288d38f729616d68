"""Keys as they stand on the wire: unpadded URL-safe Base64 (HTTP API, key_base64)."""

from base64 import urlsafe_b64decode, urlsafe_b64encode


def encode_key(key: bytes) -> str:
    """Return a key as it stands on the wire: unpadded URL-safe Base64."""
    return urlsafe_b64encode(key).rstrip(b"=").decode("ascii")


def decode_key(key: str) -> bytes:
    """Return the key that stands so on the wire."""
    return urlsafe_b64decode(key + "=" * (-len(key) % 4))
