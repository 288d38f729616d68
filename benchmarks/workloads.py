"""The workloads: which clients do what against which server.

A workload is a list of cases that are measured together. It knows nothing of goals.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import held
import page
import wire
from children import Children
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.memcached import PyMemcacheCache
from django.core.cache.backends.redis import RedisCache
from harness import Case
from peers import sdk
from peers.backend import RequestsCache
from peers.http import Aiohttp, Requests, ThreadedRequests, Urllib3, trusting
from subject import WIDTH, TransportClient, cache, params

from django_momento_http.cache import MomentoCache

C = TypeVar("C")
B = TypeVar("B", bound=BaseCache)

VALUE = "v" * 200
LATENCY_MS = 2.0
BIG = 1_000_000
_GETS_PER_THREAD = 25


class Bench:
    """What workloads share: servers, an event loop, and what must be closed after each."""

    def __init__(self, children: Children) -> None:
        self.children = children
        self.loop = asyncio.new_event_loop()
        self.closing = ExitStack()

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.close()
        self.loop.close()

    def keep(self, client: C) -> C:
        """Have a client closed when the workload is over."""
        self.closing.callback(client.close)  # type: ignore[attr-defined]
        return client

    def origin(self, latency_ms: float = 0.0) -> str:
        """Return the origin of the stand-in of this latency."""
        return f"http://127.0.0.1:{self.children.standin(latency_ms).port}"

    def awaiting(self, make: Callable[[], Awaitable[Any]]) -> Callable[[], object]:
        """Return a call that runs what ``make`` returns on the loop."""

        async def run() -> object:
            return await make()

        return lambda: self.loop.run_until_complete(run())


def wire_key(subject: BaseCache, key: str) -> str:
    """Return the key as the subject asks the service for it."""
    return subject.make_key(key)


def _gather(get: Callable[[str], Awaitable[object]], keys: Sequence[str]) -> Awaitable[object]:
    return asyncio.gather(*map(get, keys))


def _bytes_cases(bench: Bench, port: int, key: str, body: object) -> list[Case]:
    """One GET of the same bytes over each client, from the floor up."""
    origin = f"http://127.0.0.1:{port}"
    clients: dict[str, Any] = {
        "raw socket GET": wire.RawSocket(port),
        "transport GET": TransportClient(origin),
        "urllib3 GET": Urllib3(origin),
        "requests GET": Requests(origin),
    }
    return [
        Case(name, partial(bench.keep(client).get, key), body) for name, client in clients.items()
    ]


def _cache_cases(name: str, backend: BaseCache, *, sets: bool = True) -> list[Case]:
    """``get`` and ``set`` of 200 characters with one backend."""
    backend.set("name", VALUE)
    cases = [Case(f"{name}.get", partial(backend.get, "name"), VALUE)]
    if sets:
        cases.append(Case(f"{name}.set", partial(backend.set, "other", VALUE), None))
    return cases


def _memcached(bench: Bench) -> list[Case]:
    server = bench.children.memcached()
    if server is None:
        return []
    backend = PyMemcacheCache(f"127.0.0.1:{server.port}", {})
    return _cache_cases("PyMemcacheCache", bench.keep(backend))


def _redis(bench: Bench) -> list[Case]:
    server = bench.children.redis()
    if server is None:
        return []
    return _cache_cases("RedisCache", RedisCache(f"redis://127.0.0.1:{server.port}", {}))


def _sdk(bench: Bench) -> list[Case]:
    if sdk.MISSING:
        bench.children.left_out["Momento's own SDK"] = sdk.MISSING
        return []
    client = bench.keep(sdk.MomentoSdk(bench.children.sdk_server().port))
    body = VALUE.encode()
    client.set("name", body)
    return [Case("Momento SDK get", partial(client.get, "name"), body)]


def single(bench: Bench) -> list[Case]:
    """One key of 200 characters, the server on its own core."""
    port = bench.children.standin().port
    body = VALUE.encode()
    bench.keep(wire.RawSocket(port)).put("bytes", body)
    return [
        *_bytes_cases(bench, port, "bytes", body),
        *_cache_cases("MomentoCache", cache(bench.origin())),
        *_cache_cases("requests backend", bench.keep(RequestsCache(bench.origin())), sets=False),
        *_memcached(bench),
        *_redis(bench),
        *_sdk(bench),
    ]


def near(bench: Bench) -> list[Case]:
    """The same with the servers on the client's core: no time goes into waking another core."""
    children = bench.children
    port = children.standin(near=True).port
    body = VALUE.encode()
    bench.keep(wire.RawSocket(port)).put("bytes", body)
    cases = _bytes_cases(bench, port, "bytes", body)
    cases += _cache_cases("MomentoCache", cache(f"http://127.0.0.1:{port}"), sets=False)
    server = children.memcached(near=True)
    if server is not None:
        backend = bench.keep(PyMemcacheCache(f"127.0.0.1:{server.port}", {}))
        cases += _cache_cases("PyMemcacheCache", backend, sets=False)
    return cases


