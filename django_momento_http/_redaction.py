"""What a message may show of a value that somebody set: it may be a credential in the wrong place.

It knows nothing of what values mean.
"""

import difflib
import re
from collections.abc import Collection, Iterable

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
        return len(value) <= _SHORT or bool(meant(value, list(known)))
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
    return meant(word, words) or f"known are {', '.join(words)}"


def meant(word: str, words: Collection[str]) -> str:
    """Return the question for the word that was probably meant, nothing where none is close."""
    close = difflib.get_close_matches(word.strip().lower(), [name.lower() for name in words], 1)
    meant = [name for name in words if name.lower() in close]
    return f"did you mean {meant[0]}?" if meant else ""
