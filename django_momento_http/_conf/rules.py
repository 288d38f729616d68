"""The one list of what may be set in OPTIONS: names, defaults, and what values mean.

``docs/settings.md`` says what each is for. It knows nothing of where values come from, nor of how
they go together.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
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


_SECONDS = validators.seconds("a number of seconds, 0 or more", 0, sys.float_info.max)
_BYTES = validators.whole("a whole number of bytes, 0 or more", 0, sys.maxsize)


@dataclass(frozen=True)
class Rule:
    """One option; ``parse`` returns what a value means, or its ValueError says what is wrong."""

    name: str
    default: object
    parse: Callable[[Any], Any]
    environment: str | None = field(default=None, kw_only=True)


RULES = (
    Rule("REGION", None, validators.one_of(ENDPOINTS), environment="MOMENTO_REGION"),
    Rule("ENDPOINT", None, parse_endpoint, environment="MOMENTO_ENDPOINT"),
    Rule("ALLOW_PLAIN_HTTP", False, validators.flag),
    Rule("PROXY", None, validators.or_none(parse_proxy)),
    Rule("CA_BUNDLE", None, validators.or_none(validators.file)),
    Rule("TOKEN", None, parse_token, environment="MOMENTO_API_KEY"),
    Rule("ON_ERROR", "miss", validators.one_of({"miss": "miss", "raise": "raise"})),
    Rule(
        "REQUEST_TIMEOUT",
        1.0,
        validators.seconds(_A_TIMEOUT, _ABOVE_ZERO, _LONGEST_TIMEOUT),
    ),
    Rule(
        "CONNECT_TIMEOUT",
        0.5,
        validators.seconds(_A_TIMEOUT, _ABOVE_ZERO, _LONGEST_TIMEOUT),
    ),
    Rule(
        "MAX_CONNECTIONS",
        64,
        validators.whole(f"a whole number from 1 to {_MOST_CONNECTIONS}", 1, _MOST_CONNECTIONS),
    ),
    Rule(
        "MAX_TTL",
        86400,
        validators.or_none(
            validators.whole(
                f"a whole number of seconds from 1 to {_LONGEST_TTL}, or None", 1, _LONGEST_TTL
            )
        ),
    ),
    Rule("SERIALIZER", "pickle", serializers.REGISTRY.find),
    Rule("COMPRESSOR", "zlib", validators.or_none(compressors.REGISTRY.find)),
    Rule("COMPRESS_MIN_BYTES", 1024, _BYTES),
    Rule("SIGNING_KEY", None, validators.or_none(validators.secret)),
    Rule("HEDGE", True, validators.flag),
    Rule("NEAR_MAX_AGE", 0, _SECONDS),
    Rule("NEAR_MAX_STALE", 60, _SECONDS),
    Rule("NEAR_MAX_BYTES", 32 * 1024 * 1024, _BYTES),
    Rule("SINGLE_FLIGHT_WAIT", 5.0, _SECONDS),
    Rule("EARLY_REFRESH", 0, validators.seconds("a number, 0 or more", 0, sys.float_info.max)),
    Rule(
        "CLEAR_MAX_AGE",
        10,
        validators.or_none(
            validators.seconds("a number of seconds, 0 or more, or None", 0, sys.float_info.max)
        ),
    ),
)
