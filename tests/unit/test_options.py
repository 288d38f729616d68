"""Settings: what each option accepts, where each value comes from, and that errors keep secrets."""

import base64
import itertools
import json
import math
import os
import traceback
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

import django_momento_http
from django_momento_http._conf.endpoints import ENDPOINTS
from django_momento_http._conf.options import Options, read_options
from django_momento_http._conf.rules import RULES
from django_momento_http.compressors import ZlibCompressor
from django_momento_http.serializers import JSONSerializer, PickleSerializer

# Drawn at random once, so that the names of the tests stay the same from run to run.
CANARY = "3f9c0b7e5d1a4862c7e0915bd84f2a6e"
PACKAGE = str(Path(django_momento_http.__file__).parent)
LOCATION = "my-cache"


def read(environ: Mapping[str, str] | None = None, **options: object) -> Options:
    """Read these options, the token and a region given unless the options say otherwise."""
    return read_options(LOCATION, {"TOKEN": CANARY, "REGION": "us-west-2"} | options, environ or {})


def refusal(location: Any, options: Mapping[Any, object], environ: Mapping[str, str]) -> str:
    """Return the error's message, having looked for the canary wherever it could be printed."""
    with pytest.raises(ImproperlyConfigured) as caught:
        read_options(location, options, environ)
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    printed = "".join([*traceback.format_exception(error), repr(error), *locals_of(caught.tb)])
    slices = {CANARY[start : start + 8] for start in range(len(CANARY) - 7)}
    assert not [part for part in slices if part in printed]
    return str(error)


def locals_of(tb: TracebackType) -> list[str]:
    """Return the locals of the package's frames, as a debug page prints them."""
    frames = [frame for frame, _ in traceback.walk_tb(tb)]
    return [
        repr(frame.f_locals) for frame in frames if frame.f_code.co_filename.startswith(PACKAGE)
    ]


def v1_key(cell_host: str, secret: str = CANARY) -> str:
    """Return a v1 key of this cell."""
    document = {"endpoint": cell_host, "api_key": secret}
    return base64.b64encode(json.dumps(document).encode()).decode()


def cell_host(region: str) -> str:
    """Return the host that a v1 key of the region holds."""
    return ENDPOINTS[region].removeprefix("https://api.cache.")


NO_SECONDS = (-1, math.inf, math.nan, "soon", None, False, True)


def test_documented_example_gives_the_documented_defaults() -> None:
    """A region and a token are enough; everything else has the documented default."""
    options = read()

    assert options.location == LOCATION
    assert options.endpoint == "https://api.cache.cell-4-us-west-2-1.prod.a.momentohq.com"
    assert options.token == CANARY
    assert options.proxy is None
    assert options.ca_bundle is None
    assert options.on_error == "miss"
    assert (options.request_timeout, options.connect_timeout) == (1.0, 0.5)
    assert options.max_connections == 64
    assert options.max_ttl == 86400
    assert isinstance(options.serializer.codec, PickleSerializer)
    assert options.compressor is not None
    assert isinstance(options.compressor.codec, ZlibCompressor)
    assert options.compress_min_bytes == 1024
    assert options.signing_key is None
    assert options.clear_max_age == 10
    assert (options.near_max_age, options.near_max_stale) == (0, 60)
    assert options.near_max_bytes == 33554432


def test_rules_list_every_documented_option_once() -> None:
    """The one list of rules has the documented options and their defaults, each option once."""
    assert {rule.name: rule.environment or rule.default for rule in RULES} == {
        "REGION": "MOMENTO_REGION",
        "ENDPOINT": "MOMENTO_ENDPOINT",
        "ALLOW_PLAIN_HTTP": False,
        "PROXY": None,
        "CA_BUNDLE": None,
        "TOKEN": "MOMENTO_API_KEY",
        "ON_ERROR": "miss",
        "REQUEST_TIMEOUT": 1.0,
        "CONNECT_TIMEOUT": 0.5,
        "MAX_CONNECTIONS": 64,
        "MAX_TTL": 86400,
        "SERIALIZER": "pickle",
        "COMPRESSOR": "zlib",
        "COMPRESS_MIN_BYTES": 1024,
        "SIGNING_KEY": None,
        "HEDGE": True,
        "NEAR_MAX_AGE": 0,
        "NEAR_MAX_STALE": 60,
        "NEAR_MAX_BYTES": 32 * 1024 * 1024,
        "SINGLE_FLIGHT_WAIT": 5.0,
        "EARLY_REFRESH": 0,
        "CLEAR_MAX_AGE": 10,
    }
    assert len({rule.name for rule in RULES}) == len(RULES)


