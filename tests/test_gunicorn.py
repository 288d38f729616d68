"""Real servers: gunicorn with workers forked from a warm parent, uvicorn with many tasks at once.

Each serves a small site under real load for three seconds, or for SERVER_LOAD_SECONDS. Every answer
must hold its own keys' values, none may be an error, and both must end when they are told to.
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

import pytest

from django_momento_http.testing import Fault, RunningServer, running_server

LOAD_SECONDS = float(os.environ.get("SERVER_LOAD_SECONDS", "3"))
CLIENTS = 8
KEYS = 200
PATIENCE = 20.0

SITE = '''
"""A site of two views: what is under a key, and what is under many."""

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
WARM = cache.get_many([f"key-{number}" for number in range(64)])


def one(request, key):
    return JsonResponse({"pid": os.getpid(), "parent": PARENT, "value": cache.get(key)})


async def many(request, keys):
    names = keys.split(",")
    found = await caches["default"].aget_many(names)
    return JsonResponse({"pid": os.getpid(), "values": [found.get(name) for name in names]})


urlpatterns = [path("one/<str:key>/", one), path("many/<str:keys>/", many)]
wsgi = get_wsgi_application()
asgi = get_asgi_application()
'''


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, RunningServer]]:
    """The site's folder, and the service with all values in place."""
    (tmp_path / "site_under_load.py").write_text(SITE)
    with running_server() as server:
        yield tmp_path, server


def fill(folder: Path, server: RunningServer) -> None:
    """Let the site's own configuration store the values, in a process of its own."""
    code = (
        "import site_under_load as s\n"
        f"s.cache.set_many({{f'key-{{n}}': f'value-{{n}}' for n in range({KEYS})}})"
    )
    subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment(server), check=True, timeout=60
    )


def environment(server: RunningServer) -> dict[str, str]:
    """Return what a server's process needs."""
    root = str(Path(__file__).parent.parent)
    return {**os.environ, "SITE_ENDPOINT": server.endpoint, "PYTHONPATH": root}


@contextmanager
def started(folder: Path, server: RunningServer, *command: str) -> Iterator[tuple[int, Any]]:
    """Start a server, yield its port and its process, and end it by its process id."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=environment(server),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    log = Log(process.stderr)
    try:
        yield log.port(), process
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) in (0, -signal.SIGTERM)
        log.join(PATIENCE)
        errors = [line for line in log.lines if "Traceback" in line or "Exception" in line]
        assert errors == [], "".join(log.lines)
    finally:
        process.kill()
        process.wait()
        log.join(PATIENCE)
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
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                self._ports.put(int(found[1]))

    def port(self) -> int:
        """Return the port that the server says it listens on."""
        return self._ports.get(timeout=PATIENCE)


class Load:
    """Clients that ask, each over a connection of its own, and what they were told."""

    def __init__(self, port: int, ask: Callable[[int, int], tuple[str, Callable[[Any], bool]]]):
        self.wrong: list[str] = []
        self.answers = 0
        self.pids: set[int] = set()
        self._port = port
        self._ask = ask
        self._lock = threading.Lock()

    def run(self, seconds: float) -> None:
        """Ask for so long."""
        end = time.monotonic() + seconds
        threads = [
            threading.Thread(target=self._client, args=(number, end)) for number in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(seconds + PATIENCE)
            if thread.is_alive():
                self.wrong.append("a client hangs")

    def _client(self, client: int, end: float) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        turn = 0
        while time.monotonic() < end:
            turn += 1
            target, is_right = self._ask(client, turn)
            status, body = self._get(connection, target)
            self._judge(target, status, body, is_right)
        connection.close()

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
    return f"/one/key-{number}/", lambda answer: answer["value"] == f"value-{number}"


def ask_many(client: int, turn: int) -> tuple[str, Callable[[Any], bool]]:
    """Ask for twenty keys, one of which is not there."""
    numbers = [(client * 31 + turn * 7 + step * 3) % KEYS for step in range(19)]
    keys = ",".join(f"key-{number}" for number in numbers) + ",absent"
    wanted = [f"value-{number}" for number in numbers] + [None]
    return f"/many/{keys}/", lambda answer: answer["values"] == wanted


def test_forked_workers_never_mix_values_up(site: tuple[Path, RunningServer]) -> None:
    """Four workers forked from a parent with warm connections each serve the right values."""
    folder, server = site
    fill(folder, server)
    command = ["gunicorn", "--preload", "-w", "4", "-b", "127.0.0.1:0", "site_under_load:wsgi"]
    with started(folder, server, *command) as (port, process):
        load = Load(port, ask_one)
        load.run(LOAD_SECONDS)
        assert load.wrong == []
        assert len(load.pids) > 1
        assert process.pid not in load.pids
        assert load.answers > 20 * LOAD_SECONDS


def test_forked_workers_survive_trouble(site: tuple[Path, RunningServer]) -> None:
    """While the service fails, every page is served without the value; afterwards with it."""
    folder, server = site
    fill(folder, server)
    command = ["gunicorn", "--preload", "-w", "2", "-b", "127.0.0.1:0", "site_under_load:wsgi"]

    def in_trouble(client: int, turn: int) -> tuple[str, Callable[[Any], bool]]:
        target, is_right = ask_one(client, turn)
        return target, lambda answer: answer["value"] is None or is_right(answer)

    with started(folder, server, *command) as (port, _):
        server.inject(Fault(drop="before", times=40))
        server.inject(Fault(status=503, times=40))
        load = Load(port, in_trouble)
        load.run(1.0)
        assert load.wrong == []
        server.clear_faults()
        end, last = time.monotonic() + PATIENCE, Load(port, ask_one)
        while time.monotonic() < end:
            last = Load(port, ask_one)
            last.run(0.3)
            if not last.wrong:
                break
        assert last.wrong == []


def test_tasks_never_mix_values_up(site: tuple[Path, RunningServer]) -> None:
    """Concurrent async views each get the values of their own keys."""
    folder, server = site
    fill(folder, server)
    command = ["uvicorn", "--host", "127.0.0.1", "--port", "0", "site_under_load:asgi"]
    with started(folder, server, *command) as (port, _):
        load = Load(port, ask_many)
        load.run(LOAD_SECONDS)
        assert load.wrong == []
        assert load.answers > 10 * LOAD_SECONDS
