"""The token is never shown, whatever goes wrong; keys and values are in no message and no line."""

import asyncio
import logging
import secrets
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.cache import caches
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import path

from django_momento_http._store.store import forget_endpoint
from django_momento_http.cache import MomentoCache
from django_momento_http.exceptions import MomentoError
from django_momento_http.testing import Fault, RunningServer, running_server
from tests.support.canary import (
    PACKAGE,
    SETTINGS_BELOW,
    TOKEN,
    Watch,
    reports_on,
    seen_in,
    shown_by,
    warned,
    watching,
)
from tests.support.scripted import Peer, after_request, reply, scripted

KEY = f"key{secrets.token_hex(12)}"
VALUE = f"value{secrets.token_hex(12)}"

OPERATIONS: dict[str, tuple[Any, ...]] = {
    "get": (KEY,),
    "get_many": ([KEY, KEY + "2"],),
    "set": (KEY, VALUE),
    "set_many": ({KEY: VALUE, KEY + "2": VALUE},),
    "add": (KEY, VALUE),
    "touch": (KEY,),
    "delete": (KEY,),
    "delete_many": ([KEY, KEY + "2"],),
    "has_key": (KEY,),
    "incr": (KEY,),
    "decr": (KEY,),
    "incr_version": (KEY,),
    "get_or_set": (KEY, VALUE),
    "ttl": (KEY,),
    "clear": (),
}


@contextmanager
def failing(fault: Fault) -> Iterator[tuple[str, RunningServer | None]]:
    """A service whose every answer is that fault."""
    with running_server(token=TOKEN) as server:
        server.inject(fault)
        yield server.endpoint, server


@contextmanager
def refused() -> Iterator[tuple[str, RunningServer | None]]:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{sock.getsockname()[1]}", None


@contextmanager
def not_tls() -> Iterator[tuple[str, RunningServer | None]]:
    """TLS is spoken to a peer that does not."""
    with scripted(lambda peer: peer.send(b"220 hello\r\n")) as server:
        yield f"https://127.0.0.1:{server.port}", None


@contextmanager
def echoing() -> Iterator[tuple[str, RunningServer | None]]:
    """A peer that answers with all that it was sent."""

    def echo(peer: Peer) -> None:
        received = peer.request()
        peer.send(reply(400, "\n".join((received.target, *received.lines)).encode()))

    with scripted(echo) as server:
        yield server.endpoint, None


@contextmanager
def garbage() -> Iterator[tuple[str, RunningServer | None]]:
    """A peer that does not speak HTTP."""
    with scripted(after_request(lambda peer: peer.send(b"\x15\x03\x01 what?\r\n\r\n"))) as server:
        yield server.endpoint, None


def always(**fault: Any) -> Callable[[], Any]:
    """A service whose every answer is that fault."""
    return lambda: failing(Fault(times=None, **fault))


TROUBLES: dict[str, Callable[[], Any]] = {
    "refused": refused,
    "not TLS": not_tls,
    "echo": echoing,
    "garbage": garbage,
    "dropped": always(drop="after"),
    "late": always(delay=5),
    "a proxy's page": always(status=404, body=b"<h1>No such page</h1>"),
    "no cache": always(status=404, body=b"Cache Not Found"),
    **{str(status): always(status=status) for status in (301, 400, 401, 403, 429, 500)},
}


def options(endpoint: str, **more: Any) -> dict[str, Any]:
    """Return the options of a backend that raises."""
    given = {"ENDPOINT": endpoint, "TOKEN": TOKEN, "ON_ERROR": "raise", "REQUEST_TIMEOUT": 0.1}
    return given | more


