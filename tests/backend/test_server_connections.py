"""Whom the local server talks to, for how long, and with how many at once."""

import asyncio
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPConnection

import pytest

from django_momento_http.server import MAX_ITEM, Config, Fault, Server, Service
from django_momento_http.server.hosts import names_of
from django_momento_http.testing import RunningServer, running_server
from tests.support.clocks import Clock
from tests.support.raw_requests import (
    A_KEY,
    LONGEST_WAIT,
    PUT_A,
    ask,
    dial,
    raw,
    read_to_end,
    running_command,
    stop,
    talk,
)

IDLE = 60.0  # seconds, by a clock that a test holds
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LARGE = MAX_ITEM - 1


# By which name it is called, and by whom


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 404),
        ("LocalHost:8400", 404),
        ("127.0.0.1", 404),
        ("127.0.0.1:1", 404),
        ("127.0.0.1:", 404),
        ("[::1]", 404),
        ("[::1]:8400", 404),
        ("rebound.example", 421),
        ("rebound.example:8400", 421),
        ("localhost.rebound.example", 421),
        ("127.0.0.1.rebound.example", 421),
        ("rebound.example:80:127.0.0.1", 421),
        ("localhost@rebound.example", 421),
        ("rebound.example/localhost", 421),
        ("192.168.0.1", 421),
        ("::1", 421),
        ("127.0.0.1:x", 421),
        ("é".encode().decode("latin-1"), 421),
        ("", 400),
    ],
)
def test_answers_to_its_own_names(server: RunningServer, host: str, status: int) -> None:
    """A name that somebody else lets point to this machine is refused before anything is done."""
    assert ask(server, "GET", A_KEY, Host=host).status == status
    assert len(server.requests) == (status == 404)


def test_a_refused_name_changes_nothing(server: RunningServer) -> None:
    """A PUT under a foreign name is told so, is not stored, and its connection ends."""
    request = raw("PUT", PUT_A, body=b"v").replace(b"Host: localhost", b"Host: rebound.example")
    answer = talk(server, request)
    assert answer.startswith(b"HTTP/1.1 421 Misdirected Request\r\n")
    assert b"\r\nConnection: close\r\n" in answer
    assert b"The Host header must name this server" in answer
    assert not server.items


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("Origin", "https://elsewhere.example", 403),
        ("Origin", "null", 403),
        ("Sec-Fetch-Site", "cross-site", 403),
        ("Sec-Fetch-Site", "same-site", 403),
        ("Sec-Fetch-Site", "none", 404),
    ],
)
def test_pages_may_not_ask(server: RunningServer, header: str, value: str, status: int) -> None:
    """What a page in a browser asks for is refused; an address that was typed in is not."""
    assert ask(server, "GET", A_KEY, **{header: value}).status == status
    assert len(server.requests) == (status == 404)


@pytest.mark.parametrize(
    ("host", "addresses", "names"),
    [
        ("127.0.0.1", ["127.0.0.1"], {"localhost", "127.0.0.1", "[::1]"}),
        ("::1", ["::1"], {"localhost", "127.0.0.1", "[::1]"}),
        ("localhost", ["127.0.0.1", "::1"], {"localhost", "127.0.0.1", "[::1]"}),
        ("127.0.0.2", ["127.0.0.2"], {"localhost", "127.0.0.1", "[::1]", "127.0.0.2"}),
        ("Momento.Test", ["127.0.0.1"], {"localhost", "127.0.0.1", "[::1]", "momento.test"}),
        ("0.0.0.0", ["0.0.0.0"], None),
        ("::", ["::"], None),
        ("192.168.0.1", ["192.168.0.1"], None),
        ("a-name", ["127.0.0.1", "192.168.0.1"], None),
    ],
)
def test_names(host: str, addresses: list[str], names: set[str] | None) -> None:
    """On a loopback address the names are known; where other machines reach it, any will do."""
    assert names_of(host, addresses) == names


def status_at(line: str, host: str) -> int:
    """Send one GET under this Host to the command that printed this line."""
    port = int(line.partition(" (")[0].rpartition(":")[2])
    with closing(HTTPConnection("127.0.0.1", port, timeout=LONGEST_WAIT)) as connection:
        connection.request("GET", A_KEY, headers={"Authorization": "t", "Host": host})
        return connection.getresponse().status


