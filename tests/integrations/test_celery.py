"""Celery: a real worker that forks, and results kept in the cache by django-celery-results."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache

from django_momento_http.exceptions import ServiceFailed
from django_momento_http.testing import RunningServer
from tests.support.documents import CODES
from tests.support.sizes import sized

from .conftest import Project

NEEDS = "needs Celery and django-celery-results: pip install 'django-momento-http[integrations]'"
celery = pytest.importorskip("celery", reason=NEEDS)
pytest.importorskip("django_celery_results", reason=NEEDS)

LONGEST_WAIT = 10
# In each of two processes.
INTERRUPTS = sized(20, 10_000)

SETTINGS = """
import json, os
SECRET_KEY = "for tests only"
INSTALLED_APPS = ["django_celery_results"]
CACHES = {"default": json.loads(os.environ["CACHE"])}
"""

TASKS = """
import json, os, random, signal, sys, time
import django

django.setup()
from billiard.pool import soft_timeout_sighandler
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from django.core.cache import cache

app = Celery("tasks")
app.config_from_object(json.loads(os.environ["CELERY"]))
# In the parent, before it forks: the connections that its children must not use.
cache.set("parent", os.getpid())
cache.get_many(["parent", "other"])


ADVICE


@app.task(name="meet")
def meet(me, other):
    cache.set(me, os.getpid())
    for _ in range(20_000):
        if found := cache.get(other):
            return os.getpid(), found, cache.get("parent")
    raise TimeoutError


@app.task(name="store")
def store(number):
    cache.set(f"key-{number}", number)
    return [cache.get(f"key-{number}"), cache.get_many([f"key-{number}", "parent"])]


@app.task(name="double")
def double(number):
    return 2 * number


@app.task(name="total")
def total(numbers):
    return sum(numbers)


def work(number):
    # Use the cache in every way, and say whether it gave what is wrong.
    key = f"limited-{number}"
    cache.set(key, key)
    cache.set_many({key: key, "other": "other"})
    one, many = cache.get(key), cache.get_many([key, "other"])
    cache.get_or_set(key, key)
    cache.delete("none")
    return one not in (key, None) or many.get(key) not in (key, None)


@app.task(name="limited", soft_time_limit=1)
def limited(number):
    end = time.monotonic() + 10
    try:
        while time.monotonic() < end:
            if work(number):
                return "wrong value", os.getpid()
    except SoftTimeLimitExceeded:
        return "told", os.getpid()
    return "not told", os.getpid()


@app.task(name="interrupted")
def interrupted(number, count):
    # What Celery's own signal runs, by a timer that strikes at any moment.
    signal.signal(signal.SIGALRM, soft_timeout_sighandler)
    printed = []
    sys.unraisablehook = lambda event: printed.append(f"{event.exc_value!r} in {event.object!r}")
    told = 0
    for _ in range(count):
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.003))
            end = time.monotonic() + 1
            while time.monotonic() < end:
                if work(number):
                    return told, ["wrong value"]
            return told, ["not told", *printed]
        except SoftTimeLimitExceeded:
            told += 1
    return told, printed
