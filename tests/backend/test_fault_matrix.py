"""Every trouble x every operation x both modes x sync and async, over real sockets.

The result, the time, the requests on the wire and the log lines are those of the policy's table,
and nothing shows the token, a key or a value. All cells of one trouble share its server and run
beside each other; each has a cache name of its own, by which its requests and its lines are told
from the others'.
"""

import logging
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import product
from typing import Any, NamedTuple

import pytest
from django.test import override_settings

from django_momento_http._store.store import forget_endpoint
from django_momento_http.cache import MomentoCache
from tests.support.canary import TOKEN, reports_on, seen_in, shown_by
from tests.support.operations import (
    HIDDEN,
    MODES,
    OPERATIONS,
    Lines,
    Operation,
    Outcome,
    carry_out,
    listening,
)
from tests.support.scripted import GRACE
from tests.support.troubles import DEADLINE, TROUBLES, Site, Trouble

# A cell that went wrong beside others has two more attempts, alone: this machine may be busy.
ATTEMPTS = 3


# Of so few Django's page is made, because that takes longer than the operation.
PAGES = {("get", False), ("set_many", True)}


class Cell(NamedTuple):
    """One attempt at a cell of the table; its cache is named after it."""

    operation: Operation
    mode: str
    is_async: bool
    attempt: int = 0

    @property
    def location(self) -> str:
        """The name of its cache."""
        kind = "async" if self.is_async else "sync"
        return f"{self.operation.name}-{self.mode}-{kind}-{self.attempt}"


CELLS = [Cell(*cell) for cell in product(OPERATIONS, MODES, (False, True))]
LOCATIONS = tuple(
    cell._replace(attempt=attempt).location for cell in CELLS for attempt in range(ATTEMPTS)
)


def cells_of(trouble: Trouble) -> list[Cell]:
    """Return the cells of the table that this trouble is tried on."""
    return [cell for cell in CELLS if not trouble.only or cell.operation.name in trouble.only]


def build(endpoint: str, cell: Cell, options: dict[str, Any]) -> MomentoCache:
    """Return a backend that shares breaker, budget, connections and lines with no other."""
    # A clear() needs the marker, all else is counted without it.
    max_age = 10 if cell.operation.name == "clear" else None
    # The process keeps the service's breaker by endpoint and timeout, a cache's by its name.
    number = LOCATIONS.index(cell.location)
    settings = {
        "ENDPOINT": endpoint,
        "TOKEN": TOKEN,
        "ON_ERROR": cell.mode,
        "REQUEST_TIMEOUT": DEADLINE + 1e-6 * number,
        "CONNECT_TIMEOUT": DEADLINE,
        "CLEAR_MAX_AGE": max_age,
    }
    return MomentoCache(cell.location, {"OPTIONS": settings | options})


def requests_wanted(operation: Operation, trouble: Trouble) -> Counter[str]:
    """Return which requests the policy has an operation send."""
    sent = operation.requests[: operation.first] if trouble.ends_it else operation.requests
    wanted = Counter(sent * (2 if trouble.is_retried else 1))
    if trouble.is_refusal:
        wanted["DELETE"] += sent.count("PUT")
    return +wanted


def wrong_result(trouble: Trouble, cell: Cell, outcome: Outcome) -> Iterator[str]:
    """Yield what is wrong with the result, and with what an exception says."""
    operation, mode = cell.operation, cell.mode
    result, missed = outcome.result, operation.missed
    if mode == "raise":
        if not isinstance(result, trouble.error):
            yield f"{result!r}"
            return
        text = f"{result}"
        start = f"{operation.logged_as or operation.name} on the Momento cache {cell.location!r}: "
        if not text.startswith(start) or trouble.says not in text or ". " not in text:
            yield f"says {text}"
        if result.__cause__ is not None or result.__context__ is not None:
            yield "hangs on another"
    elif missed is ValueError:
        if type(result) is not ValueError or "no such key" not in str(result):
            yield f"{result!r}"
    elif isinstance(result, Exception) or result != missed:
        yield f"{result!r}"
    if outcome.computed != (mode == "miss" and operation.name == "get_or_set"):
        yield f"computed the default {outcome.computed} times"


