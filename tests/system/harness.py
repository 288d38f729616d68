"""Runs the programs of the proofs and listens to what they say.

A program says JSON objects, one a line, and goes on when it is told to. One that hangs prints where
and ends itself. It knows nothing of what is proved.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django_momento_http.testing import RunningServer

ROOT = Path(__file__).parent.parent.parent
# Beyond the program's own: it says where it hangs before it is ended from outside.
_GRACE = 20.0


class Program:
    """A program under way."""

    def __init__(self, process: "subprocess.Popen[str]", longest_wait: float) -> None:
        self._process = process
        self._longest_wait = longest_wait + _GRACE
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._errors: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=(process.stdout, self._lines.put)),
            threading.Thread(target=self._read, args=(process.stderr, self._errors.append)),
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def hear(self) -> dict[str, Any]:
        """Return the next thing that it says; its end without a word is a failure."""
        line = self._lines.get(timeout=self._longest_wait)
        assert line, "".join(self._errors)
        said: dict[str, Any] = json.loads(line)
        return said

    def tell(self, word: str) -> None:
        """Let it go on."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def end(self) -> None:
        """Wait for its end, which must be a quiet one."""
        status = self._process.wait(self._longest_wait)
        self._join()
        errors = "".join(self._errors)
        assert (status, errors) == (0, ""), f"status {status}: {errors}"

    def kill(self) -> None:
        """End it whatever it does."""
        self._process.kill()
        self._process.wait()
        self._join()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()

    def _join(self) -> None:
        for reader in self._readers:
            reader.join(self._longest_wait)

    @staticmethod
    def _read(stream: Any, take: Any) -> None:
        for line in stream:
            take(line)
        take("")


@contextmanager
def started(
    name: str, *arguments: object, entry: dict[str, Any], longest_wait: float = 60.0
) -> Iterator[Program]:
    """Start a program with this CACHES entry and end it by its process id."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-W", "ignore::DeprecationWarning"),
            *("-m", f"tests.system.programs.{name}", *map(str, arguments)),
        ],
        cwd=ROOT,
        env={**os.environ, "CACHE": json.dumps(entry), "LONGEST_WAIT": str(longest_wait)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    program = Program(process, longest_wait)
    try:
        yield program
    finally:
        program.kill()


def report_of(
    name: str, *arguments: object, server: RunningServer, longest_wait: float = 60.0, **options: Any
) -> dict[str, Any]:
    """Run a program to its end and return what it reports."""
    entry = server.cache_settings(**options)
    with started(name, *arguments, entry=entry, longest_wait=longest_wait) as program:
        report = program.hear()
        program.end()
    return report
