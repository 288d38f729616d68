"""The one list of what may be set in OPTIONS: names, defaults, and what values mean.

It knows nothing of where values come from, nor of how they go together.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import compressors, serializers
from . import validators
from .credentials import parse_token
from .endpoints import ENDPOINTS, parse_endpoint, parse_proxy

_ABOVE_ZERO = math.ulp(0.0)
# Long enough for any network; short enough that milliseconds given for seconds are noticed.
_LONGEST_TIMEOUT = 60
_A_TIMEOUT = f"a number of seconds above 0, at most {_LONGEST_TIMEOUT}"
_MOST_CONNECTIONS = 1024
# 68 years in seconds, and the largest number that a service could keep in a signed 32-bit field.
_LONGEST_TTL = 2**31 - 1


@dataclass(frozen=True)
class Rule:
    """One option; ``parse`` returns what a value means, or its ValueError says what is wrong."""

    name: str
    default: object
    parse: Callable[[Any], Any]
    meaning: str
    environment: str | None = None


RULES = (
    Rule(
        "REGION",
        None,
        validators.one_of(ENDPOINTS),
        "the region of the cache: a row of the regions table",
        "MOMENTO_REGION",
    ),
    Rule(
        "ENDPOINT",
        None,
        parse_endpoint,
        "a full URL, or the bare host of a cell; wins over REGION",
        "MOMENTO_ENDPOINT",
    ),
    Rule("ALLOW_PLAIN_HTTP", False, validators.flag, "permit plain http to another host"),
    Rule(
        "PROXY",
        None,
        validators.or_none(parse_proxy),
        "URL of an HTTP proxy to tunnel through",
    ),
    Rule(
        "CA_BUNDLE",
        None,
        validators.or_none(validators.file),
        "path of a certificate bundle instead of the one requests ships",
    ),
    Rule(
        "TOKEN",
        None,
        parse_token,
        "an API key, a callable without arguments that returns one, or a dotted path to one",
        "MOMENTO_API_KEY",
    ),
    Rule(
        "ON_ERROR",
        "miss",
        validators.one_of({"miss": "miss", "raise": "raise"}),
        "trouble with the service is a miss and a log line, or a MomentoError",
    ),
    Rule(
        "REQUEST_TIMEOUT",
        1.0,
        validators.seconds(_A_TIMEOUT, _ABOVE_ZERO, _LONGEST_TIMEOUT),
        "seconds that one operation may take in all",
    ),
    Rule(
        "CONNECT_TIMEOUT",
        0.5,
        validators.seconds(_A_TIMEOUT, _ABOVE_ZERO, _LONGEST_TIMEOUT),
        "seconds of those for connecting",
    ),
    Rule(
        "MAX_CONNECTIONS",
        64,
        validators.whole(f"a whole number from 1 to {_MOST_CONNECTIONS}", 1, _MOST_CONNECTIONS),
        "sockets kept per process and endpoint",
    ),
    Rule(
        "MAX_TTL",
        86400,
        validators.or_none(
            validators.whole(
                f"a whole number of seconds from 1 to {_LONGEST_TTL}, or None", 1, _LONGEST_TTL
            )
        ),
        "longest time to live, in seconds, that the cache takes; None: unbounded",
    ),
    Rule(
        "SERIALIZER",
        "pickle",
        serializers.REGISTRY.find,
        "how values become bytes: 'pickle', 'json' or a dotted path",
    ),
    Rule(
        "COMPRESSOR",
        "zlib",
        validators.or_none(compressors.REGISTRY.find),
        "how bytes become fewer: 'zlib', 'zstd', a dotted path, or None",
    ),
    Rule(
        "COMPRESS_MIN_BYTES",
        1024,
        validators.whole("a whole number of bytes, 0 or more", 0, sys.maxsize),
        "smaller payloads are stored as they are",
    ),
    Rule(
        "SIGNING_KEY",
        None,
        validators.or_none(validators.secret),
        "secret for the value signature; None: from SECRET_KEY",
    ),
    Rule(
        "NEAR_MAX_AGE",
        0,
        validators.seconds("a number of seconds, 0 or more", 0, sys.float_info.max),
        "seconds for which a process answers reads of a key from its own copy; 0: no copies",
    ),
    Rule(
        "NEAR_MAX_STALE",
        60,
        validators.seconds("a number of seconds, 0 or more", 0, sys.float_info.max),
        "seconds beyond that for which a copy answers while the service cannot be asked",
    ),
    Rule(
        "NEAR_MAX_BYTES",
        32 * 1024 * 1024,
        validators.whole("a whole number of bytes, 0 or more", 0, sys.maxsize),
        "memory for these copies, per process and alias",
    ),
    Rule(
        "SINGLE_FLIGHT_WAIT",
        5.0,
        validators.seconds("a number of seconds, 0 or more", 0, sys.float_info.max),
        "seconds that get_or_set waits for another of its process that makes the same value",
    ),
    Rule(
        "EARLY_REFRESH",
        0,
        validators.seconds("a number, 0 or more", 0, sys.float_info.max),
        "how eagerly get_or_set makes a value anew before it expires; 0: never",
    ),
    Rule(
        "CLEAR_MAX_AGE",
        10,
        validators.or_none(
            validators.seconds("a number of seconds, 0 or more, or None", 0, sys.float_info.max)
        ),
        "seconds a process trusts its copy of the clear marker; 0: none, None: no clear()",
    ),
)
