"""The servers of a run, each a process of its own on a free port of 127.0.0.1.

They are pinned to another core than the client's where the platform can, and ended by their process
ids. It knows nothing of what is measured.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import trustme

_STANDIN = Path(__file__).parent / "standin"
_START_SECONDS = 10.0


@dataclass(frozen=True)
class Server:
    """A running server."""

    port: int
    process: subprocess.Popen[bytes]

    def cpu_seconds(self) -> float:
        """Return the CPU time that the server has used, 0.0 where the platform does not tell."""
        try:
            text = Path(f"/proc/{self.process.pid}/stat").read_text()
        except OSError:
            return 0.0
        # User and system time, the 14th and 15th field; the second may hold blanks.
        ticks = text.rpartition(")")[2].split()[11:13]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def cores() -> tuple[int, int] | None:
    """Return the client's core and the servers', None where processes cannot be pinned to two."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[1]) if len(allowed) > 1 else None


class Children:
    """Starts each server when it is first asked for, and ends them all."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="benchmarks-"))
        self._servers: dict[object, Server] = {}
        self._cores = cores()
        self._program: list[str] = []
        self._tls_files: list[str] = []
        self.left_out: dict[str, str] = {}
        self.standin_kind = "C"
        if self._cores:
            os.sched_setaffinity(0, {self._cores[0]})

    @property
    def are_pinned(self) -> bool:
        """Whether client and servers keep to a core each."""
        return self._cores is not None

    def cpu_seconds(self) -> float:
        """Return the CPU time that all servers have used."""
        return sum(server.cpu_seconds() for server in self._servers.values())

    def close(self) -> None:
        """End every server."""
        for server in self._servers.values():
            process = server.process
            if process.stdin is not None:
                process.stdin.close()
            process.terminate()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        shutil.rmtree(self._folder)

    def standin(self, latency_ms: float = 0.0, *, tls: bool = False, near: bool = False) -> Server:
        """Return the stand-in of this latency; ``near`` puts it on the client's own core."""
        key = ("standin", latency_ms, tls, near)
        if key not in self._servers:
            command = [*self._standin_program(), str(int(latency_ms * 1000))]
            if tls:
                command += self._certificate()
            self._servers[key] = self._start_reporting(command, near=near)
        return self._servers[key]

    def sdk_server(self) -> Server:
        """Return the gRPC server for Momento's own SDK."""
        if "sdk" not in self._servers:
            command = [sys.executable, str(_STANDIN / "sdk_server.py")]
            self._servers["sdk"] = self._start_reporting(command)
        return self._servers["sdk"]

    def memcached(self, *, near: bool = False) -> Server | None:
        """Return a real memcached, None where it is not installed."""
        arguments = ["-l", "127.0.0.1", "-U", "0", "-t", "1"]
        if _is_root():
            arguments += ["-u", "nobody"]
        return self._installed("memcached", [*arguments, "-p"], near=near)

    def redis(self) -> Server | None:
        """Return a real Redis, None where it is not installed."""
        arguments = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"]
        return self._installed("redis-server", arguments)

    @property
    def certificate_authority(self) -> str:
        """The path of the certificate that clients of the TLS stand-in trust."""
        self._certificate()
        return str(self._folder / "ca.pem")

    def _standin_program(self) -> list[str]:
        if not self._program:
            compiled = self._compile()
            if compiled is None:
                self.standin_kind = "uvloop"
            self._program = compiled or [sys.executable, str(_STANDIN / "fallback.py")]
        return self._program

    def _compile(self) -> list[str] | None:
        compiler = shutil.which("cc")
        if compiler is None or sys.platform != "linux":
            return None
        program = str(self._folder / "standin")
        command = [compiler, "-O2", "-DWITH_TLS", "-o", program, str(_STANDIN / "standin.c")]
        done = subprocess.run([*command, "-lssl", "-lcrypto"], capture_output=True, check=False)
        if done.returncode != 0:
            # Without OpenSSL's headers the slower one serves all rows, so that they compare.
            self.left_out["the stand-in in C"] = "it did not compile; OpenSSL's headers are needed"
            return None
        return [program]

    def _certificate(self) -> list[str]:
        if not self._tls_files:
            authority = trustme.CA()
            certificate = authority.issue_cert("127.0.0.1", "localhost")
            chain, key = self._folder / "chain.pem", self._folder / "key.pem"
            chain.write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
            key.write_bytes(certificate.private_key_pem.bytes())
            authority.cert_pem.write_to_path(str(self._folder / "ca.pem"))
            self._tls_files = [str(chain), str(key)]
        return self._tls_files

    def _start_reporting(self, command: list[str], *, near: bool = False) -> Server:
        """Start a server that prints its port and ends with its standard input."""
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._pin(process, near=near)
        assert process.stdout is not None
        return Server(int(process.stdout.readline()), process)

    def _installed(self, name: str, arguments: list[str], *, near: bool = False) -> Server | None:
        key = (name, near)
        if key in self._servers:
            return self._servers[key]
        program = shutil.which(name)
        if program is None:
            self.left_out[name] = "it is not installed"
            return None
        port = _free_port()
        process = subprocess.Popen(
            [program, *arguments, str(port)],
            cwd=self._folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._pin(process, near=near)
        _wait_for(port)
        self._servers[key] = Server(port, process)
        return self._servers[key]

    def _pin(self, process: subprocess.Popen[bytes], *, near: bool) -> None:
        if self._cores:
            os.sched_setaffinity(process.pid, {self._cores[0 if near else 1]})


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _wait_for(port: int) -> None:
    give_up = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.01)
        else:
            return
