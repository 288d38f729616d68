"""What the local server promises, held against the service's specification."""

import asyncio
import gc
import itertools
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection

import pytest

from django_momento_http.server import (
    MAX_ITEM,
    Config,
    Fault,
    ItemStore,
    Server,
    Service,
    TokenBucket,
)
from django_momento_http.testing import RunningServer, running_server
from tests.support.clocks import Clock
from tests.support.raw_requests import (
    A_KEY,
    CACHE,
    LONGEST_WAIT,
    PUT_A,
    address,
    ask,
    dial,
    raw,
    read_to_end,
    running_command,
    stop,
    talk,
)

# The examples of the service's documentation, word for word.
CURL_EXAMPLES = """
curl -X PUT -d 'example value' "https://api.cache.<endpoint>/cache/default-cache?key=example_key&ttl_seconds=300&token=<token>"
curl -X PUT -H "Authorization: <token>" -d 'example value' "https://api.cache.<endpoint>/cache/default-cache?key_base64=ZXhhbXBsZV9rZXk&ttl_seconds=300"
curl "https://api.cache.<endpoint>/cache/default-cache?key=example_key&token=<token>"
curl -H "Authorization: <token>" "https://api.cache.<endpoint>/cache/default-cache?key_base64=ZXhhbXBsZV9rZXk"
curl -X DELETE "https://api.cache.<endpoint>/cache/default-cache?key=example_key&token=<token>"
curl -X DELETE -H "Authorization: <token>" "https://api.cache.<endpoint>/cache/default-cache?key_base64=ZXhhbXBsZV9rZXk"
""".strip().splitlines()


# The three operations


def test_stores_reads_and_deletes_bytes(server: RunningServer) -> None:
    """What is put is read back byte for byte, until it is deleted."""
    value = bytes(range(256))
    stored = ask(server, "PUT", PUT_A, value)
    assert (stored.status, stored.body) == (204, b"")
    hit = ask(server, "GET", A_KEY)
    assert (hit.status, hit.body) == (200, value)
    assert hit.headers["content-type"] == "application/octet-stream"
    deleted = ask(server, "DELETE", A_KEY)
    assert (deleted.status, deleted.body) == (204, b"")
    miss = ask(server, "GET", A_KEY)
    assert (miss.status, miss.body) == (404, b"Key Not Found")


def test_no_content_has_no_length(server: RunningServer) -> None:
    """A 204 carries neither a body nor a Content-Length, as HTTP asks."""
    assert "content-length" not in ask(server, "PUT", PUT_A, b"x").headers


def test_deletes_what_is_absent(server: RunningServer) -> None:
    """DELETE answers 204 whether or not there was a value."""
    assert ask(server, "DELETE", A_KEY).status == 204


def test_stores_an_empty_value(server: RunningServer) -> None:
    """An empty value is a hit, not a miss."""
    ask(server, "PUT", PUT_A, b"")
    assert ask(server, "GET", A_KEY)[:2] == (200, b"")


def test_keeps_caches_apart() -> None:
    """The same key in two caches is two items."""
    with running_server(caches=("one", "two")) as server:
        ask(server, "PUT", "/cache/one?key=a&ttl_seconds=9", b"1")
        assert ask(server, "GET", "/cache/two?key=a").status == 404
        assert ask(server, "GET", "/cache/one?key=a").body == b"1"


@pytest.mark.parametrize(
    ("query", "key"),
    [
        ("key=name", b"name"),
        ("key=%3A1%3Aname", b":1:name"),
        ("key=:1:name", b":1:name"),
        ("key=a%20b", b"a b"),
        ("key=a%2Bb", b"a+b"),
        ("key=%C3%A9", "é".encode()),
        ("key=%FF", b"\xff"),
        ("key=a=b", b"a=b"),
        ("key_base64=OjE6bmFtZQ", b":1:name"),
        ("key_base64=OjE6bmFtZQ==", b":1:name"),
        ("key_base64=OjE6bmFtZQ%3D%3D", b":1:name"),
        ("key_base64=YWI", b"ab"),
        ("key_base64=YWI=", b"ab"),
        ("key_base64=YWJj", b"abc"),
        ("key_base64=__79", b"\xff\xfe\xfd"),
        ("key_base64=-_-_", b"\xfb\xff\xbf"),
    ],
)
def test_reads_keys_in_both_spellings(server: RunningServer, query: str, key: bytes) -> None:
    """A key arrives percent-encoded or as URL-safe Base64, padded or not."""
    assert ask(server, "PUT", f"{CACHE}?{query}&ttl_seconds=60", b"v").status == 204
    assert server.items == {("default-cache", key): b"v"}


