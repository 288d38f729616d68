"""What a type checker must refuse; nobody runs this.

Each comment says which error is expected in its line, and both checkers report a comment that is
not needed, so what they no longer refuse is noticed. ``api.py`` says how this is run.
"""

from typing import Any, assert_type

from django_momento_http.cache import MomentoCache
from django_momento_http.compressors import Compressor
from django_momento_http.exceptions import MomentoError, TransportError
from django_momento_http.serializers import Serializer
from django_momento_http.testing import Fault, running_server


class Forgetful:
    """It can write, and cannot read."""

    def dumps(self, value: Any) -> bytes:
        """Return the value as bytes."""
        return str(value).encode()


class Trusting:
    """It does not ask how much may come out."""

    def compress(self, data: bytes) -> bytes:
        """Return the data as it is."""
        return data

    def decompress(self, data: bytes) -> bytes:
        """Return the data as it is."""
        return data


class Wordy(MomentoCache):
    """It answers has_key with a word."""

    def has_key(self, key: Any, version: int | None = None) -> str:  # type: ignore[override]
        """Return a word."""
        return "yes"


serializer: Serializer = Forgetful()  # type: ignore[assignment]
compressor: Compressor = Trusting()  # type: ignore[assignment]


def arguments(cache: MomentoCache) -> None:
    """Give what is not taken."""
    cache.get("key", version="2")  # type: ignore[arg-type]
    cache.get_many(5)  # type: ignore[arg-type]
    cache.set("key")  # type: ignore[call-arg]
    cache.set("key", 1, ttl=5)  # type: ignore[call-arg]
    cache.set_many([("key", 1)])  # type: ignore[arg-type]
    cache.incr_version("key", delta="1")  # type: ignore[arg-type]
    cache.stats("default")  # type: ignore[call-arg]
    MomentoCache("location")  # type: ignore[call-arg]


def results(cache: MomentoCache) -> None:
    """Take what is not given."""
    seconds: float = cache.ttl("key")  # type: ignore[assignment]
    failed: dict[str, int] = cache.set_many({})  # type: ignore[assignment]
    hits: int = cache.stats()["hits"]  # type: ignore[assignment]
    assert_type(cache.delete("key"), None)  # type: ignore[assert-type]
    print(seconds, failed, hits)


async def tasks(cache: MomentoCache) -> None:
    """Forget to wait."""
    present: bool = cache.ahas_key("key")  # type: ignore[assignment]
    seconds: float = await cache.attl("key")  # type: ignore[assignment]
    cache.aget("key")  # type: ignore[unused-coroutine]
    print(present, seconds)


def errors(error: MomentoError, trouble: TransportError) -> None:
    """Ask an error for what only others have."""
    print(error.status)  # type: ignore[attr-defined]
    print(trouble.retry_after)  # type: ignore[attr-defined]


def testing() -> None:
    """Let a server do what it cannot."""
    Fault(status="500")  # type: ignore[arg-type]
    Fault(drop="sometimes")  # type: ignore[arg-type]
    Fault(delay=1).delay = 2  # type: ignore[misc]
    with running_server(caches="default-cache") as server:  # type: ignore[arg-type]
        server.put("cache", "key", b"value")  # type: ignore[arg-type]
        server.items["cache", b"key"] = b"value"  # type: ignore[index]
        server.inject(500)  # type: ignore[arg-type]
