"""A Momento server inside a test: a thread, a free port, faults and time on demand.

::

    with running_server() as server, server.override_settings():
        cache.set("name", "value")

It imports Django only where it touches settings, and knows nothing of how the server works.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from ._store.store import forget_endpoint
from .server import Config, Fault, ServedRequest, Server, Service

if TYPE_CHECKING:
    from django.test.utils import override_settings

__all__ = ["Fault", "RunningServer", "ServedRequest", "running_server"]

T = TypeVar("T")

# What Django itself reads from a CACHES entry; everything else is an option of the backend.
_DJANGO_KEYS = frozenset({"LOCATION", "TIMEOUT", "KEY_PREFIX", "VERSION", "KEY_FUNCTION"})
# In seconds. Generous: the server's thread answers within microseconds unless it died.
_LONGEST_WAIT = 10.0


class _Clock:
    """The monotonic clock, plus what a test adds to it."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


class RunningServer:
    """A server in a thread of its own; every method may be called from any thread."""

    def __init__(self, config: Config) -> None:
        self.endpoint: str = ""
        self.token: str = config.token or ""
        self.read_only_token: str = config.read_only_token or ""
        self.requests: list[ServedRequest] = []
        self._caches = config.caches
        self._clock = _Clock()
        self._service = Service(config, clock=self._clock, observer=self._record)
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="momento-server")
        self._loop: asyncio.AbstractEventLoop
        self._stopping: asyncio.Event

    @property
    def items(self) -> Mapping[tuple[str, bytes], bytes]:
        """The values that are alive now, by cache and key."""
        return MappingProxyType(self._in_loop(self._service.store.items))

    def put(self, cache: str, key: bytes, value: bytes, ttl_seconds: float = 60) -> None:
        """Store a value as if another client had."""
        self._in_loop(lambda: self._service.store.put(cache, key, value, ttl_seconds))

    def discard(self, cache: str, key: bytes) -> None:
        """Drop a value as if it had been evicted."""
        self._in_loop(lambda: self._service.store.delete(cache, key))

    def advance(self, seconds: float) -> None:
        """Move the server's clock forward: what lives shorter than that expires."""
        self._clock.ahead += seconds

    def inject(self, fault: Fault) -> None:
        """Let the next matching requests misbehave."""
        self._in_loop(lambda: self._service.faults.add(fault))

    def clear_faults(self) -> None:
        """Behave again."""
        self._in_loop(self._service.faults.clear)

    def forget_requests(self) -> None:
        """Empty ``requests``."""
        self.requests.clear()

    def cache_settings(self, **options: Any) -> dict[str, Any]:
        """Return a complete CACHES entry; Django's own keys go beside OPTIONS, the rest into it.

        Unless ``HEDGE`` is given, no read is asked twice: on a busy machine that would be chance.
        """
        if "HEDGE" not in map(str.upper, options):
            options["HEDGE"] = False
        django_keys = {name: options.pop(name) for name in _DJANGO_KEYS & options.keys()}
        return {
            "BACKEND": "django_momento_http.cache.MomentoCache",
            "LOCATION": self._caches[0],
            **django_keys,
            "OPTIONS": {"ENDPOINT": self.endpoint, "TOKEN": self.token, **options},
        }

    def override_settings(self, **options: Any) -> "override_settings":
        """Return a context manager and decorator under which the default cache is this server."""
        from django.conf import settings
        from django.test.utils import override_settings

        return override_settings(
            CACHES={**settings.CACHES, "default": self.cache_settings(**options)}
        )

    def _record(self, request: ServedRequest) -> None:
        self.requests.append(request)

    def _in_loop(self, function: Callable[[], T]) -> T:
        """Call in the server's thread, so that its state needs no lock."""
        result: Future[T] = Future()

        def call() -> None:
            try:
                result.set_result(function())
            except Exception as error:  # noqa: BLE001 - handed to the caller
                result.set_exception(error)

        self._loop.call_soon_threadsafe(call)
        return result.result(_LONGEST_WAIT)

    def _start(self) -> None:
        self._thread.start()
        self._started.result(_LONGEST_WAIT)

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        server = Server(self._service)
        try:
            await server.start()
        except OSError as error:
            self._started.set_exception(error)
            return
        self.endpoint = server.endpoint
        self._started.set_result(None)
        await self._stopping.wait()
        await server.stop()


@contextmanager
def running_server(
    caches: tuple[str, ...] = ("default-cache",),
    token: str = "test-token",  # noqa: S107 - for a server that lives as long as one test
    read_only_token: str = "test-read-only-token",  # noqa: S107
    **options: Any,
) -> Iterator[RunningServer]:
    """Run a server on a free port of 127.0.0.1; ``options`` are further fields of its Config."""
    config = Config(caches=caches, token=token, read_only_token=read_only_token, **options)
    server = RunningServer(config)
    server._start()  # noqa: SLF001 - started and stopped here and nowhere else
    try:
        yield server
    finally:
        # The next server has another port: nobody will use these connections again.
        forget_endpoint(server.endpoint)
        server._stop()  # noqa: SLF001
