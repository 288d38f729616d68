"""A non-blocking socket, and the steps that connect it, secure it, send and receive on it.

Everything that may have to wait is a generator that yields the poll events it waits for and is sent
the events that came, 0 when its time is up; whoever drives it owns the clock. So the same steps
serve one request or many at once. It knows nothing of HTTP.

What is to be sent stands in an attribute and in no variable: whatever interrupts a wait leaves
frames behind, whose variables are shown to whoever looks for the error.
"""

import errno
import socket
import ssl
import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from .._interrupts import is_raised_by_signal_handler
from ..exceptions import TimedOut, TransportError
from .polling import READ, WRITE, Poll, new_poll

A = TypeVar("A")
T = TypeVar("T")
IOSteps = Generator[int, int, T]
Address = tuple[socket.AddressFamily, Any]

# Yielded where no socket can tell when to go on: look again soon.
LOOK = 1 << 16
LOOK_SECONDS = 0.002
_READ_SIZE = 64 * 1024
LATE = "no whole answer in time"
# A plain socket holds no bytes back, as TLS may: ``int()`` is 0, without a call of Python code.
_nothing = int


class Stream:
    """A socket of one connection; ``until`` is when the step of connecting must be over."""

    __slots__ = (
        "__weakref__",
        "_awaited",
        "_limit",
        "_poll",
        "_sock",
        "_unsent",
        "clock",
        "fd",
        "pending",
        "until",
    )

    def __init__(self, clock: Callable[[], float]) -> None:
        self._sock: Any = None
        self.fd = -1  # the socket's descriptor, -1 where there is none
        # How many bytes were received and not yet read.
        self.pending: Callable[[], int] = _nothing
        self._poll: Poll = new_poll()
        self._awaited = 0
        self._unsent: bytes | bytearray | memoryview = b""
        self.clock = clock
        self.until = float("inf")
        self._limit = float("inf")  # when all of connecting must be over

    @property
    def is_open(self) -> bool:
        """Whether it is connected and secured."""
        return self._sock is not None and self.until == float("inf")

    def is_reusable_now(self) -> bool:
        """Whether the idle peer has neither closed nor said anything unasked."""
        if self._awaited != READ:
            return not self.pending() and not self.wait(READ, 0.0)
        return not self.pending() and not self._poll.poll(0)

    def wait(self, events: int, seconds: float) -> int:
        """Wait for the events and return those that came, 0 when none did in time."""
        if events != self._awaited:
            if events == LOOK:
                time.sleep(min(seconds, LOOK_SECONDS))
                return LOOK if seconds > LOOK_SECONDS else 0
            self._poll.register(self.fd, events)
            self._awaited = events
        ready = self._poll.poll(seconds * 1000)
        return ready[0][1] if ready else 0

    def postpone(self, seconds: float) -> None:
        """Take these seconds as not passed."""
        self.until += seconds
        self._limit += seconds

    def close(self) -> None:
        """Close the socket; interrupted, it can be done again."""
        if self._sock is not None:
            _close(self._sock)
        self._sock = None
        self.fd = -1
        self.pending = _nothing
        self._unsent = b""

    def _connect(self, address: Address) -> IOSteps[str]:
        """Connect and return nothing, or why that failed."""
        try:
            sock = self._sock = _new_socket(address[0])
            self._poll, self._awaited = new_poll(), 0
            self.fd = sock.fileno()
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect(address[1])
        except BlockingIOError:
            pass
        except OSError as refused:
            if is_raised_by_signal_handler(refused):
                raise
            return _reason(refused.errno)
        else:
            return ""
        if not (yield WRITE):
            return "no answer in time"
        return _reason(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _start_tls(
        self, context: ssl.SSLContext, host: str, session: ssl.SSLSession | None
    ) -> IOSteps[None]:
        try:
            self._sock = context.wrap_socket(
                self._sock,
                do_handshake_on_connect=False,
                # As bytes it passes no codec of Python's, whose wrapper hides what interrupts it.
                server_hostname=host.encode() if host.isascii() else host,
                session=session,
            )
        except BaseException as error:
            _close_half_made(self._sock, error)
            raise
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
        self.pending = self._sock.pending

    def _try_send(self) -> bool:
        """Send what can be sent at once and return whether it was all; the rest stays unsent."""
        if self.pending is not _nothing:
            # Unlike bytes, it does not show what it holds in the frames of ``ssl``.
            self._unsent = memoryview(self._unsent)
        try:
            sent: int = self._sock.send(self._unsent)
        except (BlockingIOError, ssl.SSLError, BrokenPipeError, ConnectionResetError) as error:
            if is_raised_by_signal_handler(error):
                raise
            return False  # sending the rest meets the same error, and reports it
        if sent == len(self._unsent):
            self._unsent = b""
            return True
        self._unsent = memoryview(self._unsent)[sent:]
        return False

    def _try_receive(self) -> bytes:
        """Return what has come; if it is nothing, the next read says why."""
        try:
            data: bytes = self._sock.recv(_READ_SIZE)
        except (BlockingIOError, ssl.SSLWantReadError):
            return b""
        return data

    def _send_rest(self, is_answered: Callable[[bytes], bool]) -> IOSteps[bool]:
        """Send the rest and return True; False when the peer answered or left before the end."""
        while self._unsent:
            try:
                self._unsent = memoryview(self._unsent)[self._sock.send(self._unsent) :]
                continue
            except (BlockingIOError, ssl.SSLWantWriteError):
                wanted = WRITE | READ
            except ssl.SSLWantReadError:
                wanted = READ
            except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError) as left:
                if is_raised_by_signal_handler(left):
                    raise
                return False
            ready = yield wanted
            if not ready:
                raise TimedOut("the request could not be sent in time")
            if ready & ~WRITE and not self._goes_on(is_answered):
                return False
        return True

    def _goes_on(self, is_answered: Callable[[bytes], bool]) -> bool:
        """Whether the peer, that may have said something, still takes the request."""
        try:
            data = self._sock.recv(_READ_SIZE)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return True  # under TLS: what came was for TLS, and nothing for us
        return bool(data) and not is_answered(data)

    def _take(self, receive: Callable[[A], T], wanted: A) -> IOSteps[T]:
        """Return what ``receive(wanted)`` gives of the socket, once there is something."""
        while True:
            if not self.pending() and not (yield READ):
                raise TimedOut(LATE)
            try:
                taken = receive(wanted)
            except (BlockingIOError, ssl.SSLWantReadError):
                continue
            if not taken:
                raise TransportError("the connection was closed before a whole answer arrived")
            return taken

    def _read(self) -> IOSteps[bytes]:
        data: bytes = yield from self._take(self._sock.recv, _READ_SIZE)
        return data


