"""When a GET is asked again: silences go in, a moment comes out; no socket, no sleep."""

import random
from collections.abc import Iterable

import pytest

from django_momento_http._http.hedging import (
    COLD,
    DECISIVE,
    ENOUGH,
    FACTOR,
    FLOOR,
    MOST_REQUESTS,
    WINDOW,
    Hedging,
    Silence,
)


class Purse:
    """A budget of so many hedges that notes what is charged besides."""

    def __init__(self, hedges: int = 1) -> None:
        self.hedges = hedges
        self.charged = 0

    def spend_on_hedge(self) -> bool:
        self.hedges -= 1
        return self.hedges >= 0

    def charge(self, tokens: int) -> None:
        self.charged += tokens


def after(seconds: Iterable[float]) -> Silence:
    """Return what has learnt these silences."""
    silence = Silence()
    for each in seconds:
        silence.record(each)
    return silence


def hedging(
    silence: Silence | None = None, purse: Purse | None = None, *, well: bool = True
) -> Hedging:
    return Hedging(silence or Silence(), purse or Purse(), lambda: well)


def test_it_is_patient_until_it_knows_enough() -> None:
    """A new process asks again after a tenth of a second, until a hundred answers have come."""
    assert Silence().threshold == COLD == 0.1
    assert after([0.002] * (ENOUGH - 1)).threshold == COLD
    assert ENOUGH == 100
    assert after([0.002] * ENOUGH).threshold == FLOOR


def test_a_slow_service_is_known_early() -> None:
    """Where most of the first answers take longer than that, it is more patient at once."""
    assert after([0.4] * 10).threshold == pytest.approx(0.8)
    assert after([0.4, 0.002, 0.002] * 10).threshold == COLD
    assert after([0.4] * 60 + [0.002] * 40).threshold >= 0.8


def test_it_is_a_multiple_of_what_nearly_all_take() -> None:
    """A slow endpoint is given twice what its slowest answers but one in twenty take."""
    silence = after([0.05, *[0.05] * 8, 0.08] * 30)
    assert silence.threshold == pytest.approx(FACTOR * 0.08)
    silence = after([0.05, *[0.05] * 31, 0.08] * 10)
    assert silence.threshold == pytest.approx(FACTOR * 0.05)


def test_it_never_goes_below_the_floor() -> None:
    """However fast an endpoint is, a hiccup of this machine is no silence."""
    assert after([0.0001] * 500).threshold == FLOOR == 0.01


@pytest.mark.parametrize("outliers", [1, 2, 6])
def test_a_few_outliers_do_not_turn_it_off(outliers: int) -> None:
    """Answers that take a second each, less than one in twenty, change nothing."""
    seconds = [0.002] * (WINDOW - outliers) + [1.0] * outliers
    random.Random(outliers).shuffle(seconds)
    assert after(seconds * 3).threshold == FLOOR


def test_it_follows_a_service_that_becomes_slow() -> None:
    """When everything takes longer, that is known after a few answers, not asked twice for ever."""
    silence = after([0.002] * 1000)
    answers = 0
    while silence.threshold < 0.4:
        silence.record(0.4)
        answers += 1
    assert answers <= 8
    assert silence.threshold == pytest.approx(0.8)


def test_it_forgets() -> None:
    """A slow hour is forgotten after a window of good answers."""
    silence = after([0.4] * 1000)
    for _ in range(WINDOW):
        silence.record(0.002)
    assert silence.threshold == FLOOR


def test_it_says_when() -> None:
    """The moment is the last byte heard and the threshold; after three requests it never comes."""
    decides = hedging(after([0.04] * 200))
    assert [decides.due_at(7.0, requests) for requests in (1, 2)] == [pytest.approx(7.08)] * 2
    assert decides.due_at(7.0, MOST_REQUESTS) == float("inf")
    assert MOST_REQUESTS == 3


def test_every_hedge_is_paid() -> None:
    """Without a token nothing is asked again."""
    decides = hedging(purse=Purse(2))
    assert [decides.may_ask() for _ in range(4)] == [True, True, False, False]


def test_nothing_is_asked_again_in_trouble() -> None:
    """While a breaker is not closed, or an account was limited, nothing is asked or paid."""
    purse = Purse(5)
    decides = hedging(purse=purse, well=False)
    assert not decides.may_ask()
    assert purse.hedges == 5


@pytest.mark.parametrize(
    ("size", "hedges", "charged"),
    [(0, 1, 0), (1024, 1, 0), (1025, 1, 1), (100_000, 1, 97), (100_000, 2, 194)],
)
def test_a_large_value_costs_what_it_is_billed(size: int, hedges: int, charged: int) -> None:
    """A hedge costs the started KiB of the answer, of which the first was paid when it was sent."""
    purse = Purse()
    hedging(purse=purse).settle(hedges, size)
    assert purse.charged == charged


def test_what_counts_at_once() -> None:
    """A value or its absence counts at once; what a second request may better is waited out."""
    assert set(DECISIVE) == {200, 404}
