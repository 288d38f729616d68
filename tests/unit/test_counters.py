"""Counters: what a client did, added up by many threads."""

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from django_momento_http._client.counters import Counters


def test_a_fresh_client_has_done_nothing() -> None:
    """All counts begin at zero."""
    assert Counters().snapshot() == {
        "requests": 0,
        "hits": 0,
        "misses": 0,
        "sets": 0,
        "deletes": 0,
        "refreshes": 0,
        "waited": 0,
        "errors": {},
        "retries": 0,
        "hedges": 0,
        "hedges_won": 0,
        "bytes_in": 0,
        "bytes_out": 0,
        "billed_operations": 0,
        "paid": 0,
        "near_hits": 0,
        "near_entries": 0,
        "near_bytes": 0,
        "near_evictions": 0,
        "near_stale": 0,
    }


def test_what_was_asked_again_is_counted_and_billed_like_the_first() -> None:
    """Two hedges of a value of three KiB are two requests and six operations."""
    counters = Counters()
    counters.moved(0, 2500, 10)
    counters.hedged(2, 2500, 10, has_won=True)
    counters.lost("rate_limited")
    counts = counters.snapshot()
    assert (counts["requests"], counts["hedges"], counts["hedges_won"]) == (3, 2, 1)
    assert (counts["billed_operations"], counts["bytes_in"]) == (9, 2500)
    assert counts["errors"] == {"rate_limited": 1}


@pytest.mark.parametrize(
    ("sent", "received", "key_size", "billed"),
    [
        (0, 0, 100, 1),  # a miss, a delete
        (0, 1, 1, 1),
        (0, 1023, 1, 1),
        (0, 1024, 1, 2),
        (1020, 0, 4, 1),
        (1021, 0, 4, 2),
        (0, 133 * 1024, 0, 133),
    ],
)
def test_each_started_kib_of_item_is_billed(
    sent: int, received: int, key_size: int, billed: int
) -> None:
    """An item is its key and its value, and every request is billed at least once."""
    counters = Counters()
    counters.moved(sent, received, key_size)
    counts = counters.snapshot()
    assert counts["billed_operations"] == billed
    assert (counts["bytes_out"], counts["bytes_in"]) == (sent, received)


def test_errors_are_counted_by_kind_and_requests_only_when_sent() -> None:
    """What was never sent is an error and no request."""
    counters = Counters()
    counters.failed("timeout")
    counters.failed("timeout")
    counters.failed("circuit_open", was_sent=False)
    counts = counters.snapshot()
    assert counts["errors"] == {"timeout": 2, "circuit_open": 1}
    assert counts["requests"] == 2


def test_no_count_is_lost_between_threads() -> None:
    """Threads that count at the same time lose nothing."""
    counters = Counters()

    def count(_: int) -> None:
        for _ in range(500):
            counters.moved(1, 0, 0)
            counters.served("hits")
            counters.retried()
            counters.failed("timeout")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(8)))
    counts = counters.snapshot()
    assert (counts["requests"], counts["hits"], counts["retries"]) == (8000, 4000, 4000)
    assert counts["errors"] == {"timeout": 4000}


def test_a_snapshot_does_not_change() -> None:
    """What was handed out stays as it was."""
    counters = Counters()
    before = counters.snapshot()
    counters.failed("timeout")
    assert before["errors"] == {}


def test_what_nobody_asks_for_takes_no_memory() -> None:
    """Counts of a million requests that nobody ever looks at are a few numbers."""
    counters = Counters()
    for _ in range(5000):
        counters.moved(1, 0, 0)
        counters.served("hits")
    assert len(counters._moved) + len(counters._given) < 2000
    counts = counters.snapshot()
    assert (counts["requests"], counts["hits"]) == (5000, 5000)


def test_a_signal_handler_that_looks_while_counts_are_added_up_loses_none() -> None:
    """What a handler has added up in the middle of it is counted once."""
    counters = Counters()
    for _ in range(20):
        counters.moved(1, 0, 0)
    left = 30

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_name == "_next":
            left -= 1
            if left == 0 or left == 20:
                sys.settrace(None)
                counters.snapshot()
                sys.settrace(trace)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        counts = counters.snapshot()
    finally:
        sys.settrace(before)
    assert counts["requests"] == counts["bytes_out"] == 20
