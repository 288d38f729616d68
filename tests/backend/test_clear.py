"""What ``clear()`` promises: who forgets what, when, and what it costs everybody else."""

import asyncio
import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
from django.test import override_settings

from django_momento_http._store.debts import Ledger
from django_momento_http._store.namespace import Namespace
from django_momento_http._store.store import Store, forget_endpoint
from django_momento_http.cache import MomentoCache
from django_momento_http.exceptions import MomentoError
from django_momento_http.testing import Fault, RunningServer, running_server
from tests.support.between import between_read_and_write
from tests.support.markers import marker_key
from tests.support.scripted import GRACE, least_late, scripted, silent

CACHE = "default-cache"
DAY = 86400
LONGEST_WAIT = 30

Make = Callable[..., Any]


class Process(MomentoCache):
    """The backend of one more process: it shares no knowledge, and a test moves its clocks."""

    def __init__(self, server: RunningServer, **options: Any) -> None:
        self.now = 0.0
        self.born = time.time()
        entry = server.cache_settings(**options)
        super().__init__(entry.pop("LOCATION"), entry)

    def _find_store(self) -> Store:
        clocks = lambda: self.now, lambda: self.born + self.now
        namespace = Namespace(self._config.namespace, Ledger(), *clocks)
        return Store(self._config, namespace, *clocks)


def markers(server: RunningServer) -> dict[bytes, bytes]:
    """The markers that the service has, by key."""
    return {key: value for (_, key), value in server.items.items() if key[:1] == b"\xff"}


def marker_requests(server: RunningServer) -> list[str]:
    """The requests for markers so far, by method."""
    return [request.method for request in server.requests if request.key[:1] == b"\xff"]


def stored(server: RunningServer) -> bytes:
    """The bytes that the service has under the one key."""
    return server.items[CACHE, b":1:k"]


@pytest.fixture(params=["sync", "async"])
def clear(request: pytest.FixtureRequest) -> Callable[[MomentoCache], None]:
    """clear(), or its async twin."""
    if request.param == "sync":
        return lambda cache: cache.clear()
    return lambda cache: asyncio.run(cache.aclear())


# Who forgets what


def test_this_process_forgets_at_once(make_cache: Make, clear: Callable[..., None]) -> None:
    """Nothing of before is there after clear(), in any method."""
    cache = make_cache()
    cache.set_many({"a": 1, "b": 1})
    assert cache.get("a") == 1
    assert clear(cache) is None
    assert cache.get("a") is None
    assert cache.get_many(["a", "b"]) == {}
    assert "a" not in cache
    assert cache.touch("a") is False
    assert cache.delete("a") is False
    assert cache.ttl("a") == 0
    with pytest.raises(ValueError, match="no such key"):
        cache.incr("a")
    assert cache.get_or_set("a", 2) == 2
    assert cache.add("b", 2) is True


def test_what_is_stored_afterwards_is_there(make_cache: Make, clear: Callable[..., None]) -> None:
    """clear() forgets the past alone, however often it is called."""
    cache = make_cache()
    for number in range(3):
        clear(cache)
        assert cache.get("k") is None
        cache.set("k", number)
        assert cache.get("k") == number


def test_every_version_is_forgotten(make_cache: Make, clear: Callable[..., None]) -> None:
    """A clear() through one alias empties all versions of its KEY_PREFIX."""
    cache = make_cache(VERSION=2)
    for version in (1, 2, 3):
        cache.set("k", version, version=version)
    clear(make_cache())
    assert [cache.get("k", version=version) for version in (1, 2, 3)] == [None] * 3


def test_other_prefixes_keep_theirs(make_cache: Make, clear: Callable[..., None]) -> None:
    """Nobody under another KEY_PREFIX loses anything, one that begins alike included."""
    prefixes = ["", "a", "ab", "b"]
    aliases = {prefix: make_cache(KEY_PREFIX=prefix) for prefix in prefixes}
    for prefix, cache in aliases.items():
        cache.set("k", prefix)
    clear(aliases["a"])
    assert {prefix: cache.get("k", "gone") for prefix, cache in aliases.items()} == {
        "": "",
        "a": "gone",
        "ab": "ab",
        "b": "b",
    }


