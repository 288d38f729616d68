"""The soak judges rightly: what is noise, what grew, what is a wrong value.

The soak itself, which takes minutes, is run by hand; it is not part of the wheel.
"""

import random
import sys
from dataclasses import replace
from typing import Any

import pytest

from tests.support.benchmark import load

OPERATIONS = 100_000


@pytest.fixture(scope="module")
def soak() -> Any:
    """The module, loaded from its file."""
    return load("soak")


@pytest.fixture
def early(soak: Any) -> Any:
    """What the process held when it was warm."""
    return soak.Size(operations=20_000, memory=27_000_000, threads=38, descriptors=45)


@pytest.fixture
def worker(soak: Any) -> Any:
    """A worker that has written one value, of which it knows that it landed."""
    worker = soak.Worker("a", random.Random(1), raises=True)
    step = worker._set_many()
    _, (values, _) = next(step)
    with pytest.raises(StopIteration):
        step.send([])
    worker.written = values
    return worker


def read(worker: Any, found: dict[str, Any]) -> None:
    """Let the worker read what it has written, and find this."""
    for key in worker.written:
        worker._judge(key, found.get(key))


@pytest.mark.parametrize(
    ("more", "is_too_much"),
    [
        ({}, False),
        ({"memory": 900_000}, False),
        ({"memory": 1_700_000}, False),
        ({"memory": 25 * OPERATIONS}, True),
        ({"threads": 1}, False),
        ({"threads": 3}, True),
        ({"descriptors": 3}, False),
        ({"descriptors": 9}, True),
    ],
    ids=str,
)
def test_growth(early: Any, more: dict[str, int], *, is_too_much: bool) -> None:
    """What comes and goes is allowed; a leak of 25 bytes an operation, or of threads, is not."""
    late = replace(early, operations=early.operations + OPERATIONS)
    late = replace(late, **{name: getattr(late, name) + count for name, count in more.items()})
    assert late.has_outgrown(early) is is_too_much


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it reads /proc")
def test_its_own_size(soak: Any) -> None:
    """This process is measured in bytes, threads and descriptors."""
    size = soak.Size.now(7)
    assert size.operations == 7
    assert 5_000_000 < size.memory < 5_000_000_000
    assert size.threads >= 1
    assert size.descriptors >= 3


def test_the_right_value_is_right(worker: Any) -> None:
    """What was written last is what may be found."""
    read(worker, worker.written)
    assert worker.wrong == []


def test_a_wrong_value_shows(worker: Any) -> None:
    """Another key's value, a lost one and one that was written over are noted."""
    key = next(iter(worker.written))
    for found in (worker._value("another", 1), None, worker._value(key, 2)):
        noted = len(worker.wrong)
        read(worker, {**worker.written, key: found})
        assert len(worker.wrong) > noted
