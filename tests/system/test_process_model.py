"""What a process shares: across instances, threads, tasks, event loops, and never across a fork."""

import asyncio
import base64
import errno
import gc
import json
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.cache import caches

from django_momento_http import server as server_module
from django_momento_http._process import PerProcess
from django_momento_http._store.workers import Workers
from django_momento_http.cache import MomentoCache
from django_momento_http.exceptions import MomentoError
from django_momento_http.testing import Fault, RunningServer, running_server

CACHE = "default-cache"
LONGEST_WAIT = 40

Make = Callable[..., Any]


class SeenConnections:
    """What a server sees of connections: which there are, and which keys were asked for on each."""

    def __init__(self) -> None:
        self.keys: dict[object, set[str]] = {}
        self.open = 0
        self.most_open = 0

    def opened(self, connection: Any) -> None:
        """Note a connection."""
        self.keys[connection] = set()
        self.open += 1
        self.most_open = max(self.most_open, self.open)

    def asked(self, connection: Any, url: bytes) -> None:
        """Note a key."""
        encoded = url.partition(b"key_base64=")[2].partition(b"&")[0]
        key = base64.urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4))
        self.keys[connection].add(key.decode(errors="replace").rpartition(":")[2])

    def users(self) -> list[set[str]]:
        """Return who used each connection; a key begins with its user's name."""
        return [{key.partition("-")[0] for key in keys} for keys in self.keys.values() if keys]


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> SeenConnections:
    """All connections to the servers of this process."""
    seen = SeenConnections()
    connection = server_module.ClientConnection
    made, lost, begun = connection.connection_made, connection.connection_lost, connection.begin

    def connection_made(self: Any, transport: Any) -> None:
        seen.opened(self)
        made(self, transport)

    def connection_lost(self: Any, error: Exception | None) -> None:
        seen.open -= 1
        lost(self, error)

    def begin(self: Any, head: Any) -> None:
        seen.asked(self, head.target)
        begun(self, head)

    monkeypatch.setattr(connection, "connection_made", connection_made)
    monkeypatch.setattr(connection, "connection_lost", connection_lost)
    monkeypatch.setattr(connection, "begin", begin)
    return seen


