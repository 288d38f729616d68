"""Thousands of broken answers and of broken values: nothing escapes, nothing is loaded.

All chance comes from one seed, which is printed when a test fails; FUZZ_SEED repeats a run.
"""

import logging
import os
import random
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any, ClassVar

import pytest

from django_momento_http._client.breaker import Breaker
from django_momento_http._client.breakers import Breakers
from django_momento_http._http.messages import BODY_LIMIT
from django_momento_http._store.store import forget_endpoint
from django_momento_http.cache import MomentoCache
from django_momento_http.exceptions import MomentoError
from django_momento_http.serializers import PickleSerializer
from django_momento_http.testing import RunningServer, running_server
from tests.support.scripted import Peer, response, scripted
from tests.support.sizes import sized

ANSWERS = sized(3_000, 10_000)
VALUES = sized(3_000, 10_000)
BATCH = 100
CACHE = "default-cache"
KEY = ":1:key"
VALUE = {"a": [1, 2.5, "three"], "b": "x" * 300}
SEED = int(os.environ.get("FUZZ_SEED", random.randrange(2**32)))
# A lying length makes room for one item of the largest size; all else is small.
PEAK = 2 * BODY_LIMIT
# What may stay after thousands of failures: caches of the interpreter, counters, lines held back.
LEFT = 1_000_000


class CountingSerializer(PickleSerializer):
    """Pickle that notes what it is asked to load."""

    loaded: ClassVar[list[bytes]] = []

    def loads(self, data: bytes) -> Any:
        """Note the bytes, and load them."""
        self.loaded.append(bytes(data))
        return super().loads(data)


class ClosedBreaker(Breaker):
    """A breaker that stays closed: otherwise the first dozen failures would end the test."""

    def record(self, permit: int, error: MomentoError | None, elapsed: float, **_: object) -> None:
        """Take no notice."""


def build(endpoint: str, token: str, **options: Any) -> MomentoCache:
    """Return a backend in "miss" mode that never stops asking."""
    given = {"ENDPOINT": endpoint, "TOKEN": token, "CLEAR_MAX_AGE": None, **options}
    given |= {"SERIALIZER": "tests.backend.test_fuzz.CountingSerializer"}
    cache = MomentoCache(CACHE, {"OPTIONS": given})
    client = cache._shared._client
    client._breakers = Breakers(ClosedBreaker(1.0), ClosedBreaker(1.0))
    return cache


@pytest.fixture
def chance() -> random.Random:
    """The source of all chance; its seed is printed."""
    print(f"FUZZ_SEED={SEED}")
    return random.Random(SEED)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Without lines, whose keeping would count as memory."""
    logger = logging.getLogger("django_momento_http")
    logger.disabled = True
    CountingSerializer.loaded.clear()
    yield
    logger.disabled = False


@contextmanager
def flat_memory() -> Iterator[None]:
    """Memory neither peaks nor stays."""
    tracemalloc.start()
    try:
        yield
        left, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < PEAK
    assert left < LEFT


# Mutations: bytes in, bytes out.

Mutation = Callable[[random.Random, bytes, bytes], bytes]


def enough(data: bytes) -> bytes:
    """Return the bytes, or some where there are too few to break."""
    return data if len(data) > 1 else bytes(2)


def flip(chance: random.Random, data: bytes, _: bytes) -> bytes:
    """Flip up to eight bits."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def truncate(chance: random.Random, data: bytes, _: bytes) -> bytes:
    """Cut the end off."""
    return data[: chance.randrange(len(data))]


def extend(chance: random.Random, data: bytes, _: bytes) -> bytes:
    """Add bytes at the end."""
    return data + chance.randbytes(chance.randint(1, 200))


def insert(chance: random.Random, data: bytes, _: bytes) -> bytes:
    """Put bytes into the middle."""
    at = chance.randrange(len(data))
    return data[:at] + chance.randbytes(chance.randint(1, 20)) + data[at:]


def remove(chance: random.Random, data: bytes, _: bytes) -> bytes:
    """Take bytes out of the middle."""
    at = chance.randrange(len(data))
    return data[:at] + data[at + chance.randint(1, 20) :]


def splice(chance: random.Random, data: bytes, other: bytes) -> bytes:
    """Go over to another one in the middle."""
    return data[: chance.randrange(len(data))] + other[chance.randrange(len(other)) :]


def double(chance: random.Random, data: bytes, _: bytes) -> bytes:
    """Repeat a piece."""
    start, end = sorted(chance.sample(range(len(data)), 2))
    return data[:end] + data[start:]


def noise(chance: random.Random, data: bytes, _: bytes) -> bytes:
    """Make up everything."""
    return chance.randbytes(chance.randint(0, 2 * len(data)))


MUTATIONS: tuple[Mutation, ...] = (
    flip,
    truncate,
    extend,
    insert,
    remove,
    splice,
    double,
    noise,
)

