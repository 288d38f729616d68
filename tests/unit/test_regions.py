"""The regions table against the service's regions page."""

import pytest

from django_momento_http._conf.endpoints import ENDPOINTS, endpoint_of_host

HOSTS = {
    "us-east-1": "api.cache.cell-us-east-1-1.prod.a.momentohq.com",
    "us-east-2": "api.cache.cell-1-us-east-2-1.prod.a.momentohq.com",
    "us-west-2": "api.cache.cell-4-us-west-2-1.prod.a.momentohq.com",
    "eu-west-1": "api.cache.cell-1-eu-west-1-1.prod.a.momentohq.com",
    "eu-west-2": "api.cache.cell-1-eu-west-2-1.prod.a.momentohq.com",
    "eu-central-1": "api.cache.cell-1-eu-central-1-1.prod.a.momentohq.com",
    "eu-north-1": "api.cache.cell-1-eu-north-1-1.prod.a.momentohq.com",
    "ap-south-1": "api.cache.cell-1-ap-south-1-1.prod.a.momentohq.com",
    "ap-northeast-1": "api.cache.cell-ap-northeast-1-1.prod.a.momentohq.com",
    "ap-southeast-1": "api.cache.cell-1-ap-southeast-1-1.prod.a.momentohq.com",
    "ap-southeast-2": "api.cache.cell-1-ap-southeast-2-1.prod.a.momentohq.com",
}


@pytest.mark.parametrize(("region", "host"), HOSTS.items())
def test_region_has_the_endpoint_of_its_cell(region: str, host: str) -> None:
    """Every region of the page leads to its own cell, over TLS."""
    assert ENDPOINTS[region] == f"https://{host}"


def test_no_other_region_is_known() -> None:
    """A region that the page does not list has no endpoint."""
    assert set(ENDPOINTS) == set(HOSTS)


def test_private_cell_follows_the_same_pattern() -> None:
    """The host of a private cell gives an endpoint as the public ones do."""
    assert endpoint_of_host("cell-9.example.com") == "https://api.cache.cell-9.example.com"
