"""What ``manage.py check`` says of the settings of Momento caches."""

import json
import re
from base64 import urlsafe_b64encode
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import InvalidCacheBackendError
from django.core.cache.backends.locmem import LocMemCache
from django.core.management import call_command
from django.core.management.base import SystemCheckError

from django_momento_http import checks
from django_momento_http.cache import MomentoCache
from django_momento_http.checks import CHECKS, check_deployment, check_settings
from django_momento_http.testing import RunningServer

TOKEN = "canary-6f1d0c9be2"
LONG_KEY = "secret-of-b-and-nobody-else-0123"
JSON_SESSIONS = "django.contrib.sessions.serializers.JSONSerializer"
CACHED = "django.contrib.sessions.backends.cache"
CACHED_DB = "django.contrib.sessions.backends.cached_db"
UPDATE = "django.middleware.cache.UpdateCacheMiddleware"
LOCMEM = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}


class OurCache(MomentoCache):
    """A subclass, as a project may have one."""


class Elsewhere(LocMemCache):
    """A backend that takes the option which ours refuses."""


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MOMENTO_API_KEY", "MOMENTO_ENDPOINT", "MOMENTO_REGION"):
        monkeypatch.delenv(name, raising=False)


def momento(**given: Any) -> dict[str, Any]:
    """Return a row of CACHES; Django's own keys go beside OPTIONS."""
    names = {"BACKEND", "LOCATION", "TIMEOUT", "KEY_PREFIX"}
    beside = {name: given.pop(name) for name in names & given.keys()}
    return {
        "BACKEND": "django_momento_http.cache.MomentoCache",
        "LOCATION": "my-cache",
        **beside,
        "OPTIONS": {"REGION": "us-west-2", "TOKEN": TOKEN, **given},
    }


def encoded(document: object) -> str:
    """Return a JSON document in Base64, as keys and tokens hold it."""
    return urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()


def jwt(**claims: Any) -> str:
    """Return a JSON Web Token with these claims."""
    return f"{encoded({'alg': 'none'})}.{encoded(claims)}.c2lnbmF0dXJl"


def v1_key(secret: str = TOKEN, host: str = "cell-us-east-1-1.prod.a.momentohq.com") -> str:
    """Return a v1 key, of another region unless the host says otherwise."""
    return encoded({"endpoint": host, "api_key": secret})


def checked(**options: Any) -> str:
    """Run ``manage.py check`` and return all that it says, which never holds the token."""
    out = StringIO()
    try:
        call_command("check", stdout=out, stderr=out, **options)
    except SystemCheckError as error:
        out.write(str(error))
    assert TOKEN not in out.getvalue()
    return out.getvalue()


def ids(text: str) -> list[str]:
    """Return the ids of our messages."""
    return sorted(re.findall(r"django_momento_http\.([EW]\d{3})", text))


def apply(settings: Any, changes: dict[str, Any]) -> None:
    """Change settings; ``default`` stands for CACHES with one alias."""
    for name, value in changes.items():
        if name == "default":
            settings.CACHES = {"default": value}
        else:
            setattr(settings, name, value)


# The list of checks


def test_ids_are_unique() -> None:
    """No id stands for two things."""
    names = [check.id for check in CHECKS]
    assert len(set(names)) == len(names)


def test_ids_are_documented() -> None:
    """The module's table has each id once, in the order of the list, and no other."""
    table = re.findall(r"^([EW]\d{3})   \S", checks.__doc__ or "", re.MULTILINE)
    assert table == [check.id for check in CHECKS]


def test_good_settings_pass(settings: Any) -> None:
    """There is nothing to say of the settings that the README shows."""
    settings.CACHES = {"default": momento()}
    assert ids(checked()) == []


def test_checks_are_offline(settings: Any, server: RunningServer) -> None:
    """A check sends no request."""
    settings.CACHES = {"default": server.cache_settings(TIMEOUT=None)}
    checked(deploy=True)
    assert server.requests == []


# E001

