"""XFetch: when a caller volunteers to make a value anew before it expires."""

import math
import random

import pytest

from django_momento_http._store.early import is_early, margin
from django_momento_http._store.envelope import Stored


def stored(lifetime: float | None, made_in: int) -> Stored:
    """Return a value that was made at second 1000 and lives so long."""
    expires_at = None if lifetime is None else 1000 + lifetime
    return Stored(1, 0, 0, expires_at, 1_000_000, 0, memoryview(b""), made_in)


@pytest.mark.parametrize(
    ("lifetime", "made_in", "seconds"),
    [
        (60, 500, 0.5),
        (60, 6000, 6.0),
        (60, 6001, 6.0),  # a tenth of the lifetime
        (1, 500, 0.1),
        (60, 0, 0.0),  # nobody measured
        (None, 500, 0.0),
        (-5, 500, 0.0),  # the clocks of two hosts
    ],
)
def test_the_margin(lifetime: float | None, made_in: int, seconds: float) -> None:
    """It is the time to make the value, at most a tenth of its lifetime, and 0 without either."""
    assert margin(stored(lifetime, made_in)) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("left", "beta", "draw", "expected"),
    [
        (0.5, 1.0, math.exp(-1), True),  # as much as there is left
        (0.5001, 1.0, math.exp(-1), False),
        (1.0, 2.0, math.exp(-1), True),
        (0.1, 1.0, 1.0, False),  # -ln(1) is 0
        (1e-9, 1.0, 1.0, False),
        (0.0, 1.0, 1e-9, False),  # it has expired: that is a miss
        (-1.0, 1.0, 1e-9, False),
        (60.0, 1.0, 1e-9, False),
        (0.5, 0.0, 1e-9, False),  # EARLY_REFRESH 0
    ],
)
def test_the_decision(left: float, beta: float, draw: float, expected: bool) -> None:
    """A caller is early where 0 < left <= -beta * margin * ln(u)."""
    assert is_early(left, 0.5, beta, draw) is expected


def test_a_value_that_took_no_time_is_never_early() -> None:
    """There is nothing to gain."""
    assert not any(is_early(1e-9, 0.0, 1000.0, draw) for draw in (1e-300, 0.5, 1.0))


def test_the_chance_grows_towards_the_end() -> None:
    """With the seconds left as a multiple of the margin, e to the minus that volunteer."""
    chance = random.Random(7)
    for left in (0.25, 0.5, 1.0, 2.0):
        draws = [1 - chance.random() for _ in range(20_000)]
        share = sum(is_early(left, 0.5, 1.0, draw) for draw in draws) / len(draws)
        assert share == pytest.approx(math.exp(-left / 0.5), abs=0.02)
