"""Carries plans out: for a thread that waits, or for tasks of any event loop.

A plan is a generator that yields lists of operations and is sent their outcomes as (index, outcome)
pairs, in the order in which they come; what it returns is the result. So each cache method is
written once for sync and async, single and many. It knows how plans are driven, not what they are
for.
"""

import asyncio
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from typing import Any, TypeVar

from .client import Batch, MomentoClient, Operation, Outcome

T = TypeVar("T")
Outcomes = Iterable[tuple[int, Outcome]]
Plan = Generator[list[Operation], Outcomes, T]

# Each is a burst under way; further bursts meanwhile go together when one ends.
_WORKERS = 32
# Tasks woken in one turn of an event loop: more would hold the loop for milliseconds.
_WOKEN_AT_ONCE = 50


class _Job:
    """One plan that a task awaits."""

    __slots__ = ("_future", "_result", "began", "context", "expected", "loop", "outcomes", "plan")

    def __init__(self, plan: Plan[Any], loop: asyncio.AbstractEventLoop, began: float) -> None:
        self.plan = plan
        self.loop = loop
        self.began = began
        self.context: Context = copy_context()
        self.expected = -1  # the plan has not begun
        self.outcomes: list[tuple[int, Outcome]] = []
        self._future: asyncio.Future[Any] = loop.create_future()
        self._result: tuple[Any, BaseException | None] = None, None

    def __await__(self) -> Generator[Any, None, Any]:
        return self._future.__await__()

    def advance(self) -> list[Operation] | None:
        """Send the outcomes in; return what the plan asks for next, None when it has ended."""
        outcomes, self.outcomes = self.outcomes, []
        send: Callable[..., list[Operation]] = self.plan.send
        try:
            operations = self.context.run(send, outcomes if self.expected >= 0 else None)
        except StopIteration as done:
            self._result = done.value, None
        except BaseException as error:  # noqa: BLE001 - it is the awaiting task's
            self._result = None, error
        else:
            self.expected = len(operations)
            return operations
        return None

    def run(self, runner: "Runner") -> None:
        """Carry the whole plan out."""
        try:
            self._result = self.context.run(runner.run, self.plan), None
        except BaseException as error:  # noqa: BLE001 - it is the awaiting task's
            self._result = None, error

    def wake(self) -> None:
        """Hand the result to the task, in its loop's thread; a cancelled task wants none."""
        if self._future.done():
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

    def run(self, plan: Plan[T]) -> T:
        """Carry the plan out and return its result."""
        began = self._clock()
        try:
            operations = next(plan)
            deadline = self._client.deadline(len(operations), began)
            while True:
                operations = plan.send(self._outcomes(operations, deadline))
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

    def _outcomes(self, operations: list[Operation], deadline: float) -> Outcomes:
        if len(operations) == 1:
            return ((0, self._client.run(operations[0], deadline)),)
        return self._many(operations, deadline)

    def _many(self, operations: list[Operation], deadline: float) -> Iterator[tuple[int, Outcome]]:
        batch = self._client.batch()
        for index, operation in enumerate(operations):
            batch.add(operation, deadline, index)
        for outcomes in batch.outcomes():
            yield from outcomes

    def _end_turn(self) -> None:
        self._turn.loop = None
        self._workers.submit(self._work)

    def _work(self) -> None:
        """Carry out everything that waits; there may be nothing left, or several turns' worth."""
        jobs: list[_Job] = []
        while self._queue:
            try:
                jobs.append(self._queue.popleft())
            except IndexError:
                break
        if len(jobs) == 1:
            jobs[0].run(self)
            _hand_over(jobs)
        elif jobs:
            self._carry_out(jobs)

    def _carry_out(self, jobs: list[_Job]) -> None:
        batch = self._client.batch()
        _hand_over([job for job in jobs if self._has_ended(job, batch)])
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
        deadline = self._client.deadline(len(operations), job.began)
        for index, operation in enumerate(operations):
            batch.add(operation, deadline, (job, index))
        return not operations and self._has_ended(job, batch)


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
