"""What ``manage.py momento_check`` does to a server and says to a person."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trustme
from django.core.cache import caches
from django.core.management import CommandError, call_command
from django.core.management.base import OutputWrapper

from django_momento_http._diagnostics import probe
from django_momento_http._diagnostics.aliases import build
from django_momento_http._diagnostics.probe import ROUNDS, examine
from django_momento_http.management.commands.momento_check import Command
from django_momento_http.testing import Fault, RunningServer
from tests.support.markers import marker_key
from tests.support.scripted import (
    Peer,
    authority,
    bundle,
    response,
    scripted,
    server_context,
    silent,
    tunnel,
)

SECRETS = ("test-token", "test-read-only-token", "canary", "c2lnbmF0dXJl")
LOCMEM = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
ROOT = Path(__file__).parents[2]
# One of everything, every round, and the clear marker once.
ALL_REQUESTS = ["PUT", "GET", "DELETE"] * ROUNDS + ["GET"]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MOMENTO_API_KEY", "MOMENTO_ENDPOINT", "MOMENTO_REGION"):
        monkeypatch.delenv(name, raising=False)


def run(*aliases: str, **options: Any) -> tuple[str, str]:
    """Run the command; return what it prints and its CommandError, neither with a secret."""
    out, failures = StringIO(), []
    try:
        call_command("momento_check", *aliases, stdout=out, no_color=True, **options)
    except CommandError as error:
        failures.append(error)
    failure = "".join(map(str, failures))
    assert [error.returncode for error in failures] in ([], [1])
    assert not any(secret in out.getvalue() + failure for secret in SECRETS)
    return out.getvalue(), failure


def document(*aliases: str, **options: Any) -> dict[str, Any]:
    """Run the command with ``--json`` and return the document; ``ok`` says how it ended."""
    out, failure = run(*aliases, json=True, **options)
    found: dict[str, Any] = json.loads(out)
    assert found["ok"] is (failure == "")
    return found


def examined(**options: Any) -> dict[str, Any]:
    """Run the command with ``--json`` and return what it says of the one alias."""
    [row] = document(**options)["caches"]
    return dict(row)


def troubles(row: dict[str, Any], severity: str = "problems") -> list[tuple[str, str]]:
    """Return the steps and kinds of what was found."""
    return [(trouble["step"], trouble["kind"]) for trouble in row[severity]]


def momento(endpoint: str, **options: Any) -> dict[str, Any]:
    """Return a row of CACHES for an endpoint that is not a running server's."""
    return {
        "BACKEND": "django_momento_http.cache.MomentoCache",
        "LOCATION": "my-cache",
        "OPTIONS": {"ENDPOINT": endpoint, "TOKEN": "canary", **options},
    }


def jwt(**claims: Any) -> str:
    """Return a JSON Web Token with these claims."""
    body = urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"eyJhbGciOiJub25lIn0.{body}.c2lnbmF0dXJl"


def in_memory() -> Callable[[Peer], None]:
    """Return a script that keeps values as the service does."""
    values: dict[str, bytes] = {}

    def script(peer: Peer) -> None:
        while True:
            received = peer.request()
            key = received.target.partition("&")[0]
            if received.method == "GET":
                body = values.get(key)
                peer.send(response(200, body) if body else response(404, b"Key Not Found"))
                continue
            if received.method == "PUT":
                values[key] = received.body
            else:
                values.pop(key, None)
            peer.send(response(204, b""))

    return script


# A cache that works


def test_a_cache_that_works(server: RunningServer, settings: Any) -> None:
    """Each step has its time, and the command succeeds."""
    settings.CACHES = {"default": server.cache_settings()}
    out, failure = run()
    assert failure == ""
    assert f"default: Momento cache 'default-cache' at {server.endpoint}" in out
    for step in ("name resolution", "connect", "set", "get", "delete"):
        assert f"  {step} " in out
    assert "OK" in out
    assert "FAILED" not in out


