"""uWSGI, which forks its workers without a hook of Python's, from a master that used the cache."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from django_momento_http.testing import RunningServer
from tests.support.serving import LOAD_SECONDS, Load, ask_either, site_in, started

UWSGI = Path(sys.executable).parent / "uwsgi"
COMMAND = [
    *(str(UWSGI), "--master", "--no-orphans", "--need-app", "--die-on-term", "--disable-logging"),
    *("--processes", "4", "--http-socket", "127.0.0.1:0", "--home", sys.prefix),
    *("--module", "site_under_load:wsgi"),
]

pytestmark = pytest.mark.skipif(
    not UWSGI.exists(), reason="uWSGI is not installed: it has no wheels, and needs a C compiler"
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, RunningServer]]:
    """The site's folder, and the service with all values in place."""
    with site_in(tmp_path) as server:
        yield tmp_path, server


@pytest.mark.parametrize("threads", [[], ["--enable-threads"]], ids=["", "threads"])
@pytest.mark.parametrize("warm", ["sync", "async"])
def test_workers_share_nothing_with_a_warm_master(
    warm: str, threads: list[str], site: tuple[Path, RunningServer]
) -> None:
    """All four serve the right values to sync and async views, none crashes, and all end."""
    folder, server = site
    with started(folder, server, *COMMAND, *threads, warm=warm) as (port, process):
        load = Load(port, ask_either)
        load.run(LOAD_SECONDS / 3, answers=300, workers=4)
        assert load.wrong == []
        assert load.answers >= 300
        assert len(load.pids - {process.pid}) == 4
