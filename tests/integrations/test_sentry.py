"""Sentry's spans for Django's cache, and what its events show of ours.

Sentry changes Django for the rest of the process, so each program has one of its own.
"""

import json
from typing import Any

import pytest

from django_momento_http.testing import Fault, RunningServer, running_server

from .conftest import Project

NEEDS = "needs sentry-sdk: pip install 'django-momento-http[integrations]'"
pytest.importorskip("sentry_sdk", reason=NEEDS)

TOKEN = "a-token-that-nobody-may-see"

PROGRAM = """
import json, os, sys
import django, sentry_sdk
from sentry_sdk.integrations.django import DjangoIntegration
from sentry_sdk.transport import Transport


class Collector(Transport):
    seen = []

    def capture_envelope(self, envelope):
        self.seen.extend(item.payload.json for item in envelope.items if item.payload.json)


sentry_sdk.init(
    dsn="http://key@127.0.0.1:9/1",
    transport=Collector,
    traces_sample_rate=1.0,
    integrations=[DjangoIntegration(cache_spans=True)],
)
django.setup()
from asgiref.sync import async_to_sync
from django.core.cache import cache

with sentry_sdk.start_transaction(name="page"):
    {use}
sentry_sdk.flush()
print(json.dumps(Collector.seen))
"""

SETTINGS = """
import json, os
SECRET_KEY = "for tests only"
CACHES = {"default": json.loads(os.environ["CACHE"])}
"""


def watch(project: Project, server: RunningServer, use: str, **options: Any) -> list[Any]:
    """Return what Sentry would have sent after a program that uses the cache so."""
    project.write("project_settings.py", SETTINGS)
    project.write("program.py", PROGRAM.replace("{use}", use))
    done = project.run(
        "program.py",
        DJANGO_SETTINGS_MODULE="project_settings",
        CACHE=json.dumps(server.cache_settings(**options)),
    )
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout
    sent: list[Any] = json.loads(done.stdout)
    return sent


def cache_spans(sent: list[Any]) -> list[dict[str, Any]]:
    """Return the spans of the cache, in order."""
    return [
        span for item in sent for span in item.get("spans", []) if span["op"].startswith("cache.")
    ]


def test_spans(project: Project, server: RunningServer) -> None:
    """Reads and writes have spans with the key in them, hits and misses apart; no others do."""
    use = """cache.set("name", 1)
    cache.get("name")
    cache.get("other")
    cache.get_many(["name", "other"])
    cache.set_many({"name": 2})
    cache.get_or_set("third", 3)
    cache.incr("name")
    async_to_sync(cache.aget)("name")"""
    sent = watch(project, server, use)
    spans = [
        (span["op"], span["data"]["cache.key"], span["data"].get("cache.hit"))
        for span in cache_spans(sent)
    ]
    assert spans == [
        ("cache.put", ["name"], None),
        ("cache.get", ["name"], True),
        ("cache.get", ["other"], False),
        ("cache.get", ["name", "other"], True),
        ("cache.put", ["name"], None),
    ]
    addresses = {span["data"]["network.peer.address"] for span in cache_spans(sent)}
    assert addresses == {"default-cache"}
    assert all(not span["op"].startswith("http") for item in sent for span in item["spans"])


@pytest.mark.parametrize(
    ("options", "status", "use", "expected"),
    [
        ({}, 403, 'cache.get("name")', "get on the Momento cache"),
        (
            {"ON_ERROR": "raise"},
            503,
            """try:
        cache.get("name")
    except Exception:
        sentry_sdk.capture_exception()""",
            "ServiceFailed",
        ),
    ],
)
def test_events_show_no_token(
    project: Project, options: dict[str, str], status: int, use: str, expected: str
) -> None:
    """An ERROR that we log and an error that we raise become events, without the token."""
    with running_server(token=TOKEN) as server:
        server.inject(Fault(status=status, times=None))
        sent = watch(project, server, use, **options)
    errors = [item for item in sent if item.get("level") == "error"]
    assert expected in json.dumps(errors[-1])
