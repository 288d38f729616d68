"""What Django does when ``django_momento_http`` stands in INSTALLED_APPS: register the checks.

It knows nothing of what they look for.
"""

from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.core.cache import caches
from django.core.checks import caches as checks_of_django
from django.core.exceptions import ImproperlyConfigured

from ._diagnostics.aliases import is_ours
from .checks import check_deployment, check_settings


class MomentoConfig(AppConfig):
    """The application: system checks and the command ``momento_check``."""

    name = "django_momento_http"
    verbose_name = "Momento cache"

    def ready(self) -> None:
        """Register the checks, and keep Django's own from stopping short of them."""
        checks.register(check_settings, checks.Tags.caches)
        checks.register(check_deployment, checks.Tags.caches, deploy=True)
        # Django's checks of FileBasedCache build every backend, so that one with bad options ends
        # the whole run in a traceback, where E001 is to say what is wrong. Only those checks look
        # their backends up here.
        checks_of_django.caches = _Buildable()  # type: ignore[attr-defined]


class _Buildable:
    """Django's ``caches``, with None for what E001 reports."""

    def __getitem__(self, alias: str) -> Any:
        try:
            return caches[alias]
        except ImproperlyConfigured:
            if not is_ours(alias):
                raise
        return None
