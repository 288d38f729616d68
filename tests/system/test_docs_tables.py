"""The tables of README and ``docs/`` are the code's and the measurements'.

One test counts the tables, so that a new one fails until it has a test. It knows nothing of style
or wording.
"""

import importlib.util
import inspect
import re
import struct
import sys
import types
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from django.core.cache.backends.redis import RedisCacheClient
from django.test import override_settings

import django_momento_http
from django_momento_http import checks, compressors, serializers
from django_momento_http._client import breaker as circuit
from django_momento_http._client import client, retry
from django_momento_http._conf.rules import RULES
from django_momento_http._http import hedging
from django_momento_http._registry import Registry
from django_momento_http._store import debts, envelope
from django_momento_http.cache import MomentoCache
from django_momento_http.exceptions import ConnectFailed, TimedOut
from django_momento_http.testing import Fault, RunningServer
from tests.support.calls import calls_of, visits, warm_cache
from tests.support.documents import (
    CODES,
    HELD_TABLES,
    README,
    ROOT,
    TABLES,
    TEXTS,
    about,
    prose,
    quoted,
    rows,
    table,
)

PACKAGE = Path(django_momento_http.__file__).parent
DEFAULTS: dict[str, Any] = {rule.name: rule.default for rule in RULES}
# So that a machine with much to do fails no request.
PATIENT = {"REQUEST_TIMEOUT": 30.0, "CONNECT_TIMEOUT": 30.0}


def test_every_table_has_a_test() -> None:
    """Each has a name and is held by a test, and no test holds a table that is gone."""
    assert Counter(found.name for found in TABLES) == HELD_TABLES


# Settings and checks


def shown_default(name: str) -> str:
    """Return how a table shows the default of an option."""
    rule = next(rule for rule in RULES if rule.name == name)
    return f"env `{rule.environment}`" if rule.environment else f"`{rule.default!r}`"


@about("settings")
def test_the_settings_table() -> None:
    """It has a row for each option, in the order of the rules, with the default of the code."""
    expected = [[f"`{rule.name}`", shown_default(rule.name)] for rule in RULES]
    assert [row[:2] for row in rows("settings")] == expected


@pytest.mark.parametrize(
    ("option", "registry"),
    [("SERIALIZER", serializers.REGISTRY), ("COMPRESSOR", compressors.REGISTRY)],
)
def test_the_codecs_are_documented(option: str, registry: Registry[Any]) -> None:
    """The row of an option that names a codec names all that are built in."""
    [text] = [row[2] for row in rows("settings") if row[0] == f"`{option}`"]
    assert [name for name in registry._built_in if f"`{name!r}`" not in text] == []


@about("options")
def test_the_options_that_matter() -> None:
    """README names five, with their defaults."""
    chosen = [row[:2] for row in rows("options")]
    assert len(chosen) == 5
    for option, default in chosen:
        assert default == shown_default(option.strip("`"))


@about("checks")
def test_the_checks_table() -> None:
    """It has a row for each system check."""
    documented = re.findall(r"^([EW]\d{3})  ", checks.__doc__ or "", re.MULTILINE)
    ids = [check.id for check in checks.CHECKS]
    assert [row[0] for row in rows("checks")] == documented == ids


def test_how_long_a_signing_key_should_be() -> None:
    """What is said of it is what the check asks for."""
    characters = f"{checks._SHORT_KEY} characters"
    assert f"shorter than {characters}" in prose("checks")
    assert f"fewer than {characters}" in prose("settings")
    assert f"fewer than {characters}" in prose("SECURITY")
    assert f"at least {characters}" in prose("deployment")


@about("seen", "asks", "kinds of data")
def test_what_copies_answer(server: RunningServer) -> None:
    """Each method is in both tables, or asks nobody; those that copies answer send no request."""
    methods = {name for row in rows("methods") for name in quoted(row[0])}
    asked = {name for row in rows("asks") for name in quoted(row[0])}
    writes = {name for row in rows("seen") for name in quoted(row[0])}
    assert {name.partition("(")[0] for name in methods} == asked | writes | {"close", "stats"}
    [answered, _] = (quoted(row[0]) for row in rows("asks"))
    with server.override_settings(**PATIENT, NEAR_MAX_AGE=3600):
        cache.set("key", 1)
        server.forget_requests()
        for name in set(answered) - {"in"}:
            getattr(cache, name)(
                *{"get_many": (["key"],), "get_or_set": ("key", 2)}.get(name, ("key",))
            )
        assert "key" in cache
        assert not server.requests


