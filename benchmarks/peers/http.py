"""Bytes over HTTP with the usual clients, each used as its documentation shows.

They fetch and do not decode; they know nothing of Django.
"""

import asyncio
import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import requests
import urllib3
from requests.adapters import HTTPAdapter
from wire import CACHE, TOKEN, key_base64, target

_HEADERS = {"Authorization": TOKEN}
_SECONDS = 5.0


class Urllib3:
    """urllib3's PoolManager."""

    def __init__(self, origin: str, authority: str | None = None) -> None:
        self._origin = origin
        self._pool = urllib3.PoolManager(ca_certs=authority)

    def get(self, key: str) -> bytes:
        """Return the value."""
        url = self._origin + target(key)
        return self._pool.request("GET", url, headers=_HEADERS, timeout=_SECONDS).data

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()


class Requests:
    """requests, naive: one Session and ``Session.get``."""

    def __init__(self, origin: str, width: int = 1) -> None:
        self._url = f"{origin}/cache/{CACHE}"
        self._session = requests.Session()
        self._session.mount("http://", HTTPAdapter(pool_maxsize=width))

    def get(self, key: str) -> bytes:
        """Return the value."""
        response = self._session.get(
            self._url,
            params={"key_base64": key_base64(key)},
            headers=_HEADERS,
            timeout=_SECONDS,
        )
        response.raise_for_status()
        return response.content

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


class ThreadedRequests:
    """Many GETs over requests in a pool of threads that share a Session."""

    def __init__(self, origin: str, threads: int = 32) -> None:
        self._requests = Requests(origin, threads)
        self._executor = ThreadPoolExecutor(threads)

    def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return the values."""
        return dict(zip(keys, self._executor.map(self._requests.get, keys), strict=True))

    def close(self) -> None:
        """End the threads and close the connections."""
        self._executor.shutdown()
        self._requests.close()


class Aiohttp:
    """aiohttp's ClientSession with as many connections as ours has."""

    def __init__(self, origin: str, width: int = 64) -> None:
        self._origin = origin
        self._width = width
        self._session: aiohttp.ClientSession | None = None

    async def get(self, key: str) -> bytes:
        """Return the value."""
        session = self._session
        if session is None:
            connector = aiohttp.TCPConnector(limit=self._width)
            session = self._session = aiohttp.ClientSession(connector=connector)
        async with session.get(self._origin + target(key), headers=_HEADERS) as response:
            response.raise_for_status()
            value: bytes = await response.read()
            return value

    async def get_many(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return the values, all asked for at once."""
        values = await asyncio.gather(*map(self.get, keys))
        return dict(zip(keys, values, strict=True))

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


def trusting(authority: str) -> ssl.SSLContext:
    """Return a client's TLS context that trusts this authority."""
    return ssl.create_default_context(cafile=authority)
