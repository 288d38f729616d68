"""OPTIONS and the environment, read once into one frozen ``Options``.

``rules`` lists what may be set; this says where each value comes from and how they go together. It
knows nothing of what is done with them: no connection, no request.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from django.core.exceptions import ImproperlyConfigured

from .._interrupts import is_raised_by_signal_handler
from .._redaction import is_harmless, shown, shown_name, suggestion
from .._registry import Coded
from ..compressors import Compressor
from ..serializers import Serializer
from .credentials import Credential
from .endpoints import is_plain_to_elsewhere
from .rules import RULES, Rule

_LOCATION = re.compile(r"(?!\.\.?\Z)[A-Za-z0-9._~-]+")
# Accepted without a meaning, as by Django's Redis backend.
_WITHOUT_MEANING = frozenset({"MAX_ENTRIES", "CULL_FREQUENCY"})
_BESIDE_OPTIONS = frozenset({"KEY_FUNCTION", "KEY_PREFIX", "LOCATION", "TIMEOUT", "VERSION"})
_OF_THE_ENDPOINT = frozenset({"ALLOW_PLAIN_HTTP", "REGION"})
_MOST_REMEMBERED = 128


@dataclass(frozen=True)
class Options:
    """Everything that is configured for one LOCATION."""

    location: str
    endpoint: str
    token: str | Callable[[], str] = field(repr=False)
    proxy: str | None = field(repr=False)
    ca_bundle: str | None
    on_error: Literal["miss", "raise"]
    request_timeout: float
    connect_timeout: float
    max_connections: int
    max_ttl: int | None
    serializer: Coded[Serializer]
    compressor: Coded[Compressor] | None
    compress_min_bytes: int
    signing_key: str | None = field(repr=False)
    single_flight_wait: float
    early_refresh: float
    clear_max_age: float | None
    hedge: bool
    near_max_age: float
    near_max_stale: float
    near_max_bytes: int
    # Whether the v1 key alone says where requests go. Not compared: requests go there either way.
    has_endpoint_of_key: bool = field(default=False, compare=False)

    @property
    def shown_location(self) -> str:
        """The cache's name as messages show it: it may be a token in the wrong place."""
        return shown_name(self.location)


def read_options(
    location: str, options: Mapping[str, object], environ: Mapping[str, str] = os.environ
) -> Options:
    """Return what OPTIONS and the environment say; ImproperlyConfigured says what is wrong."""
    try:
        return _recall(location, options, environ)
    except ValueError as error:
        if is_raised_by_signal_handler(error):
            raise
        wrong = improper(location, str(error))
    # A debug page prints the locals of the frame that raises, and OPTIONS holds secrets.
    del location, options, environ
    raise wrong


def improper(location: object, problem: str) -> ImproperlyConfigured:
    """Return the error that says what is wrong, and of which Momento cache."""
    return ImproperlyConfigured(f"Momento cache {_shown_location(location)}: {problem}")


def _recall(location: str, options: Mapping[str, object], environ: Mapping[str, str]) -> Options:
    given = _by_name(options)
    inherited = _inherited(given, environ)
    try:
        return _remembered(location, inherited, tuple(given), *given.values())
    except TypeError as error:  # a value that cannot be hashed
        if is_raised_by_signal_handler(error):
            raise
        return _read(location, inherited, tuple(given), *given.values())


def _by_name(options: Mapping[str, object]) -> dict[str, object]:
    if not isinstance(options, Mapping):
        raise ValueError("OPTIONS must be a dictionary")
    try:
        names = tuple(map(str.upper, options))
    except TypeError as error:
        if is_raised_by_signal_handler(error):
            raise
        raise ValueError("OPTIONS must have strings for names") from None
    given = dict(zip(names, options.values(), strict=True))
    if len(given) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(
            f"{shown_name(twice)} is given more than once, in different cases; keep one"
        )
    return given


def _inherited(
    given: Mapping[str, object], environ: Mapping[str, str]
) -> tuple[tuple[str, str], ...]:
    """Return (option, value) from the variables that count.

    OPTIONS wins over a variable, and the endpoint over the region. Reading one costs a microsecond.
    """
    found: tuple[tuple[str, str], ...] = ()
    if given.get("TOKEN") is None and (token := environ.get("MOMENTO_API_KEY")):
        found = (("TOKEN", token),)
    if given.get("ENDPOINT") is None and given.get("REGION") is None:
        if endpoint := environ.get("MOMENTO_ENDPOINT"):
            found += (("ENDPOINT", endpoint),)
        elif region := environ.get("MOMENTO_REGION"):
            found += (("REGION", region),)
    return found


