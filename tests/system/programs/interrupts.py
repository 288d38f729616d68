"""Signals that raise at random moments while the main thread uses the cache.

``interrupts sync|async COUNT SEED``. Each alarm rings once, at a moment of its own, and what its
handler raises must come out of whatever it interrupted: as it is, and with nothing in the frames
that it leaves that an error tracker must not see.
"""

import asyncio
import random
import signal
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from django.conf import settings
from django.core.cache import caches

from tests.support.canary import seen_in

from .common import Size, is_of, say, set_up, value_of, what_stays

KEYS = [f"key-{number}" for number in range(8)]
COUNTERS = [f"counter-{number}" for number in range(4)]
# What a counter's value is divided by to tell its key.
SPAN = 10**9
LONGEST = 0.0015  # seconds until an alarm rings: a few operations
LONGEST_WAIT = 6.0  # seconds after which a task is taken for lost


class Interrupt(Exception):
    """What most time limits are: an Exception that ``except Exception`` would catch."""


class Abort(BaseException):
    """What others are, as gunicorn's SystemExit and KeyboardInterrupt."""


class Alarm:
    """Raises once each time that it is set, at a random moment, and knows what it raised."""

    def __init__(self, chance: random.Random) -> None:
        self.rung = 0
        self.arrived: Counter[int] = Counter()
        self._chance = chance
        signal.signal(signal.SIGALRM, self._ring)

    def set(self) -> None:
        """Let it ring within a few operations."""
        signal.setitimer(signal.ITIMER_REAL, self._chance.uniform(1e-5, LONGEST))

    def _ring(self, *_: object) -> None:
        self.rung += 1
        raise self._chance.choice((Interrupt, Abort))(self.rung)

    def take(self, error: BaseException) -> bool:
        """Note that what was raised has arrived; say whether it is one of these, and whole."""
        if not isinstance(error, (Interrupt, Abort)) or error.__cause__ is not None:
            return False
        self.arrived[error.args[0]] += 1
        return True

    def lost(self) -> list[int]:
        """Return the numbers of what was raised and arrived nowhere."""
        return [number for number in range(1, self.rung + 1) if not self.arrived[number]]


