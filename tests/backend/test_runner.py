"""The runner: plans carried out for threads and for tasks, whatever becomes of either."""

import asyncio
import base64
import gc
import itertools
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from django_momento_http._client.batch import Batch
from django_momento_http._client.client import MomentoClient, forget_endpoint
from django_momento_http._client.operation import Operation, Together
from django_momento_http._conf.options import read_options
from django_momento_http._http.connection import Connection
from django_momento_http._store.runner import Runner
from django_momento_http._store.workers import Workers
from django_momento_http.exceptions import MomentoError
from django_momento_http.testing import Fault, RunningServer, running_server
from tests.support.clocks import ClockAhead
from tests.support.scripted import (
    GRACE,
    Peer,
    after_request,
    answer,
    bundle,
    least_late,
    open_in,
    response,
    scripted,
    server_context,
)

KEY = "a2V5"
# Seconds, far beyond every REQUEST_TIMEOUT here.
LONG = 30.0
marker: ContextVar[str] = ContextVar("marker", default="unset")


@pytest.fixture
def clock() -> ClockAhead:
    """The clock of the runners of a test that computes."""
    return ClockAhead()


@pytest.fixture
def make() -> Iterator[Callable[..., Runner]]:
    """A function that makes a runner of an endpoint."""
    made: list[Any] = []

    def runner_of(endpoint: str, clock: ClockAhead | None = None, **options: Any) -> Runner:
        given = {"ENDPOINT": endpoint, "TOKEN": "test-token", "REQUEST_TIMEOUT": 2.0, **options}
        read = read_options("default-cache", given, {})
        made.append(lambda: forget_endpoint(endpoint))
        if clock is None:
            return Runner(MomentoClient(read))
        client, workers = MomentoClient(read, clock), Workers(clock=clock)
        client._endpoint.transport._clock = client._endpoint.transport.pool._clock = clock
        made.append(workers.close)
        return Runner(client, clock, workers)

    yield runner_of
    for put_away in made:
        put_away()


@pytest.fixture
def runner(make: Callable[..., Runner], server: RunningServer) -> Runner:
    """A runner against the server, which holds one value."""
    server.put("default-cache", b"key", b"value")
    return make(server.endpoint)


async def get(*keys: str) -> Any:
    """Get the keys at once and return the outcomes in the keys' order."""
    found = dict(await Together([Operation.get(key) for key in keys]))
    return [found[number] for number in range(len(keys))]


async def in_turn(*keys: str) -> Any:
    """Get the keys one after another."""
    found = []
    for key in keys:
        found += await get(key)
    return found


async def fails_at(stage: int, error: BaseException) -> Any:
    """Raise after so many stages."""
    for _ in range(stage):
        await Together([Operation.get(KEY)])
    raise error


async def asks_for_nothing(stages: int) -> Any:
    """Await empty lists, as a many-call without keys may."""
    for _ in range(stages):
        assert list(await Together([])) == []
    return "done"


async def slow_to_load(clock: ClockAhead, *keys: str) -> Any:
    """Get the keys at once, and compute after the first that comes."""
    found: dict[int, Any] = {}
    for index, outcome in await Together([Operation.get(key) for key in keys]):
        if not found:
            clock.compute(LONG)
        found[index] = outcome
    return [found[number] for number in range(len(keys))]


async def slow_in_turn(clock: ClockAhead, *keys: str) -> Any:
    """Compute before each of some requests, one after another."""
    found = []
    for key in keys:
        clock.compute(LONG)
        found.append(await Operation.get(key))
    return found


async def slow_to_pack(clock: ClockAhead, *keys: str, note: Callable[[], object] = int) -> Any:
    """Store under the keys at once what takes long to make."""

    def make(key: str) -> Operation:
        note()
        clock.compute(LONG)
        return Operation.set(key, b"packed", 60)

    found = dict(await Together([partial(make, key) for key in keys]))
    return [found[number] for number in range(len(keys))]