@pytest.mark.parametrize(
    ("option", "given", "meaning"),
    [
        ("PROXY", "http://u:p@proxy.example:3128", "http://u:p@proxy.example:3128"),
        ("PROXY", None, None),
        ("PROXY", "none", None),
        ("CA_BUNDLE", __file__, __file__),
        ("CA_BUNDLE", Path(__file__), __file__),
        ("CA_BUNDLE", None, None),
        ("ON_ERROR", "miss", "miss"),
        ("ON_ERROR", "raise", "raise"),
        ("REQUEST_TIMEOUT", 60, 60.0),
        ("REQUEST_TIMEOUT", "2.5", 2.5),
        ("CONNECT_TIMEOUT", 1, 1.0),
        ("CONNECT_TIMEOUT", "0.25", 0.25),
        ("MAX_CONNECTIONS", 1, 1),
        ("MAX_CONNECTIONS", "1024", 1024),
        ("MAX_TTL", 1, 1),
        ("MAX_TTL", "604800", 604800),
        ("MAX_TTL", None, None),
        ("MAX_TTL", "none", None),
        ("COMPRESSOR", None, None),
        ("COMPRESSOR", "none", None),
        ("COMPRESS_MIN_BYTES", 0, 0),
        ("COMPRESS_MIN_BYTES", "4096", 4096),
        ("SIGNING_KEY", "a key", "a key"),
        ("SIGNING_KEY", None, None),
        ("SINGLE_FLIGHT_WAIT", 0, 0.0),
        ("SINGLE_FLIGHT_WAIT", "2.5", 2.5),
        ("EARLY_REFRESH", 1, 1.0),
        ("EARLY_REFRESH", "0.5", 0.5),
        ("CLEAR_MAX_AGE", 0, 0.0),
        ("CLEAR_MAX_AGE", "0.5", 0.5),
        ("CLEAR_MAX_AGE", 1_000_000, 1_000_000.0),
        ("CLEAR_MAX_AGE", None, None),
        ("NEAR_MAX_AGE", 0, 0.0),
        ("NEAR_MAX_AGE", "2.5", 2.5),
        ("NEAR_MAX_AGE", 86400, 86400.0),
        ("NEAR_MAX_STALE", 0, 0.0),
        ("NEAR_MAX_STALE", "300", 300.0),
        ("NEAR_MAX_BYTES", 0, 0),
        ("NEAR_MAX_BYTES", "1000000", 1_000_000),
    ],
)
def test_good_value_is_taken(option: str, given: object, meaning: object) -> None:
    """Each option takes what it documents, and strings where they can mean one thing only."""
    taken = getattr(read(**{option: given}), option.lower())

    assert taken == meaning
    assert type(taken) is type(meaning)


