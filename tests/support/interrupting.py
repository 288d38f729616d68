"""Interrupts at every place where a signal handler may run, or at random moments.

Python runs the handler of a signal where a function begins and where a call of C code has returned.
A profile function is called there too, so it can raise the signal at each of these places in turn:
every run of the same operation is interrupted one place later, until one is not interrupted. With a
``step`` only one place in so many is tried, others each time.
"""

import gc
import random
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

# An operation has fewer places than this, or it never ends.
_PLACES = 20_000


class TimeIsUp(Exception):
    """What the handlers of these tests raise, if nothing else is said."""


class Interrupts:
    """A handler of SIGUSR1 and SIGALRM that raises; ``raised`` is what it raised last."""

    def __init__(self, kind: type[BaseException] = TimeIsUp) -> None:
        self.kind = kind
        self.raised: BaseException | None = None
        self.struck = ""
        self.lost: list[str] = []

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.raised = self.kind("time is up")
        self.struck = "".join(traceback.format_stack(frame, 8))
        raise self.raised

    def judged(self, found: BaseException | None, place: object = "") -> BaseException | None:
        """Return what came out, if it is what was raised."""
        raised, self.raised = self.raised, None
        assert found is raised, f"{found!r} came out, not {raised!r} {place}\n{self.struck}"
        assert not self.lost, self.struck
        return found

    def note_lost(self, unraisable: Any) -> None:
        """Note what was raised where Python can only print it."""
        if unraisable.exc_value is self.raised:
            self.lost.append(f"{unraisable.err_msg} {unraisable.object!r}")


class _Profile:
    """A profile function that raises the signal once, at the place of this number."""

    def __init__(self, place: int) -> None:
        self.left = place

    def __call__(self, frame: FrameType, event: str, arg: object) -> None:
        if event in ("call", "c_return"):
            self.left -= 1
            if self.left < 0:
                sys.setprofile(None)
                signal.raise_signal(signal.SIGUSR1)


class _Trace:
    """A trace function that raises the signal once, at the line of this number of some modules."""

    def __init__(self, place: int, modules: frozenset[str]) -> None:
        self.left = place
        self._modules = modules

    def __call__(self, frame: FrameType, event: str, arg: object) -> "_Trace | None":
        if frame.f_globals.get("__name__") not in self._modules:
            return None
        if event == "line":
            self.left -= 1
            if self.left < 0:
                sys.settrace(None)
                signal.raise_signal(signal.SIGUSR1)
        return self


@contextmanager
def interrupts(kind: type[BaseException] = TimeIsUp) -> Iterator[Interrupts]:
    """Install the handler, and put back at the end what was there before."""
    found = Interrupts(kind)
    before = {one: signal.signal(one, found.handle) for one in (signal.SIGUSR1, signal.SIGALRM)}
    hook, sys.unraisablehook = sys.unraisablehook, found.note_lost
    # Of a callback in Python that the collector calls, an exception is lost: not ours to mend.
    callbacks, gc.callbacks[:] = list(gc.callbacks), []
    try:
        yield found
    finally:
        sys.setprofile(None)
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.callbacks[:] = callbacks
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)
        forget_the_interrupted()


def forget_the_interrupted() -> None:
    """Let go now of connections that were dropped in the middle: CPython warns of each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def at_every_place(
    operation: Callable[[], object], kind: type[BaseException] = TimeIsUp, step: int = 1
) -> Iterator[BaseException]:
    """Yield what came out of the operation, interrupted one place later each time.

    It must be what the handler raised, as it was raised.
    """
    with interrupts(kind) as handler:
        for place in range(random.randrange(step), _PLACES, step):
            found = [_interrupted(operation, place, handler)]
            if found == [None]:
                return
            yield found.pop()  # type: ignore[misc]  # and keep nothing
    raise AssertionError("the operation has no end")


def at_every_line(operation: Callable[[], object], *modules: str) -> Iterator[BaseException]:
    """Yield what came out of the operation, interrupted one line of these modules later each time.

    There are places among them that no profile function sees: behind a method of a type in C.
    """
    names = frozenset(modules)
    with interrupts() as handler:
        for place in range(_PLACES):
            found = [_interrupted(operation, place, handler, names)]
            if found == [None]:
                return
            yield found.pop()  # type: ignore[misc]  # and keep nothing
    raise AssertionError("the operation has no end")


def _interrupted(
    operation: Callable[[], object],
    place: int,
    handler: Interrupts,
    modules: frozenset[str] = frozenset(),
) -> BaseException | None:
    handler.raised = found = None
    before = sys.gettrace()
    try:
        if modules:
            sys.settrace(_Trace(place, modules))
        else:
            sys.setprofile(_Profile(place))
        operation()
    except BaseException as error:  # noqa: BLE001 - judged below
        found = error
    finally:
        sys.setprofile(None)
        sys.settrace(before)
    try:
        return handler.judged(found, place)
    finally:
        del found  # or this frame and what it caught would keep each other


def inside_every_place(
    operation: Callable[[], object], inner: Callable[[], object], step: int = 1
) -> int:
    """Run the inner in a signal handler, one place later each time, and return how many there were.

    What either raises comes out.
    """
    before = signal.signal(signal.SIGUSR1, lambda *_: inner())
    try:
        for place in range(random.randrange(step), _PLACES, step):
            profile = _Profile(place)
            sys.setprofile(profile)
            try:
                operation()
            finally:
                sys.setprofile(None)
            if profile.left >= 0:
                return place
    finally:
        signal.signal(signal.SIGUSR1, before)
    raise AssertionError("the operation has no end")


def at_random(
    operation: Callable[[], object], count: int, kind: type[BaseException] = TimeIsUp
) -> Iterator[BaseException]:
    """Interrupt the operation at random moments, and yield so many times what came out of it."""
    with interrupts(kind) as handler:
        longest = _seconds(operation)
        while count:
            found = [_interrupted_within(operation, random.uniform(1e-6, longest), handler)]
            if found[0] is not None:
                count -= 1
                yield found.pop()  # type: ignore[misc]  # and keep nothing


def _interrupted_within(
    operation: Callable[[], object], seconds: float, handler: Interrupts
) -> BaseException | None:
    handler.raised = found = None
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        operation()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except BaseException as error:  # noqa: BLE001 - judged below
        found = error
    try:
        return handler.judged(found)
    finally:
        del found


def _seconds(operation: Callable[[], object]) -> float:
    """Return about how long the operation takes, and a little more."""
    operation()
    began = time.perf_counter()
    for _ in range(5):
        operation()
    return (time.perf_counter() - began) / 5 * 1.3


def frames_of(traceback: TracebackType | None) -> Iterator[FrameType]:
    """Yield the frames that a traceback keeps, and those of generators that stand in them."""
    seen: set[int] = set()
    waiting: list[Any] = []
    while traceback is not None:
        waiting.append(traceback.tb_frame)
        traceback = traceback.tb_next
    while waiting:
        frame = waiting.pop()
        if frame is None or id(frame) in seen:
            continue
        seen.add(id(frame))
        yield frame
        for value in list(frame.f_locals.values()):
            waiting.extend(_frames_behind(value))


def _frames_behind(value: Any) -> Iterator[Any]:
    """Yield the frames of a generator, and of what it awaits."""
    while (frame := getattr(value, "gi_frame", None)) is not None:
        yield frame
        value = value.gi_yieldfrom
