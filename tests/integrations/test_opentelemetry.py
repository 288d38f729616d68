"""OpenTelemetry's instrumentation of `requests`, which sees our single requests."""

import base64
import time
from collections.abc import Callable, Iterator

import pytest
from django.core.cache import cache

from django_momento_http._client.client import MomentoClient, forget_endpoint
from django_momento_http._client.operation import Operation
from django_momento_http._conf.options import read_options
from django_momento_http.testing import RunningServer, running_server
from tests.support.scripted import Peer, answer, response, scripted

NEEDS = "needs opentelemetry: pip install 'django-momento-http[integrations]'"
pytest.importorskip("opentelemetry.instrumentation.requests", reason=NEEDS)

from opentelemetry.instrumentation.requests import RequestsInstrumentor  # noqa: E402
from opentelemetry.sdk.metrics import MeterProvider  # noqa: E402
from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: E402
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (  # noqa: E402
    InMemorySpanExporter,
)

TOKEN = "a-token-that-nobody-may-see"
KEY = "a-key-that-nobody-may-see"
VALUE = "a-value-that-nobody-may-see"
HEADERS = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_REQUEST"


class Telemetry:
    """What was recorded."""

    def __init__(self, exporter: InMemorySpanExporter, reader: InMemoryMetricReader) -> None:
        self._exporter = exporter
        self._reader = reader

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """The spans that have ended."""
        return self._exporter.get_finished_spans()

    def text(self) -> str:
        """Everything about spans and metrics as one text."""
        metrics = self._reader.get_metrics_data()
        return "".join(span.to_json() for span in self.spans) + (
            metrics.to_json() if metrics else ""
        )


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """Spans and metrics of `requests`, with whatever request headers are to be captured."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider([reader])
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = RequestsInstrumentor()
    instrumentor.instrument(tracer_provider=tracers, meter_provider=meters)
    yield Telemetry(exporter, reader)
    instrumentor.uninstrument()
    tracers.shutdown()
    meters.shutdown()


@pytest.fixture
def secretive() -> Iterator[RunningServer]:
    """The default cache, whose token is known to no other test."""
    with running_server(token=TOKEN) as server, server.override_settings(CLEAR_MAX_AGE=None):
        yield server


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        (lambda: cache.get(KEY), [("GET", 404)]),
        (lambda: cache.set(KEY, VALUE), [("PUT", 204)]),
        (lambda: cache.add(KEY, VALUE), [("GET", 404), ("PUT", 204)]),
        (lambda: cache.get_many([KEY, "other"]), []),
        (lambda: cache.set_many({KEY: VALUE, "other": VALUE}), []),
    ],
)
def test_single_requests_have_spans(
    secretive: RunningServer,
    telemetry: Telemetry,
    use: Callable[[], object],
    expected: list[tuple[str, int]],
) -> None:
    """Each request that goes alone has a span; those that are under way at once have none."""
    use()
    spans = [(span.name, span.attributes["http.status_code"]) for span in telemetry.spans]
    assert spans == expected
    urls = {span.attributes["http.url"] for span in telemetry.spans}
    assert urls <= {f"{secretive.endpoint}/cache/default-cache"}


def test_nothing_secret_is_recorded(
    secretive: RunningServer, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token, key and value are in no attribute, even where all headers are captured."""
    monkeypatch.setenv(HEADERS, ".*")
    telemetry: Telemetry = request.getfixturevalue("telemetry")
    cache.set(KEY, VALUE)
    assert cache.get(KEY) == VALUE
    cache.delete(KEY)
    text = telemetry.text()
    assert "http.url" in text
    for secret in (TOKEN, KEY, VALUE):
        assert secret not in text
        assert base64.urlsafe_b64encode(secret.encode()).decode()[4:-4] not in text


def test_a_hedged_read_is_one_span(telemetry: Telemetry) -> None:
    """Asked twice it is one request to whoever traces: one span, and both carry its number."""

    def lose(peer: Peer) -> None:
        peer.request()
        peer.wait_until_left()

    with scripted(lose, answer(response(200))) as server:
        given = {"ENDPOINT": server.endpoint, "TOKEN": TOKEN, "REQUEST_TIMEOUT": 5.0}
        client = MomentoClient(read_options("default-cache", given, {}))
        client._endpoint.retries.earn()  # what one second request needs
        found = client.run(Operation.get("a2V5"), client.deadline(1, time.monotonic()))
        forget_endpoint(server.endpoint)
        assert found == b"value"
        [span] = telemetry.spans
        assert span.context is not None
        told = [received.headers["traceparent"] for received in server.received]
        assert len(told) == 2
        assert told[0] == told[1]
        assert f"-{span.context.trace_id:032x}-{span.context.span_id:016x}-" in f"-{told[0]}-"