get_it = partial(get, KEY)


def within(
    seconds: float, *plans: Callable[[], Any], runner: Runner, is_gathered: bool = True
) -> list[Any]:
    """Carry the plans out in one turn of a fresh loop; exceptions stand in their results' place."""

    async def main() -> list[Any]:
        tasks = (runner.arun(plan) for plan in plans)
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), seconds)

    return asyncio.run(main())


@pytest.mark.parametrize("is_sync", [True, False])
@pytest.mark.parametrize(
    ("plan", "result"),
    [
        (get_it, [b"value"]),
        (lambda: get(KEY, "bm9uZQ", KEY), [b"value", None, b"value"]),
        (lambda: in_turn(KEY, "bm9uZQ", KEY), [b"value", None, b"value"]),
        (lambda: asks_for_nothing(0), "done"),
        (lambda: asks_for_nothing(3), "done"),
    ],
    ids=["single", "many", "in turn", "nothing", "empty lists"],
)
def test_a_plan_gives_the_same_result_in_either_world(
    plan: Callable[[], Any], result: Any, is_sync: bool, runner: Runner
) -> None:
    """A plan is written once, for threads and for tasks, alone or among others."""
    if is_sync:
        assert runner.run(plan) == result
        return
    assert within(5, plan, runner=runner) == [result]
    assert within(5, plan, get_it, plan, runner=runner) == [result, [b"value"], result]


@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("error", [ValueError("its own"), RuntimeError("x"), GeneratorExit()])
def test_a_plan_s_error_is_its_own_caller_s(
    stage: int, error: BaseException, runner: Runner
) -> None:
    """What one plan raises reaches its caller and nobody else."""
    with pytest.raises(type(error)):
        runner.run(lambda: fails_at(stage, error))
    found = within(5, get_it, lambda: fails_at(stage, error), get_it, runner=runner)
    assert found == [[b"value"], error, [b"value"]]
    assert within(5, lambda: fails_at(stage, error), runner=runner) == [error]


