"""Many requests under way at once, without threads: write on all connections, read what comes.

Each answer is handed on as soon as it is whole, and its connection takes the next request; a slow
one holds back nobody. It knows nothing of what is asked or answered.
"""

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from .calls import Answer, Call
from .connection import Connection
from .exceptions import MomentoError, TimedOut
from .polling import new_poll
from .pool import Pool
from .wire import LOOK, LOOK_SECONDS, Steps

if TYPE_CHECKING:
    from .replies import Reply

# Connections opened at once by one call: more only makes their handshakes queue.
_OPENING_LIMIT = 32


class _Lane:
    """One connection's part in it; ``is_taken`` while the connection is the lane's to give back."""

    __slots__ = ("call", "connection", "fd", "is_opening", "is_taken", "steps", "until", "wanted")
    call: Call
    connection: Connection
    until: float

    def __init__(self) -> None:
        self.is_taken = self.is_opening = False
        self.steps: Steps[Reply] | None = None
        self.fd = -1
        self.wanted = 0

    def ends_at(self) -> float:
        """Return when the lane must have moved on."""
        return min(self.until, self.connection.until)

    def postpone(self, seconds: float) -> None:
        if self.steps is not None:
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
        self._lanes: set[_Lane] = set()
        self._by_fd: dict[int, _Lane] = {}
        # Those that wait for what no socket tells.
        self._looking: set[_Lane] = set()
        self._opening = 0
        self._held: Call | None = None
        self._done: list[tuple[Call, Answer]] = []
        self._has_failed = False  # something in there
        # No lane ends before this; found anew only when it has passed.
        self._soonest = float("inf")
        # The caller's code took long: what is under way goes first.
        self._is_behind = False

    def answers(self) -> Generator[list[tuple[Call, Answer]], None, None]:
        """Yield lists of answers until nothing is under way and nothing is left to send."""
        try:
            while True:
                self._fill()
                if self._done:
                    done, self._done = self._done, []
                    self._has_failed = False
                    yield done
                elif self._lanes:
                    self._advance()
                else:
                    return
        finally:
            try:
                self._release_all()
            except BaseException:
                self._release_all()  # what that interrupt has left
                raise

    def postpone(self, seconds: float) -> None:
        """Take these seconds as not passed for all that is under way: the caller's code had them.

        May be called within ``next_call``, too.
        """
        for lane in self._lanes:
            lane.postpone(seconds)
        for call, _ in self._done:
            call.postpone(seconds)
        if self._held is not None:
            self._held.postpone(seconds)
        self._soonest += seconds
        self._is_behind = True

    def _fill(self) -> None:
        """Put more under way, as long as nothing has failed: that is handed on first."""
        while (
            not self._has_failed
            and len(self._lanes) < self._limit
            and self._opening < _OPENING_LIMIT
        ):
            call = self._next()
            if call is None or not self._begin(call) or self._is_behind:
                return

    def _next(self) -> Call | None:
        call, self._held = self._held, None
        if call is None:
            call = self._next_call()
        while call is not None and call.deadline <= self._clock():
            kind = "pool_timeout" if call.queued else "no_time"
            self._done.append((call, TimedOut("no time was left for it", kind=kind)))
            call = self._next_call()
        return call

    def _begin(self, call: Call) -> bool:
        """Send the call on a connection of its own; False when there is none."""
        lane = _Lane()
        # In the set first: so nothing that interrupts what follows parts us from the connection.
        self._lanes.add(lane)
        try:
            connection = self._connection(call)
        except TimedOut as error:
            self._lanes.discard(lane)
            self._fail(call, error)
            return True
        if connection is None:
            self._lanes.discard(lane)
            self._hold(call)
            return False
        lane.connection = connection
        lane.is_taken = True
        if not connection.is_open:
            lane.is_opening = True
            self._opening += 1
        self._load(lane, call)
        return True

    def _fail(self, call: Call, error: MomentoError) -> None:
        self._has_failed = True
        self._done.append((call, call.judge(error.with_traceback(None), self._clock())))

    def _connection(self, call: Call) -> Connection | None:
        """Return one for this call; None when others need it more than we, who need not wait."""
        connection = self._pool.take_now(call.fresh)
        if connection is None and len(self._lanes) == 1 and not self._done:
            call.queued = call.queued or self._clock()
            return self._pool.wait(call.deadline, fresh=call.fresh)
        return connection

    def _hold(self, call: Call) -> None:
        call.queued = call.queued or self._clock()
        self._held = call

    def _load(self, lane: _Lane, call: Call) -> None:
        call.began = now = self._clock()
        lane.call = call
        lane.until = min(call.deadline, now + call.patience)
        lane.steps = lane.connection.request(call, self._common)
        self._step(lane, None)

    def _advance(self) -> None:
        """Wait for the first socket that is ready, or for the first lane whose time is up."""
        left = 0.0 if self._is_behind else max(self._soonest - self._clock(), 0.0)
        self._is_behind = False
        if self._looking:
            left = min(left, LOOK_SECONDS)
        for fd, events in self._poll.poll(left * 1000):
            self._step(self._by_fd[fd], events)
        if self._looking:
            for lane in list(self._looking):
                self._step(lane, LOOK)
        now = self._clock()
        if now >= self._soonest:
            for lane in [lane for lane in self._lanes if lane.ends_at() <= now]:
                self._step(lane, 0)
            self._soonest = min((lane.ends_at() for lane in self._lanes), default=float("inf"))

    def _step(self, lane: _Lane, events: int | None) -> None:
        try:
            wanted = lane.steps.send(events)  # type: ignore[union-attr, arg-type]  # None starts it
        except StopIteration as done:
            self._done.append((lane.call, done.value))
        except MomentoError as error:
            self._fail(lane.call, error)
        else:
            self._watch(lane, wanted)
            return
        self._finish(lane)

    def _watch(self, lane: _Lane, wanted: int) -> None:
        if lane.until < self._soonest:
            self._soonest = lane.until
        if wanted == lane.wanted and not lane.is_opening:
            return
        if lane.is_opening:
            self._soonest = min(self._soonest, lane.connection.until)
            if lane.connection.is_open:
                self._opened(lane)
        if wanted == LOOK:
            self._looking.add(lane)
            return
        self._looking.discard(lane)
        fd = lane.connection.fileno()
        if fd != lane.fd:
            self._forget(lane)
            self._by_fd[fd] = lane
        self._poll.register(fd, wanted)
        lane.fd, lane.wanted = fd, wanted

    def _finish(self, lane: _Lane) -> None:
        if lane.is_opening:
            self._opened(lane)
        # A peer that has left, or said more than it was asked, shows now.
        if lane.connection.reusable and not self._pool.is_wanted and lane.connection.is_quiet():
            call = self._next()
            if call is not None and not call.fresh:
                self._load(lane, call)
                return
            if call is not None:
                self._hold(call)
        self._release(lane)

    def _opened(self, lane: _Lane) -> None:
        lane.is_opening = False
        self._opening -= 1

    def _release_all(self) -> None:
        for lane in list(self._lanes):
            self._release(lane)

    def _release(self, lane: _Lane) -> None:
        """Give the lane's connection back, once; one in the middle of an exchange is closed."""
        if lane.steps is not None:
            # Not left to its finalizer, where what a signal handler raises is lost.
            lane.steps.close()
        if lane.is_taken:
            reusable = lane.connection.reusable
            lane.is_taken = False
            # Between the mark and the call of C code there is nothing that could be interrupted.
            self._pool.put_back(lane.connection)
            self._pool.tidy(lane.connection, reusable=reusable)
        self._forget(lane)
        self._lanes.discard(lane)
        self._looking.discard(lane)

    def _forget(self, lane: _Lane) -> None:
        if self._by_fd.pop(lane.fd, None) is not None:
            self._poll.unregister(lane.fd)
        lane.fd = -1
