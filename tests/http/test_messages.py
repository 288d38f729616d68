"""Responses: what a parser makes of the bytes of one answer, in whatever pieces they come."""

import sys

import pytest
from httptools import HttpParserError
from hypothesis import given, settings
from hypothesis import strategies as st

from django_momento_http._http.messages import ResponseParser
from tests.support.scripted import response

CHUNKED = "Transfer-Encoding: chunked"


def parse(data: bytes, size: int = 65536) -> ResponseParser:
    parser = ResponseParser()
    for start in range(0, len(data), size):
        parser.feed(data[start : start + size])
    return parser


@pytest.mark.parametrize("size", [1, 7, 65536])
@pytest.mark.parametrize(
    ("data", "status", "body"),
    [
        (response(200, b"value"), 200, b"value"),
        (response(200, b""), 200, b""),
        (response(200, b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", CHUNKED, length=None), 200, b"abcde"),
        (response(200, b"3;x=y\r\nabc\r\n0\r\n\r\n", CHUNKED, length=None), 200, b"abc"),
        (response(200, b"3\r\nabc\r\n0\r\n\r\n", CHUNKED.upper(), length=None), 200, b"abc"),
        (response(100, b"", length=None) + response(200, b"value"), 200, b"value"),
        (response(103, b"", "Link: x", length=None) * 3 + response(200, b"value"), 200, b"value"),
        (response(204), 204, b""),
        (response(304, b"", length=5), 304, b""),
        (response(404, b"Key Not Found"), 404, b"Key Not Found"),
        (response(200, b"value", "Upgrade: h2", "Connection: Upgrade"), 200, b"value"),
    ],
    ids=range(11),
)
def test_a_whole_answer_is_read(data: bytes, status: int, body: bytes, size: int) -> None:
    """An answer means the same in one piece and byte by byte."""
    parser = parse(data.replace(b" 204 Whatever\r\n\r\nvalue", b" 204 Whatever\r\n\r\n"), size)
    assert (parser.status, b"".join(parser.parts), parser.complete) == (status, body, True)
    assert parser.is_framed


@pytest.mark.parametrize(
    "data",
    [
        response(200, b"value", "Content-Length: 5"),
        response(200, b"value", "Content-Length: 6"),
        response(200, b"0\r\n\r\n", CHUNKED),
        response(200, b"0\r\n\r\n", "Content-Length: 5", CHUNKED, length=None),
        response(200, b"abc", "Content-Length: +3", length=None),
        response(200, b"abc", "Content-Length: 3, 3", length=None),
        response(200, b"abc", "Content-Length:", length=None),
        response(200, b"abc", "Content-Length : 3", length=None),
        response(200, b"abc", "Content-Length: 99999999999999999999999", length=None),
        response(200, b"abc", "X-Folded: a\r\n b"),
        response(200, b"abc", "X-Nul: a\0b"),
        response(200, b"xyz\r\nabc\r\n0\r\n\r\n", CHUNKED, length=None),
        response(200, b"-3\r\nabc\r\n0\r\n\r\n", CHUNKED, length=None),
        b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc",
        b"ICY 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        response(200, b"value") + response(200, b"other"),
        response(200, b"value") + b"H",
        response(200, b"value", "Connection: close") + response(200, b"other"),
        response(204, b"") + response(204, b""),
        response(204, b"") + b"H",
    ],
    ids=range(21),
)
def test_an_ambiguous_or_second_answer_is_refused(data: bytes) -> None:
    """Bytes that two readers could understand differently are no answer."""
    with pytest.raises(HttpParserError):
        parse(data)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([], b"value"),
        ([], b"a\r\n\r\nb"),
        (["Content-Length: 5"], b"value"),
        (["Content-Length: 5"], b""),
        ([CHUNKED], b"5\r\nvalue\r\n0\r\n\r\n"),
        ([CHUNKED], b""),
        (["Connection: close"], b"value"),
    ],
    ids=range(7),
)
def test_a_body_of_a_204_ends_the_connection_and_changes_nothing(
    headers: list[str], body: bytes
) -> None:
    """What was done was done, whatever a server says besides; what it says is nobody's answer."""
    head = "\r\n".join(["HTTP/1.1 204 No Content", *headers, "", ""]).encode()
    parser = parse(head + body)
    assert (parser.status, parser.complete, parser.parts) == (204, True, [])
    assert not parser.keep_alive


