"""All that may go wrong with a service, and what the policy says of it.

A trouble is a service that fails every request in one way: the true server with a fault, or a peer
on a real socket that lies, drips, or says nothing. It knows nothing of the cache's methods.
"""

import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

from django_momento_http.exceptions import (
    AccessDenied,
    BadRequest,
    CacheNotFound,
    ConnectFailed,
    MomentoError,
    RateLimited,
    ServiceFailed,
    TimedOut,
    TransportError,
)
from django_momento_http.testing import Fault, running_server
from tests.support.canary import SESSION, TOKEN
from tests.support.scripted import Peer, Script, after_request, response, scripted, silent

DEADLINE = 0.3
HTML = b"<html><title>404</title>no such page</html>"
# What somebody must mend is an error in the log, what passes by is a warning.
LOUD = (AccessDenied, BadRequest, CacheNotFound)


class Site(NamedTuple):
    """A service in trouble: where it is, and the requests that reached it.

    ``requests`` counts those to a cache by their method; None where the peer cannot tell.
    """

    endpoint: str
    requests: Callable[[str], Counter[str] | None]


Open = Callable[[tuple[str, ...]], AbstractContextManager[Site]]


class Trouble(NamedTuple):
    """A fault, and what the policy says of it."""

    name: str
    # Opens a site that has caches of these names.
    open: Open
    error: type[MomentoError] | tuple[type[MomentoError], ...]
    # A part of the error's message.
    says: str = ""
    is_retried: bool = False
    # The deadline is used up, or the breaker opens: nothing is sent after the first failure.
    ends_it: bool = False
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed
    # Too much for threads side by side: what the peer sends keeps this process busy.
    is_busy: bool = False
    # Tried on these methods only.
    only: tuple[str, ...] = ()

    @property
    def is_loud(self) -> bool:
        """Whether it is an error in the log."""
        return self.error in LOUD

    @property
    def is_refusal(self) -> bool:
        """Whether a value was refused for good, so that an old one must not stay."""
        return self.error is BadRequest


def always(**fault: Any) -> Open:
    """The true service with one fault for every request."""

    @contextmanager
    def site(locations: tuple[str, ...]) -> Iterator[Site]:
        with running_server(caches=locations, token=TOKEN) as server:
            server.inject(Fault(times=None, **fault))
            SESSION.check_targets(server)

            def requests(location: str) -> Counter[str]:
                return Counter(one.method for one in server.requests if one.cache == location)

            yield Site(server.endpoint, requests)

    return site


def peer(script: Script, *, counts: bool = True) -> Open:
    """A scripted peer; ``counts`` where it reads whole requests."""

    @contextmanager
    def site(locations: tuple[str, ...]) -> Iterator[Site]:
        with scripted(script) as server:

            def requests(location: str) -> Counter[str] | None:
                path = f"/cache/{location}?"
                of_cache = [one for one in server.received if one.target.startswith(path)]
                return Counter(one.method for one in of_cache) if counts else None

            yield Site(server.endpoint, requests)

    return site


@contextmanager
def refused(locations: tuple[str, ...]) -> Iterator[Site]:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield Site(f"http://127.0.0.1:{sock.getsockname()[1]}", lambda _: None)


def to_tls(script: Script) -> Open:
    """TLS is spoken to a peer that does not speak it."""

    @contextmanager
    def site(locations: tuple[str, ...]) -> Iterator[Site]:
        with scripted(script) as server:
            yield Site(f"https://127.0.0.1:{server.port}", lambda _: None)

    return site


def endless(start: bytes, more: bytes, times: int = 512) -> Script:
    """Answer with something that has no end, so many at once."""
    return after_request(lambda peer: peer.send(start), lambda peer: peer.flood(more * times))


def drip_head(peer: Peer) -> None:
    """Answer a byte at a time."""
    peer.request()
    peer.drip(response(200, b"value"))


def drip_body(peer: Peer) -> None:
    """Answer with a head at once and a body a byte at a time."""
    peer.request()
    peer.send(response(200, b"", length=5000))
    peer.drip(b"x" * 5000)


def hang_in(data: bytes) -> Script:
    """Send the beginning of an answer, and then nothing."""
    return after_request(lambda peer: peer.send(data), Peer.stall)


def answer_with(data: bytes) -> Script:
    """Answer one request with these bytes, and leave."""
    return after_request(lambda peer: peer.send(data))


def say_it_back(peer: Peer) -> None:
    """Refuse with all that was sent."""
    received = peer.request()
    peer.send(response(400, "\n".join((received.target, *received.lines)).encode()))


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
LONG = b"X-Header: " + b"x" * 100 + b"\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CHUNKS = b"1000\r\n" + b"x" * 4096 + b"\r\n"

# Each client over TLS reads a bundle of certificates first, which costs more than the operation.
SOME = ("get", "get_many", "set", "delete", "incr", "clear")


