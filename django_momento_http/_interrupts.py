"""Whether an exception came from outside: raised by a signal handler, at whatever instruction.

Celery's soft time limit, RQ's timeouts and a server's abort arrive so, and must not be taken for an
error of the code that they interrupt. What another thread raises in this one
(``PyThreadState_SetAsyncExc``) leaves no trace that tells it apart. It knows nothing of what is
interrupted.
"""

# What ``signal`` wraps, without the enums that make that thirty times slower.
import _signal  # type: ignore[import-not-found]
import functools
import signal
from collections.abc import Iterator
from types import CodeType, TracebackType
from typing import Any


def is_raised_by_signal_handler(error: BaseException) -> bool:
    """Whether the exception passed through a Python signal handler; costs a few microseconds.

    Only its own traceback counts: a caller may use the cache while it handles such an exception.
    """
    traceback = error.__traceback__
    if traceback is None or traceback.tb_next is None:
        return False  # raised where it was caught: there is no handler between
    handlers = frozenset(_handlers())
    return any(code in handlers for code in _codes(error.__traceback__))


def _codes(traceback: TracebackType | None) -> Iterator[CodeType]:
    while traceback is not None:
        yield traceback.tb_frame.f_code
        traceback = traceback.tb_next


def _handlers() -> Iterator[CodeType]:
    for number in range(1, signal.NSIG):
        handler = _signal.getsignal(number)
        if handler is None or isinstance(handler, int):
            continue  # none of Python's, ignored or the default
        code = _code_of(handler)
        if code is not None:
            yield code


def _code_of(handler: Any) -> CodeType | None:
    """Return what a handler runs; None for those that are no Python code."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    if not hasattr(handler, "__code__"):
        handler = getattr(handler, "__func__", None) or getattr(type(handler), "__call__", None)  # noqa: B004
    code = getattr(handler, "__code__", None)
    return code if isinstance(code, CodeType) else None
