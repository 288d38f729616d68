"""API keys of both kinds, and the ways to say where to ask for one."""

import base64
import functools
import json
import os
import traceback
from dataclasses import dataclass

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from django_momento_http._conf.credentials import Credential, parse_token, split_token

# Drawn at random once, so that the names of the tests stay the same from run to run.
CANARY = "3f9c0b7e5d1a4862c7e0915bd84f2a6e"
CELL = "cell-4-us-west-2-1.prod.a.momentohq.com"
ENDPOINT = f"https://api.cache.{CELL}"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"


def base64_json(document: object) -> str:
    """Return the Base64 of the JSON of the document."""
    return base64.b64encode(json.dumps(document).encode()).decode()


# The secret is chosen so that its Base64 needs padding and differs between the two alphabets.
V1_SECRET = "?>~" + CANARY
V1_KEY = base64_json({"endpoint": CELL, "api_key": V1_SECRET})


@pytest.mark.parametrize(
    "key",
    ["a", "abc.def-ghi", JWT, "~!#$%&/()=", "MTIz", base64_json([1]), base64_json({"other": "x"})],
)
def test_opaque_key_is_kept_as_it_is(key: str) -> None:
    """A key that is not a v1 key is sent unchanged and brings no endpoint."""
    assert split_token(key) == Credential(key, None)


@pytest.mark.parametrize(
    "key",
    [
        V1_KEY,
        V1_KEY.rstrip("="),
        V1_KEY.replace("+", "-").replace("/", "_"),
        V1_KEY.rstrip("=").replace("+", "-").replace("/", "_"),
    ],
)
def test_v1_key_is_taken_apart(key: str) -> None:
    """Either alphabet of Base64, padded or not, gives the inner key and the cell's endpoint."""
    assert split_token(key) == Credential(V1_SECRET, ENDPOINT)


@pytest.mark.parametrize("key", ["opaque", V1_KEY])
def test_white_space_around_a_key_does_not_count(key: str) -> None:
    """A line feed at the end of a secret's file does no harm."""
    assert split_token(f" {key}\r\n") == split_token(key)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("", "empty"),
        (" \n", "empty"),
        (f"{CANARY} {CANARY}", "whitespace"),
        (f"{CANARY}\r\nX-Other: 1", "whitespace"),
        (f"{CANARY}\x7f", "control"),
        (f"{CANARY}é", "ASCII"),
        (None, "NoneType"),
        (CANARY.encode(), "bytes"),
        (V1_KEY[:40], "incomplete"),
        (V1_KEY[:20] + "*" + V1_KEY[21:], "incomplete"),
        (base64_json({"api_key": CANARY}), "endpoint"),
        (base64_json({"endpoint": CELL}), "api_key"),
        (base64_json({"endpoint": CELL, "api_key": ""}), "api_key"),
        (base64_json({"endpoint": CELL, "api_key": f"{CANARY}\n"}), "api_key"),
        (base64_json({"endpoint": CELL, "api_key": [CANARY]}), "api_key"),
        (base64_json({"endpoint": "", "api_key": CANARY}), "endpoint"),
        (base64_json({"endpoint": 5, "api_key": CANARY}), "endpoint"),
        (base64_json({"endpoint": f"https://{CELL}", "api_key": CANARY}), "endpoint"),
        (base64_json({"endpoint": f"{CANARY}@{CELL}", "api_key": CANARY}), "endpoint"),
        (base64_json({"endpoint": "10.0.0.1", "api_key": CANARY}), "endpoint"),
    ],
)
def test_unusable_key_is_refused_without_being_shown(key: object, reason: str) -> None:
    """The error names the trouble; neither it nor what it was raised from holds the key."""
    with pytest.raises(ValueError, match=reason) as caught:
        split_token(key)

    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert CANARY not in shown
    assert V1_KEY[:40] not in shown
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert CANARY not in repr(caught.tb.tb_next.tb_frame.f_locals)


@drawn(st.text())
def test_any_text_is_a_credential_or_refused(text: str) -> None:
    """Whatever the text, the answer is something that can be sent in a header, or ValueError."""
    try:
        secret = split_token(text).secret
    except ValueError:
        return
    assert secret
    assert all("!" <= character <= "~" for character in secret)


def test_credential_does_not_show_its_secret() -> None:
    """The representation of a credential names the endpoint alone."""
    assert CANARY not in repr(split_token(V1_KEY))
    assert ENDPOINT in repr(split_token(V1_KEY))


def ask() -> str:
    """Return a token, as a user's function does."""
    return CANARY


@dataclass
class Source:
    """A callable that is equal to others, and therefore cannot be hashed."""

    name: str

    def __call__(self) -> str:
        return CANARY


@pytest.mark.parametrize(
    "source", [ask, lambda: CANARY, functools.partial(ask), Source("a").__call__]
)
def test_callable_is_kept_and_not_called(source: object) -> None:
    """A callable is handed on for the client to ask."""
    assert parse_token(source) is source


def test_unhashable_callable_becomes_hashable() -> None:
    """A callable that cannot be hashed can still be part of the options that find the client."""
    source = Source("a")
    parsed = parse_token(source)

    assert callable(parsed)
    assert parsed() == CANARY
    assert hash(parsed) == hash(parse_token(source))
    assert parsed == parse_token(source)
    assert parsed != parse_token(Source("a"))


def test_dotted_path_is_imported() -> None:
    """Identifiers joined by dots name the callable to ask."""
    assert parse_token("os.getcwd") is os.getcwd


@pytest.mark.parametrize("key", [JWT, "eyJfoo.bar", "abc", "a.1b", "a..b", ".a.b", "a.b.", "a.b-c"])
def test_string_that_is_no_path_is_a_key(key: str) -> None:
    """A JSON Web Token, and whatever is not identifiers joined by dots, is never imported."""
    assert parse_token(key) == Credential(key, None)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (f"no_such_module_{CANARY}.ask", "ModuleNotFoundError"),
        (f"os.no_such_name_{CANARY}", "ImportError"),
        ("os.sep", "cannot be called"),
    ],
)
def test_unusable_path_is_refused_without_being_shown(path: str, reason: str) -> None:
    """The error says that it was taken for a path, but does not show it: it may be a key."""
    with pytest.raises(ValueError, match=f"dotted path.*{reason}") as caught:
        parse_token(path)

    assert path not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None
    assert CANARY not in repr(caught.tb.tb_next.tb_frame.f_locals)


@pytest.mark.parametrize("value", [5, b"key", ["key"], True])
def test_anything_else_is_refused_by_its_type(value: object) -> None:
    """What is neither a string nor callable is an error that names its type."""
    with pytest.raises(ValueError, match=type(value).__name__):
        parse_token(value)
