"""README tells the truth: its tables are the code's and the measurements', its code blocks run.

Each fenced block is held by a test, and one test counts them. It knows nothing of style or wording.
"""

import asyncio
import inspect
import os
import re
import shlex
import subprocess
import sys
import tomllib
import types
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.core.cache import cache, caches
from django.core.cache.backends.redis import RedisCacheClient
from django.core.management import call_command
from django.test import RequestFactory, override_settings

import django_momento_http
from django_momento_http import checks, client, envelope, exceptions, failures, regions
from django_momento_http.cache import MomentoCache
from django_momento_http.conf import RULES
from django_momento_http.exceptions import TimedOut
from django_momento_http.testing import Fault, RunningServer, running_server

ROOT = Path(__file__).parent.parent
PACKAGE = Path(django_momento_http.__file__).parent
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DEFAULTS: dict[str, Any] = {rule.name: rule.default for rule in RULES}
MANAGE = """
import sys

from django.core.management import execute_from_command_line

execute_from_command_line(sys.argv)
"""
# So that a machine with much to do fails no request.
PATIENT = {"REQUEST_TIMEOUT": 30.0, "CONNECT_TIMEOUT": 30.0}
PATIENCE = 60  # seconds for a process that hangs; none of them should


# How README is read


class Block(NamedTuple):
    """A fenced block: what the tests call it, and the code without its indentation."""

    name: str
    code: str


def fenced_blocks(text: str) -> Iterator[Block]:
    """Yield the fenced blocks in their order, named by heading and beginning."""
    parts = r"^#+ (?P<heading>[^\n]*)$|^(?P<indent> *)```\w*\n(?P<code>.*?)^ *```$"
    heading, seen = "", Counter[str]()
    for part in re.finditer(parts, text, re.MULTILINE | re.DOTALL):
        if part["code"] is None:
            heading = part["heading"]
            continue
        code = re.sub(rf"^{part['indent']}", "", part["code"], flags=re.MULTILINE)
        name = f"{heading}: {code.strip().splitlines()[0][:30].strip()}"
        seen[name] += 1
        yield Block(name if seen[name] == 1 else f"{name} ({seen[name]})", code)


BLOCKS = list(fenced_blocks(README))
CODES = {block.name: block.code for block in BLOCKS}
HELD: Counter[str] = Counter()


def holds(*names: str) -> Any:
    """Give a test the code of these blocks, one at a time, and note that they have a test."""
    HELD.update(names)
    return pytest.mark.parametrize("code", [CODES.get(name, "") for name in names], ids=names)


def table(marker: str) -> list[str]:
    """Return the lines of the table that stands after a marker."""
    rest = README.partition(f"<!-- {marker} -->\n")[2]
    return rest.partition("\n\n")[0].splitlines()


def rows(marker: str) -> list[list[str]]:
    """Return the cells of a table's rows."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(marker)[2:]]


def quoted(text: str) -> list[str]:
    """Return what stands in backquotes."""
    return re.findall(r"`([^`]+)`", text)


def run(code: str, **names: Any) -> dict[str, Any]:
    """Run a block of Python and return its names."""
    exec(compile(code, "README.md", "exec"), names)
    return names


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    """An API key in the environment, and nothing else of Momento."""
    for name in ("MOMENTO_ENDPOINT", "MOMENTO_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MOMENTO_API_KEY", "key-of-the-readme")


def test_every_block_has_one_test() -> None:
    """No fenced block of README goes untried, and no test tries a block that is gone."""
    assert Counter(block.name for block in BLOCKS) == HELD


# Commands


@holds("Try it: python3 -m venv .venv && .venv", "Development: python3 -m venv .venv && .venv")
def test_one_line_makes_an_environment(code: str) -> None:
    """It makes a virtual environment, installs the clone with a known extra, and runs in it."""
    make, install, use = (shlex.split(part) for part in code.split("&&"))
    assert make == ["python3", "-m", "venv", ".venv"]
    *command, target = install
    assert command == [".venv/bin/python", "-m", "pip", "install", "-q", "-e"]
    extra = re.fullmatch(r"\.(?:\[(\w+)\])?", target)
    assert extra is not None
    assert extra[1] in (None, *PROJECT["optional-dependencies"])
    assert use[0] == ".venv/bin/python"
    done = in_folder(ROOT, *use[1:], "--help")
    assert done.returncode == 0, done.stdout + done.stderr


@holds("Use it: python -m pip install django-m")
def test_what_is_installed_is_this(code: str) -> None:
    """The name that pip is given is the distribution's."""
    *command, name = code.split()
    assert command == ["python", "-m", "pip", "install"]
    assert name == PROJECT["name"]


