"""A site under a real server, with clients that ask it and judge every answer.

Every answer must hold its own keys' values, none may be an error, and a server must end when it is
told to.
"""

import http.client
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from django_momento_http.testing import RunningServer, running_server
from tests.support.sizes import sized

LOAD_SECONDS = sized(1.0, 20.0)
CLIENTS = 8
KEYS = 200
LONGEST_WAIT = 20.0

# What gunicorn, uvicorn and uWSGI say.
LISTENS = re.compile(r"(?:http://|TCP address )127\.0\.0\.1:(\d+)")
TROUBLE = re.compile(r"Traceback|Exception|Segmentation|SIGSEGV|DAMN|respawn|killed by")

SITE = '''
"""A site of two views: what is under a key, and what is under many."""

import asyncio
import os

from django.conf import settings

settings.configure(
    SECRET_KEY="for tests only",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    CACHES={
        "default": {
            "BACKEND": "django_momento_http.cache.MomentoCache",
            "LOCATION": "default-cache",
            "OPTIONS": {
                "ENDPOINT": os.environ["SITE_ENDPOINT"],
                "TOKEN": "test-token",
                "REQUEST_TIMEOUT": 5.0,
            },
        }
    },
)

import django

django.setup()

from django.core.cache import cache, caches
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path

PARENT = os.getpid()
# Before the fork: connections, workers and the marker are there.
NAMES = [f"key-{number}" for number in range(64)]
if os.environ["SITE_WARM"] == "async":
    WARM = asyncio.run(caches["default"].aget_many(NAMES))
else:
    WARM = cache.get_many(NAMES)


def one(request, key):
    found = {"value": cache.get(key), "is_added": cache.add(key, "somebody else's")}
    return JsonResponse({"pid": os.getpid(), "parent": PARENT, **found})


async def many(request, keys):
    names = keys.split(",")
    found = await caches["default"].aget_many(names)
    return JsonResponse({"pid": os.getpid(), "values": [found.get(name) for name in names]})


urlpatterns = [path("one/<str:key>/", one), path("many/<str:keys>/", many)]
wsgi = get_wsgi_application()
asgi = get_asgi_application()
'''


@contextmanager
def site_in(folder: Path) -> Iterator[RunningServer]:
    """Put the site into a folder, and run the service that holds its values."""
    (folder / "site_under_load.py").write_text(SITE)
    with running_server() as server:
        fill(folder, server)
        yield server


def fill(folder: Path, server: RunningServer) -> None:
    """Let the site's own configuration store the values, in a process of its own."""
    code = (
        "import site_under_load as s\n"
        f"s.cache.set_many({{f'key-{{n}}': f'value-{{n}}' for n in range({KEYS})}})"
    )
    subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment(server), check=True, timeout=60
    )


def environment(server: RunningServer, warm: str = "sync") -> dict[str, str]:
    """Return what a server's process needs; the site uses the cache so when it is loaded."""
    root = str(Path(__file__).parents[2])
    site = {"SITE_ENDPOINT": server.endpoint, "SITE_WARM": warm}
    return {**os.environ, **site, "PYTHONPATH": root}


@contextmanager
def started(
    folder: Path, server: RunningServer, *command: str, warm: str = "sync"
) -> Iterator[tuple[int, Any]]:
    """Start a server, yield its port and its process, and end it by its process id."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment(server, warm),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    log = Log(process.stderr)
    try:
        yield log.port(), process
        process.send_signal(signal.SIGTERM)
        assert process.wait(LONGEST_WAIT) in (0, -signal.SIGTERM)
        log.join(LONGEST_WAIT)
        assert not [line for line in log.lines if TROUBLE.search(line)], "".join(log.lines)
    finally:
        process.kill()
        process.wait()
        log.join(LONGEST_WAIT)
        if process.stderr is not None:
            process.stderr.close()


class Log(threading.Thread):
    """Reads what a server says."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._stream = stream
        self._ports: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.start()

    def run(self) -> None:
        """Read to the end."""
        for line in self._stream:
            self.lines.append(line)
            if found := LISTENS.search(line):
                self._ports.put(int(found[1]))

    def port(self) -> int:
        """Return the port that the server says it listens on."""
        return self._ports.get(timeout=LONGEST_WAIT)


class Load:
    """Clients that ask, each over a connection of its own, and what they were told."""

    def __init__(self, port: int, ask: Callable[[int, int], tuple[str, Callable[[Any], bool]]]):
        self.wrong: list[str] = []
        self.answers = 0
        self.pids: set[int] = set()
        self._port = port
        self._ask = ask
        self._lock = threading.Lock()
        self._wanted = 0, 0

    def run(self, seconds: float, answers: int = 0, workers: int = 1) -> None:
        """Ask for so long, and until so many answers came from so many processes."""
        end = time.monotonic() + seconds
        self._wanted = answers, workers
        threads = [
            threading.Thread(target=self._client, args=(number, end)) for number in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(seconds + 2 * LONGEST_WAIT)
            if thread.is_alive():
                self.wrong.append("a client hangs")

    def _client(self, client: int, end: float) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=LONGEST_WAIT)
        turn = 0
        while time.monotonic() < end or self._is_wanting(end):
            turn += 1
            target, is_right = self._ask(client, turn)
            status, body = self._get(connection, target)
            self._judge(target, status, body, is_right)
            if turn % 5 == 0:
                # A worker that keeps connections would be the only one to see this client.
                connection.close()
        connection.close()

    def _is_wanting(self, end: float) -> bool:
        answers, workers = self._wanted
        is_enough = self.answers >= answers and len(self.pids) >= workers
        return not is_enough and time.monotonic() < end + LONGEST_WAIT

    def _get(self, connection: http.client.HTTPConnection, target: str) -> tuple[int, bytes]:
        # A worker may close a connection that was kept: that is the server's right.
        for _ in range(3):
            with suppress(http.client.RemoteDisconnected, ConnectionError):
                connection.request("GET", target)
                response = connection.getresponse()
                return response.status, response.read()
            connection.close()
        return 0, b""

    def _judge(
        self, target: str, status: int, body: bytes, is_right: Callable[[Any], bool]
    ) -> None:
        answer = json.loads(body) if status == 200 else {}
        with self._lock:
            self.answers += 1
            self.pids.add(answer.get("pid", 0))
            if status != 200 or not is_right(answer):
                self.wrong.append(f"{target}: {status} {body[:80]!r}")


def ask_one(client: int, turn: int) -> tuple[str, Callable[[Any], bool]]:
    """Ask for one key; the clients ask for different ones at any time."""
    number = (client * 31 + turn * 7) % KEYS

    def is_right(answer: Any) -> bool:
        return bool(answer["value"] == f"value-{number}" and answer["is_added"] is False)

    return f"/one/key-{number}/", is_right


def ask_many(client: int, turn: int) -> tuple[str, Callable[[Any], bool]]:
    """Ask for twenty keys, one of which is not there."""
    numbers = [(client * 31 + turn * 7 + step * 3) % KEYS for step in range(19)]
    keys = ",".join(f"key-{number}" for number in numbers) + ",absent"
    wanted = [f"value-{number}" for number in numbers] + [None]
    return f"/many/{keys}/", lambda answer: answer["values"] == wanted


def ask_either(client: int, turn: int) -> tuple[str, Callable[[Any], bool]]:
    """Ask for one key or, in every second client, for many."""
    return (ask_many if client % 2 else ask_one)(client, turn)
