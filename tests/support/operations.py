"""The cache's methods: what each says and sends when the service fails, and what came of a call.

Their keys and values must not be seen in any message; ``Lines`` looks at all that loggers say.
"""

import asyncio
import logging
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from django_momento_http.cache import MomentoCache
from tests.support.canary import TOKEN, seen_in

KEYS = ("Pq4zT8kwA", "Rv2yH6mxB", "Jf9cL3nsC", "Wd7bG5tuD")
KEY, VALUE = KEYS[0], "Zx1rM0vyEhKq"
HIDDEN = (*KEYS, VALUE, *(urlsafe_b64encode(key.encode()).decode() for key in KEYS))


class Operation(NamedTuple):
    """A method, what it says in "miss" mode, and what it would send were all to fail.

    ``first`` is how many requests there are when nothing is sent after the first one failed.
    ``logged_as`` is the operation's name where Django builds it from another.
    """

    name: str
    arguments: tuple[Any, ...]
    missed: Any
    requests: tuple[str, ...] = ("GET",)
    first: int = 1
    logged_as: str = ""


OPERATIONS = (
    Operation("get", (KEY, "default"), "default"),
    Operation("get_many", (KEYS,), {}, ("GET",) * 4, 4),
    Operation("set", (KEY, VALUE), None, ("PUT",)),
    Operation("set_many", (dict.fromkeys(KEYS, VALUE),), list(KEYS), ("PUT",) * 4, 4),
    Operation("add", (KEYS[1], VALUE), False),
    Operation("touch", (KEY, 60), False),
    # The DELETE follows also where the GET failed.
    Operation("delete", (KEY,), False, ("GET", "DELETE")),
    Operation("delete_many", (KEYS,), None, ("DELETE",) * 4, 4),
    Operation("has_key", (KEY,), False),
    Operation("incr", (KEY,), ValueError),
    Operation("decr", (KEY,), ValueError, logged_as="incr"),
    Operation("incr_version", (KEY,), ValueError),
    Operation("get_or_set", (KEY, lambda: VALUE), VALUE),
    Operation("ttl", (KEY,), 0),
    Operation("clear", (), None),
)
# What the option ON_ERROR may be.
MODES = ("miss", "raise")


class Outcome(NamedTuple):
    """What came of one call: what was returned or raised, and what that took."""

    result: Any
    elapsed: float
    # How often get_or_set() asked for the default.
    computed: int


def carry_out(cache: MomentoCache, operation: Operation, *, is_async: bool) -> Outcome:
    """Call the method and return what came of it."""
    computed: list[int] = []

    def counted(default: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: computed.append(1) or default()

    name = operation.name
    arguments = [counted(each) if callable(each) else each for each in operation.arguments]
    began = time.monotonic()
    try:
        if is_async:
            began, result = asyncio.run(timed(cache, name, arguments))
        else:
            result = getattr(cache, name)(*arguments)
    except Exception as error:  # noqa: BLE001 - judged by the caller
        result = error
    return Outcome(result, time.monotonic() - began, len(computed))


async def timed(cache: MomentoCache, name: str, arguments: list[Any]) -> tuple[float, Any]:
    """Call the twin; the event loop's own start does not count."""
    began = time.monotonic()
    try:
        return began, await getattr(cache, f"a{name}")(*arguments)
    except Exception as error:  # noqa: BLE001 - judged by the caller
        return began, error


class Lines(logging.Handler):
    """Keeps the package's lines, and notes where one of any logger, at DEBUG, shows a secret."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []
        self.sightings: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        is_ours = record.name == "django_momento_http"
        text = f"{record.getMessage()} {record.args!r} {record.exc_info}"
        # A traceback would show what the caller's frames know.
        if seen_in(text, TOKEN, *HIDDEN) or (is_ours and record.exc_info):
            self.sightings.append(f"{record.name}: {record.msg}")
        if is_ours:
            self.records.append(record)

    def about(self, location: str) -> list[tuple[int, str]]:
        """Return the levels and the lines that operations on this cache have caused."""
        name = f"on the Momento cache {location!r}"
        lines = [(record.levelno, record.getMessage()) for record in self.records]
        return [line for line in lines if name in line[1]]


@contextmanager
def listening() -> Iterator[Lines]:
    """Listen to all loggers."""
    root, handler = logging.getLogger(), Lines()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield handler
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
