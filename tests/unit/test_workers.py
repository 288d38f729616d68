"""The process's worker threads: there when needed, few, let go, and nobody's trouble at the end."""

import gc
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from django_momento_http._store.workers import Workers
from tests.support.clocks import Clock

LONGEST_WAIT = 10


class Task:
    """Something to do: calls a function, and notes since when it may have waited."""

    def __init__(self, call: Callable[[], object] = lambda: None) -> None:
        self.call = call
        self.since: list[float] = []
        self.done = threading.Semaphore(0)

    def carry_out(self, since: float) -> None:
        self.since.append(since)
        self.call()
        self.done.release()

    def wait(self) -> None:
        assert self.done.acquire(timeout=LONGEST_WAIT)


@pytest.fixture
def make() -> Iterator[Callable[..., Workers]]:
    """A function that makes workers, which end with the test."""
    made: list[Workers] = []

    def workers(*args: Any, **options: Any) -> Workers:
        made.append(Workers(*args, **options))
        return made[-1]

    yield workers
    for one in made:
        one.close()
        assert not one._threads


def until(is_so: Callable[[], bool]) -> None:
    """Wait for something that other threads bring about."""
    pause = threading.Event()
    for _ in range(LONGEST_WAIT * 200):
        if is_so():
            return
        pause.wait(0.005)
    pytest.fail("it did not come about")


def test_a_task_is_carried_out_as_often_as_its_bell_rings(make: Callable[..., Workers]) -> None:
    """One ring, one turn of work, in another thread."""
    workers = make()
    threads: list[int] = []
    task = Task(lambda: threads.append(threading.get_ident()))
    ring = workers.bell(task)
    workers.ensure()
    for _ in range(5):
        ring()
        task.wait()
    assert len(threads) == 5
    assert threading.get_ident() not in threads


def test_a_task_need_not_wait_for_another(make: Callable[..., Workers]) -> None:
    """As long as there may be more threads, one is idle when a task comes."""
    workers = make(most=8)
    may_end = threading.Event()
    tasks = [Task(lambda: may_end.wait(LONGEST_WAIT)) for _ in range(7)]
    workers.ensure()
    for task in tasks:
        workers.bell(task)()
    until(lambda: sum(len(task.since) for task in tasks) == 7)
    quick = Task()
    workers.bell(quick)()
    quick.wait()
    may_end.set()
    for task in tasks:
        task.wait()


def test_there_are_never_more_than_so_many(make: Callable[..., Workers]) -> None:
    """Beyond the limit tasks wait, and each is carried out."""
    workers = make(most=3)
    may_end = threading.Event()
    most: list[int] = []

    def work() -> None:
        may_end.wait(LONGEST_WAIT)
        most.append(len(workers._threads))

    tasks = [Task(work) for _ in range(20)]
    workers.ensure()
    for task in tasks:
        workers.bell(task)()
    until(lambda: len(workers._threads) == 3 and not workers._idle)
    may_end.set()
    for task in tasks:
        task.wait()
    assert max(most) == 3


def test_threads_are_let_go(make: Callable[..., Workers]) -> None:
    """After a rush a few threads stay, however many it took."""
    workers = make()
    rush = threading.Barrier(20)
    tasks = [Task(lambda: rush.wait(LONGEST_WAIT)) for _ in range(20)]
    workers.ensure()
    for task in tasks:
        workers.bell(task)()
    for task in tasks:
        task.wait()
    until(lambda: len(workers._threads) <= 4)
    last = Task()
    workers.bell(last)()
    last.wait()


