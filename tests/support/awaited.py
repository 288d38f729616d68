"""Async methods called as if they were sync, so that one test serves both."""

import asyncio
from collections.abc import Callable
from typing import Any

from django_momento_http.cache import MomentoCache


class Awaited:
    """A backend spoken to through its async twins, each awaited in an event loop of its own."""

    def __init__(self, cache: MomentoCache) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Callable[..., Any]:
        twin = getattr(self._cache, f"a{name}")
        return lambda *args, **kwargs: asyncio.run(twin(*args, **kwargs))
