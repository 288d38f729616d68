"""Real servers: gunicorn with workers forked from a warm parent, uvicorn with many tasks."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from django_momento_http.testing import Fault, RunningServer
from tests.support.serving import (
    KEYS,
    LOAD_SECONDS,
    LONGEST_WAIT,
    SITE,
    Load,
    ask_either,
    ask_many,
    ask_one,
    site_in,
    started,
)

GUNICORN = [
    *(sys.executable, "-m", "gunicorn", "--preload", "-b", "127.0.0.1:0"),
    "site_under_load:wsgi",
]
WORKERS = {
    "sync": ["-w", "4"],
    "gthread": ["-w", "4", "-k", "gthread", "--threads", "4"],
    "gevent": ["-w", "4", "-c", "gunicorn.conf.py"],
}
# With --preload the site is imported before gunicorn's own patching.
GEVENT = """
from gevent import monkey

monkey.patch_all()

worker_class = "gevent"
"""

# The provider is set up in each worker; the site was loaded in their parent.
METRICS = """
preload_app = True
workers = 3


def post_fork(server, worker):
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    worker.app.wsgi().reader = reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([reader]))
"""
COUNTED = '''
"""A site with one view: what OpenTelemetry sees of this worker, and what `stats()` says."""

import os

from site_under_load import JsonResponse, cache, get_wsgi_application, path, settings


def counted(request, key):
    found = cache.get(key)
    data = wsgi.reader.get_metrics_data()
    seen = {
        metric.name: sum(point.value for point in metric.data.data_points)
        for scope in data.resource_metrics[0].scope_metrics
        for metric in scope.metrics
    }
    return JsonResponse({"pid": os.getpid(), "value": found, "seen": seen, "stats": cache.stats()})


settings.ROOT_URLCONF = __name__
urlpatterns = [path("counted/<str:key>/", counted)]
wsgi = get_wsgi_application()
'''


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, RunningServer]]:
    """The site's folder, and the service with all values in place."""
    with site_in(tmp_path) as server:
        yield tmp_path, server


@pytest.mark.parametrize("warm", ["sync", "async"])
@pytest.mark.parametrize("kind", WORKERS)
def test_forked_workers_never_mix_values_up(
    kind: str, warm: str, site: tuple[Path, RunningServer]
) -> None:
    """Four workers forked from a parent with warm connections each serve the right values."""
    folder, server = site
    if kind == "gevent":
        pytest.importorskip("gevent", reason="gevent is not installed")
        (folder / "gunicorn.conf.py").write_text(GEVENT)
    # Async views do not work under gevent: all requests of a worker run in one thread.
    ask = ask_one if kind == "gevent" else ask_either
    seconds = LOAD_SECONDS if (kind, warm) == ("sync", "sync") else LOAD_SECONDS / 3
    with started(folder, server, *GUNICORN, *WORKERS[kind], warm=warm) as (port, process):
        load = Load(port, ask)
        load.run(seconds, workers=2)
        assert load.wrong == []
        assert len(load.pids) > 1
        assert process.pid not in load.pids
        assert load.answers > 20 * seconds


def test_forked_workers_survive_trouble(site: tuple[Path, RunningServer]) -> None:
    """While the service fails, every page is served without the value; afterwards with it."""
    folder, server = site

    def in_trouble(client: int, turn: int) -> tuple[str, Callable[[Any], bool]]:
        target, is_right = ask_one(client, turn)
        return target, lambda answer: answer["value"] is None or is_right(answer)

    with started(folder, server, *GUNICORN, "-w", "2") as (port, _):
        server.inject(Fault(drop="before", times=40))
        server.inject(Fault(status=503, times=40))
        load = Load(port, in_trouble)
        load.run(1.0)
        assert load.wrong == []
        server.clear_faults()
        end, last = time.monotonic() + LONGEST_WAIT, Load(port, ask_one)
        while time.monotonic() < end:
            last = Load(port, ask_one)
            last.run(0.3)
            if not last.wrong:
                break
        assert last.wrong == []


def test_tasks_never_mix_values_up(site: tuple[Path, RunningServer]) -> None:
    """Concurrent async views each get the values of their own keys."""
    folder, server = site
    uvicorn = [sys.executable, "-m", "uvicorn", "--host", "127.0.0.1", "--port", "0"]
    with started(folder, server, *uvicorn, "site_under_load:asgi") as (port, _):
        load = Load(port, ask_many)
        load.run(LOAD_SECONDS)
        assert load.wrong == []
        assert load.answers > 10 * LOAD_SECONDS


def test_each_worker_has_metrics_of_its_own(site: tuple[Path, RunningServer]) -> None:
    """Workers forked from a parent that had used the cache each report their own counters."""
    pytest.importorskip("opentelemetry.sdk.metrics", reason="needs opentelemetry-sdk")
    folder, server = site
    (folder / "gunicorn.conf.py").write_text(METRICS)
    (folder / "site_counted.py").write_text(COUNTED)
    with_app = SITE.replace("configure(", 'configure(INSTALLED_APPS=["django_momento_http"], ')
    (folder / "site_under_load.py").write_text(with_app)
    reads: dict[int, list[int]] = {}

    def ask(client: int, turn: int) -> tuple[str, Callable[[Any], bool]]:
        def is_right(answer: Any) -> bool:
            seen, stats = answer["seen"], answer["stats"]
            reads.setdefault(answer["pid"], []).append(stats["hits"])
            return bool(
                answer["value"] == f"value-{turn % KEYS}"
                and seen["momento.client.requests"] == stats["requests"]
                and seen["momento.client.operations"] == stats["hits"]
            )

        return f"/counted/key-{turn % KEYS}/", is_right

    with started(folder, server, *GUNICORN[:-1], "site_counted:wsgi") as (port, process):
        load = Load(port, ask)
        load.run(0.5, workers=2)
        assert load.wrong == []
        assert process.pid not in reads
    # Each begins at nothing, whatever its parent had counted.
    assert all(sorted(hits) == list(range(1, len(hits) + 1)) for hits in reads.values())
