"""What the tests with other packages share: our own fixture, an outage, and programs in a process.

Packages that change Django for good (Sentry, Celery) and projects as users have them run in
processes of their own. It knows nothing of any package.
"""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from django_momento_http.pytest_plugin import momento_server  # noqa: F401 - a fixture
from django_momento_http.testing import Fault, RunningServer

ROOT = Path(__file__).parent.parent.parent
LONGEST_WAIT = 60

SETTINGS = """
SECRET_KEY = "for tests only"
USE_TZ = True
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django_momento_http"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
"""


class Project:
    """A user's project in a folder of its own, whose programs run with warnings as errors."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, text: str) -> None:
        """Write one of its files."""
        (self.folder / name).write_text(textwrap.dedent(text))

    def environ(self, **more: str) -> dict[str, str]:
        """Return an environment without this run's own settings."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return {
            **kept,
            "PYTHONPATH": os.pathsep.join((str(self.folder), str(ROOT))),
            "PYTHONDONTWRITEBYTECODE": "1",
            **more,
        }

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run Python with these arguments in the folder and return what came of it."""
        return subprocess.run(
            [sys.executable, "-W", "error", *arguments],
            cwd=self.folder,
            env=self.environ(**environ),
            capture_output=True,
            text=True,
            timeout=LONGEST_WAIT,
            check=False,
        )


@pytest.fixture(autouse=True)
def _site(request: pytest.FixtureRequest, settings: Any) -> None:
    """Let a test module with ``urlpatterns`` be the site of its tests."""
    if hasattr(request.module, "urlpatterns"):
        settings.ROOT_URLCONF = request.module.__name__
        settings.ALLOWED_HOSTS = ["testserver"]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project that has settings and nothing else."""
    made = Project(tmp_path)
    made.write("project_settings.py", SETTINGS)
    return made


@pytest.fixture
def configured(server: RunningServer) -> Iterator[Callable[..., RunningServer]]:
    """A function that makes the server the default cache of this test, with these options."""
    overrides: list[Any] = []

    def configure(**options: Any) -> RunningServer:
        overrides.append(server.override_settings(**options))
        overrides[-1].enable()
        return server

    yield configure
    for override in reversed(overrides):
        override.disable()


@pytest.fixture
def start_outage() -> Callable[[RunningServer], None]:
    """A function after which a server answers nothing but 503."""

    def start(server: RunningServer) -> None:
        server.inject(Fault(status=503, times=None))

    return start
