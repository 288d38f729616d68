"""What another thread may do between the read and the write of one call."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# What makes of a value that was read the one that is written back.
_REMADE = ("renewed", "replaced", "ttl_left")


@contextmanager
def between_read_and_write(cache: Any, act: Callable[[], object]) -> Iterator[None]:
    """Act once, after touch(), incr() or incr_version() has read and before it seals."""
    values = cache._shared._values
    acts = iter([act])

    def after_acting(make: Callable[..., Any]) -> Callable[..., Any]:
        def made(*arguments: Any) -> Any:
            for each in acts:
                each()
            return make(*arguments)

        return made

    for name in _REMADE:
        setattr(values, name, after_acting(getattr(values, name)))
    try:
        yield
    finally:
        for name in _REMADE:
            delattr(values, name)
