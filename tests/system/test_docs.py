"""README and the pages of ``docs/`` tell the truth: each code block is tried, no link is dead.

One test counts the blocks, so that a new one fails until it has a test. It knows nothing of tables
(``test_docs_tables.py``), style or wording.
"""

import asyncio
import importlib.util
import os
import re
import shlex
import socket
import subprocess
import sys
import tomllib
import types
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache, caches
from django.core.management import call_command
from django.test import RequestFactory, override_settings

from django_momento_http import __version__, checks, exceptions
from django_momento_http._conf import endpoints
from django_momento_http.testing import Fault, RunningServer, running_server
from tests.support.collecting import Collector, names_and_labels, scraped_program
from tests.support.documents import (
    BLOCKS,
    CODES,
    HELD_BLOCKS,
    PAGES,
    README,
    ROOT,
    TEXTS,
    holds,
    prose,
    table,
)
from tests.support.serving import SITE, Load, ask_one, site_in, started

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MANAGE = """
import sys

from django.core.management import execute_from_command_line

execute_from_command_line(sys.argv)
"""
# So that a machine with much to do fails no request.
PATIENT = {"REQUEST_TIMEOUT": 30.0, "CONNECT_TIMEOUT": 30.0}
LONGEST_WAIT = 60  # seconds for a process that hangs; none of them should


def run(code: str, **names: Any) -> dict[str, Any]:
    """Run a block of Python and return its names."""
    exec(compile(code, "a document", "exec"), names)
    return names


