"""Extends Django's runserver: prepares the database and says which cache the site uses.

It does not start the local server; manage.py does, before the settings are read.
"""

import sqlite3
from contextlib import closing

from django.conf import settings
from django.contrib.staticfiles.management.commands.runserver import Command as RunServer
from django.core.management import call_command


class Command(RunServer):
    """Runs the example with no set-up before it."""

    def check_migrations(self) -> None:
        """Apply migrations, the demonstration's rows among them, where Django would only warn."""
        # One site at a time, should two start at once: SQLite lets go of a lock when its
        # holder ends, however it ends.
        lock = f"{settings.DATABASES['default']['NAME']}-setup.sqlite3"
        with closing(sqlite3.connect(lock, timeout=60, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            call_command("migrate", verbosity=0)

    def on_bind(self, server_port: int) -> None:
        """Say in two lines where to go and which cache is used."""
        super().on_bind(server_port)
        self.stdout.write(f"\nOpen http://{self.addr}:{server_port}/ in a browser.")
        self.stdout.write(f"The pages are cached in {settings.CACHE_SHOWN}.\n")
