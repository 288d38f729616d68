"""A local server that speaks Momento's HTTP API, for development and tests.

Run it with ``python -m django_momento_http.server``, or inside a test with
``django_momento_http.testing``. It is a stand-in: one process, memory only, the service's rules and
limits, and faults on demand. It imports nothing of this package, so that client and server cannot
share a mistake, and knows nothing of Django.

Read ``Service`` first (what is answered), then ``Connection`` (how it travels).
"""

import argparse
import asyncio
import binascii
import random
import re
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from http.client import responses
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote_to_bytes

import httptools

# The service says "5 MB" for key and value together. We take the smaller reading, so that what fits
# here fits there, whichever it means.
MAX_ITEM = 5 * 1000 * 1000
# Enough for any key that Django makes; more than common load balancers accept.
_MAX_HEAD = 64 * 1024
# Expired items are looked for when the store has doubled since the last time, and holds this much.
_SWEEP_BYTES = 16 * 1024 * 1024
# What one stored item costs beside its key and its value: dictionary slot, tuple, three headers.
_ITEM_OVERHEAD = 256

_CACHE_NAME = re.compile(rb"[A-Za-z0-9._~-]+")
_BAD_ESCAPE = re.compile(rb"\+|%(?![0-9A-Fa-f]{2})")
# "+" and "/" become what no Base64 holds: they are not URL-safe.
_FROM_URL_SAFE = bytes.maketrans(b"-_+/", b"+/!!")


@dataclass(frozen=True)
class Config:
    """What the server serves and which limits it keeps."""

    caches: tuple[str, ...] = ("default-cache",)
    token: str | None = field(default=None, repr=False)  # None: any token will do
    read_only_token: str | None = field(default=None, repr=False)
    latency: float = 0.0  # seconds before every answer
    max_ttl: int | None = 86400  # the service's limit on demand; None: provisioned
    ops_per_second: float | None = None
    fail_rate: float = 0.0
    fail_status: int = 500

    def __post_init__(self) -> None:
        """Refuse cache names that no request could spell."""
        for name in self.caches:
            if not _CACHE_NAME.fullmatch(name.encode()):
                raise ValueError(f"a cache's name must be a URL-safe string, not {name!r}")


@dataclass(frozen=True)
class Fault:
    """How the next matching requests misbehave.

    With a ``status`` that answer is given and nothing is done (``applied``: done all the same).
    Without one the true answer is given: late, with ``headers`` added, or cut off. ``drop`` closes
    the connection ``"before"`` anything is done, ``"after"`` it is done and before a byte is sent,
    in the middle of the ``"headers"``, or in the ``"body"``, one byte short of its Content-Length
    (an answer that has no body is cut in its headers).
    """

    status: int | None = None
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    delay: float = 0.0
    drop: Literal["before", "after", "headers", "body"] | None = None
    times: int | None = 1
    method: str | None = None
    key: bytes | None = None
    applied: bool = False

    def __post_init__(self) -> None:
        """Refuse a body that would never be sent."""
        if self.body and self.status is None:
            raise ValueError("a fault with a body needs a status")