def tls(bench: Bench) -> list[Case]:
    """One key of 200 bytes over TLS, without Django."""
    port = bench.children.standin(tls=True).port
    authority = bench.children.certificate_authority
    origin = f"https://127.0.0.1:{port}"
    body = VALUE.encode()
    raw = wire.RawSocket(port, trusting(authority))
    raw.put("bytes", body)
    clients: dict[str, Any] = {
        "raw socket GET": raw,
        "transport GET": TransportClient(origin, authority),
        "urllib3 GET": Urllib3(origin, authority),
    }
    return [
        Case(name, partial(bench.keep(client).get, "bytes"), body)
        for name, client in clients.items()
    ]


def _filled(backend: B, values: dict[str, str]) -> B:
    failed = backend.set_many(values)
    if failed:
        raise RuntimeError(f"{len(failed)} values were not stored")
    return backend


def _values(count: int) -> dict[str, str]:
    return {f"name{number}": f"{number:04}" + VALUE[4:] for number in range(count)}


def many(bench: Bench, count: int, latency_ms: float = LATENCY_MS) -> list[Case]:
    """``get_many`` of ours and the floor, both of the same stored bytes, and 32 threads."""
    server = bench.children.standin(latency_ms)
    origin = bench.origin(latency_ms)
    values = _values(count)
    subject = _filled(cache(origin), values)
    keys = [wire_key(subject, key) for key in values]
    floor = bench.keep(wire.SelectorsFloor(server.port, WIDTH))
    bodies = floor.get_many(keys)
    over_threads_get = partial(bench.keep(ThreadedRequests(origin)).get_many, keys)
    return [
        Case("selectors floor", partial(floor.get_many, keys), bodies, count),
        Case("MomentoCache.get_many", partial(subject.get_many, list(values)), values, count),
        Case(
            "requests, 32 threads",
            over_threads_get,
            bodies,
            count,
            slow=count > 100,
        ),
    ]


def many_and_more(bench: Bench, count: int) -> list[Case]:
    """``many``, with the transport alone and aiohttp."""
    cases = many(bench, count)
    bodies: Any = cases[0].expected
    keys = list(bodies)
    origin = bench.origin(LATENCY_MS)
    transport = bench.keep(TransportClient(origin))
    aiohttp = _aiohttp(bench, origin)
    get_many = bench.awaiting(partial(aiohttp.get_many, keys))
    return [
        *cases,
        Case("transport GETs", partial(transport.get_many, keys), bodies, count),
        Case("aiohttp", get_many, bodies, count),
    ]