def test_other_caches_keep_theirs(clear: Callable[..., None]) -> None:
    """Nobody in another Momento cache loses anything."""
    with running_server(caches=("one", "two")) as server:
        options = server.cache_settings()["OPTIONS"]
        one, two = (MomentoCache(name, {"OPTIONS": options}) for name in ("one", "two"))
        one.set("k", 1)
        two.set("k", 2)
        clear(one)
        assert (one.get("k"), two.get("k")) == (None, 2)


def test_all_threads_of_the_process_forget(make_cache: Make) -> None:
    """A backend instance of another thread knows at once."""
    cache, found = make_cache(), []
    cache.set("k", 1)
    thread = Thread(target=lambda: make_cache().clear())
    thread.start()
    thread.join(LONGEST_WAIT)
    thread = Thread(target=lambda: found.append(make_cache().get("k", "gone")))
    thread.start()
    thread.join(LONGEST_WAIT)
    assert found == ["gone"]
    assert cache.get("k") is None


OTHER_PROCESS = """
    import json, sys
    from django.conf import settings
    settings.configure(SECRET_KEY="for tests only", CACHES={"default": json.loads(sys.argv[1])})
    from django.core.cache import cache
    print(json.dumps(cache.get("k")))
    cache.clear()
    cache.set("k", "theirs")
"""


def test_a_real_other_process(server: RunningServer, make_cache: Make) -> None:
    """Another process's clear() and what it stored are seen; with CLEAR_MAX_AGE 0 at once."""
    cache = make_cache(CLEAR_MAX_AGE=0)
    cache.set_many({"k": "ours", "other": "ours"})
    script = [sys.executable, "-c", textwrap.dedent(OTHER_PROCESS)]
    done = subprocess.run(
        [*script, json.dumps(server.cache_settings())],
        capture_output=True,
        text=True,
        timeout=LONGEST_WAIT,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, '"ours"\n', "")
    assert cache.get_many(["k", "other"]) == {"k": "theirs"}


@pytest.mark.parametrize("max_age", [1, 10, 60])
def test_other_processes_forget_within_max_age(server: RunningServer, max_age: float) -> None:
    """Once CLEAR_MAX_AGE seconds have passed, another process serves nothing of before."""
    one, two = (Process(server, CLEAR_MAX_AGE=max_age) for _ in range(2))
    one.set("k", "old")
    assert two.get("k") == "old"
    one.clear()
    two.now += max_age
    assert two.get("k") is None


@pytest.mark.parametrize("max_age", [0.0, 10.0])
def test_a_new_process_knows_at_once(server: RunningServer, max_age: float) -> None:
    """A process that begins after a clear() never serves what was stored before."""
    one = Process(server, CLEAR_MAX_AGE=max_age)
    one.set("k", "old")
    one.clear()
    assert Process(server, CLEAR_MAX_AGE=max_age).get("k") is None


def test_two_processes_clear_by_turns(server: RunningServer) -> None:
    """Each clear() counts, whoever calls it, and whatever its clock says."""
    one, two = (Process(server, CLEAR_MAX_AGE=0) for _ in range(2))
    two.born -= 3600
    for process in (one, two, one, two):
        process.set("k", "old", None)
        assert one.get("k") == two.get("k") == "old"
        process.clear()
        assert one.get("k") is two.get("k") is None


def test_a_slow_clock_clears_too(server: RunningServer) -> None:
    """A clear() counts though its clock is behind another's, once that one's was heard of."""
    one, two = (Process(server, CLEAR_MAX_AGE=10) for _ in range(2))
    two.born -= 5
    assert one.get("k") is two.get("k") is None
    one.clear()
    one.set("k", "old")
    two.now += 10
    two.clear()
    assert two.get("k") is None
    one.now += 10
    assert one.get("k") is None


def test_a_write_that_heard_of_the_clear_is_kept(server: RunningServer) -> None:
    """A set() that finds another's clear() beside itself is not lost."""
    one, two = (Process(server, CLEAR_MAX_AGE=10) for _ in range(2))
    two.set("k", "old")
    one.clear()
    two.now += 10
    two.set("k", "new")
    assert one.get("k") == two.get("k") == "new"


def test_a_clock_that_was_ahead_revives_nothing(server: RunningServer) -> None:
    """A process that begins now clears what a host whose clock is ahead left behind."""
    ahead, fresh = Process(server), Process(server)
    ahead.born += 60
    ahead.clear()
    ahead.set("k", "old")
    fresh.clear()
    assert [each.get("k") for each in (fresh, Process(server))] == [None, None]
    ahead.now += 10
    assert ahead.get("k") is None


