"""The transport: deadlines that hold against any peer, and `requests` without its surprises."""

import functools
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import trustme
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from requests import Session

from django_momento_http._http.connection import Connection
from django_momento_http._http.messages import Request
from django_momento_http._http.transport import Origin, Transport
from django_momento_http.exceptions import ConnectFailed, MomentoError, TransportError
from tests.support.interrupting import TimeIsUp, interrupts
from tests.support.scripted import (
    GRACE,
    Peer,
    a_request,
    after_request,
    all_of,
    answer,
    answer_once,
    authority,
    bundle,
    echo,
    least_late,
    open_in,
    response,
    scripted,
    server_context,
    short,
    silent,
    transport_to,
    tunnel,
)

TOKEN = "a-secret-token"
ROOT = Path(__file__).parents[2]
KEY = "a2V5"


def single(transport: Transport, request: Request) -> Any:
    return transport.exchange(request)


def many(transport: Transport, request: Request) -> Any:
    """Send the call among others that are quick, and return its answer."""
    return dict(all_of(transport, [request]))[request]


both = pytest.mark.parametrize("send", [single, many])

LARGE = bytes(4_000_000)
HOSTILE: dict[str, tuple[Callable[[Peer], object], bytes | None]] = {
    "silent": (silent, None),
    "silent after the request": (after_request(Peer.stall), None),
    "drips the headers": (after_request(lambda p: p.drip(response(200, b"v" * 5000))), None),
    "drips the body": (
        after_request(lambda p: (p.send(response(200, b"", length=500)), p.drip(b"v" * 500))),
        None,
    ),
    "drips chunks": (
        after_request(
            lambda p: (
                p.send(response(200, b"", "Transfer-Encoding: chunked", length=None)),
                p.drip(b"1\r\nx\r\n" * 500),
            )
        ),
        None,
    ),
    "drips an error": (
        after_request(lambda p: (p.send(response(500, b"", length=500)), p.drip(b"v" * 500))),
        None,
    ),
    "drips interim answers": (
        after_request(lambda p: p.drip(response(100, b"") * 50, 0.005)),
        None,
    ),
    "lies about the length": (
        after_request(lambda p: p.send(response(200, b"v", length=99)), Peer.stall),
        None,
    ),
    "answers late": (after_request(lambda p: p.pause(5), lambda p: p.send(response(200))), None),
    "reads nothing": (silent, LARGE),
    "reads slowly": (
        lambda p: [(p.sock.recv(2000), p.pause(0.02)) for _ in range(500)],
        LARGE,
    ),
    "floods": (
        after_request(
            lambda p: p.send(response(200, b"", "Transfer-Encoding: chunked", length=None)),
            lambda p: p.flood(b"1\r\nx\r\n" * 2000),
        ),
        None,
    ),
}


@both
@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("name", HOSTILE)
def test_no_peer_holds_an_operation_beyond_its_deadline(
    name: str, is_tls: bool, send: Any, tmp_path: Path
) -> None:
    """Whatever the peer does or leaves undone, the error comes by the deadline and 100 ms."""
    script, body = HOSTILE[name]
    with (
        scripted(script, tls=server_context() if is_tls else None) as server,
        transport_to(server.endpoint, ca_bundle=bundle(tmp_path)) as transport,
    ):

        def seconds_late() -> float:
            request = a_request(body=body, seconds=0.2)
            error = send(transport, request)
            late = time.monotonic() - request.deadline
            assert isinstance(error, TransportError)
            assert error.kind == "unusable" if name == "floods" else error.kind == "timeout"
            assert not transport.pool._all
            return late

        assert least_late(seconds_late) < GRACE


@both
@pytest.mark.parametrize("how", ["silent", "drips"])
def test_a_handshake_ends_with_the_time_for_connecting(send: Any, how: str, tmp_path: Path) -> None:
    """A peer that accepts and never shakes hands costs CONNECT_TIMEOUT, not the whole deadline."""

    def script(peer: Peer) -> None:
        if how == "drips":
            peer.drip(b"\x16\x03\x03\x40\x00" + bytes(16000))
        peer.stall()

    with scripted(script) as server:
        endpoint = server.endpoint.replace("http:", "https:")
        with transport_to(endpoint, ca_bundle=bundle(tmp_path), connect_timeout=0.2) as transport:
            began = time.monotonic()
            error = send(transport, a_request(seconds=5.0))
            assert time.monotonic() - began < 0.2 + GRACE
            # A byte at a time may also show that this will never be TLS.
            assert short(error) in ("ConnectFailed connect_timeout", "ConnectFailed tls")