@pytest.mark.parametrize(
    ("arguments", "is_warned"),
    [
        (["--host", "0.0.0.0"], True),
        (["--host", "0.0.0.0", "--read-only-token", "r"], True),
        (["--host", "0.0.0.0", "--token", "t"], False),
        (["--host", "localhost"], False),
        ([], False),
    ],
)
def test_an_open_door_is_warned_of(arguments: list[str], is_warned: bool) -> None:
    """Where other machines may come in, any name is answered, and any token is warned of."""
    with running_command(*arguments) as (process, line):
        assert status_at(line, "momento") == (404 if "0.0.0.0" in arguments else 421)
        process.terminate()
        _, errors = process.communicate(timeout=LONGEST_WAIT)
    assert errors.startswith("Warning: ") is is_warned
    assert len(errors.splitlines()) == is_warned
    assert ("--token" in errors) is is_warned


# For how long


class Peers:
    """A server by a clock of the test's, in the test's own event loop, and its peers."""

    def __init__(self, **options: object) -> None:
        self.clock = Clock(0.0)
        config = Config(idle_timeout=IDLE, **options)  # type: ignore[arg-type]
        self.service = Service(config)
        self.server = Server(self.service, clock=self.clock)
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> "Peers":
        await self.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.stop()
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*(w.wait_closed() for w in self._writers), return_exceptions=True)

    async def connect(self, data: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection and send this."""
        port = int(self.server.endpoint.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        self._writers.append(writer)
        writer.write(data)
        await writer.drain()
        return reader, writer

    async def settle(self) -> None:
        """Wait until the server has seen what was sent before this."""
        reader, writer = await self.connect(raw("GET", "/elsewhere", end=True))
        assert await reader.read()
        writer.close()

    async def wait(self, seconds: float) -> None:
        """Let time pass for the server."""
        await self.settle()
        self.clock.now += seconds
        self.server.end_idle_connections()
        await self.settle()


def play(scene: Callable[[Peers], Awaitable[None]], **options: object) -> None:
    """Run a scene with a server of its own."""

    async def run() -> None:
        async with asyncio.timeout(LONGEST_WAIT), Peers(**options) as peers:
            await scene(peers)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"", b""),
        (b"\r\n", b""),
        (b"GET /cache/default-cache?key=a HT", b"HTTP/1.1 408 "),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", b"HTTP/1.1 408 "),
        (raw("PUT", PUT_A, "Content-Length: 9") + b"v", b"HTTP/1.1 408 "),
        (raw("PUT", PUT_A, f"Content-Length: {LARGE}") + b"v", b"HTTP/1.1 408 "),
        (raw("PUT", PUT_A, "Transfer-Encoding: chunked") + b"1\r\n", b"HTTP/1.1 408 "),
        (raw("PUT", "/other", "Content-Length: 9999999999") + b"v", b"HTTP/1.1 408 "),
    ],
)
def test_a_peer_that_says_nothing_more_is_not_waited_for(sent: bytes, told: bytes) -> None:
    """A connection without a request, or with half of one, ends when its time is over."""

    async def scene(peers: Peers) -> None:
        reader, _ = await peers.connect(sent)
        await peers.wait(IDLE - 1)
        assert not reader.at_eof()
        await peers.wait(1)
        answer = await reader.read()
        assert answer.startswith(told)
        assert bool(answer) is bool(told)

    play(scene)


def test_a_request_that_drips_is_not_waited_for() -> None:
    """The time is that of the whole request: a byte now and then does not make it longer."""

    async def scene(peers: Peers) -> None:
        reader, writer = await peers.connect(raw("PUT", PUT_A, "Content-Length: 999"))
        for _ in range(3):
            await peers.wait(IDLE / 4)
            writer.write(b"v")
        assert not reader.at_eof()
        await peers.wait(IDLE / 4)
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")

    play(scene)


def test_each_request_has_its_own_time() -> None:
    """A connection that is used stays, however old it is, and ends when it no longer is."""

    async def scene(peers: Peers) -> None:
        reader, writer = await peers.connect()
        for _ in range(5):
            await peers.wait(IDLE - 1)
            writer.write(raw("GET", A_KEY))
            assert await reader.readuntil(b"Key Not Found")
        await peers.wait(IDLE)
        assert await reader.read() == b""

    play(scene)


def test_an_answer_that_nobody_takes_is_not_kept() -> None:
    """A peer that does not read loses its connection, and what it was sent counts no more."""

    async def scene(peers: Peers) -> None:
        peers.service.store.put("default-cache", b"a", bytes(LARGE), 1e9)
        reader, writer = await peers.connect(raw("GET", A_KEY) * 9)
        writer.transport.pause_reading()
        item = peers.service.store.get("default-cache", b"a")
        assert item is not None
        await peers.wait(IDLE - 1)
        assert item.readers == 1
        await peers.wait(1)
        assert item.readers == 0
        writer.transport.resume_reading()
        with suppress(ConnectionResetError):
            assert len(await reader.read()) < 9 * LARGE

    play(scene)


def test_an_answer_that_is_held_back_is_waited_for_by_the_peer() -> None:
    """While it is the server that waits, the peer's time does not run."""

    async def scene(peers: Peers) -> None:
        peers.service.faults.add(Fault(delay=3600))
        reader, _ = await peers.connect(raw("GET", A_KEY))
        await peers.wait(10 * IDLE)
        assert not reader.at_eof()

    play(scene)


def test_a_peer_that_has_left_is_not_kept() -> None:
    """Who closes its side while an answer is held back is there for so long, and then gone."""

    async def scene(peers: Peers) -> None:
        peers.service.faults.add(Fault(delay=3600))
        reader, writer = await peers.connect(raw("GET", A_KEY))
        await peers.settle()
        writer.write_eof()
        await peers.wait(IDLE - 1)
        assert not reader.at_eof()
        await peers.wait(1)
        assert await reader.read() == b""

    play(scene)


def test_the_server_looks_at_the_clock_itself() -> None:
    """Without anybody's help an idle connection ends in about its time."""
    with running_server(idle_timeout=0.2) as server, dial(server) as connection:
        assert connection.recv(1) == b""


# How many at once


@contextmanager
def filled(server: RunningServer, count: int) -> Iterator[list[socket.socket]]:
    """Have so many connections that were answered once."""
    with ExitStack() as stack:
        connections = [stack.enter_context(dial(server)) for _ in range(count)]
        for connection in connections:
            connection.sendall(raw("GET", A_KEY))
            assert connection.recv(1 << 16).endswith(b"Key Not Found")
        yield connections


def test_connections_are_bounded() -> None:
    """One too many is told so and closed; the others stay, and room that was left is used."""
    with running_server(max_connections=3) as server, filled(server, 3) as connections:
        with dial(server) as one_too_many:
            answer = read_to_end(one_too_many)
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"--max-connections" in answer
        connections[0].sendall(raw("GET", A_KEY, end=True))
        assert read_to_end(connections[0]).endswith(b"Key Not Found")
        assert ask(server, "GET", A_KEY).status == 404


def test_refuses_connections_before_files_run_out() -> None:
    """Where the system allows few open files, the command takes fewer connections by itself."""
    program = "ulimit -n 128 && exec $0 -m django_momento_http.server --port 0"
    with (
        subprocess.Popen(
            ["sh", "-c", program, sys.executable], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process,
        ExitStack() as stack,
    ):
        assert process.stdout is not None
        found = re.search(rb":(\d+) ", process.stdout.readline())
        assert found
        place = ("127.0.0.1", int(found[1]))
        connections = [
            stack.enter_context(socket.create_connection(place, timeout=LONGEST_WAIT))
            for _ in range(400)
        ]
        for connection in connections:
            with suppress(OSError):  # refused, and closed since
                connection.sendall(raw("GET", A_KEY))
        statuses = Counter(status_of(connection) for connection in connections)
        process.terminate()
        _, errors = process.communicate(timeout=LONGEST_WAIT)
    assert statuses == {b"404": 64, b"503": 336}
    assert errors == b""


def status_of(connection: socket.socket) -> bytes:
    """Read the status of the one answer."""
    return connection.recv(1 << 16)[9:12]


def test_a_peer_that_has_left_makes_room() -> None:
    """Answers that are held back for peers that are gone keep nobody out."""
    with running_server(max_connections=2) as server:
        server.inject(Fault(delay=3600, key=b"slow", times=None))
        for _ in range(5):
            with dial(server) as leaving:
                leaving.sendall(raw("GET", "/cache/default-cache?key=slow"))
                while not server.requests:
                    assert ask(server, "GET", "/elsewhere").status == 404
            server.forget_requests()
        assert ask(server, "GET", A_KEY).status == 404


def expecting(length: int) -> bytes:
    """Spell the head of a PUT that waits to be asked for its body."""
    return raw("PUT", PUT_A, "Expect: 100-continue", f"Content-Length: {length}")


def test_large_bodies_wait_for_one_another() -> None:
    """Three of the largest bodies arrive at a time, the next as soon as one is over."""

    async def scene(peers: Peers) -> None:
        three = [await peers.connect(expecting(LARGE)) for _ in range(3)]
        for reader, _ in three:
            assert await reader.readuntil(b"\r\n\r\n") == CONTINUE
        waiting = [await peers.connect(expecting(LARGE)) for _ in range(3)]
        await peers.wait(10 * IDLE - 1)  # which is not their fault
        assert [reader.at_eof() for reader, _ in waiting] == [False] * 3
        for (reader, _), (ended, _) in zip(waiting, three, strict=True):
            assert await reader.readuntil(b"\r\n\r\n") == CONTINUE
            assert (await ended.read()).startswith(b"HTTP/1.1 408 ")

    play(scene)


def test_whoever_gives_up_makes_room() -> None:
    """A peer that leaves, before its turn or in it, keeps no other out."""

    async def scene(peers: Peers) -> None:
        three = [await peers.connect(expecting(LARGE)) for _ in range(3)]
        for reader, _ in three:
            assert await reader.readuntil(b"\r\n\r\n") == CONTINUE
        _, impatient = await peers.connect(expecting(LARGE))
        last, writer = await peers.connect(expecting(LARGE))
        await peers.settle()
        impatient.transport.abort()
        three[0][1].transport.abort()
        assert await last.readuntil(b"\r\n\r\n") == CONTINUE
        writer.write(bytes(LARGE))
        assert await last.readuntil(b"\r\n\r\n") == b"HTTP/1.1 204 No Content\r\n\r\n"

    play(scene)


def test_small_bodies_wait_for_nobody() -> None:
    """What most caches hold is stored beside the largest bodies that are still arriving."""

    async def scene(peers: Peers) -> None:
        for _ in range(9):
            await peers.connect(raw("PUT", PUT_A, f"Content-Length: {LARGE}"))
        await peers.settle()
        reader, _ = await peers.connect(raw("PUT", PUT_A, body=bytes(8000)))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 204 No Content\r\n\r\n"

    play(scene)


def test_all_bodies_arrive(server: RunningServer) -> None:
    """Forty large values at the same time take turns, and each is stored whole."""
    values = {str(number): bytes([number]) * (1_000_000 + number) for number in range(40)}
    target = "/cache/default-cache?key={}&ttl_seconds=60"
    with ThreadPoolExecutor(40) as threads:
        responses = threads.map(
            lambda item: ask(server, "PUT", target.format(item[0]), item[1]), values.items()
        )
    assert {response.status for response in responses} == {204}
    assert server.items == {("default-cache", key.encode()): value for key, value in values.items()}


# Starting and stopping


def test_starts_again_on_the_same_port() -> None:
    """A server that was stopped with connections open can be started where it was."""

    async def scene(peers: Peers) -> None:
        port = int(peers.server.endpoint.rpartition(":")[2])
        for _ in range(3):
            reader, _ = await peers.connect(raw("GET", A_KEY))
            assert await reader.readuntil(b"Key Not Found")
            await peers.server.stop()
            await peers.server.start(port=port)

    play(scene)


def test_the_command_starts_again_on_the_same_port() -> None:
    """So can the command, at once after its end."""
    with running_command() as (first, line):
        port = int(line.partition(" (")[0].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=LONGEST_WAIT) as connection:
            connection.sendall(raw("GET", A_KEY))
            assert connection.recv(1 << 16)
            stop(first)
            with running_command("--port", str(port)) as (second, line):
                assert f"127.0.0.1:{port} " in line
                stop(second)


def test_stopping_leaves_nothing() -> None:
    """Whatever connections are doing, after the stop there is no task, no timer, nothing held."""

    async def scene(peers: Peers) -> None:
        store = peers.service.store
        store.put("default-cache", b"a", bytes(LARGE), 1e9)
        peers.service.faults.add(Fault(delay=3600, key=b"slow"))
        head = raw("PUT", PUT_A, f"Content-Length: {LARGE}")
        await peers.connect(raw("GET", "/cache/default-cache?key=slow"))
        for data in (b"", b"GET", raw("GET", A_KEY) * 9, *[head + b"v"] * 5):
            _, writer = await peers.connect(data)
            writer.transport.pause_reading()
        await peers.settle()
        item = store.get("default-cache", b"a")
        assert item is not None
        assert item.readers == 1

        await peers.server.stop()

        assert item.readers == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}
        timers = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
        assert [
            timer for timer in timers if not timer.cancelled() and is_of_the_server(timer)
        ] == []
        await peers.server.start()
        for _ in range(3):
            reader, _ = await peers.connect(raw("PUT", PUT_A, "Expect: 100-continue", body=b"v"))
            assert await reader.readuntil(b"\r\n\r\n") == CONTINUE

    play(scene)


def is_of_the_server(timer: asyncio.TimerHandle) -> bool:
    """Say whether a method of the server's is what the timer would call."""
    return "django_momento_http.server" in repr(timer)
