"""Which keys verify stored values: none that anybody can guess."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django.utils.functional import SimpleLazyObject, lazy

from django_momento_http import serializers
from django_momento_http._store.envelope import Envelope
from django_momento_http.cache import MomentoCache
from django_momento_http.testing import RunningServer

GUESSABLE = {
    "None": None,
    "empty text": "",
    "empty bytes": b"",
    "space": " ",
    "white space": " \t\r\n\u00a0",
    "white bytes": b" \n",
    "zero": 0,
    "a number": 5,
    "a flag": True,
    "a list": ["key"],
    "a bytearray": bytearray(b"key"),
    "lazily None": SimpleLazyObject(lambda: None),
    "lazily empty": SimpleLazyObject(lambda: ""),
    "no UTF-8": "key-\udc80-of-a-bad-environment",
    "lazily the text None": lazy(lambda: None, str)(),
}
guessable = pytest.mark.parametrize("key", GUESSABLE.values(), ids=GUESSABLE)


def built(**options: Any) -> MomentoCache:
    """Return a backend that nobody asks anything."""
    given = {"ENDPOINT": "http://127.0.0.1:9", "TOKEN": "token", **options}
    return MomentoCache("my-cache", {"OPTIONS": given})


def refusal(**options: Any) -> str:
    """Return why a backend cannot be built; the text shows none of the keys."""
    with pytest.raises(ImproperlyConfigured) as caught:
        built(**options)
    assert "key-" not in str(caught.value)
    return str(caught.value)


@guessable
def test_no_fallback_that_anybody_can_guess(key: object) -> None:
    """A fallback that is missing or empty is an error that names the setting and the entry."""
    with override_settings(SECRET_KEY_FALLBACKS=["an older key", key]):
        assert "SECRET_KEY_FALLBACKS[1] must" in refusal()


# Django's settings do not give out the one that is lazily no text at all.
@pytest.mark.parametrize("key", list(GUESSABLE.values())[:-1])
def test_no_secret_key_that_anybody_can_guess(key: object) -> None:
    """A SECRET_KEY that is missing or empty is an error that names the setting."""
    with override_settings(SECRET_KEY=key):
        assert "SECRET_KEY" in refusal()


@pytest.mark.parametrize(
    "key",
    [pytest.param(key, id=name) for name, key in GUESSABLE.items() if key is not None],
)
def test_no_signing_key_that_anybody_can_guess(key: object) -> None:
    """A SIGNING_KEY that is empty or no text is an error that names the option."""
    assert "SIGNING_KEY must" in refusal(SIGNING_KEY=key)


@pytest.mark.parametrize("fallbacks", [None, "old", b"old", {"old"}, {"old": 1}, 5])
def test_fallbacks_are_a_list(fallbacks: object) -> None:
    """One text in place of a list is not taken for a list of keys of one character each."""
    with override_settings(SECRET_KEY_FALLBACKS=fallbacks):
        assert "SECRET_KEY_FALLBACKS must be a list or a tuple" in refusal()


@pytest.mark.parametrize(
    ("setting", "value"), [("SECRET_KEY", ""), ("SECRET_KEY", None), ("SECRET_KEY_FALLBACKS", [""])]
)
def test_a_signing_key_needs_no_secret_key(setting: str, value: object) -> None:
    """Keys that verify nothing are not judged."""
    with override_settings(**{setting: value}):
        built(SIGNING_KEY="a key of its own")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("the key", b"the key"),
        (b"the key", "the key"),
        ("the key", SimpleLazyObject(lambda: "the key")),
        (" the key\n", b" the key\n"),
        ("schlüssel", "schlüssel".encode()),
    ],
)
@pytest.mark.parametrize("is_fallback", [False, True])
def test_good_keys_verify(
    server: RunningServer,
    make_cache: Callable[..., Any],
    written: object,
    read: object,
    is_fallback: bool,
) -> None:
    """Text and bytes are the same key, also lazy ones and those that were replaced."""
    with override_settings(SECRET_KEY=written):
        make_cache().set("a", 1)
    keys = {"SECRET_KEY": read, "SECRET_KEY_FALLBACKS": ()}
    if is_fallback:
        keys = {"SECRET_KEY": "a newer one", "SECRET_KEY_FALLBACKS": (read,)}
    with override_settings(**keys):
        assert make_cache().get("a") == 1


@pytest.mark.parametrize("secrets", [[], [b""], [b"a secret", b""]], ids=range(3))
def test_no_envelope_is_sealed_without_a_secret(secrets: list[bytes]) -> None:
    """Whoever builds one: what an empty key signs, anybody could."""
    with pytest.raises(ValueError, match="a secret"):
        Envelope("my-cache", "", secrets, serializers.REGISTRY.find("json"))