class Answer(NamedTuple):
    """What a request is answered with."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class Reply(NamedTuple):
    """An answer and how it is delivered."""

    answer: Answer
    delay: float = 0.0
    drop: str | None = None


class Request(NamedTuple):
    """A request as it was served; ``status`` is 0 where the connection was dropped instead.

    ``size`` counts the bytes of the value that travelled, ``path`` has no query, and ``seconds``
    includes what the answer was held back.
    """

    method: str
    cache: str
    key: bytes
    ttl_seconds: int | None
    status: int
    size: int
    path: str = ""
    seconds: float = 0.0


class Refused(Exception):
    """Ends the reading of a request with an answer."""

    def __init__(self, status: int, text: str, *headers: tuple[str, str]) -> None:
        super().__init__(text)
        self.answer = Answer(status, text.encode(), (("Content-Type", "text/plain"), *headers))


_NO_CONTENT = Answer(204)
_KEY_NOT_FOUND = Refused(404, "Key Not Found").answer
_TOO_LARGE = Refused(400, f"Key and value may have {MAX_ITEM} bytes together").answer
_MALFORMED = Refused(400, "Malformed HTTP request").answer


class Exchange:
    """One request, as far as it has been read."""

    __slots__ = ("cache", "key", "method", "path", "refusal", "started", "ttl_seconds")

    def __init__(self, method: str) -> None:
        self.method = method
        self.path = b""
        self.cache = ""
        self.key = b""
        self.ttl_seconds: int | None = None
        self.refusal: Answer | None = None
        self.started = time.perf_counter()


def unquote(text: bytes) -> bytes:
    """Percent-decode, refusing what two servers might read in two ways."""
    if _BAD_ESCAPE.search(text):
        raise Refused(400, "A space is %20, a plus is %2B, a percent sign is %25")
    return unquote_to_bytes(text) if b"%" in text else text


def parse_query(query: bytes) -> dict[bytes, bytes]:
    """Return the parameters of a query, each of which may be given once."""
    parameters: dict[bytes, bytes] = {}
    for pair in query.split(b"&"):
        name, _, value = pair.partition(b"=")
        if name in parameters:
            raise Refused(400, "A query parameter is given twice")
        parameters[name] = unquote(value)
    return parameters


def decode_base64(text: bytes) -> bytes:
    """Decode URL-safe Base64, padded or not."""
    padding = b"" if text.endswith(b"=") else b"=" * (-len(text) % 4)
    try:
        return binascii.a2b_base64(text.translate(_FROM_URL_SAFE) + padding, strict_mode=True)
    except ValueError:
        raise Refused(400, "key_base64 is not URL-safe Base64") from None


def read_key(parameters: Mapping[bytes, bytes]) -> bytes:
    """Return the key that the request names, in one way and not in both."""
    plain, encoded = parameters.get(b"key"), parameters.get(b"key_base64")
    if (plain is None) == (encoded is None):
        raise Refused(400, "Give the key as either key or key_base64")
    key = decode_base64(encoded) if encoded is not None else plain
    if not key:
        raise Refused(400, "The key is empty")
    return key


def read_ttl(parameters: Mapping[bytes, bytes], max_ttl: int | None) -> int:
    """Return ttl_seconds, within the limit."""
    text = parameters.get(b"ttl_seconds", b"")
    # Eighteen digits are beyond any clock, and short of what int() would refuse.
    seconds = int(text) if text.isdigit() and len(text) <= 18 else 0
    if seconds < 1 or (max_ttl is not None and seconds > max_ttl):
        limit = "" if max_ttl is None else f" and at most {max_ttl}"
        raise Refused(400, f"ttl_seconds must be a whole number, more than 0{limit}")
    return seconds


def read_target(exchange: Exchange, target: bytes) -> dict[bytes, bytes]:
    """Note the path and the cache that are asked for and return the query's parameters."""
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        raise Refused(400, "The request's target is not a URL") from None
    exchange.path = url.path or b""
    _, _, name = exchange.path.partition(b"/cache/")
    if exchange.path != b"/cache/" + name or not name or b"/" in name:
        raise Refused(404, "No such path: caches live under /cache/{name}")
    if exchange.method not in ("GET", "PUT", "DELETE"):
        raise Refused(405, "Only GET, PUT and DELETE", ("Allow", "GET, PUT, DELETE"))
    name = unquote(name)
    if not _CACHE_NAME.fullmatch(name):
        raise Refused(400, "A cache's name is a URL-safe string")
    exchange.cache = name.decode()
    return parse_query(url.query or b"")