BROKEN: list[tuple[dict[str, Any], str]] = [
    (momento(REGOIN="us-west-2"), "'REGOIN' is not a known option; did you mean REGION?"),
    (momento(REGION="us-west-9"), "REGION must be one of"),
    (momento(REGION=None), "REGION is missing, and so is ENDPOINT"),
    (momento(TOKEN=None), "TOKEN is missing"),
    (momento(TOKEN=""), "TOKEN is empty"),
    (momento(LOCATION="my cache"), "LOCATION must be the name of a Momento cache"),
    (momento(MAX_TTL=-1), "MAX_TTL must be a whole number"),
    (momento(SERIALIZER="yaml"), "SERIALIZER"),
    (momento(ENDPOINT="http://192.0.2.1"), "ENDPOINT must begin with https://"),
    (momento(TOKEN=v1_key()), "REGION and TOKEN contradict each other"),
    (momento(CA_BUNDLE=__file__), "CA_BUNDLE cannot be used"),
    (momento() | {"OPTIONS": None}, "OPTIONS must be a dictionary"),
    (momento() | {"OPTIONS": ["REGION"]}, "OPTIONS must be a dictionary"),
]


@pytest.mark.parametrize(("row", "text"), BROKEN, ids=[text for _, text in BROKEN])
def test_bad_settings_are_an_error(settings: Any, row: dict[str, Any], text: str) -> None:
    """What would raise ImproperlyConfigured is an Error with its text, and no traceback."""
    settings.CACHES = {"default": row}
    said = checked()
    assert ids(said) == ["E001"]
    assert text in said
    assert "CACHES['default']" in said
    assert "HINT: " in said


def test_v1_key_that_agrees_with_the_region(settings: Any) -> None:
    """A v1 key and its own region do not contradict each other."""
    settings.CACHES = {"default": momento(TOKEN=v1_key(), REGION="us-east-1")}
    assert ids(checked()) == []


def test_an_option_in_the_wrong_place_is_told_with_what_is_missing(settings: Any) -> None:
    """Where an option is missed because it stands beside OPTIONS, both are said."""
    apply(settings, {"default": momento(TOKEN=None) | {"TOKEN": "misplaced-secret"}})
    said = checked()
    assert sorted(ids(said)) == ["E001", "W009"]
    assert "TOKEN stands beside OPTIONS" in said
    assert "misplaced-secret" not in said


def test_an_error_for_each_alias(settings: Any) -> None:
    """One bad alias hides neither another nor what is to be said of a good one."""
    settings.CACHES = {
        "default": momento(TIMEOUT=None),
        "one": momento(SPEED=1),
        "two": momento(BACKEND=f"{__name__}.OurCache", MAX_CONNECTIONS=0),
    }
    assert ids(checked()) == ["E001", "E001", "W001"]


def test_bad_settings_under_deploy(settings: Any) -> None:
    """The checks of a deployment get past a bad alias, too, and report it once."""
    settings.CACHES = {"default": momento(SPEED=1)}
    settings.STATIC_ROOT = str(Path(__file__).parent)
    assert ids(checked(deploy=True)) == ["E001"]


@pytest.mark.parametrize(
    "row",
    [
        {**LOCMEM, "OPTIONS": {"SPEED": 1}, "TIMEOUT": None},
        {"BACKEND": f"{__name__}.Elsewhere", "TIMEOUT": None},
    ],
)
def test_other_backends_are_none_of_ours(settings: Any, row: dict[str, Any]) -> None:
    """Aliases with another backend are not looked at."""
    settings.CACHES = {"default": row}
    assert ids(checked()) == []


def test_trouble_of_other_backends_stays_visible(settings: Any) -> None:
    """A backend that cannot be imported stops ``check`` as it does without this package."""
    settings.CACHES = {"default": {"BACKEND": "no.such.Backend"}}
    with pytest.raises(InvalidCacheBackendError):
        checked()


# Warnings: the id, settings that bring it about, and words of the message

