"""What the site keeps in the cache, under which keys, and what an edit makes it forget.

Views ask here for finished rows and do not know keys; nothing here knows requests or templates.
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import Any

from django.core.cache import cache
from django.core.cache.utils import make_template_fragment_key

from lighthouses.almanac import night_hours, nights_of_year
from lighthouses.models import Lighthouse
from lighthouses.recording import computed

Row = dict[str, Any]

RECORDS = "records"  # the name of the template fragment in all.html
GENERATION = "tonight-generation"

# How finely the sun is followed, in steps a day: what makes the pages slow.
EVERY_THREE_MINUTES = 24 * 20
EVERY_MINUTE = 24 * 60
EVERY_TWO_SECONDS = 24 * 60 * 30


def rows(pks: list[int]) -> list[Row]:
    """Give the rows of these lighthouses, computing those that the cache does not have."""
    keys = {pk: _row_key(pk) for pk in pks}
    found = cache.get_many(keys.values())
    missing = [pk for pk, key in keys.items() if key not in found]
    fresh = {keys[light.pk]: _row(light) for light in Lighthouse.objects.filter(pk__in=missing)}
    if fresh:
        cache.set_many(fresh)
    return _in_order(keys, found | fresh)


async def arows(pks: list[int]) -> list[Row]:
    """Do what `rows` does, without holding up the event loop."""
    keys = {pk: _row_key(pk) for pk in pks}
    found = await cache.aget_many(keys.values())
    missing = [pk for pk, key in keys.items() if key not in found]
    fresh = {
        keys[light.pk]: await asyncio.to_thread(_row, light)
        async for light in Lighthouse.objects.filter(pk__in=missing)
    }
    if fresh:
        await cache.aset_many(fresh)
    return _in_order(keys, found | fresh)


def page_of(light: Lighthouse) -> Row:
    """Give one lighthouse's year, day by day, from the cache or computed now."""
    return cache.get_or_set(_page_key(light.pk), partial(_row, light, EVERY_MINUTE))


def tonight(day: int) -> list[tuple[Lighthouse, float]]:
    """Compute all lighthouses' hours of darkness on one day of the year, longest first."""
    nights = []
    for light in Lighthouse.objects.all():
        computed()
        hours = night_hours(light.latitude, light.dusk_angle, day, EVERY_TWO_SECONDS)
        nights.append((light, hours))
    return sorted(nights, key=lambda night: -night[1])


def records(rows: list[Row]) -> list[tuple[str, Row, float]]:
    """Pick the extremes of these rows."""
    return [
        ("Longest night", *_best(rows, "longest", max)),
        ("Shortest night", *_best(rows, "shortest", min)),
        ("Most lamp hours a year", *_best(rows, "hours", max)),
        ("Fewest lamp hours a year", *_best(rows, "hours", min)),
    ]


def generation() -> int:
    """Give the number that stands in the keys of pages kept by cache_page."""
    return cache.get_or_set(GENERATION, time.time_ns, timeout=None)


def forget(light: Lighthouse) -> None:
    """Forget everything that shows this lighthouse; call it after the change is committed."""
    fragment = make_template_fragment_key(RECORDS)
    cache.delete_many([_row_key(light.pk), _page_key(light.pk), fragment])
    # cache_page hashes the address into its keys, and one page has several: they cannot well be
    # deleted by name. A new generation leaves them behind instead, to expire by themselves. It is
    # the time and not a count, because a count that is lost and begins again at 1 would find old
    # pages; and because set() needs no answer, it is right even if two edits meet.
    cache.set(GENERATION, time.time_ns(), timeout=None)


def _row_key(pk: int) -> str:
    return f"row:{pk}"


def _page_key(pk: int) -> str:
    return f"page:{pk}"


def _best(rows: list[Row], name: str, choose: Callable) -> tuple[Row, float]:
    best = choose(rows, key=itemgetter(name))
    return best, best[name]


def _in_order(keys: dict[int, str], values: dict[str, Row]) -> list[Row]:
    return [values[key] for key in keys.values() if key in values]


def _row(light: Lighthouse, steps: int = EVERY_THREE_MINUTES) -> Row:
    """Compute what the pages show of one lighthouse; this is the slow work."""
    computed()
    nights = nights_of_year(light.latitude, light.dusk_angle, steps)
    return {
        "name": light.name,
        "slug": light.slug,
        "country": light.country,
        "latitude": light.latitude,
        "longitude": light.longitude,
        "first_lit": light.first_lit,
        "dusk_angle": light.dusk_angle,
        "note": light.note,
        "nights": nights[::5],
        "hours": sum(nights),
        "longest": max(nights),
        "shortest": min(nights),
    }