@pytest.mark.parametrize(
    "query",
    [
        "",
        "key",
        "key=",
        "key_base64=",
        "key=a&key_base64=YQ",
        "key=a&key=b",
        "key=a+b",
        "key=%zz",
        "key=%4",
        "key_base64=Y",
        "key_base64=YQ=",
        "key_base64=YQ===",
        "key_base64=YQ==YQ==",
        "key_base64=Y!Q",
        "key_base64=ab%2Bc",
        "key_base64=ab/c",
        "key_base64=ab%0Ac",
    ],
)
def test_refuses_unclear_keys(server: RunningServer, query: str) -> None:
    """No key, two keys, an empty one, or one that two servers could read in two ways: 400."""
    response = ask(server, "GET", f"{CACHE}?{query}")
    assert response.status == 400
    assert response.body
    assert response.headers["content-type"] == "text/plain"


@pytest.mark.parametrize(
    ("ttl", "status"),
    [
        ("1", 204),
        ("86400", 204),
        ("86401", 400),
        ("0", 400),
        ("-1", 400),
        ("%2B1", 400),
        ("1.5", 400),
        ("1_0", 400),
        ("%D9%A1", 400),
        ("", 400),
        ("9" * 30, 400),
        ("9" * 5000, 400),
    ],
)
def test_ttl_is_whole_seconds_within_the_limit(
    server: RunningServer, ttl: str, status: int
) -> None:
    """ttl_seconds is a whole number from 1 to the cache's limit."""
    assert ask(server, "PUT", f"{A_KEY}&ttl_seconds={ttl}", b"v").status == status


def test_put_needs_a_ttl(server: RunningServer) -> None:
    """A PUT without ttl_seconds is refused and stores nothing."""
    assert ask(server, "PUT", A_KEY, b"v").status == 400
    assert not server.items


@pytest.mark.parametrize(("max_ttl", "status"), [(100, 400), (101, 204), (None, 204)])
def test_ttl_limit_is_a_setting(max_ttl: int | None, status: int) -> None:
    """Provisioned caches have another limit, or none."""
    with running_server(max_ttl=max_ttl) as server:
        assert ask(server, "PUT", f"{A_KEY}&ttl_seconds=101", b"v").status == status


def test_items_expire(server: RunningServer) -> None:
    """An item is there until its TTL has passed and gone after."""
    ask(server, "PUT", PUT_A, b"v")
    server.advance(55)
    assert ask(server, "GET", A_KEY).status == 200
    server.advance(6)
    assert ask(server, "GET", A_KEY)[:2] == (404, b"Key Not Found")


def test_a_second_put_renews_the_ttl(server: RunningServer) -> None:
    """The last PUT decides value and expiry."""
    ask(server, "PUT", PUT_A, b"old")
    server.advance(55)
    ask(server, "PUT", PUT_A, b"new")
    server.advance(55)
    assert ask(server, "GET", A_KEY).body == b"new"


# Tokens, paths, methods


@pytest.mark.parametrize(
    ("header", "query", "status"),
    [
        ("test-token", None, 404),
        (None, "test-token", 404),
        (None, "test%2Dtoken", 404),
        ("test-token", "wrong", 404),
        (None, None, 401),
        ("", None, 401),
        (None, "", 401),
        ("wrong", None, 401),
        (None, "wrong", 401),
        ("wrong", "test-token", 401),
        ("Bearer test-token", None, 401),
        ("test-read-only-token", None, 404),
    ],
)
def test_tokens(server: RunningServer, header: str | None, query: str | None, status: int) -> None:
    """The token comes as the bare Authorization header, else as a query parameter; else 401."""
    suffix = "" if query is None else f"&token={query}"
    assert ask(server, "GET", A_KEY + suffix, token=header).status == status


