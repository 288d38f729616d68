"""Interrupts: whatever a signal handler raises, wherever it strikes, comes out and costs nothing.

The places where it may strike are gone through, and some random moments besides.
"""

import gc
import itertools
import signal
import threading
import time
import warnings
from binascii import b2a_base64
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.views.debug import ExceptionReporter

from django_momento_http._http.connection import Connection
from django_momento_http._http.hedging import Hedging, Silence
from django_momento_http._http.messages import Request
from django_momento_http._http.pool import Pool
from django_momento_http._http.transport import Transport
from django_momento_http.exceptions import MomentoError
from tests.support import canary
from tests.support.interrupting import (
    at_every_line,
    at_every_place,
    at_random,
    forget_the_interrupted,
    frames_of,
    inside_every_place,
    interrupts,
)
from tests.support.scripted import (
    Peer,
    Script,
    a_request,
    after_request,
    all_of,
    answer_once,
    bundle,
    echo,
    give_back,
    open_in,
    response,
    scripted,
    server_context,
    silent,
    take_from,
    transport_to,
    tunnel,
)
from tests.support.sizes import sized

# A connection that is dropped in the middle is closed without a word of ours; CPython says so.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs signals and timers"),
]
INTERRUPTS = sized(100, 20_000)
# One place in so many is tried.
STEP = sized(8, 1)
TOKEN = "a-secret-token"
LOGIN = "user:hunter2"
LARGE = bytes(300_000)
NUMBERS = itertools.count()


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    forget_the_interrupted()


def lost(pool: Any) -> int:
    """Return how many slots nobody has and nobody can take."""
    return len(open_in(pool) - set(pool._idle))


def forget_idle(transport: Transport) -> None:
    """Let the next connection be a new one."""
    pool = transport.pool
    while pool._idle:
        pool.tidy(pool._idle[-1], reusable=False)


def get(transport: Transport) -> None:
    assert transport.exchange(a_request("/x")).body == b"/x"  # type: ignore[union-attr]


def get_cold(transport: Transport) -> None:
    forget_idle(transport)
    get(transport)


def get_fresh(transport: Transport) -> None:
    assert transport.exchange(a_request("/x", fresh=True)).body == b"/x"  # type: ignore[union-attr]


def get_while_handling(transport: Transport) -> None:
    try:
        [].pop()
    except IndexError:
        get(transport)


def get_many_while_handling(transport: Transport) -> None:
    try:
        [].pop()
    except IndexError:
        get_many(transport)


def put_large(transport: Transport) -> None:
    assert transport.exchange(a_request("/x", LARGE)).body == b"/x"  # type: ignore[union-attr]


def get_many(transport: Transport) -> None:
    targets = [f"/{number}" for number in range(4)]
    found = all_of(transport, [a_request(target) for target in targets])
    assert {request.target: answer.body.decode() for request, answer in found} == dict(
        zip(targets, targets, strict=True)
    )


def get_many_cold(transport: Transport) -> None:
    forget_idle(transport)
    get_many(transport)


def leave_many(transport: Transport) -> None:
    """Begin to read answers, and leave."""
    waiting = iter([a_request(f"/{number}") for number in range(6)])
    with closing(transport.multiplexer(lambda: next(waiting, None)).results()) as lists:  # type: ignore[type-var]
        assert next(lists)


def fail(transport: Transport) -> None:
    assert transport.exchange(a_request("/x")).kind in ("connection", "connect")  # type: ignore[union-attr]


def fail_many(transport: Transport) -> None:
    found = all_of(transport, [a_request("/1"), a_request("/2"), a_request("/3")])
    assert {answer.kind for _, answer in found} <= {"connection", "connect"}


def time_out(transport: Transport) -> None:
    found = transport.exchange(a_request("/x", seconds=0.003))
    assert found.kind in ("timeout", "connect_timeout")  # type: ignore[union-attr]


def time_out_many(transport: Transport) -> None:
    found = all_of(transport, [a_request("/1", seconds=0.003), a_request("/2", seconds=0.003)])
    assert {answer.kind for _, answer in found} <= {"timeout", "connect_timeout", "no_time"}


