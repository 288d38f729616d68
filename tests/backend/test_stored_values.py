"""What lies in the service: its layout, who may read it, and that nothing else is ever believed."""

import hashlib
import hmac
import logging
import os
import pickle
import random
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as drawn
from hypothesis import strategies as st

from django_momento_http._store.debts import Ledger
from django_momento_http._store.namespace import Namespace
from django_momento_http._store.store import Store
from django_momento_http.cache import MomentoCache
from django_momento_http.exceptions import StoredValueError
from django_momento_http.testing import RunningServer, running_server

CACHE = "default-cache"
KEY = b":1:k"
WIRE_KEY = b"OjE6aw"
HEADER = struct.Struct(">3sBHH4sQQQIII")
SIGNED = HEADER.size
BODY = SIGNED + 32
MINUTE = 60
MARGIN = 10

Make = Callable[..., Any]


@dataclass(frozen=True)
class Envelope:
    """A stored value, taken apart and put together as the layout says."""

    serializer: int = 1
    compressor: int = 0
    generation: int = 0
    expires_ms: int = 0
    made_ms: int = 0
    length: int = 0
    body: bytes = b""
    secret: bytes = b"for tests only"
    magic: bytes = b"DMH"
    version: int = 1
    made_in_ms: int = 0
    reserved: int = 0

    def sealed(self, cache: str = CACHE, prefix: str = "", wire_key: bytes = WIRE_KEY) -> bytes:
        """Return the bytes, signed by our own reading of the layout."""
        key = hashlib.sha256(b"django_momento_http.envelope.1" + self.secret).digest()
        header = HEADER.pack(
            self.magic,
            self.version,
            self.serializer,
            self.compressor,
            hashlib.sha256(b"django_momento_http.envelope.1.id" + key).digest()[:4],
            self.generation,
            self.expires_ms,
            self.made_ms,
            self.length,
            self.made_in_ms,
            self.reserved,
        )
        signed = b"".join(
            len(part).to_bytes(4, "big") + part
            for part in (cache.encode(), prefix.encode(), wire_key)
        )
        return header + hmac.digest(key, signed + header + self.body, "sha256") + self.body


class Later(MomentoCache):
    """A backend on a host whose wall clock is ahead."""

    ahead = 0.0

    def _find_store(self) -> Store:
        namespace = Namespace(self._config.namespace, Ledger())
        return Store(self._config, namespace, wall_clock=lambda: time.time() + self.ahead)


class Upper:
    """A serializer that is not ours."""

    def dumps(self, value: str) -> bytes:
        """Encode the text in upper case."""
        return value.upper().encode()

    def loads(self, data: bytes) -> str:
        """Decode it."""
        return data.decode()


