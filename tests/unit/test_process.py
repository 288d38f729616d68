"""What a process keeps: once per key, anew after a fork."""

import ctypes
import itertools
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from django_momento_http import _process as process
from django_momento_http._process import PerProcess


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


def test_what_was_made_can_be_listed() -> None:
    """``items`` has all that is alive, also beyond the bound, and makes nothing."""
    made: list[int] = []

    class Value:
        def __init__(self, key: int) -> None:
            made.append(key)

    for recent in (None, 1):
        registry = PerProcess(Value, recent=recent)
        assert registry.items() == []
        kept = {key: registry.get(key) for key in range(3)}
        assert dict(registry.items()) == kept
        registry.drop(lambda key: key == 0)
        assert [key for key, _ in registry.items()] == [1, 2]
    assert made == [0, 1, 2] * 2


def test_making_one_may_ask_for_another() -> None:
    """A value that is made of another of the same registry does not lock itself out."""
    registry: PerProcess[int, int] = PerProcess(lambda n: 0 if n == 0 else registry.get(n - 1) + 1)
    assert registry.get(3) == 3


# A bound


class Value:
    """Something that can be referred to weakly."""


def test_only_so_many_values_are_kept() -> None:
    """Of values that nobody holds the last used ones are kept, and the others let go."""
    registry: PerProcess[int, Value] = PerProcess(lambda _: Value(), recent=3)
    values = [weakref.ref(registry.get(number)) for number in range(3)]
    registry.get(0)
    registry.get(3)
    assert [value() is None for value in values] == [False, True, False]
    for number in range(100):
        registry.get(number)
    assert [value() is None for value in values] == [True] * 3


def test_a_value_that_is_held_is_never_made_twice() -> None:
    """Whoever asks for what somebody still uses gets the same, however long ago that was."""
    registry: PerProcess[int, Value] = PerProcess(lambda _: Value(), recent=2)
    held = [registry.get(number) for number in range(10)]
    assert [registry.get(number) for number in range(10)] == held
    assert [registry.get(number) for number in reversed(range(10))] == held[::-1]


def test_what_is_over_is_put_away_also_where_only_others_hold_it() -> None:
    """``drop`` finds every value that is in use."""
    discarded: list[Value] = []
    registry: PerProcess[int, Value] = PerProcess(lambda _: Value(), discarded.append, recent=1)
    held = [registry.get(number) for number in range(4)]
    registry.drop(lambda number: number != 3)
    assert discarded == held[:3]
    assert registry.get(0) is not held[0]
    assert registry.get(3) is held[3]


@pytest.mark.parametrize("recent", [None, 1])
def test_a_signal_handler_may_ask_while_a_value_is_made(recent: int | None) -> None:
    """Both get the same value, and what was made in vain is put away."""
    discarded: list[Value] = []
    inner: list[Value] = []

    def make(_: str) -> Value:
        if not inner:
            inner.append(Value())
            inner[:] = [registry.get("a")]
        return Value()

    registry: PerProcess[str, Value] = PerProcess(make, discarded.append, recent)
    assert registry.get("a") is inner[0]
    assert len(discarded) == 1


def test_an_interrupt_at_any_step_loses_nothing() -> None:
    """Whenever Ctrl-C comes, there is still one value per key, the one that others hold."""
    registry: PerProcess[int, Value] = PerProcess(lambda _: Value(), recent=2)
    everlasting: PerProcess[int, Value] = PerProcess(lambda _: Value())
    held = {number: registry.get(number) for number in range(4)}
    kept = everlasting.get(0)
    for step in itertools.count():
        for key in (0, 3, 99 + step):
            interrupt_at(step, registry.get, key)
        if not interrupt_at(step, everlasting.get, 0) and step > 100:
            break
        assert {number: registry.get(number) for number in held} == held
        assert everlasting.get(0) is kept


def interrupt_at(step: int, call: Callable[[int], Any], key: int) -> bool:
    """Raise at the so-manieth instruction of the registry; return whether it came that far."""
    left = step

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename != process.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call(key)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


# Forks