def test_tasks_of_one_turn_are_under_way_together(
    make: Callable[..., Runner], server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred tasks cost little more than one request, and one worker."""
    runner = make(server.endpoint, MAX_CONNECTIONS=100)
    bursts: list[int] = []
    carry_out = Runner._carry_out

    def count(runner: Runner, jobs: list[Any]) -> None:
        bursts.append(len(jobs))
        carry_out(runner, jobs)

    monkeypatch.setattr(Runner, "_carry_out", count)
    server.inject(Fault(delay=0.1, times=None))
    began = time.monotonic()
    found = within(5, *[get_it] * 100, runner=runner)
    assert time.monotonic() - began < 1.0
    assert found == [[None]] * 100
    assert bursts == [100]


def test_turns_go_side_by_side(make: Callable[..., Runner], server: RunningServer) -> None:
    """A burst that waits for the service does not hold back the next one."""
    runner = make(server.endpoint)
    server.inject(Fault(delay=0.4, key=b"key", times=None))

    async def main() -> list[str]:
        order = []

        async def one(name: str, key: str) -> None:
            await runner.arun(lambda: get(key))
            order.append(name)

        slow = asyncio.create_task(one("slow", KEY))
        await asyncio.sleep(0.05)
        await one("quick", "bm9uZQ")
        await slow
        return order

    assert asyncio.run(main()) == ["quick", "slow"]


def test_many_tasks_are_woken_a_few_at_a_time(runner: Runner) -> None:
    """A burst that ends together does not hold the loop: other tasks have their turns between."""

    async def main() -> list[int]:
        turn, is_over = 0, False

        async def count() -> None:
            nonlocal turn
            while not is_over:
                await asyncio.sleep(0)
                turn += 1

        async def one() -> int:
            await runner.arun(lambda: asks_for_nothing(0))
            return turn

        counting = asyncio.create_task(count())
        turns = await asyncio.gather(*(one() for _ in range(500)))
        is_over = True
        await counting
        return turns

    turns = asyncio.run(main())
    assert max(turns.count(turn) for turn in set(turns)) <= 50


def test_each_plan_runs_in_its_task_s_context(runner: Runner) -> None:
    """Context variables are those of the task that asked, and stay its own."""

    async def plan() -> str:
        await Together([Operation.get(KEY)])
        seen = marker.get()
        marker.set("changed by a plan")
        return seen

    async def one(value: str) -> tuple[str, str]:
        marker.set(value)
        return await runner.arun(plan), marker.get()

    async def main() -> list[tuple[str, str]]:
        return await asyncio.gather(*(asyncio.create_task(one(str(n))) for n in range(20)))

    assert asyncio.run(main()) == [(str(n), str(n)) for n in range(20)]


@pytest.mark.parametrize("count", [1, 2, 200])
def test_cancelled_tasks_leave_the_others_alone(
    count: int, make: Callable[..., Runner], server: RunningServer
) -> None:
    """Cancelling ends the waiting at once; other tasks get their results, and nothing is logged."""
    runner = make(server.endpoint, MAX_CONNECTIONS=256)
    server.put("default-cache", b"key", b"value")
    server.inject(Fault(delay=0.6, times=None))
    complaints: list[Any] = []

    async def main() -> list[Any]:
        asyncio.get_running_loop().set_exception_handler(lambda _, c: complaints.append(c))
        doomed = [asyncio.create_task(runner.arun(get_it)) for _ in range(count)]
        kept = [asyncio.create_task(runner.arun(get_it)) for _ in range(3)]
        await asyncio.sleep(0.05)
        for task in doomed:
            task.cancel()
        began = time.monotonic()
        ended = await asyncio.gather(*doomed, return_exceptions=True)
        assert time.monotonic() - began < 0.4
        assert all(isinstance(one, asyncio.CancelledError) for one in ended)
        return await asyncio.wait_for(asyncio.gather(*kept), 10)

    assert asyncio.run(main()) == [[b"value"]] * 3
    gc.collect()
    assert complaints == []


def test_a_closed_loop_is_nobody_s_trouble(
    make: Callable[..., Runner], server: RunningServer
) -> None:
    """When a loop ends with requests under way, those of other loops are served all the same."""
    runner = make(server.endpoint)
    server.put("default-cache", b"key", b"value")
    server.inject(Fault(delay=0.3, times=None))
    loop = asyncio.new_event_loop()
    abandoned = loop.create_task(runner.arun(get_it))
    loop.run_until_complete(asyncio.sleep(0.05))
    abandoned.cancel()
    loop.run_until_complete(asyncio.gather(abandoned, return_exceptions=True))
    loop.close()
    for _ in range(2):
        assert within(5, get_it, get_it, runner=runner) == [[b"value"]] * 2


def test_a_loop_that_stops_before_its_turn_ends_does_not_block_the_next(
    make: Callable[..., Runner], server: RunningServer
) -> None:
    """A burst that was never sent is not waited for by a later loop of the same thread."""
    runner = make(server.endpoint)
    server.put("default-cache", b"key", b"value")
    loop = asyncio.new_event_loop()
    plan = runner.arun(get_it)
    task = loop.create_task(plan)
    loop.call_soon(loop.stop)
    loop.run_forever()  # the task has begun; what ends its turn has not run
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    assert within(5, get_it, runner=runner) == [[b"value"]]


def test_loops_of_many_threads_share_a_runner(
    make: Callable[..., Runner], server: RunningServer
) -> None:
    """Every loop gets its own answers."""
    runner = make(server.endpoint)
    for number in range(8):
        server.put("default-cache", b"k%02d" % number, b"%d" % number)
    found: dict[int, Any] = {}

    def serve(number: int) -> None:
        key = base64.urlsafe_b64encode(b"k%02d" % number).decode()
        found[number] = within(10, *[partial(get, key)] * 20, runner=runner)

    threads = [threading.Thread(target=serve, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == {n: [[b"%d" % n]] * 20 for n in range(8)}


@pytest.mark.parametrize("count", [1, 3])
def test_trouble_is_an_outcome_and_comes_in_time(count: int, make: Callable[..., Runner]) -> None:
    """A hanging service costs each task its deadline, all of them together."""
    with scripted(after_request(Peer.stall)) as server:
        runner = make(server.endpoint, REQUEST_TIMEOUT=0.3)
        began = time.monotonic()
        found = within(5, *[get_it] * count, runner=runner)
        assert time.monotonic() - began < 0.3 + 0.15
        assert all(isinstance(outcome, MomentoError) for [outcome] in found)


# What a plan's own code takes


SLOW: list[tuple[Callable[[ClockAhead], Any], Any]] = [
    (lambda clock: slow_to_load(clock, KEY, KEY, KEY), [b"value"] * 3),
    (lambda clock: slow_in_turn(clock, KEY, KEY), [b"value"] * 2),
    (lambda clock: slow_to_pack(clock, "a0", "a1", "a2", "a3"), [None] * 4),
]


@pytest.mark.parametrize(("plan", "result"), SLOW, ids=["load", "in turn", "pack"])
@pytest.mark.parametrize("is_sync", [True, False])
def test_computing_is_not_charged_to_a_plan_s_own_time(
    plan: Callable[[ClockAhead], Any],
    result: Any,
    is_sync: bool,
    make: Callable[..., Runner],
    server: RunningServer,
    clock: ClockAhead,
) -> None:
    """REQUEST_TIMEOUT bounds what is waited for, not what loading or packing takes."""
    server.put("default-cache", b"key", b"value")
    runner = make(server.endpoint, clock, MAX_CONNECTIONS=2)
    if is_sync:
        assert runner.run(lambda: plan(clock)) == result
    else:
        assert within(10, lambda: plan(clock), runner=runner) == [result]


@pytest.mark.parametrize(("plan", "result"), SLOW, ids=["load", "in turn", "pack"])
def test_computing_is_not_charged_to_other_tasks(
    plan: Callable[[ClockAhead], Any],
    result: Any,
    make: Callable[..., Runner],
    server: RunningServer,
    clock: ClockAhead,
) -> None:
    """A value that takes long to load or to pack makes nobody else's operation fail."""
    server.put("default-cache", b"key", b"value")
    runner = make(server.endpoint, clock, MAX_CONNECTIONS=4)
    others = [get_it] * 40
    slow, *found = within(10, lambda: plan(clock), *others, runner=runner)
    assert slow == result
    assert found == [[b"value"]] * 40


def test_a_long_turn_is_not_charged(
    make: Callable[..., Runner], server: RunningServer, clock: ClockAhead
) -> None:
    """What other tasks compute before their loop's turn ends uses nobody's time up."""
    server.put("default-cache", b"key", b"value")
    runner = make(server.endpoint, clock)

    async def one() -> Any:
        found = asyncio.ensure_future(runner.arun(get_it))
        await asyncio.sleep(0)
        clock.compute(LONG)
        return await found

    async def main() -> list[Any]:
        return await asyncio.gather(*(one() for _ in range(8)))

    assert asyncio.run(asyncio.wait_for(main(), 10)) == [[b"value"]] * 8


def test_what_is_packed_is_sent_before_the_next_is_packed(
    make: Callable[..., Runner], server: RunningServer, clock: ClockAhead
) -> None:
    """The first of many values is on its way, and answered, long before the last one is made."""
    runner = make(server.endpoint, clock, MAX_CONNECTIONS=2)
    arrived: list[int] = []
    keys = [f"a{number}" for number in range(8)]
    plan = partial(slow_to_pack, clock, *keys, note=lambda: arrived.append(len(server.requests)))
    assert runner.run(plan) == [None] * 8
    assert arrived == sorted(arrived)
    assert arrived[-1] >= 6


def test_connections_are_opened_while_values_are_packed(
    tmp_path: Path, make: Callable[..., Runner], clock: ClockAhead
) -> None:
    """The time to connect, handshake and all, is not used up by packing either."""
    with scripted(answer(response(204, b"")), tls=server_context()) as server:
        runner = make(server.endpoint, clock, CA_BUNDLE=bundle(tmp_path), CONNECT_TIMEOUT=2.0)
        assert runner.run(lambda: slow_to_pack(clock, "a0", "a1", "a2")) == [None] * 3


def test_computing_is_no_part_of_what_an_error_cost(
    make: Callable[..., Runner], server: RunningServer, clock: ClockAhead
) -> None:
    """What the breaker is told of a failure is what was waited for it."""
    server.put("default-cache", b"key", b"value")
    server.inject(Fault(status=501, delay=0.1, key=b"bad", times=None))
    runner = make(server.endpoint, clock)

    async def plan() -> Any:
        costs = []
        for _, outcome in await Together([Operation.get("YmFk"), Operation.get(KEY)]):
            costs.append(outcome.elapsed if isinstance(outcome, MomentoError) else 0)
            clock.compute(LONG)
        return costs

    [ours] = runner.run(plan)[1:]
    [[_, tasks]] = within(5, plan, runner=runner)
    assert 0 < ours < LONG
    assert 0 < tasks < LONG


@pytest.mark.parametrize("is_sync", [True, False])
@pytest.mark.parametrize("stage", [0, 1])
def test_what_cannot_be_packed_is_raised_in_the_plan(
    is_sync: bool, stage: int, runner: Runner
) -> None:
    """An error while an operation is made is its plan's, which may go on, and nobody else's."""

    def broken() -> Operation:
        raise ZeroDivisionError

    async def plan() -> Any:
        made: list[Any] = [lambda: Operation.get(KEY)] * stage
        try:
            list(await Together([*made, broken, *made]))
        except ZeroDivisionError:
            return await get(KEY)

    if is_sync:
        assert runner.run(plan) == [b"value"]
    else:
        assert within(5, plan, runner=runner) == [[b"value"]]
        assert within(5, plan, get_it, runner=runner) == [[b"value"]] * 2


def test_what_is_made_late_is_made_in_the_task_s_context(runner: Runner) -> None:
    """Context variables are those of the task that asked, whenever an operation is made."""
    seen: list[str] = []

    def make_one() -> Operation:
        seen.append(marker.get())
        return Operation.get(KEY)

    async def plan() -> Any:
        return len(list(await Together([make_one, make_one])))

    async def one(value: str) -> int:
        marker.set(value)
        return await runner.arun(plan)

    async def main() -> list[int]:
        return await asyncio.gather(*(asyncio.create_task(one(name)) for name in "ab"))

    assert asyncio.run(main()) == [2, 2]
    assert sorted(seen) == ["a", "a", "b", "b"]


@pytest.mark.parametrize("is_sync", [True, False])
@pytest.mark.parametrize(("connections", "count"), [(1, 1), (3, 3)])
def test_an_operation_beside_others_lengthens_no_deadline(
    connections: int, count: int, is_sync: bool, make: Callable[..., Runner]
) -> None:
    """However many connections there are, a silent service costs one deadline."""
    beside = Operation.get("bWFya2Vy")._replace(is_beside=True)

    async def plan() -> Any:
        return list(await Together([beside, *[Operation.get(KEY)] * count]))

    def late() -> float:
        with scripted(after_request(Peer.stall)) as server:
            runner = make(server.endpoint, REQUEST_TIMEOUT=0.3, MAX_CONNECTIONS=connections)
            began = time.monotonic()
            found = runner.run(plan) if is_sync else within(5, plan, runner=runner)[0]
            assert len(found) == count + 1
            assert all(isinstance(outcome, MomentoError) for _, outcome in found)
            return time.monotonic() - began - 0.3

    assert least_late(late) < GRACE


@pytest.mark.parametrize("is_sync", [True, False])
def test_a_later_step_has_what_is_left_of_a_many_call_s_time(
    is_sync: bool, make: Callable[..., Runner], clock: ClockAhead
) -> None:
    """A request after many is sent, though they took longer than one may."""

    def slow_then_quick(peer: Peer) -> None:
        for _ in range(3):
            peer.request()
            clock.ahead += 1.5
            peer.send(response(200))
        peer.request()
        peer.send(response(200, b"last"))

    async def plan() -> Any:
        list(await Together([Operation.get(KEY)] * 3))
        return await Operation.get(KEY)

    with scripted(slow_then_quick) as server:
        runner = make(server.endpoint, clock, REQUEST_TIMEOUT=2.0, MAX_CONNECTIONS=1)
        found = runner.run(plan) if is_sync else within(5, plan, runner=runner)[0]
        assert found == b"last"


def test_a_defect_below_is_the_tasks_error_and_not_their_end(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong in a worker, no task waits for ever."""

    def broken(_: Batch) -> Iterator[Any]:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(Batch, "outcomes", broken)
        found = within(1, get_it, get_it, runner=runner)
        assert [type(one) for one in found] == [ZeroDivisionError] * 2
    assert within(5, get_it, get_it, runner=runner) == [[b"value"]] * 2


def test_an_interrupted_plan_leaves_the_runner_usable(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle of a request passes to the caller, and the next request is served."""
    transport = runner._client._endpoint.transport

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    for keys, step in itertools.product(
        ((KEY,), (KEY, KEY)), ("_try_send", "_try_receive", "_connect")
    ):
        if step == "_connect":  # none is idle, so that one must be opened
            while transport.pool._idle:
                transport.pool.discard(transport.pool._idle.pop())
        with monkeypatch.context() as patch:
            patch.setattr(Connection, step, interrupted)
            with pytest.raises(KeyboardInterrupt):
                runner.run(partial(get, *keys))
        assert open_in(transport.pool) == set(transport.pool._idle)
        assert runner.run(partial(get, *keys)) == [b"value"] * len(keys)


EXIT = """
    import asyncio, sys, threading, time
    import django
    from django.conf import settings
    settings.configure(SECRET_KEY="x", CACHES={"default": {
        "BACKEND": "django_momento_http.cache.MomentoCache", "LOCATION": "default-cache",
        "OPTIONS": {"ENDPOINT": sys.argv[1], "TOKEN": "test-token", "REQUEST_TIMEOUT": 0.5}}})
    from django.core.cache import cache
    import logging
    logging.disable()

    async def main():
        tasks = [asyncio.create_task(cache.aget(str(n))) for n in range(20)]
        await asyncio.sleep(0.1)
        return tasks

    threads = [threading.Thread(target=cache.get_many, args=("abc",), daemon=n % 2 == 0)
               for n in range(4)]
    for thread in threads:
        thread.start()
    asyncio.run(main())
    print("ended")
"""


def test_the_interpreter_exits_with_requests_under_way() -> None:
    """Neither warning nor traceback nor hang: at most the deadline is waited for."""
    with running_server() as server:
        server.inject(Fault(delay=5.0, times=None))
        began = time.monotonic()
        child = subprocess.run(
            [
                sys.executable,
                "-X",
                "dev",
                "-W",
                "error",
                "-c",
                textwrap.dedent(EXIT),
                server.endpoint,
            ],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert time.monotonic() - began < 10
    assert child.stdout == "ended\n"
    assert child.returncode == 0
    assert child.stderr == ""