def many_at_once(bench: Bench, count: int) -> list[Case]:
    """``get_many`` without latency, and of servers that take all keys in one request."""
    values = _values(count)
    backends: dict[str, BaseCache] = {"MomentoCache": cache(bench.origin())}
    memcached, redis = bench.children.memcached(), bench.children.redis()
    if memcached is not None:
        address = f"127.0.0.1:{memcached.port}"
        backends["PyMemcacheCache"] = bench.keep(PyMemcacheCache(address, {}))
    if redis is not None:
        backends["RedisCache"] = RedisCache(f"redis://127.0.0.1:{redis.port}", {})
    return [
        Case(
            f"{name}.get_many",
            partial(_filled(backend, values).get_many, list(values)),
            values,
            count,
        )
        for name, backend in backends.items()
    ]


def whole_page(bench: Bench) -> list[Case]:
    """A page of 27 cache calls through Django's test client, the session among them."""
    ours = {"BACKEND": "django_momento_http.cache.MomentoCache", "LOCATION": wire.CACHE}
    near = params(bench.origin(), NEAR_MAX_AGE=60)
    backends = "django.core.cache.backends"
    aliases: dict[str, dict[str, Any]] = {
        "MomentoCache": ours | params(bench.origin()),
        "MomentoCache with copies": ours | near | {"KEY_PREFIX": "near"},
        "LocMemCache": {"BACKEND": f"{backends}.locmem.LocMemCache"},
    }
    memcached, redis = bench.children.memcached(), bench.children.redis()
    if memcached is not None:
        address = f"127.0.0.1:{memcached.port}"
        aliases["PyMemcacheCache"] = {
            "BACKEND": f"{backends}.memcached.PyMemcacheCache", "LOCATION": address,
        }  # fmt: skip
    if redis is not None:
        address = f"redis://127.0.0.1:{redis.port}"
        aliases["RedisCache"] = {"BACKEND": f"{backends}.redis.RedisCache", "LOCATION": address}
    asked = zip(aliases, page.pages(aliases, bench.closing), strict=True)
    return [Case(f"{name}, page", ask, page.CONTENT) for name, ask in asked]


def copies(bench: Bench) -> list[Case]:
    """``get`` and ``get_many`` of ours that copies in the process answer, and of LocMemCache."""
    values = _values(100)
    backends: dict[str, BaseCache] = {
        "copies": cache(bench.origin(), NEAR_MAX_AGE=3600),
        "LocMemCache": LocMemCache("copies", {}),
    }
    cases = []
    for name, backend in backends.items():
        _filled(backend, values).get_many(list(values))
        cases += [
            Case(f"{name}.get", partial(backend.get, "name0"), values["name0"]),
            Case(f"{name}.get_many", partial(backend.get_many, list(values)), values),
        ]
    return cases


def _aiohttp(bench: Bench, origin: str) -> Aiohttp:
    client = Aiohttp(origin)
    bench.closing.callback(bench.awaiting(client.close))
    return client


def aget1000(bench: Bench) -> list[Case]:
    """A thousand ``aget`` of different keys at once."""
    origin = bench.origin(LATENCY_MS)
    values = _values(1000)
    subject = _filled(cache(origin), values)
    keys, wanted = list(values), list(values.values())
    wire_keys = [wire_key(subject, key) for key in keys]
    default = _filled(bench.keep(RequestsCache(origin)), values)
    aiohttp = _aiohttp(bench, origin)
    bodies = bench.awaiting(partial(_gather, aiohttp.get, wire_keys))()
    count = len(keys)
    default_get = bench.awaiting(partial(_gather, default.aget, keys))
    return [
        Case(
            "MomentoCache.aget", bench.awaiting(partial(_gather, subject.aget, keys)), wanted, count
        ),
        Case("aiohttp", bench.awaiting(partial(_gather, aiohttp.get, wire_keys)), bodies, count),
        Case("Django's default aget", default_get, wanted, count, slow=True),
    ]


