"""The failure policy: what is retried, when the breaker opens and closes, what is logged."""

import random
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from django_momento_http._client.breaker import Breaker, Condition
from django_momento_http._client.breakers import Breakers, Permits
from django_momento_http._client.counters import Counters
from django_momento_http._client.retry import RetryBudget, may_retry
from django_momento_http._store.log_limiter import LogLimiter
from django_momento_http.exceptions import (
    AccessDenied,
    BadRequest,
    CacheNotFound,
    CircuitOpen,
    ConnectFailed,
    MomentoError,
    RateLimited,
    ResponseError,
    ServiceFailed,
    StoredValueError,
    TimedOut,
    TransportError,
)
from tests.support.benchmark import load
from tests.support.clocks import Clock
from tests.support.sizes import sized

DEADLINE = 2.0
FIRST_PAUSE = 1.5  # "about a second"
ENOUGH_FAILURES = 100  # more than any budget of time holds


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    """A closed breaker without jitter."""
    return Breaker(DEADLINE, clock, random=lambda: 0.0)


def fail(breaker: Breaker, times: int = 1, elapsed: float = DEADLINE) -> int:
    """Let operations time out one after the other; return how many were admitted."""
    for count in range(times):
        permit = breaker.admit()
        if permit is None:
            return count
        breaker.record(permit, TimedOut(), elapsed)
    return times


def succeed(breaker: Breaker, times: int = 1) -> None:
    """Let operations succeed one after the other."""
    for _ in range(times):
        breaker.record(admitted(breaker), None, 0.002)


def admitted(breaker: Breaker) -> int:
    """Return a permit, which there must be."""
    permit = breaker.admit()
    assert permit is not None
    return permit


def pause(breaker: Breaker, clock: Clock, step: float = 0.125) -> tuple[float, int]:
    """Move the clock until a probe is admitted; return the seconds and the probe's permit."""
    start = clock.now
    while clock.now - start < 60:
        permit = breaker.admit()
        if permit is not None:
            return clock.now - start, permit
        clock.now += step
    pytest.fail("no probe within a minute")


RETRIES = [
    (TransportError(), True),
    (TransportError(kind="connection"), True),
    (TransportError(kind="unusable"), False),
    (ConnectFailed(), False),
    (ConnectFailed(kind="connection"), False),
    (TimedOut(), False),
    (TimedOut(kind="connection"), False),
    (ServiceFailed(status=500), True),
    (ServiceFailed(status=502), True),
    (ServiceFailed(status=503), True),
    (ServiceFailed(status=504), True),
    (ServiceFailed(status=501), False),
    (ServiceFailed(status=505), False),
    (ServiceFailed(status=599), False),
    (BadRequest(status=400), False),
    (BadRequest(status=413), False),
    (AccessDenied(status=401), False),
    (AccessDenied(status=403), False),
    (CacheNotFound(status=404), False),
    (RateLimited(), False),
    (RateLimited(retry_after=1.0), False),
    (ResponseError(status=500), False),
    (CircuitOpen(), False),
    (StoredValueError(), False),
    (MomentoError(kind="connection"), False),
]


@pytest.mark.parametrize(("error", "expected"), RETRIES)
def test_what_is_retried(error: MomentoError, expected: bool) -> None:
    """Only a broken connection and the statuses 500, 502, 503 and 504 are tried again."""
    assert may_retry(error, DEADLINE, DEADLINE) is expected


@pytest.mark.parametrize(
    ("remaining", "expected"),
    [(2.0, True), (0.21, True), (0.2, True), (0.19, False), (0.0, False), (-1.0, False)],
)
def test_no_retry_without_time(remaining: float, expected: bool) -> None:
    """A retry needs a tenth of the deadline."""
    assert may_retry(TransportError(), remaining, 2.0) is expected
    assert may_retry(ServiceFailed(status=503), remaining, 2.0) is expected