@both
def test_connecting_ends_with_the_deadline_when_that_comes_first(send: Any) -> None:
    """A host that swallows packets costs what time there is."""
    with socket.create_server(("127.0.0.1", 0)) as full:
        full.listen(0)
        fillers = []
        for _ in range(8):  # until the queue of connections not yet accepted is full
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)
        with transport_to(f"http://127.0.0.1:{full.getsockname()[1]}") as transport:
            request = a_request(seconds=0.2)
            error = send(transport, request)
            assert time.monotonic() - request.deadline < GRACE
        for filler in fillers:
            filler.close()
    assert isinstance(error, TransportError)
    assert error.kind in ("connect", "connect_timeout", "timeout")


@both
def test_a_refused_port_is_a_failed_connection(send: Any) -> None:
    """Where nobody listens the request was not sent, and that is told at once."""
    with scripted(silent) as server:
        pass
    with transport_to(server.endpoint) as transport:
        assert short(send(transport, a_request())) == "ConnectFailed connect"


@both
def test_a_host_without_an_address_is_a_failed_connection(send: Any) -> None:
    """Name resolution that fails is kind "dns"."""
    with transport_to("http://host.invalid:1") as transport:
        error = send(transport, a_request())
        assert short(error) == "ConnectFailed dns"
        assert "host.invalid" not in str(error)


def test_a_hanging_resolver_does_not_outlive_the_deadline() -> None:
    """Name resolution cannot be cut short, so it is not waited for."""
    with transport_to("http://localhost:1", connect_timeout=0.2) as transport:
        go = threading.Event()
        transport._resolver._flight._call = lambda: go.wait(10)  # type: ignore[assignment]
        for send in (single, many):
            began = time.monotonic()
            assert short(send(transport, a_request())) == "ConnectFailed dns"
            assert time.monotonic() - began < 0.2 + GRACE
        go.set()


@both
def test_the_request_is_what_the_specification_asks_for(send: Any) -> None:
    """One host, one length, the token in its header, and nothing that asks for a coding."""
    with scripted(answer(response(204, b""))) as server, transport_to(server.endpoint) as transport:
        send(transport, a_request(f"/cache/c?key_base64={KEY}&ttl_seconds=5", b"value"))
        send(transport, a_request(f"/cache/c?key_base64={KEY}", method="DELETE"))
        put, delete = server.received
    assert (put.method, put.target) == ("PUT", f"/cache/c?key_base64={KEY}&ttl_seconds=5")
    assert put.body == b"value"
    names = [line.partition(":")[0] for line in put.lines]
    assert sorted(names) == [
        "Accept-Encoding",
        "Authorization",
        "Content-Length",
        "Content-Type",
        "Host",
        "User-Agent",
    ]
    assert put.headers["authorization"] == TOKEN
    assert put.headers["accept-encoding"] == "identity"
    assert put.headers["content-type"] == "application/octet-stream"
    assert put.headers["host"] == server.endpoint.removeprefix("http://")
    assert delete.body == b""
    assert "content-length" not in delete.headers