@pytest.mark.parametrize(
    ("option", "given"),
    [
        ("REGION", "us-west-3"),
        ("REGION", "US-WEST-2"),
        ("REGION", ""),
        ("REGION", 5),
        ("REGION", ["us-west-2"]),
        ("ENDPOINT", ""),
        ("ENDPOINT", 5),
        ("ENDPOINT", "ftp://example.com"),
        ("ENDPOINT", f"https://u:{CANARY}@example.com"),
        ("ENDPOINT", f"https://example.com/?token={CANARY}"),
        ("ENDPOINT", f"https://example.com:{CANARY}"),
        ("ENDPOINT", f"https://[{CANARY}]"),
        ("ENDPOINT", "http://example.com"),
        ("ENDPOINT", "http://localhost.example.com"),
        ("ALLOW_PLAIN_HTTP", 1),
        ("ALLOW_PLAIN_HTTP", "yes"),
        ("ALLOW_PLAIN_HTTP", None),
        ("PROXY", ""),
        ("PROXY", 3128),
        ("PROXY", f"https://u:{CANARY}@proxy.example:3128"),
        ("PROXY", f"socks5h://u:{CANARY}@proxy.example:1080"),
        ("PROXY", f"http://u:{CANARY}@proxy.example"),
        ("CA_BUNDLE", ""),
        ("CA_BUNDLE", "/no/such/bundle.pem"),
        ("CA_BUNDLE", "/"),
        ("CA_BUNDLE", True),
        ("TOKEN", ""),
        ("TOKEN", "  \n"),
        ("TOKEN", 5),
        ("TOKEN", CANARY.encode()),
        ("TOKEN", [CANARY]),
        ("TOKEN", f"{CANARY} {CANARY}"),
        ("TOKEN", f"{CANARY}\r\nX-Other: 1"),
        ("TOKEN", f"{CANARY}é"),
        ("TOKEN", v1_key(cell_host("us-west-2"))[:40]),
        ("TOKEN", v1_key("", CANARY)),
        ("TOKEN", v1_key(CANARY, CANARY)),
        ("TOKEN", v1_key(cell_host("us-west-2"), "")),
        ("TOKEN", f"no_such_module_{CANARY}.ask"),
        ("TOKEN", "os.sep"),
        ("ON_ERROR", "ignore"),
        ("ON_ERROR", "MISS"),
        ("ON_ERROR", None),
        ("ON_ERROR", True),
        ("REQUEST_TIMEOUT", 0),
        ("REQUEST_TIMEOUT", -1),
        ("REQUEST_TIMEOUT", 61),
        ("REQUEST_TIMEOUT", "soon"),
        ("REQUEST_TIMEOUT", None),
        ("REQUEST_TIMEOUT", True),
        ("REQUEST_TIMEOUT", math.nan),
        ("REQUEST_TIMEOUT", math.inf),
        ("REQUEST_TIMEOUT", (1, 2)),
        ("CONNECT_TIMEOUT", 0),
        ("CONNECT_TIMEOUT", "nan"),
        ("CONNECT_TIMEOUT", None),
        ("CONNECT_TIMEOUT", 1.5),
        ("MAX_CONNECTIONS", 0),
        ("MAX_CONNECTIONS", 1025),
        ("MAX_CONNECTIONS", 1.0),
        ("MAX_CONNECTIONS", "many"),
        ("MAX_CONNECTIONS", True),
        ("MAX_CONNECTIONS", None),
        ("MAX_TTL", 0),
        ("MAX_TTL", -1),
        ("MAX_TTL", 1.5),
        ("MAX_TTL", 10**12),
        ("MAX_TTL", "1 day"),
        ("MAX_TTL", True),
        ("SERIALIZER", "yaml"),
        ("SERIALIZER", "no_such_module.Serializer"),
        ("SERIALIZER", "os.path.join"),
        ("SERIALIZER", "collections.OrderedDict"),
        ("SERIALIZER", ""),
        ("SERIALIZER", None),
        ("SERIALIZER", JSONSerializer),
        ("COMPRESSOR", "lzma"),
        ("COMPRESSOR", "no_such_module.Compressor"),
        ("COMPRESSOR", "collections.OrderedDict"),
        ("COMPRESSOR", ""),
        ("COMPRESSOR", False),
        ("COMPRESS_MIN_BYTES", -1),
        ("COMPRESS_MIN_BYTES", 0.5),
        ("COMPRESS_MIN_BYTES", None),
        ("COMPRESS_MIN_BYTES", False),
        ("SIGNING_KEY", ""),
        ("SIGNING_KEY", CANARY.encode()),
        ("SIGNING_KEY", {"key": CANARY}),
        ("SINGLE_FLIGHT_WAIT", -1),
        ("SINGLE_FLIGHT_WAIT", None),
        ("SINGLE_FLIGHT_WAIT", math.inf),
        ("EARLY_REFRESH", -0.1),
        ("EARLY_REFRESH", math.nan),
        ("EARLY_REFRESH", True),
        ("CLEAR_MAX_AGE", -1),
        ("CLEAR_MAX_AGE", math.inf),
        ("CLEAR_MAX_AGE", math.nan),
        ("CLEAR_MAX_AGE", "soon"),
        ("CLEAR_MAX_AGE", False),
        *((name, given) for name in ("NEAR_MAX_AGE", "NEAR_MAX_STALE") for given in NO_SECONDS),
        ("NEAR_MAX_BYTES", -1),
        ("NEAR_MAX_BYTES", 0.5),
        ("NEAR_MAX_BYTES", None),
        ("NEAR_MAX_BYTES", True),
        ("NEAR_MAX_BYTES", "32 MB"),
    ],
)
def test_bad_value_is_refused(option: str, given: object) -> None:
    """The error names the option and LOCATION, and shows no secret anywhere."""
    options = {"TOKEN": CANARY, "REGION": "us-west-2", option: given}
    message = refusal(LOCATION, options, {})

    assert message.startswith(f"Momento cache {LOCATION!r}: {option} ")


