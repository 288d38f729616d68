"""The goals, as data: which case is compared with which, and what is wanted.

It knows nothing of how the cases are made or measured.
"""

from dataclasses import dataclass
from typing import Literal

from harness import Measured, Spread

Kind = Literal["at most", "at least", "milliseconds", "microseconds"]
TIMES = "\N{MULTIPLICATION SIGN}"
_UNITS = {"milliseconds": 1e3, "microseconds": 1e6}
_SIGNS = {"milliseconds": "ms", "microseconds": "µs"}


@dataclass(frozen=True)
class Row:
    """One comparison; without a goal it is there to be known.

    "at most": subject / peer may be so much. "at least": the subject is so many times faster.
    "milliseconds", "microseconds": the subject may take so long.
    """

    slug: str
    what: str
    workload: str
    subject: str
    peer: str = ""
    measure: Literal["wall", "cpu"] = "wall"
    kind: Kind = "at most"
    goal: float | None = None

    def figure(self, measured: Measured) -> Spread | None:
        """Return what was measured, in the goal's unit; None where a case was left out."""
        if self.kind in _UNITS:
            return self._duration(measured)
        if not {self.subject, self.peer} <= measured.samples.keys():
            return None
        ratio = measured.ratio(self.subject, self.peer, self.measure)
        return ratio.inverse() if self.kind == "at least" else ratio

    def _duration(self, measured: Measured) -> Spread:
        values = measured.readings.get(self.subject)
        if values is None:
            samples = measured.samples[self.subject]
            values = [sample.wall for sample in samples if sample is not None]
        return Spread.of([value * _UNITS[self.kind] for value in values])

    def is_met(self, figure: Spread) -> bool | None:
        """Return whether the median meets the goal; None where there is no goal."""
        if self.goal is None:
            return None
        if self.kind == "at least":
            return figure.middle >= self.goal
        return figure.middle <= self.goal

    @property
    def goal_text(self) -> str:
        """The goal in words."""
        if self.goal is None:
            return "none"
        if self.kind in _UNITS:
            return f"≤ {self.goal:g} {self.unit}"
        return (
            f"≥ {self.goal:g} {TIMES} faster"
            if self.kind == "at least"
            else f"≤ {self.goal:g} {TIMES}"
        )

    @property
    def unit(self) -> str:
        """What the figure is counted in."""
        return _SIGNS.get(self.kind, f"{TIMES} faster" if self.kind == "at least" else TIMES)