def test_budget_starts_with_five_retries() -> None:
    """Five retries are there at first, and no sixth."""
    budget = RetryBudget()
    assert [budget.spend() for _ in range(7)] == [True] * 5 + [False] * 2


def test_a_hedge_leaves_five_retries() -> None:
    """A hedge needs more than five tokens, so that retries never starve for it."""
    budget = RetryBudget()
    assert not budget.spend_on_hedge()
    budget.earn()
    assert budget.spend_on_hedge()
    assert not budget.spend_on_hedge()
    assert sum(budget.spend() for _ in range(9)) == 4


def test_a_full_budget_pays_five_hedges() -> None:
    """However long nothing was asked twice, no more than five hedges are there at once."""
    budget = RetryBudget()
    for _ in range(1000):
        budget.earn()
    assert sum(budget.spend_on_hedge() for _ in range(100)) == 5
    assert sum(budget.spend() for _ in range(100)) == 5


def test_what_a_hedge_has_cost_besides_may_be_owed() -> None:
    """A large value that was asked twice is earned back before anything else is sent twice."""
    budget = RetryBudget()
    budget.charge(6)
    for _ in range(19):
        budget.earn()
    assert not budget.spend()
    budget.earn()
    assert budget.spend()


def test_ten_operations_earn_one_retry() -> None:
    """Every operation earns exactly a tenth of a retry."""
    budget = RetryBudget()
    while budget.spend():
        pass
    for _ in range(9):
        budget.earn()
    assert not budget.spend()
    budget.earn()
    assert budget.spend()
    assert not budget.spend()


def test_budget_is_never_more_than_full() -> None:
    """A thousand operations without a retry save up no more than ten."""
    budget = RetryBudget()
    for _ in range(1000):
        budget.earn()
    assert sum(budget.spend() for _ in range(100)) == 10
    assert repr(budget) == "<RetryBudget 0 tokens>"


def test_threads_share_one_budget() -> None:
    """Eight threads together get the ten retries, not ten each."""
    budget = RetryBudget()
    for _ in range(50):
        budget.earn()
    spent = in_threads(8, lambda: sum(budget.spend() for _ in range(100)))
    assert sum(spent) == 10


def in_threads(count: int, work: Callable[[], Any]) -> list[Any]:
    """Do the same work in many threads that start together; return what each returned."""
    barrier = threading.Barrier(count)
    results: list[Any] = []

    def run() -> None:
        barrier.wait()
        results.append(work())

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_three_lost_deadlines_open_it(breaker: Breaker) -> None:
    """Three timeouts in a row open the breaker, two do not, and then nothing is admitted."""
    fail(breaker, 2)
    assert breaker.state == "closed"
    assert fail(breaker, ENOUGH_FAILURES) == 1
    assert breaker.state == "open"
    assert breaker.admit() is None
    assert breaker.openings == 1


def test_one_operation_that_hangs_opens_it(breaker: Breaker) -> None:
    """Time lost counts, not the number: one name resolution of half a minute is enough."""
    fail(breaker, 1, elapsed=30.0)
    assert breaker.state == "open"


def flood(breaker: Breaker, clock: Clock, seconds: float, step: float = 0.005) -> int:
    """Let operations fail at once for so long; return how many were admitted."""
    admitted = 0
    for _ in range(round(seconds / step)):
        admitted += fail(breaker, elapsed=0.0)
        clock.now += step
    return admitted


@pytest.mark.parametrize(
    ("seconds", "state"), [(0.2, "closed"), (0.45, "closed"), (0.55, "open"), (10.0, "open")]
)
def test_instant_failures_open_it_when_they_last(
    breaker: Breaker, clock: Clock, seconds: float, state: str
) -> None:
    """A restart in which hundreds are refused does not open it; half a second of refusals does."""
    flood(breaker, clock, seconds, step=0.0005)
    assert breaker.state == state


