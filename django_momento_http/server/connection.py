"""How requests and answers travel: connections, and the socket that listens for them.

It knows nothing of keys and items: what is answered, the service says.
"""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Any

import httptools

from .messages import Exchange, Refused, Reply
from .rendering import render
from .service import Service

# Enough for any key that Django makes; more than common load balancers accept.
_MAX_HEAD = 64 * 1024
_MALFORMED = Reply(Refused(400, "Malformed HTTP request").answer)


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
        self._exchange: Exchange
        self._unfinished = 0  # bytes since the parser last got anywhere
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
            self._send(b"HTTP/1.1 100 Continue\r\n\r\n")
        else:
            self._answer(close=True)

    def on_body(self, data: bytes) -> None:
        """Keep the body of a PUT, up to the limit; read past everything else."""
        self._unfinished = 0
        if self._ending or self._exchange.refusal is not None or self._exchange.method != "PUT":
            return
        self._received += len(data)
        self._body.append(data)
        self._service.weigh(self._exchange, self._received)
        if self._exchange.refusal is not None:
            self._body.clear()

    def on_message_complete(self) -> None:
        """Answer."""
        self._unfinished = 0
        if not self._ending:
            self._answer(close=not self._parser.should_keep_alive())

    # Sending.

    def _answer(self, *, close: bool) -> None:
        reply = self._service.reply(self._exchange, b"".join(self._body))
        payload = render(reply, close=close, bodiless=self._exchange.method == "HEAD")
        self._send(payload, reply.delay)
        self._ending = close or reply.drop is not None

    def _refuse_malformed(self) -> None:
        if not self._ending:
            self._send(render(_MALFORMED, close=True, bodiless=False))
            self._ending = True

    def _send(self, payload: bytes, delay: float = 0.0) -> None:
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
            self._transport.write(b"".join(self._out))
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
