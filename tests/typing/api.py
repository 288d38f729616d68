"""The public API as a user's type checker sees it; nobody runs this.

``tox run -e typing,typing-plain`` checks it against the installed wheel, with mypy and pyright,
both strict, with and without django-stubs. It imports nothing of Django, which has no types of its
own.
"""

import zlib
from collections.abc import Iterator, Mapping
from typing import Any, assert_type

import django_momento_http
from django_momento_http.cache import MomentoCache
from django_momento_http.compressors import Compressor
from django_momento_http.exceptions import (
    AccessDenied,
    BadRequest,
    CacheNotFound,
    CircuitOpen,
    ConnectFailed,
    MomentoError,
    RateLimited,
    ResponseError,
    ServiceFailed,
    StoredValueError,
    TimedOut,
    TransportError,
)
from django_momento_http.pytest_plugin import momento_server
from django_momento_http.serializers import Serializer
from django_momento_http.testing import Fault, RunningServer, ServedRequest, running_server

assert_type(django_momento_http.__version__, str)


class TextSerializer:
    """A class that SERIALIZER may name."""

    def dumps(self, value: Any) -> bytes:
        """Return the value as bytes."""
        return str(value).encode()

    def loads(self, data: bytes) -> str:
        """Return the value again."""
        return data.decode()


class Level9:
    """A class that COMPRESSOR may name."""

    def compress(self, data: bytes) -> bytes:
        """Return the data, compressed."""
        return zlib.compress(data, 9)

    def decompress(self, data: bytes, size: int) -> bytes:
        """Return the data again."""
        return zlib.decompress(data, bufsize=size)


serializer: Serializer = TextSerializer()
compressor: Compressor = Level9()
assert_type(serializer.dumps(1), bytes)
assert_type(compressor.compress(b""), bytes)
assert_type(compressor.decompress(b"", 0), bytes)


class CountingCache(MomentoCache):
    """A backend of the user's own, for BACKEND to name."""

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        """Count the reads of this instance."""
        super().__init__(location, params)
        self.reads = 0

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """Count and read."""
        self.reads += 1
        return super().get(key, default, version)


def reads(cache: MomentoCache, keys: Iterator[str]) -> None:
    """Read in every way."""
    assert_type(cache.get("key"), Any)
    assert_type(cache.get("key", 0, version=2), Any)
    assert_type(cache.get_many(keys), dict[Any, Any])
    assert_type(cache.get_many(["a", "b"], version=2), dict[Any, Any])
    assert_type(cache.has_key("key"), bool)
    assert_type("key" in cache, bool)
    assert_type(cache.ttl("key"), float | None)
    assert_type(cache.stats(), dict[str, object])


def writes(cache: MomentoCache, data: Mapping[str, int]) -> None:
    """Write in every way."""
    cache.set("key", "value")
    cache.set("key", "value", timeout=None, version=2)
    assert_type(cache.set_many(data, timeout=1.5), list[Any])
    assert_type(cache.add("key", 1), bool)
    assert_type(cache.get_or_set("key", lambda: 1, timeout=60), Any)
    assert_type(cache.touch("key", 60), bool)
    assert_type(cache.incr("key"), Any)
    assert_type(cache.decr("key", 2), Any)
    assert_type(cache.incr_version("key"), int)
    assert_type(cache.decr_version("key", 2), int)
    assert_type(cache.delete("key"), bool)
    cache.delete_many(key for key in data)
    cache.clear()
    cache.close()


async def reads_in_a_task(cache: MomentoCache, keys: Iterator[str]) -> None:
    """Read in every way, without blocking."""
    assert_type(await cache.aget("key"), Any)
    assert_type(await cache.aget_many(keys, version=2), dict[Any, Any])
    assert_type(await cache.ahas_key("key"), bool)
    assert_type(await cache.attl("key"), float | None)


async def writes_in_a_task(cache: MomentoCache, data: Mapping[str, int]) -> None:
    """Write in every way, without blocking."""
    await cache.aset("key", "value", timeout=None, version=2)
    assert_type(await cache.aset_many(data, timeout=1.5), list[Any])
    assert_type(await cache.aadd("key", 1), bool)
    assert_type(await cache.aget_or_set("key", lambda: 1, timeout=60), Any)
    assert_type(await cache.atouch("key", 60), bool)
    assert_type(await cache.aincr("key"), Any)
    assert_type(await cache.adecr("key", 2), Any)
    assert_type(await cache.aincr_version("key"), int)
    assert_type(await cache.adecr_version("key", 2), int)
    assert_type(await cache.adelete("key"), bool)
    await cache.adelete_many(key for key in data)
    await cache.aclear()
    await cache.aclose()


def errors(cache: MomentoCache) -> str | float | None:
    """Catch what ON_ERROR "raise" lets through, the special before the general."""
    try:
        cache.get("key")
    except RateLimited as error:
        return assert_type(error.retry_after, float)
    except (BadRequest, AccessDenied, CacheNotFound, ServiceFailed) as error:
        return assert_type(error.status, int)
    except ResponseError as error:
        return assert_type(error.status, int)
    except (ConnectFailed, TimedOut) as error:
        return assert_type(error.elapsed, float)
    except TransportError as error:
        return "again" if assert_type(error.transient, bool) else None
    except (CircuitOpen, StoredValueError) as error:
        return assert_type(error.reason, str)
    except MomentoError as error:
        return assert_type(error.kind, str) + assert_type(error.advice, str)
    return None


def a_test_with_a_server() -> None:
    """Use everything that the testing helpers have."""
    with running_server(caches=("a", "b"), token="t", read_only_token="r") as server:
        assert_type(server, RunningServer)
        assert_type(server.endpoint, str)
        assert_type(server.token, str)
        assert_type(server.read_only_token, str)
        assert_type(server.items, Mapping[tuple[str, bytes], bytes])
        assert_type(server.cache_settings(TIMEOUT=5, ON_ERROR="raise"), dict[str, Any])
        server.put("a", b"key", b"value", ttl_seconds=5)
        server.discard("a", b"key")
        server.advance(60)
        server.inject(Fault(status=500, times=None))
        server.inject(Fault(delay=0.1, drop="body", method="GET", key=b"key"))
        server.clear_faults()
        assert_type(server.requests, list[ServedRequest])
        assert_type(
            [(request.method, request.status) for request in server.requests], list[tuple[str, int]]
        )
        server.forget_requests()
        with server.override_settings(KEY_PREFIX="x"):
            pass


def a_test_with_the_fixture(momento_server: RunningServer) -> None:
    """Ask for the fixture by its name, as pytest does."""
    assert_type(momento_server.endpoint, str)


__all__ = ["momento_server"]