@pytest.mark.parametrize(
    ("option", "given", "advice"),
    [
        ("REGION", "us-west-1", "us-west-2"),
        ("REGION", "us-west-1", ", ".join(ENDPOINTS)),
        ("ENDPOINT", "http://10.0.0.1", "ALLOW_PLAIN_HTTP"),
        ("PROXY", "socks5://proxy.example:1080", "http://"),
        ("CA_BUNDLE", "/no/such/bundle.pem", "not a string of 19 characters"),
        ("CA_BUNDLE", f"{__file__}.pem", f"not '{__file__}.pem'"),
        ("TOKEN", "", "MOMENTO_API_KEY"),
        ("ON_ERROR", "raises", "did you mean raise?"),
        ("REQUEST_TIMEOUT", 500, "at most 60, not 500"),
        ("MAX_CONNECTIONS", True, "from 1 to 1024, not True"),
        ("MAX_TTL", "1 day", "seconds from 1 to 2147483647, or None, not '1 day'"),
        ("SERIALIZER", "yaml", "'pickle', 'json'"),
        ("COMPRESSOR", "lzma", "'zlib', 'zstd'"),
        ("CONNECT_TIMEOUT", 1.5, "REQUEST_TIMEOUT (1)"),
    ],
)
def test_error_says_what_to_do(option: str, given: object, advice: str) -> None:
    """The error shows what is accepted, or what to change."""
    options = {"TOKEN": CANARY, "REGION": "us-west-2", option: given}

    assert advice in refusal(LOCATION, options, {})


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("REGIN", "did you mean REGION?"),
        ("TOKENS", "did you mean TOKEN?"),
        ("max_connection", "did you mean MAX_CONNECTIONS?"),
        ("COMPRESSION", "did you mean COMPRESSOR?"),
        ("XYZ", "known are REGION, ENDPOINT"),
        ("", "known are REGION, ENDPOINT"),
        ("TIMEOUT", "beside OPTIONS"),
        ("key_prefix", "beside OPTIONS"),
    ],
)
def test_unknown_option_is_refused(name: str, advice: str) -> None:
    """The error names the unknown option, LOCATION and the nearest known name, not the value."""
    message = refusal(LOCATION, {"TOKEN": CANARY, "REGION": "us-west-2", name: CANARY}, {})

    assert message.startswith(f"Momento cache {LOCATION!r}: ")
    assert name.upper() in message
    assert advice in message


def test_name_that_is_no_string_is_refused() -> None:
    """The names of options are strings."""
    assert "strings" in refusal(LOCATION, {"TOKEN": CANARY, 1: CANARY}, {})


@pytest.mark.parametrize("spell", [str.upper, str.lower, str.title])
def test_names_are_taken_in_any_case(spell: Any) -> None:
    """Options may be written in upper case, in lower case or mixed."""
    options = {"TOKEN": CANARY, "REGION": "eu-west-1", "MAX_TTL": 60, "ON_ERROR": "raise"}
    respelt = {spell(name): value for name, value in options.items()}

    assert read_options(LOCATION, respelt, {}) == read_options(LOCATION, options, {})


def test_option_given_twice_is_refused() -> None:
    """Two spellings of one option are an error, even with the same value."""
    message = refusal(LOCATION, {"TOKEN": CANARY, "token": CANARY, "REGION": "us-west-2"}, {})

    assert message.startswith(f"Momento cache {LOCATION!r}: TOKEN is given more than once")


@pytest.mark.parametrize("name", ["MAX_ENTRIES", "CULL_FREQUENCY", "max_entries"])
def test_options_of_other_backends_mean_nothing(name: str) -> None:
    """Django's culling options are accepted and change nothing."""
    assert read(**{name: 300}) == read()


@pytest.mark.parametrize("location", ["a", "my-cache", "A.b_c~9", "...", ".a", "1" * 200])
def test_good_location_is_taken(location: str) -> None:
    """LOCATION may be any one URL-safe path segment."""
    options = read_options(location, {"TOKEN": CANARY, "REGION": "us-west-2"}, {})

    assert options.location == location


