"""django-debug-toolbar's cache panel, which wraps the methods of a backend."""

from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import cache
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import include, path

from django_momento_http.testing import RunningServer

NEEDS = "needs django-debug-toolbar: pip install 'django-momento-http[integrations]'"
pytest.importorskip("debug_toolbar", reason=NEEDS)

from debug_toolbar.panels.cache import CachePanel  # noqa: E402


def index(request: HttpRequest) -> HttpResponse:
    """Answer after a look into the cache."""
    cache.get("a")
    return HttpResponse("<html><body>the body</body></html>")


Watch = Callable[[Callable[[], object]], CachePanel]


@pytest.fixture
def watch(momento_server: RunningServer) -> Watch:
    """A function that calls another and returns the panel that watched it."""
    CachePanel.ready()

    def run(function: Callable[[], Any]) -> CachePanel:
        panel = CachePanel(None, lambda request: None)
        panel.enable_instrumentation()
        try:
            function()
        finally:
            panel.disable_instrumentation()
        return panel

    return run


CALLS: list[tuple[str, Callable[[], object]]] = [
    ("set", lambda: cache.set("a", 1)),
    ("get", lambda: cache.get("a")),
    ("get", lambda: cache.get("b", 0)),
    ("get_or_set", lambda: cache.get_or_set("c", lambda: 3)),
    ("get_many", lambda: cache.get_many(["a", "b"])),
    ("set_many", lambda: cache.set_many({"d": 4})),
    ("incr", lambda: cache.incr("a")),
    ("add", lambda: cache.add("a", 1)),
    ("touch", lambda: cache.touch("a")),
    ("has_key", lambda: cache.has_key("a")),
    ("delete", lambda: cache.delete("a")),
    ("delete_many", lambda: cache.delete_many(["d"])),
    ("clear", lambda: cache.clear()),
]


def test_every_call_is_recorded_once(watch: Watch) -> None:
    """The panel shows the calls of the site, in order, with the backend's name, hits and misses."""
    panel = watch(lambda: [call() for _, call in CALLS])
    assert [call["name"] for call in panel.calls] == [name for name, _ in CALLS]
    assert {call["backend"] for call in panel.calls} == {"default (MomentoCache)"}
    assert (panel.hits, panel.misses) == (3, 2)


def test_calls_between_requests_are_not_recorded(watch: Watch) -> None:
    """After a request the panel lets go of the backend, which works on."""
    panel = watch(lambda: cache.set("a", 1))
    assert cache.get("a") == 1
    assert len(panel.calls) == 1


def test_calls_of_tasks_are_not_recorded(watch: Watch) -> None:
    """The panel wraps the methods for threads alone: those for tasks do not pass through them."""
    panel = watch(lambda: async_to_sync(cache.aset)("a", 1))
    assert (panel.calls, cache.get("a")) == ([], 1)


def test_a_page_with_the_toolbar(momento_server: RunningServer, settings: Any) -> None:
    """A whole page under the toolbar's middleware carries the panel with its call."""
    settings.STATIC_URL = "static/"
    settings.TEMPLATES = [
        {"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}
    ]
    settings.MIDDLEWARE = ["debug_toolbar.middleware.DebugToolbarMiddleware"]
    apps = ["django.contrib.staticfiles", "debug_toolbar"]
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, *apps]
    # What follows imports its models, so that it must be installed by now.
    settings.DEBUG_TOOLBAR_PANELS = ["debug_toolbar.panels.cache.CachePanel"]
    settings.DEBUG_TOOLBAR_CONFIG = {"SHOW_TOOLBAR_CALLBACK": lambda request: True}
    settings.ROOT_URLCONF = (path("", index), path("__debug__/", include("debug_toolbar.urls")))
    page = Client().get("/").content.decode()
    assert "1 call in" in page
    assert "the body" in page
