"""Ask every Momento cache of CACHES, live, whether it works, and say what to do where it does not.

It knows how reports are printed, and nothing of how they are made.
"""

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from ..._diagnostics.advice import CORRECT, Trouble
from ..._diagnostics.aliases import build, is_ours, shown_backend
from ..._diagnostics.probe import ROUNDS, Report, examine

_LABELS = {
    "lookup": "name resolution",
    "tunnel": "proxy tunnel",
    "tls": "TLS",
    "marker": "clear marker",
}
_WIDTH = max(map(len, _LABELS.values()))
_NORMAL, _MORE = 1, 2


class Command(BaseCommand):
    """``manage.py momento_check [alias ...] [--json]``."""

    help = (
        "Writes, reads and deletes one key of its own in each Momento cache, and says how long"
        " that takes or what is wrong. Exit status 1 when anything failed."
    )
    # This command says itself what is wrong with the settings.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "aliases", nargs="*", metavar="alias", help="aliases of CACHES; default: all of Momento"
        )
        parser.add_argument("--json", action="store_true", help="print one JSON document instead")

    def handle(self, *_: Any, **options: Any) -> None:
        ours, skipped = _sorted_out(options["aliases"])
        reports = []
        for alias in ours:
            reports.append(_report(alias))
            if not options["json"]:
                self._print(reports[-1], options["verbosity"])
        if options["json"]:
            self.stdout.write(json.dumps(_document(reports, skipped), indent=2))
        elif options["verbosity"] >= _NORMAL:
            for alias, backend in skipped.items():
                self.stdout.write(f"{alias}: skipped, because its backend is {backend}")
        _end(reports)

    def _print(self, report: Report, verbosity: int) -> None:
        if verbosity < _NORMAL and not report.problems and not report.warnings:
            return
        place = f": Momento cache {report.location!r} at {report.endpoint}"
        self.stdout.write(f"{report.alias}{place if report.endpoint else ''}")
        if verbosity >= _NORMAL:
            for line in _times(report, with_range=verbosity >= _MORE):
                self.stdout.write(line)
        for problem in report.problems:
            self._print_trouble(problem, self.style.ERROR("FAILED"))
        for warning in report.warnings:
            self._print_trouble(warning, self.style.WARNING("warning"))
        if not report.problems:
            self.stdout.write(self.style.SUCCESS(f"  OK (medians of {ROUNDS})"))

    def _print_trouble(self, trouble: Trouble, mark: str) -> None:
        self.stdout.write(f"  {_label(trouble.step)}  {mark}: {trouble.cause}")
        self.stdout.write(f"  {'':{_WIDTH}}  {trouble.advice}")


def _sorted_out(wanted: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return the aliases to examine, and the backends of those that are not Momento's."""
    unknown = [alias for alias in wanted if alias not in settings.CACHES]
    if unknown:
        known = ", ".join(settings.CACHES)
        raise CommandError(f"CACHES has no alias {unknown[0]!r}; there are {known}")
    aliases = dict.fromkeys(wanted or settings.CACHES)
    ours = [alias for alias in aliases if is_ours(alias)]
    if not ours:
        backends = ", ".join(f"{name!r}: {shown_backend(name)}" for name in aliases)
        raise CommandError(
            "no alias has django_momento_http.cache.MomentoCache, or a subclass of it, for"
            f" BACKEND; there are {backends}"
        )
    return ours, {alias: shown_backend(alias) for alias in aliases if alias not in ours}


def _report(alias: str) -> Report:
    try:
        backend = build(alias)
    except ImproperlyConfigured as error:
        problem = str(error)
    else:
        return examine(alias, backend)
    return Report(alias, problems=[Trouble("settings", "settings", problem, CORRECT.format(alias))])


def _end(reports: list[Report]) -> None:
    failed = [report.alias for report in reports if report.problems]
    if failed:
        raise CommandError(f"{len(failed)} of {len(reports)} failed: {', '.join(failed)}")


def _label(step: str) -> str:
    return f"{_LABELS.get(step, step):{_WIDTH}}"


def _times(report: Report, *, with_range: bool) -> Iterator[str]:
    least, most = report.milliseconds(min), report.milliseconds(max)
    for step, middle in report.milliseconds().items():
        extent = f"  ({least[step]:.1f} to {most[step]:.1f})" if with_range else ""
        yield f"  {_label(step)}  {middle:8.1f} ms{extent}"


def _document(reports: list[Report], skipped: dict[str, str]) -> dict[str, Any]:
    return {
        "ok": not any(report.problems for report in reports),
        "caches": [
            {
                "alias": report.alias,
                "location": report.location,
                "endpoint": report.endpoint,
                "ok": not report.problems,
                "milliseconds": report.milliseconds(),
                "problems": [problem._asdict() for problem in report.problems],
                "warnings": [warning._asdict() for warning in report.warnings],
            }
            for report in reports
        ],
        "skipped": skipped,
    }
