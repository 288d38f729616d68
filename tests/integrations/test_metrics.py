"""``stats()`` as OpenTelemetry metrics, as a reader of the SDK sees them."""

import json
import logging
import re
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from django.apps import apps
from django.core.cache import caches
from django.test import override_settings

from django_momento_http.cache import MomentoCache
from django_momento_http.testing import Fault, RunningServer, running_server
from tests.integrations.conftest import Project
from tests.support.canary import seen_in, shown_by

NEEDS = "needs opentelemetry: pip install 'django-momento-http[dev]'"
pytest.importorskip("opentelemetry.sdk.metrics", reason=NEEDS)

from opentelemetry.metrics import CallbackOptions  # noqa: E402
from opentelemetry.sdk.metrics import MeterProvider  # noqa: E402
from opentelemetry.sdk.metrics.export import (  # noqa: E402
    AggregationTemporality,
    Gauge,
    InMemoryMetricReader,
    Metric,
    Sum,
)

from django_momento_http._client import client  # noqa: E402
from django_momento_http._diagnostics import aliases, metrics  # noqa: E402

TOKEN = "a-token-that-nobody-may-see"
KEY = "a-key-that-nobody-may-see"
VALUE = "a-value-that-nobody-may-see"

Series = tuple[tuple[str, str], ...]


