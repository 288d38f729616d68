"""How long the nights are: the slow part of the example, worth a cache.

It knows nothing of Django, of the cache or of lighthouses. The sun is followed step by step
through every day of a year and the steps in the dark are counted. There is a short formula for
this; counting stands in for the work that has none, and its cost is real processor time.
"""

from math import cos, pi, radians, sin

DAYS = 365
SUN_TILT = 23.44  # degrees between the Earth's axis and the upright of its orbit


def night_hours(latitude: float, dusk_angle: float, day: int, steps: int) -> float:
    """Count the hours of one day in which the sun is `dusk_angle` degrees below the horizon.

    The sun's height is `asin(sin φ sin δ + cos φ cos δ cos h)`; its declination δ is taken from
    a circular orbit, which is right to about half a degree.
    """
    tilt = -radians(SUN_TILT) * cos(2 * pi * (day + 10) / DAYS)
    across, along = sin(radians(latitude)) * sin(tilt), cos(radians(latitude)) * cos(tilt)
    dark = -sin(radians(dusk_angle))
    turn = 2 * pi / steps
    return 24 * sum(across + along * cos(turn * step) < dark for step in range(steps)) / steps


def nights_of_year(latitude: float, dusk_angle: float, steps: int) -> list[float]:
    """Count the hours of darkness for each day of a year."""
    return [night_hours(latitude, dusk_angle, day, steps) for day in range(DAYS)]
