"""Holds what the example promises: one command, fast second visits, edits that show at once.

The example runs as a user runs it, in a process of its own, and is visited over HTTP; nothing here
imports it.
"""

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from pathlib import Path

import pytest
import requests

from django_momento_http.testing import running_server

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "example_project"
SETTINGS = EXAMPLE / "mysite" / "settings.py"
PROCESSES = Path("/proc/self/environ")
SECRETS = ("EXAMPLE_SECRET_KEY", "MOMENTO_API_KEY")
LONGEST_WAIT = 30  # seconds for a process that hangs; none of them should


class Site:
    """The example in a process of its own, and a visitor."""

    def __init__(self, command: list[str], environ: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,  # read no further than the line that is asked for
            start_new_session=True,  # so that a signal to the group is what Ctrl-C is
            # A test run in the background ignores SIGINT and would pass that on.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.output = ""
        self.visitor = new_visitor()

    @cached_property
    def address(self) -> str:
        """Read the process's output until it says where it is."""
        return self.read_until(r"(?:Open|running on) (http://[\d.]+:\d+)")

    @cached_property
    def local_server(self) -> str:
        """Read on until it says where its local server is."""
        assert self.address
        return self.read_until(r"a local server \((http://[\d.]+:\d+)\)")

    def read_until(self, pattern: str) -> str:
        """Read the process's output up to a line, and give what was looked for in it."""
        for line in self.process.stdout:
            self.output += line.decode()
            if found := re.search(pattern, line.decode()):
                return found.group(1)
        raise AssertionError(self.output)

    def get(self, path: str) -> str:
        """Give the text of a page."""
        response = self.visitor.get(self.address + path, timeout=LONGEST_WAIT)
        # On an older connection, the kernel holds the second half of each answer back for 40 ms.
        self.visitor.close()

        assert response.status_code == 200, response.text[:2000]
        return response.text

    def save(self, path: str, **fields: str) -> requests.Response:
        """Fill in the form on a page and send it."""
        token = re.search(r'csrfmiddlewaretoken" value="(\w+)"', self.get(path)).group(1)
        data = {"csrfmiddlewaretoken": token, **fields}
        return self.visitor.post(self.address + path, data=data, timeout=LONGEST_WAIT)

    def rest_of_output(self) -> str:
        """Wait until no process holds the output any more: not the site, not a child of it."""
        self.output += self.process.communicate(timeout=LONGEST_WAIT)[0].decode()
        return self.output

    def end(self) -> None:
        """End whatever is left."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.rest_of_output()
        self.process.stdout.close()
        self.visitor.close()


def new_visitor() -> requests.Session:
    """Give a visitor without cookies."""
    visitor = requests.Session()
    visitor.trust_env = False
    return visitor


def visited_anew(site: Site) -> Site:
    """Give the site with a new visitor."""
    site.visitor.close()
    site.visitor = new_visitor()
    return site


def without_account(directory: Path) -> dict[str, str]:
    """Give an environment without an account and with a database of its own."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MOMENTO_", "DJANGO_"))}
    return {
        **inherited,
        "EXAMPLE_DATABASE": str(directory / "example.sqlite3"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [inherited.get("PYTHONPATH")])]),
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "error",
    }


@contextmanager
def starting(environ: dict[str, str]) -> Iterator[Callable[..., Site]]:
    """Give a function that starts the example, by default as `manage.py runserver` does."""
    sites = []

    def start_site(*command: str, **more: str) -> Site:
        command = command or ("runserver", "--noreload", "0")
        if command[0] == "runserver":
            command = (str(EXAMPLE / "manage.py"), *command)
        sites.append(Site([sys.executable, *command], environ | more))
        return sites[-1]

    try:
        yield start_site
    finally:
        for site in sites:
            site.end()


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment without an account."""
    return without_account(tmp_path)


@pytest.fixture
def start(environ: dict[str, str]) -> Iterator[Callable[..., Site]]:
    """A function that starts the example; what it started ends with the test."""
    with starting(environ) as start_site:
        yield start_site


def manage(environ: dict[str, str], *arguments: str) -> str:
    """Run one of the example's other commands to its end."""
    command = [sys.executable, EXAMPLE / "manage.py", *arguments]
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=LONGEST_WAIT
    )

    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


PAGES = ("/pole-to-pole/", "/", "/lights/fastnet/", "/tonight/")