def _read(
    location: str,
    inherited: tuple[tuple[str, str], ...],
    names: tuple[str, ...],
    *values: object,
) -> Options:
    if not isinstance(location, str) or not _LOCATION.fullmatch(location):
        raise ValueError(
            "LOCATION must be the name of a Momento cache: ASCII letters, digits and any of - . _ ~"
        )
    _check_names(names)
    given = dict(zip(names, values, strict=True))
    parsed = {rule.name: _parsed(rule, given, dict(inherited)) for rule in RULES}
    return _combine(location, parsed, connect_timeout_given="CONNECT_TIMEOUT" in given)


# Django makes a backend per thread and per task, so requests of a site wait for this. The types of
# the values count, because True == 1 == 1.0.
_remembered = lru_cache(_MOST_REMEMBERED, typed=True)(_read)


def _check_names(names: Iterable[str]) -> None:
    known = [rule.name for rule in RULES]
    for name in names:
        if name in _BESIDE_OPTIONS:
            raise ValueError(f"{name} is no option; write it beside OPTIONS, not inside")
        if name not in known and name not in _WITHOUT_MEANING:
            raise ValueError(
                f"{shown(name, known)} is not a known option; {suggestion(name, known)}"
            )


def _parsed(rule: Rule, given: Mapping[str, object], inherited: Mapping[str, str]) -> Any:
    value, source = given.get(rule.name, rule.default), rule.name
    if value is None and rule.environment is not None:
        value, source = inherited.get(rule.name), f"{rule.name} (from {rule.environment})"
        if value is None:
            return None
    try:
        return rule.parse(value)
    except ValueError as error:
        if is_raised_by_signal_handler(error):
            raise
        problem = str(error)
    raise ValueError(f"{source} {problem}")


def _combine(location: str, parsed: dict[str, Any], *, connect_timeout_given: bool) -> Options:
    token = parsed["TOKEN"]
    if token is None:
        raise ValueError(
            "TOKEN is missing; set it in OPTIONS, or MOMENTO_API_KEY in the environment"
        )
    endpoint_of_key = token.endpoint if isinstance(token, Credential) else None
    says_where = parsed["ENDPOINT"] or parsed["REGION"]
    # Those that only lead to the endpoint are no fields; the others have the names of the fields.
    own = {name.lower(): value for name, value in parsed.items() if name not in _OF_THE_ENDPOINT}
    own["endpoint"] = _endpoint(parsed, endpoint_of_key)
    own["token"] = token.secret if isinstance(token, Credential) else token
    own["connect_timeout"] = _connect_timeout(parsed, is_given=connect_timeout_given)
    own["has_endpoint_of_key"] = says_where is None and endpoint_of_key is not None
    return Options(location=location, **own)


def _endpoint(parsed: Mapping[str, Any], endpoint_of_key: str | None) -> str:
    """Return where requests go: ENDPOINT, else what the v1 key and REGION agree on."""
    endpoint: str | None = parsed["ENDPOINT"]
    if endpoint is not None:
        if not parsed["ALLOW_PLAIN_HTTP"]:
            _check_secrecy(endpoint, parsed["PROXY"])
        return endpoint
    of_region: str | None = parsed["REGION"]
    if endpoint_of_key and of_region and endpoint_of_key != of_region:
        raise ValueError(
            "REGION and TOKEN contradict each other: the v1 key belongs to another endpoint;"
            " correct or remove REGION, or set ENDPOINT"
        )
    if found := endpoint_of_key or of_region:
        return found
    raise ValueError(
        "REGION is missing, and so is ENDPOINT;"
        " set one of them in OPTIONS, or MOMENTO_REGION or MOMENTO_ENDPOINT in the environment"
    )


def _check_secrecy(endpoint: str, proxy: str | None) -> None:
    if is_plain_to_elsewhere(endpoint):
        raise ValueError(
            "ENDPOINT must begin with https://, because plain http shows the token to the"
            " network; ALLOW_PLAIN_HTTP permits it"
        )
    # What goes to this host in the clear is seen by a proxy that lies in between.
    if proxy and endpoint.startswith("http://") and is_plain_to_elsewhere(proxy):
        raise ValueError(
            "ENDPOINT must begin with https://, because plain http shows the token to PROXY, which"
            " is on another host; ALLOW_PLAIN_HTTP permits it"
        )


def _connect_timeout(parsed: Mapping[str, Any], *, is_given: bool) -> float:
    connect: float = parsed["CONNECT_TIMEOUT"]
    request: float = parsed["REQUEST_TIMEOUT"]
    if is_given and connect > request:
        raise ValueError(
            f"CONNECT_TIMEOUT ({connect:g}) must not be above REQUEST_TIMEOUT ({request:g})"
        )
    return min(connect, request)


def _shown_location(location: object) -> str:
    if isinstance(location, str) and _LOCATION.fullmatch(location):
        return repr(shown_name(location))
    # A cache URL taken apart by another library leaves "user:password@host" here.
    may_show = is_harmless(location) and "@" not in str(location)
    return repr(location) if may_show else "(LOCATION not shown)"
