"""Which breaker an error concerns, and that neither loses its probe."""

from collections.abc import Callable

import pytest

from django_momento_http.exceptions import (
    AccessDenied,
    BadRequest,
    CircuitOpen,
    MomentoError,
    RateLimited,
    TransportError,
)
from django_momento_http.failures import Breaker
from django_momento_http.gates import Gates, Tickets

REFUSED = AccessDenied("the token is invalid or expired (401)", status=401)


class Both:
    """A service's breaker and an account's behind one gate, on a clock that stands still."""

    def __init__(self) -> None:
        self.now = 0.0
        self.account, self.service = (
            Breaker(1.0, lambda: self.now, random=lambda: 0.0) for _ in range(2)
        )
        self.gates = Gates(self.service, self.account)

    def admitted(self) -> Tickets:
        """Return the tickets of an operation that must be let through."""
        tickets = self.gates.admit()
        assert not isinstance(tickets, CircuitOpen)
        return tickets

    def refuse(self) -> None:
        """Open the account's breaker."""
        self.gates.record(self.admitted(), REFUSED, 0.1)

    def fail(self) -> None:
        """Open the service's breaker."""
        ticket = self.service.ticket
        assert ticket is not None
        self.service.record(ticket, TransportError(), 60.0)


@pytest.fixture
def both() -> Both:
    """Two closed breakers."""
    return Both()


@pytest.mark.parametrize("trouble", [Both.refuse, Both.fail], ids=["account", "service"])
def test_a_probe_that_succeeds_closes_its_breaker_while_the_other_is_calm(
    both: Both, trouble: Callable[[Both], None]
) -> None:
    """A success is passed over only where it changes neither breaker."""
    trouble(both)
    assert both.gates.state == "open"
    both.now += 20
    both.gates.record(both.admitted(), None, 0.1)
    assert both.gates.state == "closed"


def test_a_probe_that_the_other_breaker_stops_is_the_next_caller_s(both: Both) -> None:
    """What the service's breaker keeps back does not use the account's probe up."""
    both.refuse()
    both.now += 1.5
    both.fail()
    assert isinstance(both.gates.admit(), CircuitOpen)
    assert both.account.state == "half-open"
    both.now += 1.5
    both.admitted()


def test_a_probe_that_was_given_back_is_the_next_caller_s(both: Both) -> None:
    """A request that is repeated with a new token does not use the probe up."""
    both.refuse()
    both.now += 20
    both.gates.give_back(both.admitted())
    both.admitted()


def test_a_refusal_says_what_opened_the_account_s_breaker(both: Both) -> None:
    """It names the error that must be mended, and what to do; a 403 beside it does not count."""
    first, second = both.admitted(), both.admitted()
    both.gates.record(first, REFUSED, 0.1)
    both.gates.record(second, AccessDenied("the token does not permit this", status=403), 0.1)
    refused = both.gates.admit()
    assert isinstance(refused, CircuitOpen)
    assert str(refused) == f"not attempted since: {REFUSED}"


def test_the_service_s_trouble_is_not_the_account_s(both: Both) -> None:
    """A failure of the service opens its own breaker, a refused token the account's."""
    both.fail()
    assert (both.service.state, both.account.state) == ("open", "closed")
    refused = both.gates.admit()
    assert isinstance(refused, CircuitOpen)
    assert "trouble with the service" in str(refused)


@pytest.mark.parametrize("trouble", [Both.refuse, Both.fail], ids=["account", "service"])
def test_nothing_that_could_wait_goes_out_until_a_probe_has_succeeded(
    both: Both, trouble: Callable[[Both], None]
) -> None:
    """Neither while a breaker is open nor while it probes is a client unimpaired."""
    assert both.gates.is_unimpaired
    trouble(both)
    assert not both.gates.is_unimpaired
    both.now += 20
    probe = both.admitted()
    assert not both.gates.is_unimpaired
    both.gates.record(probe, None, 0.1)
    assert both.gates.is_unimpaired


def test_an_account_whose_limit_was_met_is_spared_for_a_minute(both: Both) -> None:
    """One answer 429 opens nothing, and requests that could wait do so for 60 seconds."""
    both.gates.record(both.admitted(), RateLimited(), 0.1)
    assert both.gates.state == "closed"
    both.now += 59.9
    assert not both.gates.is_unimpaired
    both.now += 0.1
    assert both.gates.is_unimpaired


@pytest.mark.parametrize("error", [BadRequest(status=400), AccessDenied(status=403)])
def test_what_one_request_is_refused_for_impairs_nothing(both: Both, error: MomentoError) -> None:
    """A refusal that concerns one operation says nothing of the others."""
    both.gates.record(both.admitted(), error, 0.1)
    assert both.gates.is_unimpaired