def python(environ: dict[str, str], program: str, **more: str) -> str:
    """Run a program that can import the example, and give what it prints."""
    path = os.pathsep.join([str(EXAMPLE), environ["PYTHONPATH"]])
    environ = {**environ, "PYTHONPATH": path, **more}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, timeout=LONGEST_WAIT
    )

    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode().strip()


@pytest.fixture(scope="module")
def visited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, list[str]]]:
    """The example, each of whose pages was visited once, with what that showed."""
    with starting(without_account(tmp_path_factory.mktemp("visited"))) as start_site:
        site = start_site()
        yield site, [site.get(path) for path in PAGES]


@pytest.fixture
def site(visited: tuple[Site, list[str]]) -> Site:
    """That site, with a new visitor."""
    return visited_anew(visited[0])


@pytest.fixture(scope="module")
def two_started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Site]]:
    """Two that start at once, beside one database that is not there yet."""
    with starting(without_account(tmp_path_factory.mktemp("two"))) as start_site:
        yield start_site(), start_site()


@pytest.fixture
def two_sites(two_started: tuple[Site, Site]) -> tuple[Site, Site]:
    """Those two, each with a new visitor."""
    one, other = two_started
    return visited_anew(one), visited_anew(other)


def verdict(page: str) -> str:
    """Read whether the page was computed or came from the cache."""
    return re.search(r'class="verdict[^>]*>([^<]+)<', page).group(1)


def reload(site: Site, path: Path) -> None:
    """Change a file's time until the site sees it, which it may not before it has seen the file."""
    for seconds in range(LONGEST_WAIT):
        moment = time.time() + seconds
        os.utime(path, (moment, moment))
        while select.select([site.process.stdout], [], [], 2)[0]:
            line = site.process.stdout.readline().decode()
            assert line, site.output
            if "changed, reloading" in line:
                del site.address
                return
    raise AssertionError(site.output)


def environment_of(process: int) -> dict[str, str]:
    """Give a process's environment, as far as its owner can see it."""
    entries = Path("/proc", str(process), "environ").read_bytes().decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if entry)


def command_lines(group: int) -> dict[int, str]:
    """Give the command line of each process of a group, as every user can see it."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.getpgid(int(path.name)) == group:
                found[int(path.name)] = (path / "cmdline").read_text()
    return found


def session_cookies(visitor: requests.Session) -> set[str]:
    """Give the cookies that name sessions."""
    return {cookie.value for cookie in visitor.cookies if cookie.name.startswith("session")}


def calls(page: str) -> list[tuple[str, str]]:
    """Read the cache calls that the page shows, with their outcomes."""
    return re.findall(r"<tr><td>(\w+)</td><td>([^<]+)</td>", page)


def test_the_second_visit_of_every_page_comes_from_the_cache(
    visited: tuple[Site, list[str]], site: Site
) -> None:
    """What one visit computed, the next finds."""
    _, firsts = visited
    seconds = [site.get(path) for path in PAGES]

    assert [verdict(page) for page in firsts] == ["Computed"] * 4
    assert [verdict(page) for page in seconds] == ["Came from the cache"] * 4
    assert calls(seconds[0]) == [("aget_many", "12 of 12 hit")]
    assert calls(seconds[1]) == [("get_many", "60 of 60 hit"), ("get", "hit")]
    assert ("get_or_set", "hit") in calls(seconds[2])
    assert calls(seconds[3]) == [("get_or_set", "hit"), ("get", "hit"), ("get", "hit")]


def test_sync_and_async_views_share_what_they_compute(visited: tuple[Site, list[str]]) -> None:
    """The async page computes what it does not find, and the list finds that."""
    _, firsts = visited

    assert calls(firsts[0]) == [("aget_many", "0 of 12 hit"), ("aset_many", "12 keys")]
    assert calls(firsts[1])[:2] == [("get_many", "12 of 60 hit"), ("set_many", "48 keys")]


def test_an_edit_shows_on_every_page_at_once(site: Site) -> None:
    """After the form is saved no page shows the old name, and what was not touched is kept."""
    pages = ("/", "/lights/slettnes/", "/tonight/", "/pole-to-pole/")
    before = [site.get(path) for path in pages]

    saved = site.save("/lights/slettnes/edit/", name="Far North", dusk_angle="12", note="Mind!")
    after = [site.get(path) for path in pages]

    assert saved.url.endswith("/lights/slettnes/")
    assert "is forgotten" in saved.text
    assert "Mind!" in saved.text
    assert all(">Slettnes<" in page for page in before)
    assert not any(">Slettnes<" in page for page in after)
    assert all(">Far North<" in page for page in after)
    assert ("get_many", "59 of 60 hit") in calls(after[0])
    assert calls(after[3]) == [("aget_many", "12 of 12 hit")]  # one of which the list has computed
    assert verdict(after[2]) == "Computed"


def test_every_page_leads_to_the_counters(site: Site) -> None:
    """The site's navigation has the page of counters, which is marked on the page itself."""
    assert all('<a href="/counters/">Counters</a>' in site.get(path) for path in PAGES)
    assert '<a href="/counters/" aria-current="page">' in site.get("/counters/")


