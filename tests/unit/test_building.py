"""Building a backend: whatever fails, no frame that is left holds a secret, and settings stay."""

import gc
import linecache
import random
import secrets
import signal
import string
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate, count, repeat
from pathlib import Path
from traceback import walk_tb
from types import FrameType
from typing import Any

import pytest
from django.conf import settings
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.test import override_settings

from django_momento_http import _backend
from django_momento_http._conf import credentials
from django_momento_http._conf import django_settings as beside
from django_momento_http._conf import options as conf
from django_momento_http._conf.rules import RULES
from django_momento_http._diagnostics import probe
from django_momento_http._http import transport
from django_momento_http._redaction import EmptiedFrames
from django_momento_http._store.store import forget_endpoint
from django_momento_http.cache import MomentoCache
from django_momento_http.testing import running_server
from tests.support.canary import PACKAGE, TOKEN, reports_on, seen_in, shown_by


def random_text() -> str:
    """Return a secret that looks like nothing else."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(40))


SIGNING_KEY, SECRET_KEY, OLD_KEY = random_text(), random_text(), random_text()
SECRETS = (TOKEN, SIGNING_KEY, SECRET_KEY, OLD_KEY)
NO_PEM = str(Path(__file__))
OPTIONS = [rule.name for rule in RULES]
# What empties the frames below it.
OUTERMOST = {MomentoCache.__init__.__code__, EmptiedFrames.__exit__.__code__}


class Trouble(RuntimeError):
    """What foreign code raises."""


def fail(*_: object, **__: object) -> Any:
    """Raise, as a project's own code may."""
    raise Trouble("odd")


class Bad:
    """A value of which everything fails that could be asked."""

    __str__ = __repr__ = __hash__ = __eq__ = __bool__ = __iter__ = __len__ = fail  # type: ignore
    __fspath__ = __int__ = __float__ = __lt__ = __le__ = __format__ = fail


def row(**beside: Any) -> dict[str, Any]:
    """Return a row of CACHES with both secrets; OPTIONS are added to those that there are."""
    options = {
        "ENDPOINT": "https://127.0.0.1:9",
        "TOKEN": TOKEN,
        "SIGNING_KEY": SIGNING_KEY,
        **beside.pop("OPTIONS", {}),
    }
    return {
        "BACKEND": "django_momento_http.cache.MomentoCache",
        "LOCATION": "my-cache",
        "OPTIONS": options,
        **beside,
    }


@contextmanager
def configured(given: dict[str, Any]) -> Iterator[None]:
    """Make it the default cache of a project with secrets of its own; nothing is remembered."""
    conf._remembered.cache_clear()
    with override_settings(
        CACHES={"default": given}, SECRET_KEY=SECRET_KEY, SECRET_KEY_FALLBACKS=[OLD_KEY]
    ):
        yield


def raised_by(function: Callable[..., object], *args: object) -> BaseException:
    """Return what a function raises."""
    try:
        result = function(*args)
    except BaseException as error:  # noqa: BLE001 - returned
        return error
    pytest.fail(f"there is {result!r}")


def failure(given: dict[str, Any]) -> BaseException:
    """Return what building the default cache raises."""
    with configured(given):
        return raised_by(caches.create_connection, "default")


def seen(error: BaseException) -> list[str]:
    """Return where an error shows a secret."""
    places = {
        "an error, or a frame": shown_by(error, below=""),
        "the debug page": reports_on(error, with_settings=False),
    }
    return [place for place, text in places.items() if seen_in(text, *SECRETS)]


def path_to(value: object) -> str:
    """Return the dotted path of something in this module."""
    return f"{__name__}.{value}"


class Unmakeable:
    """A codec that cannot be made."""

    def __init__(self) -> None:
        fail()