def test_two_clears_of_one_number_both_count(server: RunningServer) -> None:
    """A clear() beyond what both know counts beside another's that chose the same number."""
    ahead, one, two = (Process(server) for _ in range(3))
    ahead.born += 60
    ahead.clear()
    assert one.get("k") is two.get("k") is None
    one.clear()
    one.set("k", "old")
    two.clear()
    assert two.get("k") is None
    one.now += 10
    assert one.get("k") is None


@pytest.mark.parametrize("step", [-600.0, 3600.0])
def test_a_clock_that_is_set_revives_nothing(server: RunningServer, step: float) -> None:
    """A clock that is set back, or goes on after a suspension, brings back nothing cleared."""
    one, two = Process(server), Process(server)
    one.set("k", "old")
    assert two.get("k") == "old"
    one.clear()
    # The monotonic clock may stand still while a machine is suspended.
    two.born += step
    assert two.get("k") is None
    two.set("k", "new")
    two.clear()
    one.now += 10
    assert [each.get("k") for each in (one, two, Process(server))] == [None] * 3


def test_aliases_of_one_namespace_forget_together(make_cache: Make, clear: Make) -> None:
    """What one alias clears is gone for another that differs in an option, and nothing else is."""
    one, two = make_cache(), make_cache(COMPRESSOR=None, CLEAR_MAX_AGE=60)
    one.set("k", "old")
    assert two.get("k") == "old"
    clear(one)
    assert two.get("k") is None
    two.set("k", "new")
    assert one.get("k") == "new"


READ_THEN_WRITE: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "touch": ("old", lambda cache: cache.touch("k", 100)),
    "incr": (1, lambda cache: cache.incr("k")),
    "incr_version": ("old", lambda cache: cache.incr_version("k")),
}


@pytest.mark.parametrize("name", READ_THEN_WRITE)
def test_what_was_read_before_a_clear_stays_cleared(server: RunningServer, name: str) -> None:
    """What is read, cleared by another thread, and written back, is not brought back by that."""
    cache = Process(server)
    value, write_back = READ_THEN_WRITE[name]
    cache.set("k", value)
    with between_read_and_write(cache, cache.clear):
        write_back(cache)
    assert marker_requests(server).count("PUT") == 1
    assert cache.get_many(["k"]) == cache.get_many(["k"], version=2) == {}
    assert Process(server).get("k") is Process(server).get("k", version=2) is None


def test_what_a_default_made_before_a_clear_is_not_served(
    server: RunningServer, make_cache: Make
) -> None:
    """get_or_set stores under the generation that was known before its default began."""
    cache = make_cache()

    def default() -> str:
        cache.clear()
        return "from before"

    assert cache.get_or_set("k", default) == "from before"
    assert cache.get("k") is None


# Signing keys


def test_another_sites_clear_is_none_of_ours(server: RunningServer) -> None:
    """A site with another signing key on the same LOCATION undoes no clear, and causes none."""
    ours, theirs = Process(server, SIGNING_KEY="o" * 40), Process(server, SIGNING_KEY="t" * 40)
    ours.set("k", "old")
    old = stored(server)
    ours.clear()
    ours.set("k", "young")
    young = stored(server)
    theirs.clear()
    for process in (ours, Process(server, SIGNING_KEY="o" * 40)):
        process.now += 100
        for value, found in ((old, None), (young, "young")):
            server.put(CACHE, b":1:k", value)
            assert process.get("k") == found


OLD, NEW = {"SECRET_KEY": "o" * 50}, {"SECRET_KEY": "n" * 50, "SECRET_KEY_FALLBACKS": ["o" * 50]}


def test_a_rolling_change_of_the_secret_key(server: RunningServer) -> None:
    """Old and new processes see each other's clear(), and none clears of itself."""
    with override_settings(**OLD):
        old = Process(server)
    with override_settings(**NEW):
        new = Process(server)
    for clearing in (old, new, old, new):
        old.set("k", "old")
        assert new.get("k") == "old"
        clearing.clear()
        old.now, new.now = old.now + 10, new.now + 10
        assert old.get("k") is new.get("k") is None
    server.forget_requests()
    for keys in (OLD, NEW) * 3:
        with override_settings(**keys):
            Process(server).get("k")
    assert marker_requests(server) == ["GET", "GET", "GET"] * 3