def run_script(script: str, *arguments: str) -> str:
    """Run a program and return what it printed; whatever it says on stderr is a failure."""
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            "-c",
            textwrap.dedent(script),
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=LONGEST_WAIT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def together(functions: list[Callable[[], Any]]) -> list[Any]:
    """Call each in a thread of its own, all at once, and return the results."""
    start = threading.Barrier(len(functions))
    results: dict[int, Any] = {}

    def call(number: int) -> None:
        start.wait(LONGEST_WAIT)
        results[number] = functions[number]()

    numbers = range(len(functions))
    threads = [threading.Thread(target=call, args=[number], daemon=True) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONGEST_WAIT)
    return [results[number] for number in numbers]


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Run in an event loop, not for ever."""
    return asyncio.run(asyncio.wait_for(main, LONGEST_WAIT))


# One client


def test_instances_share_connections(make_cache: Make, wire: SeenConnections) -> None:
    """Instances of one configuration use one connection, as long as one request follows another."""
    for number in range(20):
        cache = make_cache(CLEAR_MAX_AGE=None)
        cache.set("k", number)
        assert make_cache(CLEAR_MAX_AGE=None).get("k") == number
    assert len(wire.keys) == 1


@pytest.mark.parametrize(
    "other", [{"KEY_PREFIX": "p"}, {"VERSION": 2}, {"TIMEOUT": 5}, {"SERIALIZER": "json"}], ids=str
)
def test_aliases_of_one_endpoint_share_connections(
    make_cache: Make, wire: SeenConnections, other: dict[str, Any]
) -> None:
    """Aliases that differ in something else than the endpoint still use one connection."""
    for options in ({}, other, {}, other):
        make_cache(CLEAR_MAX_AGE=None, **options).get("k")
    assert len(wire.keys) == 1


def test_threads_share_connections(server: RunningServer, wire: SeenConnections) -> None:
    """Django makes an instance per thread; threads that follow one another share a connection."""
    instances = []

    def use() -> None:
        instances.append(caches["default"])
        caches["default"].get("k")

    with server.override_settings(CLEAR_MAX_AGE=None):
        for _ in range(10):
            thread = threading.Thread(target=use)
            thread.start()
            thread.join(LONGEST_WAIT)
    assert len(set(map(id, instances))) == 10
    assert len(wire.keys) == 1


def test_tasks_share_connections(server: RunningServer, wire: SeenConnections) -> None:
    """Django makes an instance per task; tasks that follow one another share a connection."""
    instances = []

    async def use() -> None:
        instances.append(caches["default"])
        await caches["default"].aget("k")

    async def main() -> None:
        for _ in range(10):
            await asyncio.create_task(use())

    with server.override_settings(CLEAR_MAX_AGE=None):
        run(main())
    assert len(set(map(id, instances))) == 10
    assert len(wire.keys) == 1


def test_sync_and_async_share_connections(make_cache: Make, wire: SeenConnections) -> None:
    """Threads and tasks use the same connection."""
    cache = make_cache(CLEAR_MAX_AGE=None)
    for number in range(5):
        cache.set("k", number)
        assert run(cache.aget("k")) == number
    assert len(wire.keys) == 1


def test_instances_share_counters_and_breaker(make_cache: Make, server: RunningServer) -> None:
    """What one instance learns of the service, the next one knows."""
    server.inject(Fault(status=404, body=b"Cache Not Found"))
    make_cache(CLEAR_MAX_AGE=None).get("k")
    assert make_cache(CLEAR_MAX_AGE=None).get("k") is None
    assert make_cache(CLEAR_MAX_AGE=None).stats()["breaker"] == "open"
    assert len(server.requests) == 1


def test_building_costs_no_request(
    make_cache: Make, server: RunningServer, wire: SeenConnections
) -> None:
    """A backend connects when it is first used, and a built one is built again from memory."""
    built = [make_cache() for _ in range(100)]
    assert len({repr(cache) for cache in built}) == 1
    assert not wire.keys
    assert not server.requests


def test_a_callable_token_is_shared(server: RunningServer) -> None:
    """All instances of a configuration ask a callable TOKEN once."""
    calls: list[int] = []

    def token() -> str:
        calls.append(1)
        return server.token

    entry = server.cache_settings(TOKEN=token, CLEAR_MAX_AGE=None)
    for _ in range(5):
        MomentoCache(CACHE, {"OPTIONS": entry["OPTIONS"]}).set("k", 1)
    assert len(calls) == 1
    assert len(server.items) == 1


# Threads


def test_32_threads(make_cache: Make, wire: SeenConnections) -> None:
    """Threads never get each other's values, and open no more than MAX_CONNECTIONS connections."""

    def work(number: int) -> int:
        cache, wrong = make_cache(MAX_CONNECTIONS=8, REQUEST_TIMEOUT=30), 0
        for turn in range(15):
            mine = {f"t{number}-{key}": (number, turn, key) for key in range(4)}
            cache.set_many(mine)
            wrong += cache.get_many(mine) != mine
            key, value = next(iter(mine.items()))
            wrong += cache.get(key) != value
            wrong += run(cache.aget(key)) != value
        return wrong

    assert together([lambda number=number: work(number) for number in range(32)]) == [0] * 32
    assert wire.most_open <= 8


def test_threads_have_room_for_each(make_cache: Make, wire: SeenConnections) -> None:
    """Requests of several threads are under way at once, each on a connection of its own."""
    with running_server(latency=0.1) as server:
        options = server.cache_settings(CLEAR_MAX_AGE=None)["OPTIONS"]
        cache = MomentoCache(CACHE, {"OPTIONS": options})
        together([lambda: cache.get("k")] * 8)
        assert len(wire.keys) == 8


# Tasks


def test_many_tasks(make_cache: Make, wire: SeenConnections) -> None:
    """Hundreds of tasks get their own values over no more than MAX_CONNECTIONS connections."""
    cache = make_cache(MAX_CONNECTIONS=8, REQUEST_TIMEOUT=30)

    async def work(number: int) -> bool:
        await cache.aset(f"k{number}", number)
        many = await cache.aget_many([f"k{number}", "gone"])
        return (await cache.aget(f"k{number}"), many) == (number, {f"k{number}": number})

    async def main() -> list[bool]:
        return await asyncio.gather(*map(work, range(300)))

    assert run(main()) == [True] * 300
    assert wire.most_open <= 8


