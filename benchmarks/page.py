"""A whole page through Django's test client: what a cache costs where it is used.

The page reads and saves its session, asks for twenty keys at once and for five with a default. It
knows Django, and nothing of what the aliases stand for.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from django.conf import settings
from django.core.cache import caches
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import path

VALUE = {"name": "v" * 150, "numbers": [1, 2, 3]}
MANY = [f"many{number}" for number in range(20)]
PARTS = [f"part{number}" for number in range(5)]
CONTENT = b"25 values"


def page(request: HttpRequest) -> HttpResponse:
    """Use the cache of the alias that the session is kept in."""
    cache = caches[settings.SESSION_CACHE_ALIAS]
    request.session["seen"] = request.session.get("seen", 0) + 1
    found = list(cache.get_many(MANY).values())
    found += [cache.get_or_set(part, lambda: VALUE, 300) for part in PARTS]
    return HttpResponse(f"{len(found)} values")


urlpatterns = [path("", page)]


def pages(aliases: Mapping[str, dict[str, Any]], closing: ExitStack) -> list[Callable[[], bytes]]:
    """Return for each alias what asks for the page, warm; the settings hold until the closing."""
    closing.enter_context(
        override_settings(
            CACHES={"default": next(iter(aliases.values())), **aliases},
            SESSION_ENGINE="django.contrib.sessions.backends.cache",
            MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
            ROOT_URLCONF=__name__,
            ALLOWED_HOSTS=["*"],
        )
    )
    return [_asking(alias) for alias in aliases]


def _asking(alias: str) -> Callable[[], bytes]:
    caches[alias].set_many(dict.fromkeys(MANY, VALUE), 3600)
    client = Client()

    def ask() -> bytes:
        settings.SESSION_CACHE_ALIAS = alias
        return client.get("/").content

    ask()  # which begins the session
    return ask