def test_a_bad_form_changes_nothing(site: Site) -> None:
    """A value out of range is refused beside its field, and the cache is not touched."""
    site.get("/lights/guia/")

    refused = site.save("/lights/guia/edit/", name="Guia", dusk_angle="99", note="")

    assert "less than or equal to 18" in refused.text
    assert verdict(site.get("/lights/guia/")) == "Came from the cache"


def test_the_session_remembers_the_visitor(site: Site) -> None:
    """Visits are counted and listed per visitor, and the session's key is never shown."""
    site.get("/lights/guia/")

    page = site.get("/lights/galle/")

    assert "opened 2 lighthouse pages" in page
    assert "Guia</a>" in page
    assert ("get", "hit") in calls(page)
    (cookie,) = session_cookies(site.visitor)
    assert cookie not in page


def test_no_key_is_in_the_repository(environ: dict[str, str]) -> None:
    """Each process makes a key of its own up, unless the environment has one."""
    key = partial(
        python, environ, f"import runpy; print(runpy.run_path({str(SETTINGS)!r})['SECRET_KEY'])"
    )

    keys = {key(), key(), key(EXAMPLE_SECRET_KEY="")}
    assert len(keys) == 3
    assert all(len(made) >= 50 for made in keys)
    assert key(EXAMPLE_SECRET_KEY="mine") == "mine"


def test_the_local_server_takes_the_token_of_the_run_only(site: Site) -> None:
    """Other users of the machine, who can reach the local server, may not read or write."""
    target = f"{site.local_server}/cache/default-cache?key=a&ttl_seconds=60"

    for token in ("any-token", "test-token", ""):
        for method in ("GET", "PUT", "DELETE"):
            response = site.visitor.request(method, target, headers={"Authorization": token})
            assert response.status_code == 401


@pytest.mark.parametrize("token", ["-a", "--port=1", "a b", "a=b"])
def test_the_local_server_starts_with_any_token(environ: dict[str, str], token: str) -> None:
    """Whatever a random token looks like, it is taken for no option."""
    start = "from mysite.local_server import local_server\nwith local_server() as at: print(at)"

    said = python(environ, start, MOMENTO_API_KEY=token)

    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", said)


@pytest.mark.skipif(not PROCESSES.exists(), reason="reads what Linux says of processes")
def test_secrets_are_seen_by_their_owner_alone(site: Site) -> None:
    """Key and token stand on no command line, in no output, and in no file."""
    assert site.local_server
    lines = command_lines(site.process.pid)
    (child,) = lines.keys() - {site.process.pid}
    environ = environment_of(child)
    secrets = [environ[name] for name in SECRETS]
    directory = Path(environ["EXAMPLE_DATABASE"]).parent

    assert len(set(secrets)) == 2
    for secret in secrets:
        assert len(secret) >= 50
        assert not any(secret in line for line in lines.values())
        assert secret not in site.output
        assert not any(secret.encode() in path.read_bytes() for path in directory.iterdir())


def test_a_reload_keeps_what_the_run_has(start: Callable[..., Site], tmp_path: Path) -> None:
    """After an edit of the code the visitor's session goes on and pages come from the cache."""
    copy = shutil.copytree(EXAMPLE, tmp_path / "copy", ignore=shutil.ignore_patterns("*.sqlite3"))
    site = start(str(copy / "manage.py"), "runserver", "0")
    site.get("/lights/guia/")

    reload(site, copy / "lighthouses" / "views.py")
    page = site.get("/lights/guia/")

    assert verdict(page) == "Came from the cache"
    assert "opened 2 lighthouse pages" in page