class Work:
    """Calls of all kinds, judged as they come."""

    def __init__(self, chance: random.Random) -> None:
        self.wrong: list[str] = []
        self.cache = caches["default"]
        self._chance = chance
        self._number = 0
        # Values of an era before the last clear() that returned must not be seen.
        self._era = self._floor = 0

    def one(self) -> str:
        """Make one call and return its name."""
        name = self._chance.choice(
            ("get", "get", "set", "get_many", "set_many", "incr", "delete", "get_or_set", "touch")
        )
        if self._chance.random() < 0.02:
            name = "clear"
        self._number += 1
        getattr(self, f"_{name}")(self._chance.choice(KEYS))
        return name

    def _made(self, key: str) -> dict[str, Any]:
        return value_of(key, self._era)

    def judge(self, method: str, key: str, value: Any) -> None:
        """Note a value that is another's, or of the past."""
        if value is not None and not (is_of(key, value) and value["number"] >= self._floor):
            self.wrong.append(f"{method} {key}: {value!r:.200}, floor {self._floor}")

    def _get(self, key: str) -> None:
        self.judge("get", key, self.cache.get(key))

    def _get_many(self, _: str) -> None:
        for key, value in self.cache.get_many(KEYS).items():
            self.judge("get_many", key, value)

    def _set(self, key: str) -> None:
        self.cache.set(key, self._made(key))

    def _set_many(self, _: str) -> None:
        self.cache.set_many({key: self._made(key) for key in KEYS[:5]})

    def _incr(self, _: str) -> None:
        index = self._chance.randrange(len(COUNTERS))
        total = None
        with suppress(ValueError):
            total = self.cache.incr(COUNTERS[index])
        # Not where the error is handled: there Python hides from the parser of answers, and so from
        # the cache, what a signal handler has raised inside of it.
        if total is None:
            self.cache.set(COUNTERS[index], index * SPAN)
        elif not (isinstance(total, int) and total // SPAN == index):
            self.wrong.append(f"incr {index}: {total!r:.200}")

    def _delete(self, key: str) -> None:
        self.cache.delete(key)

    def _get_or_set(self, key: str) -> None:
        self.judge("get_or_set", key, self.cache.get_or_set(key, lambda: self._made(key)))

    def _touch(self, key: str) -> None:
        self.cache.touch(key, 600)

    def _clear(self, _: str) -> None:
        self._era += 1
        self.cache.clear()
        self._floor = self._era


def frames(error: BaseException) -> Iterator[Any]:
    """Yield the frames that an error left, and those of what it interrupted."""
    known: BaseException | None = error
    while known is not None:
        traceback = known.__traceback__
        while traceback is not None:
            yield traceback.tb_frame
            traceback = traceback.tb_next
        known = known.__context__


def sightings(error: BaseException) -> list[str]:
    """Return where the token shows in what an error tracker would send."""
    token = settings.CACHES["default"]["OPTIONS"]["TOKEN"]
    return [
        f"{frame.f_code.co_qualname}: {name}"
        for frame in frames(error)
        for name, value in frame.f_locals.items()
        if frame.f_globals.get("__name__", "").startswith(("django_momento_http", "requests"))
        and seen_in(repr(value), token)
    ]


def _interrupted(error: BaseException) -> str:
    """Return the module that the alarm interrupted."""
    modules = [str(frame.f_globals.get("__name__")) for frame in frames(error)]
    own = modules.index(__name__) if __name__ in modules else len(modules)
    return next(iter(modules[max(own - 1, 0) : own]), "")


def _settle(loop: asyncio.AbstractEventLoop) -> None:
    """Let tasks that nobody waits for end, unless their callbacks are lost."""
    for task in asyncio.all_tasks(loop):
        task.cancel()
    for _ in range(10):
        loop.call_soon(loop.stop)
        loop.run_forever()


class Trial:
    """So many alarms, and what became of them."""

    def __init__(self, count: int, seed: int) -> None:
        self.chance = random.Random(seed)
        self.count = count
        self.alarm = Alarm(self.chance)
        self.work = Work(self.chance)
        self.seen: Counter[str] = Counter()
        self.printed: Counter[str] = Counter()
        self.strays: list[str] = []
        self.hangs: list[str] = []
        self.is_broken = False
        self._last = ""
        self.sizes: list[Size] = []
        sys.unraisablehook = self._unraisable

    def _unraisable(self, event: Any) -> None:
        """Take what arrived where Python lets nothing be raised: in finalizers and callbacks."""
        if event.exc_value is None:
            return
        if self.alarm.take(event.exc_value):
            self.printed[getattr(event.object, "__qualname__", repr(event.object))] += 1
            return
        if any(isinstance(each, threading.Thread) for each in event.exc_value.args):
            return  # Python's own: its start() was interrupted when the thread had begun
        if not asyncio.iscoroutine(event.object):  # one that was never awaited, as it happens here
            self.strays.append(f"unraisable {event.exc_value!r} in {event.object!r:.100}")

    def caught(self, error: BaseException) -> None:
        """Judge what came out."""
        self.seen.update(sightings(error))
        self._last = " > ".join(frame.f_code.co_qualname for frame in frames(error))
        if not self.alarm.take(error):
            name = type(error).__name__
            self.strays.append(f"{name}: {error} from {error.__cause__!r}, {self._last}")

    def run_sync(self) -> None:
        """Interrupt calls of the main thread."""
        while self.alarm.rung < self.count:
            rung = self.alarm.rung
            try:
                self._call_until_it_rings(rung)
            except (Exception, Abort) as error:  # noqa: BLE001 - judged
                self.caught(error)
            self.measure()

    def _call_until_it_rings(self, rung: int) -> None:
        name = ""
        self.alarm.set()
        while self.alarm.rung == rung:
            name = self.work.one()
        self.strays.append(f"swallowed by {name}")

    def run_async(self) -> None:
        """Interrupt event loops; one that is whole is used again."""
        while self.alarm.rung < self.count and len(self.hangs) < 3:
            self.is_broken = False
            loop = asyncio.new_event_loop()
            loop.set_exception_handler(self._told_by_loop)
            # Asked where the alarm has rung in that.
            loop.default_exception_handler = partial(self._told_by_loop, loop)  # type: ignore[method-assign]
            for _ in range(20):
                if not self.is_broken:
                    self._interrupt(loop)
            _settle(loop)
            loop.close()
            self.measure()

    def _told_by_loop(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, BaseException) or isinstance(error, asyncio.CancelledError):
            return
        self.caught(error)
        if _interrupted(error).startswith("asyncio"):
            # A callback of asyncio's own is lost, and with it whoever waits for it.
            self.is_broken = True
            loop.stop()

    def _let_others_end(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait for what an interrupted gather has left under way.

        Nobody would be told of the next alarm, if it rang in one of these.
        """
        others = asyncio.all_tasks(loop)
        if others and loop.run_until_complete(asyncio.wait(others, timeout=LONGEST_WAIT))[1]:
            self.hangs.append(f"left after {self._last}")
            self.is_broken = True

    def _interrupt(self, loop: asyncio.AbstractEventLoop) -> None:
        self._let_others_end(loop)
        task = loop.create_task(self._tasks(self.alarm.rung))
        lost = loop.call_later(LONGEST_WAIT, loop.stop)
        try:
            self.alarm.set()
            loop.run_until_complete(task)
        except RuntimeError:
            if not self.is_broken:
                self.hangs.append(self._last)
                self.is_broken = True
        except (Exception, Abort) as error:  # noqa: BLE001 - judged
            self.caught(error)
            # What escapes the loop itself may have taken a callback with it.
            self.is_broken = not task.done()
        lost.cancel()

    async def _tasks(self, rung: int) -> None:
        cache, work = self.work.cache, self.work
        while self.alarm.rung == rung:
            key = self.chance.choice(KEYS)
            match self.chance.randrange(3):
                case 0:
                    work.judge("aget", key, await cache.aget(key))
                case 1:
                    for name, value in (await cache.aget_many(KEYS)).items():
                        work.judge("aget_many", name, value)
                case _:
                    keys = [self.chance.choice(KEYS) for _ in range(50)]
                    values = await asyncio.gather(*map(cache.aget, keys))
                    for name, value in zip(keys, values, strict=True):
                        work.judge("gather", name, value)

    def measure(self) -> None:
        """Measure when it is warm, and at the end."""
        if self.alarm.rung >= self.count * (len(self.sizes) + 1) // 2:
            self.sizes.append(Size.settled())


def main() -> None:
    """Interrupt, and report."""
    kind, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    lines = set_up()
    # An interrupt before the first step of a task leaves the caller's own coroutine behind.
    own = r"coroutine '(MomentoCache\.aget|Trial\._tasks)' was never awaited"
    warnings.filterwarnings("ignore", own)
    trial = Trial(count, seed)
    trial.work.cache.set_many({key: value_of(key) for key in KEYS})
    trial.run_sync() if kind == "sync" else trial.run_async()
    late = Size.settled()
    warm = (trial.sizes or [late])[0]
    say(
        rung=trial.alarm.rung,
        lost=trial.alarm.lost()[:20],
        printed=dict(trial.printed),
        strays=trial.strays[:20],
        hangs=trial.hangs,
        wrong=trial.work.wrong[:20],
        seen=dict(trial.seen),
        **what_stays(warm, late, count // 2),
        lines=lines.lines[:10],
        stats=trial.work.cache.stats(),
    )


if __name__ == "__main__":
    main()
