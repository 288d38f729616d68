"""The token: a constant, or asked for again when the service refuses it."""

import base64
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from django_momento_http.exceptions import AccessDenied
from django_momento_http.tokens import TokenSource


class Vendor:
    """Hands out numbered tokens and counts how often it was asked."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        return f"token-{self.count}"


def test_a_constant_is_itself_and_never_renewed() -> None:
    """A string is sent as it stands; when it is refused there is no other."""
    source = TokenSource("constant")
    assert source.current(1) == "constant"
    assert source.renew("constant", 1) is None


def test_a_callable_is_asked_once_and_again_when_refused() -> None:
    """A token is kept until the service refuses it."""
    vendor = Vendor()
    source = TokenSource(vendor)
    assert [source.current(5) for _ in range(3)] == ["token-1"] * 3
    assert source.renew("token-1", 5) == "token-2"
    assert source.current(5) == "token-2"
    assert vendor.count == 2


def test_one_renewal_serves_all_whose_old_token_was_refused() -> None:
    """Who comes with an old token after it was renewed gets the new one without another call."""
    vendor = Vendor()
    source = TokenSource(vendor)
    source.current(5)
    assert [source.renew("token-1", 5) for _ in range(5)] == ["token-2"] * 5
    assert vendor.count == 2


def test_threads_refused_together_ask_once() -> None:
    """However their refusals fall together, many threads cost one call."""
    for _ in range(50):
        vendor = Vendor()
        source = TokenSource(vendor)
        source.current(5)
        start = threading.Barrier(8)

        def renew(_: int, source: TokenSource = source, start: threading.Barrier = start) -> object:
            start.wait(10)
            return source.renew("token-1", 5)

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(renew, range(8))) == {"token-2"}
        assert vendor.count == 2


def test_one_who_was_overtaken_by_the_renewal_does_not_ask_again() -> None:
    """A thread that saw the old token and asks after the renewal has ended gets the renewed one."""
    vendor = Vendor()
    source = TokenSource(vendor)
    source.current(5)
    source.renew("token-1", 5)
    assert source._ask("token-1", 5) == "token-2"
    assert vendor.count == 2


def test_a_token_that_did_not_change_is_none() -> None:
    """The refused token is not worth another request."""
    source = TokenSource(lambda: "same")
    source.current(5)
    assert source.renew("same", 5) is None


def fails() -> str:
    raise RuntimeError("the secret is hunter2")


def exits() -> str:
    raise SystemExit("hunter2")


@pytest.mark.parametrize(
    "token",
    [
        fails,
        exits,
        lambda: None,
        lambda: 3,
        lambda: "",
        lambda: b"bytes",
        lambda: "two words",
        lambda: "line\r\nX-Evil: 1",
        lambda: "kölsch",
        lambda: "nul\x00",
    ],
)
def test_rubbish_is_a_denied_access_that_shows_nothing(token: object) -> None:
    """A callable that fails or returns what cannot be sent is an AccessDenied of kind token."""
    source = TokenSource(token)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(AccessDenied) as caught:
        source.current(5)
    assert (caught.value.status, caught.value.kind) == (401, "token")
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert not {"hunter2", "Evil", "kölsch", "words"} & set(str(caught.value).split())


def test_a_failed_callable_is_asked_again() -> None:
    """Failure is not kept."""
    outcomes = iter(["", "good"])
    source = TokenSource(lambda: next(outcomes))
    with pytest.raises(AccessDenied):
        source.current(5)
    assert source.current(5) == "good"


def test_a_hanging_callable_is_not_waited_for() -> None:
    """The operation's time is all that it gets; when it comes back its token is used."""
    go = threading.Event()

    def hang() -> str:
        go.wait(10)
        return "late"

    source = TokenSource(hang)
    began = time.monotonic()
    with pytest.raises(AccessDenied, match="took too long"):
        source.current(0.05)
    assert time.monotonic() - began < 0.15
    go.set()
    assert source.current(10) == "late"


def test_a_v1_key_is_unwrapped() -> None:
    """What travels of a v1 key that a callable returns is the secret inside."""
    document = {"endpoint": "cell-1-eu-west-1-1.prod.a.momentohq.com", "api_key": "inner"}
    key = base64.b64encode(json.dumps(document).encode()).decode()
    assert TokenSource(lambda: key).current(5) == "inner"


@pytest.mark.parametrize("token", ["hunter2", lambda: "hunter2"])
def test_the_repr_does_not_show_the_token(token: object) -> None:
    """Neither kind of source shows what it holds."""
    source = TokenSource(token)  # type: ignore[arg-type]
    source.current(5)
    assert "hunter2" not in repr(source)


def test_an_interrupt_while_waiting_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the callable is waited for ends the program, not the token."""
    source = TokenSource(lambda: "token")

    def interrupted(_: float) -> str:
        raise KeyboardInterrupt

    assert source._flight is not None
    monkeypatch.setattr(source._flight, "result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        source.current(5)
