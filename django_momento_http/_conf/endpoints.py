"""Where requests go: the URL of an endpoint or of a proxy, checked and in one normal form.

It knows nothing of settings and of region names. No message shows the URL: it may hold a password.
"""

import ipaddress
import re
from typing import NamedTuple

_CELLS = {
    "us-east-1": "cell-us-east-1-1",
    "us-east-2": "cell-1-us-east-2-1",
    "us-west-2": "cell-4-us-west-2-1",
    "eu-west-1": "cell-1-eu-west-1-1",
    "eu-west-2": "cell-1-eu-west-2-1",
    "eu-central-1": "cell-1-eu-central-1-1",
    "eu-north-1": "cell-1-eu-north-1-1",
    "ap-south-1": "cell-1-ap-south-1-1",
    "ap-northeast-1": "cell-ap-northeast-1-1",
    "ap-southeast-1": "cell-1-ap-southeast-1-1",
    "ap-southeast-2": "cell-1-ap-southeast-2-1",
}


def endpoint_of_host(cell_host: str) -> str:
    """Return the HTTP endpoint of a cell, given the cell's bare host name."""
    return f"https://api.cache.{cell_host}"


ENDPOINTS = {
    region: endpoint_of_host(f"{cell}.prod.a.momentohq.com") for region, cell in _CELLS.items()
}

_NOT_VISIBLE_ASCII = re.compile(r"[^\x21-\x7e]")
_URL = re.compile(
    r"""
    (?: (?P<scheme> [A-Za-z][A-Za-z0-9+.-]* ) :// )?
    (?: (?P<userinfo> [^/?\#]* ) @ )?
    (?P<host> \[ [^\[\]/?\#@]* \] | [^\[\]:/?\#@]* )
    (?: : (?P<port> [0-9]{1,5} ) )?
    (?P<rest> [/?\#] .* )?
    """,
    re.VERBOSE,
)
# Labels as RFC 1123 has them, and the underscore that container platforms put into host names.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
# resolvers read "127.1" and "0x7f.1" as addresses, so a host that ends like one must be one in full
_LIKE_AN_ADDRESS = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
# The longest top-level domain has 24 characters.
_ENDS_LIKE_A_HOST = re.compile(r"\.(?:[a-z]{1,24}|xn--[a-z0-9-]+)\Z")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class _Url(NamedTuple):
    scheme: str
    userinfo: str
    host: str
    port: int | None

    @property
    def origin(self) -> str:
        port = "" if self.port in (None, _DEFAULT_PORTS.get(self.scheme)) else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}"


def parse_endpoint(value: object) -> str:
    """Return the endpoint that a full URL or a cell's bare host means, or say what is wrong."""
    if isinstance(value, str) and "://" not in value:
        return parse_cell_host(value)
    url = _split(value)
    if url.scheme not in _DEFAULT_PORTS:
        raise ValueError("must begin with https:// (or http:// to this host)")
    if url.userinfo:
        raise ValueError("must not hold a user name or password; the credential belongs in TOKEN")
    return url.origin


def parse_cell_host(value: object) -> str:
    """Return the endpoint of a cell, given its bare host name; ValueError says what is wrong."""
    url = _split(value)
    # Credentials have dots, too, but do not end like the name of a host.
    if url.scheme or url.userinfo or not _ENDS_LIKE_A_HOST.search(url.host):
        raise ValueError("must be a full URL (https://host) or the bare host name of a cell")
    if url.host.startswith("api.cache."):
        return url._replace(scheme="https").origin
    return endpoint_of_host(url._replace(scheme="https").origin.removeprefix("https://"))


def parse_proxy(value: object) -> str:
    """Return the URL of an HTTP proxy; ValueError says what is wrong."""
    url = _split(value)
    if url.scheme != "http":
        raise ValueError("must begin with http:// (no other kind of proxy is supported)")
    if url.port is None:
        raise ValueError("must name the proxy's port: http://[user:password@]host:port")
    userinfo = f"{url.userinfo}@" if url.userinfo else ""
    return f"http://{userinfo}{url.host}:{url.port}"


def is_plain_to_elsewhere(endpoint: str) -> bool:
    """Say whether requests to this endpoint cross a network unencrypted."""
    url = _split(endpoint)
    address = _address(url.host)
    is_loopback = address.is_loopback if address else url.host == "localhost"
    return url.scheme == "http" and not is_loopback


def _split(value: object) -> _Url:
    if not isinstance(value, str):
        raise ValueError(f"must be a string, not {type(value).__name__}")
    if _NOT_VISIBLE_ASCII.search(value):
        raise ValueError("must not contain whitespace, control or non-ASCII characters")
    match = _URL.fullmatch(value)
    if match is None:
        raise ValueError("must have the form https://host or https://host:port")
    if match["rest"] not in (None, "/"):
        raise ValueError("must not have a path, query or fragment after the host")
    port = None if match["port"] is None else int(match["port"])
    if port is not None and not 1 <= port <= 65535:
        raise ValueError("must have a port from 1 to 65535")
    scheme = (match["scheme"] or "").lower()
    return _Url(scheme, match["userinfo"] or "", _checked_host(match["host"]), port)


def _checked_host(host: str) -> str:
    host = host.lower()
    address = _address(host)
    if isinstance(address, ipaddress.IPv6Address):
        return f"[{address.compressed}]"
    is_name = _HOST_NAME.fullmatch(host) and not _LIKE_AN_ADDRESS.fullmatch(host)
    if address is None and not is_name:
        raise ValueError("must have a valid host name or IP address (IPv6 in brackets)")
    return host


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        if not host.startswith("["):
            return ipaddress.IPv4Address(host)
        # A zone ("%eth0") has a meaning on one host only, and none in TLS.
        return None if "%" in host else ipaddress.IPv6Address(host[1:-1])
    except ValueError:
        return None