def test_six_threads_may_be_refused_at_the_same_moment(breaker: Breaker, clock: Clock) -> None:
    """How many fail at once says nothing: what counts is for how long none succeeds."""
    for _ in range(10):
        fail(breaker, ENOUGH_FAILURES, elapsed=0.0)
        clock.now += 0.1
        succeed(breaker, 12)
    assert breaker.openings == 0


def test_few_instant_failures_never_open_it(breaker: Breaker, clock: Clock) -> None:
    """A dozen must fail: one refusal now and one in a minute are no outage."""
    for _ in range(11):
        fail(breaker, elapsed=0.0)
        clock.now += 60
    assert breaker.state == "closed"
    fail(breaker, elapsed=0.0)
    assert breaker.state == "open"


def test_lost_time_opens_it_however_short_the_trouble(breaker: Breaker) -> None:
    """Three deadlines that three threads lost in the same moment were waited for all the same."""
    fail(breaker, ENOUGH_FAILURES, elapsed=0.0)
    assert breaker.state == "closed"
    assert fail(breaker, ENOUGH_FAILURES) == 3


def test_what_was_late_loses_its_time_and_no_more(breaker: Breaker, clock: Clock) -> None:
    """A thousand operations that came to their turn too late to be answered are no outage."""
    for _ in range(1000):
        breaker.record(admitted(breaker), TimedOut(), DEADLINE / 1000, is_late=True)
        clock.now += 1.0
    assert breaker.state == "closed"


def test_successes_refund(breaker: Breaker) -> None:
    """One timeout among twenty successes never opens it, however long it goes on."""
    for _ in range(200):
        fail(breaker)
        succeed(breaker, 20)
    assert breaker.state == "closed"
    assert breaker.openings == 0


def test_slow_answers_never_open_it(breaker: Breaker) -> None:
    """An answer that nearly takes the deadline is right, and loses nothing."""
    for _ in range(1000):
        breaker.record(admitted(breaker), None, 0.99 * DEADLINE)
    assert breaker.openings == 0


EFFECTS = [
    (None, "closed"),
    (TransportError(), "open"),
    (TransportError(kind="unusable"), "open"),
    (ConnectFailed(), "open"),
    (TimedOut(), "open"),
    (ServiceFailed(status=500), "open"),
    (ServiceFailed(status=501), "open"),
    (RateLimited(), "open"),
    (CacheNotFound(status=404), "open"),
    (AccessDenied(status=401), "open"),
    (AccessDenied(status=403), "closed"),
    (BadRequest(status=400), "closed"),
    (BadRequest(status=0), "closed"),
    (StoredValueError(), "closed"),
    (CircuitOpen(), "closed"),
]


@pytest.mark.parametrize(("error", "state"), EFFECTS)
def test_what_opens_it(
    breaker: Breaker, clock: Clock, error: MomentoError | None, state: str
) -> None:
    """Lost time, limits, a wrong token and a missing cache open it; other answers never do."""
    for _ in range(ENOUGH_FAILURES):
        clock.now += 0.01
        permit = breaker.admit()
        if permit is not None:
            breaker.record(permit, error, 0.0)
    assert breaker.state == state


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (AccessDenied(status=401), "open"),
        (CacheNotFound(status=404), "open"),
        (RateLimited(retry_after=1.0), "open"),
        (RateLimited(), "closed"),
        (TimedOut(), "closed"),
        (AccessDenied(status=403), "closed"),
    ],
)
def test_what_opens_it_at_once(breaker: Breaker, error: MomentoError, state: str) -> None:
    """One 401, one missing cache or one Retry-After is enough."""
    breaker.record(admitted(breaker), error, 0.01)
    assert breaker.state == state


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (None, "closed"),
        (AccessDenied(status=403), "closed"),
        (BadRequest(status=400), "closed"),
        (StoredValueError(), "closed"),
        (TimedOut(), "open"),
        (ServiceFailed(status=503), "open"),
        (AccessDenied(status=401), "open"),
        (CacheNotFound(status=404), "open"),
        (RateLimited(), "open"),
        (BadRequest(status=0), "half-open"),
        (CircuitOpen(), "half-open"),
    ],
)
def test_what_the_probe_says(
    breaker: Breaker, clock: Clock, error: MomentoError | None, state: str
) -> None:
    """Any answer from a working service closes it; what was not sent says nothing."""
    fail(breaker, 3)
    _, probe = pause(breaker, clock)
    assert breaker.state == "half-open"
    breaker.record(probe, error, 0.0)
    assert breaker.state == state


