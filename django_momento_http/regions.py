"""Which HTTP endpoint serves which region.

The rows are those of the service's regions page; it knows nothing of settings or credentials.
"""

_CELLS = {
    "us-east-1": "cell-us-east-1-1",
    "us-east-2": "cell-1-us-east-2-1",
    "us-west-2": "cell-4-us-west-2-1",
    "eu-west-1": "cell-1-eu-west-1-1",
    "eu-west-2": "cell-1-eu-west-2-1",
    "eu-central-1": "cell-1-eu-central-1-1",
    "eu-north-1": "cell-1-eu-north-1-1",
    "ap-south-1": "cell-1-ap-south-1-1",
    "ap-northeast-1": "cell-ap-northeast-1-1",
    "ap-southeast-1": "cell-1-ap-southeast-1-1",
    "ap-southeast-2": "cell-1-ap-southeast-2-1",
}


def endpoint_of_host(cell_host: str) -> str:
    """Return the HTTP endpoint of a cell, given the cell's bare host name."""
    return f"https://api.cache.{cell_host}"


ENDPOINTS = {
    region: endpoint_of_host(f"{cell}.prod.a.momentohq.com") for region, cell in _CELLS.items()
}
