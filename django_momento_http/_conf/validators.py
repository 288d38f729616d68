"""One configured value to what it means, or a ValueError that completes "<option> ...".

Numbers and flags may be strings, as environment variables and cache URLs give them. It knows
nothing of which options there are.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from .._redaction import meant, shown

T = TypeVar("T")

_DECIMAL = re.compile(r"[0-9]{1,19}(?:\.[0-9]*)?|\.[0-9]+")


def flag(value: object) -> bool:
    """Validate True or False."""
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise _refusal("True or False", value)
    return value


def whole(accepted: str, low: int, high: int) -> Callable[[object], int]:
    """Return the validator of whole numbers from low to high."""

    def validate(value: object) -> int:
        number = int(value) if _is_numeric(value) and "." not in value else value
        if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
            raise _refusal(accepted, value)
        return int(number)

    return validate


def seconds(accepted: str, low: float, high: float) -> Callable[[object], float]:
    """Return the validator of durations from low to high; NaN and infinity are outside of any."""

    def validate(value: object) -> float:
        number = float(value) if _is_numeric(value) else value
        if not isinstance(number, int | float) or isinstance(number, bool):
            raise _refusal(accepted, value)
        if not low <= number <= high:
            raise _refusal(accepted, value)
        return float(number)

    return validate


def one_of(meanings: Mapping[str, T]) -> Callable[[object], T]:
    """Return the validator of these names."""

    def validate(value: object) -> T:
        if isinstance(value, str) and value in meanings:
            return meanings[value]
        hint = meant(value, meanings) if isinstance(value, str) else "give a string"
        problem = f"must be one of {', '.join(meanings)}, not {shown(value, meanings)}"
        raise ValueError(f"{problem}; {hint}" if hint else problem)

    return validate


def secret(value: object) -> str:
    """Validate a text that no message may show."""
    if not isinstance(value, str):
        raise ValueError(f"must be a string, not {type(value).__name__}")
    encoded_secret(value)
    return str(value)


def encoded_secret(value: object) -> bytes:
    """Validate a key as text or bytes that are not empty, to its bytes."""
    if not isinstance(value, (str, bytes)):
        raise ValueError(f"must be a string or bytes, not {type(value).__name__}")
    if not value.strip():
        raise ValueError("must not be empty")
    try:
        return bytes(value) if isinstance(value, bytes) else value.encode()
    except UnicodeEncodeError:
        problem = "must be a string that UTF-8 can encode"
    # Outside the except block: that error holds the secret.
    raise ValueError(problem)


def file(value: object) -> str:
    """Validate the path of a file that exists and can be read, to its absolute form."""
    if not isinstance(value, str | os.PathLike):
        raise _refusal("the path of a file", value)
    path = os.fspath(value)
    if "\0" in path or not os.access(path, os.R_OK) or not Path(path).is_file():
        # What lies in a folder that exists is no credential.
        folder = path.rpartition(os.sep)[0]
        is_path = bool(folder) and "\0" not in path and os.access(folder, os.R_OK)
        raise _refusal("the path of a file that exists and can be read", path, [path] * is_path)
    return str(Path(path).absolute())


def or_none(validate: Callable[[Any], T]) -> Callable[[object], T | None]:
    """Return the validator that takes None as well."""

    def validate_or_none(value: object) -> T | None:
        is_none = value is None or (isinstance(value, str) and value.lower() == "none")
        return None if is_none else validate(value)

    return validate_or_none


def _is_numeric(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and bool(_DECIMAL.fullmatch(value))


def _refusal(accepted: str, value: object, known: Iterable[str] = ()) -> ValueError:
    return ValueError(f"must be {accepted}, not {shown(value, known)}")