@pytest.mark.parametrize(
    "location",
    [
        "",
        ".",
        "..",
        "a/b",
        "/",
        "a?b",
        "a#b",
        "a b",
        " a",
        "a\n",
        "a%2fb",
        "ä",
        "a\x00",
        "٣",
        None,
        5,
        b"a",
        ["a"],
        ["a", "b"],
        f"user:{CANARY}@host",
    ],
)
def test_bad_location_is_refused(location: object) -> None:
    """A LOCATION that is no such segment is an error that names it where it is a short text."""
    message = refusal(location, {"TOKEN": CANARY, "REGION": "us-west-2"}, {})

    assert "LOCATION must be the name of a Momento cache" in message
    is_shown = not isinstance(location, list) and "@" not in str(location)
    assert (repr(location) if is_shown else "(LOCATION not shown)") in message


@pytest.mark.parametrize("region", ENDPOINTS)
def test_region_gives_its_endpoint(region: str) -> None:
    """Every region can be configured, in OPTIONS and in the environment."""
    inherited = read_options(LOCATION, {"TOKEN": CANARY}, {"MOMENTO_REGION": region})

    assert read(REGION=region).endpoint == ENDPOINTS[region]
    assert inherited.endpoint == ENDPOINTS[region]


@pytest.mark.parametrize(
    ("options", "endpoint"),
    [
        ({"ENDPOINT": "cell.example.com"}, "https://api.cache.cell.example.com"),
        ({"ENDPOINT": "https://cell.example.com/"}, "https://cell.example.com"),
        ({"ENDPOINT": "http://localhost:8080"}, "http://localhost:8080"),
        ({"ENDPOINT": "http://[::1]:8080"}, "http://[::1]:8080"),
        ({"ENDPOINT": "http://momento:8080", "ALLOW_PLAIN_HTTP": True}, "http://momento:8080"),
        ({"ENDPOINT": "http://momento:8080", "ALLOW_PLAIN_HTTP": "true"}, "http://momento:8080"),
    ],
)
def test_endpoint_is_taken(options: dict[str, object], endpoint: str) -> None:
    """An explicit endpoint is used; plain http only to this host, or where it is allowed."""
    assert read(**options).endpoint == endpoint


PLAIN = "http://localhost:8080"
ELSEWHERE = "http://u:p@proxy.example:3128"
HERE = "http://u:p@127.0.0.1:3128"


@pytest.mark.parametrize(
    ("options", "is_taken"),
    [
        ({"ENDPOINT": PLAIN, "PROXY": ELSEWHERE}, False),
        ({"ENDPOINT": "http://[::1]", "PROXY": ELSEWHERE}, False),
        ({"ENDPOINT": "http://127.0.0.1:8080", "PROXY": "http://10.0.0.1:3128"}, False),
        ({"ENDPOINT": PLAIN, "PROXY": "http://localhost.example.com:3128"}, False),
        ({"ENDPOINT": PLAIN, "PROXY": HERE}, True),
        ({"ENDPOINT": PLAIN, "PROXY": "http://[::1]:3128"}, True),
        ({"ENDPOINT": PLAIN, "PROXY": None}, True),
        ({"ENDPOINT": PLAIN, "PROXY": ELSEWHERE, "ALLOW_PLAIN_HTTP": True}, True),
        ({"ENDPOINT": "https://localhost:8080", "PROXY": ELSEWHERE}, True),
        ({"PROXY": ELSEWHERE}, True),
    ],
)
def test_no_token_goes_through_a_proxy_in_the_clear(
    options: dict[str, object], *, is_taken: bool
) -> None:
    """Plain http to this host, but through a proxy elsewhere, shows the token to that proxy."""
    if is_taken:
        assert read(**options).proxy == options["PROXY"]
        return
    message = refusal(LOCATION, {"TOKEN": CANARY, **options}, {})
    assert "plain http shows the token to PROXY" in message
    assert "ALLOW_PLAIN_HTTP" in message


