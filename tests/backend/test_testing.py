"""What the test helpers promise to a user's tests."""

import subprocess
import sys
import textwrap
import threading
from contextlib import closing
from http.client import HTTPConnection, HTTPException, IncompleteRead
from pathlib import Path

import pytest
from django.conf import settings
from django.test import override_settings

from django_momento_http.testing import Fault, RunningServer, running_server

LONGEST_WAIT = 10
TARGET = "/cache/default-cache?key=a&ttl_seconds=60"


def ask(server: RunningServer, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
    """Send one request for the key ``a``."""
    host, port = server.endpoint.removeprefix("http://").split(":")
    with closing(HTTPConnection(host, int(port), timeout=LONGEST_WAIT)) as connection:
        connection.request(method, TARGET, body, {"Authorization": server.token})
        response = connection.getresponse()
        return response.status, response.read()


def test_leaves_nothing_behind() -> None:
    """After the block the thread has ended and the port is free."""
    before = threading.active_count()
    with running_server() as server:
        assert ask(server)[0] == 404
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    with pytest.raises(ConnectionRefusedError):
        ask(server)


def test_stops_when_the_test_fails() -> None:
    """An exception passes through, and the server stops all the same."""
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), running_server():
        raise ZeroDivisionError
    assert threading.active_count() == before


def test_servers_are_apart() -> None:
    """Two servers have two ports and share no item."""
    with running_server() as one, running_server() as two:
        one.put("default-cache", b"a", b"v")
        assert one.endpoint != two.endpoint
        assert (ask(one)[0], ask(two)[0]) == (200, 404)


def test_records_requests_in_order(server: RunningServer) -> None:
    """Each request is recorded as it was served, before its answer arrives."""
    ask(server, "PUT", b"value")
    ask(server)
    ask(server, "DELETE")
    ask(server)
    assert [request[:6] for request in server.requests] == [
        ("PUT", "default-cache", b"a", 60, 204, 5),
        ("GET", "default-cache", b"a", None, 200, 5),
        ("DELETE", "default-cache", b"a", None, 204, 0),
        ("GET", "default-cache", b"a", None, 404, 0),
    ]
    server.forget_requests()
    assert server.requests == []


def test_items_can_be_looked_at_and_changed(server: RunningServer) -> None:
    """A test may see, plant, drop and age items without a request."""
    server.put("default-cache", b"a", b"planted", 10)
    server.put("default-cache", b"b", b"longer", 20)
    assert ask(server) == (200, b"planted")
    server.advance(11)
    assert server.items == {("default-cache", b"b"): b"longer"}
    server.discard("default-cache", b"b")
    server.discard("default-cache", b"b")
    assert not server.items
    assert len(server.requests) == 1


def test_a_mistake_reaches_the_test(server: RunningServer) -> None:
    """What goes wrong in the server's thread is raised where it was asked for."""
    with pytest.raises(KeyError):
        server.put("no-such-cache", b"a", b"v")
    assert ask(server)[0] == 404


@pytest.mark.parametrize(
    ("fault", "status", "body", "is_stored"),
    [
        (Fault(status=500), 500, b"", False),
        (Fault(status=500, body=b"text"), 500, b"text", False),
        (Fault(status=500, applied=True), 500, b"", True),
        (Fault(status=999), 999, b"", False),
        (Fault(status=429, headers=(("Retry-After", "3"),)), 429, b"", False),
        (Fault(delay=0.01), 204, b"", True),
        (Fault(headers=(("X-More", "1"),)), 204, b"", True),
    ],
)
def test_faults_answer(
    server: RunningServer, fault: Fault, status: int, body: bytes, is_stored: bool
) -> None:
    """A fault with a status answers in the operation's place; without one the operation happens."""
    server.inject(fault)
    assert ask(server, "PUT", b"v") == (status, body)
    assert bool(server.items) is is_stored
    assert server.requests[0].status == status


@pytest.mark.parametrize(
    ("fault", "is_stored"),
    [
        (Fault(drop="before"), False),
        (Fault(drop="before", applied=True), True),
        (Fault(drop="after"), True),
        (Fault(drop="body", status=200, body=b"half"), False),
        (Fault(drop="headers", status=500, body=b"x"), False),
    ],
)
def test_faults_drop_connections(server: RunningServer, fault: Fault, is_stored: bool) -> None:
    """A dropped connection is recorded with status 0, and is applied where the fault says so."""
    server.inject(fault)
    if fault.drop == "headers":
        assert ask(server, "PUT", b"v") == (500, b"")
    else:
        with pytest.raises((ConnectionError, HTTPException)):
            ask(server, "PUT", b"v")
    assert bool(server.items) is is_stored
    assert [request.status for request in server.requests] == [0]
    assert ask(server, "PUT", b"v")[0] == 204


