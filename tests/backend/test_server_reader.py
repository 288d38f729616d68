"""Where requests begin and end, however the network cuts them."""

import random
from collections.abc import Iterator

import pytest

from django_momento_http.server.reader import Head, Malformed, Reader

# What a body may hold to look like something else.
TRAPS = [b"\r\n\r\n", b"\n", b"\r", b"0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"5\r\n"]


class Notes:
    """What a reader says, in its order; a body's pieces are put together."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, bytes, bytes]] = []
        self._head = Head()
        self._body = b""

    def begin(self, head: Head) -> None:
        """Take note of a request."""
        self._head, self._body = head, b""

    def take(self, data: bytes) -> None:
        """Take a piece of its body."""
        self._body += data

    def finish(self, *, keep_alive: bool) -> None:
        """Take note of its end."""
        assert keep_alive
        self.requests.append((self._head.method, self._head.target, self._body))


def a_body(chance: random.Random) -> bytes:
    """Make up a body, with traps or empty."""
    pieces = [chance.choice([*TRAPS, chance.randbytes(chance.randrange(40))]) for _ in range(9)]
    return b"".join(pieces[: chance.randrange(9)])


def in_chunks(body: bytes, chance: random.Random) -> Iterator[bytes]:
    """Spell a body in chunks of any size, some with extensions, and with trailers."""
    while body:
        size = chance.randrange(1, len(body) + 1)
        piece, body = body[:size], body[size:]
        yield b"%x%s\r\n%s\r\n" % (size, chance.choice([b"", b";a=b"]), piece)
    yield b"0\r\n" + chance.choice([b"", b"X-Trailer: 1\r\n", b"Origin: x\r\n"]) + b"\r\n"


def a_request(chance: random.Random) -> tuple[bytes, tuple[str, bytes, bytes]]:
    """Make up a request: its bytes, and what a reader should say of it."""
    method, target = chance.choice(["GET", "PUT", "DELETE"]), b"/%d" % chance.randrange(1000)
    head = b"%s %s HTTP/1.1\r\nHost: localhost\r\n" % (method.encode(), target)
    blank = chance.choice([b"", b"", b"\r\n"])
    body = a_body(chance)
    if method == "GET":
        return blank + head + b"\r\n", (method, target, b"")
    if chance.random() < 0.5:
        length = b"Content-Length: %d\r\n\r\n" % len(body)
        return blank + head + length + body, (method, target, body)
    chunks = b"".join(in_chunks(body, chance))
    return blank + head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks, (method, target, body)


def read(reader: Reader, notes: Notes, data: bytes) -> None:
    """Feed data to its end; no step may go beyond the end of a request."""
    position = 0
    while position < len(data):
        before = len(notes.requests)
        position = reader.step(data, position, len(data))
        assert len(notes.requests) - before <= 1
        if len(notes.requests) > before:
            assert reader.is_between


@pytest.mark.parametrize("longest", [1, 7, 100, 10_000])
def test_cuts_make_no_difference(longest: int) -> None:
    """The same requests are read from the same bytes, in pieces of any size."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(40):
        requests = [a_request(chance) for _ in range(6)]
        data = b"".join(bytes_of for bytes_of, _ in requests)
        notes = Notes()
        reader = Reader(notes)
        while data:
            size = chance.randrange(1, longest + 1)
            read(reader, notes, data[:size])
            data = data[size:]
        assert notes.requests == [said for _, said in requests]


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\nHost: localhost\n\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 20_000,
        b"GET /" + b"x" * 70_000,
        b"\r\n" * 5_000,
        b"PUT / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 9_000,
    ],
    ids=["bare ends of lines", "one bare end", "headers", "target", "blank lines", "chunk"],
)
def test_refuses_what_has_no_end_of_its_own(data: bytes) -> None:
    """Ends that two servers could see in two places, and what never ends, are refused."""
    notes = Notes()
    with pytest.raises(Malformed):
        read(Reader(notes), notes, data)
    assert notes.requests == []
