"""Which keys sign and verify stored values: SIGNING_KEY, or Django's SECRET_KEY and its fallbacks.

An unset variable must not become a key that everybody knows, as ``force_bytes(None)`` is one. It
knows nothing of what is signed.
"""

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from .parsers import encoded_secret


def signing_keys(signing_key: str | None) -> tuple[bytes, ...]:
    """Return the keys, of which the first signs and all verify, or say which setting is wrong."""
    if signing_key is not None:
        return (_encoded("SIGNING_KEY", signing_key),)
    fallbacks = settings.SECRET_KEY_FALLBACKS
    # A string would be taken for a list of keys of one character each.
    if not isinstance(fallbacks, list | tuple):
        raise ImproperlyConfigured("SECRET_KEY_FALLBACKS must be a list or a tuple of keys")
    older = (_encoded(f"SECRET_KEY_FALLBACKS[{at}]", key) for at, key in enumerate(fallbacks))
    return (_encoded("SECRET_KEY", settings.SECRET_KEY), *older)


def _encoded(name: str, key: object) -> bytes:
    try:
        return encoded_secret(key)
    except ValueError as error:
        problem = f"{name} {error}"
    raise ImproperlyConfigured(problem)