def test_a_hit_can_be_cut_short(server: RunningServer) -> None:
    """A value cut in mid-body is shorter than its Content-Length says."""
    server.put("default-cache", b"a", b"value")
    server.inject(Fault(drop="body"))
    with pytest.raises(IncompleteRead) as caught:
        ask(server)
    assert (caught.value.partial, caught.value.expected) == (b"value", 1)


def test_headers_of_a_fault_win(server: RunningServer) -> None:
    """A fault may lie about type and length."""
    server.inject(Fault(status=200, body=b"12345", headers=(("content-length", "3"),)))
    assert ask(server) == (200, b"123")


@pytest.mark.parametrize(
    ("fault", "statuses"),
    [
        (Fault(status=503), [503, 204, 404]),
        (Fault(status=503, times=2), [503, 503, 404]),
        (Fault(status=503, times=None), [503, 503, 503]),
        (Fault(status=503, method="DELETE"), [404, 503, 404]),
        (Fault(status=503, key=b"a"), [503, 204, 404]),
        (Fault(status=503, key=b"b"), [404, 204, 404]),
        (Fault(status=503, key=b"a", method="PUT"), [404, 204, 404]),
    ],
)
def test_faults_wait_for_their_requests(
    server: RunningServer, fault: Fault, statuses: list[int]
) -> None:
    """A fault meets the requests of its method and key, so many times as it says."""
    server.inject(fault)
    assert [ask(server, method)[0] for method in ("GET", "DELETE", "GET")] == statuses


def test_faults_queue_up_and_can_be_cleared(server: RunningServer) -> None:
    """Faults are used in the order of their injection, until they are cleared."""
    for status in (500, 502, 503):
        server.inject(Fault(status=status))
    assert [ask(server)[0] for _ in range(2)] == [500, 502]
    server.clear_faults()
    assert ask(server)[0] == 404


def test_a_fault_with_a_body_needs_a_status() -> None:
    """A body that would never be sent is refused at once."""
    with pytest.raises(ValueError, match="status"):
        Fault(body=b"x")


def test_cache_settings_are_complete(server: RunningServer) -> None:
    """The entry is ready for CACHES, each key in its place."""
    assert server.cache_settings(
        TIMEOUT=5, KEY_PREFIX="p", VERSION=2, KEY_FUNCTION="f", LOCATION="other", ON_ERROR="raise"
    ) == {
        "BACKEND": "django_momento_http.cache.MomentoCache",
        "LOCATION": "other",
        "TIMEOUT": 5,
        "KEY_PREFIX": "p",
        "VERSION": 2,
        "KEY_FUNCTION": "f",
        "OPTIONS": {
            "ENDPOINT": server.endpoint,
            "TOKEN": server.token,
            "ON_ERROR": "raise",
            "HEDGE": False,
        },
    }
    assert server.cache_settings(HEDGE=True)["OPTIONS"]["HEDGE"] is True
    assert "HEDGE" not in server.cache_settings(hedge=True)["OPTIONS"]
    assert server.cache_settings()["LOCATION"] == "default-cache"
    assert server.cache_settings(TOKEN="x")["OPTIONS"]["TOKEN"] == "x"


def test_override_settings_swaps_the_default_cache(server: RunningServer) -> None:
    """Within the block, and only there, the default cache is the server's; others stay."""
    entry = {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}
    with override_settings(CACHES={"default": entry, "other": entry}):
        with server.override_settings(TIMEOUT=5):
            assert settings.CACHES["default"] == server.cache_settings(TIMEOUT=5)
            assert settings.CACHES["other"] == entry
        assert settings.CACHES["default"] == entry


def test_imports_without_settings() -> None:
    """The helpers can be imported and a server run where Django is not configured."""
    code = """
        from django_momento_http.testing import running_server
        with running_server() as server:
            assert server.cache_settings()["OPTIONS"]["ENDPOINT"] == server.endpoint
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=LONGEST_WAIT * 3
    )


def test_the_fixture_needs_one_line(tmp_path: Path) -> None:
    """With the plugin named in conftest.py, a test gets an empty server as its default cache."""
    (tmp_path / "conftest.py").write_text(
        'pytest_plugins = ["django_momento_http.pytest_plugin"]\n'
    )
    (tmp_path / "project_settings.py").write_text('SECRET_KEY = "x"\n')
    (tmp_path / "test_it.py").write_text(
        textwrap.dedent("""
        import pytest
        from django.core.cache import cache

        @pytest.mark.parametrize("number", [1, 2])
        def test_cache(momento_server, number):
            assert cache.get("name") is None
            cache.set("name", number)
            assert cache.get("name") == number
            assert len(momento_server.items) == 1
        """)
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q"]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [*command, "--ds=project_settings", f"--rootdir={tmp_path}", str(tmp_path)],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{root}:{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr
