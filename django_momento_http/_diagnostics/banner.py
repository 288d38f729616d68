"""What listens at an endpoint, found out by asking: for when it does not answer as Momento does.

What is sent holds neither a token nor a key. It knows nothing of what follows from the answer.
"""

import socket
import ssl
from urllib.parse import urlsplit

from .._interrupts import is_raised_by_signal_handler

# It does no harm: to Redis it is a GET with too many arguments, to memcached no command.
_QUESTION = b"GET / HTTP/1.0\r\n\r\n"
_TLS_ALERT = b"\x15\x03"
# How an answer begins, and which protocol begins so.
_BEGINNINGS = {
    b"HTTP/": "http",
    _TLS_ALERT: "tls",
    b"-": "redis",
    b"+": "redis",
    b"ERROR\r\n": "memcached",
    b"CLIENT_ERROR": "memcached",
    b"SSH-": "ssh",
    b"220": "smtp",
}
_HTTPS = b"https"


def protocol_at(endpoint: str, timeout: float) -> str:
    """Return what is spoken at an endpoint, "" where that cannot be told."""
    url = urlsplit(endpoint)
    address = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
    answer = _answer(address, timeout)
    found = next((name for start, name in _BEGINNINGS.items() if answer.startswith(start)), "")
    # A server that waits for TLS closes without a word, or asks for it in plain http.
    is_in_doubt = not found or (found == "http" and _HTTPS in answer.lower())
    return "tls" if is_in_doubt and _shakes_hands(address, timeout) else found


def _answer(address: tuple[str, int], timeout: float) -> bytes:
    try:
        with socket.create_connection(address, timeout) as sock:
            sock.sendall(_QUESTION)
            return sock.recv(1024)
    except OSError as error:
        if is_raised_by_signal_handler(error):
            raise
    return b""


def _shakes_hands(address: tuple[str, int], timeout: float) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent; whoever it is, it speaks TLS
    try:
        with socket.create_connection(address, timeout) as sock:
            context.wrap_socket(sock, server_hostname=address[0]).close()
    except OSError as error:
        if is_raised_by_signal_handler(error):
            raise
        return False
    return True
