"""How much proofs try that could go on for ever: by default what takes seconds.

``PROOF=full python -m pytest`` tries all of it, which takes about an hour.
"""

import os
from typing import TypeVar

T = TypeVar("T", int, float)

FULL = os.environ.get("PROOF") == "full"


def sized(small: T, full: T) -> T:
    """Return how much is tried: the second with PROOF=full."""
    return full if FULL else small
