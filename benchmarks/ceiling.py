"""How much the stand-in can serve: only a server that waits for its clients can measure them.

It knows nothing of the clients that are measured.
"""

import socket
import time
from dataclasses import dataclass

import wire
from children import Children

_CONNECTIONS = 8
_DEPTH = 64
_SECONDS = 1.0
_REPEATS = 5
_WIDTH = 64
_BATCH = 12800


@dataclass(frozen=True)
class Ceiling:
    """Requests per second of 200-byte GETs."""

    kind: str
    pipelined: float
    # What a core can do when every request is a packet of its own: from the server's CPU time,
    # since no client in Python keeps it busy.
    one_by_one: float | None


def measure(children: Children) -> Ceiling:
    """Return what the stand-in reaches, the best of some tries: noise only takes away."""
    server = children.standin()
    raw = wire.RawSocket(server.port)
    raw.put("ceiling", b"v" * 200)
    raw.close()
    pipelined = max(_pipelined(server.port) for _ in range(_REPEATS))
    before = server.cpu_seconds()
    floor = wire.SelectorsFloor(server.port, _WIDTH)
    for _ in range(_REPEATS):
        floor.get_many(["ceiling"] * _BATCH)
    floor.close()
    used = server.cpu_seconds() - before
    one_by_one = _REPEATS * _BATCH / used if used else None
    return Ceiling(children.standin_kind, pipelined, one_by_one)


def _pipelined(port: int) -> float:
    socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(_CONNECTIONS)]
    batch = wire.get_request(port, "ceiling") * _DEPTH
    socks[0].sendall(wire.get_request(port, "ceiling"))
    response = len(socks[0].recv(4096))
    served = 0
    started = time.perf_counter()
    while time.perf_counter() - started < _SECONDS:
        for sock in socks:
            sock.sendall(batch)
        for sock in socks:
            left = response * _DEPTH
            while left:
                left -= len(sock.recv(1 << 18))
        served += _CONNECTIONS * _DEPTH
    elapsed = time.perf_counter() - started
    for sock in socks:
        sock.close()
    return served / elapsed