""".replace("ADVICE", CODES["failures: import gc"])


def configuration(folder: Path) -> dict[str, Any]:
    """Return a configuration whose messages are files and whose results are in the cache."""
    queue = folder / "queue"
    queue.mkdir(exist_ok=True)
    return {
        "broker_url": "filesystem://",
        "broker_transport_options": {
            "data_folder_in": str(queue),
            "data_folder_out": str(queue),
            "control_folder": str(folder / "control"),
            "polling_interval": 0.05,
        },
        "result_backend": "django-cache",
        "cache_backend": "default",
    }


@pytest.fixture
def app(momento_server: RunningServer, settings: Any, tmp_path: Path) -> Any:
    """A caller of tasks, without a worker."""
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django_celery_results"]
    return celery.Celery("caller", config_source=configuration(tmp_path), set_as_current=False)


@pytest.fixture
def worker(momento_server: RunningServer, project: Project) -> Iterator[int]:
    """A worker with two processes that it forks; its number, by which it is ended."""
    project.write("project_settings.py", SETTINGS)
    project.write("tasks.py", TASKS)
    command = ["-m", "celery", "-A", "tasks", "worker", "-P", "prefork", "-c", "2"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING"]
    environ = project.environ(
        DJANGO_SETTINGS_MODULE="project_settings",
        CACHE=json.dumps(momento_server.cache_settings()),
        CELERY=json.dumps(configuration(project.folder)),
        C_FORCE_ROOT="1",
    )
    with (project.folder / "worker.log").open("wb") as log:
        running = subprocess.Popen(
            [sys.executable, *command, *quiet],
            cwd=project.folder,
            env=environ,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield running.pid
        running.terminate()
        assert running.wait(LONGEST_WAIT) == 0
    finally:
        running.kill()
        running.wait()


def ask(app: Any, name: str, *arguments: object) -> Any:
    """Send a task to the worker."""
    return app.send_task(name, arguments)


def answer(result: Any) -> Any:
    """Wait for what a task returns."""
    return result.get(timeout=sized(LONGEST_WAIT, 30 * LONGEST_WAIT), interval=0.02)


def test_a_worker_that_forks(worker: int, app: Any) -> None:
    """Two forked processes use the cache at once, see each other's values and the parent's."""
    meeting = [ask(app, "meet", "a", "b"), ask(app, "meet", "b", "a")]
    (one, other, parent), (other_again, one_again, _) = map(answer, meeting)
    assert len({one, other, worker}) == 3
    assert (one, other, parent) == (one_again, other_again, worker)
    results = [ask(app, "store", number) for number in range(20)]
    assert [answer(result) for result in results] == [
        [number, {f"key-{number}": number, "parent": worker}] for number in range(20)
    ]
    # A chord's last task is called once the others are done, without incr.
    header = [celery.Signature("double", (number,), app=app) for number in (1, 2, 3)]
    assert answer(celery.chord(header, app=app)(celery.Signature("total", app=app))) == 12


def test_a_soft_time_limit_always_reaches_the_task(worker: int, app: Any) -> None:
    """It is never taken for a miss nor only printed, and both processes work on."""
    meeting = [ask(app, "meet", "a", "b"), ask(app, "meet", "b", "a")]
    first, second, _ = answer(meeting[0])
    limits = [ask(app, "limited", number) for number in range(2)]
    interrupts = [ask(app, "interrupted", number, INTERRUPTS) for number in range(2)]
    assert [answer(result)[0] for result in limits] == ["told", "told"]
    assert [list(answer(result)) for result in interrupts] == [[INTERRUPTS, []]] * 2
    stored = [answer(ask(app, "store", number)) for number in range(4)]
    assert stored == [[number, {f"key-{number}": number, "parent": worker}] for number in range(4)]
    assert set(answer(ask(app, "meet", "c", "c"))[:2]) <= {first, second}


def test_results_live_in_the_cache(momento_server: RunningServer, app: Any) -> None:
    """A result is one item of the cache, which lives for a day and can be forgotten."""
    app.backend.store_result("some-id", {"answer": 42}, "SUCCESS")
    assert app.AsyncResult("some-id").get(timeout=LONGEST_WAIT) == {"answer": 42}
    [put] = [request for request in momento_server.requests if request.method == "PUT"]
    assert (put.key, put.ttl_seconds) == (b":1:celery-task-meta-some-id", 24 * 60 * 60)
    app.AsyncResult("some-id").forget()
    assert cache.get("celery-task-meta-some-id") is None


def test_an_error_is_a_result(momento_server: RunningServer, app: Any) -> None:
    """What a task raises is raised again where its result is asked for."""
    app.backend.store_result("some-id", KeyError("x"), "FAILURE")
    with pytest.raises(KeyError):
        app.AsyncResult("some-id").get(timeout=LONGEST_WAIT)


def test_an_outage_with_miss(
    momento_server: RunningServer, start_outage: Callable[[RunningServer], None], app: Any
) -> None:
    """With ON_ERROR "miss" a result that could not be stored is lost: it stays pending for ever."""
    start_outage(momento_server)
    app.backend.store_result("some-id", 42, "SUCCESS")
    momento_server.clear_faults()
    assert app.AsyncResult("some-id").state == "PENDING"


def test_an_outage_with_raise(
    configured: Callable[..., RunningServer],
    start_outage: Callable[[RunningServer], None],
    app: Any,
) -> None:
    """With ON_ERROR "raise" the worker knows that it could not store a result."""
    start_outage(configured(ON_ERROR="raise"))
    with pytest.raises(ServiceFailed):
        app.backend.store_result("some-id", 42, "SUCCESS")
