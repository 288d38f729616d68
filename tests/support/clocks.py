"""Clocks that tests move."""

import time


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class ClockAhead:
    """The monotonic clock, and what a test adds to it without taking time."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead

    def compute(self, seconds: float) -> None:
        """Take so long, as unpickling or compressing a large value does."""
        self.ahead += seconds
