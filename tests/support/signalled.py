"""Signals between any two instructions of some files, where CPython looks whether one has come."""

import dis
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

# After these CPython looks whether a signal has come, and where it jumps back.
CALLS = ("CALL", "RESUME")
JUMP = "JUMP_BACKWARD"
NEVER_AGAIN = 10_000


class Interrupted(BaseException):
    """What a signal handler raises."""


def points(code: CodeType) -> frozenset[int]:
    """The offsets of the instructions before which a signal handler may run."""
    found, is_next = set(), False
    for instruction in dis.get_instructions(code):
        if is_next:
            found.add(instruction.offset)
        is_next = instruction.opname.startswith(CALLS)
        if JUMP in instruction.opname and "NO_INTERRUPT" not in instruction.opname:
            found.add(instruction.argval)
    return frozenset(found)


@contextmanager
def signalled(
    handle: Callable[[], None], number: int, files: Collection[str | None]
) -> Iterator[list[bool]]:
    """Call a handler at the point of this number within the files; say whether it was met."""
    known: dict[CodeType, frozenset[int]] = {}
    met: list[bool] = []
    passed = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal passed
        if frame.f_code.co_filename not in files:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and not met:
            code = frame.f_code
            if code not in known:
                known[code] = points(code)
            passed += frame.f_lasti in known[code]
            if passed > number:
                met.append(True)
                sys.settrace(None)
                handle()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield met
    finally:
        sys.settrace(before)