def connecting() -> Iterator[Trouble]:
    """Yield what keeps a connection from being made."""
    soon = {"CONNECT_TIMEOUT": 0.12}
    yield Trouble("refused", refused, ConnectFailed)
    chatty = to_tls(lambda peer: peer.send(b"220 who are you?\r\n" * 10))
    yield Trouble("tls to plain", chatty, ConnectFailed, only=SOME)
    yield Trouble("tls silence", to_tls(silent), ConnectFailed, options=soon, only=SOME)


def slow() -> Iterator[Trouble]:
    """Yield what comes too late, or not at all."""
    sites = {
        "accept and silence": peer(silent, counts=False),
        "read and silence": peer(after_request(Peer.stall)),
        "drip headers": peer(drip_head),
        "drip body": peer(drip_body),
        "hang in headers": peer(hang_in(HEAD + b"Conte")),
        "hang in body": peer(hang_in(response(200, b"x", length=9))),
        "late answer": always(delay=2 * DEADLINE),
    }
    for name, site in sites.items():
        yield Trouble(name, site, TimedOut, ends_it=True)


def broken() -> Iterator[Trouble]:
    """Yield connections that end before the answer does, or that carry something else."""
    sites = {
        **{f"drop {when}": always(drop=when) for when in ("before", "after", "headers", "body")},
        "reset": peer(after_request(Peer.reset)),
        "truncated length": peer(answer_with(response(200, b"value", length=5000))),
        "no length": peer(answer_with(response(200, b"value", length=None))),
        "tls garbage": peer(answer_with(b"\x15\x03\x01\x00\x02\x02\x28")),
    }
    for name, site in sites.items():
        yield Trouble(name, site, TransportError, is_retried=True)


def boundless() -> Iterator[Trouble]:
    """Yield answers that are larger than any item, or have no end."""
    too_long = peer(hang_in(response(200, b"x", length=2**40)))
    yield Trouble("length beyond an item", too_long, TransportError)
    sites = {
        "endless headers": peer(endless(HEAD, LONG)),
        "endless 1xx": peer(endless(b"", CONTINUE)),
        "endless chunks": peer(endless(CHUNKED, CHUNKS, times=16)),
    }
    for name, site in sites.items():
        yield Trouble(name, site, TransportError, is_busy=True)
    yield Trouble(
        "endless small chunks",
        peer(endless(CHUNKED, b"1\r\nx\r\n")),
        (TransportError, TimedOut),  # whichever limit this machine reaches first
        ends_it=True,
        is_busy=True,
        only=("get", "has_key"),
    )


def unusable() -> Iterator[Trouble]:
    """Yield answers that no service gives to what was asked."""
    coded = always(headers=(("Content-Encoding", "gzip"),))
    yield Trouble("content encoding", coded, TransportError, "encoding")
    yield Trouble("a proxy's page", always(status=404, body=HTML), TransportError, "404")
    yield Trouble("an empty 404", always(status=404), TransportError, "404")
    for status in (301, 302, 303, 307, 308):
        moved = always(status=status, body=HTML, headers=(("Location", "/cache/elsewhere"),))
        yield Trouble(str(status), moved, TransportError, str(status))
    away = always(status=302, headers=(("Location", "http://127.0.0.1/"),))
    yield Trouble("302 to another", away, TransportError, "302")
    for status in (202, 206, 418):
        yield Trouble(str(status), always(status=status, body=b"x"), TransportError, str(status))


def answered() -> Iterator[Trouble]:
    """Yield what the service itself says, in words that repeat the token."""
    said = TOKEN.encode()
    no_cache, in_json = b"Cache Not Found", b'{"message":"Cache not found"}'
    later = (("Retry-After", "3"),)
    for name, body in (("no cache", no_cache), ("no cache, in JSON", in_json)):
        missing = always(status=404, body=body)
        yield Trouble(name, missing, CacheNotFound, "no such cache", ends_it=True)
    yield Trouble("400", always(status=400, body=said), BadRequest, "400")
    yield Trouble("400 that says it back", peer(say_it_back), BadRequest, "400")
    yield Trouble("413", always(status=413), BadRequest, "413")
    yield Trouble("401", always(status=401, body=said), AccessDenied, "401", ends_it=True)
    yield Trouble("403", always(status=403, body=said), AccessDenied, "403")
    yield Trouble("429", always(status=429), RateLimited, "429")
    limited = always(status=429, headers=later)
    yield Trouble("429 with Retry-After", limited, RateLimited, "429", ends_it=True)
    for status in (500, 502, 503, 504):
        failed = always(status=status, body=said)
        yield Trouble(str(status), failed, ServiceFailed, str(status), is_retried=True)
    yield Trouble("501", always(status=501), ServiceFailed, "501")


TROUBLES = (*connecting(), *slow(), *broken(), *boundless(), *unusable(), *answered())
