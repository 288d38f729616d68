"""Django's own settings, as far as they matter here: beside OPTIONS, and the keys that sign.

They mean what Django's documentation says. An error names the setting that cannot be used, and does
not show its value: it may be a credential in the wrong place.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from django.conf import settings
from django.utils.module_loading import import_string

from .._interrupts import is_raised_by_signal_handler
from .validators import encoded_secret

T = TypeVar("T")


def read_beside(params: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return what Django's base class is to read, and KEY_PREFIX; ValueError says what is wrong."""
    # From OPTIONS, Django would read only MAX_ENTRIES and CULL_FREQUENCY, which mean nothing here.
    given = {**params, "OPTIONS": {}}
    timeout = given.get("timeout", given.get("TIMEOUT"))
    if isinstance(timeout, float) and not math.isfinite(timeout):
        raise ValueError("TIMEOUT must be a number of seconds, or None")
    function = given.get("KEY_FUNCTION")
    if function is not None:
        given["KEY_FUNCTION"] = _key_function(function)
    prefix = given.get("KEY_PREFIX", "")
    return given, prefix if type(prefix) is str else _foreign("KEY_PREFIX", str, prefix)


def signing_keys(signing_key: str | None) -> tuple[bytes, ...]:
    """Return the keys, of which the first signs and all verify; ValueError says what is wrong.

    An unset variable must not become a key that everybody knows, as ``force_bytes(None)`` would be.
    """
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


def _key_function(given: Any) -> Callable[..., Any]:
    found = _foreign("KEY_FUNCTION", import_string, given) if isinstance(given, str) else given
    if not callable(found):
        raise ValueError("KEY_FUNCTION must be a function, or a dotted path to one")
    function: Callable[..., Any] = found
    return function


def _foreign(name: str, call: Callable[[Any], T], value: object) -> T:
    """Return what the call makes of a value, which may run code of the project."""
    try:
        return call(value)
    except Exception as error:
        if is_raised_by_signal_handler(error):
            raise
        failure = type(error).__name__
    raise ValueError(f"{name} cannot be used ({failure})")


def _encoded(name: str, key: object) -> bytes:
    try:
        return encoded_secret(key)
    except ValueError as error:
        if is_raised_by_signal_handler(error):
            raise
        problem = f"{name} {error}"
    raise ValueError(problem)