class Store:
    """Items of several caches, until they expire by the clock that is passed in."""

    def __init__(self, caches: Collection[str], clock: Callable[[], float]) -> None:
        self._clock = clock
        self._caches: dict[str, dict[bytes, tuple[bytes, float]]] = {name: {} for name in caches}
        self._bytes = 0
        self._sweep_at = _SWEEP_BYTES

    def __contains__(self, cache: str) -> bool:
        return cache in self._caches

    def get(self, cache: str, key: bytes) -> bytes | None:
        """Return the value, or None when it is absent or expired."""
        found = self._caches[cache].get(key)
        if found is None:
            return None
        value, expires = found
        if expires > self._clock():
            return value
        self.delete(cache, key)
        return None

    def put(self, cache: str, key: bytes, value: bytes, ttl_seconds: float) -> None:
        """Store the value for so many seconds."""
        self.delete(cache, key)
        self._caches[cache][key] = (value, self._clock() + ttl_seconds)
        self._bytes += len(key) + len(value) + _ITEM_OVERHEAD
        if self._bytes > self._sweep_at:
            self._sweep()

    def delete(self, cache: str, key: bytes) -> None:
        """Forget the value, if there is one."""
        found = self._caches[cache].pop(key, None)
        if found is not None:
            self._bytes -= len(key) + len(found[0]) + _ITEM_OVERHEAD

    def items(self) -> dict[tuple[str, bytes], bytes]:
        """Return the values that are alive, by cache and key."""
        self._sweep()
        return {
            (cache, key): value
            for cache, items in self._caches.items()
            for key, (value, _) in items.items()
        }

    def _sweep(self) -> None:
        now = self._clock()
        for cache, items in self._caches.items():
            for key in [key for key, (_, expires) in items.items() if expires <= now]:
                self.delete(cache, key)
        self._sweep_at = max(_SWEEP_BYTES, 2 * self._bytes)


