"""What a process keeps: once per key, anew after a fork."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from django_momento_http.process import PerProcess


def test_a_value_is_made_once_per_key() -> None:
    """Threads that ask at the same time get the same value."""
    made: list[str] = []
    start = threading.Barrier(8)

    def make(key: str) -> list[str]:
        made.append(key)
        return [key]

    registry = PerProcess(make)

    def ask(_: int) -> list[str]:
        start.wait(10)
        return registry.get("a")

    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(ask, range(8)))
    assert made == ["a"]
    assert all(value is values[0] for value in values)
    assert registry.get("b") == ["b"]


def test_a_failed_value_is_made_again() -> None:
    """An error while making is the caller's, and nothing is kept of it."""
    outcomes = iter([OSError("no"), "yes"])

    def make(_: str) -> str:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return str(outcome)

    registry = PerProcess(make)
    with pytest.raises(OSError, match="no"):
        registry.get("a")
    assert registry.get("a") == "yes"


def test_only_what_is_over_is_put_away() -> None:
    """``drop`` discards the values of the keys that it is told, once."""
    discarded: list[str] = []
    registry = PerProcess(str.upper, discarded.append)
    registry.get("a")
    registry.get("b")
    for _ in range(2):
        registry.drop(lambda key: key == "a")
    assert discarded == ["A"]
    registry.drop(lambda _: True)
    assert discarded == ["A", "B"]


def test_making_one_may_ask_for_another() -> None:
    """A value that is made of another of the same registry does not lock itself out."""
    registry: PerProcess[int, int] = PerProcess(lambda n: 0 if n == 0 else registry.get(n - 1) + 1)
    assert registry.get(3) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_starts_afresh_even_while_the_lock_is_held() -> None:
    """Nothing inherited is used, nor is a lock waited for whose owner the child does not have."""
    discarded: list[object] = []
    registry = PerProcess(lambda _: object(), discarded.append)
    mine = registry.get("a")
    is_held, may_go = threading.Event(), threading.Event()

    def hold() -> None:
        with registry._lock:
            is_held.set()
            may_go.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    is_held.wait(10)
    child = os.fork()
    if child == 0:
        is_new = registry.get("a") is not mine
        os._exit(0 if is_new and discarded == [mine] else 1)
    may_go.set()
    holder.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert registry.get("a") is mine
    assert discarded == []
