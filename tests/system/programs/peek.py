"""Another process of the same site: it says what it finds under the keys that it is asked for.

``peek``. Each line of its input is a JSON list of keys.
"""

import json
import sys

from django.core.cache import caches

from .common import say, set_up


def main() -> None:
    """Read what is asked for, until the input ends."""
    set_up()
    say(ready=True)
    for line in sys.stdin:
        say(found=caches["default"].get_many(json.loads(line)))


if __name__ == "__main__":
    main()
