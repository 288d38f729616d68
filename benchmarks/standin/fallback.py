"""The stand-in of ``standin.c`` over uvloop, for machines without a C compiler.

Same arguments, same answers, a lower ceiling. It knows nothing of tokens, expiry or limits.
"""

import asyncio
import ssl
import sys
from typing import Any

import uvloop

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n"
_NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
_NOT_FOUND = (
    b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nKey Not Found"
)
_LENGTH = b"content-length:"

_replies: dict[bytes, bytes] = {}


def _key(target: bytes) -> bytes:
    path, _, query = target.partition(b"?")
    return path + b"?" + query.partition(b"key_base64=")[2].partition(b"&")[0]


def _answer(method: bytes, target: bytes, body: bytes) -> bytes:
    key = _key(target)
    if method == b"GET":
        return _replies.get(key, _NOT_FOUND)
    if method == b"PUT":
        _replies[key] = _HEAD % len(body) + body
    else:
        _replies.pop(key, None)
    return _NO_CONTENT


def _body_length(head: bytes) -> int:
    at = head.lower().find(_LENGTH)
    return int(head[at + len(_LENGTH) :].partition(b"\r\n")[0]) if at >= 0 else 0


class _Protocol(asyncio.Protocol):
    latency = 0.0

    def __init__(self) -> None:
        self._arrived = bytearray()
        self._wanted = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._arrived += data
        while len(self._arrived) >= self._wanted and self._answer_one():
            pass

    def _answer_one(self) -> bool:
        end = self._arrived.find(b"\r\n\r\n") + 4
        if end < 4:
            return False
        head = bytes(self._arrived[:end])
        method, target, _ = head.split(b" ", 2)
        self._wanted = end + (_body_length(head) if method == b"PUT" else 0)
        if len(self._arrived) < self._wanted:
            return False
        self._reply(_answer(method, target, bytes(self._arrived[end : self._wanted])))
        del self._arrived[: self._wanted]
        self._wanted = 0
        return True

    def _reply(self, response: bytes) -> None:
        if self.latency:
            asyncio.get_running_loop().call_later(self.latency, self._transport.write, response)
        else:
            self._transport.write(response)


async def _serve(chain_and_key: list[str]) -> None:
    tls = None
    if chain_and_key:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*chain_and_key)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Protocol, "127.0.0.1", 0, ssl=tls, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    _Protocol.latency = int(sys.argv[1]) / 1e6
    uvloop.run(_serve(sys.argv[2:]))