WARNED: list[tuple[str, dict[str, Any], str]] = [
    ("W001", {"default": momento(TIMEOUT=86401)}, "TIMEOUT is 86401"),
    ("W001", {"default": momento(TIMEOUT=None)}, "TIMEOUT is None"),
    ("W001", {"default": momento(TIMEOUT=61, MAX_TTL=60)}, "after 60 s"),
    ("W001", {"default": momento(BACKEND=f"{__name__}.OurCache", TIMEOUT=None)}, "TIMEOUT"),
    ("W002", {"default": momento(), "SESSION_ENGINE": CACHED}, "SESSION_COOKIE_AGE is 1209600"),
    ("W003", {"default": momento(SERIALIZER="json"), "MIDDLEWARE": [UPDATE]}, "responses"),
    (
        "W004",
        {
            "default": momento(SERIALIZER="json"),
            "SESSION_ENGINE": CACHED_DB,
            "SESSION_SERIALIZER": "project.sessions.PickleSerializer",
        },
        "sessions may hold",
    ),
    ("W005", {"default": momento(TOKEN=jwt(exp=86400))}, "expired at 1970-01-02 00:00 UTC"),
    (
        "W005",
        {"default": momento(TOKEN=v1_key(jwt(exp=86400.0)), REGION=None)},
        "expired at 1970-01-02",
    ),
    (
        "W006",
        {"CACHES": {"default": momento(), "b": momento(SERIALIZER="json")}},
        "shares LOCATION and KEY_PREFIX with 'b', but not SERIALIZER:",
    ),
    (
        "W006",
        {"CACHES": {"default": momento(), "b": momento(SIGNING_KEY=LONG_KEY)}},
        "but not SIGNING_KEY:",
    ),
    (
        "W006",
        {"CACHES": {"default": momento(), "b": momento(SERIALIZER="json", SIGNING_KEY=LONG_KEY)}},
        "but not SERIALIZER and SIGNING_KEY: they may not be able to read each other's values.",
    ),
    (
        "W006",
        {"CACHES": {"default": momento(), "b": momento(MAX_TTL=3600)}},
        "but not MAX_TTL: a clear() through the lower is forgotten before",
    ),
    (
        "W006",
        {
            "CACHES": {
                "default": momento(MAX_TTL=None),
                "b": momento(SERIALIZER="json", SIGNING_KEY=LONG_KEY),
            }
        },
        "each other's values; a clear() through the lower is forgotten",
    ),
    (
        "W006",
        {"CACHES": {"default": momento(), "b": momento(CLEAR_MAX_AGE=None)}},
        "but not CLEAR_MAX_AGE: through one alias values are seen that another has cleared",
    ),
    (
        "W007",
        {
            "default": momento(),
            "REST_FRAMEWORK": {"DEFAULT_THROTTLE_CLASSES": ["rest_framework.throttling.X"]},
        },
        "Django REST framework's throttling counts",
    ),
    ("W007", {"default": momento(), "RATELIMIT_USE_CACHE": "default"}, "django-ratelimit counts"),
    ("W007", {"default": momento(), "AXES_CACHE": "default"}, "django-axes counts"),
    (
        "W007",
        {"default": momento(), "AXES_HANDLER": "axes.handlers.cache.AxesCacheHandler"},
        "django-axes counts",
    ),
    *(
        ("W006", {"CACHES": {"default": momento(), "b": momento(**{name: 7})}}, f"but not {name}:")
        for name in ("NEAR_MAX_AGE", "NEAR_MAX_STALE", "NEAR_MAX_BYTES")
    ),
    (
        "W012",
        {
            "default": momento(NEAR_MAX_AGE=5, ON_ERROR="raise"),
            "REST_FRAMEWORK": {"DEFAULT_THROTTLE_CLASSES": ["rest_framework.throttling.X"]},
        },
        "NEAR_MAX_AGE 5 lets each process read counts of",
    ),
    (
        "W012",
        {"default": momento(NEAR_MAX_AGE=0.5, ON_ERROR="raise"), "RATELIMIT_USE_CACHE": "default"},
        "django-ratelimit counts",
    ),
    (
        "W012",
        {"default": momento(NEAR_MAX_AGE=5, ON_ERROR="raise"), "AXES_CACHE": "default"},
        "django-axes counts",
    ),
    ("W009", {"default": momento() | {"ON_ERROR": "raise"}}, "ON_ERROR stands beside OPTIONS"),
    ("W009", {"default": momento() | {"max_ttl": 60}}, '"OPTIONS": {"max_ttl": ...}'),
    ("W009", {"default": momento() | {"OPTION": {}}}, "'OPTION' is not OPTIONS"),
    ("W009", {"default": momento() | {"options": {}}}, "'options' is not OPTIONS"),
    ("W010", {"default": momento(SIGNING_KEY="secret-of-b")}, "fewer than 32 characters"),
    ("W010", {"default": momento(SIGNING_KEY=LONG_KEY[:31])}, "secrets.token_urlsafe(32)"),
    (
        "W011",
        {"default": momento(TOKEN=v1_key(host="momentohq.com.example"), REGION=None)},
        "to api.cache.momentohq.com.example, which is not under momentohq.com",
    ),
    (
        "W011",
        {"default": momento(TOKEN=v1_key(host="a.not-momentohq.com"), REGION=None)},
        "set ENDPOINT to it",
    ),
]


