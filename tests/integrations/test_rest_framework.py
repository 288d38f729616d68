"""Django REST framework's throttles, which keep their history in the default cache."""

from collections.abc import Callable
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path

from django_momento_http.exceptions import ServiceFailed
from django_momento_http.testing import RunningServer

NEEDS = "needs Django REST framework: pip install 'django-momento-http[integrations]'"
pytest.importorskip("rest_framework", reason=NEEDS)

from rest_framework.response import Response  # noqa: E402
from rest_framework.throttling import AnonRateThrottle  # noqa: E402
from rest_framework.views import APIView  # noqa: E402


class ThreePerMinute(AnonRateThrottle):
    """Three requests a minute for each address."""

    rate = "3/min"


class View(APIView):
    """A view with a throttle."""

    authentication_classes = ()
    permission_classes = ()
    throttle_classes = (ThreePerMinute,)

    def get(self, request: HttpRequest) -> HttpResponse:
        """Answer."""
        return Response("here you are")


urlpatterns = [path("limited", View.as_view())]


def statuses(count: int, **headers: str) -> list[int]:
    """Return the status of so many requests."""
    return [Client().get("/limited", **headers).status_code for _ in range(count)]


@pytest.fixture(autouse=True)
def _without_database(settings: Any) -> None:
    settings.REST_FRAMEWORK = {"UNAUTHENTICATED_USER": None}


def test_the_limit_holds(momento_server: RunningServer) -> None:
    """What is over the limit gets 429 with the time to wait; other addresses are not concerned."""
    assert statuses(4) == [200, 200, 200, 429]
    assert int(Client().get("/limited").headers["Retry-After"]) in range(61)
    assert statuses(1, REMOTE_ADDR="127.0.0.2") == [200]


def test_the_limit_ends(momento_server: RunningServer) -> None:
    """After its duration the history is gone from the cache."""
    assert statuses(4)[-1] == 429
    momento_server.advance(61)
    assert statuses(1) == [200]


def test_an_outage_with_miss(
    momento_server: RunningServer, start_outage: Callable[[RunningServer], None]
) -> None:
    """With ON_ERROR "miss" nothing is limited while the service is down."""
    assert statuses(4)[-1] == 429
    start_outage(momento_server)
    assert statuses(5) == [200] * 5


def test_an_outage_with_raise(
    configured: Callable[..., RunningServer], start_outage: Callable[[RunningServer], None]
) -> None:
    """With ON_ERROR "raise" the view fails with an error that says why."""
    start_outage(configured(ON_ERROR="raise"))
    with pytest.raises(ServiceFailed, match="default-cache"):
        statuses(1)
