"""The pages: each one shows another way to use the cache.

They know requests and templates; keys and what is kept under them are in `catalogue`.
"""

import os
from functools import partial

from django.conf import settings
from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.cache import cache_page, never_cache

from lighthouses import catalogue, counters
from lighthouses.forms import LighthouseForm
from lighthouses.models import Lighthouse

RECENT = 5
REFRESH = 5  # seconds between two looks at the counters


def all_lights(request: HttpRequest) -> HttpResponse:
    """List every lighthouse: get_many and set_many, and a template fragment beside the list."""
    rows = catalogue.rows(list(Lighthouse.objects.values_list("pk", flat=True)))
    # The records are not worked out unless the template's fragment is missing from the cache.
    context = {"rows": rows, "records": partial(catalogue.records, rows)}
    return render(request, "lighthouses/all.html", context)


def one_light(request: HttpRequest, slug: str) -> HttpResponse:
    """Show one lighthouse: get_or_set, and a session that remembers the visit."""
    light = get_object_or_404(Lighthouse, slug=slug)
    seen = [pk for pk in request.session.get("seen", []) if pk != light.pk]
    request.session["seen"] = [light.pk, *seen][:RECENT]
    request.session["visits"] = request.session.get("visits", 0) + 1
    context = {
        "row": catalogue.page_of(light),
        "seen": Lighthouse.objects.filter(pk__in=seen),
    }
    return render(request, "lighthouses/light.html", context)


def edit_light(request: HttpRequest, slug: str) -> HttpResponse:
    """Change one lighthouse, and make the cache forget what showed the old one."""
    light = get_object_or_404(Lighthouse, slug=slug)
    form = LighthouseForm(request.POST or None, instance=light)
    if form.is_valid():
        with transaction.atomic():
            form.save()
            # After the commit: a reader in between would put the old row back into the cache.
            transaction.on_commit(partial(catalogue.forget, light))
        messages.success(request, f"Saved. What the cache held about {light.name} is forgotten.")
        return redirect(light)
    return render(request, "lighthouses/edit.html", {"form": form, "light": light})


@never_cache  # the browser's copy: it must ask each time, or an edit would not show at once
def tonight(request: HttpRequest) -> HttpResponse:
    """Order all lighthouses by this night's length: cache_page keeps the finished page."""
    kept = cache_page(15 * 60, key_prefix=f"tonight-{catalogue.generation()}")
    return kept(_tonight)(request)


def _tonight(request: HttpRequest) -> HttpResponse:
    # The page is one for all visitors: it must not look at the session.
    now = timezone.now()
    nights = catalogue.tonight(now.timetuple().tm_yday - 1)
    return render(request, "lighthouses/tonight.html", {"nights": nights, "now": now})


async def pole_to_pole(request: HttpRequest) -> HttpResponse:
    """Show every fifth lighthouse from north to south: an async view with aget_many."""
    pks = [pk async for pk in Lighthouse.objects.values_list("pk", flat=True)]
    rows = await catalogue.arows(pks[::5])
    return render(request, "lighthouses/pole_to_pole.html", {"rows": rows})


@never_cache
def live_counters(request: HttpRequest) -> HttpResponse:
    """Show what each cache did in this process: stats(), which sends no request."""
    context = {
        "panels": counters.panels(),
        "process": os.getpid(),
        "now": timezone.now(),
        "refresh": REFRESH,
        "cache_shown": settings.CACHE_SHOWN,
        "is_held": "hold" in request.GET,
    }
    return render(request, "lighthouses/counters.html", context)