@pytest.mark.parametrize(("token", "status"), [(b"anything", 404), (b"", 401)])
def test_any_token_will_do_when_none_is_set(token: bytes, status: int) -> None:
    """Without a token of its own the service takes any, but not none."""
    service = Service(Config())
    request = service.admit("GET", A_KEY.encode(), token, 0)
    assert service.answer(request, b"").answer.status == status


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("PUT", 403), ("DELETE", 403)])
def test_a_read_only_token_only_reads(server: RunningServer, method: str, status: int) -> None:
    """The read-only token reads, and changes nothing."""
    server.put("default-cache", b"a", b"old")
    assert ask(server, method, PUT_A, b"new", token=server.read_only_token).status == status
    assert server.items == {("default-cache", b"a"): b"old"}


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/cache/default%2Dcache?key=a", 200),
        ("GET", "/cache/%64efault-cache?key=a", 200),
        ("GET", "http://localhost/cache/default-cache?key=a", 200),
        ("GET", "http://elsewhere/cache/default-cache?key=a", 421),
        ("GET", "/cache/other?key=a", 404),
        ("GET", "/cache/a%20b?key=a", 400),
        ("GET", "/cache/a%2Fb?key=a", 400),
        ("GET", "/cache/%zz?key=a", 400),
        ("GET", "/cache/", 404),
        ("GET", "/cache", 404),
        ("GET", "/", 404),
        ("GET", "/cache/default-cache/a?key=a", 404),
        ("GET", "//cache/default-cache?key=a", 404),
        ("POST", "/elsewhere", 404),
        ("HEAD", f"{A_KEY}", 405),
        ("POST", f"{PUT_A}", 405),
        ("PATCH", f"{PUT_A}", 405),
        ("OPTIONS", f"{A_KEY}", 405),
    ],
)
def test_paths_and_methods(server: RunningServer, method: str, target: str, status: int) -> None:
    """Only GET, PUT and DELETE of /cache/{name} exist."""
    server.put("default-cache", b"a", b"v")
    response = ask(server, method, target)
    assert response.status == status
    assert response.headers.get("allow") == ("GET, PUT, DELETE" if status == 405 else None)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize(
    ("path", "text"),
    [("/cache/other", b"Cache Not Found"), ("/other", b"No such path")],
)
def test_names_what_was_not_found(
    server: RunningServer, method: str, path: str, text: bytes
) -> None:
    """A missing cache is named exactly so, and a wrong path is never taken for it or for a miss."""
    response = ask(server, method, f"{path}?key=a&ttl_seconds=1", b"v")
    assert response.status == 404
    assert response.body.startswith(text)
    assert (response.body == b"Cache Not Found") is (path == "/cache/other")


@pytest.mark.parametrize("name", ["a b", "a/b", "", "é"])
def test_refuses_names_that_no_request_could_spell(name: str) -> None:
    """A cache's name is a URL-safe string from the start."""
    with pytest.raises(ValueError, match="URL-safe"):
        Config(caches=(name,))


# Limits


@pytest.mark.parametrize(("excess", "status"), [(0, 204), (1, 400)])
@pytest.mark.parametrize("chunked", [False, True])
def test_items_are_limited(server: RunningServer, excess: int, status: int, chunked: bool) -> None:
    """Key and value may have 5 MB together, whether or not the length is announced."""
    value = b"v" * (MAX_ITEM - 1 + excess)
    assert MAX_ITEM == 5_000_000
    with closing(HTTPConnection(*address(server), timeout=LONGEST_WAIT)) as connection:
        body = iter([value[: 1 << 20], value[1 << 20 :]]) if chunked else value
        connection.request(
            "PUT", PUT_A, body, {"Authorization": server.token}, encode_chunked=chunked
        )
        response = connection.getresponse()
        assert (response.status, bool(response.read())) == (status, status == 400)
        assert len(server.items) == (status == 204)
        assert server.requests[0].size == (len(value) if status == 204 else 0)
        connection.request("GET", A_KEY, headers={"Authorization": server.token})
        assert len(connection.getresponse().read()) == (len(value) if status == 204 else 13)


def test_what_is_too_large_is_not_kept_while_it_arrives(server: RunningServer) -> None:
    """A body beyond the limit costs no memory beyond the limit."""
    piece = b"100000\r\n" + b"v" * (1 << 20) + b"\r\n"
    tracemalloc.start()
    try:
        with dial(server) as connection:
            connection.sendall(raw("PUT", PUT_A, "Transfer-Encoding: chunked", end=True))
            for _ in range(40):
                connection.sendall(piece)
            connection.sendall(b"0\r\n\r\n")
            assert read_to_end(connection).startswith(b"HTTP/1.1 400 ")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * MAX_ITEM