class _Rich:
    """A budget that pays every hedge."""

    def spend_on_hedge(self) -> bool:
        return True

    def charge(self, tokens: int) -> None:
        """Pay."""


HEDGING = Hedging(Silence(), _Rich(), lambda: True)
HEDGING.silence.threshold = 0.001


def a_lost_request() -> Request:
    """Return a GET whose first answer is lost, and which is asked for again soon."""
    request = a_request(f"/{next(NUMBERS)}")
    request.hedging = HEDGING
    return request


def get_hedged(transport: Transport) -> None:
    request = a_lost_request()
    assert transport.exchange(request).body == request.target.encode()  # type: ignore[union-attr]


def get_many_hedged(transport: Transport) -> None:
    [(request, found)] = all_of(transport, [a_lost_request()])
    assert found.body == request.target.encode()


def lose_the_first(peer: Peer) -> None:
    """Answer a target only where it was asked before."""
    while True:
        target = peer.request().target
        if sum(one.target == target for one in peer.server.received[-4:]) == 1:
            peer.wait_until_left()
        peer.send(response(200, target.encode()))


def wait_in_vain(transport: Transport) -> None:
    taken = [take_from(transport.pool, time.monotonic() + 5) for _ in range(2)]
    try:
        found = transport.exchange(a_request("/x", seconds=0.002))
        assert found.kind == "pool_timeout"  # type: ignore[union-attr]
    finally:
        for one in taken:
            give_back(transport.pool, one)


class Scene(NamedTuple):
    """A peer, and what is done with it."""

    script: Script
    operation: Callable[[Transport], None]
    is_tls: bool = False
    is_tunnelled: bool = False


SCENES = {
    "single": Scene(echo, get),
    "handling": Scene(echo, get_while_handling),
    "handling many": Scene(echo, get_many_while_handling),
    "cold": Scene(echo, get_cold),
    "fresh": Scene(echo, get_fresh),
    "large": Scene(echo, put_large),
    "many": Scene(echo, get_many),
    "many cold": Scene(echo, get_many_cold),
    "many left": Scene(echo, leave_many),
    "tls": Scene(echo, get, is_tls=True),
    "tls cold": Scene(echo, get_cold, is_tls=True),
    "tls large": Scene(echo, put_large, is_tls=True),
    "tls many": Scene(echo, get_many, is_tls=True),
    "tunnel": Scene(echo, get_cold, is_tunnelled=True),
    "broken": Scene(answer_once(b"HTTP/1.1 2"), fail),
    "broken many": Scene(answer_once(b"HTTP/1.1 2"), fail_many),
    "silent": Scene(silent, time_out),
    "silent many": Scene(silent, time_out_many),
    "waiting": Scene(echo, wait_in_vain),
    "hedged": Scene(lose_the_first, get_hedged),
    "hedged many": Scene(lose_the_first, get_many_hedged),
}


# The frames of these keep connections: a consumer's iterator has them, or the test itself.
KEPT = {"many left", "waiting"}