def test_the_loop_is_never_held() -> None:
    """While a task waits for the service, other tasks of its loop run."""
    with running_server(latency=0.2) as server:
        options = server.cache_settings(CLEAR_MAX_AGE=None)["OPTIONS"]
        cache = MomentoCache(CACHE, {"OPTIONS": options})
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0.001)
                turns += 1

        async def main() -> None:
            turning = asyncio.create_task(turn())
            await asyncio.gather(*[cache.aget(f"k{number}") for number in range(20)])
            turning.cancel()

        run(main())
        assert turns > 20


@pytest.mark.parametrize("delay", [0.0, 0.02])
def test_500_cancelled_tasks(make_cache: Make, server: RunningServer, delay: float) -> None:
    """Tasks that are cancelled at any moment harm nobody: no hang, no wrong value, none lost."""
    cache = make_cache(MAX_CONNECTIONS=8, REQUEST_TIMEOUT=30, CLEAR_MAX_AGE=None)
    values = {f"k{number}": number for number in range(50)}
    cache.set_many(values)
    if delay:
        server.inject(Fault(delay=delay, times=100))

    async def main() -> list[int]:
        tasks = [asyncio.create_task(cache.aget(f"k{number % 50}")) for number in range(500)]
        survivors = [asyncio.create_task(cache.aget(key)) for key in values]
        for number, task in enumerate(tasks):
            if number % 50 == 0:
                await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return await asyncio.gather(*survivors)

    assert run(main()) == list(values.values())
    assert cache.get_many(values) == values
    assert run(cache.aget_many(values)) == values


def test_a_deadline_of_the_callers_own(make_cache: Make, server: RunningServer) -> None:
    """asyncio.timeout() ends the wait; the cache works on."""
    cache = make_cache(CLEAR_MAX_AGE=None, REQUEST_TIMEOUT=5)
    cache.set("k", 1)
    server.inject(Fault(delay=0.3))

    async def main() -> object:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await cache.aget("k")
        return await cache.aget("k")

    assert run(main()) == 1


def test_several_loops_one_after_another(make_cache: Make) -> None:
    """A backend outlives the event loop that it was first used in."""
    cache = make_cache()
    for number in range(5):
        run(cache.aset("k", number))
        assert run(cache.aget("k")) == number


def test_several_loops_at_once(make_cache: Make) -> None:
    """Loops of several threads use one backend, and each gets its own values."""
    cache = make_cache(CLEAR_MAX_AGE=None)

    async def work(name: int) -> bool:
        keys = [f"{name}-{number}" for number in range(20)]
        await asyncio.gather(*[cache.aset(key, key) for key in keys])
        return await asyncio.gather(*[cache.aget(key) for key in keys]) == keys

    assert together([lambda name=name: run(work(name)) for name in range(8)]) == [True] * 8


def test_a_loop_that_ended_early(make_cache: Make, server: RunningServer) -> None:
    """A loop that is closed while a request is under way breaks nothing for the next one."""
    cache = make_cache(CLEAR_MAX_AGE=None)
    cache.set("k", 1)
    server.inject(Fault(delay=0.1))

    async def leave() -> None:
        waiting = asyncio.create_task(cache.aget("k"))
        await asyncio.sleep(0.01)
        waiting.cancel()

    run(leave())
    assert run(cache.aget("k")) == 1
    assert cache.get("k") == 1


def test_async_to_sync(make_cache: Make) -> None:
    """The twins work under Django's adapters, in both directions and in a running loop."""
    cache = make_cache()
    async_to_sync(cache.aset)("k", 1)
    assert async_to_sync(cache.aget)("k") == 1

    async def main() -> list[object]:
        in_thread = sync_to_async(cache.get)
        return [await in_thread("k"), cache.get("k"), await cache.aget("k")]

    assert run(main()) == [1, 1, 1]


def test_values_are_made_by_the_caller(make_cache: Make) -> None:
    """A task's value is serialized in its own thread, where its lazy parts may run a query."""
    cache, threads = make_cache(), []

    class Lazy:
        def __reduce__(self) -> tuple[Any, ...]:
            threads.append(threading.get_ident())
            return str, ("evaluated",)

    async def main() -> None:
        await cache.aset("k", Lazy())
        await cache.aadd("new", Lazy())
        await cache.aset_many({"many": Lazy()})

    run(main())
    assert threads == [threading.get_ident()] * 3
    assert cache.get("k") == "evaluated"