def test_rate_limit() -> None:
    """Operations above the rate are answered 429, and time brings new ones."""
    with running_server(ops_per_second=0.001) as server:
        assert [ask(server, "GET", A_KEY).status for _ in range(3)] == [404, 429, 429]
        server.advance(1000)
        assert [ask(server, "GET", A_KEY).status for _ in range(2)] == [404, 429]


@pytest.mark.parametrize(
    ("elapsed", "allowed"), [(0.0, 0), (0.05, 0), (0.1, 1), (0.5, 5), (1.0, 10), (60.0, 10)]
)
def test_token_bucket(elapsed: float, allowed: int) -> None:
    """An emptied bucket fills at its rate, up to one second's worth."""
    clock = Clock(0.0)
    bucket = TokenBucket(10, clock)
    assert [bucket.take() for _ in range(11)] == [True] * 10 + [False]
    clock.now += elapsed
    assert sum(bucket.take() for _ in range(20)) == allowed


def test_expired_items_free_their_memory() -> None:
    """A server that runs for long holds what is alive and little more."""
    clock = Clock(0.0)
    store = ItemStore(["c"], clock)
    store.put("c", b"alive", b"v", 1e9)
    tracemalloc.start()
    try:
        for number in range(300):
            store.put("c", b"%d" % number, bytes(1 << 20), 1)
            clock.now += 2
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 40 << 20
    assert store.items() == {("c", b"alive"): b"v"}


def test_the_least_recently_used_items_make_room() -> None:
    """A full server keeps what was stored or read last, of all caches together."""
    size = MAX_ITEM // 5
    with running_server(caches=("one", "two"), max_memory=10 * size + (1 << 19)) as server:
        for number in range(10):
            server.put("one" if number % 2 else "two", b"%d" % number, bytes(size))
        assert ask(server, "GET", "/cache/two?key=0").status == 200
        server.put("one", b"new", bytes(size))
        server.put("two", b"new", bytes(size))
        kept = [int(key) for _, key in server.items if key != b"new"]
        assert kept == [3, 4, 5, 6, 7, 8, 9, 0]


@pytest.mark.parametrize(
    "limit", [{"max_memory": MAX_ITEM}, {"max_connections": 0}, {"idle_timeout": 0}], ids=str
)
def test_refuses_limits_that_let_nothing_through(limit: dict[str, int]) -> None:
    """A bound under which no item, connection or request would fit is refused at once."""
    with pytest.raises(ValueError, match=next(iter(limit))):
        Config(**limit)


# HTTP


def test_answers_pipelined_requests_in_order(server: RunningServer) -> None:
    """Requests sent without waiting are answered one after the other, also where one is late."""
    for name in "abc":
        server.put("default-cache", name.encode(), f"value-{name}".encode())
    server.inject(Fault(key=b"b", delay=0.05))
    wanted = "abcabc"
    requests = [
        raw("GET", f"{CACHE}?key={name}", end=last)
        for name, last in zip(wanted, [False] * 5 + [True], strict=True)
    ]
    answers = talk(server, b"".join(requests))
    assert re.findall(rb"value-(.)", answers) == [name.encode() for name in wanted]


def test_a_late_answer_is_not_hurried_by_the_next(server: RunningServer) -> None:
    """A request sent behind a late one neither overtakes it nor makes it early."""
    server.inject(Fault(status=503, delay=0.1))
    with dial(server) as connection:
        begin = time.monotonic()
        connection.sendall(raw("GET", A_KEY) + raw("GET", A_KEY, end=True))
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 503 ")
        assert time.monotonic() - begin >= 0.1


