"""django-debug-toolbar's cache panel, which wraps the methods of a backend."""

from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import cache
from django.test import RequestFactory

from django_momento_http.testing import RunningServer

NEEDS = "needs django-debug-toolbar: pip install 'django-momento-http[integrations]'"
pytest.importorskip("debug_toolbar", reason=NEEDS)

from debug_toolbar.panels.cache import CachePanel  # noqa: E402

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


def use_all() -> None:
    """Use the cache in each way that the panel counts."""
    cache.set("a", 1)
    cache.get("a")
    cache.get("b", 0)
    cache.get_or_set("c", lambda: 3)
    cache.get_many(["a", "b"])
    cache.set_many({"d": 4})
    cache.incr("a")
    cache.add("a", 1)
    cache.touch("a")
    cache.has_key("a")
    cache.delete("a")
    cache.delete_many(["d"])
    cache.clear()


def test_every_call_is_recorded_once(watch: Watch) -> None:
    """The panel shows the calls of the site, in order, with the backend's name, hits and misses."""
    panel = watch(use_all)
    assert [call["name"] for call in panel.calls] == (
        "set get get get_or_set get_many set_many incr add touch has_key delete delete_many clear"
    ).split()
    assert {call["backend"] for call in panel.calls} == {"default (MomentoCache)"}
    assert (panel.hits, panel.misses) == (3, 2)
    assert all(call["time"] > 0 for call in panel.calls)


def test_calls_between_requests_are_not_recorded(watch: Watch) -> None:
    """After a request the panel lets go of the backend, which works on."""
    panel = watch(lambda: cache.set("a", 1))
    assert cache.get("a") == 1
    assert len(panel.calls) == 1


def test_calls_of_tasks_are_not_recorded(watch: Watch) -> None:
    """The panel wraps the methods for threads alone: those for tasks do not pass through them."""
    panel = watch(lambda: async_to_sync(cache.aset)("a", 1))
    assert (panel.calls, cache.get("a")) == ([], 1)


def test_the_panel_is_shown(momento_server: RunningServer, settings: Any) -> None:
    """The panel's page and its line in the side bar can be made."""
    settings.TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates"}]
    CachePanel.ready()
    panel = CachePanel(None, lambda request: None)
    panel.enable_instrumentation()
    cache.get("a")
    panel.disable_instrumentation()
    stats: dict[str, Any] = {}
    panel.record_stats = stats.update
    panel.generate_stats(RequestFactory().get("/"), None)
    assert (stats["total_calls"], stats["misses"]) == (1, 1)
