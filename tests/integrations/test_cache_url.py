"""django-cache-url, which makes CACHES from a URL and knows no OPTIONS."""

import pytest
from django.core.cache import caches
from django.test import override_settings

from django_momento_http.testing import RunningServer

NEEDS = "needs django-cache-url: pip install 'django-momento-http[integrations]'"
django_cache_url = pytest.importorskip("django_cache_url", reason=NEEDS)

BACKEND = "django_momento_http.cache.MomentoCache"
# What Django reads beside OPTIONS; all else in a query is meant for the backend.
DJANGO_KEYS = {"BACKEND", "LOCATION", "TIMEOUT", "KEY_PREFIX", "VERSION", "KEY_FUNCTION"}


@pytest.fixture
def momento_url(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> RunningServer:
    """The server that the environment names; ``momento://`` is a known scheme."""
    monkeypatch.setitem(django_cache_url.BACKENDS, "momento", BACKEND)
    monkeypatch.setenv("MOMENTO_API_KEY", server.token)
    monkeypatch.setenv("MOMENTO_ENDPOINT", server.endpoint)
    return server


def parse(url: str) -> dict[str, object]:
    """Return a CACHES entry, with the five words that put options where Django looks for them."""
    parsed = django_cache_url.parse(url)
    options = {name: parsed.pop(name) for name in parsed.keys() - DJANGO_KEYS}
    return {**parsed, "OPTIONS": options}


@pytest.mark.parametrize(
    ("url", "key", "ttl"),
    [
        ("momento://default-cache", b":1:name", 300),
        ("momento://default-cache?timeout=60&key_prefix=site", b"site:1:name", 60),
        ("momento://default-cache?max_ttl=30&on_error=raise&clear_max_age=0", b":1:name", 30),
    ],
)
def test_a_url(momento_url: RunningServer, url: str, key: bytes, ttl: int) -> None:
    """What stands in a URL's query arrives as strings, and works."""
    with override_settings(CACHES={"default": parse(url)}):
        caches["default"].set("name", "value")
    puts = [request for request in momento_url.requests if request.method == "PUT"]
    assert [(request.key, request.ttl_seconds) for request in puts] == [(key, ttl)]


def test_options_are_left_beside_options(momento_url: RunningServer) -> None:
    """The parser itself puts options where no backend of Django's looks for them."""
    parsed = django_cache_url.parse("momento://default-cache?max_ttl=30")
    assert parsed == {"BACKEND": BACKEND, "LOCATION": "default-cache", "MAX_TTL": "30"}
    with override_settings(CACHES={"default": parsed}):
        caches["default"].set("name", "value")
    [put] = [request for request in momento_url.requests if request.method == "PUT"]
    assert put.ttl_seconds == 300