class TokenBucket:
    """So many operations a second, with a second's worth of them at once."""

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._tokens = self._capacity = max(rate, 1.0)
        self._filled = clock()

    def take(self) -> bool:
        """Say whether one more operation is within the limit."""
        now = self._clock()
        self._tokens = min(self._capacity, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Faults:
    """The faults that wait for their requests, in the order in which they were injected."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Fault, int | None]] = []

    def add(self, fault: Fault) -> None:
        """Let the fault wait for its requests."""
        self._waiting.append((fault, fault.times))

    def clear(self) -> None:
        """Forget all of them."""
        self._waiting.clear()

    def take(self, exchange: Exchange) -> Fault | None:
        """Return the first fault for this request and count it down."""
        for index, (fault, times) in enumerate(self._waiting):
            if fault.method not in (None, exchange.method) or fault.key not in (None, exchange.key):
                continue
            if times == 1:
                del self._waiting[index]
            elif times is not None:
                self._waiting[index] = (fault, times - 1)
            return fault
        return None


class Service:
    """The API itself: request in, answer out. It knows nothing of sockets."""

    def __init__(
        self,
        config: Config,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        observer: Callable[[Request], object] | None = None,
    ) -> None:
        self.store = Store(config.caches, clock)
        self.faults = Faults()
        self._config = config
        self._bucket = TokenBucket(config.ops_per_second, clock) if config.ops_per_second else None
        self._chance = chance
        self._observer = observer

    def admit(self, method: str, target: bytes, token: bytes, length: int) -> Exchange:
        """Read a request's head; ``refusal`` is set where it already decides the answer."""
        exchange = Exchange(method)
        try:
            parameters = read_target(exchange, target)
            may_write = self._authorize(token or parameters.get(b"token", b""))
            exchange.key = read_key(parameters)
            self._check(exchange, parameters, may_write=may_write)
            if len(exchange.key) + length > MAX_ITEM:
                exchange.refusal = _TOO_LARGE
        except Refused as refused:
            exchange.refusal = refused.answer
        return exchange

    def reply(self, exchange: Exchange, value: bytes) -> Reply:
        """Carry out a request whose body has arrived, with the fault that waits for it."""
        fault = self.faults.take(exchange)
        if fault is None and self._config.fail_rate > self._chance():
            fault = Fault(status=self._config.fail_status, body=b"Failed as --fail-rate asks")
        if fault is None:
            reply = Reply(self._perform(exchange, value), self._config.latency)
        else:
            reply = self._misbehave(fault, exchange, value)
        self._observe(exchange, value, reply)
        return reply

    def _authorize(self, token: bytes) -> bool:
        """Say whether the token may write; Refused when it may not even read."""
        text = token.decode(errors="replace")
        if not text:
            raise Refused(401, "A token is needed, in the Authorization header or as token")
        if text == self._config.read_only_token:
            return False
        if self._config.token not in (None, text):
            raise Refused(401, "The token is not valid")
        return True

    def _check(
        self, exchange: Exchange, parameters: Mapping[bytes, bytes], *, may_write: bool
    ) -> None:
        if exchange.method == "PUT":
            exchange.ttl_seconds = read_ttl(parameters, self._config.max_ttl)
        if exchange.method != "GET" and not may_write:
            raise Refused(403, "The token may only read")
        if exchange.cache not in self.store:
            raise Refused(404, "Cache Not Found")
        if self._bucket is not None and not self._bucket.take():
            raise Refused(429, "Too many operations a second")

    def _perform(self, exchange: Exchange, value: bytes) -> Answer:
        if exchange.refusal is not None:
            return exchange.refusal
        if exchange.method == "GET":
            found = self.store.get(exchange.cache, exchange.key)
            return _KEY_NOT_FOUND if found is None else Answer(200, found)
        if exchange.ttl_seconds is not None:
            self.store.put(exchange.cache, exchange.key, value, exchange.ttl_seconds)
        else:
            self.store.delete(exchange.cache, exchange.key)
        return _NO_CONTENT

    def _misbehave(self, fault: Fault, exchange: Exchange, value: bytes) -> Reply:
        answer = Answer(fault.status or 0, fault.body, fault.headers)
        in_effect = fault.status is None and fault.drop != "before"
        if in_effect or fault.applied or fault.drop == "after":
            true_answer = self._perform(exchange, value)
            if fault.status is None:
                answer = true_answer._replace(headers=true_answer.headers + fault.headers)
        return Reply(answer, self._config.latency + fault.delay, fault.drop)

    def _observe(self, exchange: Exchange, value: bytes, reply: Reply) -> None:
        if self._observer is None:
            return
        status = reply.answer.status
        answered = status == 200 and exchange.method == "GET"
        self._observer(
            Request(
                exchange.method,
                exchange.cache,
                exchange.key,
                exchange.ttl_seconds,
                0 if reply.drop else status,
                len(reply.answer.body) if answered else len(value),
                exchange.path.decode("ascii", "backslashreplace"),
                time.perf_counter() - exchange.started + reply.delay,
            )
        )


@lru_cache(maxsize=4096)
def render_head(
    status: int, length: int, headers: tuple[tuple[str, str], ...], *, close: bool
) -> bytes:
    """Return the bytes of an answer's head; ``headers`` win over those that every answer has."""
    fields = {"content-type": "application/octet-stream", "content-length": str(length)}
    if status < 200 or status in (204, 304):
        fields = {}
    if close:
        fields["connection"] = "close"
    for name, _ in headers:
        fields.pop(name.lower(), None)
    lines = [f"{name.title()}: {text}\r\n" for name, text in fields.items()]
    lines += [f"{name}: {text}\r\n" for name, text in headers]
    return f"HTTP/1.1 {status} {responses.get(status, 'Unknown')}\r\n{''.join(lines)}\r\n".encode()


def render(reply: Reply, *, close: bool, bodiless: bool) -> bytes:
    """Return the bytes to send, cut where the reply says so."""
    status, body, headers = reply.answer
    if reply.drop in ("before", "after"):
        return b""
    head = render_head(status, len(body), headers, close=close)
    if reply.drop == "headers" or (reply.drop and status in (204, 304)):
        return head[: len(head) // 2]
    if reply.drop == "body":
        return render_head(status, len(body) + 1, headers, close=close) + body
    return head if bodiless or status in (204, 304) else head + body


class Connection(asyncio.Protocol):
    """HTTP/1.1 over one connection: keep-alive, pipelining, chunks, Expect; answers in order."""

    def __init__(self, service: Service, open_connections: set["Connection"]) -> None:
        self._service = service
        self._open = open_connections
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._out: list[bytes] = []  # to be sent with the next write
        self._late: deque[bytes] = deque()  # held back, each with a timer of its own
        self._due = 0.0
        self._ending = False  # no further request is read; close when all is sent
        self._exchange: Exchange | None = None
        self._unfinished = 0
        self.on_message_begin()

    # Called by asyncio.

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self._transport = transport
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """End."""
        self._open.discard(self)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, whose callbacks below collect the answers, and send them together."""
        if self._ending:
            return
        self._unfinished += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._ending = True  # answered as if no upgrade had been asked for
        except httptools.HttpParserCallbackError:
            raise  # a mistake of ours: asyncio reports it and closes this connection
        except httptools.HttpParserError:
            self._refuse_malformed()
        if self._unfinished > _MAX_HEAD:
            self._refuse_malformed()
        self._flush()

    def eof_received(self) -> bool:
        """Keep the connection while answers are held back."""
        self._ending = True
        return bool(self._late)

    def pause_writing(self) -> None:
        """Read no further requests while the peer does not read its answers."""
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        self._transport.resume_reading()

    def abort(self) -> None:
        """Close without sending what is left."""
        self._transport.abort()

    # Called by the parser.

    def on_message_begin(self) -> None:
        """Forget the request before."""
        self._target = b""
        self._token = b""
        self._length = 0
        self._has_host = self._expects = False
        self._body: list[bytes] = []
        self._received = 0

    def on_url(self, url: bytes) -> None:
        """Collect the target, which may come in pieces."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note the four headers that matter."""
        name = name.lower()
        if name == b"host":
            self._has_host = True
        elif name == b"authorization":
            self._token = value
        elif name == b"content-length":
            self._length = int(value)
        elif name == b"expect":
            self._expects = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        """Decide what the head decides, and ask for the body of a client that waits for that."""
        self._unfinished = 0
        if not self._has_host and self._parser.get_http_version() == "1.1":
            self._refuse_malformed()
        if self._ending:
            return
        method = self._parser.get_method().decode()
        self._exchange = self._service.admit(method, self._target, self._token, self._length)
        if not self._expects:
            return
        if self._exchange.refusal is None:
            self._send(b"HTTP/1.1 100 Continue\r\n\r\n", 0.0)
        else:
            self._answer(self._exchange, close=True)

    def on_body(self, data: bytes) -> None:
        """Keep the body of a PUT, up to the limit; read past everything else."""
        exchange = self._exchange
        self._unfinished = 0
        if exchange is None or exchange.refusal is not None or exchange.method != "PUT":
            return
        self._received += len(data)
        self._body.append(data)
        if self._received + len(exchange.key) > MAX_ITEM:
            exchange.refusal = _TOO_LARGE
            self._body.clear()

    def on_message_complete(self) -> None:
        """Answer."""
        self._unfinished = 0
        if self._exchange is not None and not self._ending:
            self._answer(self._exchange, close=not self._parser.should_keep_alive())

    # Sending.

    def _answer(self, exchange: Exchange, *, close: bool) -> None:
        value = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        reply = self._service.reply(exchange, value)
        payload = render(reply, close=close, bodiless=exchange.method == "HEAD")
        self._send(payload, reply.delay)
        self._ending = close or reply.drop is not None

    def _refuse_malformed(self) -> None:
        if not self._ending:
            self._send(render(Reply(_MALFORMED), close=True, bodiless=False), 0.0)
            self._ending = True

    def _send(self, payload: bytes, delay: float) -> None:
        if not self._late and delay <= 0:
            self._out.append(payload)
            return
        # Never before the answer ahead of it: timers fire in order, and each sends the oldest.
        self._due = max(self._due, self._loop.time() + delay)
        self._late.append(payload)
        self._loop.call_at(self._due, self._send_late)

    def _send_late(self) -> None:
        self._out.append(self._late.popleft())
        self._flush()

    def _flush(self) -> None:
        if self._out and not self._transport.is_closing():
            self._transport.write(self._out[0] if len(self._out) == 1 else b"".join(self._out))
        self._out.clear()
        if self._ending and not self._late:
            self._transport.close()


class Server:
    """Listens in the running event loop and can be stopped without leaving anything behind."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._connections: set[Connection] = set()
        self._listener: asyncio.Server
        self.endpoint = ""

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 picks a free one."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: Connection(self._service, self._connections), host, port, backlog=1024
        )
        bound = self._listener.sockets[0].getsockname()[1]
        self.endpoint = f"http://{f'[{host}]' if ':' in host else host}:{bound}"

    async def stop(self) -> None:
        """Close the listener and every connection."""
        await self._stop_accepting()
        for connection in list(self._connections):
            connection.abort()
        # An aborted transport says connection_lost in the loop's next rounds.
        for _ in range(10):
            if not self._connections:
                break
            await asyncio.sleep(0)
        await self._listener.wait_closed()

    async def _stop_accepting(self) -> None:
        """Close the listener once the connections that were just accepted are set up.

        asyncio leaks the sockets of those that it is still setting up when the listener closes.
        """
        loop = asyncio.get_running_loop()
        for listening in self._listener.sockets:
            with suppress(NotImplementedError):  # Windows
                loop.remove_reader(listening.fileno())
        for _ in range(5):
            await asyncio.sleep(0)
        self._listener.close()


def _log(request: Request) -> None:
    line = f"{request.method} {request.path} {request.status} {request.seconds * 1000:.1f} ms\n"
    sys.stdout.write(line)
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m django_momento_http.server",
        description="Serve Momento's HTTP API from this process's memory.",
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    add("--port", type=int, default=8400, help="port; 0 picks a free one (%(default)s)")
    add("--cache", nargs="+", action="extend", metavar="NAME", help="caches (default-cache)")
    add("--token", help="the token that may read and write; not given: any token may")
    add("--read-only-token", metavar="TOKEN", help="a token that may only read")
    add("--latency-ms", type=float, default=0.0, metavar="MS", help="hold every answer back")
    add("--max-ttl", type=int, default=86400, metavar="S", help="0: unbounded (%(default)s)")
    add("--ops-per-second", type=float, metavar="N", help="answer 429 above this rate")
    add("--fail-rate", type=float, default=0.0, metavar="P", help="share of failed requests, 0-1")
    add("--fail-status", type=int, default=500, metavar="STATUS", help="(%(default)s)")
    add("-v", "--verbose", action="store_true", help="log one line per request")
    return parser


def _config(options: argparse.Namespace) -> Config:
    return Config(
        caches=tuple(options.cache or Config.caches),
        token=options.token,
        read_only_token=options.read_only_token,
        latency=options.latency_ms / 1000,
        max_ttl=options.max_ttl or None,
        ops_per_second=options.ops_per_second,
        fail_rate=options.fail_rate,
        fail_status=options.fail_status,
    )


async def _serve(config: Config, options: argparse.Namespace) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stopped.set))
    server = Server(Service(config, observer=_log if options.verbose else None))
    await server.start(options.host, options.port)
    tokens = "as given" if config.token else "any"
    caches = f"caches: {', '.join(config.caches)}; token: {tokens}"
    sys.stdout.write(f"Serving Momento's HTTP API on {server.endpoint} ({caches})\n")
    sys.stdout.flush()
    await stopped.wait()
    await server.stop()


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        config = _config(options)
    except ValueError as error:
        parser.error(str(error))
    try:
        asyncio.run(_serve(config, options))
    except OSError as error:
        sys.stderr.write(f"Cannot listen on {options.host} port {options.port}: {error.strerror}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
