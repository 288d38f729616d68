"""Which keys sign and verify stored values: SIGNING_KEY, or Django's SECRET_KEY and its fallbacks.

An unset variable must not become a key that everybody knows, as ``force_bytes(None)`` would be. It
knows nothing of what is signed.
"""

from django.conf import settings

from .validators import encoded_secret


def signing_keys(signing_key: str | None) -> tuple[bytes, ...]:
    """Return the keys, of which the first signs and all verify; ValueError says what is wrong."""
    if signing_key is not None:
        return (encoded_secret(signing_key),)
    fallbacks = settings.SECRET_KEY_FALLBACKS
    # A string would be taken for a list of keys of one character each.
    if not isinstance(fallbacks, list | tuple):
        raise ValueError("SECRET_KEY_FALLBACKS must be a list or a tuple of keys")
    keys = [_encoded("SECRET_KEY", settings.SECRET_KEY)]
    for index, key in enumerate(fallbacks):
        keys.append(_encoded(f"SECRET_KEY_FALLBACKS[{index}]", key))
    return tuple(keys)


def _encoded(name: str, key: object) -> bytes:
    try:
        return encoded_secret(key)
    except ValueError as error:
        problem = f"{name} {error}"
    raise ValueError(problem)
