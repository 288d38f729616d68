"""What trouble means: for each kind of it the likely cause and the next step, in words.

It knows no connection, and nothing of how it is printed. No text holds a token, a key or a value.
"""

from collections.abc import Mapping
from typing import NamedTuple

from .._conf.options import Options
from ..exceptions import AccessDenied, ConnectFailed, MomentoError, ResponseError


class _Words(NamedTuple):
    cause: str
    advice: str = ""  # empty: what the error itself advises


# Said by the system checks, too.
CORRECT = "Correct CACHES[{!r}]; the documentation has a table of all options."
NEW_KEY = (
    "Make a new API key in the Momento console; for tokens that expire on purpose, set TOKEN to a"
    " callable that returns a fresh one."
)
# How a certificate is refused in OpenSSL's words, and which of the texts below that means.
_CERTIFICATES = {
    "self-signed": "tls_authority",
    "self signed": "tls_authority",
    "unable to get": "tls_authority",
    "expired": "tls_time",
    "not yet valid": "tls_time",
    "mismatch": "tls_name",
    "not valid for": "tls_name",
}
# The texts are about options, hosts and statuses, never about secrets.
_WORDS: Mapping[str, _Words] = {
    "dns": _Words(
        "the host name of {peer} is unknown here: {reason}",
        "Look for a typing error in {option}, and check this host's DNS.",
    ),
    "refused": _Words(
        "{peer} refused the connection",
        "Check {option} and its port, and that the server runs there; a firewall may refuse, too.",
    ),
    "connect": _Words(
        "{peer} could not be reached ({reason})",
        "Check {option}, and that this host may reach it.",
    ),
    "connect_timeout": _Words(
        "no connection to {peer} within CONNECT_TIMEOUT ({connect_timeout:g} s)",
        "Check {option}, and that a firewall lets this host out; if the network is slow, raise"
        " CONNECT_TIMEOUT and REQUEST_TIMEOUT.",
    ),
    "proxy": _Words(
        "{reason}",
        "Check PROXY, its user name and password, and that it permits tunnels to {endpoint}.",
    ),
    "tls": _Words(
        "no TLS connection ({reason})",
        "Check the scheme and port of ENDPOINT, and whether something between this host and the"
        " service interferes with TLS.",
    ),
    "speaks_plain": _Words(
        "{endpoint} speaks plain http, no TLS",
        "Check the port of ENDPOINT; if a local server is meant, write http:// there.",
    ),
    "speaks_tls": _Words(
        "{endpoint} speaks TLS, and was spoken to in plain http",
        "Write https:// in ENDPOINT.",
    ),
    "speaks_other": _Words(
        "{other} listens at {endpoint}, which does not speak HTTP",
        "Check host and port of ENDPOINT: it must lead to Momento's HTTP API. In the cloud, REGION"
        " alone is enough.",
    ),
    "tls_authority": _Words(
        "the certificate is signed by an authority that is not trusted here ({reason})",
        "If your network intercepts TLS, set CA_BUNDLE to a file with its authority's certificate;"
        " if CA_BUNDLE is set, check that file; otherwise check ENDPOINT.",
    ),
    "tls_time": _Words(
        "the certificate is outside the time of its validity ({reason})",
        "Check this host's clock; if it is right, the certificate must be renewed.",
    ),
    "tls_name": _Words(
        "the certificate is for another host ({reason})",
        "Check ENDPOINT; if it is right, something between this host and the service answers in"
        " its place.",
    ),
    "timeout": _Words("no whole answer within REQUEST_TIMEOUT ({request_timeout:g} s)"),
    "connection": _Words("the connection broke ({reason})"),
    "unusable": _Words(
        "{reason}",
        "Something other than Momento answers at {endpoint}: check ENDPOINT, and whether a proxy"
        " stands in between.",
    ),
    "token": _Words("{reason}"),
    "token_expired": _Words("the token was refused (401): it expired at {expiry}", NEW_KEY),
    "token_refused": _Words(
        "the token was refused (401): it is invalid, expired, or made for another region",
        "Check that TOKEN (or MOMENTO_API_KEY) holds the whole key; a v1 key works at its own"
        " endpoint only, so leave REGION and ENDPOINT out for it; or make a new key in the"
        " console.",
    ),
    "not_permitted": _Words(
        "the token may not {verb} (403)",
        "Give the API key permission to {verb} in the cache {location!r}, in the Momento console.",
    ),
    "cache_not_found": _Words("there is no cache {location!r} at {endpoint} (404)"),
    "rate_limited": _Words("the account's limit is used up (429)"),
    "service_failed": _Words("{reason}"),
    "bad_request": _Words("{reason}"),
    "codec": _Words(
        "a string cannot be stored ({reason})",
        "Correct SERIALIZER or COMPRESSOR.",
    ),
    "altered": _Words(
        "what was read is not what was written ({reason})",
        "Check SERIALIZER and COMPRESSOR, and whether something between this host and the service"
        " changes or keeps answers.",
    ),
    "not_found": _Words(
        "what was written could not be found",
        "Try again; if it persists, check whether something between this host and the service"
        " keeps answers, and ask Momento's support.",
    ),
    "found_late": _Words(
        "what was written was not found at once in every try",
        "Nothing, if it is rare: reads of the service are eventually consistent.",
    ),
    "marker_altered": _Words(
        "the clear marker of this KEY_PREFIX does not verify with the key that it is named after",
        "Somebody else writes to this cache, and could put back old values: find out who, and call"
        " clear() on this alias to write the marker anew.",
    ),
    "clock": _Words(
        "this host's clock is {difference}",
        "Synchronise this host's clock (NTP): ttl(), the expiry of tokens and TLS depend on it.",
    ),
}