@pytest.mark.parametrize(
    "error",
    [AccessDenied(status=401), CacheNotFound(status=404), RateLimited(retry_after=1.0)],
)
def test_a_good_probe_closes_it_whatever_opened_it(
    breaker: Breaker, clock: Clock, error: MomentoError
) -> None:
    """Corrected settings and a lifted limit are noticed by the next probe."""
    breaker.record(admitted(breaker), error, 0.0)
    breaker.record(pause(breaker, clock)[1], None, 0.002)
    assert breaker.state == "closed"


def test_a_probe_that_was_not_sent_makes_room(breaker: Breaker, clock: Clock) -> None:
    """When the probe's value was too large to be sent, the next operation is the probe."""
    fail(breaker, 3)
    _, probe = pause(breaker, clock)
    assert breaker.admit() is None
    breaker.record(probe, BadRequest(status=0), 0.0)
    succeed(breaker)
    assert breaker.state == "closed"


def test_pauses_grow_to_ten_seconds_at_most(breaker: Breaker, clock: Clock) -> None:
    """It stays open for a second, longer after each failed probe, never longer than ten."""
    fail(breaker, 3)
    pauses = []
    for _ in range(8):
        seconds, probe = pause(breaker, clock)
        pauses.append(seconds)
        breaker.record(probe, TimedOut(), DEADLINE)
    assert pauses[0] == FIRST_PAUSE
    assert pauses[:4] == sorted(set(pauses[:4]))
    assert 5 < pauses[-1] <= 10
    assert pauses[-1] == pauses[-2]


def test_pauses_are_short_again_after_a_recovery(breaker: Breaker, clock: Clock) -> None:
    """A new outage begins with a short pause, whatever the last one grew to."""
    fail(breaker, 3)
    for _ in range(4):
        breaker.record(pause(breaker, clock)[1], TimedOut(), DEADLINE)
    breaker.record(pause(breaker, clock)[1], None, 0.002)
    succeed(breaker, 20)
    fail(breaker, 3)
    assert pause(breaker, clock)[0] == FIRST_PAUSE


def test_pauses_grow_while_the_service_flaps(breaker: Breaker, clock: Clock) -> None:
    """A good probe alone is no recovery: if timeouts follow at once, the next pause is longer."""
    fail(breaker, 3)
    breaker.record(pause(breaker, clock)[1], None, 0.002)
    fail(breaker, 3)
    assert breaker.state == "open"
    assert pause(breaker, clock)[0] == 2 * FIRST_PAUSE


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
def test_jitter_shortens_a_pause_a_little(clock: Clock, chance: float) -> None:
    """Chance takes something from the first pause, and leaves more than half of it."""
    breaker = Breaker(DEADLINE, clock, random=lambda: chance)
    fail(breaker, 3)
    seconds, _ = pause(breaker, clock, step=1 / 1024)
    assert (seconds == FIRST_PAUSE) is (chance == 0.0)
    assert FIRST_PAUSE / 2 < seconds <= FIRST_PAUSE


def test_little_is_allowed_after_a_probe(breaker: Breaker, clock: Clock) -> None:
    """After one good probe fewer than three timeouts open it again."""
    fail(breaker, 3)
    breaker.record(pause(breaker, clock)[1], None, 0.002)
    assert 1 <= fail(breaker, ENOUGH_FAILURES) < 3
    assert breaker.openings == 2


