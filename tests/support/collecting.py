"""Who metrics are sent to, or fetched by: a collector of OTLP, and a reader as Prometheus is one.

It knows the formats, by the libraries of OpenTelemetry and Prometheus, and nothing of caches but
the names of a few metrics.
"""

import socket
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

_LONGEST_WAIT = 20.0

_USE_AND_READ = """
import sys
import urllib.request

from django.core.cache import cache

cache.get("a")
cache.set("a", 1)
cache.get("a")
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
with opener.open(f"http://127.0.0.1:{sys.argv[1]}/metrics") as answer:
    print(answer.read().decode())
"""


class Collector:
    """Takes OTLP over HTTP in a thread of its own and keeps what was sent."""

    def __init__(self) -> None:
        self._bodies: list[bytes] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.address = f"http://127.0.0.1:{self._server.server_port}/v1/metrics"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(_LONGEST_WAIT)
        self._server.server_close()

    def hits(self, service: str) -> Counter[str]:
        """Return how many hits each instance of a service reported at last."""
        from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2

        hits: Counter[str] = Counter()
        for body in self._bodies:
            report = metrics_service_pb2.ExportMetricsServiceRequest.FromString(body)
            for resource in report.resource_metrics:
                names = _attributes(resource.resource)
                assert names["service.name"] == service
                hits[names["service.instance.id"]] = sum(
                    point.as_int
                    for scope in resource.scope_metrics
                    for metric in scope.metrics
                    for point in metric.sum.data_points
                    if _attributes(point).get("momento.result") == "hit"
                )
        return hits

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        bodies = self._bodies

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


def _attributes(bearer: Any) -> dict[str, str]:
    return {each.key: each.value.string_value for each in bearer.attributes}


def scraped_program(block: str, entry: dict[str, Any]) -> tuple[str, str, str]:
    """Return a program that runs a block, uses the cache and prints what is scraped of it.

    Beside it, the settings that it needs, and the port that it is to be given.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    program = f"import django\ndjango.setup()\n{block.replace('9464', port)}{_USE_AND_READ}"
    settings = (
        "SECRET_KEY = 'x'\nINSTALLED_APPS = ['django_momento_http']\n"
        f"CACHES = {{'default': {entry!r}}}\n"
    )
    return program, settings, port


def names_and_labels(exposition: str) -> set[str]:
    """Return the names of all series, alone and with each one of their labels."""
    from prometheus_client.parser import text_string_to_metric_families

    found: set[str] = set()
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            found.add(sample.name)
            found |= {f'{sample.name}{{{key}="{value}"}}' for key, value in sample.labels.items()}
    return found
