"""Whether an alias works, asked step by step, and what to do when it does not; metrics.

It knows everything below it, and is used by checks, commands and who reads metrics, never by a
request of the site.
"""