def call(cache: MomentoCache, name: str, *, is_async: bool) -> Exception | None:
    """Call a method and return what it raises."""
    try:
        if is_async:
            asyncio.run(getattr(cache, f"a{name}")(*OPERATIONS[name]))
        else:
            getattr(cache, name)(*OPERATIONS[name])
    except (MomentoError, ValueError) as error:
        return error
    return None


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
def test_no_failure_shows_the_token(
    trouble: Callable[[], Any], is_async: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """No message, line, warning, output, traceback or debug page of a failure has any of it."""
    raised = 0
    with ExitStack() as stack:
        endpoint, server = stack.enter_context(trouble())
        stack.callback(forget_endpoint, endpoint)
        watch = stack.enter_context(watching(""))
        stack.enter_context(override_settings(DEBUG=True, ROOT_URLCONF=__name__))
        stack.enter_context(warned(watch))
        if server is not None:
            watch.check_targets(server)
        for index, name in enumerate(OPERATIONS):
            # The process keeps breakers by endpoint and timeout: each operation has its own.
            given = options(endpoint, REQUEST_TIMEOUT=0.1 + index * 1e-6)
            error = call(MomentoCache("default-cache", {"OPTIONS": given}), name, is_async=is_async)
            if error is None:
                continue
            raised += isinstance(error, MomentoError)
            watch.check(f"what {name} raises", shown_by(error))
            watch.check(f"the page of {name}", reports_on(error))
            for secret in (KEY, VALUE):
                assert not seen_in(f"{error} {error!r} {vars(error)}", secret)
    assert raised == len(OPERATIONS)
    watch.check("the output", "".join(capfd.readouterr()))
    assert watch.take() == []


@pytest.mark.parametrize("mode", ["miss", "raise"])
@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
def test_no_line_shows_a_key_or_a_value(
    trouble: Callable[[], Any], mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At DEBUG of every logger, no line names what was asked for or stored."""
    caplog.set_level(logging.DEBUG)
    with trouble() as (endpoint, _):
        given = options(endpoint, ON_ERROR=mode)
        cache = MomentoCache("default-cache", {"OPTIONS": given})
        for name in OPERATIONS:
            call(cache, name, is_async=False)
        forget_endpoint(endpoint)
    assert caplog.records
    for record in caplog.records:
        assert not seen_in(f"{record.getMessage()} {record.exc_info}", KEY, VALUE, TOKEN)


def view(request: HttpRequest, name: str) -> HttpResponse:
    """Use the cache as a site does."""
    getattr(caches["default"], name)(*OPERATIONS[name])
    return HttpResponse()


urlpatterns = [path("<str:name>/", view)]


def give_token() -> str:
    """Return the token, as a site's own callable does."""
    return TOKEN


# What Django shows of the settings themselves: it masks by name, and a URL is no secret to it.
SHOWN_BY_DJANGO = ("TOKNE", "PROXY", "ENDPOINT")

# Written where it does not belong, with nothing inside OPTIONS.
BESIDE_OPTIONS: dict[str, dict[str, Any]] = {
    "option beside": {"TOKEN": TOKEN},
    "lower case": {"options": {"TOKEN": TOKEN}},
    "misspelt": {"OPTION": {"TOKEN": TOKEN}},
    "no dictionary": {"OPTIONS": [TOKEN]},
}
BAD_OPTIONS: dict[str, dict[str, Any]] = {
    "unknown option": {"TOKNE": TOKEN},
    "malformed token": {"TOKEN": f"{TOKEN} {TOKEN}"},
    "dotted token": {"TOKEN": f"a{TOKEN}.b{TOKEN}"},
    "bytes": {"TOKEN": TOKEN.encode()},
    "list": {"TOKEN": [TOKEN]},
    "proxy": {"PROXY": f"http://{TOKEN}:{TOKEN}@127.0.0.1:x"},
    "endpoint": {"ENDPOINT": f"https://{TOKEN}@127.0.0.1"},
    "other option": {"REQUEST_TIMEOUT": -1},
}
GOOD_OPTIONS: dict[str, dict[str, Any]] = {
    "string": {},
    "callable": {"TOKEN": give_token},
    "dotted path": {"TOKEN": "tests.backend.test_canary.give_token"},
    "proxy": {"PROXY": f"http://user:{TOKEN}@127.0.0.1:9"},
    "signing key": {"SIGNING_KEY": TOKEN},
}


@pytest.mark.parametrize("accept", ["text/html", "text/plain"])
@pytest.mark.parametrize("given", [*GOOD_OPTIONS.values(), *BAD_OPTIONS.values()])
def test_no_debug_page_shows_it(given: dict[str, Any], accept: str) -> None:
    """Django's page of a failing view shows settings and all frames' locals, but not the token."""
    with failing(Fault(status=503, times=None)) as (endpoint, _), watching("") as watch:
        entry = {
            "BACKEND": "django_momento_http.cache.MomentoCache",
            "LOCATION": "default-cache",
            "OPTIONS": options(endpoint) | given,
        }
        with override_settings(DEBUG=True, ROOT_URLCONF=__name__, CACHES={"default": entry}):
            client = Client(raise_request_exception=False)
            for name in ("get", "set_many", "incr"):
                page = client.get(f"/{name}/", HTTP_ACCEPT=accept)
                assert page.status_code == 500
                text = page.content.decode()
                if given.keys() & set(SHOWN_BY_DJANGO):
                    text = text.partition(SETTINGS_BELOW)[0]
                watch.check(name, text)
        forget_endpoint(endpoint)
    assert [place for place in watch.take() if "django.request" not in place] == []


@pytest.mark.parametrize("beside", BESIDE_OPTIONS.values(), ids=BESIDE_OPTIONS)
def test_no_frame_shows_what_stands_in_the_wrong_place(beside: dict[str, Any]) -> None:
    """A token beside OPTIONS is not shown with the frames of the error that says it is missing."""
    entry = {"BACKEND": "django_momento_http.cache.MomentoCache", "LOCATION": "default-cache"}
    with (
        watching("") as watch,
        override_settings(DEBUG=True, ROOT_URLCONF=__name__, CACHES={"default": entry | beside}),
    ):
        page = Client(raise_request_exception=False).get("/get/")
        assert page.status_code == 500
        watch.check("frames", page.content.decode().partition(SETTINGS_BELOW)[0])
    assert [place for place in watch.take() if "django.request" not in place] == []


def test_the_wire_has_it_in_one_header_only() -> None:
    """No request line and no header but Authorization has any of the token."""

    def script(peer: Peer) -> None:
        while True:
            peer.request()
            peer.send(reply(404, b"Key Not Found"))

    with scripted(script) as server:
        cache = MomentoCache("default-cache", {"OPTIONS": options(server.endpoint)})
        for name in OPERATIONS:
            call(cache, name, is_async=False)
        received = list(server.received)
        forget_endpoint(server.endpoint)
    assert len(received) >= len(OPERATIONS)
    for request in received:
        assert request.headers["authorization"] == TOKEN
        others = [line for line in request.lines if not line.startswith("Authorization: ")]
        assert not seen_in("\n".join((request.target, *others)))
        assert not seen_in(request.body.decode("latin-1"))


# The canary itself: leaks on purpose.


def leak_a_line(watch: Watch) -> None:
    """Log a slice of it."""
    logging.getLogger("somebody").debug("sent %s", TOKEN[5:20])


def leak_an_argument(watch: Watch) -> None:
    """Log it as what a line could show."""
    logging.getLogger("somebody.else").info("sent %.1s", TOKEN)


def leak_a_cause(watch: Watch) -> None:
    """Log an error whose cause has it."""
    try:
        try:
            {}[TOKEN]
        except KeyError as error:
            raise OSError("without it") from error
    except OSError:
        logging.getLogger("somebody").exception("failed")


def leak_a_warning(watch: Watch) -> None:
    """Warn of it."""
    with warned(watch):
        warnings.warn(f"the token {TOKEN} is old", stacklevel=1)


def leak_output(watch: Watch) -> None:
    """Print it."""
    watch.check_report(SimpleNamespace(sections=[("Captured stdout call", f"token={TOKEN}\n")]))


def leak_a_target(watch: Watch) -> None:
    """Send it in a query."""
    with running_server(token=TOKEN) as server:
        watch.check_targets(server)
        port = int(server.endpoint.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as sock:
            target = f"/cache/default-cache?key=a&token={TOKEN}"
            sock.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert sock.recv(100).startswith(b"HTTP/1.1 404")


def leak_a_local(watch: Watch) -> None:
    """Fail in a frame of the package that holds it."""
    code = compile(f"def f(token):\n    raise OSError\nf({TOKEN!r})", f"{PACKAGE}/x.py", "exec")
    try:
        exec(code, {})
    except OSError as error:
        watch.check("a local", shown_by(error))


LEAKS = (
    leak_a_line,
    leak_an_argument,
    leak_a_cause,
    leak_a_warning,
    leak_output,
    leak_a_target,
    leak_a_local,
)


@pytest.mark.parametrize("leak", LEAKS)
def test_the_canary_sees_a_leak(leak: Callable[[Watch], None]) -> None:
    """A leak on purpose is seen, whatever way it takes, and told without the token."""
    with watching("") as watch:
        # The session's own eyes, and pytest's, are not for this one.
        root = logging.getLogger()
        others = [handler for handler in root.handlers if handler is not watch]
        for handler in others:
            root.removeHandler(handler)
        try:
            leak(watch)
        finally:
            for handler in others:
                root.addHandler(handler)
    sightings = watch.take()
    assert len(sightings) == 1
    assert not seen_in(sightings[0])


@pytest.mark.parametrize(
    ("text", "is_seen"),
    [
        (TOKEN, True),
        (f"<{TOKEN[:8]}>", True),
        (TOKEN[-8:], True),
        (TOKEN[:7], False),
        ("nothing of it", False),
    ],
    ids=["whole", "its beginning", "its end", "seven of it", "nothing of it"],
)
def test_what_counts_as_seen(text: str, is_seen: bool) -> None:
    """Eight characters in a row are a sighting, seven are not."""
    assert seen_in(text) == is_seen


def test_this_process_was_not_told_the_token() -> None:
    """The token stands in no argument of the process, where anybody could read it."""
    assert not seen_in(" ".join(sys.argv))
