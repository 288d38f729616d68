"""How an instance of the backend is made from its alias's settings.

Django makes one per thread and task; all of one configuration share a store. It knows nothing of
what the methods of a cache do.
"""

import sys
from typing import Any

from django.core.cache.backends.base import BaseCache, default_key_func

from ._conf.django_settings import read_beside, signing_keys
from ._conf.options import improper, read_options
from ._interrupts import is_raised_by_signal_handler
from ._redaction import empty_frames
from ._store.config import StoreConfig
from ._store.store import Store, shared_store


class StoreBackend(BaseCache):
    """A backend of Django's that has a ``Store``; see ``MomentoCache``."""

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        handled = sys.exception()
        try:
            self._build(location, params)
        except BaseException as error:
            # Whatever it is, and whatever raised it: params is Django's own copy of the alias's
            # settings, and stays in the locals of a frame that is not ours.
            empty_frames(error, handled)
            params.clear()
            location, handled = "", None
            raise

    def _build(self, location: str, params: dict[str, Any]) -> None:
        options = read_options(location, params.get("OPTIONS", {}))
        try:
            beside, key_prefix = read_beside(params)
            keys = signing_keys(options.signing_key)
        except ValueError as error:
            if is_raised_by_signal_handler(error):
                raise
            problem = str(error)
        else:
            super().__init__(beside)
            self._config = StoreConfig(options, key_prefix, keys)
            own = type(self)
            # What is made of keys may hide which of them are sessions'.
            makes_own = own.make_key is not BaseCache.make_key
            makes_own |= own.make_and_validate_key is not BaseCache.make_and_validate_key
            has_function = self.key_func is not default_key_func
            self._hides_keys = options.near_max_age > 0 and (makes_own or has_function)
            self._makes_keys = own.make_and_validate_key is not BaseCache.make_and_validate_key
            self._checks_all_keys = own.validate_key is not BaseCache.validate_key
            self._shared = self._find_store()
            return
        raise improper(location, problem)

    def __repr__(self) -> str:
        return f"<MomentoCache {self.__dict__.get('_shared')!r}>"

    def _find_store(self) -> Store:
        try:
            return shared_store(self._config)
        except OSError as error:
            if is_raised_by_signal_handler(error):
                raise
            failure = type(error).__name__
        options = self._config.options
        bundle = "CA_BUNDLE" if options.ca_bundle else "the bundle of certificates in requests"
        problem = f"{bundle} cannot be used ({failure}); it must be a file of PEM certificates"
        raise improper(options.location, problem)
