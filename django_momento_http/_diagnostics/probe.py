"""Whether one alias can write, read and delete, and how long each part of that takes.

It opens connections of its own, because the process's breaker and idle connections would hide what
it is to find. What went wrong is put in words by ``advice``.
"""

import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import mktime_tz, parsedate_tz
from statistics import median

from .._client.client import origin_of, shared_client
from .._client.operation import Operation
from .._client.responses import Outcome, outcome_of
from .._client.tokens import TokenSource
from .._conf.credentials import expiry_of
from .._http.messages import Response
from .._http.transport import Transport
from .._interrupts import is_raised_by_signal_handler
from .._redaction import EmptiedFrames
from .._store.envelope import Stored
from .._store.keys import encode_key
from ..cache import MomentoCache
from ..exceptions import AccessDenied, MomentoError, StoredValueError
from .advice import Circumstances, Trouble, may_be_another_server, trouble, trouble_of
from .banner import protocol_at

ROUNDS = 5
# What fails before the value is deleted leaves it behind for a minute, no longer.
_TTL = 60
# Long enough to be compressed by default.
_VALUE = "momento_check " * 100
# Two clocks and a network differ by seconds; beyond this, one of them is wrong.
_CLOCKS_DIFFER = 30.0


@dataclass
class Report:
    """What is known of one alias; a warning is no failure."""

    alias: str
    location: str = ""
    endpoint: str = ""
    problems: list[Trouble] = field(default_factory=list)
    warnings: list[Trouble] = field(default_factory=list)
    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def milliseconds(self, of: Callable[[list[float]], float] = median) -> dict[str, float]:
        """Return the median of each step's times, in the order in which steps are taken."""
        return {step: round(of(times) * 1000, 2) for step, times in self.seconds.items()}


def examine(
    alias: str,
    backend: MomentoCache,
    clock: Callable[[], float] = time.monotonic,
    wall_clock: Callable[[], float] = time.time,
) -> Report:
    """Write, read and delete one new key a few times, and report what came of it."""
    # It holds a token in many of its steps, and may be interrupted in each.
    with EmptiedFrames():
        examination = _Examination(alias, backend, clock, wall_clock)
        examination.run()
        return examination.report


