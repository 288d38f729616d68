"""Carries plans out: for a thread that waits, or for tasks of any event loop.

A plan is a coroutine that awaits operations (see ``operation``). What its own code takes is not
charged to its time, nor to another's. It knows how plans are driven, not what they are for.
"""

import asyncio
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from typing import Any, TypeVar

from .batch import Batch
from .client import MomentoClient
from .operation import Asked, Operation, Outcomes, Plan, Together

T = TypeVar("T")

# Each is a burst under way; further bursts meanwhile go together when one ends.
_WORKERS = 32
# Tasks woken in one turn of an event loop: more would hold the loop for milliseconds.
_WOKEN_AT_ONCE = 50


class _Job:
    """One plan that a task awaits."""

    __slots__ = (
        "_context",
        "_error",
        "_future",
        "_is_list",
        "_plan",
        "_result",
        "began",
        "deadline",
        "expected",
        "loop",
        "outcomes",
    )

    def __init__(self, plan: Plan[Any], loop: asyncio.AbstractEventLoop, began: float) -> None:
        self._plan = plan
        self.loop = loop
        self.began = self.deadline = began
        self._context: Context = copy_context()
        self.expected = -1  # the plan has not begun
        self._is_list = False
        self._error: BaseException | None = None
        self.outcomes: list[tuple[int, Any]] = []
        self._future: asyncio.Future[Any] = loop.create_future()
        self._result: tuple[Any, BaseException | None] | None = None

    def __await__(self) -> Generator[Any, None, Any]:
        return self._future.__await__()

    def advance(self) -> Sequence[Asked] | None:
        """Send the outcomes in; return what the plan asks for next, None when it has ended."""
        outcomes, self.outcomes = self.outcomes, []
        error, self._error = self._error, None
        sent: Any = None
        if self.expected >= 0:
            sent = outcomes if self._is_list else outcomes[0][1]
        try:
            if error is None:
                asked = self._context.run(self._plan.send, sent)
            else:
                asked = self._context.run(self._plan.throw, error)
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
            self._plan.close()

    def run(self, runner: "Runner", waited: float) -> None:
        """Carry the whole plan out."""
        try:
            self._result = self._context.run(runner.run, self._plan, waited), None
        except BaseException as error:  # noqa: BLE001 - it is the awaiting task's
            self._result = None, error

    def wake(self) -> None:
        """Hand the result to the task, in its loop's thread; a cancelled task wants none."""
        if self._future.done() or self._result is None:
            return
        result, error = self._result
        if error is not None:
            self._future.set_exception(error)
        else:
            self._future.set_result(result)


class Runner:
    """Drives the plans of one client.

    What tasks ask for in one turn of their loop goes to a worker thread together and is under way
    at once, so that a burst costs little more than its slowest request, and the loop is never held.
    """

    def __init__(self, client: MomentoClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._queue: deque[_Job] = deque()
        self._turn = threading.local()
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="django-momento-http")

    def run(self, plan: Plan[T], waited: float = 0.0) -> T:
        """Carry the plan out and return its result; so many seconds were waited already."""
        client, clock = self._client, self._clock
        patience = client.deadline(1, 0.0)
        try:
            asked = plan.send(None)
            while True:
                if isinstance(asked, Together) and len(asked) != 1:
                    patience = max(patience, client.deadline(_count(asked), 0.0))
                    batch = Batch(client)
                    asked = plan.send(_outcomes(batch, asked, clock() - waited + patience))
                    waited += batch.waited
                    continue
                try:
                    single = asked if isinstance(asked, Operation) else _made(asked[0])
                except BaseException as error:  # noqa: BLE001 - raised in the plan
                    asked = plan.throw(error)
                    continue
                began = clock()
                outcome = client.run(single, began - waited + patience)
                waited += clock() - began
                asked = plan.send(outcome if single is asked else ((0, outcome),))
        except StopIteration as done:
            result: T = done.value
            return result

    async def arun(self, plan: Plan[T]) -> T:
        """Carry the plan out in a worker thread and return its result."""
        loop = asyncio.get_running_loop()
        job = _Job(plan, loop, self._clock())
        self._queue.append(job)
        if getattr(self._turn, "loop", None) is not loop:
            self._turn.loop = loop
            loop.call_soon(self._end_turn)
        result: T = await job
        return result

    def _end_turn(self) -> None:
        self._turn.loop = None
        try:
            self._workers.submit(self._work)
        except RuntimeError as error:  # no thread can be started, or the interpreter is ending
            self._give_up(self._waiting(), error)

    def _work(self) -> None:
        """Carry out everything that waits; there may be nothing left, or several turns' worth."""
        jobs = self._waiting()
        if len(jobs) == 1:
            jobs[0].run(self, self._clock() - jobs[0].began)
            _hand_over(jobs)
            return
        try:
            self._carry_out(jobs)
        except BaseException as error:  # noqa: BLE001 - or its tasks would wait for ever
            self._give_up(jobs, error)

    def _waiting(self) -> list[_Job]:
        jobs: list[_Job] = []
        with suppress(IndexError):
            while True:
                jobs.append(self._queue.popleft())
        return jobs

    def _give_up(self, jobs: list[_Job], error: BaseException) -> None:
        for job in jobs:
            job.fail(error)
        _hand_over(jobs)

    def _carry_out(self, jobs: list[_Job]) -> None:
        batch = Batch(self._client)
        began = self._clock()
        ended = [job for job in jobs if self._has_ended(job, batch)]
        batch.pause(self._clock() - began)
        _hand_over(ended)
        for outcomes in batch.outcomes():
            ended = []
            for (job, index), outcome in outcomes:
                job.outcomes.append((index, outcome))
                if len(job.outcomes) == job.expected and self._has_ended(job, batch):
                    ended.append(job)
            _hand_over(ended)

    def _has_ended(self, job: _Job, batch: Batch) -> bool:
        operations = job.advance()
        if operations is None:
            return True
        job.deadline = max(job.deadline, self._client.deadline(_count(operations), job.began))
        for index, asked in enumerate(operations):
            operation = asked if isinstance(asked, Operation) else partial(job.make, asked)
            batch.add(operation, job.deadline, (job, index))
        return not operations and self._has_ended(job, batch)


def _made(asked: Asked) -> Operation:
    return asked if isinstance(asked, Operation) else asked()


def _count(operations: Sequence[Asked]) -> int:
    """Return for how many operations there must be time."""
    for beside, first in enumerate(operations):
        if not (isinstance(first, Operation) and first.is_beside):
            return len(operations) - beside
    return 1


def _outcomes(batch: Batch, operations: Sequence[Asked], deadline: float) -> Outcomes:
    for index, operation in enumerate(operations):
        batch.add(operation, deadline, index)
    for outcomes in batch.outcomes():
        yield from outcomes


def _hand_over(jobs: list[_Job]) -> None:
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[_Job]] = defaultdict(list)
    for job in jobs:
        by_loop[job.loop].append(job)
    for loop, ended in by_loop.items():
        try:
            loop.call_soon_threadsafe(_wake, loop, ended)
        except RuntimeError:
            continue  # the loop was closed: nobody waits


def _wake(loop: asyncio.AbstractEventLoop, jobs: list[_Job]) -> None:
    for job in jobs[:_WOKEN_AT_ONCE]:
        job.wake()
    if len(jobs) > _WOKEN_AT_ONCE:
        loop.call_soon(_wake, loop, jobs[_WOKEN_AT_ONCE:])
