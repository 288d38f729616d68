"""Whether an alias works, asked step by step, and what to do when it does not.

It knows everything below it, and is used by checks and commands alone, never by a request of the
site.
"""
