"""What a process makes once and keeps: a forked one makes it anew, and at exit it is put away.

A fork is told by the process id when something is looked up, because servers written in C (uWSGI)
fork without Python's hooks. It knows nothing of what is kept.
"""

import atexit
import mmap
import os
import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

from ._interrupts import is_raised_by_signal_handler

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# How many values a registry keeps that nobody else holds, where there may be any number of keys.
RECENT = 64

# Of madvise(2) since Linux 4.14: a forked child finds zeros, whoever called fork.
_WIPE_ON_FORK = 18
# Advice that does not exist: a system that takes it takes any, and acts on none.
_NO_ADVICE = -1


def _forgotten_by_forks() -> "memoryview | list[int]":
    """Return one number, 0 until it is set and in every forked child; a constant one elsewhere."""
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        page.madvise(_WIPE_ON_FORK)
    except (AttributeError, OSError, TypeError) as error:  # another system, or another kernel
        if is_raised_by_signal_handler(error):
            raise
        return [0]
    try:
        page.madvise(_NO_ADVICE)
    except OSError as error:
        if is_raised_by_signal_handler(error):
            raise
        return memoryview(page).cast("Q")
    return [0]


# This process's id once ``remember_pid`` was called, 0 before: a look costs a tenth of the system
# call. Where the system has no memory that forks wipe it is always 0, and the call is made.
known_pid = _forgotten_by_forks()


def remember_pid() -> int:
    """Return this process's id, which is known from now on."""
    pid = os.getpid()
    if isinstance(known_pid, memoryview):
        known_pid[0] = pid
    return pid


# Weak references without callbacks in Python: those run wherever the collector does, and what a
# signal handler raises inside of one is lost.
_REGISTRIES: "set[weakref.ref[PerProcess[Any, Any]]]" = set()


class _Kept(Generic[K, V]):
    """What one process has made; the lock is its own, because an inherited one may be held."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.recent: dict[K, V] = {}  # the last used last
        self.held: dict[K, weakref.ref[V]] = {}
        self.sweep_at = 2 * RECENT  # entries of ``held``, some of which may be dead

    def find(self, key: K) -> V | None:
        """Return what is held under a key."""
        reference = self.held.get(key)
        return None if reference is None else reference()

    def alive(self) -> dict[K, V]:
        """Return all values that are left, by key."""
        held = {key: reference() for key, reference in list(self.held.items())}
        return {key: value for key, value in held.items() if value is not None} | self.recent

    def hold(self, key: K, value: V) -> None:
        """Let a value be found as long as somebody holds it."""
        if self.find(key) is value:
            return
        self.held[key] = weakref.ref(value)
        if len(self.held) > self.sweep_at:
            self._sweep()

    def _sweep(self) -> None:
        for key, reference in list(self.held.items()):
            if reference() is None:
                replaced = self.held.pop(key, reference)
                if replaced is not reference:
                    # A signal handler in this thread came first.
                    self.held.setdefault(key, replaced)
        self.sweep_at = max(2 * RECENT, 2 * len(self.held))


class PerProcess(Generic[K, V]):
    """One value per key and process.

    With ``recent``, the registry itself keeps only so many values, the last used. Others live as
    long as somebody holds them, and are found until then, so that a key never has two. ``discard``
    puts a value away. In a forked child it must not harm the parent's value, and must take no lock:
    the thread that held it does not exist there.
    """

    def __init__(
        self,
        make: Callable[[K], V],
        discard: Callable[[V], None] = lambda _: None,
        recent: int | None = None,
    ) -> None:
        self._make = make
        self._discard = discard
        self._recent = recent
        self._kept: dict[int, _Kept[K, V]] = {}
        _REGISTRIES.add(weakref.ref(self, _REGISTRIES.discard))

    def get(self, key: K) -> V:
        """Return this process's value for the key, made when first asked for."""
        kept = self._kept.get(os.getpid()) or self._begin()
        value = kept.recent.get(key)
        if value is not None and self._recent is None:
            return value
        with kept.lock:
            if value is None:
                value = kept.find(key)
            if value is None:
                value = self._made(kept, key)
            if self._recent is not None:
                self._keep(kept, key, value)
            return value

    def items(self) -> list[tuple[K, V]]:
        """Return what this process has made and still has."""
        kept = self._kept.get(os.getpid())
        if kept is None:
            return []
        with kept.lock:
            return list(kept.alive().items())

    def drop(self, is_over: Callable[[K], bool]) -> None:
        """Put away the values of those keys of which ``is_over`` is true."""
        kept = self._kept.get(os.getpid()) or self._begin()
        with kept.lock:
            over = {key: value for key, value in kept.alive().items() if is_over(key)}
            for key in over:
                kept.held.pop(key, None)
                kept.recent.pop(key, None)
        for value in over.values():
            self._discard(value)

    def forget(self, but: int = 0) -> None:
        """Forget what other processes have made, all but the one with this id."""
        for pid in list(self._kept):
            inherited = self._kept.pop(pid, None) if pid != but else None
            if inherited is not None:
                for value in inherited.alive().values():
                    self._discard(value)

    def _begin(self) -> _Kept[K, V]:
        pid = os.getpid()
        # Of several threads, all take what the first one sets.
        kept = self._kept.setdefault(pid, _Kept())
        # In all registries: ids come back, and no process may find what an earlier one has made.
        for registry in _registries():
            registry.forget(but=pid)
        return kept

    def _made(self, kept: _Kept[K, V], key: K) -> V:
        made = self._make(key)
        value = kept.recent.setdefault(key, made)
        if value is not made:
            # A signal handler in this thread came first.
            self._discard(made)
        return value

    def _keep(self, kept: _Kept[K, V], key: K, value: V) -> None:
        kept.hold(key, value)
        kept.recent.pop(key, None)
        kept.recent[key] = value
        while len(kept.recent) > (self._recent or 0):
            del kept.recent[list(kept.recent)[0]]  # noqa: RUF015 - one step, whatever interrupts


def _registries() -> "list[PerProcess[Any, Any]]":
    found = [reference() for reference in list(_REGISTRIES)]
    return [registry for registry in found if registry is not None]


def _after_fork_in_child() -> None:
    for registry in _registries():
        registry.forget()


def _at_exit() -> None:
    for registry in _registries():
        registry.drop(lambda _: True)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