FAILURES: dict[str, dict[str, Any]] = {
    "a bundle that is no PEM": row(OPTIONS={"CA_BUNDLE": NO_PEM}),
    "a mistyped key function": row(KEY_FUNCTION="no_such_module.key"),
    "a key function that is none": row(KEY_FUNCTION="os.sep"),
    "a key function that is no path": row(KEY_FUNCTION=5),
    "a key prefix that has no text": row(KEY_PREFIX=Bad()),
    "an endless timeout": row(TIMEOUT=float("inf")),
    "a timeout that is no number": row(TIMEOUT=Bad()),
    "a codec that cannot be made": row(OPTIONS={"SERIALIZER": path_to("Unmakeable")}),
    "a token that is no token": row(OPTIONS={"TOKEN": [TOKEN]}),
    "a name that is no text": row(OPTIONS={5: SIGNING_KEY}),
    "no dictionary": row() | {"OPTIONS": [TOKEN, SIGNING_KEY]},
    **{f"odd {name}": row(OPTIONS={name: Bad()}) for name in OPTIONS},
    "odd LOCATION": row(LOCATION=Bad()),
    "odd OPTIONS": row() | {"OPTIONS": Bad()},
}
failures = pytest.mark.parametrize("given", FAILURES.values(), ids=FAILURES)


@failures
def test_no_failure_shows_a_secret(given: dict[str, Any]) -> None:
    """Whatever cannot be used: no message, no chain, no frame and no debug page shows a secret."""
    assert seen(failure(given)) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("SECRET_KEY", ""), ("SECRET_KEY_FALLBACKS", [OLD_KEY, None]), ("SECRET_KEY_FALLBACKS", "x")],
)
def test_a_bad_secret_key_shows_no_other(name: str, value: object) -> None:
    """Where Django's own keys are wrong, neither they nor the options are shown."""
    given = row(OPTIONS={"SIGNING_KEY": None})
    with (
        configured(given),
        override_settings(**{name: value}),
        pytest.raises(ImproperlyConfigured, match=name) as caught,
    ):
        caches.create_connection("default")
    assert seen(caught.value) == []


@failures
def test_settings_stay(given: dict[str, Any]) -> None:
    """A failure takes nothing out of the settings: the next try fails in the same way."""
    with configured(given):
        before = dict(given)
        options = list(given["OPTIONS"]) if isinstance(given["OPTIONS"], dict) else None
        errors = [raised_by(caches.create_connection, "default") for _ in range(2)]
        assert type(errors[0]) is type(errors[1])
        assert str(errors[0]) == str(errors[1])
        left = settings.CACHES["default"]
        assert all(left[name] is before[name] for name in before)
        assert options is None or list(left["OPTIONS"]) == options


NAMED = [
    (row(OPTIONS={"CA_BUNDLE": NO_PEM}), "CA_BUNDLE cannot be used"),
    (row(KEY_FUNCTION="no_such_module.key"), "KEY_FUNCTION cannot be used (ModuleNotFound"),
    (row(KEY_FUNCTION=path_to("Nothing")), "KEY_FUNCTION cannot be used (ImportError"),
    (row(KEY_FUNCTION="os.sep"), "KEY_FUNCTION must be a function, or a dotted path to one"),
    (row(KEY_FUNCTION=5), "KEY_FUNCTION must be a function, or a dotted path to one"),
    (row(KEY_PREFIX=Bad()), "KEY_PREFIX cannot be used (Trouble)"),
    (row(TIMEOUT=float("inf")), "TIMEOUT must be a number of seconds, or None"),
    (row(TIMEOUT=float("nan")), "TIMEOUT must be a number of seconds, or None"),
]


@pytest.mark.parametrize(("given", "text"), NAMED)
def test_what_is_wrong_is_named(given: dict[str, Any], text: str) -> None:
    """What stands beside OPTIONS is judged as they are: the setting and LOCATION are named."""
    error = failure(given)
    assert isinstance(error, ImproperlyConfigured)
    assert str(error).startswith(f"Momento cache 'my-cache': {text}")


