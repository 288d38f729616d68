"""What real values cost to keep: ``python benchmarks/costs.py`` writes ``costs.md``.

Pages that Django renders, data and a file are set and got through the backend, against the local
server; what is billed is what ``stats()`` says, and CPU is the calling thread's. It knows no price.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import django
import machine
from django.conf import settings
from django.contrib import admin
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.core.management import call_command
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.test import RequestFactory
from django.urls import path, resolve
from django.views.debug import technical_404_response

from django_momento_http.cache import MomentoCache
from django_momento_http.testing import running_server

_REPEATS = 40
_COMPRESSORS = {"none": None, "zlib": "zlib", "zstd": "zstd"}
_INTRODUCTION = f"""# What real values cost

Written by `python benchmarks/costs.py`; do not edit. Billed are the operations of one `get`, and as
many of one `set`, as `stats()` estimates them; CPU is the calling thread's, a median of {_REPEATS}.
"""

urlpatterns: list[Any] = []


@dataclass(frozen=True)
class Cost:
    """What one value costs with one compressor; ``kib`` as it travels, envelope included."""

    kib: float
    billed: int
    set_ms: float
    get_ms: float


# What is stored


def _prepare() -> None:
    """Make Django usable, with an admin and its users in memory."""
    names = ("admin", "auth", "contenttypes", "messages", "sessions")
    processors = [
        "django.template.context_processors.request",
        "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ]
    settings.configure(
        SECRET_KEY="costs",
        DEBUG=True,
        ALLOWED_HOSTS=["testserver"],
        ROOT_URLCONF=__name__,
        STATIC_URL="static/",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        INSTALLED_APPS=[f"django.contrib.{name}" for name in names],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {"context_processors": processors},
            }
        ],
    )
    django.setup()
    urlpatterns.append(path("admin/", admin.site.urls))
    call_command("migrate", verbosity=0)
    get_user_model().objects.bulk_create(_user(number) for number in range(500))


def _user(number: int) -> Any:
    chance = random.Random(number)
    first, last, host = (
        "".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=8)) for _ in range(3)
    )
    return get_user_model()(
        username=f"{first}{number}",
        first_name=first.title(),
        last_name=last.title(),
        email=f"{first}.{last}@{host}.example",
        is_superuser=number == 0,
        is_staff=number % 10 == 0,
    )


def _request(url: str) -> HttpRequest:
    request = RequestFactory().get(url)
    request.user = get_user_model().objects.get(is_superuser=True)
    return request


def _admin(url: str) -> HttpResponse:
    """Return what the admin answers, rendered, as the cache middleware would store it."""
    match = resolve(url)
    return match.func(_request(url), *match.args, **match.kwargs).render()


def _api() -> HttpResponse:
    return JsonResponse(_rows()[:200], safe=False)


def _rows() -> list[dict[str, Any]]:
    fields = ("id", "username", "first_name", "last_name", "email", "is_staff", "date_joined")
    return list(get_user_model().objects.values(*fields))


def _session() -> dict[str, Any]:
    return {
        SESSION_KEY: "1",
        BACKEND_SESSION_KEY: "django.contrib.auth.backends.ModelBackend",
        HASH_SESSION_KEY: random.Random(1).randbytes(32).hex(),
        "basket": [{"product": number, "count": 1} for number in range(5)],
    }


_VALUES: dict[str, Callable[[], Any]] = {
    "a number": lambda: 42,
    "session, signed in, with a basket": _session,
    "HTML: Django's technical 404": lambda: technical_404_response(_request("/no"), Http404()),
    "HTML: admin's form of one user": lambda: _admin("/admin/auth/user/1/change/"),
    "HTML: admin's list of 100 users": lambda: _admin("/admin/auth/user/"),
    "JSON: list of 200 users": _api,
    "pickle: 500 rows as dictionaries": _rows,
    "pickle: 500 model instances": lambda: list(get_user_model().objects.all()),
    "a picture: 40 kB that do not compress": lambda: random.Random(1).randbytes(40_000),
}


# What it costs


@contextmanager
def _caches() -> Iterator[list[MomentoCache]]:
    """Give a backend for each compressor."""
    with running_server() as server:
        # No clear marker: its reads would be billed among the others.
        entries = [
            server.cache_settings(COMPRESSOR=compressor, CLEAR_MAX_AGE=None, ON_ERROR="raise")
            for compressor in _COMPRESSORS.values()
        ]
        yield [MomentoCache(entry["LOCATION"], entry) for entry in entries]


def _cost(cache: MomentoCache, value: Any) -> Cost:
    before: Any = cache.stats()
    sets = [_milliseconds(lambda: cache.set("value", value)) for _ in range(_REPEATS)]
    between: Any = cache.stats()
    gets = [_milliseconds(lambda: cache.get("value")) for _ in range(_REPEATS)]
    after: Any = cache.stats()
    if after["hits"] - between["hits"] != _REPEATS:
        raise RuntimeError("a get was a miss, which would look cheap")
    billed = (after["billed_operations"] - between["billed_operations"]) // _REPEATS
    if between["billed_operations"] - before["billed_operations"] != billed * _REPEATS:
        raise RuntimeError("a set bills otherwise than a get")
    size = (after["bytes_in"] - between["bytes_in"]) // _REPEATS
    return Cost(size / 1024, billed, median(sets), median(gets))


def _milliseconds(call: Callable[[], object]) -> float:
    """Return the CPU time of this thread; the server has a thread of its own."""
    began = time.thread_time()
    call()
    return (time.thread_time() - began) * 1000


def _measure() -> dict[str, list[Cost]]:
    costs = {}
    with _caches() as caches:
        for number, (name, make) in enumerate(_VALUES.items(), 1):
            print(f"{number} of {len(_VALUES)}  {name}", file=sys.stderr, flush=True)
            value = make()
            costs[name] = [_cost(cache, value) for cache in caches]
    return costs


def _markdown(costs: dict[str, list[Cost]]) -> str:
    lines = [
        ["value", "KiB", *_heads("billed"), *_heads("set, ms"), *_heads("get, ms")],
        ["---", *["--:"] * (1 + 3 * len(_COMPRESSORS))],
    ]
    for name, found in costs.items():
        sizes = [f"{found[0].kib:.1f}", *(f"{cost.billed}" for cost in found)]
        sets = [f"{cost.set_ms:.2f}" for cost in found]
        gets = [f"{cost.get_ms:.2f}" for cost in found]
        lines.append([name, *sizes, *sets, *gets])
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    conditions = "".join(f"- {name}: {what}\n" for name, what in machine.description().items())
    return f"{_INTRODUCTION}\n{table}\n{conditions}"


def _heads(what: str) -> list[str]:
    first, *others = _COMPRESSORS
    return [f"{what}: {first}", *others]


def main() -> None:
    """Measure, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent, metavar="DIR", help="where it goes"
    )
    arguments = parser.parse_args()
    _prepare()
    text = _markdown(_measure())
    print(text)
    (arguments.out / "costs.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
