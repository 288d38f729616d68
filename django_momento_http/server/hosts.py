"""By which names the server may be called. It knows no sockets.

A page of any site can ask the browser for an address of this machine, and its owner can let the
site's own name point here (DNS rebinding), so that the page may read the answers. The Host header
then holds that name.
"""

import ipaddress
from collections.abc import Iterable

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


def names_of(host: str, addresses: Iterable[str]) -> frozenset[str] | None:
    """Return the names of a server bound so; None: any, where other machines can reach it.

    Those may call it anything: by a container's name, a machine's, or an address.
    """
    if not all(ipaddress.ip_address(address).is_loopback for address in addresses):
        return None
    return _LOCAL_NAMES | {bracketed(host).lower()}


def is_named(header: bytes, names: frozenset[str] | None) -> bool:
    """Say whether a Host header, with any port or none, is one of the names."""
    if names is None:
        return True
    name, colon, port = header.decode("latin-1").rpartition(":")
    if not colon or not (port.isdecimal() or port == ""):
        name = header.decode("latin-1")
    return name.lower() in names


def bracketed(host: str) -> str:
    """Return the host as a URL spells it."""
    return f"[{host}]" if ":" in host else host