def test_reads_a_request_in_pieces(server: RunningServer) -> None:
    """Where the network cuts a request makes no difference."""
    request = raw("PUT", PUT_A, body=b"v" * 10) + raw("GET", A_KEY, end=True)
    with dial(server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for index in range(len(request)):
            connection.sendall(request[index : index + 1])
        answers = read_to_end(connection)
    assert answers.startswith(b"HTTP/1.1 204 ")
    assert answers.endswith(b"\r\n\r\n" + b"v" * 10)


def test_reads_chunked_bodies(server: RunningServer) -> None:
    """A body may come in chunks, with trailers."""
    chunks = b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n"
    request = raw("PUT", PUT_A, "Transfer-Encoding: chunked", end=True) + chunks
    assert talk(server, request).startswith(b"HTTP/1.1 204 ")
    assert server.items == {("default-cache", b"a"): b"abcde"}


@pytest.mark.parametrize(
    ("version", "connection", "stays"),
    [
        ("1.1", None, True),
        ("1.1", "keep-alive", True),
        ("1.1", "close", False),
        ("1.1", "Close", False),
        ("1.0", None, False),
        ("1.0", "keep-alive", True),
    ],
)
def test_keeps_connections(
    server: RunningServer, version: str, connection: str | None, stays: bool
) -> None:
    """Connections are kept as HTTP's versions and the Connection header say."""
    line = f"Connection: {connection}\r\n" if connection else ""
    head = (
        f"GET {A_KEY} HTTP/{version}\r\nHost: localhost\r\nAuthorization: test-token\r\n{line}\r\n"
    )
    answers = talk(server, head.encode() + raw("GET", f"{CACHE}?key=b", end=True))
    assert answers.count(b"Key Not Found") == (2 if stays else 1)
    assert answers.count(b"Connection: close") == 1


def test_asks_for_a_body_that_waits_to_be_asked_for(server: RunningServer) -> None:
    """Expect: 100-continue is answered before the body is sent."""
    head = raw("PUT", PUT_A, "Expect: 100-continue", "Content-Length: 5", end=True)
    with dial(server) as connection:
        connection.sendall(head)
        assert connection.recv(1 << 16) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"value")
        assert read_to_end(connection).startswith(b"HTTP/1.1 204 ")
    assert server.items == {("default-cache", b"a"): b"value"}


@pytest.mark.parametrize(
    ("target", "length", "status"),
    [
        (PUT_A, MAX_ITEM, b"400"),
        (A_KEY, 5, b"400"),
        ("/cache/other?key=a&ttl_seconds=1", 5, b"404"),
    ],
)
def test_does_not_ask_for_a_body_in_vain(
    server: RunningServer, target: str, length: int, status: bytes
) -> None:
    """A request that is refused by its head is not asked for its body."""
    request = raw("PUT", target, "Expect: 100-continue", f"Content-Length: {length}")
    answer = talk(server, request)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"Connection: close" in answer
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\nrubbish\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nConnection: keep-alive\r\n\r\n",  # no Host
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        (
            b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        ),
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
    ],
)
def test_refuses_malformed_http(server: RunningServer, data: bytes) -> None:
    """What is not HTTP is answered 400, and the connection ends."""
    answer = talk(server, data)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nConnection: close\r\n" in answer
    assert not server.requests


