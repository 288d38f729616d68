"""Shows on each page what the cache did for it, and remembers how long the last calls took.

Four parts: the report of one request, kept in a context variable so that threads and tasks do
not mix; the last calls of each cache in this process; cache backends that write into both; a
middleware that puts the report into the page. None of them knows anything of lighthouses.
"""

import threading
import time
from asyncio import iscoroutinefunction
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.contrib.sessions.backends.cached_db import KEY_PREFIX as SESSION_PREFIX
from django.core.cache.backends.locmem import LocMemCache
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils.decorators import sync_and_async_middleware

from django_momento_http.cache import MomentoCache
from lighthouses.latency import Call
from lighthouses.savings import Sample

PLACE = b"<!-- cache report -->"  # stands in base.html, and so in pages that cache_page keeps
SESSION = "the session"  # shown instead of its key, which is a secret of the visitor's
MISSING = object()
REMEMBERED = 200  # calls of each cache: what a plot has room for


@dataclass
class Operation:
    """One call of the cache: what was asked, what was found, how long it took."""

    name: str
    keys: list[str]
    hits: int | None = None  # None: nothing was asked, as in a write
    milliseconds: float = 0.0
    making: float = 0.0  # milliseconds of those in which the site made a value

    @property
    def outcome(self) -> str:
        if self.hits is None:
            return f"{len(self.keys)} keys" if len(self.keys) > 1 else "sent"
        if len(self.keys) > 1:
            return f"{self.hits} of {len(self.keys)} hit"
        return "hit" if self.hits else "miss"

    def as_call(self) -> Call:
        """Give what is remembered: no key, and only the time that the cache took."""
        asked = "hit" if self.hits == len(self.keys) else "miss"
        outcome = "write" if self.hits is None else asked
        return Call(self.name, outcome, self.milliseconds - self.making)


