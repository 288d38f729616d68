"""One configured value at a time: what it means, or why it means nothing."""

import enum
import math
from pathlib import Path

import pytest

from django_momento_http import _redaction as redaction
from django_momento_http._conf import validators

WHOLE = validators.whole("a whole number from 1 to 64", 1, 64)
SECONDS = validators.seconds("a number of seconds", 0, 60)


class Level(enum.IntEnum):
    """A whole number with a name."""

    LOW = 2


@pytest.mark.parametrize(
    ("given", "number"), [(1, 1), (64, 64), ("1", 1), ("064", 64), (Level.LOW, 2)]
)
def test_whole_number_may_be_a_string_of_digits(given: object, number: int) -> None:
    """Whole numbers within the range, and strings of digits, give a plain int."""
    assert WHOLE(given) == number
    assert type(WHOLE(given)) is int


@pytest.mark.parametrize(
    "given",
    [
        0,
        65,
        -1,
        10**400,
        1.0,
        "1.0",
        "",
        " 1",
        "+1",
        "1_0",
        "\u0661",
        "9" * 5000,
        True,
        None,
        [],
        math.nan,
    ],
)
def test_anything_else_is_no_whole_number(given: object) -> None:
    """Numbers out of range, fractions, flags and other texts are refused."""
    with pytest.raises(ValueError, match=r"^must be a whole number from 1 to 64, not "):
        WHOLE(given)


@pytest.mark.parametrize(
    ("given", "number"),
    [(0, 0.0), (60, 60.0), (0.5, 0.5), ("0.5", 0.5), (".5", 0.5), ("60", 60.0), ("1.", 1.0)],
)
def test_seconds_may_be_a_decimal_string(given: object, number: float) -> None:
    """Numbers within the range, and decimal strings, give a float."""
    assert SECONDS(given) == number
    assert type(SECONDS(given)) is float


@pytest.mark.parametrize(
    "given",
    [
        -0.1,
        60.1,
        10**400,
        math.nan,
        math.inf,
        -math.inf,
        "nan",
        "inf",
        "1e1",
        "-1",
        "1s",
        "",
        True,
        None,
        (),
        "9" * 5000,
    ],
)
def test_anything_else_is_no_duration(given: object) -> None:
    """Numbers out of range, NaN, infinity, flags and other texts are refused."""
    with pytest.raises(ValueError, match=r"^must be a number of seconds, not "):
        SECONDS(given)


@pytest.mark.parametrize(
    ("given", "flag"),
    [(True, True), (False, False), ("true", True), ("False", False), ("TRUE", True)],
)
def test_flag_may_be_a_word(given: object, *, flag: bool) -> None:
    """True and False may be written out, in any case."""
    assert validators.flag(given) is flag


@pytest.mark.parametrize("given", [1, 0, "1", "yes", "", None, [True]])
def test_anything_else_is_no_flag(given: object) -> None:
    """Nothing but True and False is guessed to be one of them."""
    with pytest.raises(ValueError, match=r"^must be True or False, not "):
        validators.flag(given)


@pytest.mark.parametrize("given", [None, "none", "None", "NONE"])
def test_none_may_be_a_word(given: object) -> None:
    """None may be written out, in any case, where None is accepted."""
    assert validators.or_none(WHOLE)(given) is None


@pytest.mark.parametrize("given", ["", "null", 0, False])
def test_nothing_else_is_none(given: object) -> None:
    """Other empty values are not taken for None."""
    with pytest.raises(ValueError, match="whole number"):
        validators.or_none(WHOLE)(given)


def test_name_is_looked_up() -> None:
    """A known name gives its meaning."""
    assert validators.one_of({"here": 1, "there": 2})("there") == 2


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("their", "; did you mean there?"),
        (" THERE ", "; did you mean there?"),
        ("x", ""),
        (1, "; give a string"),
    ],
)
def test_unknown_name_is_refused_with_a_hint(given: object, hint: str) -> None:
    """The error shows what is known and what was probably meant."""
    with pytest.raises(ValueError, match="must be one of here, there") as refused:
        validators.one_of({"here": 1, "there": 2})(given)
    assert str(refused.value) == f"must be one of here, there, not {given!r}{hint}"


def test_file_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A readable file may be given as a string or a path, relative or not."""
    bundle = tmp_path / "bundle.pem"
    bundle.touch()
    monkeypatch.chdir(tmp_path)

    assert validators.file("bundle.pem") == str(bundle)
    assert validators.file(bundle) == str(bundle)


@pytest.mark.parametrize("given", ["", "missing.pem", ".", "a\0b", 5, None, b"bundle.pem"])
def test_anything_else_is_no_file(given: object) -> None:
    """What is missing, a directory or no path at all is refused."""
    with pytest.raises(ValueError, match=r"^must be the path of a file"):
        validators.file(given)


@pytest.mark.parametrize(
    ("given", "reason"), [("", "empty"), (b"secret", "bytes"), (None, "NoneType")]
)
def test_unusable_secret_is_not_shown(given: object, reason: str) -> None:
    """A secret that is empty or no string is refused by its type alone."""
    with pytest.raises(ValueError, match=reason) as caught:
        validators.secret(given)

    assert "secret" not in str(caught.value)


def test_long_value_is_cut() -> None:
    """An error message stays readable, however long the value."""
    assert len(redaction.shown("x" * 10_000)) < 100
