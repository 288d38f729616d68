"""Carries plans out: for a thread that waits, or for tasks of any event loop.

A plan is a coroutine that awaits operations (see ``operation``). What its own code takes is not
charged to its time, nor to another's. It knows how plans are driven, not what they are for.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TypeVar

from .._client.batch import Batch
from .._client.client import MomentoClient
from .._client.operation import Asked, Operation, Plan, Together
from .._client.responses import Outcome
from .._interrupts import is_raised_by_signal_handler
from ..exceptions import MomentoError, TransportError
from .jobs import Job, Waiting
from .workers import Workers, shared_workers

T = TypeVar("T")


class Runner:
    """Drives the plans of one client.

    What tasks ask for in one turn of their loop goes to a worker thread together and is under way
    at once, so that a burst costs little more than its slowest request, and the loop is never held.
    """

    def __init__(
        self,
        client: MomentoClient,
        clock: Callable[[], float] = time.monotonic,
        workers: Workers | None = None,
    ) -> None:
        self._client = client
        self._clock = clock
        self._workers = workers  # None until tasks need them
        self._queue: deque[Job] = deque()
        self._waiting: dict[asyncio.AbstractEventLoop, Waiting] = {}

    def run(self, make: Callable[[], Plan[T]], waited: float = 0.0) -> T:
        """Carry out the plan that is made, and return its result; ``waited`` seconds are gone.

        It is made here, one step before it starts, and is closed here. Of a coroutine that is left
        to its finalizer Python runs code there, and loses what a signal handler raises inside.
        """
        client, clock = self._client, self._clock
        request_timeout = client.request_timeout
        plan = make()
        try:
            asked = plan.send(None)
            while True:
                if isinstance(asked, Together) and len(asked) != 1:
                    request_timeout = max(request_timeout, client.deadline(_count(asked), 0.0))
                    batch = Batch(client)
                    deadline = clock() - waited + request_timeout
                    outcomes = _outcomes(batch, asked, deadline)
                    try:
                        asked = plan.send(outcomes)
                    finally:
                        outcomes.close()
                    waited += batch.waited
                    continue
                try:
                    single = asked if isinstance(asked, Operation) else _made(asked[0])
                except BaseException as error:  # noqa: BLE001 - raised in the plan
                    asked = plan.throw(error)
                    continue
                began = clock()
                outcome = client.run(single, began - waited + request_timeout)
                waited += clock() - began
                asked = plan.send(outcome if single is asked else ((0, outcome),))
        except StopIteration as done:
            result: T = done.value
            return result
        except BaseException:
            plan.close()
            raise

    async def arun(self, make: Callable[[], Plan[T]]) -> T:
        """Carry out the plan that is made, in a worker thread, and return its result."""
        workers = self._ready_workers()
        if workers is None:
            return self._refuse(make)
        if workers.is_before_fork:
            return copy_context().run(self.run, make)
        loop = asyncio.get_running_loop()
        waiting = self._waiting.get(loop) or self._begin_to_wait(loop, workers)
        job = Job(make, waiting, self._clock())
        try:
            self._queue.append(job)
            waiting.add(job)
            result: T = await job
        except BaseException:
            job.leave()
            raise
        finally:
            waiting.jobs.discard(job)
        return result

    def _ready_workers(self) -> Workers | None:
        """Return the workers, None where no thread can be started, or the interpreter is ending."""
        try:
            workers = self._workers = self._workers or shared_workers()
            if not workers.is_before_fork:
                workers.ensure()
        except (RuntimeError, OSError) as error:
            if is_raised_by_signal_handler(error):
                raise
            return None
        return workers

    def _begin_to_wait(self, loop: asyncio.AbstractEventLoop, workers: Workers) -> Waiting:
        for other in list(self._waiting):
            if other.is_closed():
                self._waiting.pop(other, None)
        waiting = Waiting(loop, workers, self._work, self._clock)
        return self._waiting.setdefault(loop, waiting)

    def _refuse(self, make: Callable[[], Plan[T]]) -> T:
        """Carry the plan out without a thread: whatever it asks for fails."""
        plan = make()
        try:
            asked = plan.send(None)
            while True:
                if isinstance(asked, Operation):
                    asked = plan.send(self._no_thread())
                else:
                    asked = plan.send([(n, self._no_thread()) for n in range(len(asked))])
        except StopIteration as done:
            result: T = done.value
            return result
        except BaseException:
            plan.close()
            raise

    def _no_thread(self) -> MomentoError:
        error = TransportError("no thread could be started", kind="no_thread")
        self._client.counters.failed(error.kind, was_sent=False)
        return error

    def _work(self, since: float) -> None:
        """Carry out everything that waits; there may be nothing left, or several turns' worth."""
        jobs = self._take(since)
        try:
            if len(jobs) == 1:
                jobs[0].run(self.run, self._clock() - jobs[0].began)
                self._hand_over(jobs)
            else:
                self._carry_out(jobs)
        except BaseException as error:  # noqa: BLE001 - or its tasks would wait for ever
            self._give_up(jobs, error)

    def _take(self, since: float) -> list[Job]:
        """Take the jobs; the turn that they were asked in may have been long, and is not theirs."""
        jobs: list[Job] = []
        with suppress(IndexError):
            while True:
                job = self._queue.popleft()
                job.began = job.deadline = max(job.asked_at, since)
                if not job.is_over:
                    jobs.append(job)
        return jobs

    def _give_up(self, jobs: list[Job], error: BaseException) -> None:
        for job in jobs:
            job.fail(error)
        self._hand_over(jobs)

    def _hand_over(self, jobs: list[Job]) -> None:
        by_loop: defaultdict[Waiting, list[Job]] = defaultdict(list)
        for job in jobs:
            by_loop[job.waiting].append(job)
        for waiting, ended in by_loop.items():
            waiting.wake(ended)

    def _carry_out(self, jobs: list[Job]) -> None:
        batch = Batch(self._client)
        began = self._clock()
        ended = [job for job in jobs if self._has_ended(job, batch)]
        batch.pause(self._clock() - began)
        self._hand_over(ended)
        for outcomes in batch.outcomes():
            ended = []
            for (job, index), outcome in outcomes:
                job.outcomes.append((index, outcome))
                if len(job.outcomes) == job.expected and self._has_ended(job, batch):
                    ended.append(job)
            self._hand_over(ended)

    def _has_ended(self, job: Job, batch: Batch) -> bool:
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


def _outcomes(
    batch: Batch, operations: Sequence[Asked], deadline: float
) -> Generator[tuple[int, Outcome], None, None]:
    batch.add_all(operations, deadline)
    lists = batch.outcomes()
    try:
        for outcomes in lists:
            yield from outcomes
    finally:
        lists.close()