@contextmanager
def quick_collector() -> Iterator[None]:
    """Let the collector look only at what is made from now on."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def played(scene: Scene, tmp_path: Path, connections: int = 2) -> Iterator[Transport]:
    with ExitStack() as stack:
        tls = server_context() if scene.is_tls else None
        server = stack.enter_context(scripted(scene.script, tls=tls))
        proxy = None
        if scene.is_tunnelled:
            peer = stack.enter_context(scripted(tunnel(server.port, LOGIN)))
            proxy = f"http://{LOGIN}@127.0.0.1:{peer.port}"
        options: dict[str, Any] = {"proxy": proxy, "ca_bundle": bundle(tmp_path)}
        yield stack.enter_context(
            transport_to(server.endpoint, connections=connections, connect_timeout=5, **options)
        )


def shown(error: BaseException) -> list[str]:
    """Return the places in the package's and others' frames that show the token or the login."""
    return [
        f"{frame.f_code.co_qualname}: {name}"
        for frame in frames_of(error.__traceback__)
        for name, value in frame.f_locals.items()
        if __file__ != frame.f_code.co_filename
        and any(secret in repr(value) for secret in (TOKEN, "hunter2", "aHVudGVy", "dXNlcjp"))
    ]


@pytest.mark.parametrize("name", SCENES)
def test_an_interrupt_at_any_place_comes_out_and_loses_nothing(name: str, tmp_path: Path) -> None:
    """It is what was raised; no slot is lost, even while it is kept; no frame shows a secret."""
    scene = SCENES[name]
    with played(scene, tmp_path) as transport:
        for error in at_every_place(lambda: scene.operation(transport), step=STEP):
            assert not shown(error)
            if name in KEPT:
                del error
            assert lost(transport.pool) == 0
        scene.operation(transport)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, kind)
        for name in ("single", "tls cold", "many cold", "broken")
        for kind in (TimeoutError, ValueError, KeyError, RuntimeError, SystemExit)
        # What ``socket.family`` makes of a ValueError is the standard library's.
        if (name, kind) != ("tls cold", ValueError)
    ],
)
def test_its_class_makes_no_difference(
    name: str, kind: type[BaseException], tmp_path: Path
) -> None:
    """Handlers raise what they like, also what sockets, parsers and resolvers raise."""
    scene = SCENES[name]
    with played(scene, tmp_path) as transport:
        for error in at_every_place(lambda: scene.operation(transport), kind, STEP):
            del error
            assert lost(transport.pool) == 0
        scene.operation(transport)


@pytest.mark.parametrize("name", ["cold", "tls cold"])
def test_no_socket_is_left_to_its_finalizer(name: str, tmp_path: Path) -> None:
    """Wherever the library's own making of a socket is interrupted, what there is of it is closed.

    A finalizer would say so in a warning; what a signal handler raises meanwhile is lost.
    """
    scene = SCENES[name]
    with played(scene, tmp_path) as transport, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = 0
        with quick_collector():
            for error in at_every_line(lambda: scene.operation(transport), "socket", "ssl"):
                del error
                gc.collect()
                count += 1
                assert [str(each.message) for each in caught] == []
                assert lost(transport.pool) == 0
        assert count > 5
        scene.operation(transport)


@pytest.mark.parametrize("name", ["single", "many", "large", "many left", "tls cold", "hedged"])
def test_thousands_of_interrupts_lose_nothing_and_mix_nothing(name: str, tmp_path: Path) -> None:
    """At random moments: each comes out, and every answer is its own request's."""
    scene = SCENES[name]
    with played(scene, tmp_path) as transport:
        for error in at_random(lambda: scene.operation(transport), INTERRUPTS):
            del error
            assert lost(transport.pool) == 0
        scene.operation(transport)


