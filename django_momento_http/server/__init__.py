"""A local server that speaks Momento's HTTP API, for development and tests.

Run it with ``python -m django_momento_http.server``, or inside a test with
``django_momento_http.testing``. It is a stand-in: one process, memory only, the service's rules and
limits, and faults on demand. It imports nothing from the client, so that the two cannot share a
mistake, and knows nothing of Django.

Read ``service`` first (what is answered), then ``connection`` (how it travels). Whatever clients
do, it holds ``--max-memory`` of items and less than 64 MB beside them.
Imports point down, and never sideways::

    __main__                           the command
    listener                           the socket that listens; who may stay
    connection                         one request and one answer at a time
    reader   sender   rendering        bytes to requests, answers to bytes
    service                            what is answered
    target   faults   store            what a request asks for; how an answer misbehaves; items
    limits   messages                  configuration, and what it bounds; what modules hand over
    hosts                              the names by which the server may be called
"""

from .connection import ClientConnection
from .faults import Fault, Faults
from .limits import MAX_ITEM, Config, TokenBucket
from .listener import Server
from .messages import PartialRequest, ServedRequest
from .service import Service
from .store import ItemStore

__all__ = [
    "MAX_ITEM",
    "ClientConnection",
    "Config",
    "Fault",
    "Faults",
    "ItemStore",
    "PartialRequest",
    "ServedRequest",
    "Server",
    "Service",
    "TokenBucket",
]
