"""Polling: both ways to wait for sockets say the same."""

import select
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_momento_http._http.polling import READ, WRITE, Poll, SelectPoll, new_poll

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two sockets that are connected to each other."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


both = pytest.mark.parametrize("make", [new_poll, SelectPoll])


@both
@pytest.mark.parametrize(
    ("wanted", "is_said", "found"),
    [
        (READ, False, 0),
        (READ, True, READ),
        (WRITE, False, WRITE),
        (READ | WRITE, True, READ | WRITE),
    ],
)
def test_what_is_ready_is_returned(
    make: Callable[[], Poll], pair: Pair, wanted: int, is_said: bool, found: int
) -> None:
    """Events that were asked for and have come are returned, others are not."""
    ours, theirs = pair
    if is_said:
        theirs.send(b"x")
    poll = make()
    poll.register(ours.fileno(), wanted)
    assert dict(poll.poll(0)) == ({ours.fileno(): found} if found else {})


@both
def test_a_closed_peer_is_readable(make: Callable[[], Poll], pair: Pair) -> None:
    """An end of connection shows as an event."""
    ours, theirs = pair
    theirs.close()
    poll = make()
    poll.register(ours.fileno(), READ)
    [(fd, events)] = poll.poll(1000)
    assert fd == ours.fileno()
    assert events & READ


@both
def test_what_is_unregistered_is_no_longer_watched(make: Callable[[], Poll], pair: Pair) -> None:
    """After unregister a descriptor is silent, and may be registered for something else."""
    ours, theirs = pair
    theirs.send(b"x")
    poll = make()
    poll.register(ours.fileno(), READ)
    poll.unregister(ours.fileno())
    assert poll.poll(0) == []
    poll.register(ours.fileno(), WRITE)
    assert poll.poll(0) == [(ours.fileno(), WRITE)]


@both
def test_negative_and_small_timeouts_do_not_wait_for_ever(
    make: Callable[[], Poll], pair: Pair
) -> None:
    """A fraction of a millisecond is a timeout, not for ever."""
    poll = make()
    poll.register(pair[0].fileno(), READ)
    assert poll.poll(0.2) == []


def test_select_serves_where_there_is_no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """A platform without ``select.poll`` gets the other one."""
    monkeypatch.delattr(select, "poll")
    assert isinstance(new_poll(), SelectPoll)


def test_a_descriptor_of_another_wait_is_none_of_this_one(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A select that tells of what an earlier wait was for, as eventlet's does, is asked again."""
    ours, theirs = pair
    theirs.send(b"x")
    told = [([ours.fileno() + 1], [], []), ([], [theirs.fileno()], [])]
    real, asked = select.select, list[float | None]()

    def stale(*arguments: Any) -> Any:
        asked.append(arguments[3])
        return told.pop() if told else real(*arguments)

    monkeypatch.setattr(select, "select", stale)
    poll = SelectPoll()
    poll.register(ours.fileno(), READ)
    assert poll.poll(1000) == [(ours.fileno(), READ)]
    assert len(asked) == 3
    assert asked[0] == 1.0
    assert all(seconds is not None and 0 < seconds < 1 for seconds in asked[1:])
