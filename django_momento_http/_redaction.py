"""What an error may show of what somebody set: in its message, and in the frames that it leaves.

A value may be a credential in the wrong place. Django's debug page and error trackers show messages
and the locals of every frame of a traceback, and of the errors before it. It knows nothing of what
values mean.
"""

import difflib
import re
import sys
import traceback
from collections.abc import Collection, Iterable, Iterator
from types import TracebackType

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


class EmptiedFrames:
    """``with EmptiedFrames():`` whatever is raised inside leaves no locals in its frames."""

    def __enter__(self) -> None:
        self._handled = sys.exception()

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        if error is not None:
            empty_frames(error, self._handled)


def empty_frames(error: BaseException, handled: BaseException | None) -> None:
    """Empty the locals of the frames that an error has left; its lines stay in the traceback.

    ``handled`` is what the caller was handling before (``sys.exception()``): that error's frames
    are the caller's own, and stay as they are.
    """
    for each in _chain(error, handled):
        traceback.clear_frames(each.__traceback__)


def _chain(error: BaseException, handled: BaseException | None) -> Iterator[BaseException]:
    seen = {id(handled), id(None)}
    left: list[BaseException | None] = [error]
    while left:
        each = left.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield each
            left += [each.__cause__, each.__context__]
