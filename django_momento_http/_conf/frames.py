"""What an exception leaves behind: frames, whose locals hold whatever was at hand.

Django's debug page and error trackers show the locals of every frame of a traceback, and of the
errors before it. Where secrets are read, the frames must be empty.
"""

import sys
import traceback
from collections.abc import Iterator
from types import TracebackType


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