class Reversing:
    """A compressor that is not ours: it drops the last nine tenths of what it knows by heart."""

    def compress(self, data: bytes) -> bytes:
        """Keep a tenth."""
        return data[: len(data) // 10]

    def decompress(self, data: bytes, size: int) -> bytes:
        """Repeat what there is."""
        return (data * 11)[:size]


class Explosive:
    """A value whose unpickling creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def stored(server: RunningServer, key: bytes = KEY, cache: str = CACHE) -> bytes:
    """The bytes that the service has under a key."""
    return server.items[cache, key]


@pytest.fixture
def cache(make_cache: Make) -> MomentoCache:
    """A backend without a marker."""
    made: MomentoCache = make_cache(CLEAR_MAX_AGE=None)
    return made


@pytest.fixture
def is_miss(server: RunningServer, make_cache: Make) -> Callable[[bytes], bool]:
    """Whether bytes under the one key are a miss in "miss" mode and an error in "raise" mode."""
    quiet = make_cache(CLEAR_MAX_AGE=None)
    loud = make_cache(CLEAR_MAX_AGE=None, ON_ERROR="raise")

    def ask(data: bytes) -> bool:
        server.put(CACHE, KEY, data)
        try:
            loud.get("k")
        except StoredValueError:
            return bool(quiet.get("k", "default") == "default")
        return False

    return ask


# The layout


def test_the_layout_byte_by_byte(server: RunningServer, make_cache: Make) -> None:
    """A stored value reads as the module's docstring says."""
    before = time.time()
    make_cache(CLEAR_MAX_AGE=None, KEY_PREFIX="p", COMPRESSOR=None).set("k", "value", 100)
    data = stored(server, b"p:1:k")
    magic, version, serializer, compressor, key_id, generation, expiry, made, length, *rest = (
        HEADER.unpack(data[:SIGNED])
    )
    body = pickle.dumps("value", 5)
    assert (magic, version, serializer, compressor, generation) == (b"DMH", 1, 1, 0, 0)
    assert before + 99 < expiry / 1000 < time.time() + 101
    assert int(before * 1000) <= made <= time.time() * 1000
    assert length == len(body)
    assert data[BODY:] == body
    assert rest == [0, 0]
    ours = Envelope(expires_ms=expiry, made_ms=made, length=length, body=body)
    assert data == ours.sealed(prefix="p", wire_key=b"cDoxOms")
    assert key_id != b"\0\0\0\0"


def test_what_the_layout_says_is_read(server: RunningServer, cache: MomentoCache) -> None:
    """Bytes that were put together by the docstring alone are a value."""
    body = pickle.dumps("value", 5)
    server.put(CACHE, KEY, Envelope(body=body, length=len(body)).sealed())
    assert cache.get("k") == "value"
    assert cache.ttl("k") is None


@pytest.mark.parametrize("field", ["made_in_ms", "reserved"])
def test_fields_that_say_nothing_to_a_get_are_read_over(
    server: RunningServer, cache: MomentoCache, field: str
) -> None:
    """A value that says how long it took, or more than today's writers do, is a value."""
    body = pickle.dumps("value", 5)
    longest: dict[str, Any] = {field: 2**32 - 1}
    server.put(CACHE, KEY, Envelope(body=body, length=len(body), **longest).sealed())
    assert cache.get("k") == "value"


def test_the_generation_is_in_it(server: RunningServer, make_cache: Make) -> None:
    """A value carries the generation that the marker has."""
    cache = make_cache()
    cache.set("before", 1)
    cache.clear()
    cache.set("k", 1)
    generations = {key: HEADER.unpack(data[:SIGNED])[5] for (_, key), data in server.items.items()}
    assert generations.pop(b":1:before") == 0
    [generation] = set(generations.values())
    assert generation > 0


@pytest.mark.parametrize(
    ("serializer", "compressor", "codes"),
    [
        ("pickle", None, (1, 0)),
        ("pickle", "zlib", (1, 1)),
        ("json", "zlib", (2, 1)),
        ("json", "zstd", (2, 2)),
    ],
)
def test_codes(
    server: RunningServer, make_cache: Make, serializer: str, compressor: str | None, codes: object
) -> None:
    """A value says who serialized and who compressed it."""
    cache = make_cache(SERIALIZER=serializer, COMPRESSOR=compressor, CLEAR_MAX_AGE=None)
    cache.set("k", "x" * 5000)
    assert HEADER.unpack(stored(server)[:SIGNED])[2:4] == codes
    assert cache.get("k") == "x" * 5000


def test_foreign_codes_are_apart_from_ours(server: RunningServer, make_cache: Make) -> None:
    """A codec that is named by a dotted path has a code that none of ours has."""
    options = {
        "SERIALIZER": "tests.backend.test_stored_values.Upper",
        "COMPRESSOR": "tests.backend.test_stored_values.Reversing",
    }
    cache = make_cache(CLEAR_MAX_AGE=None, **options)
    cache.set("k", "x" * 5000)
    assert min(HEADER.unpack(stored(server)[:SIGNED])[2:4]) > 2
    assert cache.get("k") == "X" * 5000


# Settings change


CODECS = [
    {"SERIALIZER": "pickle", "COMPRESSOR": None},
    {"SERIALIZER": "pickle", "COMPRESSOR": "zlib"},
    {"SERIALIZER": "pickle", "COMPRESSOR": "zstd"},
    {"SERIALIZER": "json", "COMPRESSOR": None},
    {"SERIALIZER": "json", "COMPRESSOR": "zlib"},
]


@pytest.mark.parametrize("writer", CODECS, ids=str)
def test_settings_change_while_values_live(make_cache: Make, writer: dict[str, Any]) -> None:
    """What one SERIALIZER and COMPRESSOR wrote every other reads, but no pickle under "json"."""
    value = {"text": "x" * 5000}
    make_cache(CLEAR_MAX_AGE=None, **writer).set("k", value)
    for reader in CODECS:
        is_refused = (writer["SERIALIZER"], reader["SERIALIZER"]) == ("pickle", "json")
        found = make_cache(CLEAR_MAX_AGE=None, **reader).get("k")
        assert found == (None if is_refused else value)


@pytest.mark.parametrize(
    "options",
    [
        {"SERIALIZER": "tests.backend.test_stored_values.Upper"},
        {"COMPRESSOR": "tests.backend.test_stored_values.Reversing"},
    ],
    ids=str,
)
def test_unknown_codecs_are_a_miss(
    server: RunningServer,
    make_cache: Make,
    is_miss: Callable[[bytes], bool],
    options: dict[str, str],
) -> None:
    """A value of a codec that this process does not know is a miss."""
    make_cache(CLEAR_MAX_AGE=None, **options).set("k", "x" * 5000)
    assert is_miss(stored(server))


def test_secret_key_rotates(server: RunningServer, make_cache: Make, settings: Any) -> None:
    """SECRET_KEY_FALLBACKS verify, SECRET_KEY signs, and what neither verifies is a miss."""

    def get() -> Any:
        return make_cache(CLEAR_MAX_AGE=None).get("k")

    settings.SECRET_KEY = "old"
    make_cache(CLEAR_MAX_AGE=None).set("k", "v")
    settings.SECRET_KEY = "new"
    assert get() is None
    assert make_cache(CLEAR_MAX_AGE=None).stats()["errors"] == {"stored_value": 1}
    settings.SECRET_KEY_FALLBACKS = ["other", "old"]
    assert get() == "v"
    make_cache(CLEAR_MAX_AGE=None).touch("k")
    settings.SECRET_KEY_FALLBACKS = []
    assert get() == "v"
    settings.SECRET_KEY = "old"
    assert get() is None


def test_a_clear_outlives_a_rotation(make_cache: Make, settings: Any) -> None:
    """While the old key verifies, its marker counts as well."""
    settings.SECRET_KEY = "old"
    make_cache().set("k", "before")
    make_cache().clear()
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new", ["old"]
    assert make_cache().get("k") is None
    make_cache().set("k", "after")
    assert make_cache().get("k") == "after"


def test_signing_key(server: RunningServer, make_cache: Make, settings: Any) -> None:
    """With SIGNING_KEY projects of different SECRET_KEYs share values; another key shares none."""
    make_cache(CLEAR_MAX_AGE=None, SIGNING_KEY="shared").set("k", "v")
    settings.SECRET_KEY = "another project"
    assert make_cache(CLEAR_MAX_AGE=None, SIGNING_KEY="shared").get("k") == "v"
    assert make_cache(CLEAR_MAX_AGE=None, SIGNING_KEY="other").get("k") is None
    assert make_cache(CLEAR_MAX_AGE=None).get("k") is None


# Nothing else is believed


def test_every_byte_counts(
    server: RunningServer, cache: MomentoCache, is_miss: Callable[[bytes], bool]
) -> None:
    """One flipped bit anywhere, in the header, in the signature or in the body, is a miss."""
    cache.set("k", "value" * 10)
    data = stored(server)
    for offset in range(len(data)):
        for bit in (0x01, 0x80):
            flipped = bytearray(data)
            flipped[offset] ^= bit
            assert is_miss(bytes(flipped)), offset


def test_every_length_counts(
    server: RunningServer, cache: MomentoCache, is_miss: Callable[[bytes], bool]
) -> None:
    """A value that was cut anywhere, or made longer, is a miss."""
    cache.set("k", "value" * 10)
    data = stored(server)
    for length in range(len(data)):
        assert is_miss(data[:length]), length
    for more in (b"\0", data, b"." * 5000):
        assert is_miss(data + more)
        assert is_miss(more + data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1",
        b"text of another program",
        b"DMH\x01",
        b"DMH\x01" + bytes(68),
        b"DMH\x01" + bytes(5000),
        bytes(80),
        bytes(5000),
        b"\xff" * 5000,
        pickle.dumps("unsigned"),
        zlib.compress(pickle.dumps("unsigned")),
        b'{"json": 1}',
        Envelope(body=pickle.dumps(1), length=14, secret=b"not ours").sealed(),
        Envelope(body=pickle.dumps(1), length=14, version=2).sealed(),
        Envelope(body=pickle.dumps(1), length=14, version=0).sealed(),
        Envelope(body=pickle.dumps(1), length=14, magic=b"XXX").sealed(),
        Envelope(body=pickle.dumps(1), length=14, serializer=0).sealed(),
        Envelope(body=pickle.dumps(1), length=14, serializer=77).sealed(),
        Envelope(body=pickle.dumps(1), length=14, compressor=77).sealed(),
        Envelope(body=pickle.dumps(1)[:-1], length=13).sealed(),
        Envelope(body=b"", length=0).sealed(),
        Envelope(body=b"{", length=1, serializer=2).sealed(),
        Envelope(body=b"\xff", length=1, serializer=2).sealed(),
    ],
)
def test_foreign_bytes_are_a_miss(is_miss: Callable[[bytes], bool], data: bytes) -> None:
    """What is not ours, or not readable though signed, is a miss and an error in "raise" mode."""
    assert is_miss(data)