# What else may listen where ENDPOINT leads by mistake.
_OTHERS = {
    "redis": "a Redis server",
    "memcached": "a memcached server",
    "ssh": "an SSH server",
    "smtp": "a mail server",
}
# 501 and 505 are what web servers say of a method or a version that they do not know.
_NEVER_OF_MOMENTO = (501, 505)
# What a step does, where a token may lack permission for it.
_VERBS = {"set": "write", "get": "read", "delete": "delete", "marker": "read the clear marker"}
# Where opening a connection stopped.
_STEPS = {"dns": "lookup", "proxy": "tunnel", "tls": "tls"}


class Trouble(NamedTuple):
    """What was found, in words; ``kind`` names it for programs."""

    step: str
    kind: str
    cause: str
    advice: str


def trouble(step: str, kind: str, options: Options, **facts: str) -> Trouble:
    """Return trouble of this kind in words."""
    cause, advice = _WORDS[kind]
    known: dict[str, object] = {
        "verb": _VERBS.get(step, step),
        "location": options.shown_location,
        "endpoint": options.endpoint,
        "connect_timeout": options.connect_timeout,
        "request_timeout": options.request_timeout,
        "peer": "the proxy" if options.proxy else options.endpoint,
        "option": "PROXY" if options.proxy else "REGION or ENDPOINT",
        **facts,
    }
    return Trouble(step, kind, cause.format(**known), advice.format(**known))


class Circumstances(NamedTuple):
    """What is known beside an error.

    ``expired_at`` is what the token says of itself, ``spoken`` the protocol at the endpoint where
    that was asked for, ``is_page`` whether the answer was HTML, which Momento never sends.
    """

    expired_at: str = ""
    spoken: str = ""
    is_page: bool = False


def may_be_another_server(error: MomentoError, *, is_page: bool) -> bool:
    """Whether it is worth asking what listens at the endpoint."""
    kinds = ("connection", "unusable", "bad_request", "tls")
    return _is_no_answer_of_momento(error, is_page=is_page) or _kind(error) in kinds


def trouble_of(
    step: str, error: MomentoError, options: Options, known: Circumstances | None = None
) -> Trouble:
    """Return what an error means, in words."""
    known = known or Circumstances()
    kind, reason = _kind(error), error.reason
    if kind == "token_refused" and known.expired_at:
        kind = "token_expired"
    if isinstance(error, ConnectFailed):
        step = _STEPS.get(error.kind, "connect")
    if known.spoken in _OTHERS:
        kind = "speaks_other"
    elif known.spoken == "http" and kind == "tls":
        kind = "speaks_plain"
    elif known.spoken == "tls" and options.endpoint.startswith("http://"):
        kind = "speaks_tls"
    elif _is_no_answer_of_momento(error, is_page=known.is_page):
        kind, reason = "unusable", f"an answer ({_status(error)}) as other web servers give it"
    other = _OTHERS.get(known.spoken, "")
    found = trouble(step, kind, options, reason=reason, expiry=known.expired_at, other=other)
    return found if found.advice else found._replace(advice=f"{error.advice}.")


def _is_no_answer_of_momento(error: MomentoError, *, is_page: bool) -> bool:
    status = _status(error)
    # A load balancer may make a page of the service's own failures (5xx).
    return status in _NEVER_OF_MOMENTO or (is_page and 0 < status < 500)


def _status(error: MomentoError) -> int:
    return error.status if isinstance(error, ResponseError) else 0


def _kind(error: MomentoError) -> str:
    if error.kind == "tls":
        reason = error.reason.lower()
        return next((kind for text, kind in _CERTIFICATES.items() if text in reason), "tls")
    if isinstance(error, ConnectFailed) and error.kind == "connect":
        if "ECONNREFUSED" in error.reason:
            return "refused"
        return "connect_timeout" if "in time" in error.reason else "connect"
    if isinstance(error, AccessDenied) and error.kind != "token":
        return "not_permitted" if error.status == 403 else "token_refused"
    return error.kind if error.kind in _WORDS else "connection"