GOALS = (
    Row(
        "get-memcached", "`cache.get` vs PyMemcacheCache", "single", "MomentoCache.get",
        "PyMemcacheCache.get", goal=1.2,
    ),
    Row(
        "set-memcached", "`cache.set` vs PyMemcacheCache", "single", "MomentoCache.set",
        "PyMemcacheCache.set", goal=1.2,
    ),
    Row(
        "get-redis", "`cache.get` vs RedisCache", "single", "MomentoCache.get",
        "RedisCache.get", goal=0.6,
    ),
    Row(
        "get-naive", "`cache.get` vs the same backend over a plain `requests.Session`", "single",
        "MomentoCache.get", "requests backend.get", kind="at least", goal=4,
    ),
    Row(
        "transport-wall", "GET through the transport vs raw socket, wall", "single",
        "transport GET", "raw socket GET", goal=1.5,
    ),
    Row(
        "transport-cpu", "GET through the transport vs raw socket, CPU", "single",
        "transport GET", "raw socket GET", "cpu", goal=2.2,
    ),
    Row(
        "transport-tls", "the same over TLS, wall", "tls", "transport GET", "raw socket GET",
        goal=1.4,
    ),
    Row(
        "many100-floor", "`get_many(100)` @ 2 ms vs selectors floor of 64 sockets", "many100",
        "MomentoCache.get_many", "selectors floor", goal=1.15,
    ),
    Row(
        "many100-threads", "`get_many(100)` @ 2 ms vs 32 threads over requests", "many100",
        "MomentoCache.get_many", "requests, 32 threads", kind="at least", goal=7,
    ),
    Row(
        "many100-memcached", "`get_many(100)` @ 0 ms vs PyMemcacheCache", "many100 at 0 ms",
        "MomentoCache.get_many", "PyMemcacheCache.get_many", goal=1.9,
    ),
    Row(
        "page-memcached", "a page of 27 cache calls, its session among them, vs PyMemcacheCache",
        "page", "MomentoCache, page", "PyMemcacheCache, page", goal=1.25,
    ),
    Row(
        "page-redis", "the same page vs RedisCache", "page", "MomentoCache, page",
        "RedisCache, page", goal=0.8,
    ),
    Row(
        "page-copies", "the same page with NEAR_MAX_AGE vs PyMemcacheCache", "page",
        "MomentoCache with copies, page", "PyMemcacheCache, page", goal=0.6,
    ),
    Row(
        "copy-get", "`cache.get` answered by a copy vs LocMemCache", "copies", "copies.get",
        "LocMemCache.get", goal=0.6,
    ),
    Row(
        "copy-many", "`get_many(100)` answered by copies vs LocMemCache", "copies",
        "copies.get_many", "LocMemCache.get_many", goal=0.5,
    ),
    Row(
        "many1000-floor", "`get_many(1000)` @ 2 ms vs selectors floor of 64 sockets", "many1000",
        "MomentoCache.get_many", "selectors floor", goal=1.15,
    ),
    Row(
        "aget1000-default", "1000 `aget` @ 2 ms vs Django's default over requests", "aget1000",
        "MomentoCache.aget", "Django's default aget", kind="at least", goal=40,
    ),
    Row(
        "aget1000-aiohttp", "1000 `aget` @ 2 ms vs aiohttp", "aget1000", "MomentoCache.aget",
        "aiohttp", goal=0.8,
    ),
    Row(
        "aget1000-held", "1000 `aget` @ 2 ms: longest that the event loop is held", "aget1000",
        "loop held", kind="milliseconds", goal=10,
    ),
    Row(
        "aget-many100", "`aget_many(100)` @ 2 ms vs Django's default over requests",
        "aget_many100", "MomentoCache.aget_many", "Django's default aget_many",
        kind="at least", goal=35,
    ),
    Row(
        "threads8", "8 threads @ 2 ms, gets per second vs the same backend over requests",
        "threads8", "MomentoCache.get", "requests backend.get", kind="at least", goal=2.8,
    ),
    Row(
        "big", "get of 1 MB through the transport vs urllib3", "big", "transport GET",
        "urllib3 GET", goal=0.8,
    ),
    Row(
        "instance", "new backend instance", "instance", "MomentoCache()", kind="microseconds",
        goal=20,
    ),
)  # fmt: skip

FOR_INFORMATION = (
    Row(
        "page-local", "the page vs LocMemCache", "page", "MomentoCache, page", "LocMemCache, page",
    ),
    Row(
        "big-cache", "`cache.get` of 1 MB, verified and unpickled, vs urllib3's bytes alone", "big",
        "MomentoCache.get", "urllib3 GET",
    ),
    Row(
        "near-transport", "server on the client's core: transport vs raw socket, wall", "near",
        "transport GET", "raw socket GET",
    ),
    Row(
        "near-memcached", "server on the client's core: `cache.get` vs PyMemcacheCache", "near",
        "MomentoCache.get", "PyMemcacheCache.get",
    ),
    Row(
        "urllib3-wall", "urllib3 vs raw socket, wall", "single", "urllib3 GET", "raw socket GET"
    ),
    Row(
        "requests-wall", "requests vs raw socket, wall", "single", "requests GET",
        "raw socket GET",
    ),
    Row(
        "many100-transport", "100 GETs through the transport @ 2 ms vs selectors floor", "many100",
        "transport GETs", "selectors floor",
    ),
    Row(
        "many1000-transport", "1000 GETs through the transport @ 2 ms vs selectors floor",
        "many1000", "transport GETs", "selectors floor",
    ),
    Row(
        "aget1000-empty", "longest that 1000 tasks which do nothing hold the event loop",
        "aget1000", "loop held by empty tasks", kind="milliseconds",
    ),
    Row(
        "sdk-cpu", "client CPU of `cache.get` vs Momento's own SDK", "single", "MomentoCache.get",
        "Momento SDK get", "cpu",
    ),
)  # fmt: skip

ALL = GOALS + FOR_INFORMATION
