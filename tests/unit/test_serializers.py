"""Who may load what: a pickle runs code, and only an alias that asks for pickles loads one."""

import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from django_momento_http import serializers
from django_momento_http.exceptions import StoredValueError
from django_momento_http.testing import RunningServer
from tests.backend.test_stored_values import CACHE, KEY, Envelope, Explosive

Make = Callable[..., Any]

OTHERS = [
    "json",
    "tests.unit.test_serializers.Text",
    "django_momento_http.serializers.JSONSerializer",
]
others = pytest.mark.parametrize("serializer", OTHERS)


class Text:
    """A serializer of a project's own."""

    def dumps(self, value: str) -> bytes:
        """Encode the text."""
        return value.encode()

    def loads(self, data: bytes) -> str:
        """Decode it."""
        return data.decode()


@pytest.fixture
def bomb(server: RunningServer, tmp_path: Path) -> Path:
    """The file that exists as soon as somebody loads the value of the key, which is signed."""
    path = tmp_path / "exploded"
    body = pickle.dumps(Explosive(path))
    server.put(CACHE, KEY, Envelope(serializer=1, length=len(body), body=body).sealed())
    return path


@others
def test_a_pickle_is_not_loaded_elsewhere(
    make_cache: Make, bomb: Path, serializer: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Unless SERIALIZER is "pickle", a signed pickle is a miss and a warning, and runs nothing."""
    cache = make_cache(SERIALIZER=serializer, CLEAR_MAX_AGE=None)
    caplog.set_level(logging.WARNING)
    assert cache.get("k", "a miss") == "a miss"
    assert cache.get_many(["k"]) == {}
    assert not cache.has_key("k")
    with pytest.raises(ValueError, match="no such key"):
        cache.incr("k")
    assert not bomb.exists()
    assert (
        'a stored value was written with SERIALIZER "pickle", which this alias does not load'
        in caplog.text
    )


@others
def test_a_pickle_is_an_error_elsewhere(make_cache: Make, bomb: Path, serializer: str) -> None:
    """With ON_ERROR "raise" it is a StoredValueError of the same words."""
    cache = make_cache(SERIALIZER=serializer, CLEAR_MAX_AGE=None, ON_ERROR="raise")
    with pytest.raises(StoredValueError, match='SERIALIZER "pickle", which this alias does not'):
        cache.get("k")
    assert not bomb.exists()


def test_the_bomb_is_one(make_cache: Make, bomb: Path) -> None:
    """What the others leave alone does explode where pickles are loaded."""
    make_cache(CLEAR_MAX_AGE=None).get("k")
    assert bomb.exists()


def test_aliases_that_differ(make_cache: Make) -> None:
    """Of two aliases on one cache, the one with pickles reads both kinds, the other its own."""
    with_pickle = make_cache(SERIALIZER="pickle", CLEAR_MAX_AGE=None)
    with_json = make_cache(SERIALIZER="json", CLEAR_MAX_AGE=None)
    with_pickle.set("pickled", [1])
    with_json.set("plain", [2])
    assert with_pickle.get_many(["pickled", "plain"]) == {"pickled": [1], "plain": [2]}
    assert with_json.get_many(["pickled", "plain"]) == {"plain": [2]}


def test_a_class_of_a_project_reads_json(make_cache: Make) -> None:
    """A project's own serializer reads what "json" left behind: that runs no code."""
    make_cache(SERIALIZER="json", CLEAR_MAX_AGE=None).set("a", {"b": 1})
    own = make_cache(SERIALIZER="tests.unit.test_serializers.Text", CLEAR_MAX_AGE=None)
    assert own.get("a") == {"b": 1}


def test_a_pickle_can_be_touched_anywhere(make_cache: Make, bomb: Path) -> None:
    """A new expiry needs no loading, so that it runs nothing and takes nothing away."""
    assert make_cache(SERIALIZER="json", CLEAR_MAX_AGE=None).touch("k")
    assert not bomb.exists()
    make_cache(CLEAR_MAX_AGE=None).get("k")
    assert bomb.exists()


@pytest.mark.parametrize("code", [0, 3, 0x7FFF, 0x8000, 0xFFFF])
def test_a_code_that_nobody_has(code: int) -> None:
    """What no serializer here wrote is refused as unknown."""
    with pytest.raises(StoredValueError, match="unknown SERIALIZER"):
        serializers.by_code(code, serializers.REGISTRY.find("json"))
