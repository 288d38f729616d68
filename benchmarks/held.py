"""How long work holds an event loop: the longest gap between the wake-ups of a ticker beside it.

What the ticker shows on an idle loop is subtracted. It knows nothing of the work.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from statistics import median

_TICK_SECONDS = 0.001
_IDLE_SECONDS = 0.05


async def _tick(gaps: list[float]) -> None:
    before = time.perf_counter()
    while True:
        await asyncio.sleep(_TICK_SECONDS)
        now = time.perf_counter()
        gaps.append(now - before)
        before = now


async def _gaps_beside(work: Callable[[], Awaitable[object]]) -> list[float]:
    gaps: list[float] = []
    ticker = asyncio.ensure_future(_tick(gaps))
    # The ticker must be asleep before the work begins: a gap is counted from its last wake-up.
    await asyncio.sleep(2 * _TICK_SECONDS)
    await work()
    await asyncio.sleep(2 * _TICK_SECONDS)
    ticker.cancel()
    return gaps


async def longest(work: Callable[[], Awaitable[object]]) -> float:
    """Return the longest time in seconds that the loop could do nothing else."""
    idle = await _gaps_beside(lambda: asyncio.sleep(_IDLE_SECONDS))
    busy = await _gaps_beside(work)
    return max(0.0, max(busy) - median(idle))