def test_what_goes_over_the_wire(server: RunningServer, settings: Any) -> None:
    """A few rounds under one reserved key with the alias's KEY_PREFIX, and nothing is left."""
    settings.CACHES = {"default": server.cache_settings(KEY_PREFIX="shop", VERSION=7)}
    run()
    assert [request.method for request in server.requests] == ALL_REQUESTS
    keys = {request.key for request in server.requests[:-1]}
    assert len(keys) == 1
    assert keys.pop().startswith(b"shop:7:momento_check:")
    assert server.requests[-1].key == marker_key(b"shop")
    assert {request.ttl_seconds for request in server.requests if request.method == "PUT"} == {60}
    assert server.items == {}


def test_each_run_has_a_key_of_its_own(server: RunningServer, settings: Any) -> None:
    """Two runs at the same time do not see each other's value."""
    settings.CACHES = {"default": server.cache_settings()}
    run()
    run()
    assert len({request.key for request in server.requests if request.method == "PUT"}) == 2


def test_limits_of_the_alias(server: RunningServer, settings: Any) -> None:
    """The value lives no longer than MAX_TTL, and without a marker none is read."""
    settings.CACHES = {"default": server.cache_settings(MAX_TTL=5, CLEAR_MAX_AGE=None)}
    assert run()[1] == ""
    assert [request.method for request in server.requests] == ALL_REQUESTS[:-1]
    assert server.requests[0].ttl_seconds == 5


@pytest.mark.parametrize(
    "options",
    [{"SERIALIZER": "json"}, {"COMPRESSOR": None}, {"ON_ERROR": "raise"}, {"SIGNING_KEY": "x"}],
)
def test_any_good_configuration(
    server: RunningServer, settings: Any, options: dict[str, Any]
) -> None:
    """Whatever the options are, a working cache passes without a warning."""
    settings.CACHES = {"default": server.cache_settings(**options)}
    row = examined()
    assert (row["ok"], row["warnings"]) == (True, [])


def test_tls_is_timed_apart(settings: Any, tmp_path: Path) -> None:
    """Over https, connecting and the TLS handshake have a time each."""
    with scripted(in_memory(), tls=server_context()) as peer:
        settings.CACHES = {"default": momento(peer.endpoint, CA_BUNDLE=bundle(tmp_path))}
        row = examined()
        assert peer.resumed == [False] * (ROUNDS + 1)
    assert list(row["milliseconds"]) == ["lookup", "connect", "tls", "set", "get", "delete"]
    assert all(value >= 0 for value in row["milliseconds"].values())
    assert row["milliseconds"]["tls"] > 0


def test_through_a_proxy(server: RunningServer, settings: Any) -> None:
    """The proxy's tunnel has a time of its own."""
    port = int(server.endpoint.rpartition(":")[2])
    with scripted(tunnel(port)) as proxy:
        settings.CACHES = {"default": server.cache_settings(PROXY=f"http://127.0.0.1:{proxy.port}")}
        row = examined()
    assert row["ok"]
    assert list(row["milliseconds"])[:3] == ["lookup", "connect", "tunnel"]


def test_medians_in_milliseconds() -> None:
    """What is shown of a step is the middle of its times."""
    report = probe.Report("default")
    report.seconds["set"] += [0.003, 0.001, 9.0]
    assert report.milliseconds() == {"set": 3.0}
    assert report.milliseconds(max) == {"set": 9000.0}


def test_the_breaker_does_not_stand_in_the_way(server: RunningServer, settings: Any) -> None:
    """A cache that the process has given up on for the moment is asked all the same."""
    settings.CACHES = {"default": server.cache_settings()}
    server.inject(Fault(status=401, times=1))
    caches["default"].get("a")
    assert caches["default"].stats()["breaker"] == "open"
    server.forget_requests()
    assert run()[1] == ""
    assert len(server.requests) == len(ALL_REQUESTS)
    assert caches["default"].stats()["breaker"] == "open"


def test_the_process_is_not_charged(server: RunningServer, settings: Any) -> None:
    """What the command finds opens no breaker and counts in no statistics."""
    settings.CACHES = {"default": server.cache_settings()}
    before = caches["default"].stats()
    server.inject(Fault(status=401, times=None))
    assert run()[1] != ""
    assert caches["default"].stats() == before


# What the service answers

