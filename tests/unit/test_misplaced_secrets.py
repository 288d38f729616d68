"""A credential in the wrong place is shown by nobody: no error, page, check or command."""

import json
import logging
import secrets
import string
from base64 import b64encode
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pytest
from django.conf import settings
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.core.management.base import SystemCheckError
from django.test import override_settings

from django_momento_http._conf.rules import RULES
from django_momento_http.exceptions import MomentoError
from django_momento_http.testing import Fault, running_server
from tests.support.canary import chain, reports_on, seen_in, shown_by


def random_text(length: int = 40) -> str:
    """Return letters and digits that look like nothing else."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(length))


def encoded(document: object) -> str:
    """Return a JSON document in Base64, as keys and tokens hold it."""
    return b64encode(json.dumps(document).encode()).decode().rstrip("=")


TOKEN = random_text()
V1_KEY = encoded({"endpoint": "cell.example.com", "api_key": TOKEN})
WEB_TOKEN = f"{encoded({'alg': 'HS256'})}.{encoded({'sub': TOKEN})}.{random_text(43)}"
SHORT_WEB_TOKEN = f"{encoded({'alg': 'none'})}.{encoded({'s': 1})}.{random_text(30)}"
DOTTED = f"{random_text()}.{random_text()}"
DIGITS = "".join(secrets.choice(string.digits) for _ in range(40))
# What is in the wrong place, and what must not be seen of it.
CREDENTIALS = {
    "token": (TOKEN, TOKEN),
    "v1 key": (V1_KEY, V1_KEY, TOKEN),
    "short web token": (SHORT_WEB_TOKEN, SHORT_WEB_TOKEN),
    "web token": (WEB_TOKEN, WEB_TOKEN),
    "dotted": (DOTTED, DOTTED),
    "digits": (DIGITS, DIGITS),
    "URL with a password": (f"redis://user:{TOKEN}@127.0.0.1:6379/1", TOKEN),
    "URL of a proxy": (f"http://{TOKEN}:{TOKEN}@127.0.0.1:9", TOKEN),
}
credentials = pytest.mark.parametrize("credential", CREDENTIALS.values(), ids=CREDENTIALS)
OPTIONS = [rule.name for rule in RULES]
BESIDE = ["LOCATION", "KEY_PREFIX", "KEY_FUNCTION", "VERSION", "TIMEOUT", "BACKENDS", "OPTION"]


def row(options: dict[Any, Any], **beside: Any) -> dict[str, Any]:
    """Return a row of CACHES that leads to a port where nobody listens."""
    return {
        "BACKEND": "django_momento_http.cache.MomentoCache",
        "LOCATION": "my-cache",
        **beside,
        "OPTIONS": {"ENDPOINT": "http://127.0.0.1:9", "TOKEN": "a", **options},
    }


def places(credential: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of CACHES with the credential in one place each."""
    for name in OPTIONS:
        yield name, row({name: credential})
        yield f"{name}, in a list", row({name: [credential]})
        yield f"{name}, in bytes", row({name: credential.encode()})
    yield "REGION, without ENDPOINT", row({"ENDPOINT": None, "REGION": credential})
    yield (
        "REGION and TOKEN swapped",
        row({"ENDPOINT": None, "REGION": credential, "TOKEN": "us-west-2"}),
    )
    yield "LOCATION and TOKEN swapped", row({"TOKEN": "my-cache"}, LOCATION=credential)
    for name in BESIDE:
        yield name, row({}, **{name: credential})
        yield f"{name}, and an option is wrong", row({"MAX_TTL": -1}, **{name: credential})
    yield "the name of an option", row({credential: "TOKEN"})
    yield "the name of an option, twice", row({credential.upper(): "a", credential.lower(): "a"})
    yield "the name of a setting", row({}, **{credential: "TOKEN"})
    yield "a callable's path", row({"TOKEN": f"os.{credential}"})
    yield "a class's path", row({"SERIALIZER": f"no_such.{credential}"})


def is_seen(text: str, secrets: tuple[str, ...]) -> bool:
    """Whether a text shows some of the secrets, in whatever case."""
    return seen_in(text.lower(), *(secret.lower() for secret in secrets))


def said(command: str, *arguments: str, **options: Any) -> str:
    """Return all that a command says."""
    out = StringIO()
    try:
        call_command(command, *arguments, stdout=out, stderr=out, **options)
    except (SystemCheckError, CommandError) as error:
        out.write(str(error))
    return out.getvalue()


def raised_by_building(alias: str) -> ImproperlyConfigured | None:
    """Return the error of a backend that cannot be built."""
    try:
        caches.create_connection(alias)
    except ImproperlyConfigured as error:
        return error
    return None


