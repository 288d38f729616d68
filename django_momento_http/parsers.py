"""One configured value to what it means, or a ValueError that completes "<option> ...".

Numbers and flags may be strings, as environment variables and cache URLs give them. It knows
nothing of which options there are.
"""

import difflib
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

T = TypeVar("T")

_DECIMAL = re.compile(r"[0-9]{1,19}(?:\.[0-9]*)?|\.[0-9]+")
# The longest text that is shown although nobody knows what it is. No credential is as short.
_SHORT = 16
_LARGE = 10**16
_SIZED = (bytes, list, tuple, dict, set)
_LONG_RUN = re.compile(rf"[^._~:/ -]{{{_SHORT + 1}}}")


def shown(value: object, known: Iterable[str] = ()) -> str:
    """Return a wrong value as a message may show it: it may be a credential in the wrong place."""
    if is_harmless(value, known):
        return repr(value)
    if isinstance(value, str):
        return f"a string of {len(value)} characters"
    length = f" and length {len(value)}" if isinstance(value, _SIZED) else ""
    return f"a value of type {type(value).__name__}{length}"


def is_harmless(value: object, known: Iterable[str] = ()) -> bool:
    """Whether a value is too short for a credential, or close to a known one."""
    if isinstance(value, str):
        return len(value) <= _SHORT or bool(_meant(value, list(known)))
    if isinstance(value, bytes):
        return len(value) <= _SHORT
    if isinstance(value, int):
        return -_LARGE < value < _LARGE
    return value is None or isinstance(value, float)


def shown_name(name: str) -> str:
    """Return a name that somebody gave as a message may show it, cut where it looks random."""
    return f"{name[:4]}... ({len(name)} characters)" if _LONG_RUN.search(name) else name


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return the known word that was probably meant, or all of them."""
    words = list(known)
    return _meant(word, words) or f"known are {', '.join(words)}"


def _meant(word: str, words: Collection[str]) -> str:
    close = difflib.get_close_matches(word.strip().lower(), [name.lower() for name in words], 1)
    meant = [name for name in words if name.lower() in close]
    return f"did you mean {meant[0]}?" if meant else ""


def flag(value: object) -> bool:
    """Parse True or False."""
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise _refusal("True or False", value)
    return value


def whole(accepted: str, low: int, high: int) -> Callable[[object], int]:
    """Return the parser of whole numbers from low to high."""

    def parse(value: object) -> int:
        number = int(value) if _is_numeric(value) and "." not in value else value
        if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
            raise _refusal(accepted, value)
        return int(number)

    return parse


def seconds(accepted: str, low: float, high: float) -> Callable[[object], float]:
    """Return the parser of durations from low to high; NaN and infinity are outside of any."""

    def parse(value: object) -> float:
        number = float(value) if _is_numeric(value) else value
        if not isinstance(number, int | float) or isinstance(number, bool):
            raise _refusal(accepted, value)
        if not low <= number <= high:
            raise _refusal(accepted, value)
        return float(number)

    return parse


def one_of(meanings: Mapping[str, T]) -> Callable[[object], T]:
    """Return the parser of these names."""

    def parse(value: object) -> T:
        if isinstance(value, str) and value in meanings:
            return meanings[value]
        hint = _meant(value, meanings) if isinstance(value, str) else "give a string"
        problem = f"must be one of {', '.join(meanings)}, not {shown(value, meanings)}"
        raise ValueError(f"{problem}; {hint}" if hint else problem)

    return parse


def named(accepted: str, find: Callable[[str], T]) -> Callable[[object], T]:
    """Return the parser of names that another function knows."""

    def parse(value: object) -> T:
        if not isinstance(value, str) or not value:
            raise _refusal(accepted, value)
        return find(value)

    return parse


def secret(value: object) -> str:
    """Parse a text that no message may show."""
    if not isinstance(value, str):
        raise ValueError(f"must be a string, not {type(value).__name__}")
    encoded_secret(value)
    return str(value)


def encoded_secret(value: object) -> bytes:
    """Parse text or bytes that nobody can guess, as far as their emptiness goes."""
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
    """Parse the path of a file that exists and can be read, to its absolute form."""
    if not isinstance(value, str | os.PathLike):
        raise _refusal("the path of a file", value)
    path = os.fspath(value)
    if "\0" in path or not os.access(path, os.R_OK) or not Path(path).is_file():
        # What lies in a folder that exists is no credential.
        folder = path.rpartition(os.sep)[0]
        is_path = bool(folder) and "\0" not in path and os.access(folder, os.R_OK)
        raise _refusal("the path of a file that exists and can be read", path, [path] * is_path)
    return str(Path(path).absolute())


def or_none(parse: Callable[[Any], T]) -> Callable[[object], T | None]:
    """Return the parser that takes None as well."""

    def parse_or_none(value: object) -> T | None:
        is_none = value is None or (isinstance(value, str) and value.lower() == "none")
        return None if is_none else parse(value)

    return parse_or_none


def _is_numeric(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and bool(_DECIMAL.fullmatch(value))


def _refusal(accepted: str, value: object, known: Iterable[str] = ()) -> ValueError:
    return ValueError(f"must be {accepted}, not {shown(value, known)}")