ANSWERS: list[tuple[Fault, tuple[str, str], list[str]]] = [
    (
        Fault(status=401, times=None),
        ("set", "token_refused"),
        ["401", "another region", "MOMENTO_API_KEY", "v1 key"],
    ),
    (
        Fault(status=404, body=b"Cache Not Found", times=None),
        ("set", "cache_not_found"),
        ["no cache 'default-cache'", "REGION", "LOCATION", "console"],
    ),
    (
        Fault(status=404, body=b"<html>nginx</html>", times=None),
        ("set", "unusable"),
        ["Something other than Momento answers", "ENDPOINT"],
    ),
    (Fault(status=429, times=None), ("set", "rate_limited"), ["429", "limit", "ask Momento"]),
    (Fault(status=500, times=None), ("set", "service_failed"), ["500", "support"]),
    (Fault(status=400, times=None), ("set", "bad_request"), ["400", "MAX_TTL"]),
    (Fault(status=302, times=None), ("set", "unusable"), ["302", "ENDPOINT"]),
    (Fault(drop="after", times=None), ("set", "connection"), ["broke", "ENDPOINT"]),
    (
        Fault(status=403, key=marker_key(), times=None),
        ("marker", "not_permitted"),
        ["read the clear marker", "403", "permission"],
    ),
    (
        Fault(status=200, body=b"x" * 99, method="GET"),
        ("get", "altered"),
        ["not what was written"],
    ),
    (
        Fault(status=404, body=b"Key Not Found", method="GET", times=None),
        ("get", "not_found"),
        ["could not be found"],
    ),
]


@pytest.mark.parametrize(
    ("fault", "trouble", "words"), ANSWERS, ids=[f"{step} {kind}" for _, (step, kind), _ in ANSWERS]
)
def test_bad_answers(
    server: RunningServer,
    settings: Any,
    fault: Fault,
    trouble: tuple[str, str],
    words: list[str],
) -> None:
    """What stops a request is named once, with its likely cause and the next step."""
    settings.CACHES = {"default": server.cache_settings()}
    server.inject(fault)
    row = examined()
    assert troubles(row) == [trouble]
    said = "{cause} {advice}".format(**row["problems"][0])
    assert [word for word in words if word not in said] == []


def test_the_text_says_what_the_document_says(server: RunningServer, settings: Any) -> None:
    """Cause and next step stand in the text as they do in JSON."""
    settings.CACHES = {"default": server.cache_settings(LOCATION="missing")}
    [problem] = examined()["problems"]
    out, failure = run()
    assert f"FAILED: {problem['cause']}" in out
    assert problem["advice"] in out
    assert failure == "1 of 1 failed: default"


def test_a_token_that_may_only_read(server: RunningServer, settings: Any) -> None:
    """Each permission that is missing is named, and reading, which works, has its time."""
    settings.CACHES = {"default": server.cache_settings(TOKEN=server.read_only_token)}
    row = examined()
    assert troubles(row) == [("set", "not_permitted"), ("delete", "not_permitted")]
    assert [problem["cause"] for problem in row["problems"]] == [
        "the token may not write (403)",
        "the token may not delete (403)",
    ]
    assert "get" in row["milliseconds"]
    assert "set" not in row["milliseconds"]
    assert len(server.requests) == 3


def test_a_token_that_may_not_read(server: RunningServer, settings: Any) -> None:
    """What was written is deleted, though it cannot be read."""
    settings.CACHES = {"default": server.cache_settings()}
    server.inject(Fault(status=403, method="GET", times=None))
    assert [problem["cause"] for problem in examined()["problems"]] == [
        "the token may not read (403)"
    ]
    assert server.items == {}


def test_a_wrong_token(server: RunningServer, settings: Any) -> None:
    """A token that the service does not know is refused, and asked with once only."""
    settings.CACHES = {"default": server.cache_settings(TOKEN="canary")}
    assert troubles(examined()) == [("set", "token_refused")]
    assert len(server.requests) == 1


def test_an_expired_token(server: RunningServer, settings: Any) -> None:
    """A token that says when it expired is told so."""
    settings.CACHES = {"default": server.cache_settings(TOKEN=jwt(exp=86400))}
    row = examined()
    assert troubles(row) == [("set", "token_expired")]
    assert "expired at 1970-01-02 00:00 UTC" in row["problems"][0]["cause"]