def test_one_probe_at_a_time(breaker: Breaker, clock: Clock) -> None:
    """Of sixty-four threads that ask at the same moment exactly one gets the probe."""
    fail(breaker, 3)
    clock.now += 60
    permits = in_threads(64, breaker.admit)
    assert len(permits) == 64
    assert sum(permit is not None for permit in permits) == 1


def test_who_comes_late_to_the_lock_gets_no_probe(breaker: Breaker, clock: Clock) -> None:
    """A thread that is overtaken between its look at the clock and the lock is refused."""
    lock = breaker._lock
    overtaking: list[int | None] = []

    class Overtaken:
        """A lock that another thread takes first."""

        def __enter__(self) -> None:
            breaker._lock = lock
            overtaking.append(breaker.admit())
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()

    fail(breaker, 3)
    clock.now += 60
    breaker._lock = Overtaken()  # type: ignore[assignment]
    assert breaker.admit() is None
    assert overtaking[0] is not None


def test_a_lost_probe_is_given_up(breaker: Breaker, clock: Clock) -> None:
    """When the probe's thread was killed, another gets its turn after two deadlines."""
    fail(breaker, 3)
    _, lost = pause(breaker, clock)
    clock.now += 2 * DEADLINE - 0.01
    assert breaker.admit() is None
    clock.now += 0.01
    probe = admitted(breaker)
    breaker.record(lost, TimedOut(), DEADLINE)
    assert breaker.state == "half-open"
    breaker.record(probe, None, 0.002)
    assert breaker.state == "closed"


@pytest.mark.parametrize("late", [None, TimedOut(), AccessDenied(status=401), RateLimited()])
def test_late_results_do_not_count(
    breaker: Breaker, clock: Clock, late: MomentoError | None
) -> None:
    """What was under way before the opening changes nothing while open, half-open or closed."""
    old = [admitted(breaker) for _ in range(64)]
    fail(breaker, 3)
    for permit in old[:20]:
        breaker.record(permit, late, DEADLINE)
    assert (breaker.state, breaker.openings) == ("open", 1)
    seconds, probe = pause(breaker, clock)
    assert seconds == FIRST_PAUSE
    for permit in old[20:40]:
        breaker.record(permit, late, DEADLINE)
    assert breaker.state == "half-open"
    breaker.record(probe, None, 0.002)
    for permit in old[40:]:
        breaker.record(permit, late, DEADLINE)
    assert (breaker.state, breaker.openings) == ("closed", 1)


def test_simultaneous_timeouts_open_it_once(breaker: Breaker, clock: Clock) -> None:
    """Sixty-four operations that time out together are one opening and one short pause."""
    for permit in [admitted(breaker) for _ in range(64)]:
        breaker.record(permit, TimedOut(), DEADLINE)
    assert breaker.openings == 1
    assert pause(breaker, clock)[0] == FIRST_PAUSE


def test_a_clock_that_stands_still(breaker: Breaker) -> None:
    """Without time there is no probe, and no error either."""
    fail(breaker, 3)
    assert [breaker.admit() for _ in range(1000)] == [None] * 1000
    assert breaker.state == "open"


@pytest.mark.parametrize(("in_a_row", "state"), [(3, "closed"), (10, "open")])
def test_several_limits_in_a_row_open_it(breaker: Breaker, in_a_row: int, state: str) -> None:
    """Some 429s are endured, many in a row are not."""
    for _ in range(in_a_row):
        permit = breaker.admit()
        if permit is not None:
            breaker.record(permit, RateLimited(), 0.002)
    assert breaker.state == state