# requests and its instrumentation


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """OpenTelemetry's instrumentation of `requests`, and the spans that it makes."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = RequestsInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    yield exporter
    instrumentor.uninstrument()
    provider.shutdown()


@pytest.mark.parametrize("status", [200, 404, 500])
def test_tracing_of_requests_sees_single_operations(
    status: int, spans: InMemorySpanExporter
) -> None:
    """A span is made, its context goes on the wire, and no token, key or value is in it."""
    with (
        scripted(answer(response(status, b"the-value"))) as server,
        transport_to(server.endpoint) as transport,
    ):
        found = transport.exchange(a_request(f"/cache/c?key_base64={KEY}"))
        [received] = server.received
    assert found.status == status  # type: ignore[union-attr]
    [span] = spans.get_finished_spans()
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" in received.headers["traceparent"]
    assert received.headers["authorization"] == TOKEN
    attributes = dict(span.attributes or {})
    assert f"{server.endpoint}/cache/c" in attributes.values()
    assert status in attributes.values()
    shown = span.to_json()
    assert not [secret for secret in (TOKEN, KEY, "the-value") if secret in shown]


def test_tracing_sees_failures_too(spans: InMemorySpanExporter) -> None:
    """A request that fails makes a span with an error and no secret."""
    with scripted(answer_once(b"")) as server, transport_to(server.endpoint) as transport:
        assert isinstance(transport.exchange(a_request()), MomentoError)
    [span] = spans.get_finished_spans()
    assert not span.status.is_ok
    assert TOKEN not in span.to_json()
    assert KEY not in span.to_json()


@pytest.fixture
def adding(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], None]:
    """Instrumentation that adds the headers it is told."""

    def add(headers: dict[str, Any]) -> None:
        send = Session.send

        def instrumented(self: Session, request: Any, **options: Any) -> Any:
            request.headers.update(headers)
            return send(self, request, **options)

        monkeypatch.setattr(Session, "send", instrumented)

    return add


@pytest.mark.parametrize(
    ("name", "value", "is_sent"),
    [
        ("traceparent", "00-1-2-01", True),
        ("X-B3-Sampled", "1", True),
        ("baggage", "a=b,c=%20d", True),
        ("X-Evil", "a\r\nX-Injected: 1", False),
        ("X-Evil", "a\nX-Injected: 1", False),
        ("X-Evil\r\nX-Injected", "1", False),
        ("X-Evil", "a\0b", False),
        ("X-Evil", "käse", False),
        ("X-Evil: 1", "2", False),
        ("X Evil", "1", False),
        ("", "1", False),
        ("authorization ", "stolen", False),
        ("AUTHORIZATION", "stolen", False),
        ("Host", "elsewhere", False),
        ("Content-Length", "99", False),
        ("Transfer-Encoding", "chunked", False),
        ("Accept-Encoding", "gzip", False),
        ("Connection", "close", False),
        ("X-Bytes", b"1", False),
        ("X-None", None, False),
    ],
)
def test_added_headers_are_sent_unless_they_could_change_the_request(
    name: str, value: Any, is_sent: bool, adding: Callable[[dict[str, Any]], None]
) -> None:
    """Instrumentation may add to a request, and neither break it nor replace what is ours."""
    adding({name: value})
    with scripted(answer(response(204, b""))) as server, transport_to(server.endpoint) as transport:
        assert transport.exchange(a_request(body=b"value")).status == 204  # type: ignore[union-attr]
        [received] = server.received
    added = [line for line in received.lines if line.lower().startswith(name.lower()[:6] or ":")]
    plain = [line for line in added if "momento" not in line and TOKEN not in line]
    assert (f"{name}: {value}" in received.lines) is is_sent
    assert "x-injected" not in received.headers
    assert received.headers["authorization"] == TOKEN
    assert received.body == b"value"
    assert is_sent or not [line for line in plain if "stolen" in line or "elsewhere" in line]
    assert len(received.lines) == 6 + is_sent


def wrapped(seen: list[str]) -> Any:
    """Instrumentation by a function of its own, as OpenTelemetry's."""
    send = Session.send

    @functools.wraps(send)
    def instrumented(self: Session, request: Any, **options: Any) -> Any:
        seen.append(request.method)
        return send(self, request, **options)

    return instrumented


def proxied(seen: list[str]) -> Any:
    """Instrumentation by an object that looks like the function it stands for, as Datadog's."""
    wrapt = pytest.importorskip("wrapt")

    def instrumented(send: Any, _: Session, arguments: Any, options: Any) -> Any:
        seen.append(arguments[0].method)
        return send(*arguments, **options)

    return wrapt.FunctionWrapper(Session.send, instrumented)


def mocked(seen: list[str]) -> Any:
    """A mock that a test puts there."""
    return mock.create_autospec(Session.send, side_effect=wrapped(seen))


