"""A secret that must not be seen, and an eye on every place where it might be.

``seen_in`` finds the token of the tests' servers, or any eight characters of it, in a text. What
tests log and print passes by here (``conftest.py``), and so do the targets of the requests that
backends send. Of the package it knows only where it lies.
"""

import logging
import secrets
import string
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

from django.views.debug import ExceptionReporter

# No part of it is a word, so that nothing else looks like it.
_LENGTH = 40
_SLICE = 8
TOKEN = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(_LENGTH))
# What the servers of most tests take: not random, but not to be seen either.
PLAIN = "test-token"
# Below this, Django's debug page shows the settings, of which it masks some by their names.
SETTINGS_BELOW = "Using settings module"
TESTS = str(Path(__file__).parents[1])
PACKAGE = str(Path(find_spec("django_momento_http").origin or "").parent)  # type: ignore[union-attr]
# Loggers that would show a request; at DEBUG they say all that they know.
_TALKERS = ("django_momento_http", "requests", "urllib3")


def seen_in(text: str, *secrets: str) -> bool:
    """Whether a text shows one of the secrets, or a slice of it."""
    return any(
        secret[start : start + _SLICE] in text
        for secret in secrets or (TOKEN, PLAIN)
        for start in range(len(secret) - _SLICE + 1)
    )


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, and all that it hangs on."""
    left: list[BaseException | None] = [error]
    while left:
        current = left.pop()
        if current is not None:
            yield current
            left += [current.__cause__, current.__context__]


def frames(error: BaseException) -> Iterator[FrameType]:
    """Yield the frames that an error has left, but those of tests."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if not frame.f_code.co_filename.startswith(TESTS):
            yield frame


def shown(value: object) -> str:
    """Return what a debugger shows of a value, nothing where the value cannot be shown."""
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - a value of a test may fail in any way
        return ""


def shown_by(error: BaseException, *, below: str = PACKAGE) -> str:
    """Return all that a log, a console or a debugger shows of an error, and of frames below."""
    texts = []
    for each in chain(error):
        texts += [str(each), repr(each), repr(vars(each)), repr(each.args)]
        texts += traceback.format_exception(type(each), each, each.__traceback__)
        for frame in frames(each):
            if frame.f_code.co_filename.startswith(below):
                texts += map(shown, frame.f_locals.values())
    return "\n".join(texts)


def reports_on(error: BaseException, *, with_settings: bool = True) -> str:
    """Return Django's debug page, as HTML and as text, without the frames of tests above."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(TESTS):
        trace = trace.tb_next
    reporter = ExceptionReporter(None, type(error), error, trace)
    pages = [reporter.get_traceback_html(), reporter.get_traceback_text()]
    if not with_settings:
        pages = [page.partition(SETTINGS_BELOW)[0] for page in pages]
    return "".join(pages)


class Watch(logging.Handler):
    """Keeps the places where the secret was seen."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.sightings: list[str] = []

    def check(self, place: str, text: str) -> None:
        """Note the place if the text shows the secret; never the text."""
        if seen_in(text):
            self.sightings.append(place)

    def emit(self, record: logging.LogRecord) -> None:
        """Check a line, with its arguments and its exception."""
        text = f"{record.getMessage()} {record.args!r}"
        if record.exc_info and record.exc_info[1] is not None:
            text += "".join(traceback.format_exception(record.exc_info[1]))
        self.check(f"a line of the logger {record.name}", text)

    def check_targets(self, server: Any) -> None:
        """Check the target, path and query, of every request that the server reads."""
        service = server._service
        admit: Callable[..., Any] = service.admit

        def admit_checked(method: str, target: bytes, *rest: Any) -> Any:
            self.check("the target of a request", target.decode("latin-1"))
            return admit(method, target, *rest)

        service.admit = admit_checked

    def check_report(self, report: Any) -> None:
        """Check what one test has printed and logged."""
        for title, text in report.sections:
            self.check(title, text)

    def take(self) -> list[str]:
        """Return the sightings since the last time."""
        taken, self.sightings = self.sightings, []
        return taken


@contextmanager
def watching(*loggers: str) -> Iterator[Watch]:
    """Watch what these loggers say, at DEBUG; the root logger is ``""``."""
    watch = Watch()
    levels = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).addHandler(watch)
        logging.getLogger(name).setLevel(logging.DEBUG)
    try:
        yield watch
    finally:
        for name, level in levels.items():
            logging.getLogger(name).removeHandler(watch)
            logging.getLogger(name).setLevel(level)


@contextmanager
def warned(watch: Watch) -> Iterator[None]:
    """Check all that is warned of meanwhile."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        watch.check("a warning", str(warning.message))


SESSION = Watch()


def watch_session() -> None:
    """Watch over the whole session."""
    for name in _TALKERS:
        logging.getLogger(name).addHandler(SESSION)
        logging.getLogger(name).setLevel(logging.DEBUG)
