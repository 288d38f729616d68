"""Sending answers: one at a time, at once or late, and in pieces.

A value that nobody reads is not copied: a piece of it waits for the socket, the rest stays where it
is stored. It knows nothing of requests.
"""

import asyncio
from collections.abc import Callable

from .limits import IdleTimer
from .messages import Item
from .store import ItemStore

# Small, because each connection may have one waiting; large enough that calls cost little.
_PIECE = 16 * 1024


class Sender:
    """Sends a connection's answers and calls ``when_sent`` after each that took a while."""

    def __init__(
        self,
        transport: asyncio.Transport,
        store: ItemStore,
        idle: IdleTimer,
        when_sent: Callable[[], None],
    ) -> None:
        transport.set_write_buffer_limits(high=0)  # paused until the socket has taken everything
        self._transport = transport
        self._store = store
        self._idle = idle
        self._when_sent = when_sent
        self._body = b""
        self._sent = 0  # of the body
        self._item: Item | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_paused = False

    @property
    def is_busy(self) -> bool:
        """Whether an answer is held back or waits for the socket."""
        return self._is_paused or self._timer is not None

    def send(self, head: bytes, body: bytes = b"", item: Item | None = None) -> None:
        """Send an answer, as far as the socket takes it now."""
        self._hold(body, item)
        self._begin(head)

    def send_late(self, delay: float, head: bytes, body: bytes, item: Item | None) -> None:
        """Hold an answer back for some seconds."""
        self._hold(body, item)
        self._idle.stop()
        self._timer = asyncio.get_running_loop().call_later(delay, self._begin_late, head)

    def pause(self) -> None:
        """Wait until the socket has taken what it was given."""
        self._is_paused = True

    def resume(self) -> None:
        """Go on."""
        self._is_paused = False
        self._send_more()
        if not self._is_paused:
            self._when_sent()

    def stop(self) -> None:
        """Send no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._let_go()

    def _begin(self, head: bytes) -> None:
        self._idle.start()
        self._sent = _PIECE
        if head:
            self._transport.write(head + self._body[:_PIECE])
        self._send_more()

    def _begin_late(self, head: bytes) -> None:
        self._timer = None
        self._begin(head)
        if not self._is_paused:
            self._when_sent()

    def _send_more(self) -> None:
        while self._sent < len(self._body) and not self._is_paused:
            if self._transport.is_closing():
                break
            self._transport.write(memoryview(self._body)[self._sent : self._sent + _PIECE])
            self._sent += _PIECE
        if not self._is_paused:
            self._let_go()

    def _hold(self, body: bytes, item: Item | None) -> None:
        self._body, self._item = body, item
        if item is not None:
            self._store.hold(item)

    def _let_go(self) -> None:
        if self._item is not None:
            self._store.release(self._item)
        self._body, self._item = b"", None
