"""What a process makes once and keeps: made anew after a fork, put away at exit.

It knows nothing of what is kept.
"""

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


_REGISTRIES: "weakref.WeakSet[PerProcess[Any, Any]]" = weakref.WeakSet()


class PerProcess(Generic[K, V]):
    """One value per key and process.

    ``discard`` puts a value away; it must be harmless in a forked child to the parent's value, and
    take no lock, because in a child its owner may not exist.
    """

    def __init__(
        self, make: Callable[[K], V], discard: Callable[[V], None] = lambda _: None
    ) -> None:
        self._make = make
        self._discard = discard
        self._made: dict[K, V] = {}
        self._lock = threading.RLock()
        _REGISTRIES.add(self)

    def get(self, key: K) -> V:
        """Return this process's value for the key, made when first asked for."""
        made = self._made.get(key)
        if made is not None:
            return made
        with self._lock:
            if key not in self._made:
                self._made[key] = self._make(key)
            return self._made[key]

    def drop(self, is_over: Callable[[K], bool]) -> None:
        """Put away the values whose keys are over."""
        with self._lock:
            over = [self._made.pop(key) for key in list(self._made) if is_over(key)]
        for value in over:
            self._discard(value)

    def start_afresh(self) -> None:
        """Forget everything that was inherited, the lock included: its owner may not exist here."""
        self._lock = threading.RLock()
        inherited, self._made = list(self._made.values()), {}
        for value in inherited:
            self._discard(value)


def _after_fork_in_child() -> None:
    for registry in list(_REGISTRIES):
        registry.start_afresh()


def _at_exit() -> None:
    for registry in list(_REGISTRIES):
        registry.drop(lambda _: True)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