@about("migrating")
def test_the_migrating_table() -> None:
    """It names options of this backend only, and all that Django's RedisCache reads itself."""
    known = {*DEFAULTS, "KEY_PREFIX", "OPTIONS", "LZMA", "LZ4"}
    ours = {name for row in rows("migrating") for name in quoted(row[0]) if name.isupper()}
    assert ours <= known
    theirs = {name for row in rows("migrating") for name in quoted(row[1])}
    own = set(inspect.signature(RedisCacheClient).parameters) - {"servers", "options"}
    assert own <= theirs


# What was tried

# For each row: the tests of its integration.
INTEGRATIONS = {
    "sessions": "test_sessions.py",
    "`cache_page`, middleware, fragments": "test_cache_page.py",
    "Django REST framework": "test_rest_framework.py",
    "django-ratelimit": "test_ratelimit.py",
    "django-axes": "test_axes.py",
    "django-debug-toolbar": "test_debug_toolbar.py",
    "Sentry": "test_sentry.py",
    "OpenTelemetry": "test_opentelemetry.py",
    "Celery": "test_celery.py",
    "django-environ": "test_environ.py",
    "django-cache-url": "test_cache_url.py",
}


@about("integrations")
def test_the_integrations_were_tried() -> None:
    """Each row has a file of tests."""
    for (name, _), (start, file) in zip(rows("integrations"), INTEGRATIONS.items(), strict=True):
        assert name.startswith(start)
        assert (ROOT / "tests" / "integrations" / file).is_file()


# For each row that says so: the file of tests, and how it calls the server.
SERVERS = {
    "gunicorn, `sync` and `gthread`": ("system/test_gunicorn.py", "--preload"),
    "gunicorn, `gevent`": ("system/test_gunicorn.py", "patch_all"),
    "uvicorn": ("system/test_gunicorn.py", "uvicorn"),
    "uWSGI": ("system/test_uwsgi.py", "--master"),
    "Celery, prefork": ("integrations/test_celery.py", "prefork"),
}


@about("servers")
def test_the_servers_were_tried() -> None:
    """What is said to have a test has one."""
    said = [row[0] for row in rows("servers") if "test of this repository" in row[2]]
    assert said == list(SERVERS)
    for file, word in SERVERS.values():
        assert word in (ROOT / "tests" / file).read_text()


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


@about("methods")
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
    """They are named, and the states of the breaker."""
    text = TEXTS["methods"].partition("`stats()` returns a dictionary: ")[2].partition("\n\n")[0]
    listed = quoted(text)
    states = ["closed", "open", "half-open"]
    assert [name for name in listed if name not in states] == list(make_cache().stats())
    assert set(states) <= set(listed)


@about("metrics")
def test_the_metrics() -> None:
    """The page lists each metric with its unit, its kind and the counters that it shows."""
    metrics = pytest.importorskip("django_momento_http._diagnostics.metrics", exc_type=ImportError)
    assert rows("metrics") == [
        [
            f"`{each.name}`",
            f"`{each.unit}`",
            "gauge" if each.is_gauge else "counter",
            ", ".join(f"`{stat}`" for stat in each.stats),
        ]
        for each in metrics.INSTRUMENTS
    ]


@about("attributes")
def test_what_tells_metrics_apart() -> None:
    """The page names each attribute, the metrics that have it, and the values that it may have."""
    metrics = pytest.importorskip("django_momento_http._diagnostics.metrics", exc_type=ImportError)
    values: dict[str, tuple[set[str], set[str]]] = {}
    for each in metrics.INSTRUMENTS:
        for attributes in each.stats.values():
            for name, value in attributes.items():
                on, known = values.setdefault(name, (set(), set()))
                on.add(each.name.removeprefix("momento.client."))
                known.add(value)
    values[metrics.STATE] = {"breaker.state"}, set(metrics.BREAKER_STATES)
    told = {quoted(name)[0]: (quoted(on), quoted(known)) for name, on, known in rows("attributes")}
    assert set(told) == {*values, metrics.CACHE, metrics.ALIAS, metrics.ERROR}
    for name, (on, known) in values.items():
        assert on <= set(told[name][0])
        assert known == set(told[name][1])
    assert told[metrics.ERROR][0] == ["errors"]