class Seen:
    """The metrics of this process, collected when they are asked for."""

    def __init__(self, reader: InMemoryMetricReader) -> None:
        self._reader = reader

    def text(self) -> str:
        """Return everything as one text."""
        data = self._reader.get_metrics_data()
        return data.to_json() if data else ""

    def metrics(self) -> dict[str, Metric]:
        """Return what has points, by name."""
        data = self._reader.get_metrics_data()
        return {
            metric.name: metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def points(self, name: str) -> dict[Series, float]:
        """Return the numbers of one metric, by what tells them apart."""
        metric = self.metrics().get(f"momento.client.{name}")
        points = metric.data.data_points if metric else ()
        return {tuple(sorted(point.attributes.items())): point.value for point in points}

    def of(self, name: str, **attributes: str) -> float:
        """Return the sum of the points that have these attributes (dots written as `__`)."""
        wanted = {(key.replace("__", "."), value) for key, value in attributes.items()}
        return sum(value for series, value in self.points(name).items() if wanted <= set(series))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    """A reader of a provider of its own, which sees the clients that this test makes."""
    of_others = dict(client.clients())
    monkeypatch.setattr(
        metrics,
        "clients",
        lambda: [pair for pair in client.clients() if pair[0] not in of_others],
    )
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    metrics.create_instruments(provider.get_meter("test"))
    yield Seen(reader)
    provider.shutdown()


@pytest.fixture
def use(server: RunningServer) -> Iterator[Callable[..., None]]:
    """A function that gives CACHES these aliases, each with its own options."""
    overrides: list[Any] = []

    def settle(**aliases: dict[str, Any]) -> None:
        entries = {name: server.cache_settings(**options) for name, options in aliases.items()}
        overrides.append(override_settings(CACHES={"default": {}, **entries}))
        overrides[-1].enable()

    yield settle
    for override in reversed(overrides):
        override.disable()


PATIENT = {"REQUEST_TIMEOUT": 30.0, "CONNECT_TIMEOUT": 30.0}
OTHER = {**PATIENT, "ON_ERROR": "raise"}


# The table


def test_every_counter_is_a_metric(make_cache: Callable[..., Any]) -> None:
    """What `stats()` says is in the list of metrics, each counter once, and nothing else is."""
    listed = [stat for instrument in metrics.INSTRUMENTS for stat in instrument.stats]
    assert sorted(listed) == sorted(make_cache().stats())


def test_the_names_follow_the_conventions() -> None:
    """Names are lower-case words with dots, none twice, and none the namespace of another."""
    names = [instrument.name for instrument in metrics.INSTRUMENTS]
    assert len(names) == len(set(names))
    for name in names:
        assert re.fullmatch(r"momento\.client(\.[a-z_]+)+", name)
        assert not name.endswith(("_total", ".total", "bytes"))
        assert not [other for other in names if other.startswith(f"{name}.")]


@pytest.mark.parametrize("instrument", metrics.INSTRUMENTS, ids=lambda each: each.name)
def test_units_and_descriptions(instrument: metrics.Instrument) -> None:
    """Units are UCUM's: bytes, or what is counted, in the singular; each metric says what it is."""
    assert re.fullmatch(r"By|\{[a-z]+[^s]\}", instrument.unit)
    assert instrument.description.endswith(".")


# What is seen


def test_the_numbers_are_those_of_stats(
    use: Callable[..., None], server: RunningServer, seen: Seen
) -> None:
    """After hits, misses, writes and trouble, each metric says what `stats()` says."""
    use(default=PATIENT)
    cache = caches["default"]
    cache.set(KEY, VALUE)
    cache.get_many([KEY, "other"])
    cache.delete(KEY)
    server.inject(Fault(status=500, times=None))
    cache.get(KEY)
    cache.delete(KEY)
    stats = cache.stats()
    assert stats["errors"]
    for instrument in metrics.INSTRUMENTS:
        if instrument.name.endswith("breaker.state"):
            continue
        name = instrument.name.removeprefix("momento.client.")
        for stat, attributes in instrument.stats.items():
            told = seen.of(name, **{key.replace(".", "__"): v for key, v in attributes.items()})
            value = stats.get(stat, 0)
            assert told == (sum(value.values()) if isinstance(value, dict) else value), stat


def test_what_tells_the_numbers_apart(
    use: Callable[..., None], server: RunningServer, seen: Seen
) -> None:
    """A series is named by cache, alias, operation, result, direction and kind of error."""
    use(default=PATIENT)
    caches["default"].set(KEY, VALUE)
    caches["default"].get(KEY)
    server.inject(Fault(status=403))
    caches["default"].get("denied")
    own = (("db.namespace", "default-cache"), ("django.cache.alias", "default"))

    def series(name: str) -> set[Series]:
        return {tuple(sorted(set(each) - set(own))) for each in seen.points(name)}

    get = ("db.operation.name", "get")
    assert series("operations") == {
        (get, ("momento.result", "hit")),
        (get, ("momento.result", "miss")),
        (("db.operation.name", "set"),),
        (("db.operation.name", "delete"),),
    }
    assert series("errors") == {(("error.type", "access_denied"),)}
    assert series("io") == {
        (("network.io.direction", "receive"),),
        (("network.io.direction", "transmit"),),
    }
    assert series("requests") == {()}
    for metric in seen.metrics().values():
        for point in metric.data.data_points:
            assert set(own) <= set(point.attributes.items())


def test_only_sums_and_gauges(use: Callable[..., None], seen: Seen) -> None:
    """Counters are cumulative and never go down; what goes up and down is a gauge."""
    use(default=PATIENT)
    caches["default"].get(KEY)
    found = seen.metrics()
    gauges = {each.name for each in metrics.INSTRUMENTS if each.is_gauge} & set(found)
    assert {name for name, metric in found.items() if isinstance(metric.data, Gauge)} == gauges
    for name in set(found) - gauges:
        data = found[name].data
        assert isinstance(data, Sum)
        assert data.is_monotonic
        assert data.aggregation_temporality is AggregationTemporality.CUMULATIVE


def test_the_state_of_the_breaker(
    use: Callable[..., None], server: RunningServer, seen: Seen
) -> None:
    """Each state is a series; the present one is 1 and the others are 0."""
    use(default={"REQUEST_TIMEOUT": 0.05, "CONNECT_TIMEOUT": 0.05})
    cache = caches["default"]
    cache.get(KEY)

    def states() -> dict[str, float]:
        found = seen.points("breaker.state").items()
        return {dict(series)["momento.breaker.state"]: value for series, value in found}

    assert set(states()) == {"closed", "open", "half-open"}
    assert states()[cache.stats()["breaker"]] == 1
    server.inject(Fault(delay=5, times=None))
    for _ in range(100):
        cache.get(KEY)
        if cache.stats()["breaker"] == "open":
            break
    # Whatever it is by now, it is one of them.
    assert sorted(states().values()) == [0, 0, 1]
    assert seen.of("breaker.openings") >= 1


def test_each_alias_is_a_series(use: Callable[..., None], seen: Seen) -> None:
    """Aliases of one Momento cache with other options are told apart."""
    use(default=PATIENT, other=OTHER)
    caches["default"].get(KEY)
    caches["other"].get_many([KEY, "other"])
    assert seen.of("operations", django__cache__alias="default") == 1
    assert seen.of("operations", django__cache__alias="other") == 2


def test_aliases_that_share_a_client_share_a_series(use: Callable[..., None], seen: Seen) -> None:
    """Aliases that differ in KEY_PREFIX alone have one client, so one series with both names."""
    use(default=PATIENT, other={**PATIENT, "KEY_PREFIX": "other"})
    caches["default"].get(KEY)
    caches["other"].get(KEY)
    assert seen.of("operations", django__cache__alias="default,other") == 2
    assert seen.of("operations") == 2


def test_clients_without_an_alias_are_one_series(
    make_cache: Callable[..., Any], seen: Seen
) -> None:
    """What was built beside CACHES is counted, too, under the name of its cache alone."""
    make_cache().get(KEY)
    make_cache(ON_ERROR="raise").get(KEY)
    requests = seen.points("operations")
    misses = [value for series, value in requests.items() if ("momento.result", "miss") in series]
    assert misses == [2]
    assert "django.cache.alias" not in seen.text()


def test_a_read_builds_and_sends_nothing(
    use: Callable[..., None],
    server: RunningServer,
    seen: Seen,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An alias that nobody has used has no series, no backend and no request after a read."""
    use(default=PATIENT, other=OTHER)
    caches["default"].get(KEY)
    server.forget_requests()

    def build(*_: object) -> None:
        pytest.fail("a backend was built")

    monkeypatch.setattr(MomentoCache, "__init__", build)
    assert '"other"' not in seen.text()
    assert seen.of("requests") > 0
    assert server.requests == []


def test_nothing_secret_is_a_metric(seen: Seen) -> None:
    """Token, key and value are in no name and no attribute, in trouble neither."""
    with (
        running_server(token=TOKEN) as server,
        server.override_settings(SIGNING_KEY="a-signing-key-that-nobody-may-see", **PATIENT),
    ):
        caches["default"].set(KEY, VALUE)
        caches["default"].get(KEY)
        server.inject(Fault(status=500, times=None))
        caches["default"].get(KEY)
        text = seen.text()
    assert "momento.client.requests" in text
    assert not seen_in(text, TOKEN, KEY, VALUE, "a-signing-key-that-nobody-may-see")


def test_a_credential_in_the_wrong_place_is_not_shown(seen: Seen) -> None:
    """A LOCATION or an alias that looks like a token is no attribute."""
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJlLW9mLWEtdG9rZW4"
    with running_server(caches=(token,)) as server:
        entry = server.cache_settings(**PATIENT)
        with override_settings(CACHES={"default": entry, token: entry}):
            caches["default"].get(KEY)
            text = seen.text()
    assert "momento.client.requests" in text
    assert not seen_in(text, token)


# Trouble


def test_a_client_that_fails_harms_no_other(
    use: Callable[..., None],
    seen: Seen,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The others' series are there, nothing is raised, and one line says what is missing."""
    use(default=PATIENT, other=OTHER)
    for alias in ("default", "other"):
        caches[alias].get(KEY)
    broken = caches["other"]._store._client

    def fail() -> dict[str, object]:
        raise ZeroDivisionError(KEY)

    monkeypatch.setattr(broken, "stats", fail)
    monkeypatch.setattr(metrics, "_limiter", metrics.LogLimiter())
    with caplog.at_level(logging.WARNING, "django_momento_http"):
        assert seen.of("operations", django__cache__alias="default") == 1
    assert seen.of("operations", django__cache__alias="other") == 0
    assert [record.getMessage() for record in caplog.records] == [
        "The metrics of the Momento caches are incomplete (ZeroDivisionError)"
    ]


def test_settings_that_cannot_be_read_cost_the_alias(
    use: Callable[..., None], seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When nobody can say which alias it is, the numbers are there without its name."""
    use(default=PATIENT)
    caches["default"].get(KEY)

    def fail() -> dict[object, list[str]]:
        raise ZeroDivisionError

    monkeypatch.setattr(metrics, "names_by_options", fail)
    assert seen.of("operations", db__namespace="default-cache") == 1


def test_what_a_signal_handler_raises_comes_out(
    use: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A time limit that strikes a read of the metrics is not taken for trouble of theirs."""
    use(default=PATIENT)
    caches["default"].get(KEY)

    class TimeLimit(Exception):
        """As Celery's."""

    def handler(_: int, __: FrameType | None) -> None:
        raise TimeLimit

    def interrupted() -> dict[str, object]:
        signal.raise_signal(signal.SIGTERM)
        return {}

    monkeypatch.setattr(caches["default"]._store._client, "stats", interrupted)
    before = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(TimeLimit):
            metrics.observe(metrics.INSTRUMENTS[0], CallbackOptions())
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_interrupted_read_shows_no_secret(
    use: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends it while the settings are read, no frame that it leaves holds the token."""
    use(default={**PATIENT, "SIGNING_KEY": "a-signing-key-that-nobody-may-see"})
    caches["default"].get(KEY)

    def interrupted(location: str, options: dict[str, object]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(aliases, "read_options", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        metrics.observe(metrics.INSTRUMENTS[0], CallbackOptions())
    shown = shown_by(caught.value)
    assert "observe" in shown
    assert not seen_in(shown)
    assert not seen_in(shown, "a-signing-key-that-nobody-may-see")


# Processes

PROGRAM = """
import json, os, sys
import django
from django.conf import settings
aliases = {"default": json.loads(sys.argv[1])}
settings.configure(SECRET_KEY="x", CACHES=aliases, INSTALLED_APPS=#APPS#)
django.setup()
from django.core.cache import cache
"""
READ = """
def numbers():
    data = reader.get_metrics_data()
    return {
        metric.name: sum(point.value for point in metric.data.data_points)
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }.get("momento.client.operations", 0)

def provide():
    global reader
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([reader]))
"""


def program(project: Project, server: RunningServer, code: str, apps_of: str) -> str:
    """Run a program with these INSTALLED_APPS and return what it prints."""
    entry = json.dumps(server.cache_settings(CLEAR_MAX_AGE=None, **PATIENT))
    project.write("program.py", PROGRAM.replace("#APPS#", apps_of) + READ + code)
    done = project.run("program.py", entry)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


OURS = '["django_momento_http"]'


@pytest.mark.skipif(sys.platform == "win32", reason="no fork on this system")
@pytest.mark.parametrize("provider", ["before", "after"])
def test_a_fork_has_numbers_of_its_own(
    project: Project, server: RunningServer, provider: str
) -> None:
    """A child shows nothing until it uses the cache, then its own; the parent's stay as they are.

    That holds for a provider that the child sets up, and for one that it inherits.
    """
    code = f"""
if {provider == "before"}:
    provide()
for _ in range(3):
    cache.get("a")
pid = os.fork()
if pid == 0:
    if {provider == "after"}:
        provide()
    first = numbers()
    cache.get("a")
    print(first, numbers(), flush=True)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
if {provider == "after"}:
    provide()
print(numbers())
"""
    assert program(project, server, code, OURS) == "0 1\n3\n"


def test_being_ready_twice_registers_once(project: Project, server: RunningServer) -> None:
    """Django calls `ready()` again when tests change INSTALLED_APPS: nothing is counted twice."""
    code = """
from django.test import override_settings
with override_settings(INSTALLED_APPS=["django_momento_http", "django.contrib.contenttypes"]):
    provide()
with override_settings(INSTALLED_APPS=["django_momento_http"]):
    cache.get("a")
    print(numbers())
"""
    assert program(project, server, code, OURS) == "1\n"


@pytest.mark.parametrize("provider", ["before", "after"])
def test_the_last_report_is_complete(
    project: Project, server: RunningServer, provider: str
) -> None:
    """What a provider reads at exit is there, whether it was set up before Django or after."""
    exported = """
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(ConsoleMetricExporter())]))
"""
    start = PROGRAM.replace("#APPS#", OURS)
    use = 'cache.get("a")\n'
    parts = [exported, start, use] if provider == "before" else [start, use, exported]
    project.write("program.py", "".join(parts))
    done = project.run("program.py", json.dumps(server.cache_settings(**PATIENT)))
    assert done.returncode == 0, done.stderr
    assert "momento.client.requests" in done.stdout


IMPORTED = """
cache.set("a", 1)
print([name for name in sys.modules if name.partition(".")[0] == "opentelemetry"])
"""


def test_without_the_app_nothing_is_imported(project: Project, server: RunningServer) -> None:
    """OpenTelemetry is not imported by a project that has the backend and not the app."""
    assert program(project, server, IMPORTED, "[]") == "[]\n"


def test_without_the_package_nothing_is_imported(project: Project, server: RunningServer) -> None:
    """The app works where OpenTelemetry is not installed, or only others of its namespace are."""
    gone = 'sys.modules["opentelemetry"] = None\nimport django\n'
    code = (
        'cache.set("a", 1)\nprint(cache.get("a"))\n'
        'print([name for name in sys.modules if name.startswith("opentelemetry.")])\n'
    )
    start = PROGRAM.replace("import django\n", gone, 1).replace("#APPS#", OURS)
    project.write("program.py", start + code)
    done = project.run("program.py", json.dumps(server.cache_settings(**PATIENT)))
    assert (done.stdout, done.stderr) == ("1\n[]\n", "")


def test_a_provider_that_cannot_be_loaded_stops_no_site(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When OpenTelemetry is set up wrong, a line says that there are no metrics."""

    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(metrics, "register", fail)
    with caplog.at_level(logging.WARNING, "django_momento_http"):
        apps.get_app_config("django_momento_http").ready()
    assert [record.getMessage() for record in caplog.records] == [
        "There are no OpenTelemetry metrics (ZeroDivisionError)"
    ]