@holds("Use it: python manage.py check")
def test_the_commands_of_a_project(code: str, tmp_path: Path) -> None:
    """Both succeed in a project with the settings above, but for the place of the service."""
    (tmp_path / "manage.py").write_text(MANAGE)
    with running_server(caches=("my-cache",), token="key-of-the-readme") as server:
        (tmp_path / "settings.py").write_text(
            "import os\n\nSECRET_KEY = 'x'\nINSTALLED_APPS = ['django_momento_http']\n"
            f"{CODES['Use it: CACHES = {']}\n"
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


@holds("Use it: default: Momento cache 'my-cac")
def test_what_momento_check_prints(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The report has this form, whatever its figures are, and costs the requests that are named."""
    with running_server(caches=("my-cache",)) as server, server.override_settings():
        call_command("momento_check", no_color=True)
        promised = re.search(r"sends (\d+) requests per alias", README)
        assert promised is not None
        assert len(server.requests) == int(promised[1])
    assert masked(capsys.readouterr().out) == masked(code)


@holds("Testing your project: python -m django_momento_http.")
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
        assert process.wait(PATIENCE) == 0
    assert re.match(r"Serving .* on http://127\.0\.0\.1:\d+ \(caches: my-cache; token: any\)", line)


def in_folder(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run this Python with the arguments, in a folder that it imports from."""
    path = os.pathsep.join([str(folder), *sys.path])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={"PYTHONPATH": path, "PATH": "", **environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def masked(text: str) -> list[str]:
    """Return the lines with a mark for each number that is measured or picked."""
    return re.sub(r" +[\d.]+ ms|:\d+$", " #", text, flags=re.MULTILINE).split("\n")


SCRIPTS = sorted(set(re.findall(r"`[^`\n]*python ([\w.]+/[\w./]+\.py)", README)))


@pytest.mark.parametrize("path", SCRIPTS)
def test_the_scripts_that_are_named(path: str) -> None:
    """They are where README says."""
    if not (ROOT / path).parent.exists():
        pytest.skip(f"{path} is not beside the tests")
    assert (ROOT / path).is_file()


# Settings


@holds("Use it: CACHES = {")
@pytest.mark.usefixtures("account")
def test_the_first_settings(code: str) -> None:
    """They build a backend for the region, with the key of the environment, and pass the checks."""
    settings = run(code, os=os)
    with override_settings(CACHES=settings["CACHES"]):
        options = caches["default"]._space.options
        assert checks.check_settings() == []
    assert options.endpoint == regions.ENDPOINTS["us-west-2"]
    assert options.token == "key-of-the-readme"
    assert f"for `us-west-2` that is `{options.endpoint.removeprefix('https://')}`" in README


@holds('Settings: MOMENTO = {"BACKEND": "django_')
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
            services = {caches[alias]._store._client._service for alias in aliases}
    assert len(services) == 1


@holds("Settings: from pathlib import Path")
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


@holds("Migrating: CACHES = {")
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


def test_the_settings_table() -> None:
    """It has a row for each option, in the order of the rules, with the default of the code."""
    expected = [
        [
            f"`{rule.name}`",
            f"env `{rule.environment}`" if rule.environment else f"`{rule.default!r}`",
        ]
        for rule in RULES
    ]
    assert [row[:2] for row in rows("settings")] == expected


def test_the_regions() -> None:
    """All are named."""
    listed = README.partition("\nRegions: ")[2].partition(". A private")[0]
    assert re.findall(r"`([a-z0-9-]+)`", listed) == list(regions.ENDPOINTS)


def test_the_checks_table() -> None:
    """It has a row for each system check."""
    documented = re.findall(r"^([EW]\d{3})  ", checks.__doc__ or "", re.MULTILINE)
    ids = [check.id for check in checks.CHECKS]
    assert [row[0] for row in rows("checks")] == documented == ids


def test_the_migrating_table() -> None:
    """It names options of this backend only, and all that Django's RedisCache reads itself."""
    known = {*DEFAULTS, "KEY_PREFIX", "OPTIONS", "LZMA", "LZ4"}
    ours = {name for row in rows("migrating") for name in quoted(row[0]) if name.isupper()}
    assert ours <= known
    theirs = {name for row in rows("migrating") for name in quoted(row[1])}
    own = set(inspect.signature(RedisCacheClient).parameters) - {"servers", "options"}
    assert own <= theirs


# Using the cache


@holds("Use it: from django.core.cache import")
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


@holds("Use it: import asyncio")
def test_an_async_view(code: str, server: RunningServer) -> None:
    """The view answers with what the cache holds."""
    view = run(code)["dashboard"]
    with server.override_settings(**PATIENT):
        cache.set_many({"user": "Ada", "news": [1, 2]})
        response = asyncio.run(view(RequestFactory().get("/")))
    assert response.content == b'{"user": "Ada", "news": [1, 2]}'


@holds("Serializers and the wire format: import json")
def test_codecs_of_your_own(code: str, server: RunningServer, codecs: None) -> None:
    """Both are found by their dotted paths, and what they store is read again."""
    path = re.search(r'`"SERIALIZER": "([\w.]+)"`', README)
    assert path is not None
    options = {"SERIALIZER": path[1], "COMPRESSOR": "myproject.codecs.Lzma"}
    with server.override_settings(**options, **PATIENT, ON_ERROR="raise"):
        cache.set("key", ["text"] * 1000)
        assert cache.get("key") == ["text"] * 1000
    assert len(next(iter(server.items.values()))) < 1000


@pytest.fixture
def codecs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module `myproject.codecs`, made of what README shows."""
    module = types.ModuleType("myproject.codecs")
    exec(CODES["Serializers and the wire format: import json"], vars(module))
    monkeypatch.setitem(sys.modules, "myproject", types.ModuleType("myproject"))
    monkeypatch.setitem(sys.modules, "myproject.codecs", module)


@holds(
    "Testing your project: from django.core.cache import",
    "Testing your project: from django.core.cache import (2)",
)
def test_the_snippets_on_testing_run(code: str, tmp_path: Path) -> None:
    """What README says of testing passes as it stands, in a project of its own."""
    (tmp_path / "test_snippet.py").write_text(code)
    (tmp_path / "settings.py").write_text('SECRET_KEY = "x"\n')
    done = in_folder(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--ds=settings")
    assert "1 passed" in done.stdout, done.stdout + done.stderr


# What the methods promise

THEIR_CALLS: Mapping[str, Callable[[MomentoCache, str], Any]] = {
    "get": lambda cache, key: cache.get(key, "default"),
    "has_key": lambda cache, key: cache.has_key(key),
    "in": lambda cache, key: key in cache,
    "set": lambda cache, key: cache.set(key, 1),
    "add": lambda cache, key: cache.add(key, 1),
    "touch": lambda cache, key: cache.touch(key),
    "delete": lambda cache, key: cache.delete(key),
    "incr": lambda cache, key: cache.incr(key),
    "decr": lambda cache, key: cache.decr(key),
    "incr_version": lambda cache, key: cache.incr_version(key),
    "decr_version": lambda cache, key: cache.decr_version(key),
    "get_many": lambda cache, key: cache.get_many([key, "b", "c"]),
    "set_many": lambda cache, key: cache.set_many({key: 1, "b": 2, "c": 3}),
    "delete_many": lambda cache, key: cache.delete_many([key, "b", "c"]),
    "get_or_set": lambda cache, key: cache.get_or_set(key, lambda: "default"),
    "clear": lambda cache, key: cache.clear(),
    "close": lambda cache, key: cache.close(),
    "ttl": lambda cache, key: cache.ttl(key),
    "stats": lambda cache, key: cache.stats(),
}
KEYS_OF_MANY = 3
IN_TROUBLE: Mapping[str, Callable[[Any], bool]] = {
    "the default": lambda got: got == "default",
    "the default, made once": lambda got: got == "default",
    "`False`": lambda got: got is False,
    "`0`": lambda got: got == 0,
    "`ValueError`": lambda got: isinstance(got, ValueError),
    "nothing": lambda got: got is None,
    "what could be read": lambda got: got == {},
    "the keys that failed": lambda got: got == ["key", "b", "c"],
    "the counters": lambda got: got["hits"] == 0,
}
METHODS = [
    (name, requests, in_trouble)
    for methods, requests, in_trouble, _ in rows("methods")
    for name in re.findall(r"`(\w+)", methods)
]


def outcome(call: Callable[[MomentoCache, str], Any], cache: MomentoCache, key: str) -> Any:
    """Return what a method returns, or the ValueError that it raises."""
    try:
        return call(cache, key)
    except ValueError as error:
        return error


def test_the_methods_table_is_complete() -> None:
    """It names every method that the backend defines, and their async twins are there."""
    public = {name for name in vars(MomentoCache) if not name.startswith("_")}
    twins = {name for name in public if name.startswith("a") and name[1:] in public}
    assert {name for name, _, _ in METHODS} == public - twins | {"in"} == set(THEIR_CALLS)
    assert {name[1:] for name in twins} == public - twins - {"stats"}


@pytest.mark.parametrize(("name", "promised", "_"), METHODS, ids=[row[0] for row in METHODS])
def test_the_requests_of_a_method(
    name: str, promised: str, _: str, server: RunningServer, make_cache: Callable[..., Any]
) -> None:
    """Each method sends as many requests as the table says, for a key that is there or is not."""
    counts = []
    for key in ("present", "absent"):
        cache = make_cache(
            CLEAR_MAX_AGE=3600, **PATIENT
        )  # so long that its marker is not read meanwhile
        cache.set("present", 1)
        server.forget_requests()
        outcome(THEIR_CALLS[name], cache, key)
        counts.append(len(server.requests))
    present, absent = counts
    if name.endswith("_many"):
        assert (promised, present, absent) == ("n", KEYS_OF_MANY, KEYS_OF_MANY)
    elif present == absent:
        assert promised == str(present)
    else:
        assert promised == f"{present} if present, else {absent}"


@pytest.mark.parametrize(("name", "_", "promised"), METHODS, ids=[row[0] for row in METHODS])
def test_a_method_in_trouble(
    name: str, _: str, promised: str, server: RunningServer, make_cache: Callable[..., Any]
) -> None:
    """Each method answers as the table says while the service fails."""
    server.inject(Fault(status=500, times=None))
    assert IN_TROUBLE[promised](outcome(THEIR_CALLS[name], make_cache(**PATIENT), "key"))


def test_the_keys_of_stats(make_cache: Callable[..., Any]) -> None:
    """README names the keys of the dictionary, and the states of the breaker."""
    listed = quoted(README.partition("`stats()` returns a dictionary: ")[2].partition("\n\n")[0])
    states = ["closed", "open", "half-open"]
    assert [name for name in listed if name not in states] == list(make_cache().stats())
    assert set(states) <= set(listed)


# Trouble


@holds("When the service is in trouble: MomentoError")
def test_the_tree_of_errors(code: str) -> None:
    """It is the one that the module of errors draws, and the classes are related so."""
    drawn = inspect.cleandoc((exceptions.__doc__ or "").partition("::\n")[2].partition("\nNo ")[0])
    assert code.strip() == drawn
    path: list[type] = []
    for line in code.splitlines():
        place = re.search(r"[A-Z]\w+", line)
        assert place is not None
        error = getattr(exceptions, place[0])
        depth = place.start() // 4
        assert issubclass(error, tuple(path[depth - 1 : depth]) or Exception)
        path[depth:] = [error]
    assert set(re.findall(r"\b[A-Z][a-z]\w+(?= |$)", code, re.MULTILINE)) == set(exceptions.__all__)


def test_the_constants() -> None:
    """The table of retries and breaker has the numbers of the code."""
    for what, value, name in rows("constants"):
        constant = name.strip("`")
        if constant == "RetryBudget":
            assert [retries_at_once(earned=0), retries_at_once(earned=10)] == [int(value), 1], what
        else:
            assert float(value) == getattr(failures, constant), what
    listed = re.search(r"the statuses (.*?) are\s+tried once more", README, re.DOTALL)
    assert listed is not None
    assert set(map(int, re.findall(r"\d+", listed[1]))) == failures.RETRY_STATUSES


def retries_at_once(earned: int) -> int:
    """Return how many retries a new budget pays, or an empty one after so many operations."""
    budget = failures.RetryBudget()
    if earned:
        while budget.spend():
            pass
        for _ in range(earned):
            budget.earn()
    retries = 0
    while budget.spend():
        retries += 1
    return retries


def failures_until_open(seconds: float) -> int:
    """Return how many operations that fail after so many seconds open a breaker."""
    breaker = failures.Breaker(DEFAULTS["REQUEST_TIMEOUT"], clock=lambda: 0.0)
    count = 0
    while (ticket := breaker.admit()) is not None:
        breaker.record(ticket, TimedOut(), seconds)
        count += 1
    return count


def pauses(count: int) -> list[float]:
    """Return the first pauses of a breaker whose probes all fail, without their share of chance."""
    now = 0.0
    breaker = failures.Breaker(1.0, clock=lambda: now, random=lambda: 0.0)
    found: list[float] = []
    while len(found) <= count:
        ticket = breaker.admit()
        if ticket is None:
            now = breaker._until
            continue
        opened = breaker.openings
        breaker.record(ticket, TimedOut(), 1.0)
        if breaker.openings > opened:
            found.append(breaker._until - now)
    return found[:count]


def test_the_worst_case() -> None:
    """The seconds and counts of the table follow from the breaker and the default settings."""
    wait = DEFAULTS["REQUEST_TIMEOUT"] * client._WAITING
    connecting = DEFAULTS["CONNECT_TIMEOUT"]
    gets, unreachable = failures_until_open(wait), failures_until_open(connecting)
    first = pauses(6)
    after = ", ".join(f"{pause:g}" for pause in first)
    assert [(row[1], row[2]) for row in rows("worst case")] == [
        (f"a page of 20 `get`s, one after the other: {gets} of them wait", f"{gets * wait:.2f}"),
        ("a page with one `get_many` of 20 keys: all wait together", f"{wait:.2f}"),
        (
            f"a page of 20 `get`s: {unreachable} of them wait",
            f"{unreachable * connecting:.2f}",
        ),
        (f"{failures_until_open(0.0)} operations, which fail at once", "0.00"),
        (f"one operation, as the probe after {after}, … seconds", f"{wait:.2f}"),
        (
            "the longest time until a probe sees it: one that just failed, and a pause",
            f"{first[-1] + wait:.2f}",
        ),
    ]
    assert DEFAULTS["MAX_CONNECTIONS"] >= 20  # so that all wait together


# Stored values


def test_the_wire_format() -> None:
    """The sizes of the fields are the ones of the envelope."""
    listed = README.partition("inflated or loaded: ")[2].partition(" (`envelope.py`")[0]
    sizes = [int(field.split()[-1]) for field in listed.split(",")]
    *documented, (body, _) = re.findall(
        r"^ +(\d+) +(\d+|-)  ", envelope.__doc__ or "", re.MULTILINE
    )
    assert sizes == [int(size) for _, size in documented]
    assert [0, *accumulate(sizes)] == [*(int(offset) for offset, _ in documented), int(body)]
    assert int(body) == envelope._BODY_AT
    promised = re.search(r"begins with (\d+) bytes", README)
    assert promised is not None
    assert int(promised[1]) == envelope._BODY_AT


class Gone:
    """A class of a project, which a later release no longer has."""


OWN = {"SERIALIZER": "myproject.codecs.DatesAndDecimals", "COMPRESSOR": "myproject.codecs.Lzma"}
# For each row: what is set when the value is written, and when it is read.
CHANGES: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    '`SERIALIZER`, from `"json"` to another': ({"SERIALIZER": "json"}, OWN),
    '`SERIALIZER`, from `"pickle"` to another': ({}, {"SERIALIZER": "json"}),
    "`COMPRESSOR`, from a built-in one": ({}, {"COMPRESSOR": None}),
    "`SERIALIZER` or `COMPRESSOR`, from a class of your own to another, or its dotted path": (
        OWN,
        {},
    ),
    "`SECRET_KEY`, with the old one in `SECRET_KEY_FALLBACKS`": (
        {"secrets": ["old"]},
        {"secrets": ["new", "old"]},
    ),
    "`SECRET_KEY`, without": ({"secrets": ["old"]}, {"secrets": ["new"]}),
    "`SIGNING_KEY`": ({"SIGNING_KEY": "old"}, {"SIGNING_KEY": "new"}),
    "`SECRET_KEY`, with a `SIGNING_KEY` set": (
        {"SIGNING_KEY": "same", "secrets": ["old"]},
        {"SIGNING_KEY": "same", "secrets": ["new"]},
    ),
    "a class, so that its pickles no longer load": ({"value": Gone()}, {"without": "Gone"}),
}


def test_the_table_of_changes_is_tried() -> None:
    """Each row has a trial."""
    assert [row[0] for row in rows("changes")] == list(CHANGES)


@pytest.mark.usefixtures("codecs")
@pytest.mark.parametrize(
    ("change", "promised"), rows("changes"), ids=[r[0] for r in rows("changes")]
)
def test_a_change_of_settings(
    change: str, promised: str, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value that was stored before the change is read, or is a miss, as the table says."""
    old, new = (dict(side) for side in CHANGES[change])
    value = old.pop("value", ["text"] * 1000)
    with settings_of(server, old):
        cache.set("key", value)
        assert type(cache.get("key")) is type(value)
    if gone := new.pop("without", None):
        monkeypatch.delattr(sys.modules[__name__], gone)
    with settings_of(server, new):
        got = cache.get("key", "a miss")
    assert (got == value, got == "a miss") == (
        promised.startswith("are read"),
        promised.startswith("are misses"),
    )


def settings_of(server: RunningServer, options: dict[str, Any]) -> override_settings:
    """Return the settings for these options, of which `secrets` are Django's."""
    secret, *fallbacks = options.pop("secrets", ["the secret"])
    return override_settings(
        SECRET_KEY=secret,
        SECRET_KEY_FALLBACKS=fallbacks,
        CACHES={"default": server.cache_settings(**options, **PATIENT)},
    )


# How it works


@holds("How it works: cache.get_many([…])")
def test_the_drawing(code: str) -> None:
    """Its rooms are modules, and each imports the next below it, but for the one beside it."""
    rooms = re.findall(r"^(\w+)  ", code, re.MULTILINE)
    beside = re.findall(r"── (\w+):", code)
    assert all((PACKAGE / f"{name}.py").is_file() for name in rooms + beside)
    for upper, lower in pairwise(rooms):
        assert f"from .{lower} import" in (PACKAGE / f"{upper}.py").read_text()


def test_the_walk_of_a_get_many(server: RunningServer) -> None:
    """A real call enters the modules in the order in which the steps begin with them."""
    walk = README.partition("step by step:\n\n")[2].partition("\n\n")[0]
    steps = [quoted(step) for step in re.split(r"^\d\. ", walk, flags=re.MULTILINE)[1:]]
    entered: dict[str, None] = {}

    def note(frame: types.FrameType, event: str, _: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.parent == PACKAGE:
            entered.setdefault(path.stem)

    with server.override_settings(**PATIENT, CLEAR_MAX_AGE=None):
        cache.set_many({"a": 1, "b": 2})
        sys.setprofile(note)
        try:
            cache.get_many(["a", "b", "c"])
        finally:
            sys.setprofile(None)
    modules = {path.stem for path in PACKAGE.glob("*.py")}
    assert {name for step in steps for name in step if "_many" not in name} <= modules
    assert len(steps) == 9
    # The plan of `store` is a generator, which begins to run when `runner` first asks it.
    leading = list(dict.fromkeys(step[0] for step in steps if step[0] != "store"))
    assert [module for module in entered if module in leading] == leading


# Measured


def test_the_kinds_of_errors() -> None:
    """Every kind that the package gives an error stands in the table of the log, and no other."""
    package = Path(failures.__file__).parent
    asks_by_hand = {"diagnosis.py", "probe.py"}
    sources = [path.read_text() for path in package.glob("*.py") if path.name not in asks_by_hand]
    given = set(re.findall(r'\bkind(?:: str)? ?= ?"(\w+)"', "".join(sources)))
    told = {
        kind for line in table("kinds")[2:] for kind in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    assert told == given - {"error", "response"}  # of the base classes, which are not raised


MEASURED = {
    "benchmarks": "benchmarks/results.md",
    "clients": "benchmarks/results.md",
    "costs": "benchmarks/costs.md",
    "simulation": "benchmarks/breaker.md",
    "trouble": "benchmarks/trouble.md",
}


@pytest.mark.parametrize("marker", MEASURED)
def test_the_measured_tables(marker: str) -> None:
    """They are what the programs wrote, to the letter."""
    source = ROOT / MEASURED[marker]
    if not source.exists():
        pytest.skip("the benchmarks are not beside the tests")
    lines = table(marker)
    assert len(lines) > 5
    assert set(lines) <= set(source.read_text().splitlines())


@pytest.mark.parametrize("marker", [marker for marker in MEASURED if marker != "clients"])
def test_the_measured_tables_are_whole(marker: str) -> None:
    """No row of them was left out."""
    source = ROOT / MEASURED[marker]
    if not source.exists():
        pytest.skip("the benchmarks are not beside the tests")
    assert "\n\n" + "\n".join(table(marker)) + "\n" in source.read_text()


def test_the_links_within_the_file() -> None:
    """Each leads to a heading."""
    headings = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(#([^)]+)\)", README)
    assert links
    assert set(links) <= anchors