class _Examination:
    """One alias under examination; what is found gathers in ``report``."""

    def __init__(
        self,
        alias: str,
        backend: MomentoCache,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._config = backend._config  # noqa: SLF001 - what the backend was built from
        self._options = self._config.options
        self._envelope = self._config.envelope()
        self._key = encode_key(backend.make_key(f"momento_check:{secrets.token_hex(8)}").encode())
        # It makes the requests, and does not send them.
        self._client = shared_client(self._options)
        self._ttl = min(_TTL, self._options.max_ttl or _TTL)
        self._token = ""
        self._misses = 0
        self._opening = _Opening(clock)
        self.report = Report(alias, self._options.shown_location, self._options.endpoint)

    def run(self) -> None:
        """Take all steps, up to the first that fails."""
        stored = self._packed()
        if stored is None or not self._has_token():
            return
        for _ in range(ROUNDS):
            with closing(self._new_transport()) as transport:
                self._go_round(transport, stored)
            if self.report.problems:
                return
        self._judge_misses()
        if self._options.clear_max_age is not None:
            self._read_marker()

    # Before anything is sent

    def _packed(self) -> Stored | None:
        try:
            payload = self._envelope.dumps(_VALUE)
            now = self._wall_clock()
            return self._envelope.pack(payload, now + self._ttl, int(now * 1000), 0)
        except Exception as error:
            if is_raised_by_signal_handler(error):
                raise
            failure = type(error).__name__
        self._fail("set", "codec", reason=failure)
        return None

    def _has_token(self) -> bool:
        try:
            self._token = TokenSource(self._options.token).current(self._options.request_timeout)
        except AccessDenied as error:
            self._fail_by("token", error)
            return False
        return True

    def _new_transport(self) -> Transport:
        return Transport(origin_of(self._options), self._clock, self._opening.note)

    # Requests

    def _go_round(self, transport: Transport, stored: Stored) -> None:
        body = self._envelope.seal(self._key, stored)
        operations = {
            "set": Operation.set(self._key, body, self._ttl),
            "get": Operation.get(self._key),
            "delete": Operation.delete(self._key),
        }
        outcomes: dict[str, Outcome] = {}
        for step, operation in operations.items():
            outcome = outcomes[step] = self._ask(transport, step, operation)
            # A permission is for one of them; with any other trouble, all would fail alike.
            if isinstance(outcome, MomentoError) and not self._lacks_permission():
                return
        if outcomes["set"] is None:
            self._compare(outcomes["get"])

    def _lacks_permission(self) -> bool:
        return self.report.problems[-1].kind == "not_permitted"

    def _read_marker(self) -> None:
        marker = self._config.marker(self._envelope.key_ids[0])
        with closing(self._new_transport()) as transport:
            found = self._ask(transport, "marker", Operation.get(marker))
        if found is None or isinstance(found, MomentoError):
            return
        try:
            self._envelope.open(marker, found, self._wall_clock())
        except StoredValueError:
            self._warn("marker", "marker_altered")

    def _ask(self, transport: Transport, step: str, operation: Operation) -> Outcome:
        """Carry one operation out; what fails becomes part of the report."""
        self._opening.seconds.clear()
        began = self._clock()
        attempt = self._client.attempt(operation, self._client.deadline(1, began))
        attempt.authorization = self._token
        answer = transport.exchange(attempt)
        elapsed = self._clock() - began
        outcome = outcome_of(operation.method, answer)
        is_page = False
        if isinstance(answer, Response):
            self._compare_clocks(answer.headers)
            is_page = b"html" in answer.headers.get(b"content-type", b"").lower()
        times = dict(self._opening.seconds)
        if isinstance(outcome, MomentoError):
            self._fail_by(step, outcome, is_page=is_page)
        else:
            times[step] = elapsed - sum(times.values())
        if step != "marker":
            for name, seconds in times.items():
                self.report.seconds[name].append(seconds)
        return outcome

    # What the answers say

    def _compare(self, found: Outcome) -> None:
        if isinstance(found, MomentoError):
            return
        if found is None:
            self._misses += 1
            return
        reason = "it is another value"
        try:
            stored = self._envelope.open(self._key, found, self._wall_clock())
            if self._envelope.load(stored) == _VALUE:
                return
        except StoredValueError as error:
            reason = error.reason
        self._fail("get", "altered", reason=reason)

    def _judge_misses(self) -> None:
        if self._misses == ROUNDS:
            self._fail("get", "not_found")
        elif self._misses:
            self._warn("get", "found_late")

    def _compare_clocks(self, headers: Mapping[bytes, bytes]) -> None:
        theirs = _seconds_of(headers.get(b"date", b""))
        if theirs is None or any(warning.kind == "clock" for warning in self.report.warnings):
            return
        ahead = self._wall_clock() - theirs
        if abs(ahead) > _CLOCKS_DIFFER:
            side = "ahead of" if ahead > 0 else "behind"
            self._warn("clock", "clock", difference=f"{abs(ahead):.0f} s {side} the service's")

    def _fail_by(self, step: str, error: MomentoError, *, is_page: bool = False) -> None:
        options = self._options
        spoken = ""
        # Behind a proxy, only the proxy can tell who listens.
        if options.proxy is None and may_be_another_server(error, is_page=is_page):
            spoken = protocol_at(options.endpoint, options.connect_timeout)
        known = Circumstances(self._expired_at(), spoken, is_page)
        self.report.problems.append(trouble_of(step, error, options, known))

    def _expired_at(self) -> str:
        expiry = expiry_of(self._token)
        if expiry is None or expiry > self._wall_clock():
            return ""
        return f"{datetime.fromtimestamp(expiry, UTC):%Y-%m-%d %H:%M} UTC"

    def _fail(self, step: str, kind: str, **facts: str) -> None:
        self.report.problems.append(trouble(step, kind, self._options, **facts))

    def _warn(self, step: str, kind: str, **facts: str) -> None:
        self.report.warnings.append(trouble(step, kind, self._options, **facts))


class _Opening:
    """How many seconds each step of opening a connection took, the last that was opened."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since = 0.0
        self.seconds: dict[str, float] = {}

    def note(self, step: str) -> None:
        """Count the time since the step before; with "begin" it begins."""
        now = self._clock()
        if step != "begin":
            self.seconds[step] = now - self._since
        self._since = now


def _seconds_of(date: bytes) -> float | None:
    """Return a Date header's seconds since 1970, None when it is none."""
    parts = parsedate_tz(date.decode("latin-1"))
    try:
        return float(mktime_tz(parts)) if parts else None
    except (OverflowError, ValueError):
        return None
