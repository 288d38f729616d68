"""What a silence of the service leaves behind: nothing that was ended meanwhile comes back.

A site logs users out, takes permissions away and counts on while the service says nothing. What it
could not delete or overwrite is valid and signed; once the service answers again neither this
process nor another may take it for the truth.
"""

import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import pytest
from django.core.cache import cache

from django_momento_http.testing import Fault, RunningServer
from tests.support.sizes import FULL

from .harness import Program, started

pytestmark = pytest.mark.django_db

CACHE = "django.contrib.sessions.backends.cache"
CACHED_DB = "django.contrib.sessions.backends.cached_db"
SILENCE, DEADLINE = (10.0, 1.0) if FULL else (1.5, 0.5)
# Beyond the breaker's longest pause, and for a payment beside each of the operations.
LONGEST_WAIT = 30.0
USERS = 8
# Nothing is done, and nothing is said; or done all the same.
SILENT = {
    "nothing done": Fault(status=503, delay=600, times=None),
    "all done": Fault(delay=600, times=None),
}


class Site:
    """A site with users, permissions and counters, and what it must not show any more."""

    def __init__(self, engine: str) -> None:
        self._store = import_module(engine).SessionStore
        self._prefix = self._store.cache_key_prefix
        self.cookies = [self.log_in(number) for number in range(USERS)]
        cache.set_many({f"permission-{number}": "may" for number in range(USERS)})
        cache.set_many({f"counter-{number}": 3 for number in range(USERS)})
        self.rounds = 0

    def log_in(self, number: int) -> str:
        """Begin a session and return its cookie."""
        session = self._store()
        session["user"] = number
        session.save()
        return str(session.session_key)

    def user_of(self, cookie: str) -> int | None:
        """Return as whom a cookie is seen."""
        user: int | None = self._store(cookie).get("user")
        return user

    def go_on(self) -> None:
        """Log half of the users out, take half of the permissions away, and count."""
        self.rounds += 1
        half = range(USERS // 2)
        for number in half:
            session = self._store(self.cookies[number])
            session.flush()
        ways: list[Callable[[str], Any]] = [
            cache.delete,
            lambda key: cache.delete_many([key]),
            lambda key: cache.set(key, "may", timeout=0),
            lambda key: cache.set_many({key: "may not"}),
        ]
        for number in half:
            ways[number % len(ways)](f"permission-{number}")
            cache.set(f"counter-{number}", 3 + self.rounds)

    def kept(self) -> dict[str, str]:
        """Return what was never touched, by key."""
        return {f"permission-{number}": "may" for number in range(USERS // 2, USERS)}

    def session_keys(self) -> list[str]:
        """Return the cache's keys of those who are logged out."""
        return [self._prefix + cookie for cookie in self.cookies[: USERS // 2]]

    def revived(self, found: dict[str, Any]) -> list[str]:
        """Return what a process finds that must be gone."""
        half = range(USERS // 2)
        permissions = [f"permission-{number}" for number in half]
        counters = [f"counter-{number}" for number in half]
        return [
            *(key for key in permissions if found.get(key) == "may"),
            *(key for key in counters if found.get(key, 3 + self.rounds) != 3 + self.rounds),
            *(key for key in self.session_keys() if key in found),
        ]

    def keys(self) -> list[str]:
        """Return all keys that a reader may look at."""
        numbers = range(USERS)
        names = [f"{name}-{number}" for name in ("permission", "counter") for number in numbers]
        return names + self.session_keys()


@contextmanager
def silence(server: RunningServer, how: str) -> Iterator[Callable[[], bool]]:
    """Let the service say nothing; yields whether that shall go on."""
    end = time.monotonic() + SILENCE
    server.inject(SILENT[how])
    yield lambda: time.monotonic() < end or cache.stats()["breaker"] == "closed"
    server.clear_faults()


def until(is_so: Callable[[], bool]) -> None:
    """Use the cache until something is so, not for ever."""
    end = time.monotonic() + LONGEST_WAIT
    while not is_so():
        assert time.monotonic() < end, cache.stats()
        cache.get("another-key")
        time.sleep(0.005)


def ask(other: Program, keys: list[str]) -> dict[str, Any]:
    """Return what another process finds."""
    other.tell(json.dumps(keys))
    found: dict[str, Any] = other.hear()["found"]
    return found


PAIRS = list(itertools.product(SILENT, [CACHE, CACHED_DB]))


@pytest.mark.parametrize(("how", "engine"), PAIRS if FULL else PAIRS[::3])
def test_what_was_ended_in_a_silence_stays_ended(
    how: str, engine: str, server: RunningServer, settings: Any
) -> None:
    """Logouts, deletions and counts of an outage hold once it is over, in every process."""
    entry = server.cache_settings(REQUEST_TIMEOUT=DEADLINE, CLEAR_MAX_AGE=1)
    settings.CACHES = {**settings.CACHES, "default": entry}
    with started("peek", entry=entry) as other:
        other.hear()
        site = Site(engine)
        assert site.user_of(site.cookies[0]) == 0
        newcomers: list[str] = []
        with silence(server, how) as lasts:
            while lasts():
                site.go_on()
                if engine == CACHED_DB and len(newcomers) < USERS:
                    newcomers.append(site.log_in(99))
        # At once, as soon as the service is asked again; and before anything was paid for.
        until(lambda: cache.get(f"permission-{USERS - 1}") == "may")
        check(site, newcomers)
        until(lambda: cache.stats()["owed"] == 0)
        check(site, newcomers)
        found = ask(other, site.keys())
        assert site.revived(found) == []
        assert found.items() >= site.kept().items()


def check(site: Site, newcomers: list[str]) -> None:
    """Let this process look at everything."""
    half = USERS // 2
    seen = [site.user_of(cookie) for cookie in site.cookies]
    assert seen == [None] * half + list(range(half, USERS))
    found = cache.get_many(site.keys())
    assert site.revived(found) == []
    assert found.items() >= site.kept().items()
    assert [site.user_of(cookie) for cookie in newcomers] == [99] * len(newcomers)
