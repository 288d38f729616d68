"""Template filters that write hours and draw nights."""

from django import template

register = template.Library()


@register.filter
def clock(hours: float) -> str:
    """Write hours as hours and minutes: 6.25 is "6 h 15"."""
    minutes = round(hours * 60)
    return f"{minutes // 60} h {minutes % 60:02}"


@register.filter
def dark_shape(nights: list[float]) -> str:
    """Give the points of an SVG polygon: a year from left to right, midnight in the middle.

    The drawing is as wide as there are nights and 24 high, one unit an hour.
    """
    dusk = [f"{x},{12 - hours / 2:.2f}" for x, hours in enumerate(nights)]
    dawn = [f"{x},{12 + hours / 2:.2f}" for x, hours in enumerate(nights)]
    return " ".join(dusk + dawn[::-1])