@pytest.mark.parametrize(("now", "kind"), [(999.0, "token_refused"), (1000.0, "token_expired")])
def test_expiry_by_the_clock(server: RunningServer, settings: Any, now: float, kind: str) -> None:
    """A refused token that has not expired was refused for another reason."""
    settings.CACHES = {"default": server.cache_settings(TOKEN=jwt(exp=1000))}
    report = examine("default", build("default"), wall_clock=lambda: now)
    assert [problem.kind for problem in report.problems] == [kind]


def test_a_callable_that_fails(server: RunningServer, settings: Any) -> None:
    """A TOKEN that cannot be asked is the problem, and nothing is sent."""
    settings.CACHES = {"default": server.cache_settings(TOKEN=lambda: "canary"[9])}
    row = examined()
    assert troubles(row) == [("token", "token")]
    assert "IndexError" in row["problems"][0]["cause"]
    assert server.requests == []


def test_a_callable_that_answers(server: RunningServer, settings: Any) -> None:
    """A TOKEN that is asked for works as a string does."""
    settings.CACHES = {"default": server.cache_settings(TOKEN=lambda: server.token)}
    assert examined()["ok"]


def test_a_value_that_is_found_late(server: RunningServer, settings: Any) -> None:
    """A read that does not see the write at once is a warning: the service may be stale."""
    settings.CACHES = {"default": server.cache_settings()}
    server.inject(Fault(status=404, body=b"Key Not Found", method="GET"))
    row = examined()
    assert row["ok"]
    assert troubles(row, "warnings") == [("get", "found_late")]


# The clock and the signing key


@pytest.mark.parametrize(
    ("ahead", "words"),
    [
        (0, None),
        (-20, None),
        (20, None),
        (45, "45 s ahead of the service's"),
        (-3600, "3600 s behind the service's"),
    ],
)
def test_clocks(server: RunningServer, settings: Any, ahead: int, words: str | None) -> None:
    """A clock more than half a minute off is a warning, given once."""
    settings.CACHES = {"default": server.cache_settings()}
    server.inject(Fault(headers=(("Date", formatdate(1_700_000_000, usegmt=True)),), times=None))
    report = examine("default", build("default"), wall_clock=lambda: 1_700_000_000 + ahead)
    assert report.problems == []
    assert [warning.kind for warning in report.warnings] == (["clock"] if words else [])
    if words:
        assert words in report.warnings[0].cause
        assert "NTP" in report.warnings[0].advice


@pytest.mark.parametrize("date", ["", "yesterday", "Sat, 99 Foo 20023 99:99:99 +9999999999"])
def test_dates_that_are_none(server: RunningServer, settings: Any, date: str) -> None:
    """A Date header that cannot be read says nothing."""
    settings.CACHES = {"default": server.cache_settings()}
    server.inject(Fault(headers=(("Date", date),), times=None))
    assert examined()["ok"]


def test_a_refusal_tells_the_time_too(server: RunningServer, settings: Any) -> None:
    """A token may look expired to the service because a clock is wrong, so both are said."""
    settings.CACHES = {"default": server.cache_settings()}
    date = ("Date", formatdate(time.time() - 600, usegmt=True))
    server.inject(Fault(status=401, headers=(date,), times=None))
    row = examined()
    assert troubles(row) == [("set", "token_refused")]
    assert troubles(row, "warnings") == [("clock", "clock")]


@pytest.mark.parametrize(("key", "expected"), [("theirs", []), (None, ["marker_altered"])])
def test_a_marker_that_was_tampered_with(
    server: RunningServer,
    settings: Any,
    make_cache: Callable[..., Any],
    key: str | None,
    expected: list[str],
) -> None:
    """A clear marker that does not verify is a warning; that of another signing key is not met."""
    make_cache(SIGNING_KEY=key).clear()
    settings.CACHES = {"default": server.cache_settings()}
    if key is None:
        server.put("default-cache", marker_key(), b"forged")
    row = examined()
    assert row["ok"]
    assert [kind for _, kind in troubles(row, "warnings")] == expected