@pytest.mark.parametrize(("name", "changes", "text"), WARNED)
def test_warnings(settings: Any, name: str, changes: dict[str, Any], text: str) -> None:
    """Each surprise is told by its id, in words and with a hint, and fails nothing."""
    apply(settings, changes)
    said = checked()
    assert ids(said) == [name]
    assert text in said
    assert "HINT: " in said
    assert "secret-of-b" not in said
    assert "SystemCheckError" not in said


QUIET: list[dict[str, Any]] = [
    {"default": momento(NEAR_MAX_AGE=5), "SESSION_ENGINE": CACHED_DB},
    {
        "CACHES": {
            "default": momento(NEAR_MAX_AGE=5),
            "limits": momento(ON_ERROR="raise", KEY_PREFIX="limits"),
        },
        "RATELIMIT_USE_CACHE": "limits",
    },
    {"default": momento(TIMEOUT=86400)},
    {"default": momento(TIMEOUT=None, MAX_TTL=None)},
    {"default": momento(), "SESSION_ENGINE": CACHED, "SESSION_COOKIE_AGE": 86400},
    {"default": momento(), "SESSION_ENGINE": CACHED_DB},
    {"default": momento(MAX_TTL=None), "SESSION_ENGINE": CACHED},
    {
        "CACHES": {"default": momento(), "local": LOCMEM},
        "SESSION_ENGINE": CACHED,
        "SESSION_CACHE_ALIAS": "local",
    },
    {"default": momento(), "MIDDLEWARE": [UPDATE]},
    {
        "CACHES": {"default": momento(SERIALIZER="json"), "local": LOCMEM},
        "MIDDLEWARE": [UPDATE],
        "CACHE_MIDDLEWARE_ALIAS": "local",
    },
    {"default": momento(SERIALIZER="json"), "SESSION_ENGINE": CACHED_DB},
    {"default": momento(), "SESSION_SERIALIZER": "project.PickleSerializer"},
    {"default": momento(TOKEN=jwt(exp=253402300799))},
    {"default": momento(TOKEN=jwt(sub="me"))},
    {"default": momento(TOKEN=jwt(exp=True))},
    {"default": momento(TOKEN=jwt(exp=-1e300))},
    {"default": momento(TOKEN=lambda: jwt(exp=1))},
    {"CACHES": {"default": momento(), "b": momento(SERIALIZER="json", KEY_PREFIX="b")}},
    {"CACHES": {"default": momento(), "b": momento(SERIALIZER="json", LOCATION="b")}},
    {"CACHES": {"default": momento(), "b": momento(SERIALIZER="json", REGION="us-east-1")}},
    {"CACHES": {"default": momento(), "b": momento(ON_ERROR="raise")}},
    {"CACHES": {"default": momento(), "b": momento(CLEAR_MAX_AGE=60)}},
    {"CACHES": {"default": momento(CLEAR_MAX_AGE=None), "b": momento(CLEAR_MAX_AGE=None)}},
    {"default": momento(ON_ERROR="raise"), "RATELIMIT_USE_CACHE": "default"},
    {
        "CACHES": {"default": momento(), "local": LOCMEM},
        "RATELIMIT_USE_CACHE": "local",
        "AXES_CACHE": "local",
    },
    {"default": momento(), "REST_FRAMEWORK": {"DEFAULT_THROTTLE_CLASSES": []}},
    {"default": momento(), "REST_FRAMEWORK": None},
    {"default": momento(), "AXES_HANDLER": "axes.handlers.database.AxesDatabaseHandler"},
    {"default": momento() | {"MAX_ENTRIES": 9, "VERSION": 2, "TIMEOUT": 60}},
    {"default": momento(SIGNING_KEY=LONG_KEY)},
    {
        "CACHES": {
            "default": momento(SIGNING_KEY=LONG_KEY, MAX_TTL=3600),
            "b": momento(SIGNING_KEY=LONG_KEY, MAX_TTL=3600),
        }
    },
    {"CACHES": {"default": momento(), "b": momento(MAX_TTL=3600, KEY_PREFIX="b")}},
    {"default": momento(TOKEN=v1_key(), REGION=None)},
    {"default": momento(TOKEN=v1_key(host="a.example.com"), REGION=None, ENDPOINT="a.example.com")},
    {"default": momento(TOKEN=lambda: v1_key(host="a.example.com"))},
]