FROM_OPTIONS = "https://options.example.com"
FROM_ENVIRONMENT = "https://environment.example.com"
SOURCES = {
    "E": "ENDPOINT in OPTIONS",
    "R": "REGION in OPTIONS",
    "e": "MOMENTO_ENDPOINT",
    "r": "MOMENTO_REGION",
    "k": "a v1 key of another cell than either region",
}
MISSING, CONTRADICTION = "is missing", "contradict"
PRECEDENCE = {
    "": MISSING,
    "r": ENDPOINTS["eu-west-1"],
    "k": ENDPOINTS["ap-south-1"],
    "rk": CONTRADICTION,
    "e": FROM_ENVIRONMENT,
    "er": FROM_ENVIRONMENT,
    "ek": FROM_ENVIRONMENT,
    "erk": FROM_ENVIRONMENT,
    "R": ENDPOINTS["us-west-2"],
    "Rr": ENDPOINTS["us-west-2"],
    "Re": ENDPOINTS["us-west-2"],
    "Rer": ENDPOINTS["us-west-2"],
    "Rk": CONTRADICTION,
    "Rrk": CONTRADICTION,
    "Rek": CONTRADICTION,
    "Rerk": CONTRADICTION,
    "E": FROM_OPTIONS,
    "Er": FROM_OPTIONS,
    "Ek": FROM_OPTIONS,
    "Erk": FROM_OPTIONS,
    "Ee": FROM_OPTIONS,
    "Eer": FROM_OPTIONS,
    "Eek": FROM_OPTIONS,
    "Eerk": FROM_OPTIONS,
    "ER": FROM_OPTIONS,
    "ERr": FROM_OPTIONS,
    "ERe": FROM_OPTIONS,
    "ERer": FROM_OPTIONS,
    "ERk": FROM_OPTIONS,
    "ERrk": FROM_OPTIONS,
    "ERek": FROM_OPTIONS,
    "ERerk": FROM_OPTIONS,
}


def sources(given: str) -> tuple[dict[str, object], dict[str, str]]:
    """Return the OPTIONS and the environment in which these sources are set."""
    options: dict[str, object] = {
        "TOKEN": v1_key(cell_host("ap-south-1")) if "k" in given else CANARY
    }
    environ = {}
    if "E" in given:
        options["ENDPOINT"] = FROM_OPTIONS
    if "R" in given:
        options["REGION"] = "us-west-2"
    if "e" in given:
        environ["MOMENTO_ENDPOINT"] = FROM_ENVIRONMENT
    if "r" in given:
        environ["MOMENTO_REGION"] = "eu-west-1"
    return options, environ


def test_precedence_covers_every_combination() -> None:
    """The table below has a row for every set of sources."""
    combinations = itertools.chain.from_iterable(
        itertools.combinations(SOURCES, size) for size in range(len(SOURCES) + 1)
    )

    assert set(PRECEDENCE) == {"".join(sources) for sources in combinations}


@pytest.mark.parametrize("given", PRECEDENCE)
def test_precedence_of_endpoint_region_and_key(given: str) -> None:
    """OPTIONS beat the environment, an endpoint beats a region, a key may not contradict one."""
    options, environ = sources(given)
    if PRECEDENCE[given].startswith("https://"):
        assert read_options(LOCATION, options, environ).endpoint == PRECEDENCE[given]
        assert read_options(LOCATION, options, environ).token == CANARY
    else:
        assert PRECEDENCE[given] in refusal(LOCATION, options, environ)


@pytest.mark.parametrize("name", ["region", "endpoint", "token"])
def test_option_in_lower_case_beats_the_environment_too(name: str) -> None:
    """Precedence does not depend on how an option is spelt."""
    options = {"region": "us-west-2", "endpoint": FROM_OPTIONS, "token": CANARY}
    environ = {
        "MOMENTO_REGION": "eu-west-1",
        "MOMENTO_ENDPOINT": FROM_ENVIRONMENT,
        "MOMENTO_API_KEY": "other",
    }
    read_one = read_options(LOCATION, {name: options[name]}, environ)

    assert (read_one.token == CANARY) is (name == "token")
    assert (read_one.endpoint == FROM_ENVIRONMENT) is (name == "token")


@pytest.mark.parametrize(
    ("options", "environ"),
    [({"REGION": "ap-south-1"}, {}), ({}, {"MOMENTO_REGION": "ap-south-1"})],
)
def test_key_may_repeat_the_region(options: dict[str, object], environ: dict[str, str]) -> None:
    """A v1 key and a REGION that agree are no contradiction."""
    token = v1_key(cell_host("ap-south-1"))
    read_both = read_options(LOCATION, {"TOKEN": token, **options}, environ)

    assert read_both.endpoint == ENDPOINTS["ap-south-1"]
    assert read_both.token == CANARY


@pytest.mark.parametrize("token", [CANARY, v1_key(cell_host("ap-south-1"))])
def test_token_may_come_from_the_environment(token: str) -> None:
    """MOMENTO_API_KEY holds a key of either kind."""
    environ = {"MOMENTO_API_KEY": token, "MOMENTO_REGION": "ap-south-1"}
    options = read_options(LOCATION, {}, environ)

    assert options.token == CANARY
    assert options.endpoint == ENDPOINTS["ap-south-1"]


