"""An answer as the bytes of HTTP/1.1, whole or cut. It knows no socket."""

from functools import lru_cache
from http.client import responses

from .messages import Delivery


def render(delivery: Delivery, *, close: bool, bodiless: bool) -> tuple[bytes, bytes]:
    """Return the head and the body to send, cut where the delivery says so."""
    status, body, headers, _ = delivery.answer
    if delivery.drop in ("before", "after"):
        return b"", b""
    bodiless = bodiless or _is_bodiless(status)
    if delivery.drop == "body" and not bodiless:
        return _head(status, len(body) + 1, headers, close=close), body
    head = _head(status, len(body), headers, close=close)
    if delivery.drop:
        return head[: len(head) // 2], b""
    return head, b"" if bodiless else body


def _is_bodiless(status: int) -> bool:
    return status < 200 or status in (204, 304)


@lru_cache(maxsize=4096)
def _head(status: int, length: int, headers: tuple[tuple[str, str], ...], *, close: bool) -> bytes:
    """Return the bytes of an answer's head; ``headers`` win over those that every answer has."""
    fields = {"content-type": "application/octet-stream", "content-length": str(length)}
    if _is_bodiless(status):
        fields = {}
    if close:
        fields["connection"] = "close"
    for name, _ in headers:
        fields.pop(name.lower(), None)
    lines = [f"{name.title()}: {text}\r\n" for name, text in fields.items()]
    lines += [f"{name}: {text}\r\n" for name, text in headers]
    return f"HTTP/1.1 {status} {responses.get(status, 'Unknown')}\r\n{''.join(lines)}\r\n".encode()
