"""System checks: what ``manage.py check`` says of settings that are wrong or will surprise.

=====  ============================================================================
id     means
=====  ============================================================================
E001   the settings of an alias are wrong, and its backend cannot be built
W001   TIMEOUT is above MAX_TTL (or None), so values expire before it
W002   sessions are kept in the cache alone, and end before SESSION_COOKIE_AGE
W003   SERIALIZER is "json" where the cache middleware stores responses
W004   SERIALIZER is "json" where sessions may hold what JSON cannot
W005   the token says of itself that it has expired
W006   aliases share LOCATION and KEY_PREFIX, but not what makes their values the same
W007   ON_ERROR is "miss" where request limits or login locks are counted
W008   the token looks typed into the settings (only with ``check --deploy``)
W009   an option stands beside OPTIONS, or OPTIONS is misspelt: nobody reads it
W010   SIGNING_KEY is short, so that it could be guessed
W011   the v1 key in TOKEN names a host that is not Momento's
W012   NEAR_MAX_AGE is set where request limits or login locks are counted
=====  ============================================================================

Each id stands behind ``django_momento_http.``. All run offline and look only at aliases whose
BACKEND is MomentoCache or a subclass of it. No message shows a token or a signing key. They know
nothing of connections.
"""

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import attrgetter
from typing import NamedTuple
from urllib.parse import urlsplit

from django.conf import settings
from django.core import checks

from ._conf.credentials import expiry_of
from ._diagnostics.advice import CORRECT, NEW_KEY
from ._diagnostics.aliases import Alias, built, counters_of_limits, is_misspelt_options, misplaced
from ._redaction import EmptiedFrames, shown

_CACHED_SESSIONS = "django.contrib.sessions.backends.cache"
_SESSIONS_THAT_USE_A_CACHE = {_CACHED_SESSIONS, "django.contrib.sessions.backends.cached_db"}
_JSON_SESSIONS = "django.contrib.sessions.serializers.JSONSerializer"
_UNREADABLE = "they may not be able to read each other's values"
_FORGOTTEN = "a clear() through the lower is forgotten before values of the higher expire"
_NEAR = ("NEAR_MAX_AGE", "NEAR_MAX_STALE", "NEAR_MAX_BYTES")
_NOT_CLEARED = "through one alias values are seen that another has cleared"
_OLDER = "through one alias a value may be seen that is older than through another"
# A shorter key is likely to be made of words; secrets.token_urlsafe(32) has 43 characters.
_SHORT_KEY = 32
_HOST_OF_MOMENTO = ".momentohq.com"
_CACHE_MIDDLEWARE = {
    "django.middleware.cache.UpdateCacheMiddleware",
    "django.middleware.cache.CacheMiddleware",
}

# What aliases that share their values must have in common, and what happens where they do not.
_MUST_AGREE: tuple[tuple[str, Callable[[Alias], object], str], ...] = (
    ("SERIALIZER", lambda alias: alias.options.serializer.code, _UNREADABLE),
    ("SIGNING_KEY", lambda alias: alias.options.signing_key, _UNREADABLE),
    ("MAX_TTL", lambda alias: alias.options.max_ttl, _FORGOTTEN),
    ("CLEAR_MAX_AGE", lambda alias: alias.options.clear_max_age is None, _NOT_CLEARED),
    *((name, attrgetter(f"options.{name.lower()}"), _OLDER) for name in _NEAR),
)


class Finding(NamedTuple):
    """What is wrong with an alias, and what to do about it."""

    alias: str
    problem: str
    advice: str


@dataclass(frozen=True)
class Project:
    """What the checks look at."""

    aliases: Sequence[Alias]
    broken: Sequence[Finding]
    misplaced: Sequence[tuple[str, str]]
    now: float
    environ: Mapping[str, str] = field(repr=False)

    def named(self, name: object) -> Iterator[Alias]:
        """Yield the alias of this name if it is one of ours."""
        return (alias for alias in self.aliases if alias.name == name)


@dataclass(frozen=True)
class Check:
    """One check: an E is an Error, a W is a Warning."""

    id: str
    find: Callable[[Project], Iterator[Finding]]
    deploy: bool = False


def check_settings(
    app_configs: object = None,  # noqa: ARG001 - Django's signature
    *,
    clock: Callable[[], float] = time.time,
    **_: object,
) -> list[checks.CheckMessage]:
    """Run the checks that every ``check`` runs."""
    with EmptiedFrames():
        return _run(_project(clock(), os.environ), [check for check in CHECKS if not check.deploy])