# Trouble


@about("kinds")
def test_the_kinds_of_errors() -> None:
    """Every kind that the package gives an error stands in the table of the log, and no other."""
    asks_by_hand = {"advice.py", "probe.py"}
    sources = [path.read_text() for path in PACKAGE.rglob("*.py") if path.name not in asks_by_hand]
    given = set(re.findall(r'\bkind(?:: str)? ?= ?"(\w+)"', "".join(sources)))
    told = {
        kind for line in table("kinds")[2:] for kind in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    assert told == given - {"error", "response"}  # of the base classes, which are not raised


def test_the_kinds_table_gives_the_advice_of_the_errors() -> None:
    """What it tells to look at is what the error of that kind, and so the log, advises."""
    for kinds, _, look_at in rows("kinds"):
        advice = " ".join(ConnectFailed(kind=kind).advice for kind in quoted(kinds))
        assert [name for name in quoted(look_at) if name not in advice] == []


@about("constants")
def test_the_constants() -> None:
    """The table of retries and breaker has the numbers of the code."""
    for what, value, name in rows("constants"):
        constant = name.strip("`")
        if constant == "RetryBudget":
            assert [retries_at_once(earned=0), retries_at_once(earned=10)] == [int(value), 1], what
        else:
            assert float(value) == getattr(retry, constant, getattr(circuit, constant, None)), what
    listed = re.search(r"the statuses (.*?) are tried once more", prose("failures"))
    assert listed is not None
    assert set(map(int, re.findall(r"\d+", listed[1]))) == retry.RETRY_STATUSES


@about("hedging")
def test_the_constants_of_hedging() -> None:
    """The table of hedged reads has the numbers of the code."""
    told = {name.strip("`"): float(value) for _, value, name in rows("hedging")}
    assert told == {name: getattr(hedging, name) for name in told}
    assert len(told) == 7


def retries_at_once(earned: int) -> int:
    """Return how many retries a new budget pays, or an empty one after so many operations."""
    budget = retry.RetryBudget()
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
    breaker = circuit.Breaker(DEFAULTS["REQUEST_TIMEOUT"], clock=lambda: 0.0)
    count = 0
    while (permit := breaker.admit()) is not None:
        breaker.record(permit, TimedOut(), seconds)
        count += 1
    return count


def pauses(count: int) -> list[float]:
    """Return the first pauses of a breaker whose probes all fail, without their share of chance."""
    now = 0.0
    breaker = circuit.Breaker(1.0, clock=lambda: now, random=lambda: 0.0)
    found: list[float] = []
    while len(found) <= count:
        permit = breaker.admit()
        if permit is None:
            now = breaker.condition.until
            continue
        opened = breaker.openings
        breaker.record(permit, TimedOut(), 1.0)
        if breaker.openings > opened:
            found.append(breaker.condition.until - now)
    return found[:count]


@about("worst case")
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
        (f"all operations of {circuit.LASTING:g} s, which fail at once", "0.00"),
        (f"one operation, as the probe after {after}, … seconds", f"{wait:.2f}"),
        (
            "the longest time until a probe sees it: one that just failed, and a pause",
            f"{first[-1] + wait:.2f}",
        ),
    ]
    assert DEFAULTS["MAX_CONNECTIONS"] >= 20  # so that all wait together
    assert f"waits {gets * wait:.2f} s, once" in prose("README")
    assert gets == 3
    assert "opens after three timeouts" in prose("README")


def test_how_many_writes_are_owed() -> None:
    """As many as the page says are remembered."""
    assert f"A process remembers {debts.MOST_OWED:,} keys" in prose("failures")


# Stored values


@about("wire format")
def test_the_wire_format() -> None:
    """The fields and their sizes are those that the envelope describes and packs."""
    described = re.findall(r"^ +(\d+) +(\d+|-)  ", envelope.__doc__ or "", re.MULTILINE)
    *fields, body = [tuple(row[:2]) for row in rows("wire format")]
    assert [*fields, body] == described
    sizes = [int(size) for _, size in fields]
    assert [int(offset) for offset, _ in (*fields, body)] == [0, *accumulate(sizes)]
    layout = envelope._SEALED.format
    packed = [struct.calcsize(f"!{part}") for part in re.findall(r"\d*[a-zA-Z]", layout)]
    assert sizes == packed
    assert int(body[0]) == envelope._BODY_AT