@drawn(max_examples=200, deadline=None, database=None, derandomize=True)
@given(
    data=st.binary(max_size=300), signed=st.booleans(), codes=st.tuples(*[st.integers(0, 3)] * 2)
)
def test_fuzzed_bytes_never_raise(data: bytes, signed: bool, codes: tuple[int, int]) -> None:
    """Whatever the bytes, and whoever signed them, "miss" mode gives a value or the default."""
    server, cache = FUZZED
    if signed:
        data = Envelope(
            serializer=2 if codes[0] == 1 else codes[0],
            compressor=codes[1],
            length=len(data),
            body=data,
        ).sealed()
    server.put(CACHE, KEY, data)
    cache.get("k")
    cache.has_key("k")
    cache.get_many(["k"])


FUZZED: Any = None


@pytest.fixture(autouse=True, scope="module")
def fuzzed() -> Iterator[None]:
    """One server for all examples of the tests that draw theirs."""
    global FUZZED
    with running_server() as server:
        options = server.cache_settings(CLEAR_MAX_AGE=None)["OPTIONS"]
        FUZZED = server, MomentoCache(CACHE, {"OPTIONS": options})
        yield


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=2000)
    | st.binary(max_size=2000)
    | st.datetimes(),
    lambda children: (
        st.lists(children) | st.dictionaries(st.text(), children) | st.tuples(children)
    ),
    max_leaves=10,
)