# What a hostile peer would write, rather than chance.
LINES = (
    b"Content-Length: 0",
    b"Content-Length: 5242880",
    b"Content-Length: 99999999999999999999",
    b"Content-Length: -1",
    b"Content-Length: 5, 5",
    b"Content-Length : 400",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: identity",
    b"Content-Encoding: gzip",
    b"Connection: close",
    b"Connection: upgrade\r\nUpgrade: websocket",
    b" folded",
    b"X: " + b"y" * 70_000,
    b"\x00: \x00",
    b"HTTP/1.1 200 OK",
)


def add_line(chance: random.Random, data: bytes, _: bytes) -> bytes:
    """Put a header line somewhere into the head."""
    lines = data.split(b"\r\n")
    lines.insert(chance.randrange(len(lines)), chance.choice(LINES))
    return b"\r\n".join(lines)


def change_status(chance: random.Random, data: bytes, _: bytes) -> bytes:
    """Say another status."""
    return data.replace(b" 200 ", b" %d " % chance.randint(0, 1099), 1)


def true_value(cache: MomentoCache, server: RunningServer) -> bytes:
    """Return how the value is stored under the key."""
    cache.set("key", VALUE)
    return server.items[CACHE, KEY.encode()]


def valid_answers(stored: bytes) -> list[bytes]:
    """Return good answers of every form."""
    sized = response(200, stored)
    half = len(stored) // 2
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (stored[:half], stored[half:]))
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return [
        sized,
        head + chunks + b"0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + sized,
        response(404, b"Key Not Found"),
        response(204, b""),
        response(500, b"failed"),
    ]


def answers(chance: random.Random, stored: bytes) -> Iterator[bytes]:
    """Yield broken answers without end."""
    valid = valid_answers(stored)
    mutations = (*MUTATIONS, add_line, add_line, change_status)
    while True:
        data = chance.choice(valid)
        for _ in range(chance.choice((1, 1, 2))):
            data = chance.choice(mutations)(chance, enough(data), chance.choice(valid))
        yield data


def test_broken_answers(server: RunningServer, chance: random.Random) -> None:
    """A broken answer is the value itself or a miss; it neither escapes, nor loads, nor stays."""
    stored = true_value(build(server.endpoint, server.token), server)
    CountingSerializer.loaded.clear()
    broken = deque(islice(answers(chance, stored), ANSWERS))

    def script(peer: Peer) -> None:
        peer.head()
        with suppress(IndexError):
            peer.send(broken.popleft())

    found: set[str] = set()
    with scripted(script) as hostile:
        cache = build(hostile.endpoint, "a-token", COMPRESSOR=None, REQUEST_TIMEOUT=5.0)
        assert cache.get("key") in (None, VALUE)
        with flat_memory():
            for _ in range(ANSWERS):
                if not broken:
                    break
                value = cache.get("key", "default")
                found.add("right" if value == VALUE else value)
                # What the peer remembers of its connections is not the client's.
                hostile._socks.clear()
                hostile._threads[:] = [t for t in hostile._threads if t.is_alive()]
        forget_endpoint(hostile.endpoint)
    forget_endpoint(server.endpoint)
    assert not broken
    assert found == {"right", "default"}
    assert set(CountingSerializer.loaded) == {stored[80:]}


def values(chance: random.Random, own: bytes, other: bytes) -> Iterator[bytes]:
    """Yield broken values without end."""
    while True:
        data = own
        for _ in range(chance.choice((1, 1, 2, 3))):
            data = chance.choice(MUTATIONS)(chance, enough(data), other)
        if data != own:
            yield data


@pytest.mark.parametrize("compressor", [None, "zlib", "zstd"])
def test_broken_values(compressor: str | None, chance: random.Random) -> None:
    """A broken value, or another key's, is a miss and is never loaded."""
    with running_server() as server:
        options = {"COMPRESSOR": compressor, "COMPRESS_MIN_BYTES": 0}
        cache = build(server.endpoint, server.token, **options)
        own = true_value(cache, server)
        cache.set("other", ["of another key"] * 50)
        other = server.items[CACHE, b":1:other"]
        # All under one key, and so for one signature: many at once would each need their own.
        broken = values(chance, own, other)
        CountingSerializer.loaded.clear()
        with flat_memory():
            for _ in range(VALUES // (3 * BATCH) + 1):
                for _ in range(BATCH):
                    stored = next(broken)
                    with pytest.raises(MomentoError):
                        cache._shared._values.envelope.open("OjE6a2V5", stored, 0.0)
                # Through the whole way as well, one in a hundred.
                server.put(CACHE, KEY.encode(), stored)
                assert cache.get("key", "default") == "default"
                assert "key" not in cache
                assert cache.get_many(["key"]) == {}
        assert cache.get("other") == ["of another key"] * 50
        assert len(CountingSerializer.loaded) == 1
        forget_endpoint(server.endpoint)


def test_what_is_not_broken_is_served(chance: random.Random) -> None:
    """The same way serves an intact value, so that the tests above prove something."""
    with running_server() as server:
        cache = build(server.endpoint, server.token, COMPRESSOR=None)
        stored = true_value(cache, server)
        assert cache.get("key") == VALUE
        assert CountingSerializer.loaded == [stored[80:]]
        forget_endpoint(server.endpoint)