def test_the_bounds_of_a_stored_value() -> None:
    """How late a value is still read, and how large it may become, are the envelope's."""
    assert envelope._REPLAY_SECONDS == 60
    assert "A value more than a minute past its own expiry is a miss" in prose("wire-format")
    assert "until its expiry and a minute" in prose("SECURITY")
    assert f"at most {envelope.INFLATED_LIMIT // 2**20} MiB" in prose("wire-format")


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


@pytest.fixture
def codecs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module `myproject.codecs`, made of what the documents show."""
    module = types.ModuleType("myproject.codecs")
    exec(CODES["wire-format: import json"], vars(module))
    monkeypatch.setitem(sys.modules, "myproject", types.ModuleType("myproject"))
    monkeypatch.setitem(sys.modules, "myproject.codecs", module)


@about("changes")
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


# Architecture

LAYERS = {name.strip("`"): quoted(modules) for name, _, modules in rows("layers")}


def modules_in(folder: Path) -> set[str]:
    """Return the modules of a folder, and its folders."""
    names = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
    return names - {"__init__", "__pycache__"}


@about("layers")
def test_every_module_has_a_layer() -> None:
    """The table of layers names each module of the package once, and nothing else."""
    folders = {name: set(modules) for name, modules in LAYERS.items() if name.startswith("_")}
    assert folders == {name: modules_in(PACKAGE / name) for name in folders}
    named = Counter(m for layer, modules in LAYERS.items() if layer not in folders for m in modules)
    assert named == Counter(modules_in(PACKAGE) - set(folders))


def test_the_walk_of_a_get_many(server: RunningServer) -> None:
    """A real call enters the layers in the order in which the walk names them."""
    walk = TEXTS["architecture"].partition("step by step:\n\n")[2].partition("\n\n")[0]
    named = re.findall(r"\*\*`(\w+)`\*\*", walk)
    entered: dict[str, None] = {}

    def note(frame: types.FrameType, event: str, _: object) -> None:
        path = Path(frame.f_code.co_filename)
        # A plan begins to run when it is first asked, and not where it is made.
        is_plan = frame.f_code.co_flags & inspect.CO_COROUTINE
        if event == "call" and path.is_relative_to(PACKAGE) and not is_plan:
            entered.setdefault(path.relative_to(PACKAGE).parts[0].removesuffix(".py"))

    with server.override_settings(**PATIENT, CLEAR_MAX_AGE=None):
        cache.set_many({"a": 1, "b": 2})
        sys.setprofile(note)
        try:
            cache.get_many(["a", "b", "c"])
        finally:
            sys.setprofile(None)
    assert len(named) == 4
    assert [layer for layer in entered if layer in named] == named


@about("get")
def test_the_path_of_a_get(server: RunningServer) -> None:
    """The table of a get's calls names each of them, in order."""
    made = calls_of("get", warm_cache(server))
    told = [(quoted(module)[0], quoted(calls)) for module, calls, _ in rows("get")]
    assert told == visits(made)
    count = len({module for module, _ in made})
    assert f"in order: {len(made)} through {count} modules" in prose("architecture")


# Measured