@drawn(max_examples=200, deadline=None, database=None, derandomize=True)
@given(value=VALUES)
def test_any_value_comes_back(value: object) -> None:
    """What goes in comes out."""
    _, cache = FUZZED
    cache.set("k", value)
    assert cache.get("k", "gone") == value
    assert type(cache.get("k")) is type(value)


def explosives(path: Path) -> list[bytes]:
    """A pickle that runs code, alone and in envelopes that are not for this key."""
    body = pickle.dumps(Explosive(path))
    zipped = zlib.compress(body)
    plain = Envelope(body=body, length=len(body))
    return [
        body,
        zipped,
        plain.sealed(wire_key=b"OjE6bA"),
        plain.sealed(prefix="other"),
        plain.sealed(cache="other"),
        Envelope(body=body, length=len(body), secret=b"guessed").sealed(),
        Envelope(body=zipped, length=len(body), compressor=1, secret=b"guessed").sealed(),
        Envelope(body=body, length=len(body), expires_ms=1).sealed(),
        plain.sealed() + b"\0",
        plain.sealed()[:SIGNED] + bytes(24) + body,
    ]


def test_code_is_never_run(
    server: RunningServer, cache: MomentoCache, tmp_path: Path, is_miss: Callable[[bytes], bool]
) -> None:
    """A pickle that does not verify for this very key is not loaded, whatever the method."""
    path = tmp_path / "run"
    for data in explosives(path):
        assert is_miss(data)
        cache.get_many(["k"])
        cache.has_key("k")
        cache.ttl("k")
        cache.touch("k")
        with pytest.raises(ValueError, match="no such key"):
            cache.incr("k")
        with pytest.raises(ValueError, match="no such key"):
            cache.incr_version("k")
        assert not path.exists()


def test_the_explosive_is_one(server: RunningServer, cache: MomentoCache, tmp_path: Path) -> None:
    """The same pickle, signed for this key, does run: the test above tests something."""
    path = tmp_path / "run"
    body = pickle.dumps(Explosive(path))
    server.put(CACHE, KEY, Envelope(body=body, length=len(body)).sealed())
    cache.get("k")
    assert path.exists()


