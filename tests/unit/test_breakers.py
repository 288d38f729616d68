"""Which breaker an error concerns, and that neither loses its probe."""

from collections.abc import Callable

import pytest

from django_momento_http._client.breaker import Breaker
from django_momento_http._client.breakers import Breakers, Permits
from django_momento_http.exceptions import (
    AccessDenied,
    BadRequest,
    CircuitOpen,
    MomentoError,
    RateLimited,
    TransportError,
)

REFUSED = AccessDenied("the token is invalid or expired (401)", status=401)


class Both:
    """A service's breaker and an account's behind one gate, on a clock that stands still."""

    def __init__(self) -> None:
        self.now = 0.0
        self.account, self.service = (
            Breaker(1.0, lambda: self.now, random=lambda: 0.0) for _ in range(2)
        )
        self.breakers = Breakers(self.service, self.account)

    def admitted(self) -> Permits:
        """Return the permits of an operation that must be let through."""
        permits = self.breakers.admit()
        assert not isinstance(permits, CircuitOpen)
        return permits

    def refuse(self) -> None:
        """Open the account's breaker."""
        self.breakers.record(self.admitted(), REFUSED, 0.1)

    def fail(self) -> None:
        """Open the service's breaker."""
        permit = self.service.permit
        assert permit is not None
        self.service.record(permit, TransportError(), 60.0)


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
    assert both.breakers.state == "open"
    both.now += 20
    both.breakers.record(both.admitted(), None, 0.1)
    assert both.breakers.state == "closed"


def test_a_probe_that_the_other_breaker_stops_is_the_next_caller_s(both: Both) -> None:
    """What the service's breaker keeps back does not use the account's probe up."""
    both.refuse()
    both.now += 1.5
    both.fail()
    assert isinstance(both.breakers.admit(), CircuitOpen)
    assert both.account.state == "half-open"
    both.now += 1.5
    both.admitted()


def test_a_probe_that_was_given_back_is_the_next_caller_s(both: Both) -> None:
    """A request that is repeated with a new token does not use the probe up."""
    both.refuse()
    both.now += 20
    both.breakers.give_back(both.admitted())
    both.admitted()


def test_a_refusal_says_what_opened_the_account_s_breaker(both: Both) -> None:
    """It names the error that must be mended, and what to do; a 403 beside it does not count."""
    first, second = both.admitted(), both.admitted()
    both.breakers.record(first, REFUSED, 0.1)
    both.breakers.record(second, AccessDenied("the token does not permit this", status=403), 0.1)
    refused = both.breakers.admit()
    assert isinstance(refused, CircuitOpen)
    assert str(refused) == f"not attempted since: {REFUSED}"


def test_the_service_s_trouble_is_not_the_account_s(both: Both) -> None:
    """A failure of the service opens its own breaker, a refused token the account's."""
    both.fail()
    assert (both.service.state, both.account.state) == ("open", "closed")
    refused = both.breakers.admit()
    assert isinstance(refused, CircuitOpen)
    assert "trouble with the service" in str(refused)


@pytest.mark.parametrize("trouble", [Both.refuse, Both.fail], ids=["account", "service"])
def test_nothing_that_could_wait_goes_out_until_a_probe_has_succeeded(
    both: Both, trouble: Callable[[Both], None]
) -> None:
    """Neither while a breaker is open nor while it probes is a client unimpaired."""
    assert both.breakers.may_send_extra
    trouble(both)
    assert not both.breakers.may_send_extra
    both.now += 20
    probe = both.admitted()
    assert not both.breakers.may_send_extra
    both.breakers.record(probe, None, 0.1)
    assert both.breakers.may_send_extra


def test_an_account_whose_limit_was_met_is_spared_for_a_minute(both: Both) -> None:
    """One answer 429 opens nothing, and requests that could wait do so for 60 seconds."""
    both.breakers.record(both.admitted(), RateLimited(), 0.1)
    assert both.breakers.state == "closed"
    both.now += 59.9
    assert not both.breakers.may_send_extra
    both.now += 0.1
    assert both.breakers.may_send_extra


@pytest.mark.parametrize("error", [BadRequest(status=400), AccessDenied(status=403)])
def test_what_one_request_is_refused_for_impairs_nothing(both: Both, error: MomentoError) -> None:
    """A refusal that concerns one operation says nothing of the others."""
    both.breakers.record(both.admitted(), error, 0.1)
    assert both.breakers.may_send_extra


def test_an_account_s_probe_without_an_answer_is_the_next_caller_s(both: Both) -> None:
    """No answer says nothing of the account: its breaker goes on probing."""
    both.refuse()
    both.now += 20
    both.breakers.record(both.admitted(), TransportError(), 0.1)
    assert both.account.state == "half-open"
    both.breakers.record(both.admitted(), None, 0.1)
    assert both.breakers.state == "closed"


def test_a_refusal_of_one_request_ends_an_account_s_probe(both: Both) -> None:
    """Whose request is refused as it stands has a token and a cache that are good again."""
    both.refuse()
    both.now += 20
    both.breakers.record(both.admitted(), BadRequest(status=400), 0.1)
    assert both.breakers.state == "closed"