def test_a_thread_that_goes_at_once_is_not_counted(
    make: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However soon a new thread finds enough others idle, the limit has room for another."""
    workers = make()
    start = threading.Thread.start

    def start_and_see_it_go(thread: threading.Thread) -> None:
        start(thread)
        thread.join(LONGEST_WAIT)

    monkeypatch.setattr(Workers, "_may_go", lambda *_: True)
    monkeypatch.setattr(threading.Thread, "start", start_and_see_it_go)
    workers.ensure()
    assert not workers._threads


def test_a_task_knows_whether_it_may_have_waited(make: Callable[..., Workers]) -> None:
    """Waiting for a busy thread counts from when there was none; being asked for does not."""
    clock = Clock()
    workers = make(most=1, clock=clock)
    may_end = threading.Event()
    busy, late = Task(lambda: may_end.wait(LONGEST_WAIT)), Task()
    workers.ensure()
    until(lambda: len(workers._idle) == 1)
    clock.now = 200.0
    workers.bell(busy)()
    until(lambda: busy.since == [200.0])
    clock.now = 300.0
    workers.bell(late)()
    may_end.set()
    late.wait()
    assert late.since == [200.0]
    until(lambda: len(workers._idle) == 1)
    clock.now = 400.0
    workers.bell(late)()
    late.wait()
    assert late.since == [200.0, 400.0]


def test_a_task_is_not_kept_alive(make: Callable[..., Workers]) -> None:
    """Who asked for work and is gone is forgotten, by idle threads, too."""
    workers = make()
    task = Task()
    ring, gone = workers.bell(task), weakref.ref(task)
    workers.ensure()
    ring()
    task.wait()
    del task
    until(lambda: gc.collect() >= 0 and gone() is None)
    ring()
    other = Task()
    workers.bell(other)()
    other.wait()


def test_no_thread_can_be_started(
    make: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is an error; where there is one already, it carries out everything."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    workers, started = make(), make()
    started.ensure()
    until(lambda: len(started._idle) == 1)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError):
        workers.ensure()
    tasks = [Task() for _ in range(5)]
    for task in tasks:
        started.bell(task)()
    for task in tasks:
        task.wait()
    assert len(started._threads) == 1


def test_closing_waits_for_what_is_under_way() -> None:
    """Nothing is cut off that ends in time; afterwards nobody works here."""
    workers = Workers()
    may_end = threading.Event()
    task = Task(lambda: may_end.wait(LONGEST_WAIT))
    workers.ensure()
    workers.bell(task)()
    until(lambda: len(task.since) == 1)
    closing = threading.Thread(target=workers.close)
    closing.start()
    may_end.set()
    closing.join(LONGEST_WAIT)
    assert task.done.acquire(blocking=False)
    assert not workers._threads
    with pytest.raises(RuntimeError):
        workers.ensure()


def test_closing_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """What hangs is left alone."""
    monkeypatch.setattr("django_momento_http._store.workers._EXIT_SECONDS", 0.05)
    workers = Workers()
    may_end = threading.Event()
    task = Task(lambda: may_end.wait(LONGEST_WAIT))
    workers.ensure()
    workers.bell(task)()
    until(lambda: len(task.since) == 1)
    workers.close()
    assert workers._threads
    may_end.set()
    task.wait()
    until(lambda: not workers._threads)
    workers.close()


def test_a_child_leaves_the_parent_s_threads_alone(
    make: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is inherited through a fork is put away without a word to the parent's threads."""
    workers, task = make(), Task()
    ring = workers.bell(task)
    workers.ensure()
    until(lambda: len(workers._idle) == 1)
    monkeypatch.setattr("django_momento_http._store.workers._INHERITED", [])
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 1)
        workers.close()
    ring()
    task.wait()


def test_a_uwsgi_that_has_not_forked_is_recognised(
    make: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its master, that is; its workers and mules have numbers, and other servers no such module."""
    assert not make().is_before_fork
    numbers = {"worker": 0, "mule": 0}
    fake = SimpleNamespace(worker_id=lambda: numbers["worker"], mule_id=lambda: numbers["mule"])
    monkeypatch.setitem(sys.modules, "uwsgi", fake)
    workers = make()
    assert workers.is_before_fork
    for name in numbers:
        with monkeypatch.context() as patch:
            patch.setitem(numbers, name, 1)
            assert not workers.is_before_fork


class TimeLimit(Exception):
    """What a signal handler raises."""


def test_a_limit_that_strikes_while_a_thread_starts_comes_out(
    make: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's own tidying up, which fails then, does not hide what a handler raised."""

    def handler(*_: object) -> None:
        raise TimeLimit

    def start(thread: threading.Thread) -> None:
        try:
            signal.raise_signal(signal.SIGUSR1)
        except Exception:  # noqa: BLE001 - as threading does
            del {}[thread]  # whose thread has left that list when it began

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        workers = make()
        monkeypatch.setattr(threading.Thread, "start", start)
        with pytest.raises(TimeLimit):
            workers.ensure()
    finally:
        signal.signal(signal.SIGUSR1, before)