def check_deployment(
    app_configs: object = None,  # noqa: ARG001 - Django's signature
    *,
    environ: Mapping[str, str] = os.environ,
    **_: object,
) -> list[checks.CheckMessage]:
    """Run the checks that ``check --deploy`` adds."""
    with EmptiedFrames():
        return _run(_project(0.0, environ), [check for check in CHECKS if check.deploy])


def _run(project: Project, chosen: Sequence[Check]) -> list[checks.CheckMessage]:
    return [message for check in chosen for message in _messages(check, project)]


def _messages(check: Check, project: Project) -> Iterator[checks.CheckMessage]:
    message = checks.Error if check.id.startswith("E") else checks.Warning
    for finding in check.find(project):
        yield message(
            finding.problem,
            hint=finding.advice,
            obj=f"CACHES[{finding.alias!r}]",
            id=f"django_momento_http.{check.id}",
        )


def _project(now: float, environ: Mapping[str, str]) -> Project:
    aliases, broken = [], []
    for name, found in built():
        if isinstance(found, Alias):
            aliases.append(found)
        else:
            broken.append(Finding(name, str(found), CORRECT.format(name)))
    return Project(aliases, broken, list(misplaced()), now, environ)


# The checks, in the order of their ids


def _bad_settings(project: Project) -> Iterator[Finding]:
    yield from project.broken


def _timeout_above_max_ttl(project: Project) -> Iterator[Finding]:
    for alias in project.aliases:
        longest = alias.options.max_ttl
        if longest is not None and (alias.timeout is None or alias.timeout > longest):
            yield Finding(
                alias.name,
                f"TIMEOUT is {shown(alias.timeout)},"
                f" but MAX_TTL ends every value after {longest} s.",
                f"Set TIMEOUT to at most {longest}; if the cache is provisioned for longer, set"
                " MAX_TTL to what it takes, or to None.",
            )


def _sessions_end_early(project: Project) -> Iterator[Finding]:
    if settings.SESSION_ENGINE != _CACHED_SESSIONS:
        return
    age = settings.SESSION_COOKIE_AGE
    for alias in project.named(settings.SESSION_CACHE_ALIAS):
        longest = alias.options.max_ttl
        if longest is not None and age > longest:
            yield Finding(
                alias.name,
                f"SESSION_COOKIE_AGE is {age} s, but MAX_TTL ends every session after {longest} s:"
                " users are logged out then.",
                'Set SESSION_ENGINE to "django.contrib.sessions.backends.cached_db",'
                f" or SESSION_COOKIE_AGE to at most {longest}.",
            )


def _json_responses(project: Project) -> Iterator[Finding]:
    if not _CACHE_MIDDLEWARE.intersection(settings.MIDDLEWARE):
        return
    for alias in project.named(settings.CACHE_MIDDLEWARE_ALIAS):
        if alias.options.serializer.name == "json":
            yield Finding(
                alias.name,
                'SERIALIZER is "json", and the cache middleware stores responses here:'
                " they cannot be JSON, and each page will fail.",
                'Set CACHE_MIDDLEWARE_ALIAS to an alias whose SERIALIZER is "pickle".',
            )


def _json_sessions(project: Project) -> Iterator[Finding]:
    if settings.SESSION_ENGINE not in _SESSIONS_THAT_USE_A_CACHE:
        return
    if settings.SESSION_SERIALIZER == _JSON_SESSIONS:
        return
    for alias in project.named(settings.SESSION_CACHE_ALIAS):
        if alias.options.serializer.name == "json":
            yield Finding(
                alias.name,
                'SERIALIZER is "json", but SESSION_SERIALIZER is not JSONSerializer: sessions'
                " may hold what cannot be stored here.",
                'Set SESSION_CACHE_ALIAS to an alias whose SERIALIZER is "pickle",'
                " or keep only JSON in sessions and set SESSION_SERIALIZER to say so.",
            )


def _token_expired(project: Project) -> Iterator[Finding]:
    for alias in project.aliases:
        token = alias.options.token
        expiry = expiry_of(token) if isinstance(token, str) else None
        if expiry is not None and expiry <= project.now:
            yield Finding(
                alias.name,
                f"The token expired at {datetime.fromtimestamp(expiry, UTC):%Y-%m-%d %H:%M} UTC.",
                NEW_KEY,
            )


