"""A local server that speaks Momento's HTTP API, for development and tests.

Run it with ``python -m django_momento_http.server``, or inside a test with
``django_momento_http.testing``. It is a stand-in: one process, memory only, the service's rules and
limits, and faults on demand. It imports nothing of ours, so that client and server cannot share a
mistake, and knows nothing of Django.

Read ``service`` first (what is answered), then ``connection`` (how it travels).
Imports point down, and never sideways::

    __main__                    the command
    connection   rendering      how it travels: sockets, bytes of HTTP
    service                     what is answered
    target   faults             what a request asks for; how an answer misbehaves
    limits   store   messages   configuration; items; what the rooms hand each other
"""

from .connection import Connection, Server
from .faults import Fault, Faults
from .limits import MAX_ITEM, Config, TokenBucket
from .messages import Exchange, Request
from .service import Service
from .store import Store

__all__ = [
    "MAX_ITEM",
    "Config",
    "Connection",
    "Exchange",
    "Fault",
    "Faults",
    "Request",
    "Server",
    "Service",
    "Store",
    "TokenBucket",
]