def _reason(code: int | None) -> str:
    return errno.errorcode.get(code, str(code)) if code else ""


def _new_socket(family: socket.AddressFamily) -> socket.socket:
    try:
        return socket.socket(family, socket.SOCK_STREAM)
    except BaseException as error:
        _close_half_made(None, error)
        raise


def _close(sock: Any) -> None:
    """Close a socket in one step of C code, unless it is a green one."""
    if isinstance(sock, socket.SocketType):
        socket.SocketType.close(sock)
    else:
        sock.close()


def _close_half_made(sock: Any, error: BaseException) -> None:
    """Close the sockets that an interrupt has left half made, of which ``sock`` may be one's start.

    Left to their finalizers, Python makes a warning of each, and whatever a signal handler raises
    meanwhile is lost without a word.
    """
    closed: set[int] = set()
    for value in _left_behind(error):
        if not isinstance(value, socket.SocketType):
            if isinstance(value, ssl.SSLSocket) and sock is not None:  # a green one
                _detach_twin(sock, value)
        elif value.fileno() in closed:
            # Closed twice, its number could be another connection's by then.
            value.detach()
        else:
            closed.add(value.fileno())
            _close(value)


def _detach_twin(sock: Any, other: Any) -> None:
    if sock.fileno() == other.fileno() != -1:
        sock.detach()


def _left_behind(error: BaseException) -> list[Any]:
    """Return the variables of the libraries' frames; others' are none of ours to close."""
    libraries = {socket.socket.__module__, ssl.SSLSocket.__module__}
    found: list[Any] = []
    # Not the frame that caught the error: to read its variables makes it keep the error.
    traceback = error.__traceback__ and error.__traceback__.tb_next
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__") in libraries:
            found.extend(traceback.tb_frame.f_locals.values())
        traceback = traceback.tb_next
    return found
