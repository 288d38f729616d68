"""Green threads: what gevent and eventlet raise where a task waits comes out and loses nothing."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.scripted import Peer, response, scripted

ROOT = Path(__file__).parents[2]

GEVENT = """
    from gevent import monkey
    monkey.patch_all()
    import gevent
    from gevent import Timeout, sleep, spawn
    start = Timeout.start_new
    wait = gevent.Greenlet.get
"""
EVENTLET = """
    import warnings
    warnings.simplefilter("ignore")
    import eventlet
    eventlet.monkey_patch()
    from eventlet.greenthread import GreenThread
    from eventlet import Timeout, sleep, spawn
    start = Timeout
    wait = GreenThread.wait
"""
WORK = """
    import random, sys
    from tests.support.scripted import a_request, all_of, open_in, transport_to

    class Mine(Exception):
        pass

    def ask(number, turn):
        target = f"/{number}/{turn}"
        if turn % 2:
            answers = [transport.exchange(a_request(target))]
        else:
            answers = [answer for _, answer in all_of(transport, [a_request(target)] * 3)]
        assert {answer.body for answer in answers} == {target.encode()}

    def work(number):
        raised = 0
        for turn in range(60):
            error = [None, Mine(), TimeoutError(), OSError(), ValueError()][turn % 5]
            limit = start(random.uniform(0, 0.01), error)
            try:
                ask(number, turn)
            except (Timeout, Mine, OSError, ValueError) as came:
                assert came is (error or limit)
                raised += 1
            finally:
                limit.cancel()
            killed = spawn(ask, number, turn)
            sleep(random.uniform(0, 0.002))
            killed.kill()
        return raised

    with transport_to(sys.argv[1], connections=2, connect_timeout=5) as transport:
        raised = [wait(one) for one in [spawn(work, number) for number in range(4)]]
        assert sum(raised) > 20, raised
        pool = transport.pool
        for _ in range(1000):
            if open_in(pool) <= set(pool._idle) and not pool._waiting:
                break
            sleep(0.01)
        assert open_in(pool) <= set(pool._idle)
        assert not pool._waiting
        ask(9, 1)
"""


def script(peer: Peer) -> None:
    """Answer every request with its own target, now and then a little late."""
    while True:
        received = peer.request()
        peer.pause(0.002 if len(peer.server.received) % 3 == 0 else 0)
        peer.send(response(200, received.target.encode()))


@pytest.mark.parametrize(("library", "patch"), [("gevent", GEVENT), ("eventlet", EVENTLET)])
def test_timeouts_of_any_class_come_out_and_lose_nothing(library: str, patch: str) -> None:
    """So do kills; each answer is its own request's, and the host's name is looked up as well."""
    pytest.importorskip(library)
    code = textwrap.dedent(patch) + textwrap.dedent(WORK)
    with scripted(script) as server:
        endpoint = server.endpoint.replace("127.0.0.1", "localhost")
        command = [sys.executable, "-c", code, endpoint]
        subprocess.run(command, cwd=ROOT, check=True, timeout=120)
