"""What a run was made on: the machine and the versions of everything that took part."""

import os
import platform
import shutil
import ssl
import subprocess
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
        "load at the start": _load(),
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


def _load() -> str:
    return f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "?"


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