def test_a_visitor_of_another_run_is_new(two_sites: tuple[Site, Site]) -> None:
    """Cookies that another key has signed neither fail nor leave a line in the log."""
    other, site = two_sites
    change = {"name": "Guia", "dusk_angle": "6", "note": ""}
    other.get("/lights/guia/")
    other.save("/lights/guia/edit/", **change)

    site.visitor.cookies.update(other.visitor.cookies)
    before = session_cookies(site.visitor)
    site.get("/lights/guia/")
    second = site.get("/lights/guia/")
    saved = site.save("/lights/guia/edit/", **change)
    site.read_until('"POST /lights/guia/edit/ (HTTP)')

    assert before < session_cookies(site.visitor)
    assert "opened 2 lighthouse pages." in second
    assert "is forgotten" in saved.text
    assert "corrupted" not in site.output


@pytest.mark.parametrize("options", [["--noreload"], []], ids=["noreload", "reload"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_local_server_ends_with_the_site(
    start: Callable[..., Site], options: list[str], number: signal.Signals
) -> None:
    """Ctrl-C and SIGTERM end the site without a traceback, and nothing is left behind."""
    # Not as errors: on Ctrl-C, Django's reloader itself leaves its child to be waited for.
    site = start("runserver", *options, "0", PYTHONWARNINGS="default")
    site.get("/lights/guia/")

    if number is signal.SIGINT:
        os.killpg(site.process.pid, number)
    else:
        site.process.send_signal(number)

    assert "Traceback" not in site.rest_of_output()
    assert site.process.returncode == 0


def test_the_local_server_does_not_outlive_a_killed_site(start: Callable[..., Site]) -> None:
    """Even SIGKILL, which lets the site do nothing more, leaves no orphan."""
    site = start()

    site.process.kill()

    assert "Traceback" not in site.rest_of_output()


def test_a_taken_port_is_told_and_leaves_nothing_behind(
    site: Site, start: Callable[..., Site]
) -> None:
    """A second site on the same port says so and ends, with its local server."""
    port = site.address.rpartition(":")[2]

    second = start("runserver", "--noreload", port)

    assert "That port is already in use" in second.rest_of_output()
    assert second.process.returncode == 1


def test_two_sites_start_at_once(two_sites: tuple[Site, Site]) -> None:
    """Two sites that find no database agree on who makes it, and use a port each."""
    one, other = two_sites

    assert one.address != other.address
    assert all("Galle</h1>" in site.get("/lights/galle/") for site in two_sites)


def test_it_says_where_to_go_and_what_is_the_cache(site: Site) -> None:
    """The last lines before the first request are the ones that a newcomer needs."""
    assert site.local_server
    first, second = site.output.splitlines()[-2:]

    assert first == f"Open {site.address}/ in a browser."
    assert "cache “default-cache” of a local server (http://127.0.0.1:" in second


def test_an_account_in_the_environment_is_used_as_it_is(start: Callable[..., Site]) -> None:
    """With MOMENTO_API_KEY set the pages are kept where it says, and no local server is started."""
    with running_server(caches=("lights",), token="key") as server:
        site = start(
            MOMENTO_API_KEY="key", MOMENTO_ENDPOINT=server.endpoint, MOMENTO_CACHE_NAME="lights"
        )
        site.get("/lights/guia/")
        page = site.get("/lights/guia/")
        statuses = {request.status for request in server.requests if request.method == "PUT"}

    assert verdict(page) == "Came from the cache"
    assert {204} == statuses


def test_it_runs_under_an_asgi_server(start: Callable[..., Site], environ: dict[str, str]) -> None:
    """Under uvicorn the same pages, async ones too, bring their style sheet and their report."""
    pytest.importorskip("uvicorn")
    manage(environ, "migrate")
    uvicorn = ("-m", "uvicorn", "--app-dir", str(EXAMPLE), "--port", "0", "--lifespan", "off")

    # Not as errors: Django warns of its own that static files are read synchronously.
    site = start(*uvicorn, "mysite.asgi:application", PYTHONWARNINGS="default")

    assert calls(site.get("/pole-to-pole/")) == [
        ("aget_many", "0 of 12 hit"),
        ("aset_many", "12 keys"),
    ]
    assert verdict(site.get("/lights/guia/")) == "Computed"
    assert verdict(site.get("/lights/guia/")) == "Came from the cache"
    assert "--paper" in site.get("/static/lighthouses/site.css")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check"], "no issues"),
        (["makemigrations", "--check"], "No changes"),
        (["shell", "-c", "from django.core.cache import cache; cache.set('a', 1)"], ""),
        (["test"], "Ran 0 tests"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_other_commands_need_neither_account_nor_server(
    environ: dict[str, str], arguments: list[str], said: str
) -> None:
    """Without an account the other commands work, with a cache in their own memory."""
    assert said in manage(environ, *arguments)
