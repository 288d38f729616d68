"""Starts django_momento_http's local server as a child, and ends it with its parent.

It knows nothing of Django. The child watches its standard input, whose other end only the parent
holds: however the parent ends, even killed, the pipe closes and the child stops. It takes the token
that it finds in MOMENTO_API_KEY, and no other.
"""

import os
import re
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

CACHE_NAME = os.environ.get("MOMENTO_CACHE_NAME") or "default-cache"


@contextmanager
def local_server() -> Iterator[str]:
    """Run a local server on a free port of the loopback address, and give its address."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the way out leads past here
    child = subprocess.Popen(
        [sys.executable, __file__, "--port", "0", "--cache", CACHE_NAME],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        try:
            yield _address(child)
        finally:
            child.stdin.close()
            child.wait(timeout=10)


def _address(child: subprocess.Popen[str]) -> str:
    """Read the address from the line that the server prints when it is ready."""
    found = re.search(r"http://\S+", child.stdout.readline())
    if found is None:
        sys.exit("The local server did not start; its own message is above.")
    return found.group()


def _stop_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # returns when the parent's end of the pipe is closed
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    # Not on the command line, which every user of the machine can read.
    sys.argv.append(f"--token={os.environ['MOMENTO_API_KEY']}")
    runpy.run_module("django_momento_http.server", run_name="__main__", alter_sys=True)
