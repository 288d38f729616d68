"""What an answer means: bytes, nothing, or what went wrong (HTTP API, Response).

It knows the service's statuses, and nothing of what follows from them.
"""

from .._http.messages import Body, Response, Result
from ..exceptions import (
    AccessDenied,
    BadRequest,
    CacheNotFound,
    MomentoError,
    RateLimited,
    ServiceFailed,
    TransportError,
)

# The bytes, None when there are none (or none were asked for), or what went wrong.
Outcome = Body | None | MomentoError


def outcome_of(method: str, answer: Result) -> Outcome:
    """Return what an answer means for this method (HTTP API, Response)."""
    if isinstance(answer, MomentoError):
        return answer
    status = answer.status
    if status in (200, 204, 404) and b"content-encoding" in answer.headers:
        return TransportError("an answer in a content encoding was not asked for", kind="unusable")
    if status == 200 and method == "GET":
        return answer.body
    if status == 204 and method != "GET":
        return None
    if status == 404:
        return _not_found(method, answer.body.lower())
    return _error(status, answer)


def _not_found(method: str, body: Body) -> Outcome:
    # The specification names the two texts, not the form of the body around them.
    if b"cache not found" in body:
        return CacheNotFound("there is no such cache", status=404)
    if b"key not found" in body and method != "PUT":
        return None
    return TransportError("a 404 that is not the service's", kind="unusable")


def _error(status: int, response: Response) -> MomentoError:
    if status in (400, 413):
        return BadRequest(f"the service refused the request ({status})", status=status)
    if status == 401:
        return AccessDenied("the token is invalid or expired (401)", status=status)
    if status == 403:
        return AccessDenied("the token does not permit this (403)", status=status)
    if status == 429:
        retry_after = response.headers.get(b"retry-after", b"")
        seconds = float(retry_after) if retry_after.isdigit() else 0.0
        return RateLimited("the account's limit is used up (429)", retry_after=seconds)
    if status >= 500:
        return ServiceFailed(f"the service failed ({status})", status=status)
    return TransportError(f"an answer of status {status} was not expected", kind="unusable")
