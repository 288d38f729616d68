"""gevent and eventlet: calls that are timed out, and greenlets that are killed, at any moment."""

import importlib.util
from typing import Any

import pytest

from tests.support.sizes import sized

from .conftest import Options
from .harness import report_of

NEEDS = "needs {0}: pip install 'django-momento-http[integrations]'"


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_what_is_cut_short_leaves_all_whole(library: str, options: Options) -> None:
    """Limits come out as they are; no slot, value or descriptor is lost to them."""
    if importlib.util.find_spec(library) is None:
        pytest.skip(NEEDS.format(library))
    report: dict[str, Any] = report_of("greenlets", library, sized(300, 20_000), 1, **options())
    assert report["strays"] == report["wrong"] == []
    assert report["slots"] == report["connections"]
    assert report["calls"] > report["cut"]["timed out"]
    assert min(report["cut"].values()) > 10
    assert report["more_descriptors"] <= report["connections"]
    assert report["more_threads"] <= 2
    # What a library allots once weighs more where there are few.
    assert report["blocks_each"] < sized(40, 10)
