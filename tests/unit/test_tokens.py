"""The token: a constant, or asked for again when the service refuses it."""

import base64
import json
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from django_momento_http._client.tokens import TokenSource, _Renewal
from django_momento_http._http.messages import Request
from django_momento_http.exceptions import AccessDenied


class Vendor:
    """Hands out numbered tokens and counts how often it was asked."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        return f"token-{self.count}"


def refused(token: str) -> Request:
    """A request that was refused with this token."""
    call = Request("GET", "/", None, 0.0, 1.0)
    call.authorization = token
    return call


def renewed(source: TokenSource, token: str) -> str | None:
    """Return what the source has in this token's place, None for nothing."""
    return source.known if source.renew(refused(token), 5) else None


def test_a_constant_is_itself_and_never_renewed() -> None:
    """A string is sent as it stands; when it is refused there is no other."""
    source = TokenSource("constant")
    assert source.current(1) == "constant"
    assert renewed(source, "constant") is None


def test_a_callable_is_asked_once_and_again_when_refused() -> None:
    """A token is kept until the service refuses it."""
    vendor = Vendor()
    source = TokenSource(vendor)
    assert [source.current(5) for _ in range(3)] == ["token-1"] * 3
    assert renewed(source, "token-1") == "token-2"
    assert source.current(5) == "token-2"
    assert vendor.count == 2


def test_one_renewal_serves_all_whose_old_token_was_refused() -> None:
    """Who comes with an old token after it was renewed gets the new one without another call."""
    vendor = Vendor()
    source = TokenSource(vendor)
    source.current(5)
    assert [renewed(source, "token-1") for _ in range(5)] == ["token-2"] * 5
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
            return renewed(source, "token-1")

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(renew, range(8))) == {"token-2"}
        assert vendor.count == 2


@pytest.fixture
def busy_switching() -> Iterator[None]:
    """Threads that overtake each other at every turn."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("busy_switching")
def test_who_asks_for_the_first_token_does_not_stop_a_renewal() -> None:
    """Threads that come for a first token while others have theirs refused all get the second."""
    for _ in range(150):
        vendor = Vendor()
        source = TokenSource(vendor)
        start = threading.Barrier(8)

        def get(_: int, source: TokenSource = source, start: threading.Barrier = start) -> object:
            start.wait(10)
            token = source.current(5)
            return token if token != "token-1" else renewed(source, token)

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(get, range(8))) == {"token-2"}
        assert vendor.count == 2


def test_one_who_was_overtaken_by_the_renewal_does_not_ask_again() -> None:
    """A thread that saw the old token and asks after the renewal has ended gets the renewed one."""
    vendor = Vendor()
    source = TokenSource(vendor)
    source.current(5)
    renewed(source, "token-1")
    source._ask(_Renewal(source, vendor, "token-1"), 5)
    assert (source.known, vendor.count) == ("token-2", 2)


def test_a_token_that_did_not_change_is_none() -> None:
    """The refused token is not worth another request."""
    source = TokenSource(lambda: "same")
    source.current(5)
    assert renewed(source, "same") is None


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


class Interrupted(Exception):
    """What the signal handler of these tests raises, besides errors that we know."""


@pytest.mark.parametrize("kind", [Interrupted, KeyboardInterrupt, TimeoutError, RuntimeError])
@pytest.mark.parametrize("known", ["", "canarytoken"])
def test_an_interrupt_while_waiting_comes_out_and_shows_no_token(
    kind: type[BaseException], known: str
) -> None:
    """Whatever a handler raises is the caller's, and no frame that it leaves holds the token."""
    go, asked = threading.Event(), threading.Event()

    def hang() -> str:
        asked.set()
        go.wait(10)
        return "late"

    def handler(*_: object) -> None:
        if not over.is_set():
            over.set()
            raise kind("time is up")

    def interrupt() -> None:
        asked.wait(10)
        # Again, because one may arrive just before the wait begins.
        while not over.wait(0.02):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    source = TokenSource(hang)
    source.known = known
    call, over = refused(known), threading.Event()
    before = signal.signal(signal.SIGUSR1, handler)
    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    try:
        with pytest.raises(kind) as caught:
            source.renew(call, 10) if known else source.current(10)
    finally:
        over.set()
        interrupter.join()
        signal.signal(signal.SIGUSR1, before)
        go.set()
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)][1:]
    shown = [repr(frame.f_locals) for frame in frames if "momento" in frame.f_code.co_filename]
    assert shown
    assert not [text for text in shown if "canarytoken" in text]