@pytest.fixture(scope="module")
def program() -> types.ModuleType:
    """The program that puts tables and links into the documents."""
    path = ROOT / ".ci" / "readme_tables.py"
    if not path.exists() or not (ROOT / "benchmarks" / "results.md").exists():
        pytest.skip("the program and the benchmarks are not beside the tests")
    spec = importlib.util.spec_from_file_location("readme_tables", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@about("benchmarks", "clients")
def test_the_measured_tables(program: types.ModuleType) -> None:
    """They are made of what the benchmarks wrote, to the letter."""
    for marker, (_, made) in program.TABLES.items():
        assert table(marker) == made()
        assert len(table(marker)) > 4


def test_readme_hides_no_missed_goal(program: types.ModuleType) -> None:
    """Every goal that was missed is shown, and as many were met as it says."""
    goals = program.tables("results.md")[0][2:]
    missed = [goal for goal in goals if program.MISSED in goal]
    assert set(missed) <= set(table("benchmarks"))
    assert f"{len(goals) - len(missed)} of {len(goals)} goals were met" in prose("README")


def test_the_figures_in_sentences(program: types.ModuleType) -> None:
    """What README and the page on architecture say in words is what the tables say."""
    measured = {row.split(" | ")[0][2:]: row.split(" | ")[2] for row in table("benchmarks")[2:]}
    ratios = [float(measured[name].split()[0]) for name in program.HEADLINES[:2]]
    told = re.search(r"a `get` takes ([\d.]+) times .* and ([\d.]+) times", prose("README"))
    assert told is not None
    assert [float(told[1]), float(told[2])] == [round(ratio, 2) for ratio in ratios]
    counted = dict(row[2:].split(" | ")[:2] for row in program.tables("copies.md")[0][2:])
    saved = float(counted["requests saved, NEAR_MAX_AGE 5"].split()[0])
    assert 40 < saved < 50
    assert f"save nearly half of the requests ({saved:.0f} % with 5 seconds)" in prose("README")
    kinds = len(program.tables("trouble.md")[0]) - 2
    assert kinds == 16
    assert "sixteen kinds of trouble" in prose("README")
    cells = [[cell.strip() for cell in row.split("|")] for row in program.absolute()[2:]]
    absolute = {(row[1], row[2]): float(row[4].split()[0]) for row in cells}
    text = prose("architecture")
    for client_of in ("requests GET", "transport GET", "raw socket GET"):
        assert re.search(rf"\b{absolute['single', client_of]:.0f} µs", text), client_of
    for name in ("MomentoCache.get_many", "requests, 32 threads"):
        value = absolute["many100", name]
        assert f"{value:.{0 if value > 10 else 1}f} ms" in text, name


def test_why_a_goal_is_missed(program: types.ModuleType) -> None:
    """The page on performance speaks of each goal that is missed, and its figures are so."""
    missed = [row[2:] for row in program.tables("results.md")[0][2:] if program.MISSED in row]
    [many, threads] = missed
    assert many.startswith("`get_many(100)` @ 0 ms")
    assert threads.startswith("8 threads @ 2 ms")
    text = prose("performance")
    assert "Where `get_many` is missed" in text
    assert "The row of 8 threads is an exception" in text
    cells = [[cell.strip() for cell in row.split("|")] for row in program.absolute()[2:]]
    used = [
        row[5] for row in cells if row[2] == "MomentoCache.get" and row[1] in ("single", "near")
    ]
    cold, warm = (float(value.split()[0]) for value in used)
    assert (
        f"twice the CPU that it takes with the server on its own core ({cold:g} and {warm:g} µs)"
        in text
    )
    assert 1.9 < cold / warm < 2.2


def test_what_hedged_reads_cost(program: types.ModuleType) -> None:
    """The shares of reads that are asked twice are below what the page on costs says."""
    said = (
        "less than one in two hundred; where a tenth of its machines is slow, up to one in twenty"
    )
    assert f"Where the service answers evenly that is {said}" in prose("costs")
    simulated = [table for table in program.tables("breaker.md") if table[0][:9] == "| latency"]
    for lines in simulated[:2]:
        cells = [line.split(" | ") for line in lines[2:]]
        extra = {row[0][2:]: float(row[-1].partition("%")[0]) for row in cells}
        for even in ("2 ms", "80 ms, far away", "400 ms, slow but right"):
            assert extra[even] < 0.5
        assert extra["2 ms, one machine in ten 20 ms"] < 5


def test_readme_on_an_address(program: types.ModuleType) -> None:
    """Once the documentation has one, links lead to its pages; until then nothing is changed."""
    readme = "[a]\n\n[a]: docs/wire-format.md#what\n[b]: SECURITY.md\n[c]: https://x.example/y.md\n"
    assert program.with_links(readme, None) == readme
    switched = program.with_links(readme, "https://docs.example/en/stable/")
    assert switched.splitlines()[2:] == [
        "[a]: https://docs.example/en/stable/wire-format.html#what",
        "[b]: https://docs.example/en/stable/security.html",
        "[c]: https://x.example/y.md",
    ]
    assert program.with_links(switched, "https://docs.example/en/stable/") == switched


def test_readme_is_as_pyproject_says(program: types.ModuleType) -> None:
    """Its links are addresses as soon as `[project.urls]` names the documentation."""
    address = program.documentation((ROOT / "pyproject.toml").read_text())
    assert program.with_links(README, address) == README
    urls = 'urls = { Documentation = "https://docs.example/" }'
    assert program.documentation(f"[project]\n{urls}\n") == "https://docs.example/"
    assert program.documentation("[project]\n") is None