def in_child(fork: Callable[[], int], check: Callable[[], bool]) -> int:
    """Return the exit status of a forked child, 0 where the check holds."""
    child = fork()
    if child == 0:
        is_right = False
        with suppress(BaseException):
            is_right = check()
        os._exit(0 if is_right else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fork_unseen() -> int:
    """Fork as a server in C does: no hook of Python's runs."""
    child: int = ctypes.PyDLL(None).fork()
    return child


FORKS = [fork_unseen, *([os.fork] if hasattr(os, "fork") else [])]


@pytest.mark.parametrize("fork", FORKS, ids=lambda fork: fork.__name__)
@pytest.mark.parametrize("recent", [None, 1])
@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_starts_afresh_even_while_the_lock_is_held(
    recent: int | None, fork: Callable[[], int]
) -> None:
    """Nothing inherited is used, nor is a lock waited for whose owner the child does not have."""
    discarded: list[Value] = []
    is_held, may_go = threading.Event(), threading.Event()

    def make(key: str) -> Value:
        if key == "slow" and not may_go.is_set():
            is_held.set()
            may_go.wait(10)
        return Value()

    registry: PerProcess[str, Value] = PerProcess(make, discarded.append, recent)
    mine = registry.get("a")
    holder = threading.Thread(target=registry.get, args=("slow",))
    holder.start()
    is_held.wait(10)

    def check() -> bool:
        signal.alarm(10)
        is_new = registry.get("a") is not mine
        may_go.set()
        return is_new and registry.get("slow") is not mine and discarded == [mine]

    status = in_child(fork, check)
    may_go.set()
    holder.join()
    assert status == 0
    assert registry.get("a") is mine
    assert discarded == []


def test_a_later_process_of_the_same_number_inherits_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Numbers come again: a grandchild may have that of a process whose values it inherited."""
    # Those of the process itself are to stay as they are.
    monkeypatch.setattr(process, "_REGISTRIES", set())
    discarded: list[Value] = []
    used = PerProcess(lambda _: Value(), discarded.append)
    unused = PerProcess(lambda _: Value(), discarded.append)
    first = [used.get("a"), unused.get("a")]
    mine = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: mine + 1)
    second = used.get("a")
    assert sorted(map(id, discarded)) == sorted(map(id, first))
    monkeypatch.setattr(os, "getpid", lambda: mine)
    assert used.get("a") not in [*first, second]
    assert unused.get("a") not in first


@pytest.mark.parametrize("fork", FORKS, ids=lambda fork: fork.__name__)
@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_no_child_takes_its_parents_id_for_its_own(fork: Callable[[], int]) -> None:
    """What is known of the process id is known no more in a child, nor in a child's child."""
    mine = process.remember_pid()
    assert mine == os.getpid()

    def check() -> bool:
        was_forgotten = process.known_pid[0] == 0
        is_known = process.remember_pid() == os.getpid() != mine
        return was_forgotten and is_known and process.known_pid[0] in (0, os.getpid())

    assert in_child(fork, lambda: check() and in_child(fork, check) == 0) == 0
    assert process.known_pid[0] in (0, mine)


@pytest.mark.skipif(sys.platform != "linux", reason="needs memory that a fork wipes")
def test_the_process_id_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Linux a look at what is known takes no system call."""
    mine = process.remember_pid()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert process.known_pid[0] == mine


class _Page:
    """Memory of a system that refuses all advice, or takes any and does nothing."""

    def __init__(self, refuses: Callable[[int], bool]) -> None:
        self._refuses = refuses

    def madvise(self, advice: int) -> None:
        if self._refuses(advice):
            raise OSError(22, "Invalid argument")


@pytest.mark.parametrize("refuses", [lambda _: True, lambda _: False], ids=["all", "none"])
def test_the_process_id_is_asked_for_where_no_memory_is_wiped(
    refuses: Callable[[int], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system does not wipe memory in a fork, or only says so, nothing is remembered."""
    monkeypatch.setattr(process.mmap, "mmap", lambda *_, **__: _Page(refuses))
    monkeypatch.setattr(process, "known_pid", process._forgotten_by_forks())
    assert process.remember_pid() == os.getpid()
    assert process.known_pid[0] == 0
