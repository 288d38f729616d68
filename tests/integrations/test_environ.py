"""django-environ, which makes CACHES from a URL, a JSON document or words of the environment."""

import json
from typing import Any

import pytest
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from django_momento_http.exceptions import ServiceFailed
from django_momento_http.testing import Fault, RunningServer

NEEDS = "needs django-environ: pip install 'django-momento-http[integrations]'"
environ = pytest.importorskip("environ", reason=NEEDS)

BACKEND = "django_momento_http.cache.MomentoCache"


class Env(environ.Env):
    """Environment variables, with the one line that a project adds for ``momento://`` URLs."""

    CACHE_SCHEMES = environ.Env.CACHE_SCHEMES | {"momento": BACKEND}


@pytest.fixture
def momento_environ(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> RunningServer:
    """The server that the environment names, as it does in production."""
    monkeypatch.setenv("MOMENTO_API_KEY", server.token)
    monkeypatch.setenv("MOMENTO_ENDPOINT", server.endpoint)
    return server


def use(config: dict[str, Any], server: RunningServer) -> str:
    """Store something under such settings and return the key that arrived."""
    with override_settings(CACHES={"default": config}):
        cache = caches["default"]
        cache.set("name", "value")
        assert cache.get("name") == "value"
    [key] = {key for _, key in server.items}
    return key.decode()


@pytest.mark.parametrize(
    ("url", "key", "ttl"),
    [
        ("momento://default-cache", ":1:name", 300),
        ("momento://default-cache?timeout=60&key_prefix=site", "site:1:name", 60),
        ("momento://default-cache?timeout=None&version=2&max_ttl=120", ":2:name", 120),
        ("momento://default-cache?request_timeout=2.5&max_connections=4", ":1:name", 300),
        ("momento://default-cache?serializer=json&compressor=None", ":1:name", 300),
        ("momento://default-cache?clear_max_age=0&on_error=raise", ":1:name", 300),
    ],
)
def test_a_url(
    momento_environ: RunningServer, monkeypatch: pytest.MonkeyPatch, url: str, key: str, ttl: int
) -> None:
    """What stands in a URL's query is an option, or Django's own setting, in any case."""
    monkeypatch.setenv("CACHE_URL", url)
    assert use(Env().cache_url(), momento_environ) == key
    puts = [request for request in momento_environ.requests if request.method == "PUT"]
    assert [request.ttl_seconds for request in puts] == [ttl]


def test_a_url_with_a_known_scheme(momento_environ: RunningServer) -> None:
    """Without a scheme of our own, ``backend`` names the backend, if the URL is no Redis URL."""
    config = environ.Env.cache_url_config("locmemcache://default-cache?timeout=60", backend=BACKEND)
    assert use(config, momento_environ) == ":1:name"


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("momento://default-cache?on_eror=raise", "did you mean ON_ERROR"),
        ("momento://default-cache?request_timeout=soon", "REQUEST_TIMEOUT"),
        ("momento://token@default-cache", "LOCATION"),
        ("momento://a,b", "LOCATION"),
    ],
)
def test_a_wrong_url(
    momento_environ: RunningServer, monkeypatch: pytest.MonkeyPatch, url: str, complaint: str
) -> None:
    """A mistake in the URL is named when the backend is built, and no token is shown."""
    monkeypatch.setenv("CACHE_URL", url)
    with (
        override_settings(CACHES={"default": Env().cache_url()}),
        pytest.raises(ImproperlyConfigured, match=complaint) as caught,
    ):
        caches["default"].get("name")
    assert "token@" not in str(caught.value)


def test_options_as_words(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options may all be strings, as ``env.dict()`` gives them."""
    words = {
        "ENDPOINT": server.endpoint,
        "TOKEN": server.token,
        "ALLOW_PLAIN_HTTP": "true",
        "PROXY": "None",
        "CA_BUNDLE": "None",
        "ON_ERROR": "raise",
        "REQUEST_TIMEOUT": "2.5",
        "CONNECT_TIMEOUT": "1",
        "MAX_CONNECTIONS": "8",
        "MAX_TTL": "3600",
        "SERIALIZER": "pickle",
        "COMPRESSOR": "zlib",
        "COMPRESS_MIN_BYTES": "64",
        "SIGNING_KEY": "for tests only",
        "CLEAR_MAX_AGE": "0",
    }
    monkeypatch.setenv("MOMENTO", ",".join(f"{name}={text}" for name, text in words.items()))
    options = environ.Env().dict("MOMENTO")
    assert options == words
    config = {
        "BACKEND": BACKEND,
        "LOCATION": "default-cache",
        "OPTIONS": options,
        "TIMEOUT": "60",
    }
    assert use(config, server) == ":1:name"
    server.inject(Fault(status=503, times=None))
    with override_settings(CACHES={"default": config}), pytest.raises(ServiceFailed):
        caches["default"].get("name")


def test_a_json_document(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole entry may be one JSON document."""
    monkeypatch.setenv("CACHE", json.dumps(server.cache_settings(TIMEOUT=None, KEY_PREFIX="site")))
    assert use(environ.Env().json("CACHE"), server) == "site:1:name"