def test_a_head_without_end_is_refused(server: RunningServer) -> None:
    """Headers are bounded."""
    with dial(server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: ")
        with pytest.raises(OSError, match=r"reset|[Bb]roken"):  # noqa: PT012
            for _ in range(10_000):
                connection.sendall(b"x" * 1024)


def test_upgrades_are_not_taken(server: RunningServer) -> None:
    """A client that offers another protocol is answered in this one."""
    offer = raw("GET", A_KEY, "Connection: Upgrade", "Upgrade: h2c")
    assert talk(server, offer).endswith(b"Key Not Found")
    assert talk(server, raw("CONNECT", "example.com:443")).startswith(b"HTTP/1.1 4")


def test_answers_a_client_that_has_said_all(server: RunningServer) -> None:
    """Closing one's sending side does not lose an answer that is held back."""
    server.inject(Fault(delay=0.05))
    with dial(server) as connection:
        connection.sendall(raw("GET", A_KEY))
        connection.shutdown(socket.SHUT_WR)
        assert read_to_end(connection).endswith(b"Key Not Found")


def test_serves_200_connections(server: RunningServer) -> None:
    """Two hundred connections are open and served at the same time."""
    server.put("default-cache", b"a", b"value")
    with ExitStack() as stack:
        connections = [stack.enter_context(dial(server)) for _ in range(200)]
        for end in (False, True):
            for connection in connections:
                connection.sendall(raw("GET", A_KEY, end=end))
        assert all(read_to_end(connection).count(b"value") == 2 for connection in connections)
    assert len(server.requests) == 400


def test_a_client_that_does_not_read_stops_being_read(server: RunningServer) -> None:
    """Answers that nobody takes do not pile up: the server stops reading requests."""
    server.put("default-cache", b"a", bytes(1 << 12))
    with dial(server) as connection:
        connection.settimeout(0.2)
        request = raw("GET", A_KEY)
        with pytest.raises(TimeoutError):  # noqa: PT012
            for _ in range(100_000):
                connection.sendall(request)
    assert ask(server, "GET", f"{CACHE}?key=b").status == 404


@pytest.mark.parametrize("rounds", range(5))
def test_stopping_waits_for_what_was_just_accepted(rounds: int) -> None:
    """Connections that arrive while the server stops are closed, not leaked."""

    async def connect_and_stop(stack: ExitStack) -> list[socket.socket]:
        server = Server(Service(Config()))
        await server.start()
        port = int(server.endpoint.rpartition(":")[2])
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=LONGEST_WAIT))
            for _ in range(20)
        ]
        for _ in range(rounds):
            await asyncio.sleep(0)
        await server.stop()
        return connections

    with ExitStack() as stack:
        for connection in asyncio.run(connect_and_stop(stack)):
            with suppress(ConnectionResetError):
                assert connection.recv(1) == b""
    gc.collect()