def aget1000_held(bench: Bench, rounds: int) -> dict[str, list[float]]:
    """Return how long the loop is held by a thousand ``aget``, and by tasks that do nothing."""
    values = _values(1000)
    subject = _filled(cache(bench.origin(LATENCY_MS)), values)

    async def nothing(_: str) -> None:
        await asyncio.sleep(0)

    works = {"loop held": subject.aget, "loop held by empty tasks": nothing}
    readings: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, get in works.items():
            work = held.longest(partial(_gather, get, list(values)))
            readings[name].append(bench.loop.run_until_complete(work))
    return readings


def aget_many100(bench: Bench) -> list[Case]:
    """One ``aget_many`` of a hundred keys."""
    origin = bench.origin(LATENCY_MS)
    values = _values(100)
    subject = _filled(cache(origin), values)
    default = _filled(bench.keep(RequestsCache(origin)), values)
    keys = list(values)
    return [
        Case(
            "MomentoCache.aget_many", bench.awaiting(partial(subject.aget_many, keys)), values, 100
        ),
        Case(
            "Django's default aget_many",
            bench.awaiting(partial(default.aget_many, keys)),
            values,
            100,
            slow=True,
        ),
    ]


def threads(bench: Bench, count: int) -> list[Case]:
    """Gets in as many threads, each with a backend instance of its own, as Django makes them."""
    origin = bench.origin(LATENCY_MS)
    executor = ThreadPoolExecutor(count)
    bench.closing.callback(executor.shutdown)
    ours: list[BaseCache] = [cache(origin) for _ in range(count)]
    over_requests: list[BaseCache] = [bench.keep(RequestsCache(origin)) for _ in range(count)]
    for backend in (ours[0], over_requests[0]):
        backend.set("name", VALUE)

    def work(backend: BaseCache) -> bool:
        return all(backend.get("name") == VALUE for _ in range(_GETS_PER_THREAD))

    def case(name: str, backends: list[BaseCache]) -> Case:
        def call() -> bool:
            return all(list(executor.map(work, backends)))

        return Case(name, call, expected=True, operations=count * _GETS_PER_THREAD)

    return [case("MomentoCache.get", ours), case("requests backend.get", over_requests)]


def sized(bench: Bench, size: int) -> list[Case]:
    """One incompressible value of this size: decoded by our cache, as bytes by the others."""
    port = bench.children.standin().port
    subject = cache(bench.origin())
    value = os.urandom(size)
    subject.set("big", value)
    key = wire_key(subject, "big")
    body = bench.keep(wire.RawSocket(port)).get(key)
    return [
        *_bytes_cases(bench, port, key, body),
        Case("MomentoCache.get", partial(subject.get, "big"), value),
    ]


def instance(bench: Bench) -> list[Case]:
    """One more backend instance of a configuration that the process already uses."""
    settings = params(bench.origin())
    return [
        Case(
            "MomentoCache()",
            lambda: MomentoCache(wire.CACHE, settings) is not None,
            expected=True,
        )
    ]


@dataclass(frozen=True)
class Workload:
    """How a workload is made, and how many rounds it gets."""

    cases: Callable[[Bench], list[Case]]
    rounds: int
    readings: Callable[[Bench, int], dict[str, list[float]]] | None = None


ALL = {
    "single": Workload(single, 30),
    "near": Workload(near, 20),
    "tls": Workload(tls, 30),
    "many100 at 0 ms": Workload(partial(many_at_once, count=100), 30),
    "page": Workload(whole_page, 30),
    "copies": Workload(copies, 30),
    "many100": Workload(partial(many_and_more, count=100), 30),
    "many1000": Workload(partial(many_and_more, count=1000), 20),
    "aget1000": Workload(aget1000, 15, aget1000_held),
    "aget_many100": Workload(aget_many100, 15),
    "threads8": Workload(partial(threads, count=8), 15),
    "big": Workload(partial(sized, size=BIG), 30),
    "instance": Workload(instance, 30),
}
