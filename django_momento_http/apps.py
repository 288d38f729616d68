"""What Django does when ``django_momento_http`` stands in INSTALLED_APPS: checks and metrics.

It knows nothing of what the checks look for, nor of what the metrics say.
"""

import logging
from importlib.util import find_spec
from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.core.cache import caches
from django.core.checks import caches as checks_of_django
from django.core.exceptions import ImproperlyConfigured

from ._diagnostics.aliases import is_ours
from ._interrupts import is_raised_by_signal_handler
from .checks import check_deployment, check_settings

logger = logging.getLogger("django_momento_http")


class MomentoConfig(AppConfig):
    """The application: system checks, metrics and the command ``momento_check``."""

    name = "django_momento_http"
    verbose_name = "Momento cache"

    def ready(self) -> None:
        """Register checks and metrics, and keep Django's own checks from stopping short of ours."""
        checks.register(check_settings, checks.Tags.caches)
        checks.register(check_deployment, checks.Tags.caches, deploy=True)
        # Django's checks for FileBasedCache build every backend. One with bad options would end the
        # whole run in a traceback, before E001 could say what is wrong. Nothing but those checks
        # uses this name.
        checks_of_django.caches = _Buildable()  # type: ignore[attr-defined]
        _register_metrics()


def _register_metrics() -> None:
    """Register the metrics where there is somebody to take them; a site starts without them."""
    if find_spec("opentelemetry") is None:
        return
    try:
        from ._diagnostics.metrics import register  # imports OpenTelemetry's API

        register()
    except ImportError:
        return  # other packages stand in the same namespace
    except Exception as error:
        if is_raised_by_signal_handler(error):
            raise
        logger.warning("There are no OpenTelemetry metrics (%s)", type(error).__name__)


class _Buildable:
    """Django's ``caches``, with None for what E001 reports."""

    def __getitem__(self, alias: str) -> Any:
        try:
            return caches[alias]
        except ImproperlyConfigured:
            if not is_ours(alias):
                raise
        return None