def test_a_length_of_nothing_does_not_end_a_connection() -> None:
    """Many servers say that a 204 has no body."""
    assert parse(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n").keep_alive


@pytest.mark.parametrize(
    ("headers", "is_framed"),
    [
        (["Content-Length: 3"], True),
        ([CHUNKED], True),
        (["transfer-encoding:   Chunked  "], True),
        ([], False),
        (["Transfer-Encoding: gzip"], False),
        (["Transfer-Encoding: gzip, chunked"], False),
        (["Transfer-Encoding: gzip", CHUNKED], False),
        (["Transfer-Encoding: identity"], False),
    ],
)
def test_only_a_length_or_plain_chunks_end_a_body(headers: list[str], is_framed: bool) -> None:
    """A body whose end or coding is not plain cannot be told from a broken one."""
    assert parse(response(200, b"", *headers, length=None)).is_framed is is_framed


@pytest.mark.parametrize(
    ("data", "keep_alive"),
    [
        (response(200), True),
        (response(200, b"value", "Connection: close"), False),
        (response(200, b"value", "connection: foo, CLOSE"), False),
        (response(200).replace(b"1.1", b"1.0"), False),
        (response(200, b"value", "Connection: keep-alive").replace(b"1.1", b"1.0"), True),
        (response(200, b"value", length=None), False),
    ],
)
def test_the_connection_is_kept_only_when_the_peer_keeps_it(data: bytes, keep_alive: bool) -> None:
    """``Connection``, the version and the framing decide whether there may be a next request."""
    assert parse(data).keep_alive is keep_alive


def test_header_names_are_found_in_any_case() -> None:
    """A header's name has no case."""
    assert parse(response(200, b"", "rETRY-aFTER: 3")).headers[b"retry-after"] == b"3"


def test_an_interim_answer_leaves_nothing_behind() -> None:
    """Neither headers nor a body of an interim answer become part of the final one."""
    interim = b"HTTP/1.1 099 Odd\r\nContent-Length: 3\r\nContent-Encoding: br\r\n\r\nxyz"
    parser = parse(interim + response(200, b"value"))
    assert b"".join(parser.parts) == b"value"
    assert parser.received == len(b"value")
    assert b"content-encoding" not in parser.headers


def test_trailers_change_nothing() -> None:
    """What follows the last chunk is neither believed nor kept."""
    trailers = b"3\r\nabc\r\n0\r\nContent-Encoding: br\r\nX-More: x\r\n\r\n"
    parser = parse(response(200, trailers, CHUNKED, length=None))
    assert parser.complete
    assert parser.headers == {b"transfer-encoding": b"chunked"}


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 300), st.booleans())
def test_hostile_bytes_raise_nothing_but_parser_errors(data: bytes, size: int, lead: bool) -> None:
    """Whatever comes, the parser says so in its own words."""
    try:
        parser = parse((b"HTTP/1.1 200 OK\r\n" if lead else b"") + data, size)
    except HttpParserError:
        return
    assert isinstance(parser.is_framed, bool)


def test_no_code_of_python_runs_within_the_parser() -> None:
    """What a signal handler raises in a callback would be lost where an exception is handled."""
    parser, run = ResponseParser(), list[str]()
    many = response(103, b"", "Link: x", length=None) + response(
        200, b"3\r\nabc\r\n0\r\nX-More: x\r\n\r\n", CHUNKED, length=None
    )
    sys.setprofile(lambda frame, event, _: run.append(frame.f_code.co_name + event))
    try:
        parser._http.feed_data(many)
    finally:
        sys.setprofile(None)
    assert [one for one in run if one.endswith(("call", "return")) and "c_" not in one] == []
    parser.feed(b"")
    assert (parser.status, parser.parts, parser.complete) == (200, [b"abc"], True)
