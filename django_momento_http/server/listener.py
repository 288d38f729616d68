"""The socket that listens, and what ends connections: their number, idleness, the server's end."""

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from .connection import ClientConnection, Shared
from .hosts import bracketed, names_of
from .service import Service

# Connections that asyncio accepts in one turn, before any of them is known here: few, so that
# those that are too many are closed before the next arrive. The kernel keeps more waiting.
_AT_ONCE = 16
_BACKLOG = 1024


class Server:
    """Listens in the running event loop and can be stopped without leaving anything behind."""

    def __init__(self, service: Service, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._shared = Shared(service, clock)
        self._idle_timeout = service.config.idle_timeout
        self._listener: asyncio.Server
        self._sweep: asyncio.TimerHandle
        self.endpoint = ""

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return self._shared.names is not None

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 picks a free one."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: ClientConnection(self._shared), host, port, backlog=_AT_ONCE
        )
        for listening in self._listener.sockets:
            with socket.fromfd(listening.fileno(), listening.family, listening.type) as same:
                same.listen(_BACKLOG)
        bound = [listening.getsockname() for listening in self._listener.sockets]
        self._shared.names = names_of(host, [name[0] for name in bound])
        self.endpoint = f"http://{bracketed(host)}:{bound[0][1]}"
        self._sweep_later()

    async def stop(self) -> None:
        """Close the listener and every connection."""
        self._sweep.cancel()
        await self._stop_accepting()
        for connection in list(self._shared.connections):
            connection.abort()
        # An aborted transport says connection_lost in the loop's next rounds.
        for _ in range(10):
            if not self._shared.connections:
                break
            await asyncio.sleep(0)
        await self._listener.wait_closed()

    def end_idle_connections(self) -> None:
        """Close the connections whose peers keep the server waiting for too long."""
        for connection in list(self._shared.connections):
            if connection.keeps_waiting(self._idle_timeout):
                connection.end()

    def _sweep_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweep = loop.call_later(min(5.0, self._idle_timeout / 4), self._sweep_now)

    def _sweep_now(self) -> None:
        self.end_idle_connections()
        self._sweep_later()

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
