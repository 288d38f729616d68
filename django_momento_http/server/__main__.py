"""The command: options in, a server until it is told to stop. It knows no HTTP."""

import argparse
import asyncio
import signal
import sys

from .limits import Config
from .listener import Server
from .messages import ServedRequest
from .service import Service

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_MB = 1024 * 1024
_OWN_FILES = 64  # streams, the event loop's, the listener's, and connections that are refused


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        config = _config(options)
    except ValueError as error:
        parser.error(str(error))
    try:
        asyncio.run(_serve(config, options))
    except OSError as error:
        sys.stderr.write(f"Cannot listen on {options.host} port {options.port}: {error.strerror}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m django_momento_http.server",
        description="Serve Momento's HTTP API from this process's memory.",
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    add("--port", type=int, default=8400, help="port; 0 picks a free one (%(default)s)")
    add("--cache", nargs="+", action="extend", metavar="NAME", help="caches (default-cache)")
    add("--token", help="the token that may read and write; not given: any token may")
    add("--read-only-token", metavar="TOKEN", help="a token that may only read")
    add("--latency-ms", type=float, default=0.0, metavar="MS", help="hold every answer back")
    add("--max-ttl", type=int, metavar="S", help="0: unbounded (%(default)s)")
    add("--ops-per-second", type=float, metavar="N", help="answer 429 above this rate")
    add("--fail-rate", type=float, default=0.0, metavar="P", help="share of failed requests, 0-1")
    add("--fail-status", type=int, metavar="STATUS", help="(%(default)s)")
    add("--max-memory", type=int, metavar="MB", help="for items, oldest go first (%(default)s)")
    add("--max-connections", type=int, metavar="N", help="answer 503 beyond (%(default)s)")
    add("--idle-timeout", type=float, metavar="S", help="end slower connections (%(default)s)")
    add("-v", "--verbose", action="store_true", help="log one line per request")
    parser.set_defaults(
        max_ttl=Config.max_ttl,
        fail_status=Config.fail_status,
        max_memory=Config.max_memory // _MB,
        max_connections=min(Config.max_connections, _descriptors()),
        idle_timeout=Config.idle_timeout,
    )
    return parser


def _config(options: argparse.Namespace) -> Config:
    return Config(
        caches=tuple(options.cache or Config.caches),
        token=options.token,
        read_only_token=options.read_only_token,
        latency=options.latency_ms / 1000,
        max_ttl=options.max_ttl or None,
        ops_per_second=options.ops_per_second,
        fail_rate=options.fail_rate,
        fail_status=options.fail_status,
        max_memory=options.max_memory * _MB,
        max_connections=options.max_connections,
        idle_timeout=options.idle_timeout,
    )


def _descriptors() -> int:
    """Return how many connections this process may have open beside what it needs itself."""
    if resource is None:
        return Config.max_connections
    return max(resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _OWN_FILES, 1)


async def _serve(config: Config, options: argparse.Namespace) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stopped.set))
    server = Server(Service(config, observer=_log if options.verbose else None))
    await server.start(options.host, options.port)
    tokens = "as given" if config.token else "any"
    caches = f"caches: {', '.join(config.caches)}; token: {tokens}"
    if not server.is_local and config.token is None:
        sys.stderr.write(
            f"Warning: whoever reaches {options.host} may read and write; give it a --token.\n"
        )
    _say(f"Serving Momento's HTTP API on {server.endpoint} ({caches})")
    await stopped.wait()
    await server.stop()


def _log(request: ServedRequest) -> None:
    _say(f"{request.method} {request.path} {request.status} {request.seconds * 1000:.1f} ms")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
