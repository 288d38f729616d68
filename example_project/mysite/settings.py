"""Settings of the example: read the part about CACHES, the rest is Django's usual.

It does not know whether MOMENTO_ENDPOINT is the service or the local server that manage.py starts.
"""

import hashlib
import os
import secrets
from pathlib import Path

from mysite.local_server import CACHE_NAME

BASE_DIR = Path(__file__).resolve().parent.parent

# It signs cached values too. manage.py runserver makes a new one for each run; one of your own in
# EXAMPLE_SECRET_KEY lets several processes, or runs, share sessions and an account's cache.
SECRET_KEY = os.environ.get("EXAMPLE_SECRET_KEY") or secrets.token_urlsafe(48)
# Tells what this key has signed from what other runs have, which would be refused with a warning.
SIGNED_BY = hashlib.sha256(SECRET_KEY.encode()).hexdigest()[:8]

if os.environ.get("MOMENTO_API_KEY"):
    # TOKEN, REGION and ENDPOINT are left out: the backend reads MOMENTO_API_KEY, MOMENTO_REGION
    # and MOMENTO_ENDPOINT itself. Without the demonstration's report, BACKEND would be
    # "django_momento_http.cache.MomentoCache".
    CACHES = {
        "default": {
            "BACKEND": "lighthouses.recording.RecordedMomentoCache",
            "LOCATION": CACHE_NAME,
            "TIMEOUT": 600,
            "KEY_PREFIX": f"lighthouses-{SIGNED_BY}",
            # What this process has read or written it answers from its own copy for so many
            # seconds; an edit in another process is seen after them.
            "OPTIONS": {"NEAR_MAX_AGE": 10},
        }
    }
    place = os.environ.get("MOMENTO_ENDPOINT") or os.environ.get("MOMENTO_REGION") or "Momento"
    if place.startswith("http://127.0.0.1:"):
        place = f"a local server ({place})"
    CACHE_SHOWN = f"the cache “{CACHE_NAME}” of {place}"
else:
    # Neither an account nor a local server: `manage.py shell`, `test`, or an ASGI server.
    CACHES = {"default": {"BACKEND": "lighthouses.recording.RecordedLocMemCache"}}
    CACHE_SHOWN = "this process's own memory (MOMENTO_API_KEY is not set)"

SESSION_ENGINE = "django.contrib.sessions.backends.cached_db"
SESSION_COOKIE_NAME = f"session-{SIGNED_BY}"
SESSION_EXPIRE_AT_BROWSER_CLOSE = True

DEBUG = True

INSTALLED_APPS = [
    "lighthouses",  # before staticfiles, whose runserver it extends
    "django_momento_http",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
]

MIDDLEWARE = [
    "lighthouses.recording.cache_report",  # first, so that it sees the session's operations too
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("EXAMPLE_DATABASE") or BASE_DIR / "db.sqlite3",
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
    }
}

ROOT_URLCONF = "mysite.urls"
ASGI_APPLICATION = "mysite.asgi.application"
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_I18N = False
TIME_ZONE = "UTC"
