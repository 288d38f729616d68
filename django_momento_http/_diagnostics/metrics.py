"""``stats()`` as OpenTelemetry metrics: counters and gauges that are read when somebody asks.

Names, units and attributes follow OpenTelemetry's semantic conventions where there are some. It is
imported only where ``opentelemetry-api`` is, builds no backend and sends nothing.
"""

import atexit
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import TypeAlias, TypeVar

from opentelemetry.metrics import CallbackOptions, Meter, Observation, get_meter

from .. import __version__
from .._client.client import MomentoClient, clients
from .._conf.options import Options
from .._interrupts import is_raised_by_signal_handler
from .._redaction import EmptiedFrames, shown_name
from .._store.log_limiter import LogLimiter
from .aliases import names_by_options

logger = logging.getLogger("django_momento_http")

T = TypeVar("T")
Attributes: TypeAlias = dict[str, str]

# Ours are in "momento" and "django"; the others are in OpenTelemetry's registry of attributes.
ALIAS = "django.cache.alias"
CACHE = "db.namespace"
DIRECTION = "network.io.direction"
ERROR = "error.type"
OPERATION = "db.operation.name"
RESULT = "momento.result"
STATE = "momento.breaker.state"

BREAKER_STATES = ("closed", "open", "half-open")

_limiter = LogLimiter()
# At exit the clients are put away, before or after a provider is read for the last time.
_last: list[tuple[Options, MomentoClient]] = []


@dataclass(frozen=True)
class Instrument:
    """One instrument: the counters of ``stats()`` that it shows, and what tells them apart."""

    name: str
    unit: str  # UCUM: braces hold what is counted, in the singular
    description: str
    stats: Mapping[str, Attributes]
    is_gauge: bool = False


def _of_one(stat: str, name: str, unit: str, description: str) -> Instrument:
    return Instrument(f"momento.client.{name}", unit, description, {stat: {}})


def _gauge(stat: str, name: str, unit: str, description: str) -> Instrument:
    return Instrument(f"momento.client.{name}", unit, description, {stat: {}}, is_gauge=True)


INSTRUMENTS = (
    _of_one("requests", "requests", "{request}", "Requests sent to the service."),
    Instrument(
        "momento.client.operations",
        "{operation}",
        "What callers were given: reads that hit or missed, values stored, keys removed.",
        {
            "hits": {OPERATION: "get", RESULT: "hit"},
            "misses": {OPERATION: "get", RESULT: "miss"},
            "sets": {OPERATION: "set"},
            "deletes": {OPERATION: "delete"},
        },
    ),
    _of_one("errors", "errors", "{error}", "Requests that failed or were not sent, by kind."),
    _of_one("retries", "retries", "{request}", "Requests sent a second time after an error."),
    _of_one("hedges", "hedges", "{request}", "Requests sent a second time beside a slow one."),
    _of_one("hedges_won", "hedges_won", "{request}", "Those of them that were answered first."),
    Instrument(
        "momento.client.io",
        "By",
        "Bytes of values moved.",
        {"bytes_in": {DIRECTION: "receive"}, "bytes_out": {DIRECTION: "transmit"}},
    ),
    _of_one(
        "billed_operations",
        "billed_operations",
        "{operation}",
        "An estimate: one per started KiB of item moved, at least one per request.",
    ),
    _of_one("near_hits", "near.hits", "{hit}", "Reads answered from the process's own copies."),
    _of_one("near_stale", "near.stale_hits", "{hit}", "Those of them past NEAR_MAX_AGE."),
    _of_one("near_evictions", "near.evictions", "{copy}", "Copies that made room for others."),
    _gauge("near_entries", "near.entries", "{copy}", "Copies that the process holds."),
    _gauge("near_bytes", "near.size", "By", "Memory that these copies take."),
    _of_one("refreshes", "refreshes", "{refresh}", "Values made anew before they expired."),
    _of_one("waited", "waits", "{wait}", "Callers that waited for another one's value."),
    _gauge("owed", "writes.owed", "{write}", "Writes that failed and are to be made good."),
    _of_one("paid", "writes.paid", "{write}", "Writes that failed and were made good."),
    _gauge("breaker", "breaker.state", "{breaker}", "1 in the present state, 0 in the others."),
    _of_one("breaker_openings", "breaker.openings", "{opening}", "How often it opened."),
)


@cache
def register() -> None:
    """Hand the instruments to the provider of this process, which may be set up later.

    OpenTelemetry makes them real when a provider is set, also in a process forked since.
    """
    create_instruments(get_meter("django_momento_http", __version__))
    atexit.register(lambda: _last.extend(clients()))


def create_instruments(meter: Meter) -> None:
    """Create all instruments with a meter."""
    for instrument in INSTRUMENTS:
        create = (
            meter.create_observable_gauge
            if instrument.is_gauge
            else meter.create_observable_counter
        )
        create(
            instrument.name,
            [partial(observe, instrument)],
            unit=instrument.unit,
            description=instrument.description,
        )


def observe(instrument: Instrument, _: CallbackOptions) -> list[Observation]:
    """Return what an instrument shows of this process now; what fails is left out."""
    totals = _or_none(partial(_totals, instrument)) or {}
    return [Observation(value, dict(attributes)) for attributes, value in totals.items()]


def _totals(instrument: Instrument) -> dict[tuple[tuple[str, str], ...], float]:
    totals: dict[tuple[tuple[str, str], ...], float] = {}
    for own, stats in _series():
        for stat, attributes in instrument.stats.items():
            for further, value in _points(stats.get(stat)):
                # Clients that no alias tells apart are one series.
                key = tuple(sorted((own | attributes | further).items()))
                totals[key] = totals.get(key, 0) + value
    return totals


def _series() -> Iterator[tuple[Attributes, Mapping[str, object]]]:
    """Yield the counters of each client of this process, and the attributes that name it."""
    aliases = _or_none(names_by_options) or {}
    for options, client in dict([*_last, *clients()]).items():
        names = aliases.get(options)
        own = {ALIAS: ",".join(map(shown_name, names))} if names else {}
        yield {CACHE: options.shown_location, **own}, _or_none(client.stats) or {}


def _points(value: object) -> Iterator[tuple[Attributes, float]]:
    """Yield the numbers that one counter is: by kind of error, by state, or itself."""
    if isinstance(value, Mapping):
        yield from (({ERROR: str(kind)}, count) for kind, count in value.items())
    elif isinstance(value, str):
        yield from (({STATE: state}, state == value) for state in BREAKER_STATES)
    elif isinstance(value, int | float):
        yield {}, value


def _or_none(read: Callable[[], T]) -> T | None:
    """Return what is read, or None after a line in the log: a metric is worth no exception."""
    try:
        with EmptiedFrames():  # whatever it is, no frame that it leaves holds OPTIONS
            return read()
    except Exception as error:
        if is_raised_by_signal_handler(error):
            raise
        kind = type(error).__name__
    if _limiter.allow("metrics", kind) is not None:
        logger.warning("The metrics of the Momento caches are incomplete (%s)", kind)
    return None
