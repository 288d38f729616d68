"""What a run was made on: the machine and the versions of everything that took part."""

import os
import platform
import resource
import shutil
import ssl
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = (
    "django-momento-http", "Django", "requests", "urllib3", "httptools", "aiohttp", "pymemcache",
    "redis", "momento", "uvloop",
)  # fmt: skip
_PROGRAMS = ("memcached", "redis-server")


def description() -> dict[str, str]:
    """Return what ran where, by name."""
    found = {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "OpenSSL": ssl.OPENSSL_VERSION,
    }
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    for program in _PROGRAMS:
        if shutil.which(program):
            found[program] = _program_version(program)
    return found


class Neighbours:
    """How much of the machine others use from here on."""

    def __init__(self, servers_seconds: float) -> None:
        self._servers = servers_seconds
        self._started = time.monotonic()
        self._busy = _busy_seconds()
        self._own = time.process_time()

    def cores_used(self, servers_seconds: float) -> float | None:
        """Return how many cores others kept busy on average, None where it cannot be told."""
        if self._busy is None:
            return None
        busy = (_busy_seconds() or 0.0) - self._busy
        own = time.process_time() - self._own + servers_seconds - self._servers
        return max(0.0, busy - own) / (time.monotonic() - self._started)


def childrens_seconds() -> float:
    """Return the CPU time of all processes that were this one's and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _busy_seconds() -> float | None:
    """Return the CPU time that all programs have used since the machine started."""
    try:
        words = Path("/proc/stat").read_text().splitlines()[0].split()
    except OSError:
        return None
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts = map(int, words[1:8])
    ticks = user + nice + system + interrupts + soft_interrupts
    return ticks / os.sysconf("SC_CLK_TCK")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _program_version(program: str) -> str:
    shown = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    words = shown.stdout.replace("v=", "").split()
    return next((word for word in words if word[:1].isdigit()), "?")