def test_a_broken_installation_is_not_blamed_on_an_option(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where requests has lost its certificates, the error does not speak of CA_BUNDLE."""
    monkeypatch.setattr(transport, "DEFAULT_CA_BUNDLE_PATH", str(tmp_path / "lost.pem"))
    forget_endpoint("https://127.0.0.1:9")
    assert "the bundle of certificates in requests cannot be used (FileNot" in str(failure(row()))


class Interrupt(BaseException):
    """What a signal handler, a server's abort or gevent raises."""


@pytest.mark.parametrize(
    ("kind", "step"),
    [(Interrupt, 1), (KeyboardInterrupt, 7), (MemoryError, 7), (ImproperlyConfigured, 7)],
)
def test_what_interrupts_comes_out_as_it_is(kind: type[BaseException], step: int) -> None:
    """At whatever line of building it arrives, it comes out itself and the frames hold nothing."""
    wrong = []
    with configured(row(OPTIONS={"SERIALIZER": "json"})):
        for line in count(0, step):
            conf._remembered.cache_clear()
            error = interrupted(caches.create_connection, "default", line=line, kind=kind)
            if error is None:
                break
            if type(error) is not kind or seen_in(shown_by(error, below=""), *SECRETS):
                wrong.append((line, type(error)))
    assert line > 100
    assert wrong == []


# A socket may be lost with its frame.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupted_momento_check_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the command is stopped, no frame that it leaves holds the token that it sends."""
    monkeypatch.setattr(probe, "ROUNDS", 1)
    wrong = []
    with running_server(token=TOKEN) as server, configured(server.cache_settings()):
        # Each line would take minutes; these differ from run to run.
        for line in accumulate(repeat(0), lambda at, _: at + random.randint(1, 100)):
            error = interrupted(call_command, "momento_check", line=line, kind=Interrupt)
            if error is None:
                break
            wrong += [line] * seen_in(shown_by(error, below=""), *SECRETS)
        gc.collect()
    assert line > 1000
    assert wrong == []


def test_a_store_that_is_made_anew_leaves_nothing() -> None:
    """Where a process lets go of a store that nobody used, its next use may be interrupted, too."""
    given = row(OPTIONS={"ENDPOINT": "http://127.0.0.1:9"})
    seen_at = []
    with configured(given):
        cache = caches.create_connection("default")
        for line in range(0, 400, 3):
            forget_endpoint("http://127.0.0.1:9")
            error = interrupted(cache.stats, line=line, kind=Interrupt)
            if error is None:
                break
            seen_at += [line] * seen_in(shown_by(error, below=""), *SECRETS)
    assert line > 50
    assert seen_at == []


def interrupted(
    function: Callable[..., object], *args: Any, line: int, kind: type[BaseException]
) -> BaseException | None:
    """Call the function with an exception at the n-th line of the package; return what comes out.

    It runs in a thread of its own: after an exception of a trace function, a thread may go on
    handling what it was handling.
    """
    left = line
    raised: list[BaseException] = []

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line" and frame.f_code not in OUTERMOST and not begins_with_lock(frame):
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise kind
        return trace

    def call() -> None:
        sys.settrace(trace)
        try:
            function(*args)
        except BaseException as error:  # noqa: BLE001 - returned
            raised.append(error)
        finally:
            sys.settrace(None)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    return raised[0] if raised else None


def begins_with_lock(frame: FrameType) -> bool:
    """Whether it is at a with statement: nothing but a trace function comes before its end."""
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("with ")


class TimeIsUp(OSError):
    """What a handler raises that counts the seconds, and what could be taken for a bad file."""


def test_a_time_limit_is_not_taken_for_a_bad_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a signal handler raises while foreign code is called comes out as it is."""

    def end(*_: object) -> None:
        raise TimeIsUp

    def interrupted(*_: object, **__: object) -> Any:
        signal.raise_signal(signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, end)
    try:
        monkeypatch.setattr(_backend, "shared_store", interrupted)
        error = failure(row())
        assert type(error) is TimeIsUp
        assert seen(error) == []
        monkeypatch.setattr(Unmakeable, "__init__", interrupted)
        assert type(failure(row(OPTIONS={"SERIALIZER": path_to("Unmakeable")}))) is TimeIsUp
        for module in (beside, credentials):
            monkeypatch.setattr(module, "import_string", interrupted)
        assert type(failure(row(OPTIONS={"TOKEN": path_to("token")}))) is TimeIsUp
        assert type(failure(row(KEY_FUNCTION=path_to("key")))) is TimeIsUp
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_the_error_of_the_caller_keeps_its_frames() -> None:
    """An error that the caller is handling meanwhile is nobody else's: its frames stay whole."""

    def look(clue: str) -> None:
        raise LookupError(clue)

    given = row(KEY_FUNCTION="no_such_module.key")
    handled = raised_by(look, "of the caller")
    try:
        raise handled
    except LookupError:
        error = failure(given)
    assert error.__context__ is handled
    frames = [frame for frame, _ in walk_tb(handled.__traceback__)]
    assert frames[-1].f_locals == {"clue": "of the caller"}