def _aliases_disagree(project: Project) -> Iterator[Finding]:
    groups: defaultdict[tuple[str, str, str], list[Alias]] = defaultdict(list)
    for alias in project.aliases:
        groups[alias.options.endpoint, alias.options.location, alias.key_prefix].append(alias)
    for group in groups.values():
        differing = {
            name: effect for name, read, effect in _MUST_AGREE if len(set(map(read, group))) > 1
        }
        if differing:
            others = ", ".join(repr(alias.name) for alias in group[1:])
            names = " and ".join(differing)
            yield Finding(
                group[0].name,
                f"It shares LOCATION and KEY_PREFIX with {others}, but not {names}:"
                f" {'; '.join(dict.fromkeys(differing.values()))}.",
                f"Give each a KEY_PREFIX of its own, or the same {names}.",
            )


def _limits_unguarded(project: Project) -> Iterator[Finding]:
    for user, name in counters_of_limits():
        for alias in project.named(name):
            if alias.options.on_error == "miss":
                yield Finding(
                    alias.name,
                    f'{user} counts in this cache, and ON_ERROR "miss" hides from it that counts'
                    " are lost while the service is in trouble.",
                    'Give it an alias with ON_ERROR "raise", or one on a cache that counts'
                    " atomically (add and incr are not atomic here). If this is what you want,"
                    " silence this check.",
                )


def _limits_from_copies(project: Project) -> Iterator[Finding]:
    for user, name in counters_of_limits():
        for alias in project.named(name):
            if alias.options.near_max_age:
                yield Finding(
                    alias.name,
                    f"{user} counts in this cache, and NEAR_MAX_AGE {alias.options.near_max_age:g}"
                    " lets each process read counts of so many seconds ago.",
                    "Give it an alias of its own, with a KEY_PREFIX and without NEAR_MAX_AGE.",
                )


def _token_typed_in(project: Project) -> Iterator[Finding]:
    # Only for deployment: while developing, a token for the local server may well be typed in. A
    # variable may hold more than the token: a v1 key, a cache URL.
    for alias in project.aliases:
        given = alias.given_token
        if not isinstance(given, str) or not isinstance(alias.options.token, str):
            continue
        if not any(given.strip() in value for value in project.environ.values()):
            yield Finding(
                alias.name,
                "No environment variable holds TOKEN, so it looks typed into the settings.",
                "Read it from the environment: MOMENTO_API_KEY is used when TOKEN is left out."
                " If it comes from a file or a store of secrets, silence this check.",
            )


def _beside_options(project: Project) -> Iterator[Finding]:
    for alias, name in project.misplaced:
        if is_misspelt_options(name):
            yield Finding(alias, f"{name!r} is not OPTIONS.", "Write it in upper case, with an S.")
            continue
        yield Finding(
            alias,
            f"{name} stands beside OPTIONS, where it means nothing.",
            f'Move it inside: "OPTIONS": {{"{name}": ...}}.',
        )


def _short_signing_key(project: Project) -> Iterator[Finding]:
    for alias in project.aliases:
        key = alias.options.signing_key
        if key is not None and len(key) < _SHORT_KEY:
            yield Finding(
                alias.name,
                f"SIGNING_KEY has fewer than {_SHORT_KEY} characters: whoever can read the cache"
                " may find it by trying words, and could then write what your site believes.",
                "Make a random one, as secrets.token_urlsafe(32) does; what is stored already"
                " becomes misses.",
            )


def _key_names_a_foreign_host(project: Project) -> Iterator[Finding]:
    for alias in project.aliases:
        host = urlsplit(alias.options.endpoint).hostname or ""
        if alias.options.has_endpoint_of_key and not host.endswith(_HOST_OF_MOMENTO):
            yield Finding(
                alias.name,
                f"The v1 key in TOKEN sends requests, and the token in them, to {host}, which is"
                f" not under {_HOST_OF_MOMENTO.removeprefix('.')}.",
                "Check where the key comes from. If the host is right, as for a private cell, set"
                " ENDPOINT to it.",
            )


CHECKS = (
    Check("E001", _bad_settings),
    Check("W001", _timeout_above_max_ttl),
    Check("W002", _sessions_end_early),
    Check("W003", _json_responses),
    Check("W004", _json_sessions),
    Check("W005", _token_expired),
    Check("W006", _aliases_disagree),
    Check("W007", _limits_unguarded),
    Check("W008", _token_typed_in, deploy=True),
    Check("W009", _beside_options),
    Check("W010", _short_signing_key),
    Check("W011", _key_names_a_foreign_host),
    Check("W012", _limits_from_copies),
)