# No thread, and too many


ASYNC_CALLS: dict[str, tuple[tuple[Any, ...], Any]] = {
    "aget": (("k", "default"), "default"),
    "aget_many": ((["k", "l"],), {}),
    "ahas_key": (("k",), False),
    "attl": (("k",), 0.0),
    "aset": (("k", 1), None),
    "aset_many": (({"k": 1, "l": 2},), ["k", "l"]),
    "aadd": (("k", 1), False),
    "aget_or_set": (("k", "default"), "default"),
    "atouch": (("k", 1), False),
    "aincr": (("k",), ValueError),
    "adecr": (("k",), ValueError),
    "aincr_version": (("k",), ValueError),
    "adecr_version": (("k",), ValueError),
    "adelete": (("k",), False),
    "adelete_many": ((["k", "l"],), None),
    "aclear": ((), None),
}


@pytest.fixture
def no_thread(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """A function that makes a backend one that can start no thread."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def without(cache: Any) -> Any:
        cache._store.runner._workers = Workers()
        workers.append(cache._store.runner._workers)
        monkeypatch.setattr(threading.Thread, "start", refuse)
        return cache

    workers: list[Workers] = []
    yield without  # type: ignore[misc]
    for one in workers:
        one.close()


def test_all_async_methods_are_there() -> None:
    """The table below forgets none of the twins."""
    twins = {name for name in vars(MomentoCache) if f"a{name}" in vars(MomentoCache)}
    assert {f"a{name}" for name in twins} == {*ASYNC_CALLS, "aclose"}


@pytest.mark.parametrize("name", ASYNC_CALLS)
def test_no_thread_is_trouble_like_any_other(
    name: str, make_cache: Make, server: RunningServer, no_thread: Callable[[Any], Any]
) -> None:
    """Where no thread can be started, each async method does what ON_ERROR asks for."""
    arguments, result = ASYNC_CALLS[name]
    cache = no_thread(make_cache(CLEAR_MAX_AGE=0))

    async def call(cache: Any) -> Any:
        return await getattr(cache, name)(*arguments)

    if isinstance(result, type):
        with pytest.raises(result):
            run(call(cache))
    else:
        assert run(call(cache)) == result
    assert cache.stats()["errors"]["no_thread"] >= 1
    with pytest.raises(MomentoError, match="limit of threads") as caught:
        run(call(no_thread(make_cache(ON_ERROR="raise", CLEAR_MAX_AGE=0))))
    assert caught.value.kind == "no_thread"
    assert cache.stats()["breaker"] == "closed"
    assert server.requests == []


@pytest.mark.parametrize("step", ["socketpair", "dup"])
def test_no_descriptor_is_trouble_like_any_other(
    step: str, make_cache: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a worker's thread would have nothing to listen with, there are misses."""

    def refuse(*_: Any) -> Any:
        raise OSError(errno.EMFILE, "too many open files")

    cache = make_cache()
    assert cache.get("k") is None
    registry: PerProcess[None, Workers] = PerProcess(lambda _: Workers(), Workers.close)
    monkeypatch.setattr("django_momento_http._store.workers._WORKERS", registry)

    async def main() -> Any:
        owner = socket if step == "socketpair" else socket.socket
        with monkeypatch.context() as patch:
            patch.setattr(owner, step, refuse)
            missed = await cache.aget("k", "a miss")
        await cache.aset("k", 1)
        return missed, await cache.aget("k")

    assert run(main()) == ("a miss", 1)
    registry.drop(lambda _: True)


def test_a_time_limit_is_not_taken_for_a_missing_thread(
    make_cache: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a signal handler raises while a thread is started comes out, whatever its class."""

    def end(*_: Any) -> None:
        raise TimeoutError

    def interrupted(_: threading.Thread) -> None:
        signal.raise_signal(signal.SIGUSR1)

    cache = make_cache()
    cache._store.runner._workers = workers = Workers()
    before = signal.signal(signal.SIGUSR1, end)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", interrupted)
            with pytest.raises(TimeoutError):
                run(cache.aget("k"))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert run(cache.aget("k")) is None
    workers.close()


LATE = """
    import atexit, asyncio, json, sys, threading

    def late():
        print("late", asyncio.run(cache.aget("k")), asyncio.run(cache.aget_many(["k"])))

    # Runs last: after all that the package puts away.
    atexit.register(late)
    from django.conf import settings
    settings.configure(SECRET_KEY="late", CACHES={"default": json.loads(sys.argv[1])})
    import logging
    logging.disable()
    from django.core.cache import cache

    def waited_for():
        asyncio.run(cache.aset("k", 1))
        threading.main_thread().join()
        print("waited for", asyncio.run(cache.aget("k")))

    threading.Thread(target=waited_for).start()
"""


def test_an_ending_interpreter_is_no_trouble(server: RunningServer) -> None:
    """What is waited for comes, also after the main thread's end; then there may be misses."""
    printed = run_script(LATE, fork_settings(server))
    assert printed in ("waited for 1\nlate 1 {'k': 1}\n", "waited for 1\nlate None {}\n")


def test_threads_are_few_whatever_aliases_there_are(make_cache: Make) -> None:
    """Bursts of a dozen aliases share the process's threads, and let go of them."""
    caches = [make_cache(KEY_PREFIX=f"p{n}", CLEAR_MAX_AGE=None) for n in range(12)]

    async def one(cache: Any, number: int) -> None:
        for turn in range(20):
            await cache.aset(f"k{number}", turn)

    async def main() -> int:
        tasks = [asyncio.create_task(one(cache, n)) for cache in caches for n in range(3)]
        most = 0
        while not all(task.done() for task in tasks):
            most = max(most, ours())
            await asyncio.sleep(0)
        return most

    def ours() -> int:
        return sum(
            thread.name.startswith("django-momento-http") for thread in threading.enumerate()
        )

    before = ours()
    assert run(main()) <= 33 + before
    end = time.monotonic() + LONGEST_WAIT
    while ours() > 5 + before and time.monotonic() < end:
        threading.Event().wait(0.005)
    assert ours() <= 5 + before


def test_stores_are_let_go(make_cache: Make) -> None:
    """Of hundreds of KEY_PREFIXes only the last used are kept, and those in use."""
    in_use = make_cache(KEY_PREFIX="used", CLEAR_MAX_AGE=None)
    in_use.set("k", 1)
    stores = []
    for number in range(300):
        cache = make_cache(KEY_PREFIX=f"p{number}", CLEAR_MAX_AGE=None)
        cache.get("k")
        run(cache.aget("k"))
        stores.append(weakref.ref(cache._store))
    del cache
    gc.collect()
    assert sum(store() is not None for store in stores) <= 64
    assert stores[0]() is None
    assert make_cache(KEY_PREFIX="used", CLEAR_MAX_AGE=None)._store is in_use._store


# Loops


def test_a_loop_may_be_run_by_threads_in_turn(make_cache: Make) -> None:
    """Whichever thread runs a loop, its tasks are woken, also those begun in another thread."""
    cache = make_cache(CLEAR_MAX_AGE=None)
    cache.set("k", 1)
    loop = asyncio.new_event_loop()

    def begin() -> "asyncio.Task[Any]":
        """Run a task until it has asked, and no further: the turn has not ended."""
        task = loop.create_task(cache.aget("k"))
        loop.call_soon(loop.stop)
        loop.run_forever()
        return task

    def finish(awaitable: Any) -> Any:
        return loop.run_until_complete(asyncio.wait_for(awaitable, LONGEST_WAIT / 10))

    with ThreadPoolExecutor(1) as other:
        for _ in range(3):
            assert other.submit(finish, begin()).result(LONGEST_WAIT) == 1
            assert finish(cache.aget("k")) == 1
            assert finish(other.submit(begin).result(LONGEST_WAIT)) == 1
            assert other.submit(finish, cache.aget("k")).result(LONGEST_WAIT) == 1
    loop.close()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are of Python 3.12")
def test_eager_tasks(make_cache: Make) -> None:
    """Tasks that begin at once are served as others are."""
    cache = make_cache(CLEAR_MAX_AGE=None)

    async def main() -> list[Any]:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
        await asyncio.gather(*(cache.aset(f"k{n}", n) for n in range(100)))
        doomed = [asyncio.create_task(cache.aget("k1")) for _ in range(100)]
        kept = [asyncio.create_task(cache.aget(f"k{n}")) for n in range(100)]
        for task in doomed:
            task.cancel()
        return await asyncio.gather(*kept)

    assert run(main()) == list(range(100))


def test_uvloop(make_cache: Make) -> None:
    """Another loop than asyncio's own does as well."""
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")
    cache = make_cache(CLEAR_MAX_AGE=None)

    async def main() -> list[Any]:
        await asyncio.gather(*(cache.aset(f"k{n}", n) for n in range(200)))
        doomed = [asyncio.create_task(cache.aget("k1")) for _ in range(100)]
        await asyncio.sleep(0)
        for task in doomed:
            task.cancel()
        return await asyncio.gather(*(cache.aget(f"k{n}") for n in range(200)))

    for _ in range(3):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            assert runner.run(asyncio.wait_for(main(), LONGEST_WAIT)) == list(range(200))


def test_uwsgi_s_master_starts_no_thread(make_cache: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it forks its workers, tasks are served in the loop's own thread."""
    fake = SimpleNamespace(worker_id=lambda: 0, mule_id=lambda: 0)
    monkeypatch.setitem(sys.modules, "uwsgi", fake)
    cache = make_cache(CLEAR_MAX_AGE=None)
    cache._store.runner._workers = workers = Workers()

    async def main() -> list[Any]:
        await cache.aset_many({"k": 1, "l": 2})
        return await asyncio.gather(cache.aget("k"), cache.aget_many(["k", "l"]))

    assert run(main()) == [1, {"k": 1, "l": 2}]
    assert not workers._threads
    fake.worker_id = lambda: 1
    assert run(main()) == [1, {"k": 1, "l": 2}]
    assert workers._threads
    workers.close()


# Forks

SET_UP = """
    import asyncio, ctypes, json, os, signal, sys, threading, time
    from django.conf import settings
    settings.configure(SECRET_KEY="fork", CACHES={"default": json.loads(sys.argv[1])})
    from django.core.cache import cache, caches

    def work(name):
        "Return how many answers were not this process's own."
        wrong = 0
        for turn in range(8):
            mine = {f"{name}-{number}": [name, turn, number] for number in range(8)}
            cache.set_many(mine)
            wrong += cache.get_many(mine) != mine
            wrong += any(cache.get(key) != value for key, value in mine.items())
            wrong += asyncio.run(cache.aget_many(mine)) != mine
        return wrong

    def fork_unseen():
        "Fork as servers in C do: no hook runs, and no thread may want the interpreter's lock."
        from django_momento_http._store.workers import shared_workers
        workers, idle = shared_workers(), 0
        while idle < 3:
            time.sleep(0.002)
            idle = idle + 1 if workers._idle == workers._threads else 0
        return ctypes.PyDLL(None).fork()

    def fork():
        pid = fork_unseen() if sys.argv[2:] == ["unseen"] else os.fork()
        if pid == 0:
            signal.alarm(20)
        return pid

    def end(pid):
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def fork_settings(server: RunningServer) -> str:
    """Settings with a deadline that a loaded machine keeps."""
    return json.dumps(server.cache_settings(CLEAR_MAX_AGE=None, REQUEST_TIMEOUT=10))


@pytest.fixture(params=["seen", "unseen"])
def fork(request: pytest.FixtureRequest) -> str:
    """Whether Python's hooks run at a fork."""
    return str(request.param)


@pytest.fixture(autouse=True)
def needs_fork(request: pytest.FixtureRequest) -> None:
    """Skip what a system without fork cannot do."""
    if "fork" in request.node.name and sys.platform == "win32":
        pytest.skip("no fork on this system")


def test_fork_with_a_warm_pool(server: RunningServer, wire: SeenConnections, fork: str) -> None:
    """Parent and child both work on, get their own values, and share no connection."""
    script = """
    work("warm")
    pid = fork()
    if pid == 0:
        os._exit(work("child"))
    print(work("parent"), end(pid))
    """
    assert run_script(SET_UP + script, fork_settings(server), fork) == "0 0\n"
    assert {"child"} in wire.users()
    assert {"warm", "parent"} in wire.users()
    assert not [users for users in wire.users() if "child" in users and len(users) > 1]


def test_fork_of_many(server: RunningServer, wire: SeenConnections, fork: str) -> None:
    """A master that forks several workers, as gunicorn --preload does: none shares a connection."""
    script = """
    work("warm")
    pids = []
    for number in range(4):
        pid = fork()
        if pid == 0:
            os._exit(work(f"child{number}"))
        pids.append(pid)
    print([end(pid) for pid in pids], work("parent"))
    """
    assert run_script(SET_UP + script, fork_settings(server), fork) == "[0, 0, 0, 0] 0\n"
    children = [users for users in wire.users() if any("child" in user for user in users)]
    assert all(len(users) == 1 for users in children)
    assert len(set().union(*children)) == 4


def test_fork_of_a_fork(server: RunningServer, wire: SeenConnections, fork: str) -> None:
    """A child's child works as well."""
    script = """
    work("warm")
    pid = fork()
    if pid == 0:
        wrong = work("child")
        pid = fork()
        if pid == 0:
            os._exit(work("grandchild"))
        os._exit(wrong + end(pid) + work("child"))
    print(end(pid), work("parent"))
    """
    assert run_script(SET_UP + script, fork_settings(server), fork) == "0 0\n"
    assert not [users for users in wire.users() if "grandchild" in users and len(users) > 1]


def test_fork_while_requests_are_under_way(server: RunningServer, wire: SeenConnections) -> None:
    """A fork in the midst of other threads' requests leaves no lock held in the child."""
    script = """
    # Whatever is imported is imported now: an import under way at a fork is Python's own deadlock.
    stop, wrong = threading.Event(), [work("warm")]
    def hammer(name):
        while not stop.is_set():
            wrong.append(work(name))
    threads = [threading.Thread(target=hammer, args=[f"thread{number}"]) for number in range(4)]
    for thread in threads:
        thread.start()
    pids = []
    for number in range(5):
        pid = fork()
        if pid == 0:
            os._exit(work(f"child{number}"))
        pids.append(pid)
    ended = [end(pid) for pid in pids]
    stop.set()
    for thread in threads:
        thread.join()
    print(ended, sum(wrong))
    """
    assert run_script(SET_UP + script, fork_settings(server)) == "[0, 0, 0, 0, 0] 0\n"
    children = [users for users in wire.users() if any("child" in user for user in users)]
    assert all(len(users) == 1 for users in children)


def test_fork_inside_a_loop(server: RunningServer, fork: str) -> None:
    """A child of a process that has used the twins can use them, in a loop of its own."""
    script = """
    async def main():
        await cache.aset("k", "warm")
        return fork()
    pid = asyncio.run(main())
    value = asyncio.run(cache.aget("k"))
    if pid == 0:
        os._exit(value != "warm")
    print(value, end(pid))
    """
    assert run_script(SET_UP + script, fork_settings(server), fork) == "warm 0\n"


def test_fork_keeps_what_was_cleared(server: RunningServer, fork: str) -> None:
    """What the parent cleared is gone in the child, whose counters begin at nothing."""
    script = """
    cache.set("k", "old")
    cache.clear()
    pid = fork()
    if pid == 0:
        fresh = cache.stats()["requests"] == 0
        os._exit(not fresh or cache.get("k") is not None)
    print(end(pid), cache.get("k"))
    """
    settings = json.dumps(server.cache_settings(REQUEST_TIMEOUT=10))
    assert run_script(SET_UP + script, settings, fork) == "0 None\n"


def test_spawned_processes_work(server: RunningServer) -> None:
    """A process that used the cache, either way, ends without complaint."""
    script = """
    cache.set("k", 1)
    asyncio.run(cache.aset("k", 2))
    print(cache.get("k"))
    """
    assert run_script(SET_UP + script, fork_settings(server)) == "2\n"


def test_threads_that_live_on_do_not_hold_the_exit(server: RunningServer) -> None:
    """A process ends although a request of a daemon thread is still under way."""
    server.inject(Fault(delay=5, key=b":1:slow"))
    script = """
    started = threading.Event()
    def slow():
        started.set()
        cache.get("slow")
    threading.Thread(target=slow, daemon=True).start()
    started.wait()
    print(cache.get("k"))
    """
    assert run_script(SET_UP + script, fork_settings(server)) == "None\n"
