"""When a value is made anew before it expires: XFetch.

Vattani, Chierichetti and Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015.
Each caller draws by itself, and the nearer the expiry, the likelier it volunteers; so mostly one of
many does, and none has to know of the others. It asks nobody: clocks and chance come from outside.
"""

import math

from .envelope import Stored

# A value that takes long to make and lives shortly is not made anew all the time.
_LARGEST_SHARE = 1 / 10


def margin(stored: Stored) -> float:
    """Return the seconds that count as the time to make a value: 0 where it has no expiry."""
    if stored.expires_at is None or not stored.made_in:
        return 0.0
    lifetime = stored.expires_at - stored.made_at / 1000
    return max(min(stored.made_in / 1000, lifetime * _LARGEST_SHARE), 0.0)


def is_early(left: float, margin: float, beta: float, draw: float) -> bool:
    """Whether this caller makes the value anew, with so many seconds left.

    ``beta`` is how eager it is; ``draw`` is uniform above 0 and up to 1.
    """
    return 0 < left <= -beta * margin * math.log(draw)
