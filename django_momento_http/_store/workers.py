"""A few threads of the process for what must not hold an event loop: started on demand, let go.

Not ``concurrent.futures``: its threads are joined at exit, in a forked child, too, where they are
the parent's. Idle threads wait in a system call and without a timeout, so that a fork which runs no
hook of Python's finds none of them in Python's locks: what is inherited of those can crash a child
(from 3.13 on). It knows nothing of what it is given to do.
"""

import itertools
import os
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from .._interrupts import is_raised_by_signal_handler
from .._process import PerProcess

_MOST = 32
# Threads that stay although they are idle.
_KEPT = 4
# What is under way at exit has so long to end.
_EXIT_SECONDS = 1.0
# A task is told by its number, which goes through a socket: an integer of so many bytes.
_SIZE = 8
# A task that is read so soon may have waited.
_AT_ONCE_SECONDS = 0.001


_INHERITED: "list[Workers]" = []


class Task(Protocol):
    """What there is to do, again and again."""

    def carry_out(self, since: float) -> object:
        """Do it; it may have waited for a thread since then."""


class Workers:
    """Daemon threads, one of which is idle when a task comes, as long as there may be more."""

    def __init__(self, most: int = _MOST, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._threads: set[threading.Thread] = set()
        self._idle: set[threading.Thread] = set()
        # Since when no thread was idle and none could be started.
        self._full_since: float | None = None
        self._numbers = itertools.count(1)
        self._tasks: dict[bytes, weakref.ref[Task]] = {}
        self._heard, self._told = socket.socketpair()
        self._is_closed = False
        self._uwsgi: Any = sys.modules.get("uwsgi")  # there in all processes of that server

    def __repr__(self) -> str:
        return f"<Workers threads={len(self._threads)} idle={len(self._idle)}>"

    def bell(self, task: Task) -> Callable[[], object]:
        """Return what has the task carried out by a thread, as long as the task is referred to.

        It is one step in C: whatever a signal handler raises, it has happened or it has not.
        """
        number = next(self._numbers).to_bytes(_SIZE)
        # All C code: of a callback in Python, what a signal handler raises inside of it is lost.
        self._tasks[number] = weakref.ref(task, partial(self._tasks.pop, number))
        return partial(self._told.send, number)

    @property
    def is_before_fork(self) -> bool:
        """Whether this is a uWSGI that has not forked its workers, nor will ever serve anybody.

        It runs no hook of Python's, and a thread that has or wants the interpreter's lock at that
        moment, as ours would that has just handed its result over, hangs or crashes the workers.
        """
        return self._uwsgi is not None and not (self._uwsgi.worker_id() or self._uwsgi.mule_id())

    def ensure(self) -> None:
        """See to it that a task finds somebody; an error where no thread can be started."""
        if self._is_closed:
            raise RuntimeError("the interpreter is ending")
        if not self._threads:
            self._start()

    def close(self) -> None:
        """Let what is under way end, for a moment; in a forked child, leave all as it is."""
        self._is_closed = True
        if self._pid != os.getpid():
            # Not even freed: under gevent, greenlets are inherited and wait on these sockets.
            _INHERITED.append(self)
            return
        # Heard by all threads, also those that are just being started.
        self._told.shutdown(socket.SHUT_WR)
        end = self._clock() + _EXIT_SECONDS
        for thread in list(self._threads):
            if thread.is_alive():  # one that is just being started cannot be waited for
                thread.join(max(end - self._clock(), 0.0))
        if not self._threads:
            self._heard.close()
            self._told.close()

    def _start(self) -> None:
        # One of its own, because two greenlets (gevent) must not wait on one object.
        heard = self._heard.dup()
        thread = threading.Thread(
            target=self._run, args=(heard,), name="django-momento-http", daemon=True
        )
        interrupt: BaseException | None = None
        try:
            # Before it runs: afterwards it may have gone, and would be counted for ever.
            self._threads.add(thread)
            thread.start()
        except BaseException as error:
            self._threads.discard(thread)
            heard.close()  # a thread that was started all the same ends
            interrupt = error.__context__ if type(error) is KeyError else None
            if interrupt is None or not is_raised_by_signal_handler(interrupt):
                raise
        if interrupt is not None:
            # Python's own tidying up has hidden it: the thread had begun before.
            raise interrupt

    def _run(self, heard: socket.socket) -> None:
        thread = threading.current_thread()
        try:
            while True:
                if self._may_go(thread):
                    break
                number, since = self._next(thread, heard)
                if not number:
                    break
                self._see_to_a_successor()
                reference = self._tasks.get(number)
                task = None if reference is None else reference()
                if task is not None:
                    task.carry_out(since)
                del task  # or it would be referred to as long as this thread is idle
        finally:
            self._threads.discard(thread)
            heard.close()

    def _next(self, thread: threading.Thread, heard: socket.socket) -> tuple[bytes, float]:
        """Return the number of a task, and since when that may have waited."""
        began, full_since = self._clock(), self._full_since
        self._idle.add(thread)
        self._full_since = None
        number = b""
        try:
            with suppress(OSError):  # it was closed: there is nothing more to hear
                number = heard.recv(_SIZE)
        finally:
            self._idle.discard(thread)
        now = self._clock()
        if full_since is not None and now - began < _AT_ONCE_SECONDS:
            return number, full_since
        return number, now

    def _may_go(self, thread: threading.Thread) -> bool:
        """Whether enough others are idle; then this thread counts no more."""
        with self._lock:
            if len(self._idle) < _KEPT:
                return False
            self._threads.discard(thread)
            return True

    def _see_to_a_successor(self) -> None:
        """Start another thread where none is idle now, so that the next task need not wait."""
        if self._idle or self._is_closed:
            return
        with self._lock:
            if not self._idle and len(self._threads) < self._most:
                # No more threads: tasks wait for those that there are.
                with suppress(RuntimeError, OSError):
                    self._start()
                    return
        self._full_since = self._full_since or self._clock()


_WORKERS: PerProcess[None, Workers] = PerProcess(lambda _: Workers(), Workers.close)


def shared_workers() -> Workers:
    """Return this process's workers."""
    return _WORKERS.get(None)
