"""Where requests go: the URL of an endpoint or of a proxy, checked and in one normal form.

It knows nothing of settings and of region names. No message shows the URL: it may hold a password.
"""

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

from .._interrupts import is_raised_by_signal_handler

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
# Labels as RFC 1123 has them, and the underscore that container platforms put into host names.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
# Resolvers take "127.1" and "0x7f.1" for addresses, so what ends like one must be one in full.
_LIKE_AN_ADDRESS = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
# The longest top-level domain has 24 characters.
_ENDS_LIKE_A_HOST = re.compile(r"\.(?:[a-z]{1,24}|xn--[a-z0-9-]+)\Z")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def parse_endpoint(value: object) -> str:
    """Return the endpoint that a full URL or a cell's bare host means, or say what is wrong."""
    if isinstance(value, str) and "://" not in value:
        return parse_cell_host(value)
    url = _normal(value)
    if url.scheme not in _DEFAULT_PORTS:
        raise ValueError("must begin with https:// (or http:// to this host)")
    if "@" in url.netloc:
        raise ValueError("must not hold a user name or password; the credential belongs in TOKEN")
    return url.geturl().removesuffix(_DEFAULT_PORTS[url.scheme])


def parse_cell_host(value: object) -> str:
    """Return the endpoint of a cell, given its bare host name; ValueError says what is wrong."""
    url = _normal(value)
    # Credentials have dots, too, but do not end like the name of a host.
    if url.scheme or "@" in url.netloc or not _ENDS_LIKE_A_HOST.search(url.hostname or ""):
        raise ValueError("must be a full URL (https://host) or the bare host name of a cell")
    host = url.netloc.removesuffix(_DEFAULT_PORTS["https"])
    return f"https://{host}" if host.startswith("api.cache.") else endpoint_of_host(host)


def parse_proxy(value: object) -> str:
    """Return the URL of an HTTP proxy; ValueError says what is wrong."""
    url = _normal(value)
    if url.scheme != "http":
        raise ValueError("must begin with http:// (no other kind of proxy is supported)")
    if url.port is None:
        raise ValueError("must name the proxy's port: http://[user:password@]host:port")
    return url.geturl()


def is_plain_to_elsewhere(endpoint: str) -> bool:
    """Say whether requests to this endpoint cross a network unencrypted."""
    url = urlsplit(endpoint)
    address = _address(url.hostname or "")
    is_loopback = address.is_loopback if address else url.hostname == "localhost"
    return url.scheme == "http" and not is_loopback


def _normal(value: object) -> SplitResult:
    """Return scheme, user, host and port in one form; no scheme is fine, anything else is not."""
    if not isinstance(value, str):
        raise ValueError(f"must be a string, not {type(value).__name__}")
    if _NOT_VISIBLE_ASCII.search(value):
        raise ValueError("must not contain whitespace, control or non-ASCII characters")
    url = _split(value if "://" in value else f"//{value}")
    if url is None:
        raise ValueError("must have the form https://host or https://host:port (1 to 65535)")
    if url.path not in ("", "/") or "?" in value or "#" in value:
        raise ValueError("must not have a path, query or fragment after the host")
    userinfo = url.netloc.rpartition("@")[0]
    host = _normal_host(url.hostname or "")
    port = f":{url.port}" if url.port else ""
    return SplitResult(url.scheme, f"{userinfo}{'@' * bool(userinfo)}{host}{port}", "", "", "")


def _split(text: str) -> SplitResult | None:
    """Return a URL's parts, None where host and port are not all that stands in their place."""
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port
    except ValueError as error:  # it may show a password
        if is_raised_by_signal_handler(error):
            raise
        return None
    # What stands beside brackets, and a colon without a port, are passed over by urlsplit.
    rest = url.netloc.rpartition("@")[2].lower().removeprefix(f"[{host}]" if ":" in host else host)
    return url if rest == ("" if port is None else f":{port}") and port != 0 else None


def _normal_host(host: str) -> str:
    address = _address(host)
    if isinstance(address, ipaddress.IPv6Address):
        return f"[{address.compressed}]"
    is_name = _HOST_NAME.fullmatch(host) and not _LIKE_AN_ADDRESS.fullmatch(host)
    if address is None and not is_name:
        raise ValueError("must have a valid host name or IP address (IPv6 in brackets)")
    return host


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        # A zone ("%eth0") has a meaning on one host only, and none in TLS.
        return None if "%" in host else ipaddress.ip_address(host)
    except ValueError as error:
        if is_raised_by_signal_handler(error):
            raise
        return None
