"""A non-blocking socket, and the steps that connect it, secure it, send and receive on it.

Everything that may have to wait is a generator that yields the poll events it waits for and is sent
the events that came, 0 when its time is up; whoever drives it owns the clock. So the same steps
serve one request or many at once. It knows nothing of HTTP.
"""

import errno
import socket
import ssl
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

from .exceptions import ConnectFailed, TimedOut, TransportError
from .polling import READ, WRITE, Poll, new_poll

A = TypeVar("A")
T = TypeVar("T")
Steps = Generator[int, int, T]
Address = tuple[socket.AddressFamily, Any]

_READ_SIZE = 64 * 1024
LATE = "no whole answer in time"


class Wire:
    """A socket of one connection; ``until`` is when the step of connecting must be over."""

    __slots__ = ("_awaited", "_limit", "_pending", "_poll", "_sock", "clock", "until")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._sock: Any = None
        self._pending: Callable[[], int] = _nothing
        self._poll: Poll = new_poll()
        self._awaited = 0
        self.clock = clock
        self.until = float("inf")
        self._limit = float("inf")  # when all of connecting must be over

    @property
    def is_open(self) -> bool:
        """Whether it is connected and secured."""
        return self._sock is not None and self.until == float("inf")

    def fileno(self) -> int:
        """Return the socket's descriptor, -1 when there is none."""
        return self._sock.fileno() if self._sock is not None else -1

    def is_quiet(self) -> bool:
        """Whether the idle peer has neither closed nor said anything unasked."""
        return not self._pending() and not self.wait(READ, 0.0)

    def wait(self, events: int, seconds: float) -> int:
        """Wait for the events and return those that came, 0 when none did in time."""
        if events != self._awaited:
            self._poll.register(self._sock.fileno(), events)
            self._awaited = events
        ready = self._poll.poll(seconds * 1000)
        return ready[0][1] if ready else 0

    def postpone(self, seconds: float) -> None:
        """Take these seconds as not passed."""
        self.until += seconds
        self._limit += seconds

    def close(self) -> None:
        """Close the socket."""
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()

    def _connect(self, addresses: Sequence[Address], limit: float) -> Steps[None]:
        failure = "no address"
        self._limit = limit
        for index, (family, address) in enumerate(addresses):
            now = self.clock()
            # One address that swallows packets must not use up the time of the next.
            last = index == len(addresses) - 1
            self.until = self._limit if last else now + (self._limit - now) / 2
            try:
                sock = self._sock = socket.socket(family, socket.SOCK_STREAM)
                self._poll, self._awaited = new_poll(), 0
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.connect(address)
            except BlockingIOError:
                ready = yield WRITE
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if ready else None
            except OSError as refused:
                code = refused.errno
            else:
                code = 0
            if code == 0:
                return
            self.close()
            failure = "no answer in time" if code is None else errno.errorcode.get(code, str(code))
        raise ConnectFailed(f"no connection ({failure})")

    def _shake_hands(
        self, context: ssl.SSLContext, host: str, session: ssl.SSLSession | None
    ) -> Steps[None]:
        self._sock = context.wrap_socket(
            self._sock,
            do_handshake_on_connect=False,
            server_hostname=host,
            session=session,
        )
        while True:
            try:
                self._sock.do_handshake()
            except ssl.SSLWantReadError:
                wanted = READ
            except ssl.SSLWantWriteError:
                wanted = WRITE
            else:
                break
            if not (yield wanted):
                raise TimedOut("no TLS handshake in time")
        self._pending = self._sock.pending

    def _try_send(self, data: bytes | bytearray) -> int:
        """Send what can be sent at once and return how much; whoever sends the rest sees why."""
        try:
            sent: int = self._sock.send(data)
        except (BlockingIOError, ssl.SSLError, BrokenPipeError, ConnectionResetError):
            return 0
        return sent

    def _try_receive(self) -> bytes:
        """Return what has come; whoever reads on sees why it is nothing."""
        try:
            data: bytes = self._sock.recv(_READ_SIZE)
        except (BlockingIOError, ssl.SSLWantReadError):
            return b""
        return data

    def _send_part(self, view: memoryview) -> Steps[bool]:
        while view:
            try:
                view = view[self._sock.send(view) :]
                continue
            except (BlockingIOError, ssl.SSLWantWriteError):
                # An answer that comes before the end of the request is its refusal. Under TLS a
                # readable socket says nothing: it may be a session ticket.
                wanted = WRITE if isinstance(self._sock, ssl.SSLSocket) else WRITE | READ
            except ssl.SSLWantReadError:
                wanted = READ
            except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
                return False
            ready = yield wanted
            if not ready:
                raise TimedOut("the request could not be sent in time")
            if wanted == WRITE | READ and not ready & WRITE:
                return False
        return True

    def _take(self, receive: Callable[[A], T], wanted: A) -> Steps[T]:
        """Return what ``receive(wanted)`` gives of the socket, once there is something."""
        while True:
            if not self._pending() and not (yield READ):
                raise TimedOut(LATE)
            try:
                taken = receive(wanted)
            except (BlockingIOError, ssl.SSLWantReadError):
                continue
            if not taken:
                raise TransportError("the connection was closed before a whole answer arrived")
            return taken

    def _read(self) -> Steps[bytes]:
        data: bytes = yield from self._take(self._sock.recv, _READ_SIZE)
        return data


def _nothing() -> int:
    """Say that a plain socket holds no bytes back, as TLS may."""
    return 0
