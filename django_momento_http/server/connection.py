"""How requests and answers travel over one connection. What is answered, the service says.

Whatever the peer does, a connection holds little: one request and one answer at a time, and a few
KiB that it has read ahead. Larger bodies wait for room that all connections share.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from .hosts import is_named
from .limits import MAX_ITEM, Allowance, IdleTimer, Share
from .messages import Answer, Delivery, PartialRequest, Refused
from .reader import MAX_HEAD, Head, Malformed, Reader
from .rendering import render
from .sender import Sender
from .service import Service

# Bytes that a connection may hold without asking: read ahead, of a head, or of a body.
_SMALL = 8 * 1024
# Room for longer heads, shared by all connections. Each is held as bytes, then as path and key.
_LONG_HEAD = 2 * MAX_HEAD
_LONG_HEADS = 64 * _LONG_HEAD
# Room for larger bodies that are arriving, shared by all connections: three items at once.
_BODIES = 16 * 1024 * 1024
_BUFFER = 256 * 1024
_MALFORMED = Refused(400, "Malformed HTTP request").answer
_MISDIRECTED = Refused(
    421,
    "The Host header must name this server: localhost, 127.0.0.1, [::1], or what --host says",
).answer
_OF_A_PAGE = Refused(403, "Pages in a browser may not use this server").answer
_TIMED_OUT = Refused(408, "The request took longer to arrive than --idle-timeout says").answer
_FULL = Refused(503, "No more connections: --max-connections says how many").answer


@dataclass(eq=False)
class Shared:
    """What all connections of a server have in common."""

    service: Service
    clock: Callable[[], float]
    names: frozenset[str] | None = None  # None: the server answers to any
    connections: set["ClientConnection"] = field(default_factory=set)
    heads: Allowance = field(default_factory=lambda: Allowance(_LONG_HEADS))
    bodies: Allowance = field(default_factory=lambda: Allowance(_BODIES))
    # asyncio fills it and hands it to the one connection that reads: one is enough for all.
    buffer: bytearray = field(default_factory=lambda: bytearray(_BUFFER))

    def is_full(self) -> bool:
        """Say whether one more is too many; a connection whose peer has left makes room for it."""
        if len(self.connections) < self.service.config.max_connections:
            return False
        left = next((other for other in self.connections if other.has_left()), None)
        if left is None:
            return True
        self.connections.discard(left)
        left.abort()
        return False


class ClientConnection(asyncio.BufferedProtocol):
    """HTTP/1.1 over one connection: keep-alive, pipelining, chunks, Expect; answers in order."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._service = shared.service
        self._idle = IdleTimer(shared.clock)
        self._reader = Reader(self)
        self._transport: asyncio.Transport
        self._sender: Sender
        self._request: PartialRequest | None = None  # whose body is arriving
        self._expects = False
        self._body = BytesIO()
        # A connection asks for room for the head first, then for the body, so that no two of them
        # wait for each other.
        self._head_room = Share(shared.heads, self._go_on_after_waiting)
        self._body_room = Share(shared.bodies, self._continue)
        self._unread = b""  # behind the request that is being answered
        self._is_ending = False  # no further request is read; close when all is sent
        self._is_half_closed = False  # by the peer, which may still wait for answers

    # Called by asyncio.

    def connection_made(self, transport: Any) -> None:
        """Begin, unless there are too many."""
        self._transport = transport
        self._sender = Sender(transport, self._service.store, self._idle, self._go_on)
        if self._shared.is_full():
            self._refuse(_FULL)
            self._close_when_done()
        else:
            self._shared.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """End."""
        self._shared.connections.discard(self)
        self._sender.stop()
        self._forget_request()
        self._unread = b""

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Lend the common buffer: all of it for a body, a little for what may have to be kept."""
        size = _SMALL - len(self._unread)
        if not self._is_busy():
            size = max(size, self._reader.body_left)
        return memoryview(self._shared.buffer)[:size]

    def buffer_updated(self, nbytes: int) -> None:
        """Handle what has arrived, or keep it until the answer before it has left."""
        if self._is_ending:
            return
        if not self._is_busy():
            self._read(self._shared.buffer, nbytes)
        else:
            self._unread += self._shared.buffer[:nbytes]
        if len(self._unread) >= _SMALL:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """Keep the connection while there is something to answer."""
        self._is_half_closed = True
        self._idle.start()  # a peer that is gone says no more than this
        return self._is_busy()

    def pause_writing(self) -> None:
        """Read no further requests while the peer does not read its answers."""
        self._sender.pause()

    def resume_writing(self) -> None:
        """Go on."""
        self._sender.resume()

    # Called by the server.

    def abort(self) -> None:
        """Close without sending what is left."""
        self._transport.abort()

    def end(self) -> None:
        """Close; a peer that is in the middle of a request is told why."""
        if self._reader.is_between or self._is_ending or self._is_busy():
            self.abort()
        else:
            self._refuse(_TIMED_OUT)
            self._close_when_done()

    def has_left(self) -> bool:
        """Say whether the peer has closed its side; it may still wait for an answer."""
        return self._is_half_closed

    def keeps_waiting(self, seconds: float) -> bool:
        """Say whether the peer has kept the server waiting for so long."""
        return self._idle.is_over(seconds)

    # Called by the reader.

    def begin(self, head: Head) -> None:
        """Decide what the head decides, and make room for the body or ask for it."""
        answer = self._refusal(head)
        if answer is not None:
            self._refuse(answer)
        if self._is_ending:
            return
        self._expects = head.expects
        self._request = self._service.admit(head.method, head.target, head.token, head.length)
        if self._request.refusal is not None:
            if self._expects:
                self._answer(self._request, close=True)
            return
        needed = self._needed(head)
        if needed:
            self._wait_for(self._body_room, needed)
        if self._expects and not self._body_room.is_awaited:
            self._ask_for_body()

    def take(self, data: bytes) -> None:
        """Keep the body of a PUT, up to the limit; read past everything else."""
        request = self._request
        if request is None or request.refusal is not None or request.method != "PUT":
            return
        self._body.write(data)
        self._service.weigh(request, self._body.tell())
        if request.refusal is not None:
            self._forget_body()

    def finish(self, *, keep_alive: bool) -> None:
        """Answer."""
        if self._request is not None:
            self._answer(self._request, close=not keep_alive)

    # Inside.

    def _is_busy(self) -> bool:
        is_waiting = self._head_room.is_awaited or self._body_room.is_awaited
        return is_waiting or self._sender.is_busy

    def _read(self, data: bytes | bytearray, end: int) -> None:
        """Handle one request after the other; keep what is behind one that takes a while."""
        position = 0
        while position < end and not self._is_ending and not self._is_busy():
            if self._reader.is_between:
                self._idle.start()
            try:
                position = self._reader.step(data, position, end)
            except Malformed:
                self._refuse(_MALFORMED)
                break
            if self._reader.head_size > _SMALL and not self._head_room.size:
                self._wait_for(self._head_room, _LONG_HEAD)
        self._unread = b"" if self._is_ending else bytes(data[position:end])
        self._close_when_done()

    def _go_on(self) -> None:
        """Handle what has arrived meanwhile."""
        unread, self._unread = self._unread, b""
        self._read(unread, len(unread))
        if not self._is_half_closed and len(self._unread) < _SMALL:
            self._transport.resume_reading()

    def _close_when_done(self) -> None:
        if not self._is_busy() and (self._is_ending or self._is_half_closed):
            self._transport.close()

    def _refusal(self, head: Head) -> Answer | None:
        if head.is_malformed:
            return _MALFORMED
        if head.host and not is_named(head.host, self._shared.names):
            return _MISDIRECTED
        return _OF_A_PAGE if head.is_of_a_page else None

    def _needed(self, head: Head) -> int:
        """Return how much room the body needs beside what every connection has."""
        if head.method != "PUT":
            return 0
        length = MAX_ITEM if head.is_chunked else head.length
        return length if length > _SMALL else 0

    def _wait_for(self, room: Share, size: int) -> None:
        room.take(size)
        if room.is_awaited:
            self._idle.stop()

    def _go_on_after_waiting(self) -> None:
        self._idle.start()
        self._go_on()

    def _continue(self) -> None:
        """Receive the body, for which there is room now."""
        if self._expects:
            self._ask_for_body()
        self._go_on_after_waiting()

    def _ask_for_body(self) -> None:
        self._sender.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _forget_request(self) -> None:
        self._request = None
        self._head_room.give_back()
        self._forget_body()

    def _forget_body(self) -> None:
        if self._body.tell():
            self._body = BytesIO()
        self._body_room.give_back()

    def _answer(self, request: PartialRequest, *, close: bool) -> None:
        delivery = self._service.answer(request, self._body.getvalue())
        self._forget_request()
        self._is_ending = close or delivery.drop is not None
        head, body = render(delivery, close=close, bodiless=request.method == "HEAD")
        if delivery.delay > 0:
            self._sender.send_late(delivery.delay, head, body, delivery.answer.item)
        else:
            self._sender.send(head, body, delivery.answer.item)

    def _refuse(self, answer: Answer) -> None:
        """Answer something that is no request for the service, and end."""
        if not self._is_ending:
            self._is_ending = True
            self._forget_request()
            self._sender.send(*render(Delivery(answer), close=True, bodiless=False))