@pytest.mark.parametrize("instrumentation", [wrapped, proxied, mocked])
def test_whoever_instruments_requests_sees_each_single_request(
    instrumentation: Callable[[list[str]], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it is done and whenever it begins, also after requests that nobody looked at."""
    seen: list[str] = []
    with scripted(echo) as server, transport_to(server.endpoint) as transport:
        assert transport.exchange(a_request("/a")).body == b"/a"  # type: ignore[union-attr]
        with monkeypatch.context() as patch:
            patch.setattr(Session, "send", instrumentation(seen))
            for target in ("/b", "/c"):
                assert transport.exchange(a_request(target)).body == target.encode()  # type: ignore[union-attr]
        assert seen == ["GET", "GET"]
        assert transport.exchange(a_request("/d")).body == b"/d"  # type: ignore[union-attr]
        assert len(seen) == 2


INSTRUMENTED_BEFORE = """
    import functools, requests
    send, seen = requests.Session.send, []

    @functools.wraps(send)
    def instrumented(self, request, **options):
        seen.append(request.method)
        return send(self, request, **options)

    requests.Session.send = instrumented
    from tests.support.scripted import *
    with scripted(echo) as server, transport_to(server.endpoint) as transport:
        assert transport.exchange(a_request("/x")).body == b"/x"
    assert seen == ["GET"]
"""


def test_whoever_instruments_requests_first_sees_each_single_request() -> None:
    """Agents that begin with the interpreter come before any import of ours."""
    code = textwrap.dedent(INSTRUMENTED_BEFORE)
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


@pytest.mark.parametrize("error", [RuntimeError("a-secret-token"), OSError("no")])
def test_instrumentation_that_raises_is_an_error_of_ours(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What tracing throws becomes a MomentoError that names its class alone."""

    def raises(self: Session, request: Any, **_: Any) -> Any:
        raise error

    monkeypatch.setattr(Session, "send", raises)
    with transport_to("http://127.0.0.1:1") as transport:
        found = transport.exchange(a_request())
    assert short(found) == "TransportError internal"
    assert TOKEN not in str(found)
    assert found.__context__ is None  # type: ignore[union-attr]


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_a_handler_raises_inside_instrumentation_passes(
    when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time limits are no errors of tracing, wherever in it they strike."""
    send = Session.send

    def instrumented(self: Session, request: Any, **options: Any) -> Any:
        if when == "before":
            signal.raise_signal(signal.SIGUSR1)
        response = send(self, request, **options)
        signal.raise_signal(signal.SIGUSR1)
        return response

    with (
        scripted(echo) as server,
        transport_to(server.endpoint) as transport,
        monkeypatch.context() as patch,
        interrupts(),
    ):
        patch.setattr(Session, "send", instrumented)
        with pytest.raises(TimeIsUp):
            transport.exchange(a_request())
        assert open_in(transport.pool) == set(transport.pool._idle)


def test_what_is_raised_while_waiting_passes_whatever_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Green threads are ended where they wait, by exceptions of any class and without a handler."""
    with scripted(echo) as server, transport_to(server.endpoint) as transport:
        raised = OSError("time is up")

        def ended(*_: Any) -> int:
            raise raised

        with monkeypatch.context() as patch:
            patch.setattr(Connection, "wait", ended)
            with pytest.raises(OSError, match="time is up") as caught:
                transport.exchange(a_request())
        assert caught.value is raised
        assert not transport.pool._all


def test_an_interrupt_passes_and_leaves_the_pool_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is nobody's to swallow, and the connection it struck is not used again."""
    with scripted(echo) as server, transport_to(server.endpoint) as transport:
        transport.exchange(a_request())
        [connection] = transport.pool._idle

        def interrupted(*_: Any) -> int:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(type(connection), "wait", interrupted)
            patch.setattr(type(connection), "is_reusable_now", lambda _: True)
            with pytest.raises(KeyboardInterrupt):
                transport.exchange(a_request())
        assert not transport.pool._all
        assert transport.exchange(a_request()).status == 200  # type: ignore[union-attr]


REPLACED = """
    import requests, requests.sessions

    class Replaced(requests.Session):
        def send(self, request, **options):
            raise RuntimeError("not what is asked for")

    requests.Session = requests.sessions.Session = Replaced
    from tests.support.scripted import *
    with scripted(echo) as server, transport_to(server.endpoint) as transport:
        assert transport.exchange(a_request("/x")).body == b"/x"
"""


def test_another_session_in_the_place_of_requests_own_is_not_used() -> None:
    """Caches of HTTP put their own class there, and know nothing of our requests."""
    code = textwrap.dedent(REPLACED)
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


@both
def test_the_environment_changes_nothing(
    send: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither proxies nor netrc nor trust stores nor key logs of the environment are obeyed."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login netrc password netrc\n")
    (tmp_path / ".netrc").chmod(0o600)
    with scripted(echo) as server, scripted(silent) as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.endpoint)
            monkeypatch.setenv(name.lower(), proxy.endpoint)
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        with transport_to(server.endpoint) as transport:
            assert send(transport, a_request()).status == 200
        [received] = server.received
        assert received.headers["authorization"] == TOKEN
        assert proxy.accepted == 0


@pytest.mark.parametrize("is_configured", [True, False])
def test_the_environment_s_trust_stores_are_not_used(
    is_configured: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Only CA_BUNDLE, or what `requests` ships, says whom to trust; no TLS secret is logged."""
    path = bundle(tmp_path)
    log = tmp_path / "keys.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(log))
    elsewhere = "/nonexistent" if is_configured else path
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, elsewhere)
    with (
        scripted(echo, tls=server_context()) as server,
        transport_to(server.endpoint, ca_bundle=path if is_configured else None) as transport,
    ):
        found = transport.exchange(a_request())
    if is_configured:
        assert found.status == 200  # type: ignore[union-attr]
    else:
        assert short(found) == "ConnectFailed tls"
    assert not log.exists()


@both
def test_cookies_are_not_sent_back(send: Any) -> None:
    """What a load balancer wants to remember is forgotten."""
    with (
        scripted(answer(response(200, b"v", "Set-Cookie: sticky=1; Path=/"))) as server,
        transport_to(server.endpoint) as transport,
    ):
        for _ in range(3):
            assert send(transport, a_request()).status == 200
        assert all("cookie" not in received.headers for received in server.received)


@both
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_returned_and_not_followed(status: int, send: Any) -> None:
    """The token goes to the configured origin only."""
    with scripted(echo) as elsewhere:
        location = f"Location: {elsewhere.endpoint}/there"
        with (
            scripted(answer(response(status, b"", location))) as server,
            transport_to(server.endpoint) as transport,
        ):
            assert send(transport, a_request()).status == status
            assert len(server.received) == 1
        assert elsewhere.accepted == 0


@both
def test_a_coded_body_is_not_decoded(send: Any) -> None:
    """A body in a coding that nobody asked for is handed on as it came."""
    with (
        scripted(answer(response(200, b"\x1f\x8bnot gzip", "Content-Encoding: gzip"))) as server,
        transport_to(server.endpoint) as transport,
    ):
        found = send(transport, a_request())
    assert bytes(found.body) == b"\x1f\x8bnot gzip"
    assert found.headers[b"content-encoding"] == b"gzip"


# TLS


@both
@pytest.mark.parametrize(
    ("names", "is_known", "is_trusted"),
    [
        (("127.0.0.1",), True, True),
        (("elsewhere.example",), True, False),
        (("127.0.0.2",), True, False),
        (("127.0.0.1",), False, False),
    ],
)
def test_only_the_right_name_of_a_known_authority_is_trusted(
    names: tuple[str, ...], is_known: bool, is_trusted: bool, send: Any, tmp_path: Path
) -> None:
    """A certificate for another host, or of another authority, never gets the token."""
    tls = server_context(*names, ca=None if is_known else trustme.CA())
    with (
        scripted(echo, tls=tls) as server,
        transport_to(server.endpoint, ca_bundle=bundle(tmp_path)) as transport,
    ):
        found = send(transport, a_request())
        if is_trusted:
            assert found.status == 200
        else:
            assert isinstance(found, ConnectFailed)
            assert found.kind == "tls"
            assert server.received == []


def test_the_second_connection_resumes_the_session(tmp_path: Path) -> None:
    """One handshake in full serves the connections that follow."""
    with (
        scripted(answer(response(200, b"v", "Connection: close")), tls=server_context()) as server,
        transport_to(server.endpoint, ca_bundle=bundle(tmp_path)) as transport,
    ):
        for _ in range(3):
            assert transport.exchange(a_request()).status == 200  # type: ignore[union-attr]
        assert server.resumed == [False, True, True]


@pytest.mark.parametrize("problem", ["missing", "empty", "rubbish"])
def test_an_unusable_bundle_shows_at_once(problem: str, tmp_path: Path) -> None:
    """CA_BUNDLE is read when the transport is made, not with the first request."""
    path = tmp_path / "ca.pem"
    if problem != "missing":
        path.write_text("" if problem == "empty" else "-----BEGIN CERTIFICATE-----\nrubbish\n")
    with pytest.raises(OSError, match=r".") as caught:
        Transport(Origin("https://127.0.0.1:1", 0.5, 4, None, str(path)))
    assert isinstance(caught.value, (FileNotFoundError, ssl.SSLError))


@both
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_certificate_without_alternative_names_is_refused(
    host: str, send: Any, tmp_path: Path
) -> None:
    """A common name is no name of a host."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(common_name=host).configure_cert(tls)
    with scripted(echo, tls=tls) as server:
        endpoint = server.endpoint.replace("127.0.0.1", host)
        with transport_to(endpoint, ca_bundle=bundle(tmp_path), connect_timeout=5) as transport:
            assert short(send(transport, a_request())) == "ConnectFailed tls"
        assert server.received == []


def test_old_versions_of_tls_are_refused(tmp_path: Path) -> None:
    """Nothing below TLS 1.2 is spoken."""
    with transport_to("https://127.0.0.1:1", ca_bundle=bundle(tmp_path)) as transport:
        context = transport._route.tls
    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


# Proxies


@both
@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(
    ("given", "wanted", "is_open"),
    [
        ("", None, True),
        ("user:p%40ss@", "user:p@ss", True),
        ("user:wrong@", "user:p@ss", False),
        ("", "user:p@ss", False),
    ],
)
def test_requests_go_through_the_configured_proxy(
    given: str, wanted: str | None, is_open: bool, is_tls: bool, send: Any, tmp_path: Path
) -> None:
    """PROXY opens a tunnel, logs in, and never learns the token; its refusal shows no password."""
    with (
        scripted(echo, tls=server_context() if is_tls else None) as server,
        scripted(tunnel(server.port, wanted)) as proxy,
        transport_to(
            server.endpoint,
            proxy=f"http://{given}127.0.0.1:{proxy.port}",
            ca_bundle=bundle(tmp_path),
        ) as transport,
    ):
        found = send(transport, a_request("/x"))
        assert [one.method for one in proxy.received] == ["CONNECT"]
        assert "authorization" not in proxy.received[0].headers
        if is_open:
            assert bytes(found.body) == b"/x"
        else:
            assert short(found) == "ConnectFailed proxy"
            assert "407" in str(found)
            assert server.accepted == 0
        assert "p@ss" not in f"{found!r} {found}"


def test_no_repr_shows_the_proxy_s_password() -> None:
    """An origin is printed by debug pages; the login stays out of it."""
    origin = Origin("https://127.0.0.1", 0.5, 4, "http://user:hunter2@127.0.0.1:1")
    assert "hunter2" not in repr(origin)
    with transport_to("http://127.0.0.1:1", proxy="http://user:hunter2@127.0.0.1:1") as transport:
        assert "hunter2" not in repr(transport._route)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_nothing_leaks_from_failures(tmp_path: Path) -> None:
    """A thousand failed requests leave no descriptor behind."""
    with (
        scripted(answer_once(b"nonsense")) as server,
        transport_to(server.endpoint) as transport,
    ):
        transport.exchange(a_request())
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(100):
            assert isinstance(transport.exchange(a_request()), MomentoError)
        all_of(transport, [a_request() for _ in range(100)])
        # The server's own side of a connection may be closing still.
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 5
