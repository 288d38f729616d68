"""The token is on no page about settings, and in one header only; the canary sees every leak."""

import logging
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.cache import caches
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import path

from django_momento_http._store.store import forget_endpoint
from django_momento_http.cache import MomentoCache
from django_momento_http.testing import Fault, running_server
from tests.support.canary import (
    PACKAGE,
    SETTINGS_BELOW,
    TOKEN,
    Watch,
    seen_in,
    shown_by,
    warned,
    watching,
)
from tests.support.operations import OPERATIONS, carry_out
from tests.support.scripted import Peer, response, scripted

ARGUMENTS = {operation.name: operation.arguments for operation in OPERATIONS}


@contextmanager
def failing(fault: Fault) -> Iterator[str]:
    """A service whose every answer is that fault."""
    with running_server(token=TOKEN) as server:
        server.inject(fault)
        yield server.endpoint


def options(endpoint: str, **more: Any) -> dict[str, Any]:
    """Return the options of a backend that raises."""
    given = {"ENDPOINT": endpoint, "TOKEN": TOKEN, "ON_ERROR": "raise", "REQUEST_TIMEOUT": 0.1}
    return given | more


def view(request: HttpRequest, name: str) -> HttpResponse:
    """Use the cache as a site does."""
    getattr(caches["default"], name)(*ARGUMENTS[name])
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
    with failing(Fault(status=503, times=None)) as endpoint, watching("") as watch:
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
            peer.send(response(404, b"Key Not Found"))

    with scripted(script) as server:
        cache = MomentoCache("default-cache", {"OPTIONS": options(server.endpoint)})
        for operation in OPERATIONS:
            carry_out(cache, operation, is_async=False)
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
