"""Plans that tasks await, and what each event loop waits for.

It knows how a plan is advanced and how a loop is told, not who carries plans out.
"""

import asyncio
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any

from .._client.operation import Asked, Operation, Plan, Together
from .workers import Workers

# Tasks woken in one turn of an event loop: more would hold the loop for milliseconds.
_WOKEN_AT_ONCE = 50
# A loop that tasks wait in looks so often whether something was forgotten.
_LOOK_SECONDS = 0.2
_LONG_AGO = float("-inf")


class Job:
    """One plan that a task awaits; it is made where it is carried out."""

    __slots__ = (
        "_context",
        "_error",
        "_future",
        "_is_left",
        "_is_list",
        "_make",
        "_plan",
        "_result",
        "asked_at",
        "began",
        "deadline",
        "expected",
        "outcomes",
        "waiting",
    )

    def __init__(self, make: Callable[[], Plan[Any]], waiting: "Waiting", asked_at: float) -> None:
        self._make = make
        self._plan: Plan[Any] | None = None
        self.waiting = waiting
        self.asked_at = self.began = self.deadline = asked_at
        self._context: Context = copy_context()
        self.expected = -1  # the plan has not begun
        self._is_list = self._is_left = False
        self._error: BaseException | None = None
        self.outcomes: list[tuple[int, Any]] = []
        self._future: asyncio.Future[Any] = waiting.loop.create_future()
        self._result: tuple[Any, BaseException | None] | None = None

    def __await__(self) -> Generator[Any, None, Any]:
        return self._future.__await__()

    @property
    def has_ended(self) -> bool:
        """Whether there is a result."""
        return self._result is not None

    @property
    def is_over(self) -> bool:
        """Whether its task no longer waits for it."""
        return self._is_left or self._future.done()

    def leave(self) -> None:
        """Take note that its task no longer waits for it; the loop may be closed."""
        self._is_left = True

    def advance(self) -> Sequence[Asked] | None:
        """Send the outcomes in; return what the plan asks for next, None when it has ended."""
        outcomes, self.outcomes = self.outcomes, []
        error, self._error = self._error, None
        sent: Any = None
        if self.expected >= 0:
            sent = outcomes if self._is_list else outcomes[0][1]
        try:
            plan = self._plan = self._plan or self._make()
            if error is None:
                asked = self._context.run(plan.send, sent)
            else:
                asked = self._context.run(plan.throw, error)
        except StopIteration as done:
            self._result = done.value, None
        except BaseException as error:  # noqa: BLE001 - it is the awaiting task's
            self._result = None, error
        else:
            self._is_list = isinstance(asked, Together)
            operations = asked if isinstance(asked, Together) else [asked]
            self.expected = len(operations)
            return operations
        return None

    def make(self, make: Callable[[], Operation]) -> Operation | None:
        """Make an operation of the plan's; none where that failed, which the plan is told."""
        if self._error is not None:
            return None
        try:
            return self._context.run(make)
        except BaseException as error:  # noqa: BLE001 - raised in the plan
            self._error = error
        return None

    def fail(self, error: BaseException) -> None:
        """End with this error, unless it has ended."""
        if self._result is None:
            self._result = None, error
            if self._plan is not None:
                self._plan.close()

    def run(
        self, carry_out: Callable[[Callable[[], Plan[Any]], float], Any], waited: float
    ) -> None:
        """Carry the whole plan out; so many seconds were waited already."""
        try:
            self._result = self._context.run(carry_out, self._make, waited), None
        except BaseException as error:  # noqa: BLE001 - it is the awaiting task's
            self._result = None, error

    def wake(self) -> None:
        """Hand the result, if there is one, to the task, in its loop's thread."""
        if self._result is None or self.is_over:
            return
        result, error = self._result
        if error is not None:
            self._future.set_exception(error)
        else:
            self._future.set_result(result)


class Waiting:
    """What the tasks of one event loop wait for.

    ``work`` is what a worker does with it. Where a signal handler raises in the loop's thread, a
    callback that was about to run is lost: the end of a turn, or the waking of tasks. So while any
    task waits, the loop looks again.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        workers: Workers,
        work: Callable[[float], object],
        clock: Callable[[], float],
    ) -> None:
        self.loop = loop
        self.jobs: set[Job] = set()
        self._work = work
        self._ask = workers.bell(self)
        self._clock = clock
        self._asked_at = self._look_at = _LONG_AGO

    def add(self, job: Job) -> None:
        """Let workers take the job when the loop's turn ends, with all that are added in it.

        Wherever this is interrupted, the next job asks for it: the other way round, none would.
        """
        self.jobs.add(job)
        now = job.asked_at
        if now - self._asked_at > _LOOK_SECONDS:
            self.loop.call_soon(self._ask)
            self._asked_at = now
        if now - self._look_at > 2 * _LOOK_SECONDS:
            self._look_later(now)

    def _look_later(self, now: float) -> None:
        self.loop.call_later(_LOOK_SECONDS, self._look)
        self._look_at = now

    def carry_out(self, since: float) -> None:
        """Do, in a worker's thread, what was asked for; it may have waited since then."""
        # First, so that a job that does not ask for it is among those that are taken now.
        self._asked_at = _LONG_AGO
        self._work(since)

    def wake(self, jobs: Sequence[Job]) -> None:
        """Let the loop, from any thread, hand these jobs' results to their tasks."""
        with suppress(RuntimeError):  # the loop was closed: nobody waits
            self.loop.call_soon_threadsafe(self._wake, jobs)

    def _wake(self, jobs: Sequence[Job]) -> None:
        for job in jobs[:_WOKEN_AT_ONCE]:
            job.wake()
        if len(jobs) > _WOKEN_AT_ONCE:
            self.loop.call_soon(self._wake, jobs[_WOKEN_AT_ONCE:])

    def _look(self) -> None:
        """Ask again for what may have been lost; harmless where it was not."""
        # Before all else: wherever this is interrupted, it happens again.
        self._look_at = _LONG_AGO
        if not self.jobs:
            return
        self._look_later(self._clock())
        self.jobs = {job for job in self.jobs if not job.is_over}
        if self._asked_at != _LONG_AGO:
            self.loop.call_soon(self._ask)
        self._wake([job for job in self.jobs if job.has_ended])
