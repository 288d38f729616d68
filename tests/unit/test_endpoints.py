"""Endpoints and proxies: one normal form for what is usable, a reason for what is not."""

import pytest

from django_momento_http._conf.endpoints import (
    is_plain_to_elsewhere,
    parse_cell_host,
    parse_endpoint,
    parse_proxy,
)

CELL = "cell-1-eu-west-1-1.prod.a.momentohq.com"
# Drawn at random once, so that the names of the tests stay the same from run to run.
CANARY = "3f9c0b7e5d1a4862c7e0915bd84f2a6e"


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        (CELL, f"https://api.cache.{CELL}"),
        (CELL.upper(), f"https://api.cache.{CELL}"),
        (f"{CELL}:8443", f"https://api.cache.{CELL}:8443"),
        (f"{CELL}/", f"https://api.cache.{CELL}"),
        (f"api.cache.{CELL}", f"https://api.cache.{CELL}"),
        (f"https://api.cache.{CELL}", f"https://api.cache.{CELL}"),
        (f"https://{CELL}", f"https://{CELL}"),
        (f"https://api.cache.{CELL}/", f"https://api.cache.{CELL}"),
        (f"https://api.cache.{CELL}:443", f"https://api.cache.{CELL}"),
        ("HTTPS://Example.COM:8443/", "https://example.com:8443"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://localhost:80", "http://localhost"),
        ("http://127.0.0.1:1", "http://127.0.0.1:1"),
        ("http://[::1]:65535", "http://[::1]:65535"),
        ("http://[0:0:0:0:0:0:0:1]", "http://[::1]"),
        ("http://momento_server:8080", "http://momento_server:8080"),
    ],
)
def test_usable_endpoint_has_one_normal_form(given: str, endpoint: str) -> None:
    """A URL is kept without its default port and slash; a bare host is that of a cell."""
    assert parse_endpoint(given) == endpoint


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("", "host"),
        (None, "string"),
        (5, "string"),
        (b"https://example.com", "string"),
        ("https://", "host"),
        ("https:///", "host"),
        ("https://:443", "host"),
        ("ftp://example.com", "https://"),
        ("ws://example.com", "https://"),
        ("//example.com", "path"),
        ("https:example.com", "form"),
        ("https://user@example.com", "TOKEN"),
        (f"https://user:{CANARY}@example.com", "TOKEN"),
        (f"user:{CANARY}@example.com", "full URL"),
        (f"https://user:{CANARY}@", "host"),
        (f"https://{CANARY}:{CANARY}", "form"),
        (f"https://example.com/{CANARY}", "path"),
        (f"https://example.com?token={CANARY}", "query"),
        (f"https://example.com#{CANARY}", "fragment"),
        ("https://example.com/cache/my-cache", "path"),
        ("https://example.com?", "query"),
        ("https://example.com:0", "port"),
        ("https://example.com:65536", "port"),
        ("https://example.com:", "form"),
        ("https://example.com:https", "form"),
        ("https://example.com:٤٤٣", "ASCII"),
        (" https://example.com", "whitespace"),
        ("https://example.com\n", "whitespace"),
        ("https://exa\tmple.com", "whitespace"),
        ("https://exam ple.com", "whitespace"),
        ("https://example.com\x00", "control"),
        ("https://bücher.example", "ASCII"),
        ("https://example..com", "host"),
        ("https://-example.com", "host"),
        ("https://example.com.", "host"),
        ("https://exa%6dple.com", "host"),
        ("https://example.com\\@other.example", "TOKEN"),
        ("https://example.com\\other.example", "host"),
        ("https://" + "a" * 64 + ".com", "host"),
        ("https://" + "a." * 127 + "com", "host"),
        ("https://127.1", "host"),
        ("https://127.0.0.256", "host"),
        ("https://0x7f.1", "host"),
        ("https://127.0.0.0x1", "host"),
        ("https://2130706433", "host"),
        ("https://[::g]", "host"),
        ("https://[fe80::1%25eth0]", "host"),
        ("https://[::1", "form"),
        ("https://::1", "form"),
        ("https://[::1]example.com", "form"),
        ("https://[::1]example.com:443", "form"),
        ("https://example.com[::1]", "form"),
        ("localhost", "full URL"),
        ("localhost:8080", "full URL"),
        ("127.0.0.1:8080", "full URL"),
        ("[::1]:8080", "full URL"),
    ],
)
def test_unusable_endpoint_is_refused_with_its_reason(given: object, reason: str) -> None:
    """The error says which part is wrong, and shows nothing of the URL but the part's name."""
    with pytest.raises(ValueError, match=reason) as caught:
        parse_endpoint(given)

    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    ("endpoint", "is_plain"),
    [
        ("https://example.com", False),
        ("https://127.0.0.1", False),
        ("http://localhost", False),
        ("http://localhost:8080", False),
        ("http://127.0.0.1:8080", False),
        ("http://127.255.0.9", False),
        ("http://[::1]:8080", False),
        ("http://example.com", True),
        ("http://localhost.example.com", True),
        ("http://127.example.com", True),
        ("http://128.0.0.1", True),
        ("http://10.0.0.1:8080", True),
        ("http://0.0.0.0", True),
        ("http://[::2]", True),
        ("http://momento_server", True),
    ],
)
def test_plain_http_is_seen_where_it_leaves_the_host(endpoint: str, *, is_plain: bool) -> None:
    """Only http to an address that is not a loopback one crosses a network unencrypted."""
    assert is_plain_to_elsewhere(endpoint) is is_plain


