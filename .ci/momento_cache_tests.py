"""Django's list of cache behaviours as two test cases: the sync and the async half of a backend.

It does not know which backend: the default entry of CACHES says so. Django's `tests` folder has
to be importable. The aliases with culling are left out, as Django does for Redis and memcached,
which makes the three culling tests skip themselves.
"""

import asyncio
from typing import Any
from unittest import mock

from asgiref.sync import async_to_sync
from cache.tests import BaseCacheTests, caches_setting_for_tests
from django.conf import settings
from django.core.cache import caches
from django.test import TestCase, override_settings


def cache_settings(location: str) -> dict[str, dict[str, Any]]:
    """Return the aliases that the mix-in uses, in a cache that no other class touches."""
    base = {**settings.CACHES["default"], "LOCATION": location}
    return caches_setting_for_tests(base=base, exclude={"cull", "zero_cull"})


def in_coroutine() -> bool:
    """Say whether an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class AsyncHalf:
    """A cache alias whose every method is answered by its async twin."""

    def __init__(self, alias: str) -> None:
        """Remember the alias; the backend is looked up with each use."""
        vars(self)["alias"] = alias

    def __getattr__(self, name: str) -> Any:
        """Return the twin for sync callers; a coroutine already asks for what it wants."""
        backend = caches[self.alias]
        twin = getattr(backend, f"a{name}", None)
        return getattr(backend, name) if twin is None or in_coroutine() else async_to_sync(twin)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set what a test replaces, such as the key function, on the backend."""
        setattr(caches[self.alias], name, value)

    def __delattr__(self, name: str) -> None:
        """Undo what a test replaced."""
        delattr(caches[self.alias], name)

    def __contains__(self, key: str) -> bool:
        """Answer `in`, which has no async form, as `has_key` does."""
        return self.has_key(key)


class AsyncHalves:
    """The handler of aliases, for the async half."""

    def __getitem__(self, alias: str) -> AsyncHalf:
        """Return the async half of an alias that exists."""
        caches[alias]
        return AsyncHalf(alias)


@override_settings(CACHES=cache_settings("sync"))
class MomentoCacheTests(BaseCacheTests, TestCase):
    """Django's list of behaviours."""


@override_settings(CACHES=cache_settings("async"))
class MomentoAsyncCacheTests(BaseCacheTests, TestCase):
    """Django's list of behaviours, through the methods that begin with `a`."""

    @classmethod
    def setUpClass(cls) -> None:
        """Put the async half in place of the names that the mix-in imported."""
        super().setUpClass()
        halves = {"cache": AsyncHalf("default"), "caches": AsyncHalves()}
        cls.enterClassContext(mock.patch.multiple("cache.tests", **halves))
