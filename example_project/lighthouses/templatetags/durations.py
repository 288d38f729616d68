"""A template filter that writes how long something took."""

from django import template

from lighthouses import latency

register = template.Library()
register.filter(latency.duration)
