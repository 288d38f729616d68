"""Many operations of one client under way at once, and the time that they may wait.

It knows how operations are admitted and settled, and nothing of what the bytes mean.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import count, repeat
from typing import Any

from .._http.messages import Request, Result
from .client import MomentoClient
from .operation import Asked, Attempt, Operation
from .responses import Outcome

# Seconds of callers' code are given back in portions of this: smaller ones would cost more.
_LEAST_PAUSE = 0.001


class Batch:
    """Operations under way at once; more may be added while the outcomes come.

    Only time spent waiting counts against deadlines. While a caller looks at outcomes, and while an
    operation is made, all deadlines stand still.
    """

    def __init__(self, client: MomentoClient) -> None:
        self._client = client
        self._clock = client.clock
        self._waiting: deque[tuple[Asked | Callable[[], Operation | None], float, object]] = deque()
        self._again: list[Attempt] = []
        self._settled: list[tuple[Any, Outcome]] = []
        self._under_way = 0
        self._postpone: Callable[[float], None] = _nothing
        # Seconds: waited for outcomes, gone to callers' code, and of those not yet given back.
        self.waited = self._paused = self._owed = 0.0
        self._since = 0.0

    def add(
        self, asked: Asked | Callable[[], Operation | None], deadline: float, tag: object
    ) -> None:
        """Put an operation under way; its outcome comes with the tag.

        A callable is called when a connection is free for what it makes; None is nothing to do.
        """
        self._waiting.append((asked, deadline, tag))

    def add_all(self, operations: Sequence[Asked], deadline: float) -> None:
        """Do so for operations that their places among them tag."""
        self._waiting.extend(zip(operations, repeat(deadline), count(), strict=False))

    def outcomes(self) -> Generator[list[tuple[Any, Outcome]], None, None]:
        """Yield lists of (tag, outcome) as they come, until nothing is under way."""
        self._since = self._clock()
        try:
            while True:
                if not (self._waiting or self._again or self._settled):
                    return
                multiplexer = self._client.multiplexer(self._next, self._waiting.__len__)
                self._postpone = multiplexer.postpone
                lists = multiplexer.results()
                try:
                    for results in lists:
                        self._settle(results)
                        yield from self._drain()
                finally:
                    # Not left to its finalizer, where what a signal handler raises is lost; nor to
                    # ``closing``, which may be interrupted before it has closed it.
                    lists.close()
                yield from self._drain()
        finally:
            self._postpone = _nothing  # or the two would keep each other
            self.waited += self._clock() - self._since

    def pause(self, seconds: float) -> None:
        """Give all operations so many seconds more, which the caller's code took."""
        # Gathered until it is worth touching what is under way.
        self._owed += seconds
        if self._owed < _LEAST_PAUSE:
            return
        seconds, self._owed = self._owed, 0.0
        self._paused += seconds
        self._postpone(seconds)
        for attempt in self._again:
            attempt.postpone(seconds)

    def _next(self) -> Request | None:
        while self._again or self._waiting:
            # Made only now: a thousand of them would not stay in the processor's cache.
            attempt = self._again.pop() if self._again else self._first()
            if attempt is None:
                continue
            refused = self._client.admit(attempt)
            if refused is None:
                self._under_way += 1
                return attempt
            self._settled.append((attempt.tag, refused))
        return None

    def _first(self) -> Attempt | None:
        asked, deadline, tag = self._waiting.popleft()
        operation = asked if isinstance(asked, Operation) else self._made(asked)
        if operation is not None:
            return self._client.attempt(operation, deadline + self._paused, tag)
        self._settled.append((tag, None))
        return None

    def _made(self, make: Callable[[], Operation | None]) -> Operation | None:
        began = self._clock()
        operation = make()
        seconds = self._clock() - began
        self.waited -= seconds
        self.pause(seconds)
        return operation

    def _settle(self, results: list[tuple[Request, Result]]) -> None:
        concurrency = self._under_way
        self._under_way -= len(results)
        for attempt, answer in results:
            assert isinstance(attempt, Attempt)  # noqa: S101 - only attempts are handed down
            outcome = self._client.settle(attempt, answer, concurrency)
            if isinstance(outcome, Attempt):
                self._again.append(outcome)
            else:
                self._settled.append((attempt.tag, outcome))

    def _drain(self) -> Iterator[list[tuple[Any, Outcome]]]:
        if self._settled:
            settled, self._settled = self._settled, []
            ended = self._clock()
            self.waited += ended - self._since
            yield settled
            self._since = self._clock()
            self.pause(self._since - ended)


def _nothing(_: float) -> None:
    """Postpone nothing: nothing is under way."""