def test_limits_between_successes_are_endured(breaker: Breaker) -> None:
    """A service that limits every other operation is still asked."""
    for _ in range(100):
        breaker.record(admitted(breaker), RateLimited(), 0.002)
        succeed(breaker)
    assert breaker.openings == 0


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [(0.5, 0.5), (2.0, 2.0), (5.0, 5.0), (5.125, 5.0), (3600.0, 5.0), (float("inf"), 5.0)],
)
def test_retry_after_is_obeyed(clock: Clock, retry_after: float, seconds: float) -> None:
    """No request is sent for as long as the service asks, five seconds at most."""
    breaker = Breaker(DEADLINE, clock)
    breaker.record(admitted(breaker), RateLimited(retry_after=retry_after), 0.002)
    assert pause(breaker, clock)[0] == seconds


@pytest.mark.parametrize("retry_after", [0.0, -1.0, float("nan")])
def test_senseless_retry_after_is_ignored(
    breaker: Breaker, clock: Clock, retry_after: float
) -> None:
    """A Retry-After that is no time counts as none, and the pause is the first."""
    breaker.record(admitted(breaker), RateLimited(retry_after=retry_after), 0.002)
    assert breaker.state == "closed"
    for _ in range(10):
        permit = breaker.admit()
        if permit is not None:
            breaker.record(permit, RateLimited(retry_after=retry_after), 0.002)
    assert pause(breaker, clock)[0] == FIRST_PAUSE


def test_limits_do_not_lengthen_pauses(breaker: Breaker, clock: Clock) -> None:
    """A limit is one of rate, so that every probe that meets it waits no longer than the first."""
    breaker.record(admitted(breaker), RateLimited(retry_after=FIRST_PAUSE), 0.002)
    for _ in range(5):
        seconds, probe = pause(breaker, clock)
        assert seconds == FIRST_PAUSE
        breaker.record(probe, RateLimited(), 0.002)


def test_changes_are_told_in_order(clock: Clock) -> None:
    """Every change of state is told once, with the state before and the state after."""
    changes: list[tuple[str, str]] = []

    def told(before: Condition, after: Condition) -> None:
        changes.append((before.state, after.state))

    breaker = Breaker(DEADLINE, clock, random=lambda: 0.0, on_change=told)
    fail(breaker, 3)
    breaker.record(pause(breaker, clock)[1], TimedOut(), DEADLINE)
    breaker.record(pause(breaker, clock)[1], None, 0.002)
    succeed(breaker, 20)
    assert changes == [
        ("closed", "open"),
        ("open", "half-open"),
        ("half-open", "open"),
        ("open", "half-open"),
        ("half-open", "closed"),
    ]


def test_changes_are_told_outside_the_lock(clock: Clock) -> None:
    """Whoever is told of a change may make another thread use the breaker, and wait for it."""
    finished: list[bool] = []

    def told(before: Condition, after: Condition) -> None:
        other = threading.Thread(target=lambda: breaker.record(-1, TimedOut(), 1.0), daemon=True)
        other.start()
        other.join(5)
        finished.append(not other.is_alive())

    breaker = Breaker(DEADLINE, clock, random=lambda: 0.0, on_change=told)
    fail(breaker, 3)
    breaker.record(pause(breaker, clock)[1], None, 0.002)
    assert finished == [True, True, True]


def test_repr_tells_an_operator(breaker: Breaker, clock: Clock) -> None:
    """The state, the time lost, the time of the probe and the openings are in the repr."""
    assert repr(breaker) == "<Breaker closed, 0.0 s lost, 0 openings>"
    fail(breaker)
    assert repr(breaker) == "<Breaker closed, 2.0 s lost, 0 openings>"
    fail(breaker, 2)
    clock.now += 0.25
    assert "open, " in repr(breaker)
    assert "probe in 1.2 s, 1 openings" in repr(breaker)
    pause(breaker, clock)
    assert "half-open" in repr(breaker)


