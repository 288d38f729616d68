"""What a signal handler raises can be told from what the interrupted code raises."""

import ast
import dis
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise, repeat
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

import django_momento_http
from django_momento_http._interrupts import is_raised_by_signal_handler


class TimeIsUp(Exception):
    """What the handlers of these tests raise."""


def raise_it(*_: object) -> None:
    raise TimeIsUp


class Limit:
    def end(self, *_: object) -> None:
        raise TimeIsUp

    def __call__(self, *_: object) -> None:
        raise TimeIsUp


HANDLERS: dict[str, Callable[..., Any]] = {
    "function": raise_it,
    "method": Limit().end,
    "callable object": Limit(),
    "partial": functools.partial(Limit().end, "x"),
    "calls another": lambda *_: raise_it(),
}


@pytest.fixture(autouse=True)
def usr1() -> Iterator[None]:
    """Put back the handler of before."""
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


def interrupted() -> BaseException:
    """Return what a signal makes of this process."""
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        for _ in range(10_000):
            pass
    except BaseException as error:  # noqa: BLE001 - returned
        return error
    pytest.fail("no exception arrived")


@pytest.mark.parametrize("name", HANDLERS)
def test_what_a_handler_raises_is_recognised(name: str) -> None:
    """Whatever a handler is, and however deep in it the exception is raised."""
    signal.signal(signal.SIGUSR1, HANDLERS[name])
    assert is_raised_by_signal_handler(interrupted())


def test_the_same_exception_raised_by_the_code_itself_is_not() -> None:
    """The class of the exception says nothing of where it came from."""
    signal.signal(signal.SIGUSR1, HANDLERS["method"])
    with pytest.raises(TimeIsUp) as caught:
        raise TimeIsUp
    assert not is_raised_by_signal_handler(caught.value)


def test_what_happens_while_one_is_handled_is_not() -> None:
    """Who uses the cache in an ``except`` block of a time limit gets its misses as ever."""
    signal.signal(signal.SIGUSR1, raise_it)
    try:
        raise interrupted()
    except TimeIsUp:
        with pytest.raises(KeyError) as caught:
            {}["a"]
    assert caught.value.__context__ is not None
    assert not is_raised_by_signal_handler(caught.value)


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL, signal.default_int_handler])
def test_handlers_without_python_code_do_no_harm(handler: Any) -> None:
    """What C code handles names no code of Python's."""
    signal.signal(signal.SIGUSR1, handler)
    assert not is_raised_by_signal_handler(ValueError())


FILES = sorted(Path(django_momento_http.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_coroutine_is_made_one_step_before_it_starts(path: Path) -> None:
    """Where arguments are unpacked, CPython may run a signal handler between making and start.

    The coroutine is dropped then, and Python's warning of that may cost another limit.
    """
    made = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Await)
        and isinstance(node.value, ast.Call)
        and any(isinstance(one, ast.Starred) for one in node.value.args)
    ]
    assert made == []


# What handlers are seen to raise, and what the standard library raises itself.
_COMMON = {
    "Exception",
    "BaseException",
    "OSError",
    "TimeoutError",
    "RuntimeError",
    "ValueError",
} | {"TypeError", "LookupError", "KeyError", "IndexError", "AttributeError", "ArithmeticError"}
# These run in the checks of a deployment, or in a test.
_APART = {"_diagnostics", "server", "testing.py"}


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if not _APART & {path.name, path.parent.name}],
    ids=lambda path: path.stem,
)
def test_whoever_catches_what_is_common_asks_whose_it_is(path: Path) -> None:
    """What a handler raises is of any class; it is handed on, or handed to whoever waits."""
    text = path.read_text()
    lines = text.splitlines()
    careless = [
        lines[node.lineno - 1]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ExceptHandler)
        and (
            node.type is None
            or _COMMON & {one.id for one in ast.walk(node.type) if isinstance(one, ast.Name)}
        )
        and "noqa: BLE001 - " not in lines[node.lineno - 1]
        and "is_raised_by_signal_handler(" not in ast.unparse(node)
        and ast.unparse(node.body[-1]) != "raise"
    ]
    assert careless == []


# Where the interpreter looks who handles what a signal's handler has raised at a jump back: in
# 3.13 at the jump itself, before that just ahead of where it leads.
_IS_AT_THE_JUMP = sys.version_info >= (3, 13)
# Handlers that the compiler adds to each generator, and to each await; they undo nothing.
_OF_NO_INTEREST = {"CALL_INTRINSIC_1", "CLEANUP_THROW"}


def codes_in(code: CodeType) -> Iterator[CodeType]:
    """Yield a code object and all that are made in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes_in(constant)


def unhandled_jumps(code: CodeType) -> Iterator[int | None]:
    """Yield the lines of loops in a ``try`` or ``with`` that is left alone when they go round."""
    instructions = list(dis.get_instructions(code))
    names = {each.offset: each.opname for each in instructions}
    entries = dis.Bytecode(code).exception_entries  # type: ignore[attr-defined]  # since 3.11

    def handlers(offset: int) -> set[int]:
        found = {each.target for each in entries if each.start <= offset < each.end}
        return {target for target in found if names[target] not in _OF_NO_INTEREST}

    for before, jump in pairwise(instructions):
        if jump.opname == "JUMP_BACKWARD":
            asked_at = jump.offset if _IS_AT_THE_JUMP else jump.argval - 2
            if (handlers(before.offset) & handlers(jump.argval)) - handlers(asked_at):
                yield jump.positions.lineno if jump.positions else None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_loop_leaves_what_guards_it_unseen(path: Path) -> None:
    """CPython 3.13 skips ``finally``, and the end of ``with``, of an interrupted ``while`` with a
    condition: such loops are ``while True``, or functions of their own.
    """
    module = compile(path.read_text(), str(path), "exec")
    assert [line for code in codes_in(module) for line in unhandled_jumps(code)] == []


def conditional(lock: Any, rounds: Iterator[int]) -> None:
    with lock:
        while next(rounds):
            pass


def unconditional(lock: Any, rounds: Iterator[int]) -> None:
    with lock:
        while True:
            if not next(rounds):
                break


def struck(loop: Callable[..., None], lock: Any) -> None:
    signal.setitimer(signal.ITIMER_REAL, 1e-4)
    loop(lock, repeat(1))  # without an end of its own


@pytest.mark.parametrize("loop", [conditional, unconditional])
def test_the_rule_for_loops_is_what_python_does(loop: Callable[..., None]) -> None:
    """What is found is what leaves a lock taken when a signal strikes, and nothing else is."""
    before = signal.signal(signal.SIGALRM, raise_it)
    left = 0
    try:
        for _ in range(50):
            lock = threading.RLock()
            with pytest.raises(TimeIsUp):
                struck(loop, lock)
            left += lock._is_owned()  # type: ignore[attr-defined]  # as threading itself asks
    finally:
        signal.signal(signal.SIGALRM, before)
    assert bool(left) is bool(list(unhandled_jumps(loop.__code__)))