def test_interrupts_of_one_thread_harm_no_other(tmp_path: Path) -> None:
    """Threads that share two connections with an interrupted one are all served, each its own."""
    over = threading.Event()

    def work(number: int) -> int:
        count = 0
        while not over.is_set():
            target = f"/{number}/{count}"
            if count % 3:
                answers = [transport.exchange(a_request(target))]
            else:
                answers = [answer for _, answer in all_of(transport, [a_request(target)] * 2)]
            assert {answer.body.decode() for answer in answers} == {target}  # type: ignore[union-attr]
            count += 1
        return count

    with played(SCENES["single"], tmp_path) as transport, ThreadPoolExecutor(3) as threads:
        working = [threads.submit(work, number) for number in range(3)]
        try:
            for operation in (get, get_many):
                for error in at_random(partial(operation, transport), INTERRUPTS // 2):
                    del error
        finally:
            over.set()
        assert all(one.result(10) > 10 for one in working)
        assert lost(transport.pool) == 0
        assert not transport.pool._waiting
        get(transport)


def test_an_interrupt_while_another_hands_over_a_connection_loses_nothing(tmp_path: Path) -> None:
    """Neither a place in line nor a connection that was given meanwhile stays behind."""
    over, lent = threading.Event(), deque[Connection]()

    def give_when_wanted(pool: Pool) -> None:
        while not over.wait(0.0002):
            if pool.has_waiters and lent:
                give_back(pool, lent.pop())

    with played(SCENES["single"], tmp_path) as transport, ThreadPoolExecutor(1) as threads:
        pool = transport.pool
        giving = threads.submit(give_when_wanted, pool)

        def wait_and_get() -> None:
            while len(lent) < 2:
                lent.append(take_from(pool, time.monotonic() + 5))
            get(transport)

        try:
            for error in at_every_place(wait_and_get, step=STEP):
                del error
                assert lost(pool) - len(lent) <= 0
        finally:
            over.set()
            giving.result(10)
        while lent:
            give_back(pool, lent.pop())
        assert lost(pool) == 0
        assert not pool._waiting
        get(transport)


@pytest.mark.parametrize("name", ["single", "cold", "large", "many", "many cold", "tls cold"])
def test_a_handler_that_uses_the_cache_is_served_wherever_it_strikes(
    name: str, tmp_path: Path
) -> None:
    """There is no lock that a thread could wait for in vain because it has it itself."""
    scene = SCENES[name]
    with played(scene, tmp_path, connections=5) as transport:

        def inner() -> None:
            get(transport)
            get_many(transport)

        assert inside_every_place(lambda: scene.operation(transport), inner, STEP) > 40
        assert lost(transport.pool) == 0


@pytest.mark.parametrize("operation", [get, get_cold, get_many, put_large])
def test_a_handler_is_told_when_what_it_interrupts_has_the_only_connection(
    operation: Callable[[Transport], None], tmp_path: Path
) -> None:
    """It waits for its deadline, no longer, and what it interrupted goes on."""
    with played(SCENES["single"], tmp_path, connections=1) as transport:

        def inner() -> None:
            found = transport.exchange(a_request("/y", seconds=0.002))
            if isinstance(found, MomentoError):
                kinds.add(found.kind)
            else:
                assert found.body == b"/y"

        kinds: set[str] = set()
        inside_every_place(lambda: operation(transport), inner, STEP)
        assert kinds <= {"pool_timeout", "timeout", "connect_timeout"}
        assert "pool_timeout" in kinds
        assert lost(transport.pool) == 0


def single(transport: Transport, request: Request) -> None:
    transport.exchange(request)


def many(transport: Transport, request: Request) -> None:
    all_of(transport, [request])


@pytest.mark.parametrize("send", [single, many])
@pytest.mark.parametrize(
    ("script", "options"),
    [
        (after_request(Peer.stall), {}),
        (after_request(Peer.stall), {"is_tls": True}),
        (after_request(Peer.stall), {"is_tunnelled": True}),
        (after_request(Peer.stall), {"is_tunnelled": True, "is_tls": True}),
        (silent, {"is_tls": True}),
        (silent, {"size": 6_000_000}),
        (silent, {"size": 6_000_000, "is_tls": True}),
        (after_request(lambda p: p.send(response(200, b"", length=9)), Peer.stall), {}),
        (after_request(lambda p: p.send(response(401, b"", length=9)), Peer.stall), {}),
    ],
    ids=range(9),
)
def test_who_looks_at_an_interrupted_wait_sees_no_secret(
    script: Script, options: dict[str, Any], send: Any, tmp_path: Path
) -> None:
    """Neither variables nor Django's error page show the token or a proxy's login."""
    options = dict(options)
    size = options.pop("size", 0)
    with (
        played(Scene(script, get, **options), tmp_path) as transport,
        interrupts(KeyboardInterrupt),
    ):
        request = a_request("/x", b"x" * size or None, seconds=20)
        request.authorization = canary.TOKEN
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt) as caught:
            send(transport, request)
        reporter = ExceptionReporter(None, *caught._excinfo)  # type: ignore[misc]
        pages = [reporter.get_traceback_text(), reporter.get_traceback_html()]
        pages += [
            repr(value)
            for frame in frames_of(caught.tb)
            for value in [*frame.f_locals.values(), *frame.f_locals.items()]
        ]
        hidden = [canary.TOKEN, LOGIN, b2a_base64(LOGIN.encode()).decode()]
        assert not [page for page in pages if canary.seen_in(page, *hidden)]