def test_many_threads_leave_it_working(clock: Clock) -> None:
    """After threads failed, probed and succeeded all at once, it still opens and closes."""
    breaker = Breaker(DEADLINE, clock)
    errors = [None, TimedOut(), RateLimited(), AccessDenied(status=401), BadRequest(status=0)]

    def work() -> None:
        for index in range(500):
            permit = breaker.admit()
            clock.now += 0.01
            if permit is not None:
                breaker.record(permit, errors[index % len(errors)], DEADLINE)

    in_threads(8, work)
    clock.now += 60
    breaker.record(admitted(breaker), None, 0.002)
    clock.now += 60
    succeed(breaker, 20)
    assert breaker.state == "closed"
    assert fail(breaker, ENOUGH_FAILURES) == 3


LOCKED: dict[str, Callable[[], tuple[Any, Callable[[], Any]]]] = {
    "breaker, record": lambda: _with(Breaker(DEADLINE), lambda b: b.record(0, TimedOut(), 1.0)),
    "breaker, probe": lambda: _with(_opened(), lambda b: b.admit()),
    "budget, earn": lambda: _with(_spent(), lambda b: b.earn()),
    "budget, spend": lambda: _with(RetryBudget(), lambda b: b.spend()),
    "budget, charge": lambda: _with(RetryBudget(), lambda b: b.charge(1)),
    "limiter": lambda: _with(LogLimiter(), lambda limiter: limiter.allow("get", "timeout")),
    "counters": lambda: _with(Counters(), lambda counters: counters.moved(1, 1, 1)),
    "counters, snapshot": lambda: _with(Counters(), lambda counters: counters.snapshot()),
}


def _with(owner: Any, use: Callable[[Any], Any]) -> tuple[Any, Callable[[], Any]]:
    return owner, lambda: use(owner)


def _opened() -> Breaker:
    breaker = Breaker(DEADLINE, lambda: 0.0)
    fail(breaker, 3)
    breaker._clock = lambda: 60.0
    return breaker


def _spent() -> RetryBudget:
    budget = RetryBudget()
    budget.spend()
    return budget


@pytest.mark.parametrize("name", LOCKED)
def test_a_signal_handler_may_come_while_its_thread_holds_a_lock(name: str) -> None:
    """A handler that uses the cache waits for nothing that the code below it holds."""
    owner, use = LOCKED[name]()

    def interrupted() -> None:
        with owner._lock:
            use()

    thread = threading.Thread(target=interrupted, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()


def test_a_step_that_a_signal_handler_overtakes_is_taken_again(clock: Clock) -> None:
    """What the handler made of the breaker stays, and so does what it interrupted."""
    handled: list[int] = []

    def interrupted_clock() -> float:
        if not handled:
            handled.append(1)
            breaker.record(0, TimedOut(), DEADLINE)  # the handler's own operation fails
        return clock.now

    breaker = Breaker(DEADLINE, interrupted_clock)
    breaker.record(0, TimedOut(), DEADLINE)
    assert breaker.condition.lost == 2.0


class Interrupted(BaseException):
    """What a signal handler raises, at any instruction."""


@pytest.fixture
def interrupt_at() -> Iterator[Callable[[float], None]]:
    """A function that has this thread interrupted once, so many seconds from now."""

    def handler(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, handler)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)  # type: ignore[func-returns-value]
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


INTERRUPTS = sized(1000, 20_000)


def test_no_interrupt_leaves_a_breaker_open_for_ever(interrupt_at: Callable[[float], None]) -> None:
    """A permit may be lost at any instruction: a minute later a success closes both breakers."""
    now, chance = Clock(), random.Random(1)
    service, account = (Breaker(DEADLINE, now, chance.random) for _ in range(2))
    breakers = Breakers(service, account)
    errors = [None, None, TimedOut(), TransportError(), AccessDenied(status=401), RateLimited()]

    def operate() -> None:
        for _ in range(10_000):
            now.now += 0.1
            permits = breakers.admit()
            if not isinstance(permits, CircuitOpen):
                breakers.record(permits, chance.choice(errors), chance.random() * DEADLINE)
            breakers.may_send_extra  # noqa: B018

    interrupted = 0
    while interrupted < INTERRUPTS:
        try:
            interrupt_at(chance.random() * 0.0005)
            operate()
        except Interrupted:
            interrupted += 1
        if interrupted % 50 == 0:
            now.now += 60
            for _ in range(20):
                breakers.record(admitted_by(breakers), None, 0.002)
            assert (service.state, account.state) == ("closed", "closed")
            assert service.condition.is_unimpaired
    other = threading.Thread(target=lambda: service.record(0, TimedOut(), 1.0), daemon=True)
    other.start()
    other.join(5)
    assert not other.is_alive()


