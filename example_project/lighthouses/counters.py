"""What the page of counters shows of each cache: what `stats()` says, and how long calls took.

It asks caches for their counts and never for a value, so it answers in any outage. It knows
nothing of requests or templates.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.core.cache import caches

from lighthouses import latency, savings

Row = tuple[str, str, str]

NONE_YET = "none yet"
HIT_RATIO = "hit ratio"
MEANINGS = {
    "requests": "sent to the service",
    "hits": "keys that were found",
    "misses": "keys that were not there, or could not be asked for",
    HIT_RATIO: "hits among hits and misses",
    "sets": "values stored",
    "deletes": "keys removed",
    "errors": "requests that failed or were not sent, by kind",
    "retries": "requests sent a second time",
    "bytes_in": "of values received",
    "bytes_out": "of values sent",
    "billed_operations": "an estimate: one per started KiB, at least one per request",
    "owed": "writes that failed: until they are paid, older values count as absent",
    "paid": "writes that were owed: what they left behind is gone",
    "near_hits": "reads that copies in this process answered: a request saved each",
    "near_entries": "copies held now",
    "near_bytes": "of memory that they take",
    "near_evictions": "copies that made room for others",
    "near_stale": "answers of copies beyond their age, while the service was away",
    "hedges": "slow reads that were asked again on another connection",
    "hedges_won": "of those, the second answer came first",
    "refreshes": "values made anew before they expired",
    "waited": "callers that waited for another who made the value",
    "breaker": "closed: requests are sent; open: none is, the answer comes at once",
    "breaker_openings": "how often the breaker opened",
}


@dataclass(frozen=True)
class Panel:
    """One alias of CACHES, as this process has used it."""

    alias: str
    backend: str
    location: str
    stats: dict[str, Any]
    calls: list[latency.Call]
    samples: list[savings.Sample]
    max_age: float  # seconds for which a copy in the process answers

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What to see first."""
        every = self.overall
        return [
            ("Hit ratio", self.hit_ratio),
            ("Median (p50)", latency.duration(every.p50) if every else NONE_YET),
            ("95 % within (p95)", latency.duration(every.p95) if every else NONE_YET),
            ("Errors", f"{sum(self.stats['errors'].values()):,}"),
            ("Requests sent", f"{self.stats['requests']:,}"),
            ("Saved by copies", f"{self.stats['near_hits']:,}"),
            ("Copies held", f"{self.stats['near_entries']:,}"),
            ("Billed operations", f"{self.stats['billed_operations']:,}"),
        ]

    @property
    def hit_ratio(self) -> str:
        asked = self.stats["hits"] + self.stats["misses"]
        return f"{self.stats['hits'] / asked:.1%}" if asked else NONE_YET

    @property
    def rows(self) -> list[Row]:
        return [(name, shown, MEANINGS.get(name, "")) for name, shown in self._shown()]

    @property
    def plot(self) -> latency.Plot:
        return latency.plot(self.calls)

    @property
    def savings(self) -> savings.Plot:
        return savings.plot(self.samples)

    @property
    def overall(self) -> latency.Summary | None:
        return latency.summary("all", self.calls) if self.calls else None

    @property
    def summaries(self) -> list[latency.Summary]:
        return latency.summaries(self.calls)

    def _shown(self) -> Iterator[tuple[str, str]]:
        for name, value in self.stats.items():
            if isinstance(value, dict):
                yield name, f"{sum(value.values()):,}"
                yield from ((f"{name}: {kind}", f"{count:,}") for kind, count in value.items())
            else:
                yield name, f"{value:,}" if isinstance(value, int) else str(value)
            if name == "misses":
                yield HIT_RATIO, self.hit_ratio


def panels() -> list[Panel]:
    """Look at every alias whose backend counts."""
    return [_panel(alias) for alias in settings.CACHES if hasattr(caches[alias], "stats")]


def _panel(alias: str) -> Panel:
    cache, entry = caches[alias], settings.CACHES[alias]
    recorded = getattr(cache, "recent", None)  # only this site's own backends keep a record
    return Panel(
        alias,
        entry["BACKEND"],
        entry.get("LOCATION", ""),
        cache.stats(),
        recorded.calls() if recorded else [],
        recorded.samples() if recorded else [savings.Sample(0, 0)],
        entry.get("OPTIONS", {}).get("NEAR_MAX_AGE", 0),
    )