def in_folder(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run this Python with the arguments, in a folder that it imports from."""
    path = os.pathsep.join([str(folder), *sys.path])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={"PYTHONPATH": path, "PATH": "", **environ},
        capture_output=True,
        text=True,
        timeout=LONGEST_WAIT,
        check=False,
    )


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    """An API key in the environment, and nothing else of Momento."""
    for name in ("MOMENTO_ENDPOINT", "MOMENTO_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MOMENTO_API_KEY", "key-of-the-readme")


def test_every_block_has_one_test() -> None:
    """No fenced block goes untried, and no test tries a block that is gone."""
    assert Counter(block.name for block in BLOCKS) == HELD_BLOCKS


# Commands


@holds(
    "README: python3 -m venv .venv && .venv",
    "README: python3 -m venv .venv && .venv (2)",
    "CONTRIBUTING: python3 -m venv .venv && .venv",
)
def test_one_line_makes_an_environment(code: str) -> None:
    """It makes a virtual environment, installs the clone with a known extra, and runs in it."""
    make, install, use = (shlex.split(part) for part in code.split("&&"))
    assert make == ["python3", "-m", "venv", ".venv"]
    assert_installs_the_clone(install)
    assert use[0] == ".venv/bin/python"
    done = in_folder(ROOT, *use[1:], "--help")
    assert done.returncode == 0, done.stdout + done.stderr


def assert_installs_the_clone(command: list[str]) -> None:
    """Hold that it is pip's, for the clone and a known extra."""
    *pip, target = command
    assert pip == [".venv/bin/python", "-m", "pip", "install", "-q", "-e"]
    extra = re.fullmatch(r"\.(?:\[(\w+)\])?", target)
    assert extra is not None
    assert extra[1] in (None, *PROJECT["optional-dependencies"])


@holds("README: python -m pip install django-m")
def test_what_is_installed_is_this(code: str) -> None:
    """The name that pip is given is the distribution's."""
    *command, name = code.split()
    assert command == ["python", "-m", "pip", "install"]
    assert name == PROJECT["name"]


@holds(
    "README: python manage.py check",
    "checks: python manage.py check",
    "deployment: python manage.py check --deplo",
)
def test_the_commands_of_a_project(code: str, tmp_path: Path) -> None:
    """Both succeed in a project with README's settings, but for the place of the service."""
    (tmp_path / "manage.py").write_text(MANAGE)
    with running_server(caches=("my-cache",), token="key-of-the-readme") as server:
        (tmp_path / "settings.py").write_text(
            "import os\n\nSECRET_KEY = 'x'\nINSTALLED_APPS = ['django_momento_http']\n"
            f"{CODES['README: CACHES = {']}\n"
            f"CACHES['default']['OPTIONS']['ENDPOINT'] = '{server.endpoint}'\n"
        )
        environ = {"DJANGO_SETTINGS_MODULE": "settings", "MOMENTO_API_KEY": "key-of-the-readme"}
        for line in code.splitlines():
            python, *arguments = line.split()
            assert python == "python"
            done = in_folder(tmp_path, *arguments, **environ)
            assert done.returncode == 0, done.stdout + done.stderr
        assert {request.method for request in server.requests} == {"GET", "PUT", "DELETE"}
        assert not server.items


@holds("checks: default: Momento cache 'my-cac")
def test_what_momento_check_prints(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The report has this form, whatever its figures are, and costs the requests that are named."""
    with running_server(caches=("my-cache",)) as server, server.override_settings():
        call_command("momento_check", no_color=True)
        promised = re.search(r"sends (\d+) requests per alias", TEXTS["checks"])
        assert promised is not None
        assert len(server.requests) == int(promised[1])
    assert masked(capsys.readouterr().out) == masked(code)


def masked(text: str) -> list[str]:
    """Return the lines with a mark for each number that is measured or picked."""
    return re.sub(r" +[\d.]+ ms|:\d+$", " #", text, flags=re.MULTILINE).split("\n")


@holds("testing: python -m django_momento_http.")
def test_the_server_command(code: str) -> None:
    """It serves the cache that it is asked for, at an address that it prints."""
    python, *arguments = code.replace("8090", "0").split()
    assert python == "python"
    with subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.terminate()
        assert process.wait(LONGEST_WAIT) == 0
    assert re.match(r"Serving .* on http://127\.0\.0\.1:\d+ \(caches: my-cache; token: any\)", line)


@holds("performance: python -m pip install -r bench")
def test_the_command_of_the_benchmarks(code: str) -> None:
    """It installs the clone and what the benchmarks need, and runs the program that there is."""
    install, use = (shlex.split(part) for part in code.split("&&"))
    *pip, requirements, editable, target = install
    assert pip == ["python", "-m", "pip", "install", "-r"]
    assert (editable, target) == ("-e", ".")
    for path in (requirements, use[1]):
        assert_is_beside(path)


@holds("CONTRIBUTING: .venv/bin/python -m pip instal")
def test_the_commands_of_the_documentation(code: str) -> None:
    """The first installs the extra that it needs; CI runs the second, word for word."""
    install, build = (shlex.split(line) for line in code.splitlines())
    assert_installs_the_clone(install)
    assert install[-1] == ".[docs]"
    assert_is_beside(".ci/run")
    assert " ".join(build[1:]) in (ROOT / ".ci" / "run").read_text()


EVERYTHING = "".join(TEXTS.values())
SCRIPTS = sorted(set(re.findall(r"`[^`\n]*python ([\w.]+/[\w./]+\.py)", EVERYTHING)))


@pytest.mark.parametrize("path", SCRIPTS)
def test_the_scripts_that_are_named(path: str) -> None:
    """They are where the documents say."""
    assert_is_beside(path)


def assert_is_beside(path: str) -> None:
    """Hold that a file is where a document says; skip where its folder is not beside the tests."""
    folder = (ROOT / path).parent
    if folder == ROOT / "benchmarks" and not (folder / "run.py").exists():
        pytest.skip("the benchmarks are not beside the tests")
    if not folder.exists():
        pytest.skip(f"{path} is not beside the tests")
    assert (ROOT / path).is_file()


# Settings


@holds("README: CACHES = {")
@pytest.mark.usefixtures("account")
def test_the_first_settings(code: str) -> None:
    """They build a backend for the region, with the key of the environment, and pass the checks."""
    settings = run(code)
    with override_settings(CACHES=settings["CACHES"]):
        options = caches["default"]._config.options
        assert checks.check_settings() == []
    assert options.endpoint == endpoints.ENDPOINTS["us-west-2"]
    assert options.token == "key-of-the-readme"
    host = options.endpoint.removeprefix("https://")
    assert f"for `us-west-2` that is `{host}`" in prose("deployment")


@holds("settings: CACHES = {")
@pytest.mark.usefixtures("account")
def test_settings_beside_options(code: str) -> None:
    """What is Django's and what is the backend's both arrive, and the checks are content."""
    settings = run(code, os=os)
    with override_settings(CACHES=settings["CACHES"]):
        built = caches["default"]
        assert checks.check_settings() == []
    assert (built.default_timeout, built.key_prefix) == (900, "shop")
    assert built._config.options.request_timeout == 0.5


@holds('settings: MOMENTO = {"BACKEND": "django_')
@pytest.mark.usefixtures("account")
def test_several_aliases(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They pass the checks, keep their keys apart and share connections."""
    with running_server(caches=("my-cache",), token="key-of-the-readme") as server:
        monkeypatch.setenv("MOMENTO_ENDPOINT", server.endpoint)
        settings = run(code)
        aliases = list(settings["CACHES"])
        with override_settings(**{name: settings[name] for name in settings if name.isupper()}):
            assert checks.check_settings() == []
            for alias in aliases:
                caches[alias].set("key", alias)
            assert [caches[alias].get("key") for alias in aliases] == aliases
            services = {caches[alias]._store._client._endpoint for alias in aliases}
    assert len(services) == 1


@holds('copies: MOMENTO = {"BACKEND": "django_')
@pytest.mark.usefixtures("account")
def test_an_alias_with_copies(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One alias keeps copies, the other asks each time, and no check has anything to say."""
    with running_server(caches=("my-cache",), token="key-of-the-readme") as server:
        monkeypatch.setenv("MOMENTO_ENDPOINT", server.endpoint)
        with override_settings(CACHES=run(code)["CACHES"]):
            assert checks.check_settings() == []
            for alias in ("default", "exact"):
                caches[alias].set("key", alias)
                assert [caches[alias].get("key") for _ in range(3)] == [alias] * 3
        methods = [request.method for request in server.requests if request.key[:1] != b"\xff"]
    assert methods == ["PUT", "PUT", "GET", "GET", "GET"]


@holds("settings: from pathlib import Path")
def test_a_callable_token(code: str, server: RunningServer, tmp_path: Path) -> None:
    """It is asked again when the service refuses the token that it gave before."""
    secret = tmp_path / "momento-token"
    names = run(code.replace("/run/secrets/momento-token", str(secret)))
    secret.write_text(f"{server.read_only_token}\n")
    options = {"TOKEN": names["momento_token"], "ON_ERROR": "raise", "CLEAR_MAX_AGE": None}
    with server.override_settings(**options, **PATIENT):
        assert cache.get("key") is None
        secret.write_text(f"{server.token}\n")
        server.inject(Fault(status=401))
        assert cache.get("key") is None
        cache.set("key", "the first token could only read")


@holds("migrating: CACHES = {")
@pytest.mark.usefixtures("account")
def test_before_and_after_migrating(code: str) -> None:
    """Both settings build their backend, which agree in everything that is Django's."""
    before, after = (
        run("\n".join(line[1:] for line in code.splitlines() if line[0] in f" {sign}"), os=os)
        for sign in "-+"
    )
    theirs = {}
    for settings in (before, after):
        with override_settings(CACHES=settings["CACHES"]):
            built = caches["default"]
            theirs[type(built)] = (built.default_timeout, built.key_prefix, built.version)
    assert [kind.__name__ for kind in theirs] == ["RedisCache", "MomentoCache"]
    assert len(set(theirs.values())) == 1
    moved = before["CACHES"]["default"]["OPTIONS"]
    options = after["CACHES"]["default"]["OPTIONS"]
    assert options["REQUEST_TIMEOUT"] == moved["socket_timeout"]
    assert options["MAX_CONNECTIONS"] == moved["max_connections"]


def test_the_regions() -> None:
    """All are named."""
    listed = TEXTS["settings"].partition("<!-- regions -->\n")[2].partition("\n\n")[0]
    assert re.findall(r"`([a-z0-9-]+)`", listed) == list(endpoints.ENDPOINTS)


# Using the cache


@holds("README: from django.core.cache import", "methods: from django.core.cache import")
def test_using_the_cache(code: str, server: RunningServer) -> None:
    """It stores what it shows, and computes the report once."""
    built = []

    def build_report() -> str:
        built.append(1)
        return "report"

    with server.override_settings(**PATIENT):
        for _ in range(2):
            run(code, build_report=build_report)
        assert cache.get_many(["greeting", "report"]) == {
            "greeting": {"en": "hello"},
            "report": "report",
        }
    assert built == [1]


@holds("methods: import asyncio")
def test_an_async_view(code: str, server: RunningServer) -> None:
    """The view answers with what the cache holds."""
    view = run(code)["dashboard"]
    with server.override_settings(**PATIENT):
        cache.set_many({"user": "Ada", "news": [1, 2]})
        response = asyncio.run(view(RequestFactory().get("/")))
    assert response.content == b'{"user": "Ada", "news": [1, 2]}'


@holds("wire-format: import json")
def test_codecs_of_your_own(
    code: str, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are found by their dotted paths, and what they store is read again."""
    module = types.ModuleType("myproject.codecs")
    exec(code, vars(module))
    monkeypatch.setitem(sys.modules, "myproject", types.ModuleType("myproject"))
    monkeypatch.setitem(sys.modules, "myproject.codecs", module)
    path = re.search(r'`"SERIALIZER": "([\w.]+)"`', TEXTS["wire-format"])
    assert path is not None
    options = {"SERIALIZER": path[1], "COMPRESSOR": "myproject.codecs.Lzma"}
    with server.override_settings(**options, **PATIENT, ON_ERROR="raise"):
        cache.set("key", ["text"] * 1000)
        assert cache.get("key") == ["text"] * 1000
    assert len(next(iter(server.items.values()))) < 1000


@holds(
    "README: from django.core.cache import (2)",
    "testing: from django.core.cache import",
    "testing: from django.core.cache import (2)",
)
def test_the_snippets_on_testing_run(code: str, tmp_path: Path) -> None:
    """What is said of testing passes as it stands, in a project of its own."""
    (tmp_path / "test_snippet.py").write_text(code)
    (tmp_path / "settings.py").write_text('SECRET_KEY = "x"\n')
    done = in_folder(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--ds=settings")
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_what_is_said_of_a_running_server() -> None:
    """It has what the page on testing names."""
    sentence = (
        prose("testing").partition("Of a running server, ")[2].partition(" Or in one line")[0]
    )
    names = re.findall(r"`(\w+)", sentence)
    assert len(names) == 5
    with running_server() as server:
        assert all(hasattr(server, name) for name in names)


# Trouble, servers


@holds("failures: MomentoError")
def test_the_tree_of_errors(code: str) -> None:
    """It is the one that the module of errors draws, and the classes are related so."""
    drawn = (exceptions.__doc__ or "").partition("::\n")[2].partition("\nNo ")[0]
    assert code.split() == drawn.split()
    path: list[type] = []
    for line in code.splitlines():
        place = re.search(r"[A-Z]\w+", line)
        assert place is not None
        error = getattr(exceptions, place[0])
        depth = place.start() // 4
        assert issubclass(error, tuple(path[depth - 1 : depth]) or Exception)
        path[depth:] = [error]
    assert set(re.findall(r"\b[A-Z][a-z]\w+(?= |$)", code, re.MULTILINE)) == set(exceptions.__all__)


LOGGED = """
import logging, django

django.setup()
from django.core.cache import cache

cache.get("key")
logging.getLogger("django_momento_http").info("all is well again")
"""


@holds("failures: LOGGING = {")
def test_the_example_of_logging(code: str, tmp_path: Path) -> None:
    """A failed get is one line of the form that is described, and INFO comes through."""
    (tmp_path / "settings.py").write_text(
        f"SECRET_KEY = 'x'\n{code}\nCACHES = {{'default': {{'LOCATION': 'my-cache',\n"
        "    'BACKEND': 'django_momento_http.cache.MomentoCache',\n"
        "    'OPTIONS': {'ENDPOINT': 'http://127.0.0.1:1', 'TOKEN': 'x'}}}\n"
    )
    done = in_folder(tmp_path, "-c", LOGGED, DJANGO_SETTINGS_MODULE="settings")
    assert done.returncode == 0, done.stderr
    described = re.search(r"A line is `([^`]+)`", prose("failures"))
    assert described is not None
    form = re.sub(r"<[^>]+>", ".+", re.sub(r"[()]", r"\\\g<0>", described[1]))
    *troubles, end = done.stderr.splitlines()
    lines = [line for line in troubles if " get on " in line]
    assert re.fullmatch(rf"[\d-]+ [\d:,]+ WARNING \d+ {form}", lines[0])
    assert re.fullmatch(r"[\d-]+ [\d:,]+ INFO \d+ all is well again", end)


@holds("failures: import gc")
def test_the_advice_for_celery(code: str, tmp_path: Path) -> None:
    """It lets the collector run where a process of a worker begins; Celery's test follows it."""
    pytest.importorskip("celery")
    told = (
        f"{code}\nphases = []\ngc.disable()\n"
        "gc.callbacks.append(lambda phase, info: phases.append((phase, info['generation'])))\n"
        "worker_process_init.send(None)\nprint(phases)\n"
    )
    done = in_folder(tmp_path, "-c", told)
    assert done.stdout == "[('start', 2), ('stop', 2)]\n", done.stderr
    assert '"failures: import gc"' in (ROOT / "tests/integrations/test_celery.py").read_text()


@holds("deployment: from gevent import monkey")
def test_the_configuration_for_gevent(code: str, tmp_path: Path) -> None:
    """It patches what the site is about to import, and asks gunicorn for what the page is about."""
    pytest.importorskip("gevent")
    told = (
        f"{code}\nassert monkey.is_module_patched('socket') and monkey.is_module_patched('ssl')\n"
        "print(preload_app, worker_class)\n"
    )
    done = in_folder(tmp_path, "-c", told)
    assert done.stdout == "True gevent\n", done.stderr


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Who takes what workers report."""
    with Collector() as running:
        yield running


@holds("metrics: import socket")
def test_workers_report_what_they_count(
    code: str, tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under gunicorn with preloading, each worker's counters arrive, the last ones at its end."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", collector.address)
    served: Counter[str] = Counter()

    def ask(client: int, turn: int) -> tuple[str, Callable[[Any], bool]]:
        target, is_right = ask_one(client, turn)

        def is_right_of_worker(answer: Any) -> bool:
            served[f"{socket.gethostname()}-{answer['pid']}"] += 1
            return is_right(answer)

        return target, is_right_of_worker

    with site_in(tmp_path) as server:
        with_the_app = SITE.replace(
            "configure(", 'configure(INSTALLED_APPS=["django_momento_http"], '
        )
        (tmp_path / "site_under_load.py").write_text(with_the_app)
        (tmp_path / "gunicorn.conf.py").write_text(code)
        gunicorn = [sys.executable, "-m", "gunicorn", "--preload", "-w", "2", "-b", "127.0.0.1:0"]
        with started(tmp_path, server, *gunicorn, "site_under_load:wsgi") as (port, _):
            load = Load(port, ask)
            load.run(0.5, workers=2)
            assert load.wrong == []
    assert collector.hits("my-site") == served


@pytest.fixture
def scraped(tmp_path: Path) -> set[str]:
    """What Prometheus reads of a process that is set up as the page says."""
    pytest.importorskip("opentelemetry.exporter.prometheus")
    block = CODES["metrics: from opentelemetry.exporter.pr"]
    with running_server() as server:
        program, settings, port = scraped_program(block, server.cache_settings(**PATIENT))
        (tmp_path / "site_settings.py").write_text(settings)
        done = in_folder(tmp_path, "-c", program, port, DJANGO_SETTINGS_MODULE="site_settings")
    assert done.returncode == 0, done.stderr
    return names_and_labels(done.stdout)


@holds("metrics: from opentelemetry.exporter.pr")
def test_one_process_can_be_scraped(code: str, scraped: set[str]) -> None:
    """Prometheus finds the metrics of a process that runs the block."""
    assert "momento_client_requests_total" in scraped
    assert 'momento_client_operations_total{django_cache_alias="default"}' in scraped


@holds("metrics: sum by (django_cache_alias) (r")
def test_the_questions_to_prometheus(code: str, scraped: set[str]) -> None:
    """They ask for series and labels that are there."""
    asked = re.findall(r"momento_\w+(?:{[^}]*})?", code)
    assert len(asked) == 4
    assert set(asked) <= scraped
    labels = {label for name in scraped for label in re.findall(r"{(\w+)=", name)}
    assert set(re.findall(r"by \((\w+)\)", code)) <= labels


# Links


def slug(heading: str) -> str:
    """Return what a heading is called in links, as GitHub and MyST make it."""
    return re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")


def headings(text: str) -> set[str]:
    """Return what can be linked to within a document."""
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


ADDRESSES = ("https://", "http://")


@pytest.mark.parametrize("name", TEXTS)
def test_links_to_files_lead_there(name: str) -> None:
    """Each leads to a file of the repository, and to a heading of it where one is named."""
    folder = ROOT / "docs" if ROOT / "docs" / f"{name}.md" in PAGES else ROOT
    links = re.findall(r"(?:\]\(|^\[[^\]]+\]: )([^\s)]+)", TEXTS[name], re.MULTILINE)
    for link in links:
        path, _, heading = link.partition("#")
        if link.startswith(ADDRESSES):
            continue
        if path.startswith("../benchmarks/"):
            assert_is_beside(path.removeprefix("../"))
            continue
        target = (folder / path).read_text() if path else TEXTS[name]
        if included := re.match(r"```\{include\} \.\./(\w+)\.md$", target, re.MULTILINE):
            target = TEXTS[included[1]]
        assert not heading or heading in headings(target), link


def test_the_links_of_readme() -> None:
    """Those to files stand at its end, where a program can make addresses of them, and are used."""
    body, _, links = README.partition("<!-- links -->\n")
    inline = re.findall(r"\]\(([^)]+)\)", body)
    assert all(link.startswith((*ADDRESSES, "#")) for link in inline)
    defined = re.findall(r"^\[(.+)\]: ", links, re.MULTILINE)
    used = re.findall(r"\[([a-z]+)\](?!\()", re.sub(r"`[^`]*`", "", prose("README")))
    assert defined == sorted(set(used))
    from_docs = re.findall(r"^\[(.+)\]: \1\.md$", TEXTS["index"], re.MULTILINE)
    assert from_docs == defined


def test_each_page_is_in_the_contents() -> None:
    """No page is left out, and Sphinx would say so where one is named that is not there."""
    listed = [line for line in TEXTS["index"].splitlines() if re.fullmatch(r"[a-z-]+", line)]
    assert sorted(listed) == [path.stem for path in PAGES if path.stem != "index"]


def test_the_documentation_is_built(tmp_path: Path) -> None:
    """Sphinx has nothing to say of it, and needs no network; README is its first page."""
    if not all(importlib.util.find_spec(name) for name in ("sphinx", "myst_parser", "furo")):
        pytest.skip("the extra docs is not installed; CI builds them in a step of its own")
    if not (ROOT / "benchmarks" / "results.md").exists():
        pytest.skip("the benchmarks are not beside the tests")
    options = ["-q", "-W", "--keep-going", "-n", "-b", "html", "-d", str(tmp_path / "doctrees")]
    nowhere = {"http_proxy": "http://127.0.0.1:1", "https_proxy": "http://127.0.0.1:1"}
    done = in_folder(ROOT, "-m", "sphinx", *options, "docs", str(tmp_path / "html"), **nowhere)
    assert (done.returncode, done.stderr) == (0, "")
    front = (tmp_path / "html" / "index.html").read_text()
    assert "no Redis to patch" in front
    assert len(table("benchmarks")) > 4
    for page in PAGES:
        assert (tmp_path / "html" / f"{page.stem}.html").is_file()
    # What is included is there: a row of each measured table.
    for page, row in (("failures", "401, token refused"), ("performance", "new backend instance")):
        assert row in (tmp_path / "html" / f"{page}.html").read_text()


def test_what_the_documentation_needs_is_an_extra() -> None:
    """`docs` names what conf.py asks for, and Read the Docs installs it."""
    assert_is_beside("django_momento_http/__init__.py")
    conf: dict[str, Any] = {"__file__": str(ROOT / "docs" / "conf.py")}
    exec((ROOT / "docs" / "conf.py").read_text(), conf)
    needed = {"sphinx", conf["html_theme"], *(n.replace("_", "-") for n in conf["extensions"])}
    extra = {re.split(r"[<>=~]", name)[0] for name in PROJECT["optional-dependencies"]["docs"]}
    assert extra == needed
    assert conf["release"] == __version__
    configuration = ROOT / ".readthedocs.yaml"
    if configuration.exists():
        assert "extra_requirements: [docs]" in configuration.read_text()
        assert "fail_on_warning: true" in configuration.read_text()
