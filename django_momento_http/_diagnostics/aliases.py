"""The aliases of CACHES that are ours, as the system checks and the command see them.

It knows how settings name them and what they were built from, and judges nothing.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from typing import cast

from django.conf import settings
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from .._conf.options import Options, read_options
from .._conf.rules import RULES
from ..cache import MomentoCache


@dataclass(frozen=True)
class Alias:
    """One alias whose backend could be built."""

    name: str
    options: Options
    key_prefix: str
    timeout: float | None

    @property
    def given_token(self) -> object:
        """TOKEN as it stands in the settings, None where it does not."""
        given = settings.CACHES[self.name].get("OPTIONS", {})
        return next((value for option, value in given.items() if option.upper() == "TOKEN"), None)


def is_ours(name: str) -> bool:
    """Whether an alias of CACHES has MomentoCache or a subclass of it for its backend."""
    backend = _backend(name)
    return isinstance(backend, type) and issubclass(backend, MomentoCache)


def shown_backend(name: str) -> str:
    """Return the BACKEND of an alias, if there is such: anything else may be a credential."""
    if _backend(name) is None:
        return "one that cannot be imported"
    return str(settings.CACHES[name]["BACKEND"])


def _backend(name: str) -> object:
    try:
        return import_string(settings.CACHES[name].get("BACKEND", ""))
    except ImportError:
        return None


def build(name: str) -> MomentoCache:
    """Return a new backend of an alias that is ours; ImproperlyConfigured says what is wrong."""
    return cast("MomentoCache", caches.create_connection(name))


def names_by_options() -> dict[Options, list[str]]:
    """Return which aliases that are ours share which options; no backend is built for it."""
    found: dict[Options, list[str]] = {}
    for name in filter(is_ours, settings.CACHES):
        with suppress(ImproperlyConfigured):
            found.setdefault(_options(name), []).append(name)
    return found


def _options(name: str) -> Options:
    entry = settings.CACHES[name]
    return read_options(entry.get("LOCATION", ""), entry.get("OPTIONS", {}))


def misplaced() -> Iterator[tuple[str, str]]:
    """Yield alias and name of what nobody reads: our options beside OPTIONS, OPTIONS misspelt."""
    names = {rule.name for rule in RULES}
    for alias in filter(is_ours, settings.CACHES):
        given = list(settings.CACHES[alias])
        yield from ((alias, name) for name in given if name.upper() in names)
        yield from ((alias, name) for name in given if is_misspelt_options(name))


def is_misspelt_options(name: str) -> bool:
    """Whether a name of CACHES was meant for OPTIONS."""
    return name != "OPTIONS" and bool(get_close_matches(name.upper(), ["OPTIONS"], cutoff=0.8))


def built() -> Iterator[tuple[str, Alias | ImproperlyConfigured]]:
    """Yield the name of each alias that is ours, with the alias, or why there is none."""
    for name in filter(is_ours, settings.CACHES):
        try:
            backend = build(name)
        except ImproperlyConfigured as error:
            yield name, error
        else:
            config = backend._config  # noqa: SLF001 - what it was built from, for no one else
            yield name, Alias(name, config.options, config.key_prefix, backend.default_timeout)


def counters_of_limits() -> Iterator[tuple[str, object]]:
    """Yield who counts requests or failed logins in a cache, and the alias that it uses."""
    rest = getattr(settings, "REST_FRAMEWORK", None)
    if isinstance(rest, Mapping) and rest.get("DEFAULT_THROTTLE_CLASSES"):
        yield "Django REST framework's throttling", "default"
    if hasattr(settings, "RATELIMIT_USE_CACHE") or "django_ratelimit" in settings.INSTALLED_APPS:
        yield "django-ratelimit", getattr(settings, "RATELIMIT_USE_CACHE", "default")
    handler = str(getattr(settings, "AXES_HANDLER", ""))
    if hasattr(settings, "AXES_CACHE") or handler.endswith(".AxesCacheHandler"):
        yield "django-axes", getattr(settings, "AXES_CACHE", "default")