@pytest.mark.parametrize("nothing", [{}, {"TOKEN": None, "REGION": None, "ENDPOINT": None}])
def test_none_leaves_the_choice_to_the_environment(nothing: dict[str, object]) -> None:
    """An option that is None is as good as left out."""
    environ = {"MOMENTO_API_KEY": CANARY, "MOMENTO_ENDPOINT": FROM_ENVIRONMENT}

    assert read_options(LOCATION, nothing, environ).endpoint == FROM_ENVIRONMENT


@pytest.mark.parametrize(
    ("options", "environ", "named"),
    [
        ({"REGION": "us-west-2"}, {}, ["TOKEN", "MOMENTO_API_KEY"]),
        ({"REGION": "us-west-2", "TOKEN": None}, {}, ["TOKEN", "MOMENTO_API_KEY"]),
        ({"REGION": "us-west-2"}, {"MOMENTO_API_KEY": ""}, ["TOKEN", "MOMENTO_API_KEY"]),
        ({"TOKEN": CANARY}, {}, ["REGION", "ENDPOINT", "MOMENTO_REGION", "MOMENTO_ENDPOINT"]),
        ({"TOKEN": CANARY}, {"MOMENTO_REGION": ""}, ["REGION", "ENDPOINT", "MOMENTO_REGION"]),
        ({"TOKEN": lambda: CANARY}, {}, ["REGION", "ENDPOINT"]),
    ],
)
def test_missing_option_is_named(
    options: dict[str, object], environ: dict[str, str], named: list[str]
) -> None:
    """The error says which option or which environment variable to set."""
    message = refusal(LOCATION, options, environ)

    assert repr(LOCATION) in message
    assert "missing" in message
    assert [name for name in named if name not in message] == []


@pytest.mark.parametrize(
    ("variable", "value", "option"),
    [
        ("MOMENTO_REGION", "mars", "REGION"),
        ("MOMENTO_ENDPOINT", f"https://u:{CANARY}@example.com", "ENDPOINT"),
        ("MOMENTO_API_KEY", f"{CANARY} {CANARY}", "TOKEN"),
    ],
)
def test_bad_variable_is_named(variable: str, value: str, option: str) -> None:
    """The error names the environment variable that holds the bad value, and its option."""
    environ = {"MOMENTO_API_KEY": CANARY, variable: value}

    assert f"{option} (from {variable}) must" in refusal(LOCATION, {}, environ)


@pytest.mark.parametrize(
    ("options", "environ"),
    [
        (
            {"TOKEN": CANARY, "ENDPOINT": FROM_OPTIONS},
            {"MOMENTO_API_KEY": "a b", "MOMENTO_ENDPOINT": "ftp://x", "MOMENTO_REGION": "mars"},
        ),
        ({"TOKEN": CANARY, "REGION": "us-west-2"}, {"MOMENTO_ENDPOINT": "ftp://x"}),
        ({"TOKEN": CANARY}, {"MOMENTO_ENDPOINT": FROM_OPTIONS, "MOMENTO_REGION": "mars"}),
    ],
)
def test_variables_that_do_not_count_are_not_judged(
    options: dict[str, object], environ: dict[str, str]
) -> None:
    """A bad value in a variable that another source overrides does no harm."""
    assert read_options(LOCATION, options, environ).endpoint in (
        FROM_OPTIONS,
        ENDPOINTS["us-west-2"],
    )