@pytest.mark.parametrize(
    "other",
    [
        {"VERSION": 2, "KEY_FUNCTION": lambda key, prefix, version: f"other:{key}"},
        {"KEY_PREFIX": "other", "KEY_FUNCTION": lambda key, prefix, version: f":1:{key}"},
        {"LOCATION": "two"},
    ],
    ids=["key", "prefix", "cache"],
)
def test_a_value_belongs_to_its_place(other: dict[str, Any]) -> None:
    """A value that was copied to another key, KEY_PREFIX or cache is a miss there."""
    with running_server(caches=(CACHE, "two")) as server:
        entry = server.cache_settings(CLEAR_MAX_AGE=None)
        source = MomentoCache(CACHE, {"OPTIONS": entry["OPTIONS"]})
        source.set("k", "v")
        place = {**entry, **other}
        cache = MomentoCache(place["LOCATION"], place)
        wire_key = cache.make_key("k").encode()
        server.put(place["LOCATION"], wire_key, stored(server))
        assert cache.get("k") is None
        cache.set("k", "w")
        assert cache.get("k") == "w"


@pytest.mark.parametrize("method", ["incr_version", "touch", "incr"])
def test_what_is_written_back_belongs_to_its_place(cache: MomentoCache, method: str) -> None:
    """Bytes that are stored again are signed again, for where they go."""
    cache.set("k", 1)
    getattr(cache, method)("k")
    versions = [cache.get("k", version=version) for version in (1, 2)]
    assert versions == {"incr_version": [None, 1], "touch": [1, None], "incr": [2, None]}[method]


# Time


@pytest.mark.parametrize(
    ("ahead", "is_served"),
    [
        (0, True),
        (100 + MARGIN, True),
        (100 + MINUTE - MARGIN, True),
        (100 + MINUTE + MARGIN, False),
        (10**7, False),
        (-(10**7), True),
    ],
)
def test_replays(server: RunningServer, cache: MomentoCache, ahead: float, is_served: bool) -> None:
    """A value more than a minute past its own expiry is a miss; a skew of less does no harm."""
    cache.set("k", "v", 100)
    later = Later(CACHE, {"OPTIONS": server.cache_settings(CLEAR_MAX_AGE=None)["OPTIONS"]})
    later.ahead = ahead
    assert (later.get("k") == "v") is is_served
    assert later.has_key("k") is is_served
    assert (later.ttl("k") > 0) is (ahead < 100)


def test_no_expiry_is_never_a_replay(server: RunningServer, cache: MomentoCache) -> None:
    """A value without an expiry of its own is served for ever."""
    body = pickle.dumps("v")
    server.put(CACHE, KEY, Envelope(body=body, length=len(body)).sealed())
    later = Later(CACHE, {"OPTIONS": server.cache_settings(CLEAR_MAX_AGE=None)["OPTIONS"]})
    later.ahead = 10**9
    assert later.get("k") == "v"


# Compression


@pytest.mark.parametrize("compressor", ["zlib", "zstd"])
@pytest.mark.parametrize(
    ("size", "at_least", "noise", "is_compressed"),
    [
        (5000, 1024, False, True),
        (1100, 1024, False, True),
        (900, 1024, False, False),
        (900, 0, False, True),
        (5000, 6000, False, False),
        (5000, 1024, True, False),
        (1, 0, False, False),
    ],
)
def test_compression_only_where_it_pays(
    server: RunningServer,
    make_cache: Make,
    compressor: str,
    size: int,
    at_least: int,
    noise: bool,
    is_compressed: bool,
) -> None:
    """Short payloads and those that do not shrink travel as they are; others are shorter."""
    value = random.Random(1).randbytes(size) if noise else b"x" * size
    options = {"COMPRESSOR": compressor, "COMPRESS_MIN_BYTES": at_least}
    cache = make_cache(CLEAR_MAX_AGE=None, **options)
    cache.set("k", value)
    plain = BODY + len(pickle.dumps(value, 5))
    travelled = server.requests[-1].size
    assert travelled < plain if is_compressed else travelled == plain
    assert (HEADER.unpack(stored(server)[:SIGNED])[3] != 0) is is_compressed
    assert cache.get("k") == value


def test_no_compressor(server: RunningServer, make_cache: Make) -> None:
    """With COMPRESSOR None nothing is compressed."""
    make_cache(CLEAR_MAX_AGE=None, COMPRESSOR=None).set("k", b"x" * 5000)
    assert server.requests[-1].size == BODY + len(pickle.dumps(b"x" * 5000, 5))


BOMB = zlib.compress(bytes(200_000_000), 9)


@pytest.mark.parametrize("length", [0, 10, 1_000_000, 200_000_000, 2**32 - 1])
def test_bombs(is_miss: Callable[[bytes], bool], length: int) -> None:
    """A body that inflates to more than it says, or than is sensible, is a cheap miss."""
    data = Envelope(body=BOMB, length=length, compressor=1).sealed()
    tracemalloc.start()
    try:
        assert is_miss(data)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("change", ["truncated", "trailing", "short", "long", "corrupt"])
