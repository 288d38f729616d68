"""The fixture ``momento_server`` for users' tests.

One line in the project's top ``conftest.py`` makes it available::

    pytest_plugins = ["django_momento_http.pytest_plugin"]

Each test that asks for it gets a fresh, empty server of its own and pays about a millisecond for it
(a thread, an event loop and a socket, started and stopped); other tests pay nothing.
"""

from collections.abc import Iterator

import pytest

from .testing import RunningServer, running_server


@pytest.fixture
def momento_server() -> Iterator[RunningServer]:
    """Run a Momento server and let the default cache of this test be on it."""
    with running_server() as server, server.override_settings():
        yield server