def test_a_warning_is_printed(server: RunningServer, settings: Any) -> None:
    """A warning stands in the text, and the command succeeds."""
    settings.CACHES = {"default": server.cache_settings()}
    server.put("default-cache", marker_key(), b"forged")
    out, failure = run()
    assert failure == ""
    assert "warning: the clear marker" in out
    assert "clear()" in out


# Where no answer comes


def closed(peer: Peer) -> None:
    """Hang up at once."""


def test_a_dead_port(settings: Any) -> None:
    """A port where nothing listens refuses, and the endpoint is named."""
    with scripted(silent) as peer:
        endpoint = peer.endpoint
    settings.CACHES = {"default": momento(endpoint)}
    row = examined()
    assert troubles(row) == [("connect", "refused")]
    assert f"{endpoint} refused" in row["problems"][0]["cause"]
    assert "REGION or ENDPOINT" in row["problems"][0]["advice"]


def test_a_host_without_an_address(settings: Any) -> None:
    """A name that cannot be resolved is a matter of ENDPOINT or of DNS."""
    settings.CACHES = {"default": momento("https://nonexistent.invalid")}
    row = examined()
    assert troubles(row) == [("lookup", "dns")]
    assert "nonexistent.invalid is unknown here" in row["problems"][0]["cause"]
    assert "DNS" in row["problems"][0]["advice"]
    assert row["milliseconds"] == {}


def test_a_slow_server(server: RunningServer, settings: Any) -> None:
    """An answer after the alias's own REQUEST_TIMEOUT is none, and the way there has its times."""
    settings.CACHES = {"default": server.cache_settings(REQUEST_TIMEOUT=0.2)}
    server.inject(Fault(delay=0.6, times=None))
    row = examined()
    assert troubles(row) == [("set", "timeout")]
    assert "REQUEST_TIMEOUT (0.2 s)" in row["problems"][0]["cause"]
    assert "nearer region" in row["problems"][0]["advice"]
    assert "connect" in row["milliseconds"]


def test_a_server_that_hangs_up(settings: Any) -> None:
    """A connection that is closed without an answer broke."""
    with scripted(closed) as peer:
        settings.CACHES = {"default": momento(peer.endpoint)}
        assert troubles(examined()) == [("set", "connection")]


def test_a_handshake_that_never_ends(settings: Any) -> None:
    """A server that accepts and says nothing keeps nobody longer than CONNECT_TIMEOUT."""
    with scripted(silent) as peer:
        endpoint = peer.endpoint.replace("http:", "https:")
        settings.CACHES = {"default": momento(endpoint, CONNECT_TIMEOUT=0.2)}
        row = examined()
    assert troubles(row) == [("connect", "connect_timeout")]
    assert "CONNECT_TIMEOUT (0.2 s)" in row["problems"][0]["cause"]


@contextmanager
def certified(*names: str, expired: bool = False) -> Iterator[str]:
    """A TLS server with such a certificate; its endpoint."""
    context = server_context(*names)
    if expired:
        yesterday = datetime.now(UTC) - timedelta(days=1)
        certificate = authority().issue_cert("127.0.0.1", not_after=yesterday)
        certificate.configure_cert(context)
    with scripted(in_memory(), tls=context) as peer:
        yield peer.endpoint


@pytest.mark.parametrize(
    ("names", "expired", "trusted", "kind", "words"),
    [
        ((), False, False, "tls_authority", ["authority", "CA_BUNDLE", "intercepts"]),
        (("example.org",), False, True, "tls_name", ["another host", "ENDPOINT"]),
        ((), True, True, "tls_time", ["expired", "clock"]),
    ],
)
def test_certificates(
    settings: Any,
    tmp_path: Path,
    names: tuple[str, ...],
    expired: bool,
    trusted: bool,
    kind: str,
    words: list[str],
) -> None:
    """A certificate that is refused is told by what is wrong with it."""
    with certified(*names, expired=expired) as endpoint:
        trust = {"CA_BUNDLE": bundle(tmp_path)} if trusted else {}
        settings.CACHES = {"default": momento(endpoint, **trust)}
        row = examined()
    assert troubles(row) == [("tls", kind)]
    said = "{cause} {advice}".format(**row["problems"][0])
    assert [word for word in words if word not in said] == []
    assert list(row["milliseconds"]) == ["lookup", "connect"]


def test_a_certificate_of_its_own_making(settings: Any, tmp_path: Path) -> None:
    """A chain that ends in a root that is not trusted is told as an unknown authority."""
    other = trustme.CA()
    other.cert_pem.write_to_path(str(tmp_path / "other.pem"))
    with certified() as endpoint:
        settings.CACHES = {"default": momento(endpoint, CA_BUNDLE=tmp_path / "other.pem")}
        assert troubles(examined()) == [("tls", "tls_authority")]


# What else may listen there


def says(answer: bytes, heard: list[bytes]) -> Callable[[Peer], None]:
    """Return a script that answers anything with these bytes and hangs up."""

    def script(peer: Peer) -> None:
        heard.append(peer.sock.recv(65536))
        peer.send(answer)

    return script


class WebServer(SimpleHTTPRequestHandler):
    """Python's own web server, which knows GET and HEAD."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def web_server() -> Iterator[str]:
    """A web server of files; its endpoint."""
    with ThreadingHTTPServer(("127.0.0.1", 0), WebServer) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


PAGE = "Content-Type: text/html; charset=utf-8"
LISTENERS: dict[str, tuple[bytes, str, list[str]]] = {
    "Redis": (b"-ERR unknown command 'PUT'\r\n", "speaks_other", ["a Redis server", "REGION"]),
    "Redis, protected": (b"-DENIED Redis is running\r\n", "speaks_other", ["a Redis server"]),
    "memcached": (b"ERROR\r\n", "speaks_other", ["a memcached server"]),
    "SSH": (b"SSH-2.0-OpenSSH_9.6\r\n", "speaks_other", ["an SSH server"]),
    "mail": (b"220 mail.example.com ESMTP\r\n", "speaks_other", ["a mail server"]),
    "nothing known": (b"hello\r\n", "connection", ["broke"]),
    "nothing": (b"", "connection", ["broke"]),
    "a page for 403": (
        response(403, b"<h1>Forbidden</h1>", PAGE),
        "unusable",
        ["(403) as other web servers give it", "Something other than Momento answers"],
    ),
    "no method": (response(501, b"no"), "unusable", ["(501) as other web servers give it"]),
    "405": (response(405, b"no"), "unusable", ["405", "Something other than Momento answers"]),
    "a load balancer's page": (response(502, b"<h1>", PAGE), "service_failed", ["Try again later"]),
    "400": (response(400, b"no"), "bad_request", ["MAX_TTL"]),
    "a page about https": (response(404, b"see https://", PAGE), "unusable", ["ENDPOINT"]),
}


@pytest.mark.parametrize(("answer", "kind", "words"), LISTENERS.values(), ids=LISTENERS)
def test_something_else_listens(settings: Any, answer: bytes, kind: str, words: list[str]) -> None:
    """Where ENDPOINT leads to another server, the likely mistake is named."""
    heard: list[bytes] = []
    with scripted(says(answer, heard)) as peer:
        settings.CACHES = {"default": momento(peer.endpoint)}
        row = examined()
    # Who it is is asked without the token.
    assert [b"canary" in part for part in heard] == [True] + [False] * (len(heard) - 1)
    assert troubles(row) == [("set", kind)]
    said = "{cause} {advice}".format(**row["problems"][0])
    assert [word for word in words if word not in said] == []


def test_another_web_server(settings: Any) -> None:
    """A web server that knows no PUT is not told to be the service in trouble."""
    with web_server() as endpoint:
        settings.CACHES = {"default": momento(endpoint)}
        row = examined()
    assert troubles(row) == [("set", "unusable")]
    said = "{cause} {advice}".format(**row["problems"][0])
    assert "501" in said
    assert f"Something other than Momento answers at {endpoint}: check ENDPOINT" in said


def test_plain_http_where_tls_was_expected(server: RunningServer, settings: Any) -> None:
    """A server that speaks plain http points at the scheme and the port of ENDPOINT."""
    endpoint = server.endpoint.replace("http:", "https:")
    settings.CACHES = {"default": momento(endpoint)}
    row = examined()
    assert troubles(row) == [("tls", "speaks_plain")]
    assert f"{endpoint} speaks plain http" in row["problems"][0]["cause"]
    assert "port of ENDPOINT" in row["problems"][0]["advice"]
    assert "http://" in row["problems"][0]["advice"]


def test_another_protocol_where_tls_was_expected(settings: Any) -> None:
    """What speaks neither TLS nor HTTP is named in spite of https."""
    with scripted(says(b"-ERR what?\r\n", [])) as peer:
        settings.CACHES = {"default": momento(peer.endpoint.replace("http:", "https:"))}
        assert troubles(examined()) == [("tls", "speaks_other")]


def test_tls_where_plain_http_was_expected(settings: Any) -> None:
    """A server that speaks TLS points at the scheme of ENDPOINT."""
    with scripted(in_memory(), tls=server_context()) as peer:
        endpoint = peer.endpoint.replace("https:", "http:")
        settings.CACHES = {"default": momento(endpoint)}
        row = examined()
    assert troubles(row) == [("set", "speaks_tls")]
    assert "Write https:// in ENDPOINT" in row["problems"][0]["advice"]


def test_tls_whose_server_says_so(settings: Any) -> None:
    """A TLS server that answers plain http with a page about it is still known by its TLS."""
    context = server_context()

    def script(peer: Peer) -> None:
        if peer.sock.recv(1, socket.MSG_PEEK) == b"\x16":
            with context.wrap_socket(peer.sock, server_side=True) as sock:
                sock.recv(1)
            return
        peer.sock.recv(65536)
        text = b"Client sent an HTTP request to an HTTPS server.\n"
        peer.send(b"HTTP/1.0 400 Bad Request\r\n\r\n" + text)

    with scripted(script) as peer:
        settings.CACHES = {"default": momento(peer.endpoint)}
        assert troubles(examined()) == [("set", "speaks_tls")]


def test_a_proxy_that_refuses(settings: Any) -> None:
    """A proxy that wants another login is told apart from the service, without its password."""
    with scripted(tunnel(9, login="me:right")) as proxy:
        url = f"http://me:canary@127.0.0.1:{proxy.port}"
        settings.CACHES = {"default": momento("http://127.0.0.1:9", PROXY=url)}
        row = examined()
    assert troubles(row) == [("tunnel", "proxy")]
    assert "407" in row["problems"][0]["cause"]
    assert "PROXY" in row["problems"][0]["advice"]


def test_a_proxy_that_is_not_there(settings: Any) -> None:
    """A proxy that cannot be reached is not taken for the service."""
    with scripted(silent) as peer:
        dead = peer.port
    url = f"http://127.0.0.1:{dead}"
    settings.CACHES = {"default": momento("https://nonexistent.invalid", PROXY=url)}
    row = examined()
    assert troubles(row) == [("connect", "refused")]
    assert row["problems"][0]["cause"] == "the proxy refused the connection"
    assert "Check PROXY" in row["problems"][0]["advice"]


def test_a_serializer_that_fails(
    server: RunningServer, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A serializer of the project's that cannot store a string is named; nothing is sent."""

    class Broken:
        def dumps(self, value: Any) -> bytes:
            raise ZeroDivisionError("canary")

        def loads(self, data: bytes) -> Any:
            raise ZeroDivisionError("canary")

    module = ModuleType("broken_codecs")
    module.Broken = Broken  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "broken_codecs", module)
    settings.CACHES = {"default": server.cache_settings(SERIALIZER="broken_codecs.Broken")}
    row = examined()
    assert troubles(row) == [("set", "codec")]
    assert "ZeroDivisionError" in row["problems"][0]["cause"]
    assert server.requests == []


# Aliases, verbosity and exit status


def test_bad_settings(settings: Any) -> None:
    """What would raise ImproperlyConfigured is a failure of that alias, with its text."""
    settings.CACHES = {"default": momento("http://127.0.0.1:9", SPEED=1)}
    out, failure = run()
    assert "FAILED: Momento cache 'my-cache': 'SPEED' is not a known option" in out
    assert "CACHES['default']" in out
    assert failure == "1 of 1 failed: default"


def test_one_bad_alias_of_several(server: RunningServer, settings: Any) -> None:
    """All aliases are examined, whatever becomes of the first."""
    settings.CACHES = {
        "default": server.cache_settings(LOCATION="missing"),
        "second": server.cache_settings(),
        "third": momento("http://127.0.0.1:9", SPEED=1),
    }
    rows = document()["caches"]
    assert [(row["alias"], row["ok"]) for row in rows] == [
        ("default", False),
        ("second", True),
        ("third", False),
    ]
    assert run()[1] == "2 of 3 failed: default, third"


def test_chosen_aliases(server: RunningServer, settings: Any) -> None:
    """Only the aliases that are named are examined, each once."""
    settings.CACHES = {
        "default": server.cache_settings(LOCATION="missing"),
        "second": server.cache_settings(),
    }
    assert run("second", "second")[1] == ""
    assert len(server.requests) == len(ALL_REQUESTS)