@credentials
def test_no_misplaced_credential_is_shown(credential: tuple[str, ...]) -> None:
    """Wherever a credential was put: nothing that anybody is told shows eight characters of it."""
    text, *secrets = credential
    shown = {}
    with override_settings(CACHES=dict(places(text))):
        for place in settings.CACHES:
            error = raised_by_building(place)
            shown[f"the error of {place}"] = "".join(f"{e} {e!r}" for e in chain(error))
            # Django's own frame has a local of this name, which nobody can empty.
            if error is not None and "LOCATION" not in place:
                shown[f"the frames of {place}"] = shown_by(error, below="")
                # The page shows what the frames do, and takes its time.
                if text == TOKEN:
                    shown[f"the page of {place}"] = reports_on(error, with_settings=False)
        shown["check"] = said("check", deploy=True)
        shown["momento_check"] = said("momento_check", no_color=True)
        shown["momento_check --json"] = said("momento_check", json=True)
    assert [way for way, text in shown.items() if is_seen(text, tuple(secrets))] == []


@credentials
def test_no_backend_is_shown_that_cannot_be_imported(credential: tuple[str, ...]) -> None:
    """The command says of an alias that is not ours which backend it has, if there is such."""
    text, *secrets = credential
    with override_settings(CACHES={"default": row({}), "other": row({}, BACKEND=text)}):
        told = said("momento_check", no_color=True) + said("momento_check", json=True)
        assert "cannot be imported" in told
        told += said("momento_check", "other")
    assert not is_seen(told, tuple(secrets))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"REGION": "us-west-9"}, "not 'us-west-9'; did you mean us-west-2?"),
        ({"REGION": "ap-southeast-2-eu"}, "not 'ap-southeast-2-eu'; did you mean"),
        ({"ON_ERROR": "raises"}, "not 'raises'; did you mean raise?"),
        ({"SERIALIZER": "yaml"}, "not 'yaml'"),
        (
            {"SERIALIZER": f"{__name__}.Missing"},
            f"'{__name__}.M",
        ),
        ({"MAX_TTL": "1 day"}, "not '1 day'"),
        ({"MAX_TTL": 10**15}, "not 1000000000000000"),
        ({"MAX_TTL": 10**16}, "not a value of type int"),
        ({"MAX_TTL": 10**5000}, "not a value of type int"),
        ({"MAX_CONNECTIONS": "x" * 16}, f"not '{'x' * 16}'"),
        ({"MAX_CONNECTIONS": "x" * 17}, "not a string of 17 characters"),
        ({"MAX_CONNECTIONS": ["x", "y"]}, "not a value of type list and length 2"),
        ({"CONNECTION_TIMEOUT": 1}, "'CONNECTION_TIMEOUT' is not a known option; did you mean"),
        ({"DJANGO_REDIS_LOG_IGNORED": 1}, "a string of 24 characters is not a known option"),
    ],
)
def test_what_was_meant_is_still_shown(options: dict[str, Any], text: str) -> None:
    """What is short, or close to what is known, is shown as it was given, to be mended."""
    with override_settings(CACHES={"default": row({"ENDPOINT": None, **options})}):
        assert text in str(raised_by_building("default"))


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("my-cache", "'my-cache'"),
        ("my-companys_production.session-cache-2024", "session-cache-2024'"),
        ("3f9c0b7e5d1a4862c7e0915bd84f2a6e", "'3f9c... (32 characters)'"),
        ("preview-3f9c0b7e-5d1a-4862-c7e0-915bd84f2a6e", "915bd84f2a6e'"),
    ],
)
def test_names_of_caches(location: str, shown: str) -> None:
    """A name made of words is shown whole, one that could be a token by its beginning."""
    with override_settings(CACHES={"default": row({"SPEED": 1}, LOCATION=location)}):
        assert shown in str(raised_by_building("default"))


@pytest.mark.parametrize("kind", ["token", "dotted", "web token"])
@pytest.mark.parametrize("place", ["LOCATION", "KEY_PREFIX"])
@pytest.mark.parametrize("status", [None, 404])
def test_no_use_shows_it(
    kind: str, place: str, status: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    """A token for the name of a cache, or for a prefix, is in no line, error, page or repr."""
    caplog.set_level(logging.DEBUG)
    credential = CREDENTIALS[kind][0]
    texts = []
    with running_server(token=TOKEN) as server:
        endpoint = "http://127.0.0.1:9" if status is None else server.endpoint
        server.inject(Fault(status=status or 500, body=b"Cache Not Found", times=None))
        for mode in ("miss", "raise"):
            given = row({"ENDPOINT": endpoint, "ON_ERROR": mode}, **{place: credential})
            with override_settings(CACHES={"default": given}):
                for operation in (caches["default"].clear, lambda: caches["default"].get("a")):
                    error = raised_by(operation)
                    if isinstance(error, MomentoError):
                        texts += [shown_by(error), reports_on(error, with_settings=False)]
                texts.append(repr(caches["default"]))
    assert len(texts) == 6
    assert caplog.messages
    texts += caplog.messages
    assert [text for text in texts if is_seen(text, (credential,))] == []


def raised_by(function: Callable[[], object]) -> Exception | None:
    """Return what a function raises."""
    try:
        function()
    except MomentoError as error:
        return error
    return None