def test_cell_host_leads_to_its_endpoint() -> None:
    """The bare host of a cell, as a v1 key holds it, gives the HTTP endpoint."""
    assert parse_cell_host(CELL) == f"https://api.cache.{CELL}"


@pytest.mark.parametrize("given", [None, "", f"https://{CELL}", f"a@{CELL}", "cell", "10.0.0.1"])
def test_anything_but_a_cell_host_is_refused(given: object) -> None:
    """A v1 key cannot send requests to a URL, an address or a local name."""
    with pytest.raises(ValueError, match="must"):
        parse_cell_host(given)


@pytest.mark.parametrize(
    ("given", "proxy"),
    [
        ("http://proxy.example:3128", "http://proxy.example:3128"),
        ("HTTP://Proxy.Example:3128/", "http://proxy.example:3128"),
        ("http://proxy.example:80", "http://proxy.example:80"),
        ("http://10.0.0.1:3128", "http://10.0.0.1:3128"),
        ("http://[::1]:3128", "http://[::1]:3128"),
        ("http://User:p%40ss@proxy.example:3128", "http://User:p%40ss@proxy.example:3128"),
    ],
)
def test_usable_proxy_is_kept_with_its_credentials(given: str, proxy: str) -> None:
    """The proxy's URL keeps user name and password exactly as written."""
    assert parse_proxy(given) == proxy


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("", "host"),
        (None, "string"),
        (3128, "string"),
        ("proxy.example:3128", "http://"),
        (f"https://u:{CANARY}@proxy.example:3128", "http://"),
        (f"socks5://u:{CANARY}@proxy.example:1080", "http://"),
        (f"http://u:{CANARY}@proxy.example", "port"),
        (f"http://u:{CANARY}@proxy.example:0", "port"),
        (f"http://u:{CANARY}/x@proxy.example:3128", "form"),
        (f"http://u:{CANARY}@proxy.example:3128/path", "path"),
        (f"http://u:{CANARY} @proxy.example:3128", "whitespace"),
        (f"http://u:{CANARY}@:3128", "host"),
        (f"http://u:{CANARY}[@proxy.example:3128", "form"),
    ],
)
def test_unusable_proxy_is_refused_with_its_reason(given: object, reason: str) -> None:
    """Any other kind of proxy, or half a URL, is an error that does not show the password."""
    with pytest.raises(ValueError, match=reason) as caught:
        parse_proxy(given)

    assert CANARY not in str(caught.value)