def test_other_backends_are_skipped(server: RunningServer, settings: Any) -> None:
    """An alias that is not Momento's is skipped with a word, chosen or not."""
    settings.CACHES = {"default": server.cache_settings(), "local": LOCMEM}
    for aliases in ((), ("default", "local")):
        out, failure = run(*aliases)
        assert failure == ""
        assert f"local: skipped, because its backend is {LOCMEM['BACKEND']}" in out
    assert document()["skipped"] == {"local": LOCMEM["BACKEND"]}


def test_an_unknown_alias(server: RunningServer, settings: Any) -> None:
    """An alias that CACHES does not have is an error that names those it has."""
    settings.CACHES = {"default": server.cache_settings()}
    with pytest.raises(CommandError, match=r"no alias 'defualt'; there are default$"):
        call_command("momento_check", "defualt")
    assert server.requests == []


def test_nothing_to_examine(settings: Any) -> None:
    """A project without a Momento cache is not told that all is well."""
    settings.CACHES = {"default": LOCMEM}
    with pytest.raises(CommandError, match=r"there are 'default': django.*LocMemCache"):
        call_command("momento_check")


@pytest.mark.parametrize(
    ("verbosity", "location", "expected"),
    [
        (0, "default-cache", []),
        (0, "missing", ["FAILED"]),
        (1, "default-cache", ["ms", "OK", "skipped"]),
        (1, "missing", ["ms", "FAILED", "skipped"]),
        (2, "default-cache", ["ms", "ms  (", "OK", "skipped"]),
    ],
)
def test_verbosity(
    server: RunningServer, settings: Any, verbosity: int, location: str, expected: list[str]
) -> None:
    """0 says what failed, 1 also times and what was skipped, 2 also how far times differ."""
    settings.CACHES = {"default": server.cache_settings(LOCATION=location), "local": LOCMEM}
    out, _ = run(verbosity=verbosity)
    words = ["ms", "ms  (", "OK", "FAILED", "skipped"]
    assert [word for word in words if word in out] == [word for word in words if word in expected]


@pytest.mark.parametrize("arguments", [[], ["--json"], ["--verbosity=0"]])
def test_exit_status_of_a_failure(
    server: RunningServer, settings: Any, arguments: list[str]
) -> None:
    """Whatever is printed, a failure ends with status 1."""
    settings.CACHES = {"default": server.cache_settings(LOCATION="missing")}
    command = Command(stdout=OutputWrapper(StringIO()), stderr=OutputWrapper(StringIO()))
    with pytest.raises(SystemExit) as ended:
        command.run_from_argv(["manage.py", "momento_check", *arguments])
    assert ended.value.code == 1


@pytest.mark.parametrize(("location", "status"), [("default-cache", 0), ("missing", 1)])
def test_as_a_process(server: RunningServer, tmp_path: Path, location: str, status: int) -> None:
    """From a shell, stdout is the JSON document alone, and the status says how it ended."""
    (tmp_path / "one_cache.py").write_text(
        "from tests.support.settings import *\n"
        f"CACHES = {{'default': {server.cache_settings(LOCATION=location)!r}}}\n"
    )
    environ = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "one_cache",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}",
    }
    ended = subprocess.run(
        [sys.executable, "-m", "django", "momento_check", "--json"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == status
    assert json.loads(ended.stdout)["ok"] is (status == 0)
    assert not any(secret in ended.stdout + ended.stderr for secret in SECRETS)
