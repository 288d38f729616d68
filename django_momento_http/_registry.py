"""Named and numbered codecs: a name in settings, a number in stored bytes.

Built-in codecs have small numbers; one named by a dotted path gets a number made from that path, so
that a stored value says which codec wrote it. It knows nothing of what the codecs do.
"""

import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.utils.module_loading import import_string

from ._interrupts import is_raised_by_signal_handler
from ._redaction import shown

T = TypeVar("T")

# Codes travel in 16 bits; the upper half is for codecs that are not ours.
FOREIGN = 0x8000


@dataclass(frozen=True)
class Coded(Generic[T]):
    """A codec, the name that settings give it and the number that stored values carry."""

    code: int
    name: str
    codec: T


class Registry(Generic[T]):
    """The codecs of one purpose, built when first asked for."""

    def __init__(
        self, built_in: Mapping[str, tuple[int, Callable[[], T]]], methods: tuple[str, ...]
    ) -> None:
        self._built_in = built_in
        self._methods = methods
        self._names = {code: name for name, (code, _) in built_in.items()}
        self._built: dict[str, Coded[T]] = {}

    def find(self, spec: object) -> Coded[T]:
        """Return the codec of this name or dotted path; ValueError says why there is none."""
        if not isinstance(spec, str) or (spec not in self._built_in and "." not in spec):
            known = ", ".join(map(repr, self._built_in))
            named = shown(spec, self._built_in)
            raise ValueError(f"must be one of {known}, or a dotted path to a class, not {named}")
        if spec not in self._built:
            self._built[spec] = self._build(spec)
        return self._built[spec]

    def by_code(self, code: int, configured: Coded[T] | None) -> T | None:
        """Return the codec that wrote a value: the configured one, or any built-in one."""
        if configured is not None and configured.code == code:
            return configured.codec
        name = self._names.get(code)
        if name is None:
            return None
        try:
            return self.find(name).codec
        except ValueError as error:
            if is_raised_by_signal_handler(error):
                raise
            return None

    def _build(self, spec: str) -> Coded[T]:
        if spec in self._built_in:
            code, make = self._built_in[spec]
            return Coded(code, spec, make())
        return Coded(FOREIGN | (zlib.crc32(spec.encode()) & 0x7FFF), spec, self._import(spec))

    def _import(self, spec: str) -> T:
        failure = ""
        try:
            made: Any = import_string(spec)()
        except Exception as error:
            if is_raised_by_signal_handler(error):
                raise
            failure = type(error).__name__
        if failure:
            # What begins like a module is no credential.
            named = repr(spec) if spec.rpartition(".")[0] in sys.modules else shown(spec)
            raise ValueError(
                "must name a class that can be imported and called without arguments,"
                f" not {named} ({failure})"
            )
        missing = [name for name in self._methods if not callable(getattr(made, name, None))]
        if missing:
            raise ValueError(f"{spec!r} has no method {' and no method '.join(missing)}")
        codec: T = made
        return codec