def test_process_environment_is_read_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed environment variable counts at once."""
    for variable in ("MOMENTO_REGION", "MOMENTO_ENDPOINT"):
        monkeypatch.delenv(variable, raising=False)
    found = []
    for region in ("us-west-2", "eu-west-1"):
        monkeypatch.setenv("MOMENTO_REGION", region)
        found.append(read_options(LOCATION, {"TOKEN": CANARY}).endpoint)

    assert found == [ENDPOINTS["us-west-2"], ENDPOINTS["eu-west-1"]]


def test_token_may_be_a_callable_or_a_path_to_one() -> None:
    """A callable is kept and not called while settings are read."""

    def ask() -> str:
        raise AssertionError

    assert read(TOKEN=ask).token is ask
    assert read(TOKEN="os.getcwd").token is os.getcwd


def test_token_that_looks_like_a_web_token_is_kept() -> None:
    """The dots of a JSON Web Token do not make it a dotted path."""
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"

    assert read(TOKEN=token).token == token


@pytest.mark.parametrize(
    ("given", "request_timeout", "connect_timeout"),
    [
        ({"REQUEST_TIMEOUT": 0.2}, 0.2, 0.2),
        ({"REQUEST_TIMEOUT": 5}, 5.0, 0.5),
        ({"CONNECT_TIMEOUT": 1}, 1.0, 1.0),
        ({"REQUEST_TIMEOUT": 3, "CONNECT_TIMEOUT": 3}, 3.0, 3.0),
        ({"REQUEST_TIMEOUT": 0.2, "CONNECT_TIMEOUT": 0.1}, 0.2, 0.1),
    ],
)
def test_default_connect_timeout_follows_a_short_deadline(
    given: dict[str, object], request_timeout: float, connect_timeout: float
) -> None:
    """Connecting never has more time than the operation."""
    options = read(**given)

    assert (options.request_timeout, options.connect_timeout) == (request_timeout, connect_timeout)


@pytest.mark.parametrize(
    "given", [{"CONNECT_TIMEOUT": 2}, {"REQUEST_TIMEOUT": 1, "CONNECT_TIMEOUT": 2}]
)
def test_contradictory_timeouts_are_refused(given: dict[str, object]) -> None:
    """An explicit CONNECT_TIMEOUT above the deadline is an error that names both."""
    message = refusal(LOCATION, {"TOKEN": CANARY, "REGION": "us-west-2", **given}, {})

    assert "CONNECT_TIMEOUT (2) must not be above REQUEST_TIMEOUT (1)" in message


@pytest.mark.parametrize("given", ["json", "django_momento_http.serializers.JSONSerializer"])
def test_serializer_is_found_by_name_or_path(given: str) -> None:
    """SERIALIZER names a built-in serializer or a class."""
    serializer = read(SERIALIZER=given).serializer

    assert serializer.name == given
    assert isinstance(serializer.codec, JSONSerializer)


@pytest.mark.parametrize("given", ["zlib", "django_momento_http.compressors.ZlibCompressor"])
def test_compressor_is_found_by_name_or_path(given: str) -> None:
    """COMPRESSOR names a built-in compressor or a class."""
    compressor = read(COMPRESSOR=given).compressor

    assert compressor is not None
    assert compressor.name == given
    assert isinstance(compressor.codec, ZlibCompressor)


def test_same_settings_are_remembered() -> None:
    """Reading the same settings again costs next to nothing: the very same options come back."""
    assert read(MAX_TTL=61) is read(MAX_TTL=61)
    assert read(MAX_TTL=61) is not read(MAX_TTL=62)


@pytest.mark.parametrize(
    ("option", "good", "bad"),
    [
        ("MAX_CONNECTIONS", 1, True),
        ("MAX_CONNECTIONS", 1, 1.0),
        ("CLEAR_MAX_AGE", 0, False),
        ("NEAR_MAX_AGE", 1, True),
        ("ALLOW_PLAIN_HTTP", True, 1),
    ],
)
def test_equal_values_of_other_types_are_not_confused(
    option: str, good: object, bad: object
) -> None:
    """A remembered 1 does not make True acceptable, nor the other way round."""
    read(**{option: good})
    options = {"TOKEN": CANARY, "REGION": "us-west-2", option: bad}

    assert option in refusal(LOCATION, options, {})


def test_memory_is_bounded() -> None:
    """A process that reads ever new settings does not keep them all."""
    first = weakref.ref(read(MAX_TTL=1_000_000))
    assert first() is not None

    for seconds in range(1, 1001):
        read(MAX_TTL=1_000_000 + seconds)

    assert first() is None


def test_representation_shows_no_secret() -> None:
    """The options can be printed: token, signing key and proxy password are left out."""
    options = read(SIGNING_KEY=f"s{CANARY}", PROXY=f"http://u:{CANARY}@proxy.example:3128")

    assert CANARY not in repr(options)
    assert LOCATION in repr(options)


def test_options_find_things_by_value() -> None:
    """Equal options are one key of a dictionary."""
    assert hash(read(MAX_TTL=5, ON_ERROR="raise")) == hash(read(ON_ERROR="raise", MAX_TTL=5))
    assert read(MAX_TTL=5, ON_ERROR="raise") == read(ON_ERROR="raise", MAX_TTL=5)


def test_canary_would_be_seen() -> None:
    """The search for the canary finds it in an error that does show it."""
    with pytest.raises(AssertionError):
        refusal(LOCATION, {"TOKEN": "a", "REGION": CANARY[:16]}, {})
