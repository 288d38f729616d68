"""A process that may start no thread any more.

``threadless limit|patched cold|warm``. The system refuses them where this user may have
no more (root always may: it becomes nobody), or ``threading`` does.
"""

import asyncio
import atexit
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from django.core.cache import caches

from django_momento_http.exceptions import MomentoError

from .common import is_of, say, set_up, value_of

NOBODY = 65534
CALLS: dict[str, Callable[[Any], Any]] = {
    "get": lambda cache: cache.get("a", "default"),
    "get_many": lambda cache: cache.get_many(["a", "b"]),
    "set": lambda cache: cache.set("c", 1),
    "set_many": lambda cache: cache.set_many({"c": 1, "d": 2}),
    "add": lambda cache: cache.add("e", 1),
    "delete": lambda cache: cache.delete("f"),
    "delete_many": lambda cache: cache.delete_many(["f", "g"]),
    "has_key": lambda cache: cache.has_key("a"),
    "get_or_set": lambda cache: cache.get_or_set("h", lambda: "made"),
    "touch": lambda cache: cache.touch("a"),
    "clear": lambda cache: cache.clear(),
}


class Refused(threading.Thread):
    """A thread that cannot be started."""

    def start(self) -> None:
        """Say what Python says."""
        raise RuntimeError("can't start new thread")


def refuse(how: str) -> bool:
    """Let no thread start from now on; return whether that is so."""
    if how == "patched":
        threading.Thread.start = Refused.start  # type: ignore[method-assign]
    else:
        import resource

        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
    try:
        threading.Thread(target=int).start()
    except RuntimeError:
        return True
    return False


def outcome(call: Callable[[], Any]) -> str:
    """Return what came of a call, in a word."""
    try:
        result = call()
    except MomentoError:
        return "MomentoError"
    except BaseException as error:  # noqa: BLE001 - it is what is reported
        return f"{type(error).__name__}: {error}"
    values = result.items() if isinstance(result, dict) else [("a", result)]
    for key, value in values:
        if isinstance(value, dict) and not is_of(key, value):
            return f"wrong value of {key}"
    return "done"


async def gathered(cache: Any) -> Any:
    """Read many at once."""
    return (await asyncio.gather(*[cache.aget("a", "default") for _ in range(20)]))[0]


def outcomes(cache: Any) -> dict[str, str]:
    """Return what comes of every call, sync and async."""
    found = {name: outcome(lambda call=call: call(cache)) for name, call in CALLS.items()}
    for name, call in CALLS.items():
        twin = Twin(cache)
        found[f"a{name}"] = outcome(lambda call=call, twin=twin: asyncio.run(call(twin)))
    found["gather"] = outcome(lambda: asyncio.run(gathered(cache)))
    return found


class Twin:
    """A cache whose methods are the async ones."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, f"a{name}")


def main() -> None:
    """Let no thread start, and use the cache; once more while the interpreter goes down."""
    how, warmth = sys.argv[1:]
    set_up()
    cache = caches["default"]
    if warmth == "warm":
        cache.set_many({key: value_of(key) for key in "ab"})
        asyncio.run(gathered(cache))
    is_refused = refuse(how)
    say(refused=is_refused, found=outcomes(cache))
    atexit.register(lambda: say(at_exit=outcomes(cache)))


if __name__ == "__main__":
    main()
