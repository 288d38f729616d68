#!/usr/bin/env python
"""Runs the example's management commands; ``runserver`` needs no set-up before it.

It knows nothing of the pages. Without an account, ``runserver`` and ``testserver`` bring a local
server with them; every other command does without one (see ``mysite/settings.py``).

Whoever may write to the cache and knows SECRET_KEY could have the site load a pickle of theirs, and
other users of this machine reach the local server. So each run has a token and a key of its own, in
the environment, which only this user's processes can read: not in a file, not on a command line.
"""

import os
import secrets
import sys

from django.core.management import execute_from_command_line
from mysite.local_server import local_server

SERVING = {"runserver", "testserver"}


def main() -> None:
    """Run one command, beside a local server where the command serves pages without an account."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
    if SERVING.isdisjoint(sys.argv[1:2]):
        execute_from_command_line(sys.argv)
        return
    # In the environment, the autoreloader's child has them, too.
    os.environ["EXAMPLE_SECRET_KEY"] = os.environ.get("EXAMPLE_SECRET_KEY") or new_secret()
    if os.environ.get("MOMENTO_API_KEY"):
        execute_from_command_line(sys.argv)
        return
    os.environ["MOMENTO_API_KEY"] = new_secret()
    with local_server() as address:
        os.environ["MOMENTO_ENDPOINT"] = address
        execute_from_command_line(sys.argv)


def new_secret() -> str:
    """Make up what nobody can guess."""
    return secrets.token_urlsafe(48)


if __name__ == "__main__":
    main()