def test_a_marker_that_was_tampered_with_is_a_clear_for_who_knows_nothing(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A process that begins beside a forged marker serves nothing old, and writes it anew."""
    known = Process(server)
    known.clear()
    known.set("k", "old")
    [marker] = markers(server)
    server.put(CACHE, marker, b"forged")
    later = Process(server)
    later.now += 1
    assert later.get("k") is None
    assert "marker" in caplog.text
    assert markers(server)[marker] != b"forged"
    known.now += 10
    assert known.get("k") is None


def test_an_old_marker_that_is_put_back_ends_with_its_expiry(server: RunningServer) -> None:
    """A marker says until when it holds: one from before is not believed for ever."""
    process = Process(server, MAX_TTL=1000)
    process.clear()
    [(marker, replayed)] = markers(server).items()
    process.set("k", "old", None)
    old = stored(server)
    process.clear()
    later = Process(server, MAX_TTL=1000)
    later.now += 1100
    server.put(CACHE, marker, replayed)
    server.put(CACHE, b":1:k", old)
    assert later.get("k") is None


# The marker


def test_the_marker(server: RunningServer, make_cache: Make) -> None:
    """clear() writes one reserved key, which no user's key can be, with the longest TTL."""
    make_cache(MAX_TTL=5000).clear()
    [put] = [request for request in server.requests if request.method == "PUT"]
    assert put.key[:1] == b"\xff"
    assert put.ttl_seconds == 5000
    assert set(markers(server)) == {put.key}


def test_a_lapsed_marker_empties_nothing(server: RunningServer) -> None:
    """When the marker's time is over, values that were written under it are still served."""
    process = Process(server)
    process.clear()
    for seconds in (DAY - 10, 20):
        server.advance(seconds)
        process.now += seconds
        if seconds > 20:
            process.set("k", "young", None)
    assert not markers(server)
    assert process.get("k") == "young"
    assert Process(server).get("k") == "young"


def test_values_of_before_any_clear_come_back_only_after_a_minute(server: RunningServer) -> None:
    """Where no marker is found any more, what was written by who never saw one is served again.

    Two reads a minute apart must agree, because one may come from a replica that lags.
    """
    process = Process(server)
    Process(server).set("k", "unmarked", None)
    process.clear()
    [marker] = markers(server)
    server.discard(CACHE, marker)
    served = []
    for _ in range(9):
        process.now += 10
        served.append(process.get("k"))
    assert served == [None] * 6 + ["unmarked"] * 3


def test_without_a_marker_everything_is_served(server: RunningServer) -> None:
    """Where nobody ever cleared, values are served whoever wrote them."""
    Process(server).set("k", "v")
    assert Process(server).get("k") == "v"


def test_a_failed_marker_read_changes_nothing(server: RunningServer) -> None:
    """While the marker cannot be read, the last one known stays: old values gone, others there."""
    process = Process(server)
    process.set("k", "old")
    old = stored(server)
    process.clear()
    process.set("k", "young")
    young = stored(server)
    [marker] = markers(server)
    server.inject(Fault(status=400, key=marker, times=None))
    for _ in range(3):
        process.now += 100
        assert process.get("k") == "young"
        server.put(CACHE, b":1:k", old)
        assert process.get("k") is None
        server.put(CACHE, b":1:k", young)
    assert marker_requests(server).count("GET") > 3


@pytest.mark.parametrize("stale", ["older", "none"])
def test_a_stale_marker_read_changes_nothing(server: RunningServer, stale: str) -> None:
    """A read that still shows an older marker, or none, brings back nothing."""
    one, two = Process(server), Process(server)
    one.set("k", "old")
    old = stored(server)
    one.clear()
    [(marker, older)] = markers(server).items()
    one.set("k", "between")
    between = stored(server)
    one.clear()
    two.now += 10
    assert two.get("k") is None
    one.set("k", "young")
    young = stored(server)
    if stale == "older":
        server.put(CACHE, marker, older)
    else:
        server.discard(CACHE, marker)
    for process in (one, two):
        process.now += 20
        for value, found in ((old, None), (between, None), (young, "young")):
            server.put(CACHE, b":1:k", value)
            assert process.get("k") == found


def test_a_foreign_marker_changes_nothing(
    server: RunningServer, make_cache: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Bytes under the marker's key that are not its own neither raise nor empty the cache."""
    cache = make_cache(CLEAR_MAX_AGE=0, ON_ERROR="raise")
    cache.clear()
    cache.set("k", 1)
    [marker] = markers(server)
    for planted in (b"", b"foreign", stored(server)):
        server.put(CACHE, marker, planted)
        assert cache.get("k") == 1
    assert "marker" in caplog.text


def test_a_marker_of_another_prefix_changes_nothing(
    server: RunningServer, make_cache: Make
) -> None:
    """One KEY_PREFIX's marker, copied over another's, empties nothing."""
    one, two = (make_cache(KEY_PREFIX=prefix, CLEAR_MAX_AGE=0) for prefix in ("one", "two"))
    two.clear()
    [mine] = markers(server)
    two.set("k", 1)
    one.clear()
    [theirs] = markers(server).keys() - {mine}
    server.put(CACHE, mine, server.items[CACHE, theirs])
    assert two.get("k") == 1


def test_a_clear_that_fails_says_so(server: RunningServer, make_cache: Make) -> None:
    """A marker that could not be written is an error in "raise" mode, a log line otherwise."""
    server.inject(Fault(status=403, method="PUT", times=2))
    with pytest.raises(MomentoError, match="clear on the Momento cache 'default-cache'"):
        make_cache(ON_ERROR="raise").clear()
    assert make_cache().clear() is None


@pytest.mark.parametrize("method", ["PUT", None])
@pytest.mark.parametrize("status", [400, 403])
def test_a_refused_clear_changes_nothing(
    status: int, method: str | None, server: RunningServer, clear: Make
) -> None:
    """Nobody forgets: not this process, nor others through what it writes afterwards."""
    ours, theirs = Process(server, CLEAR_MAX_AGE=0), Process(server, CLEAR_MAX_AGE=0)
    ours.set("k", "old")
    server.inject(Fault(status=status, method=method, times=None))
    clear(ours)
    server.clear_faults()
    assert ours.get("k") == "old"
    ours.set("other", "new")
    assert theirs.get("other") == "new"
    assert theirs.get("k") == "old"
    assert ours.stats()["owed"] == 0


def test_a_reader_s_refused_clear_leaves_it_a_reader(server: RunningServer) -> None:
    """With a token that may only read, clear() is refused, and what others write is read on."""
    reader, writer = Process(server, TOKEN=server.read_only_token), Process(server)
    writer.set("k", "old")
    reader.clear()
    assert reader.get("k") == "old"
    writer.set("k", "new")
    assert reader.get("k") == "new"


# Costs


def test_clear_is_two_requests(server: RunningServer, make_cache: Make, clear: Make) -> None:
    """clear() reads the marker, then writes it, and does nothing else."""
    cache = make_cache()
    cache.get("k")
    server.forget_requests()
    clear(cache)
    assert [request.method for request in server.requests] == ["GET", "PUT"]


@pytest.mark.parametrize("max_age", [10, 60])
def test_the_marker_is_read_once_an_age(server: RunningServer, max_age: float) -> None:
    """Within CLEAR_MAX_AGE the marker costs one request, however many operations there are."""
    process = Process(server, CLEAR_MAX_AGE=max_age)
    process.set("k", "v")
    for _ in range(20):
        assert process.get("k") == "v"
        process.now += max_age / 50
    assert marker_requests(server) == ["GET"]
    assert len(server.requests) == 22


@pytest.mark.parametrize("name", ["get", "has_key", "get_many"])
def test_one_operation_renews_the_copy_early(server: RunningServer, name: str) -> None:
    """Shortly before the copy is too old one operation reads the marker, and no other need to."""
    process = Process(server, CLEAR_MAX_AGE=10)
    argument = ["k"] if name == "get_many" else "k"
    process.get("k")
    server.forget_requests()
    for moment, reads in ((7.9, 0), (8.1, 1), (8.2, 1), (10.1, 1), (16.2, 2)):
        process.now = moment
        getattr(process, name)(argument)
        assert len(marker_requests(server)) == reads


def test_many_keys_are_one_marker_read(server: RunningServer, make_cache: Make) -> None:
    """A call of many keys reads the marker once."""
    make_cache().get_many([f"k{number}" for number in range(10)])
    assert len(server.requests) == 11
    assert marker_requests(server) == ["GET"]


def test_max_age_0_reads_the_marker_each_time(server: RunningServer, make_cache: Make) -> None:
    """With CLEAR_MAX_AGE 0 each operation reads the marker beside its own request."""
    cache = make_cache(CLEAR_MAX_AGE=0)
    for _ in range(3):
        cache.get("k")
    assert len(server.requests) == 6
    assert marker_requests(server) == ["GET"] * 3


def test_max_age_none_reads_no_marker(server: RunningServer, make_cache: Make, clear: Make) -> None:
    """With CLEAR_MAX_AGE None there is no marker, and clear() says that it cannot."""
    Process(server).clear()
    server.forget_requests()
    cache = make_cache(CLEAR_MAX_AGE=None)
    cache.set("k", 1)
    assert cache.get("k") == 1
    with pytest.raises(NotImplementedError):
        clear(cache)
    assert cache.get("k") == 1
    assert not marker_requests(server)


@pytest.mark.parametrize("twin", ["get", "aget"])
def test_reading_the_marker_takes_no_time(twin: str) -> None:
    """The marker is read beside the operation: both together take one latency, not two."""
    with running_server(latency=0.2) as server:
        options = server.cache_settings(CLEAR_MAX_AGE=0)["OPTIONS"]
        cache = MomentoCache(CACHE, {"OPTIONS": options})
        began = time.monotonic()
        if twin == "get":
            cache.get("k")
        else:
            asyncio.run(cache.aget("k"))
        assert time.monotonic() - began < 0.35
        assert len(server.requests) == 2


@pytest.mark.parametrize("width", [1, 4])
def test_the_marker_lengthens_no_deadline(width: int) -> None:
    """While the service is silent, an operation whose marker is due takes one timeout, not two."""

    def late() -> float:
        with scripted(silent) as server:
            options = {"ENDPOINT": server.endpoint, "TOKEN": "test-token", "REQUEST_TIMEOUT": 0.5}
            cache = MomentoCache(CACHE, {"OPTIONS": {**options, "MAX_CONNECTIONS": width}})
            began = time.monotonic()
            assert cache.get_many(range(width)) == {}
            seconds = time.monotonic() - began - 0.5
            forget_endpoint(server.endpoint)
            return seconds

    assert least_late(late) < GRACE


def test_add_without_the_marker_replaces_nothing(server: RunningServer, make_cache: Make) -> None:
    """Where the marker could never be read, a value that is there is not overwritten by add()."""
    make_cache(CLEAR_MAX_AGE=None).set("k", "old")
    cache = make_cache()
    server.inject(Fault(status=500, times=None, method="GET", key=marker_key()))
    assert cache.add("k", "new") is False
    server.clear_faults()
    assert make_cache(CLEAR_MAX_AGE=None).get("k") == "old"


def test_an_alias_without_a_marker_sees_no_clear(make_cache: Make) -> None:
    """What an alias with a marker cleared is gone for its like, and not for one without."""
    cache, like, without = (
        make_cache(),
        make_cache(CLEAR_MAX_AGE=60),
        make_cache(CLEAR_MAX_AGE=None),
    )
    cache.set("k", "old")
    cache.clear()
    assert [alias.get("k") for alias in (cache, like, without)] == [None, None, "old"]


def test_a_marker_of_another_signing_key_is_no_marker(make_cache: Make) -> None:
    """After a change of SIGNING_KEY the cache works: the old key's marker counts for nobody."""
    make_cache(SIGNING_KEY="old").clear()
    cache = make_cache(SIGNING_KEY="new")
    cache.set("k", 1)
    assert cache.get("k") == 1
    assert cache.add("other", 2)
    assert cache.get("other") == 2


def test_a_delete_pays_for_no_marker(make_cache: Make, server: RunningServer) -> None:
    """What removes a value asks nobody whether it is of this generation."""
    cache = make_cache(CLEAR_MAX_AGE=0)
    cache.delete_many(["a", "b"])
    cache.set("k", 1, 0)
    assert [request.method for request in server.requests] == ["DELETE"] * 3
