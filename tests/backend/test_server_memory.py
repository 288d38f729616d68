"""How much memory the local server takes, whatever its clients do: measured from outside."""

import re
import select
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.support.raw_requests import A_KEY, CACHE, LONGEST_WAIT, PUT_A, raw

MB = 1024 * 1024
STORED = 64  # MB of items that the server may keep
BESIDE = 64  # MB that it may take beside them
BIG = bytes(4_900_000)
BIG_PUT = raw("PUT", PUT_A, f"Content-Length: {len(BIG)}")
BIG_CHUNK = b"%x\r\n" % len(BIG) + BIG
GET = raw("GET", A_KEY)
PIECE = 1 << 18
BLOCKED = 0.1  # seconds after which a socket that takes nothing is taken to be full

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the peak of another process is Linux's to tell"
)


class Victim:
    """The command in a process of its own, and its memory."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        found = re.search(r":(\d+) ", process.stdout.readline())
        assert found
        self._port = int(found[1])
        self._status = Path("/proc", str(process.pid), "status")
        self._before = self._megabytes("VmRSS")
        self.connections = ExitStack()

    def connect(self, count: int) -> list[socket.socket]:
        """Open connections that stay until the attack is over."""
        connections = []
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", self._port), timeout=LONGEST_WAIT)
            connections.append(self.connections.enter_context(connection))
        return connections

    def ask(self, method: str, target: str, body: bytes | None = None) -> int:
        """Send a request on a connection of its own."""
        with closing(HTTPConnection("127.0.0.1", self._port, timeout=LONGEST_WAIT)) as connection:
            connection.request(method, target, body, {"Authorization": "t"})
            return connection.getresponse().status

    def peak(self) -> float:
        """Return the MB that the process has taken at most, beyond those at its beginning."""
        return self._megabytes("VmHWM") - self._before

    def _megabytes(self, name: str) -> float:
        found = re.search(rf"{name}:\s+(\d+) kB", self._status.read_text())
        assert found
        return int(found[1]) / 1024


@contextmanager
def running_victim(*arguments: str) -> Iterator[Victim]:
    """Start the command with little room for items."""
    command = [sys.executable, "-m", "django_momento_http.server", "--port", "0"]
    command += ["--max-memory", str(STORED), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        victim = Victim(process)
        try:
            with victim.connections:
                yield victim
        finally:
            process.kill()


def pour(connections: list[socket.socket], data: bytes) -> None:
    """Send this on each connection, until all is sent or the server takes no more."""
    rest = {connection: memoryview(data) for connection in connections}
    while rest and (ready := select.select([], list(rest), [], BLOCKED)[1]):
        for connection in ready:
            rest[connection] = rest[connection][connection.send(rest[connection][:PIECE]) :]
            if not rest[connection]:
                del rest[connection]


def pipelined_gets(victim: Victim) -> None:
    """Ask 120 times for a big value and read nothing."""
    assert victim.ask("PUT", PUT_A, BIG) == 204
    pour(victim.connect(1), GET * 120)


def a_slow_reader(victim: Victim) -> None:
    """Ask again and again for a big value and read a little."""
    assert victim.ask("PUT", PUT_A, BIG) == 204
    connections = victim.connect(1)
    for _ in range(10):
        pour(connections, GET * 100)
        connections[0].recv(1000)


def many_unread_answers(victim: Victim) -> None:
    """Ask on 100 connections for a big value and for more; read nothing."""
    assert victim.ask("PUT", PUT_A, BIG) == 204
    pour(victim.connect(100), GET * 50)


def replaced_values(victim: Victim) -> None:
    """Let every version of a value have a reader that does not read."""
    statuses = set()
    for _ in range(30):
        statuses.add(victim.ask("PUT", PUT_A, BIG))
        pour(victim.connect(1), GET)
    assert statuses == {204, 500}


def unfinished_bodies(victim: Victim) -> None:
    """Send 40 big values but for their last bytes."""
    pour(victim.connect(40), BIG_PUT + BIG[:-10])


def unfinished_chunks(victim: Victim) -> None:
    """Send 40 big values in chunks, and never the last."""
    pour(victim.connect(40), raw("PUT", PUT_A, "Transfer-Encoding: chunked") + BIG_CHUNK)


def endless_bodies(victim: Victim) -> None:
    """Send far more than fits into an item, announced and not."""
    refused = raw("PUT", PUT_A, "Content-Length: 9999999999")
    chunked = raw("PUT", PUT_A, "Transfer-Encoding: chunked")
    for data in (refused + BIG * 20, chunked + (BIG_CHUNK + b"\r\n") * 20):
        pour(victim.connect(1), data)


def endless_heads(victim: Victim) -> None:
    """Send long heads on 800 connections, and never their end."""
    pour(victim.connect(800), b"GET /" + b"x" * 65_000)


def endless_trailers(victim: Victim) -> None:
    """Send chunks on 800 connections, and trailers without an end."""
    chunked = raw("GET", A_KEY, "Transfer-Encoding: chunked")
    pour(victim.connect(800), chunked + b"1\r\nv\r\n0\r\nX: " + b"x" * 65_000)


def long_keys(victim: Victim) -> None:
    """Send long keys on 800 connections, and values that never end."""
    target = f"{CACHE}?key={'k' * 64_000}&ttl_seconds=60"
    pour(victim.connect(800), raw("PUT", target, "Content-Length: 8000") + bytes(7999))


def a_flood_of_heads(victim: Victim) -> None:
    """Send 100,000 HEADs and read nothing."""
    pour(victim.connect(1), raw("HEAD", A_KEY) * 100_000)


def many_values(victim: Victim) -> None:
    """Store far more than there is room for."""
    for number in range(40):
        assert victim.ask("PUT", f"{CACHE}?key={number}&ttl_seconds=60", BIG) == 204


@pytest.mark.parametrize(
    ("attack", "stored"),
    [
        (pipelined_gets, 5),
        (a_slow_reader, 5),
        (many_unread_answers, 5),
        (replaced_values, STORED),
        (unfinished_bodies, 0),
        (unfinished_chunks, 0),
        (endless_bodies, 0),
        (endless_heads, 0),
        (endless_trailers, 0),
        (long_keys, 0),
        (a_flood_of_heads, 0),
        (many_values, STORED),
    ],
)
def test_memory_is_bounded(attack: Callable[[Victim], None], stored: int) -> None:
    """Beside the items that it keeps, the server takes less than 64 MB, whatever is done to it."""
    with running_victim() as victim:
        attack(victim)
        assert victim.ask("GET", "/elsewhere") == 404  # it has seen what was sent before
        assert victim.peak() < stored + BESIDE


def test_answers_that_are_held_back_do_not_pile_up() -> None:
    """Requests behind an answer that is held back are not read."""
    with running_victim("--latency-ms", "3600000") as victim:
        pour(victim.connect(1), GET * 300_000)
        assert victim.peak() < BESIDE


def test_small_items_cost_what_they_are_counted_with() -> None:
    """What Python needs for an item beside its bytes is in the bound, too."""
    code = f"""
        import pathlib, re
        from django_momento_http.server import ItemStore

        def megabytes():
            status = pathlib.Path("/proc/self/status").read_text()
            return int(re.search(r"VmRSS:\\s+(\\d+)", status)[1]) / 1024

        before, store = megabytes(), ItemStore(["c"], lambda: 0.0, {STORED * MB})
        for number in range(200_000):
            store.put("c", b"a key of the usual length %06d" % number, bytes(20), 60)
        print(megabytes() - before, len(store.items()))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=True,
        timeout=LONGEST_WAIT * 3,
    )
    megabytes, count = map(float, done.stdout.split())
    assert 100_000 < count < 200_000
    assert 0.5 * STORED < megabytes < STORED