def wrong_lines(trouble: Trouble, cell: Cell, written: list[tuple[int, str]]) -> Iterator[str]:
    """Yield what is wrong with the log: one line in "miss" mode, none in "raise" mode."""
    if len(written) != (cell.mode == "miss"):
        yield f"the lines {written}"
    level = logging.ERROR if trouble.is_loud else logging.WARNING
    name = cell.operation.logged_as or cell.operation.name
    for found, text in written:
        if found != level or not text.startswith(f"{name} on "):
            yield f"{logging.getLevelName(found)} {text}"


def attempted(trouble: Trouble, cell: Cell, site: Site, lines: Lines) -> tuple[Outcome, list[str]]:
    """Try one cell; return what came of it, and what is not as it should be."""
    location = cell.location
    cache = build(site.endpoint, cell, trouble.options)
    outcome = carry_out(cache, cell.operation, is_async=cell.is_async)
    found = [*wrong_result(trouble, cell, outcome)]
    sent, wanted = site.requests(location), requests_wanted(cell.operation, trouble)
    if sent not in (None, wanted):
        found.append(f"{sent}, not {wanted}")
    found += wrong_lines(trouble, cell, lines.about(location))
    if outcome.elapsed > DEADLINE + GRACE:
        found.append(f"took {outcome.elapsed:.3f} s")
    return outcome, [f"{location}: {problem}" for problem in found]


def tried(trouble: Trouble, site: Site, lines: Lines) -> list[tuple[Cell, Outcome, list[str]]]:
    """Try all cells of a trouble beside each other, and what went wrong alone."""
    cells = cells_of(trouble)
    with ThreadPoolExecutor(1 if trouble.is_busy else 8) as threads:
        found = list(threads.map(lambda c: (c, *attempted(trouble, c, site, lines)), cells))
    for index, cell in enumerate(cells):
        for attempt in range(1, ATTEMPTS):
            if found[index][2]:
                again = cell._replace(attempt=attempt)
                found[index] = (again, *attempted(trouble, again, site, lines))
    return found


def sightings(cell: Cell, error: object) -> Iterator[str]:
    """Yield where an exception shows the token, or where its words show a key or a value."""
    if not isinstance(error, BaseException):
        return
    # All that the frames know; Django's page adds the settings, whatever was called.
    if seen_in(shown_by(error, below="")):
        yield f"{cell.location}: the token, in what it is or what its frames know"
    words = f"{error} {error!r} {vars(error)}" + "".join(traceback.format_exception(error))
    if seen_in(words, *HIDDEN):
        yield f"{cell.location}: a key or a value"
    if (cell.operation.name, cell.is_async) in PAGES and seen_in(reports_on(error)):
        yield f"{cell.location}: the token, on Django's page"


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.name)
def test_every_operation_in_trouble(trouble: Trouble, capfd: pytest.CaptureFixture[str]) -> None:
    """Each operation ends in time and as the table says, and nothing shows a secret."""
    with ExitStack() as stack:
        stack.enter_context(override_settings(DEBUG=True))
        site = stack.enter_context(trouble.open(LOCATIONS))
        stack.callback(forget_endpoint, site.endpoint)
        lines = stack.enter_context(listening())
        found = tried(trouble, site, lines)
    assert [problem for *_, problems in found for problem in problems] == []
    seen = [place for cell, outcome, _ in found for place in sightings(cell, outcome.result)]
    assert seen + lines.sightings == []
    assert not seen_in("".join(capfd.readouterr()))


def test_every_method_is_in_the_table() -> None:
    """A new method has its row: all that ask the service are here, once each."""
    public = {name for name in vars(MomentoCache) if not name.startswith("_")}
    twins = {f"a{name}" for name in public}
    # They ask nothing; the last is incr_version with another sign.
    exempt = {"close", "stats", "decr_version"}
    names = [operation.name for operation in OPERATIONS]
    assert sorted(names) == sorted(public - twins - exempt)


def test_the_table_is_large() -> None:
    """No fault, operation, mode or twin was lost on the way."""
    assert (len(OPERATIONS), len(CELLS)) == (15, 60)
    assert sum(len(cells_of(trouble)) for trouble in TROUBLES) >= 2700
