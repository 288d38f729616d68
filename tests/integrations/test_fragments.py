"""Django's cached template fragments."""

import itertools
from collections.abc import Callable

import pytest
from django.core.cache import cache
from django.core.cache.utils import make_template_fragment_key
from django.template import Context, Engine

from django_momento_http.testing import RunningServer

TEMPLATE = "{% load cache %}{% cache 60 aside user %}{{ numbers.next }}{% endcache %}"


class Numbers:
    """Numbers that are never given twice."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def next(self) -> int:
        """Return the next one."""
        return next(self._numbers)


@pytest.fixture
def render() -> Callable[[str], str]:
    """A function that renders the fragment for a user."""
    engine = Engine(libraries={"cache": "django.templatetags.cache"})
    template, numbers = engine.from_string(TEMPLATE), Numbers()
    return lambda user: template.render(Context({"user": user, "numbers": numbers}))


def test_a_fragment_is_computed_once(
    momento_server: RunningServer, render: Callable[[str], str]
) -> None:
    """Each user has a fragment, which lives as long as it says."""
    assert [render("ada"), render("ada"), render("bob")] == ["0", "0", "1"]
    momento_server.advance(61)
    assert render("ada") == "2"


def test_a_fragment_can_be_dropped(
    momento_server: RunningServer, render: Callable[[str], str]
) -> None:
    """``make_template_fragment_key`` names the fragment to delete, and no other's."""
    assert [render("ada"), render("bob")] == ["0", "1"]
    assert cache.delete(make_template_fragment_key("aside", ["ada"]))
    assert [render("ada"), render("bob")] == ["2", "1"]


def test_an_outage(
    momento_server: RunningServer,
    start_outage: Callable[[RunningServer], None],
    render: Callable[[str], str],
) -> None:
    """While the service is down fragments are computed each time."""
    assert render("ada") == "0"
    start_outage(momento_server)
    assert [render("ada"), render("ada")] == ["1", "2"]
