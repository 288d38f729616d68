"""What TOKEN may be: an API key of either kind, or where to ask for one.

It knows nothing of the other settings. No message shows any of the token, and no frame that raises
holds it, because a debug page prints both.
"""

import base64
import json
import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from django.utils.module_loading import import_string

from .._interrupts import is_raised_by_signal_handler
from .endpoints import parse_cell_host

_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]+")
_DOTTED_PATH = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+", re.ASCII)
# How the Base64 of a JSON object begins: a v1 key, or each of the first two parts of a JWT.
_JSON_PREFIX = "eyJ"
_URL_SAFE = str.maketrans("-_", "+/")
# 9999-12-31, the last day that can be written as a date.
_LAST_SECOND = 253402300799


@dataclass(frozen=True)
class Credential:
    """What travels in the Authorization header, and the endpoint that a v1 key brings along."""

    secret: str = field(repr=False)
    endpoint: str | None


def split_token(text: object) -> Credential:
    """Return what an API key, v1 or v2, holds; ValueError says what is wrong, showing nothing."""
    found = _split(text)
    if isinstance(found, Credential):
        return found
    del text
    raise ValueError(found)


def expiry_of(secret: str) -> float | None:
    """Return when a JSON Web Token expires, in seconds since 1970; None if it does not say."""
    parts = secret.split(".")
    claims = _json_inside(parts[1]) if len(parts) == 3 else None
    expiry = claims.get("exp") if isinstance(claims, dict) else None
    if not isinstance(expiry, int | float) or isinstance(expiry, bool):
        return None
    return float(expiry) if 0 <= expiry <= _LAST_SECOND else None


def parse_token(value: object) -> Credential | Callable[[], str]:
    """Return the credential, or the callable to ask for one, that TOKEN means.

    A string is a dotted path when it consists of two or more identifiers joined by dots and does
    not begin like a JSON Web Token (``eyJ``); it must then be importable. Any other string is a
    key. A key that happens to look like a path can be given as a callable that returns it.
    """
    if callable(value):
        # The process's client is found by its options, so they must be hashable.
        return value if isinstance(value, Hashable) else value.__call__
    if not isinstance(value, str) or not _is_dotted_path(value):
        return split_token(value)
    found, problem = _import_callable(value)
    if found is not None:
        return found
    del value
    raise ValueError(
        f"looks like a dotted path to a callable, but {problem};"
        " correct the path, or give a key of that form as a callable that returns it"
    )


def _is_dotted_path(text: str) -> bool:
    return bool(_DOTTED_PATH.fullmatch(text)) and not text.startswith(_JSON_PREFIX)


def _import_callable(path: str) -> tuple[Callable[[], str] | None, str]:
    """Return what the path names, or None and why, without the path: it may be a token."""
    try:
        found = import_string(path)
    except Exception as error:
        if is_raised_by_signal_handler(error):
            raise
        return None, f"importing it fails ({type(error).__name__})"
    if not callable(found):
        return None, f"what it names cannot be called ({type(found).__name__})"
    return found, ""


def _split(text: object) -> Credential | str:
    """Return the credential, or what is wrong."""
    if not isinstance(text, str):
        return f"must be a string or a callable that returns one, not {type(text).__name__}"
    # White space is never part of a key, but a secret read from a file often ends in a line feed.
    secret = text.strip()
    if not _VISIBLE_ASCII.fullmatch(secret):
        return _why_not_sendable(secret)
    document = _json_inside(secret)
    if isinstance(document, dict) and document.keys() & {"endpoint", "api_key"}:
        return _split_v1(document)
    if document is None and secret.startswith(_JSON_PREFIX) and "." not in secret:
        return "begins like a v1 key, but is incomplete; copy the whole key"
    return Credential(secret, None)


def _why_not_sendable(secret: str) -> str:
    if not secret:
        return "is empty; set it to an API key, or leave it out to use MOMENTO_API_KEY"
    return "must not contain whitespace, control or non-ASCII characters"


def _json_inside(secret: str) -> Any:
    """Return the JSON document that the key is in Base64, None where it is none."""
    digits = secret.rstrip("=").translate(_URL_SAFE)
    try:
        return json.loads(base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True))
    except ValueError as error:
        if is_raised_by_signal_handler(error):
            raise
        return None


def _split_v1(document: dict[str, Any]) -> Credential | str:
    secret = document.get("api_key")
    if not isinstance(secret, str) or not _VISIBLE_ASCII.fullmatch(secret):
        return "is a v1 key without a usable api_key; copy the whole key"
    try:
        return Credential(secret, parse_cell_host(document.get("endpoint")))
    except ValueError as error:
        if is_raised_by_signal_handler(error):
            raise
        return "is a v1 key without a usable endpoint; copy the whole key"
