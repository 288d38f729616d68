"""Many requests under way at once, without threads: write on all connections, read what comes.

Each answer is handed on as soon as it is whole, and its connection takes the next request; a slow
one holds back nobody. It knows nothing of what is asked or answered.
"""

from collections.abc import Callable, Iterator

from .calls import Answer, Call
from .connection import Connection
from .exceptions import MomentoError, TimedOut, TransportError
from .polling import new_poll
from .pool import Pool
from .replies import Reply
from .wire import Steps

# Connections opened at once by one call: more only makes their handshakes queue.
_OPENING_LIMIT = 32


class _Lane:
    """One connection's part in it."""

    __slots__ = ("call", "connection", "fd", "is_opening", "steps", "until", "wanted")
    call: Call
    steps: Steps[Reply]
    until: float

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.is_opening = not connection.is_open
        self.fd = -1
        self.wanted = 0

    def ends_at(self) -> float:
        """Return when the lane must have moved on."""
        return min(self.until, self.connection.until)

    def postpone(self, seconds: float) -> None:
        self.until += seconds
        self.call.postpone(seconds)
        self.connection.postpone(seconds)


class Fan:
    """One ``exchange_many``: its lanes, and the answers not yet handed on."""

    def __init__(
        self,
        pool: Pool,
        next_call: Callable[[], Call | None],
        common: str,
        limit: int,
        clock: Callable[[], float],
    ) -> None:
        self._pool = pool
        self._next_call = next_call
        self._common = common
        self._limit = limit
        self._clock = clock
        self._poll = new_poll()
        self._lanes: dict[int, _Lane] = {}
        self._opening = 0
        self._held: Call | None = None
        self._done: list[tuple[Call, Answer]] = []
        # No lane ends before this; found anew only when it has passed.
        self._soonest = float("inf")
        # The caller's code took long: what is under way goes first.
        self._is_behind = False

    def answers(self) -> Iterator[list[tuple[Call, Answer]]]:
        """Yield lists of answers until nothing is under way and nothing is left to send."""
        try:
            while True:
                self._fill()
                if self._done:
                    done, self._done = self._done, []
                    yield done
                elif self._lanes:
                    self._advance()
                else:
                    return
        finally:
            for lane in list(self._lanes.values()):
                lane.steps.close()
                lane.connection.reusable = False
                self._release(lane)

    def postpone(self, seconds: float) -> None:
        """Take these seconds as not passed for all that is under way: the caller's code had them.

        May be called within ``next_call``, too.
        """
        for lane in self._lanes.values():
            lane.postpone(seconds)
        for call, _ in self._done:
            call.postpone(seconds)
        if self._held is not None:
            self._held.postpone(seconds)
        self._soonest += seconds
        self._is_behind = True

    def _fill(self) -> None:
        while len(self._lanes) < self._limit and self._opening < _OPENING_LIMIT:
            call = self._next()
            if call is None:
                return
            try:
                connection = self._connection(call)
            except TimedOut as error:
                self._done.append((call, error.with_traceback(None)))
                continue
            if connection is None:
                self._held = call
                return
            self._start(_Lane(connection), call)
            if self._is_behind:
                return

    def _next(self) -> Call | None:
        held, self._held = self._held, None
        call = held or self._next_call()
        while call is not None and call.deadline <= self._clock():
            self._done.append((call, TimedOut("no time was left for it", kind="no_time")))
            call = self._next_call()
        return call

    def _connection(self, call: Call) -> Connection | None:
        """Return one for this call; None when others need it more than we, who need not wait."""
        if not self._lanes and not self._done:
            return self._pool.take(call.deadline, fresh=call.fresh)
        return None if self._pool.is_wanted else self._pool.take_now(fresh=call.fresh)

    def _start(self, lane: _Lane, call: Call) -> None:
        if lane.is_opening:
            self._opening += 1
        self._load(lane, call)

    def _load(self, lane: _Lane, call: Call) -> None:
        lane.call = call
        lane.steps = lane.connection.request(call.head(self._common), call.body, call.deadline)
        lane.until = min(call.deadline, self._clock() + call.patience)
        self._step(lane, None)

    def _advance(self) -> None:
        """Wait for the first socket that is ready, or for the first lane whose time is up."""
        left = 0.0 if self._is_behind else max(self._soonest - self._clock(), 0.0)
        self._is_behind = False
        for fd, events in self._poll.poll(left * 1000):
            self._step(self._lanes[fd], events)
        now = self._clock()
        if now >= self._soonest:
            for lane in [lane for lane in self._lanes.values() if lane.ends_at() <= now]:
                self._step(lane, 0)
            self._soonest = min(
                (lane.ends_at() for lane in self._lanes.values()), default=float("inf")
            )

    def _step(self, lane: _Lane, events: int | None) -> None:
        answer: Answer
        try:
            wanted = lane.steps.send(events)  # type: ignore[arg-type]  # None starts a generator
        except StopIteration as done:
            answer = done.value
        except MomentoError as error:
            answer = error.with_traceback(None)
        except Exception as error:  # noqa: BLE001 - one call's trouble is not the others'
            answer = TransportError(f"unexpected {type(error).__name__}", kind="internal")
        except BaseException:
            self._release(lane)
            raise
        else:
            self._watch(lane, wanted)
            return
        self._finish(lane, answer)

    def _watch(self, lane: _Lane, wanted: int) -> None:
        if lane.until < self._soonest:
            self._soonest = lane.until
        if wanted == lane.wanted and not lane.is_opening:
            return
        fd = lane.connection.fileno()
        if lane.is_opening:
            self._soonest = min(self._soonest, lane.connection.until)
            if lane.connection.is_open:
                self._opened(lane)
        if fd != lane.fd:
            self._forget(lane)
            self._lanes[fd] = lane
        self._poll.register(fd, wanted)
        lane.fd, lane.wanted = fd, wanted

    def _finish(self, lane: _Lane, answer: Answer) -> None:
        self._done.append((lane.call, answer))
        if lane.is_opening:
            self._opened(lane)
        # A peer that has left, or said more than it was asked, shows now.
        if lane.connection.reusable and not self._pool.is_wanted and lane.connection.is_quiet():
            call = self._next()
            if call is not None and not call.fresh:
                self._load(lane, call)
                return
            self._held = call
        self._release(lane)

    def _opened(self, lane: _Lane) -> None:
        lane.is_opening = False
        self._opening -= 1

    def _release(self, lane: _Lane) -> None:
        self._forget(lane)
        self._pool.give_back(lane.connection)

    def _forget(self, lane: _Lane) -> None:
        if self._lanes.pop(lane.fd, None) is not None:
            self._poll.unregister(lane.fd)
        lane.fd = -1
