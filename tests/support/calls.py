"""Which functions of the package a call enters, told by the interpreter's profiler."""

import sys
import types
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import django_momento_http
from django_momento_http._client.retry import RetryBudget
from django_momento_http.cache import MomentoCache
from django_momento_http.testing import RunningServer

PACKAGE = Path(django_momento_http.__file__).parent
KEYS = ["a", "b", "c"]
METHODS: dict[str, Callable[[Any], object]] = {
    "get": lambda cache: cache.get("a"),
    "set": lambda cache: cache.set("a", {"one": 1}),
    "get_many": lambda cache: cache.get_many(KEYS),
}


def warm_cache(server: RunningServer) -> MomentoCache:
    """Return a cache with default settings that has used all of its ``METHODS`` before."""
    entry = server.cache_settings(HEDGE=True, REQUEST_TIMEOUT=30, CONNECT_TIMEOUT=30)
    cache = MomentoCache(entry["LOCATION"], entry)
    cache.set_many({key: {"one": 1} for key in KEYS})
    for method in METHODS.values():
        method(cache)
    # As after five hundred operations.
    cache._shared._client._retries.tenths = RetryBudget.FULL
    return cache


def calls_of(method: str, cache: MomentoCache) -> list[tuple[str, str]]:
    """Return a method's own calls where nothing disturbs it: on a busy machine something may."""
    return min((own_calls(lambda: METHODS[method](cache)) for _ in range(7)), key=len)


def own_calls(operation: Callable[[], object]) -> list[tuple[str, str]]:
    """Return (module, function) of each call of the package's own that an operation makes.

    A coroutine or generator that goes on counts like one that begins. The server counts not.
    """
    made: list[tuple[str, str]] = []

    def note(frame: types.FrameType, event: str, _: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE):
            module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
            made.append((module, frame.f_code.co_qualname.replace(".<locals>", "")))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        operation()
    finally:
        sys.setprofile(before)
    return made


def visits(calls: list[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Return the same by the modules that are entered, one after the other."""
    grouped = groupby(calls, key=lambda call: call[0])
    return [(module, [name for _, name in functions]) for module, functions in grouped]