@pytest.mark.parametrize("compressor", ["zlib", "zstd"])
def test_incomplete_bodies(
    server: RunningServer,
    make_cache: Make,
    is_miss: Callable[[bytes], bool],
    compressor: str,
    change: str,
) -> None:
    """A compressed body must inflate completely, to exactly the length that was signed."""
    make_cache(CLEAR_MAX_AGE=None, COMPRESSOR=compressor).set("k", "x" * 5000)
    data = stored(server)
    code, length, body = (
        HEADER.unpack(data[:SIGNED])[3],
        HEADER.unpack(data[:SIGNED])[8],
        data[BODY:],
    )
    assert not is_miss(Envelope(compressor=code, length=length, body=body).sealed())
    bodies = {
        "truncated": body[:-5],
        "trailing": body + b"\0",
        "corrupt": body[:6] + bytes([body[6] ^ 0xFF]) + body[7:],
    }
    lengths = {"short": length - 1, "long": length + 1}
    assert is_miss(
        Envelope(
            compressor=code, length=lengths.get(change, length), body=bodies.get(change, body)
        ).sealed()
    )


# What is said about it


UNREADABLE = {
    "foreign": b"canary bytes of another program",
    "unknown serializer": Envelope(body=b"canary", length=6, serializer=0x9999).sealed(),
    "broken pickle": Envelope(body=b"canary", length=6).sealed(),
}


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE.keys())
@pytest.mark.parametrize(
    ("method", "arguments", "result"),
    [
        ("get", ("k", "default"), "default"),
        ("get_many", (["k"],), {}),
        ("has_key", ("k",), False),
        ("add", ("k", "new"), True),
        ("delete", ("k",), False),
        ("get_or_set", ("k", "new"), "new"),
        ("incr", ("k",), ValueError),
        ("decr", ("k",), ValueError),
    ],
)
@pytest.mark.parametrize("on_error", ["miss", "raise"])
def test_unreadable_values(
    server: RunningServer,
    make_cache: Make,
    caplog: pytest.LogCaptureFixture,
    data: bytes,
    method: str,
    arguments: tuple[Any, ...],
    result: Any,
    on_error: str,
) -> None:
    """What does not verify or decode is as absent, with a warning; or a StoredValueError."""
    if method == "delete" and data != UNREADABLE["foreign"]:
        pytest.skip("what verifies is ours, and is deleted without being decoded")
    server.put(CACHE, KEY, data)
    cache = make_cache(CLEAR_MAX_AGE=None, ON_ERROR=on_error)
    if on_error == "raise" or result is ValueError:
        expected = StoredValueError if on_error == "raise" else ValueError
        with pytest.raises(expected) as caught:
            getattr(cache, method)(*arguments)
        assert "canary" not in str(caught.value)
    else:
        assert getattr(cache, method)(*arguments) == result
    if on_error == "miss":
        [record] = [each for each in caplog.records if each.name == "django_momento_http"]
        assert record.levelno == logging.WARNING
        assert "canary" not in record.getMessage()


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE.keys())
@pytest.mark.parametrize("method", ["set", "add", "get_or_set"])
def test_unreadable_values_are_replaced(
    server: RunningServer, cache: MomentoCache, data: bytes, method: str
) -> None:
    """What cannot be read stands in nobody's way: the next value that is stored is there."""
    server.put(CACHE, KEY, data)
    getattr(cache, method)("k", "new")
    assert cache.get("k") == "new"


def test_touch_of_foreign_bytes(server: RunningServer, cache: MomentoCache) -> None:
    """touch() does not prolong what is not ours."""
    server.put(CACHE, KEY, UNREADABLE["foreign"])
    assert cache.touch("k") is False
    assert [request.method for request in server.requests] == ["GET"]


def test_warnings_are_rate_limited(
    server: RunningServer, cache: MomentoCache, caplog: pytest.LogCaptureFixture
) -> None:
    """Many unreadable values are one line, and no line shows key or value."""
    keys = [f"canary{number}" for number in range(20)]
    for key in keys:
        server.put(CACHE, f":1:{key}".encode(), b"canary" + os.urandom(5))
    for key in keys:
        cache.get(key)
    assert cache.get_many(keys) == {}
    lines = [
        record.getMessage() for record in caplog.records if record.name == "django_momento_http"
    ]
    assert len(lines) == 2
    assert "canary" not in "".join(lines)