def mutations(chance: random.Random) -> Iterator[bytes]:
    """Yield random bytes, and valid requests with random bytes in them."""
    valid = raw("PUT", PUT_A, body=b"value") + raw("GET", A_KEY)
    for _ in range(150):
        yield chance.randbytes(chance.randrange(1, 400))
        damaged = bytearray(valid)
        for _ in range(chance.randrange(1, 6)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        yield bytes(damaged)
        yield valid[: chance.randrange(len(valid))]


def test_survives_rubbish(server: RunningServer, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever bytes arrive, the server reports no mistake of its own and goes on."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    for data in mutations(random.Random(seed)):
        with dial(server) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            try:
                read_to_end(connection)
            except ConnectionResetError:
                continue
    assert ask(server, "GET", f"{CACHE}?key=untouched").status == 404
    assert not caplog.records


# Faults and latency


def test_latency_holds_every_answer_back() -> None:
    """Latency delays answers, and those of several connections at the same time."""
    with running_server(latency=0.1) as server, ExitStack() as stack:
        connections = [stack.enter_context(dial(server)) for _ in range(20)]
        begin = time.monotonic()
        for connection in connections:
            connection.sendall(raw("GET", A_KEY, end=True))
        for connection in connections:
            assert read_to_end(connection)
        assert 0.1 <= time.monotonic() - begin < 20 * 0.1


def test_a_late_answer_holds_nobody_else_up(server: RunningServer) -> None:
    """While one connection waits, others are served."""
    server.inject(Fault(key=b"slow", delay=3600))
    with dial(server) as waiting:
        waiting.sendall(raw("GET", f"{CACHE}?key=slow"))
        while not server.requests:
            assert ask(server, "GET", A_KEY).status == 404
        waiting.setblocking(False)
        with pytest.raises(BlockingIOError):
            waiting.recv(1)


@pytest.mark.parametrize(
    ("rate", "drawn", "status"),
    [(0.0, 0.0, 404), (0.3, 0.29, 503), (0.3, 0.3, 404), (1.0, 0.999, 503)],
)
def test_fail_rate(rate: float, drawn: float, status: int) -> None:
    """The configured share of requests fails with the configured status."""
    service = Service(Config(fail_rate=rate, fail_status=503), chance=lambda: drawn)
    request = service.admit("GET", A_KEY.encode(), b"token", 0)
    assert service.answer(request, b"").answer.status == status


# The command


def command_request(line: str, target: str, *, token: str = "t") -> int:
    """Send one GET to the command that printed this line."""
    found = re.search(r"http://([\d.]+):(\d+)", line)
    assert found
    with closing(HTTPConnection(found[1], int(found[2]), timeout=LONGEST_WAIT)) as connection:
        connection.request("GET", target, headers={"Authorization": token})
        return connection.getresponse().status


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stops_cleanly(number: int) -> None:
    """SIGINT and SIGTERM end the command with status 0, whatever is still under way."""
    with running_command("-v", "--latency-ms", "3600000") as (process, line):
        port = int(line.split("127.0.0.1:")[1].split()[0])
        with socket.create_connection(("127.0.0.1", port), timeout=LONGEST_WAIT) as connection:
            connection.sendall(raw("GET", A_KEY))
            assert process.stdout is not None
            assert process.stdout.readline().startswith("GET ")
            assert stop(process, number) == ""


def test_start_line_says_where_and_what() -> None:
    """The first line holds the address, the caches and whether any token will do."""
    with running_command("--cache", "one", "two", "--cache", "three") as (process, line):
        assert re.fullmatch(
            r"Serving Momento's HTTP API on http://127\.0\.0\.1:\d+ "
            r"\(caches: one, two, three; token: any\)\n",
            line,
        )
        assert command_request(line, "/cache/three?key=a") == 404
        stop(process)


def test_command_line_options() -> None:
    """Tokens and failures are set on the command line, and the token is not printed."""
    arguments = ["--token", "secret", "--fail-rate", "1", "--fail-status", "503"]
    with running_command(*arguments) as (process, line):
        assert "token: as given" in line
        assert "secret" not in line
        assert command_request(line, A_KEY, token="secret") == 503
        stop(process)


def test_verbose_logs_one_line_per_request() -> None:
    """With -v each request is one line: method, path, status and time, never key or token."""
    with running_command("-v") as (process, line):
        command_request(line, f"{CACHE}?key=secret-key&token=secret-token", token="secret-header")
        command_request(line, "/elsewhere")
        first, second = stop(process).splitlines()
    assert re.fullmatch(r"GET /cache/default-cache 404 \d+\.\d ms", first)
    assert re.fullmatch(r"GET /elsewhere 404 \d+\.\d ms", second)


def test_a_port_in_use_is_said_in_words(server: RunningServer) -> None:
    """A port that is taken ends the command with a sentence and status 1."""
    command = [sys.executable, "-m", "django_momento_http.server"]
    done = subprocess.run(
        [*command, "--port", str(address(server)[1])],
        capture_output=True,
        text=True,
        timeout=LONGEST_WAIT,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Cannot listen on 127.0.0.1 port ")
    assert len(done.stderr.splitlines()) == 1


def test_a_bad_cache_name_is_said_in_words() -> None:
    """A name that is not URL-safe is a usage error."""
    done = subprocess.run(
        [sys.executable, "-m", "django_momento_http.server", "--cache", "a b"],
        capture_output=True,
        text=True,
        timeout=LONGEST_WAIT,
        check=False,
    )
    assert done.returncode == 2
    assert "URL-safe" in done.stderr


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_documentations_examples(server: RunningServer) -> None:
    """The six curl commands of the service's documentation work word for word."""
    outputs = []
    stored = []
    for example in CURL_EXAMPLES:
        command = example.replace("https://api.cache.<endpoint>", server.endpoint)
        done = subprocess.run(
            shlex.split(command.replace("<token>", server.token)),
            env={"PATH": os.environ["PATH"], "NO_PROXY": "*"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=LONGEST_WAIT,
            check=True,
        )
        outputs.append(done.stdout)
        stored.append(dict(server.items))
    item = {("default-cache", b"example_key"): b"example value"}
    assert outputs == [b"", b"", b"example value", b"example value", b"", b""]
    assert stored == [item, item, item, item, {}, {}]
    assert [request.status for request in server.requests] == [204, 204, 200, 200, 204, 204]


def test_counts_bytes_of_a_thousand_requests_on_one_connection(server: RunningServer) -> None:
    """A long conversation neither loses nor repeats an answer."""
    puts = [
        raw("PUT", f"{CACHE}?key=k{number}&ttl_seconds=60", body=b"%d." % number)
        for number in range(500)
    ]
    gets = [raw("GET", f"{CACHE}?key=k{number}", end=number == 499) for number in range(500)]
    answers = talk(server, b"".join(itertools.chain(puts, gets)))
    assert answers.count(b"HTTP/1.1 204 No Content\r\n\r\n") == 500
    bodies = re.findall(rb"\r\n\r\n(\d+)\.", answers)
    assert bodies == [b"%d" % number for number in range(500)]
