#!/usr/bin/env python
"""Runs the example's management commands; ``runserver`` needs no set-up before it.

It knows nothing of the pages. Without an account, ``runserver`` and ``testserver`` bring a local
server with them; every other command does without one (see ``mysite/settings.py``).
"""

import os
import sys

from django.core.management import execute_from_command_line
from mysite.local_server import local_server

SERVING = {"runserver", "testserver"}


def main() -> None:
    """Run one command, beside a local server where the command serves pages without an account."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
    if SERVING.isdisjoint(sys.argv[1:2]) or os.environ.get("MOMENTO_API_KEY"):
        execute_from_command_line(sys.argv)
        return
    with local_server() as address:
        # In the environment, so that the autoreloader's child shares this server.
        os.environ.update(MOMENTO_ENDPOINT=address, MOMENTO_API_KEY="any-token")
        execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