def admitted_by(breakers: Breakers) -> Permits:
    """Return permits, which there must be."""
    permits = breakers.admit()
    assert not isinstance(permits, CircuitOpen)
    return permits


def test_one_line_in_ten_seconds(clock: Clock) -> None:
    """The first line passes, the others are counted, and the next line tells their number."""
    limiter = LogLimiter(clock)
    assert limiter.allow("get", "timeout") == 0
    assert [limiter.allow("get", "timeout") for _ in range(7)] == [None] * 7
    clock.now += 9.99
    assert limiter.allow("get", "timeout") is None
    clock.now += 0.01
    assert limiter.allow("get", "timeout") == 8
    clock.now += 10
    assert limiter.allow("get", "timeout") == 0


@pytest.mark.parametrize(
    ("operation", "kind", "expected"),
    [("get", "timeout", None), ("set", "timeout", 0), ("get", "connect", 0)],
)
def test_lines_are_told_apart(
    clock: Clock, operation: str, kind: str, expected: int | None
) -> None:
    """Another operation or another kind of trouble has its own line."""
    limiter = LogLimiter(clock)
    limiter.allow("get", "timeout")
    assert limiter.allow(operation, kind) == expected


def test_the_limiter_does_not_grow(clock: Clock) -> None:
    """Whatever kinds come, it remembers some hundreds, and the newest of them."""
    limiter = LogLimiter(clock)
    for index in range(2_000):
        clock.now += 0.001
        assert limiter.allow("get", f"kind {index}") == 0
    newest = [limiter.allow("get", f"kind {index}") for index in range(1_900, 2_000)]
    assert newest == [None] * 100
    known = [limiter.allow("get", f"kind {index}") for index in reversed(range(2_000))].count(None)
    assert 100 < known < 500


def test_threads_share_the_count(clock: Clock) -> None:
    """Of many threads one writes the line, and none of the others is forgotten."""
    limiter = LogLimiter(clock)
    answers = in_threads(8, lambda: [limiter.allow("add", "circuit_open") for _ in range(1000)])
    assert [answer for answers in answers for answer in answers if answer is not None] == [0]
    clock.now += 10
    assert limiter.allow("add", "circuit_open") == 7999


@pytest.fixture(scope="module")
def simulation() -> Any:
    """The simulation by which the breaker was tuned; it is not part of the wheel."""
    load("simulate_hedging")  # which it imports
    return load("simulate_breaker")


@pytest.mark.parametrize("run", range(5), ids=["pages", "singles", "one_thread", "many", "busy"])
def test_goals_hold_in_the_simulation(simulation: Any, run: int) -> None:
    """Short outages, stray failures and slow answers cost what the policy allows, and no more."""
    missed = []
    workload, troubles = simulation.RUNS[run]
    for trouble in troubles:
        short = replace(trouble, seconds=min(60.0, trouble.seconds))
        result = simulation.Simulation(short, workload, seed=1).run()
        missed += [(trouble.name, goal) for goal in simulation.missed(result)]
    assert missed == []


def test_the_simulation_notices_a_bad_breaker(simulation: Any) -> None:
    """A run in which an outage costs a page ten seconds misses its goals."""
    result = simulation.Result(simulation.BLACK_HOLE, simulation.PAGES, asked=20, sent=40)
    result.pages = [(simulation.WARM_UP, 10.0)]
    assert len(simulation.missed(result)) == 4
