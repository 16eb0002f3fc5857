from __future__ import annotations

import json
import textwrap
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from segment_fallback.doctor.fetch import without_login
from segment_fallback.doctor.finding import Finding, Level
from segment_fallback.doctor.run import examine_page, examine_setup
from segment_fallback.doctor.setup import Options
from segment_fallback.wording import counted

WIDTH = 100


class Command(BaseCommand):
    help = (
        "Examines the set-up, and pages by their URLs as visitors and edges get them: what is wrong, why it matters, "
        "and how to mend it. Ends with status 1 where a finding is of --fail-level or graver."
    )
    # What they would stop at is a finding.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("urls", nargs="*", metavar="URL", help="pages of the site, by their public URLs")
        parser.add_argument("--send", action="store_true", help="send a marked test event the whole way to Segment")
        parser.add_argument(
            "--wait", type=float, default=15.0, metavar="SECONDS", help="for the site's flush to deliver it; default 15"
        )
        parser.add_argument("--pages-only", action="store_true", help="examine the URLs, and not the set-up")
        parser.add_argument("--celery-app", default="", metavar="APP", help="as in celery --app; default the project's")
        parser.add_argument("--json", action="store_true", help="print a list of findings, for programs")
        parser.add_argument(
            "--fail-level",
            type=str.upper,
            default="ERROR",
            choices=["ERROR", "WARNING", "INFO"],
            help="the level at which the command fails, as `manage.py check` has it; default ERROR",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["pages_only"] and not options["urls"]:
            raise CommandError("--pages-only needs a URL.")
        examined: list[Finding] = []
        if not options["pages_only"]:
            how = Options(send=options["send"], wait=options["wait"], celery_app=options["celery_app"])
            examined += self._tell("Set-up", list(examine_setup(how)), options)
        for url in options["urls"]:
            examined += self._tell(without_login(url), list(examine_page(url)), options)
        if options["json"]:
            self.stdout.write(json.dumps([finding.as_json() for finding in examined], indent=2, ensure_ascii=False))
        summary = summarise(examined)
        if any(finding.level >= Level[options["fail_level"]] for finding in examined):
            raise CommandError(summary)
        if not options["json"]:
            self.stdout.write(summary)

    def _tell(self, title: str, findings: list[Finding], options: dict[str, Any]) -> list[Finding]:
        """Print one section, the gravest first; returns its findings."""
        findings.sort(key=lambda finding: -finding.level)
        if options["json"]:
            return findings
        fine = [finding for finding in findings if finding.level is Level.OK]
        self.stdout.write(self.style.MIGRATE_HEADING(title))
        for finding in findings:
            if finding.level is not Level.OK or options["verbosity"] > 1:
                self._tell_one(finding)
        if fine and options["verbosity"] == 1:
            self.stdout.write(self.style.SUCCESS(f"  {'ok':<8} ") + f"{len(fine)} things are as they should be (-v 2)")
        self.stdout.write("")
        return findings

    def _tell_one(self, finding: Finding) -> None:
        style = {
            Level.ERROR: self.style.ERROR,
            Level.WARNING: self.style.WARNING,
            Level.INFO: self.style.HTTP_NOT_MODIFIED,
            Level.OK: self.style.SUCCESS,
        }[finding.level]
        lines = textwrap.wrap(finding.what, WIDTH, break_long_words=False, break_on_hyphens=False)
        self.stdout.write(style(f"  {finding.level.name.lower():<8} ") + lines[0])
        for line in lines[1:]:
            self.stdout.write(f"{'':11}{line}")
        if finding.level is Level.OK:
            return
        for word, text in (("why", finding.why), ("mend", finding.cure), ("more", finding.link)):
            wrapped = textwrap.wrap(text, WIDTH - 6, break_long_words=False, break_on_hyphens=False)
            for number, line in enumerate(wrapped):
                self.stdout.write(f"{'':11}{word if number == 0 else '':<5} {line}")


def summarise(findings: list[Finding]) -> str:
    """How many findings there are of each level, in one line."""
    numbers = {level: sum(finding.level is level for finding in findings) for level in Level}
    return (
        f"{counted(numbers[Level.ERROR], 'error')}, {counted(numbers[Level.WARNING], 'warning')}, "
        f"{counted(numbers[Level.INFO], 'remark')}; {numbers[Level.OK]} fine."
    )
