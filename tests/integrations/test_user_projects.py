"""``django_momento_http.testing`` as users have it in projects of their own, under their runners.

Each project is written to a folder and run in a process of its own, with warnings as errors.
"""

import re
from pathlib import Path

import pytest

from .conftest import SETTINGS, Project

ROUNDS = 6

WITH_PYTEST = """
from django.core.cache import cache
from django_momento_http.testing import running_server

def test_the_cache():
    with running_server() as server, server.override_settings():
        cache.set("name", "value", timeout=60)
        assert cache.get("name") == "value"
        assert [request.method for request in server.requests].count("PUT") == 1
"""

WITH_THE_FIXTURE = """
from django.core.cache import cache
from django_momento_http.testing import Fault

def test_a_fault(momento_server):
    cache.set("name", "value")
    momento_server.inject(Fault(status=500, times=None))
    assert cache.get("name", "fallback") == "fallback"
    momento_server.clear_faults()
    assert cache.get("name") == "value"

def test_time(momento_server):
    cache.set("name", "value", timeout=60)
    momento_server.advance(61)
    assert cache.get("name") is None
"""

WITH_UNITTEST = """
from django.core.cache import cache
from django.test import SimpleTestCase
from django_momento_http.testing import Fault, running_server

class CacheTests(SimpleTestCase):
    def setUp(self):
        self.server = self.enterContext(running_server())
        self.enterContext(self.server.override_settings())

    def test_the_cache(self):
        cache.set("name", "value")
        self.assertEqual(cache.get("name"), "value")

    def test_a_fault(self):
        self.server.inject(Fault(drop="before", times=None))
        self.assertEqual(cache.get("name", "fallback"), "fallback")
"""

# Every test uses the same key, expects an empty cache and leaves it full.
PARALLEL_WITH_PYTEST = f"""
import os, pytest
from django.core.cache import cache

@pytest.mark.parametrize("number", range({ROUNDS}))
def test_alone(momento_server, number):
    with open(os.environ["WORKERS"], "a") as file:
        file.write(f"{{os.getpid()}}\\n")
    assert cache.get("name") is None
    for _ in range(50):
        cache.set("name", number)
        assert cache.get("name") == number
    cache.clear()
    cache.set("name", number)
    assert len([key for _, key in momento_server.items if key == b":1:name"]) == 1
"""

PARALLEL_WITH_UNITTEST = """
import os
from django.core.cache import cache
from django.test import SimpleTestCase
from django_momento_http.testing import running_server

class Alone:
    def setUp(self):
        self.server = self.enterContext(running_server())
        self.enterContext(self.server.override_settings())

    def test_alone(self):
        with open(os.environ["WORKERS"], "a") as file:
            file.write(f"{os.getpid()}\\n")
        self.assertIsNone(cache.get("name"))
        for _ in range(50):
            cache.set("name", os.getpid())
            self.assertEqual(cache.get("name"), os.getpid())
        cache.clear()
        cache.set("name", 1)

"""

MANAGE = """
import os, sys
from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project_settings")
    execute_from_command_line(sys.argv)
"""


def with_pytest(project: Project, *arguments: str, **environ: str) -> str:
    """Run the project's tests with pytest and return the last line; they must pass."""
    project.write("pytest.ini", "[pytest]\nDJANGO_SETTINGS_MODULE = project_settings\n")
    plugins = ["-p", "no:cacheprovider", "-p", "pytest_django.plugin"]
    command = ["-m", "pytest", "-q", "-W", "error", *plugins]
    # Other plugins that happen to be installed would cost seconds.
    done = project.run(*command, *arguments, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", **environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


def with_manage(project: Project, *arguments: str, **environ: str) -> str:
    """Run the project's tests with Django's runner and return what it said; they must pass."""
    project.write("manage.py", MANAGE)
    project.write("project_settings.py", SETTINGS)
    done = project.run("manage.py", "test", *arguments, **environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


def workers(file: Path) -> set[str]:
    """Return the numbers of the processes that ran the tests."""
    return set(file.read_text().split())


def test_five_lines_of_pytest(project: Project) -> None:
    """A test needs an import and one ``with`` to have a cache of its own."""
    project.write("test_it.py", WITH_PYTEST)
    assert re.match("1 passed", with_pytest(project))


def test_the_fixture(project: Project) -> None:
    """With the fixture a test may break the service and let time pass."""
    project.write("conftest.py", 'pytest_plugins = ["django_momento_http.pytest_plugin"]\n')
    project.write("test_it.py", WITH_THE_FIXTURE)
    assert re.match("2 passed", with_pytest(project))


def test_five_lines_of_unittest(project: Project) -> None:
    """Under Django's own runner two lines of ``setUp`` do the same."""
    project.write("test_it.py", WITH_UNITTEST)
    assert "Ran 2 tests" in with_manage(project)


def test_pytest_in_parallel(project: Project, tmp_path: Path) -> None:
    """Tests of two workers at once, all using one key, do not disturb one another."""
    pytest.importorskip(
        "xdist", reason="needs pytest-xdist: pip install 'django-momento-http[integrations]'"
    )
    project.write("conftest.py", 'pytest_plugins = ["django_momento_http.pytest_plugin"]\n')
    project.write("test_it.py", PARALLEL_WITH_PYTEST)
    file, parallel = tmp_path / "workers", ("-p", "xdist.plugin", "-n", "2")
    assert re.match(f"{ROUNDS} passed", with_pytest(project, *parallel, WORKERS=str(file)))
    assert len(workers(file)) == 2


def test_unittest_in_parallel(project: Project, tmp_path: Path) -> None:
    """The same holds for the processes that ``manage.py test --parallel 2`` forks."""
    cases = "\n".join(f"class Tests{number}(Alone, SimpleTestCase): pass" for number in range(4))
    project.write("test_it.py", PARALLEL_WITH_UNITTEST + cases)
    file = tmp_path / "workers"
    assert "Ran 4 tests" in with_manage(project, "--parallel", "2", WORKERS=str(file))
    assert len(workers(file)) == 2