class Recent:
    """The last calls of one cache in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: deque[Call] = deque(maxlen=REMEMBERED)
        # One more: what was counted before the first of the calls.
        self._samples: deque[Sample] = deque([Sample(0, 0)], maxlen=REMEMBERED + 1)

    def add(self, call: Call, sample: Sample) -> None:
        """Remember a call, and forget the oldest where there is no more room."""
        with self._lock:
            self._calls.append(call)
            self._samples.append(sample)

    def calls(self) -> list[Call]:
        """Give the calls, oldest first."""
        with self._lock:
            return list(self._calls)

    def samples(self) -> list[Sample]:
        """Give what was counted before these calls, and after each of them."""
        with self._lock:
            return list(self._samples)


@dataclass
class Report:
    """What one request cost."""

    started: float = field(default_factory=time.perf_counter)
    operations: list[Operation] = field(default_factory=list)
    computed: int = 0
    milliseconds: float = 0.0

    @property
    def found(self) -> bool:
        """Say whether anything but the session was found in the cache."""
        return any(o.hits and o.keys != [SESSION] for o in self.operations)

    def finish(self) -> None:
        self.milliseconds = _milliseconds_since(self.started)


_report: ContextVar[Report | None] = ContextVar("report", default=None)
_inside: ContextVar[bool] = ContextVar("inside", default=False)
# Django makes a backend per thread and task; those of one cache share its record.
_recent: dict[tuple[str, str], Recent] = {}


def _milliseconds_since(started: float) -> float:
    return (time.perf_counter() - started) * 1000


def computed() -> None:
    """Note that slow work was done because the cache did not have its result."""
    if report := _report.get():
        report.computed += 1


class Recorded:
    """Put before a cache backend, notes the calls that this site makes."""

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(location, params)
        self.recent = _recent.setdefault((location, self.key_prefix), Recent())

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        with self._noted("get", [key]) as operation:
            value = super().get(key, MISSING, version)
            operation.hits = int(value is not MISSING)
        return default if value is MISSING else value

    def has_key(self, key: str, version: int | None = None) -> bool:
        with self._noted("has_key", [key]) as operation:
            operation.hits = int(super().has_key(key, version))
        return bool(operation.hits)

    def get_or_set(self, key: str, default: Callable[[], Any], *args: Any, **kwargs: Any) -> Any:
        def missed() -> Any:
            operation.hits, started = 0, time.perf_counter()
            made = default()
            operation.making = _milliseconds_since(started)
            return made

        with self._noted("get_or_set", [key]) as operation:
            operation.hits = 1
            return super().get_or_set(key, missed, *args, **kwargs)

    def get_many(self, keys: Iterable[str], version: int | None = None) -> dict[str, Any]:
        keys = list(keys)
        with self._noted("get_many", keys) as operation:
            values = super().get_many(keys, version)
            operation.hits = len(values)
        return values

    async def aget_many(self, keys: Iterable[str], version: int | None = None) -> dict[str, Any]:
        keys = list(keys)
        with self._noted("aget_many", keys) as operation:
            values = await super().aget_many(keys, version)
            operation.hits = len(values)
        return values

    def set(self, key: str, *args: Any, **kwargs: Any) -> None:
        with self._noted("set", [key]):
            super().set(key, *args, **kwargs)

    def set_many(self, data: dict[str, Any], *args: Any, **kwargs: Any) -> list[str]:
        with self._noted("set_many", data):
            return super().set_many(data, *args, **kwargs)

    async def aset_many(self, data: dict[str, Any], *args: Any, **kwargs: Any) -> list[str]:
        with self._noted("aset_many", data):
            return await super().aset_many(data, *args, **kwargs)

    def delete_many(self, keys: Iterable[str], version: int | None = None) -> None:
        keys = list(keys)
        with self._noted("delete_many", keys):
            super().delete_many(keys, version)

    @contextmanager
    def _noted(self, name: str, keys: Iterable[str]) -> Iterator[Operation]:
        """Time one call of the cache; the calls that it makes in turn are a part of it."""
        shown = [SESSION if key.startswith(SESSION_PREFIX) else key for key in keys]
        operation, report = Operation(name, shown), _report.get()
        is_own = bool(operation.keys) and not _inside.get()
        if report and is_own:
            report.operations.append(operation)
        inside, started = _inside.set(True), time.perf_counter()
        try:
            yield operation
        finally:
            operation.milliseconds = _milliseconds_since(started)
            _inside.reset(inside)
        if is_own:
            self.recent.add(operation.as_call(), self._sample())

    def _sample(self) -> Sample:
        return Sample(0, 0)


class RecordedMomentoCache(Recorded, MomentoCache):
    """The Momento cache, noted."""

    def _sample(self) -> Sample:
        stats = self.stats()
        return Sample(stats["requests"], stats["near_hits"])


class RecordedLocMemCache(Recorded, LocMemCache):
    """Django's cache in the process's memory, noted."""


@sync_and_async_middleware
def cache_report(get_response: Callable) -> Callable:
    """Collect a report during each request and show it in the page."""
    if iscoroutinefunction(get_response):

        async def middleware(request: HttpRequest) -> HttpResponse:
            with _reporting() as report:
                response = await get_response(request)
            return _with_report(response, report)

    else:

        def middleware(request: HttpRequest) -> HttpResponse:
            with _reporting() as report:
                response = get_response(request)
            return _with_report(response, report)

    return middleware


@contextmanager
def _reporting() -> Iterator[Report]:
    report = Report()
    token = _report.set(report)
    try:
        yield report
    finally:
        _report.reset(token)
        report.finish()


def _with_report(response: HttpResponse, report: Report) -> HttpResponse:
    """Fill the report's place, in pages that have one."""
    if response.streaming or PLACE not in response.content:
        return response
    context = {"report": report, "cache": settings.CACHE_SHOWN}
    shown = render_to_string("lighthouses/report.html", context)
    response.content = response.content.replace(PLACE, shown.encode())
    response.headers["Content-Length"] = str(len(response.content))
    return response