@pytest.mark.parametrize("changes", QUIET)
def test_no_warning(settings: Any, changes: dict[str, Any]) -> None:
    """What is as it should be, or cannot be seen, is not warned of."""
    apply(settings, changes)
    assert ids(checked()) == []


@pytest.mark.parametrize(("now", "expected"), [(999.0, []), (1000.0, ["W005"])])
def test_a_token_expires_by_the_clock(settings: Any, now: float, expected: list[str]) -> None:
    """A token is valid until the second that it names."""
    settings.CACHES = {"default": momento(TOKEN=jwt(exp=1000))}
    messages = check_settings(clock=lambda: now)
    assert ids(" ".join(map(str, messages))) == expected


# W008


@pytest.mark.parametrize(
    ("token", "environ", "expected"),
    [
        (TOKEN, {}, ["W008"]),
        (TOKEN, {"OTHER": "value"}, ["W008"]),
        (TOKEN, {"ANY_NAME": TOKEN}, []),
        (f"{TOKEN}\n", {"ANY_NAME": TOKEN}, []),
        (TOKEN, {"CACHE_URL": f"momento://my-cache?token={TOKEN}"}, []),
        (lambda: TOKEN, {}, []),
        ("os.getcwd", {}, []),
    ],
)
def test_a_typed_in_token(
    settings: Any, token: Any, environ: dict[str, str], expected: list[str]
) -> None:
    """A string that no variable holds was typed in; a callable or its path was not."""
    settings.CACHES = {"default": momento(TOKEN=token)}
    messages = check_deployment(environ=environ)
    assert ids(" ".join(map(str, messages))) == expected


def test_a_typed_in_token_matters_in_deployment_only(settings: Any) -> None:
    """While developing, nobody is told."""
    settings.CACHES = {"default": momento(token=TOKEN, TOKEN=None)}
    del settings.CACHES["default"]["OPTIONS"]["TOKEN"]
    assert ids(checked()) == []
    assert ids(checked(deploy=True)) == ["W008"]


def test_a_token_of_the_environment(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that OPTIONS leave to the environment was not typed in."""
    monkeypatch.setenv("MOMENTO_API_KEY", TOKEN)
    settings.CACHES = {"default": momento(TOKEN=None)}
    assert ids(checked(deploy=True)) == []
