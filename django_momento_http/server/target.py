"""Reading what a request asks for from its target: path, cache, key, TTL.

It is strict, so that what works here works with the service; it knows neither tokens nor items.
"""

import binascii
import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

import httptools

from .limits import CACHE_NAME
from .messages import PartialRequest, Refused

_PATH = re.compile(rb"/cache/([^/]+)")
_BAD_ESCAPE = re.compile(rb"\+|%(?![0-9A-Fa-f]{2})")
# "+" and "/" become what no Base64 holds: they are not URL-safe.
_FROM_URL_SAFE = bytes.maketrans(b"-_+/", b"+/!!")


def read_target(request: PartialRequest, target: bytes) -> dict[bytes, bytes]:
    """Note the path and the cache that are asked for and return the query's parameters."""
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        raise Refused(400, "The request's target is not a URL") from None
    request.path = url.path or b""
    found = _PATH.fullmatch(request.path)
    if found is None:
        raise Refused(404, "No such path: caches live under /cache/{name}")
    if request.method not in ("GET", "PUT", "DELETE"):
        raise Refused(405, "Only GET, PUT and DELETE", ("Allow", "GET, PUT, DELETE"))
    name = _unquote(found[1])
    if not CACHE_NAME.fullmatch(name):
        raise Refused(400, "A cache's name is a URL-safe string")
    request.cache = name.decode()
    return _parse_query(url.query or b"")


def read_key(parameters: Mapping[bytes, bytes]) -> bytes:
    """Return the key that the request names, in one way and not in both."""
    plain, encoded = parameters.get(b"key"), parameters.get(b"key_base64")
    if (plain is None) == (encoded is None):
        raise Refused(400, "Give the key as either key or key_base64")
    key = _decode_base64(encoded) if encoded is not None else plain
    if not key:
        raise Refused(400, "The key is empty")
    return key


def read_ttl(parameters: Mapping[bytes, bytes], max_ttl: int | None) -> int:
    """Return ttl_seconds, within the limit."""
    text = parameters.get(b"ttl_seconds", b"")
    # Eighteen digits are beyond any clock, and short of what int() would refuse.
    seconds = int(text) if text.isdigit() and len(text) <= 18 else 0
    if seconds < 1 or (max_ttl is not None and seconds > max_ttl):
        limit = "" if max_ttl is None else f" and at most {max_ttl}"
        raise Refused(400, f"ttl_seconds must be a whole number, more than 0{limit}")
    return seconds


def _parse_query(query: bytes) -> dict[bytes, bytes]:
    """Return the parameters of a query, each of which may be given once."""
    parameters: dict[bytes, bytes] = {}
    for pair in query.split(b"&"):
        name, _, value = pair.partition(b"=")
        if name in parameters:
            raise Refused(400, "A query parameter is given twice")
        parameters[name] = _unquote(value)
    return parameters


def _unquote(text: bytes) -> bytes:
    """Percent-decode, refusing what two servers might read in two ways."""
    if _BAD_ESCAPE.search(text):
        raise Refused(400, "A space is %20, a plus is %2B, a percent sign is %25")
    return unquote_to_bytes(text)


def _decode_base64(text: bytes) -> bytes:
    """Decode URL-safe Base64, padded or not."""
    padding = b"" if text.endswith(b"=") else b"=" * (-len(text) % 4)
    try:
        return binascii.a2b_base64(text.translate(_FROM_URL_SAFE) + padding, strict_mode=True)
    except ValueError:
        raise Refused(400, "key_base64 is not URL-safe Base64") from None
