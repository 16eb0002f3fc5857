from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from segment_fallback.delivery.forget import Forgetting, Person, forget
from segment_fallback.exceptions import ArchiveUnavailable, BufferUnavailable
from segment_fallback.management.terminal import ProgressLine, confirm

AT_SEGMENT = (
    "What Segment has, and sent on, stays there: ask it to delete, too (Privacy, Deletion and Suppression in its app; "
    "in its Public API a regulation of the type SUPPRESS_WITH_DELETE)."
)


class Command(BaseCommand):
    help = (
        "Deletes one person's messages wherever this app keeps them: buffers, dead letters, spool, pending events, "
        "archive and profiles. A message is deleted if it names one of the ids, also beside another's. What Segment "
        "has stays there."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--user-id", action="append", default=[], metavar="ID", help="repeatable")
        parser.add_argument("--anonymous-id", action="append", default=[], metavar="ID", help="repeatable")
        parser.add_argument("--dry-run", action="store_true", help="only count")
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def handle(self, *args: Any, **options: Any) -> None:
        person = Person(frozenset(options["user_id"]), frozenset(options["anonymous_id"]))
        if "" in (ids := person.user_ids | person.anonymous_ids) or not ids:
            raise CommandError("Who? Give --user-id or --anonymous-id, not empty.")
        if options["dry_run"] or not options["yes"]:
            found = self.work(person, dry_run=True)
            if options["dry_run"] or not found:
                return
            confirm(f"Messages and events found: {found:,}.", "Delete them for ever?")
        number = self.work(person, dry_run=False)
        self.stdout.write(f"{number} deleted. {AT_SEGMENT}")

    def work(self, person: Person, *, dry_run: bool) -> int:
        """Count or delete, say how many by place, and how many in all."""
        line = ProgressLine(self.stdout)
        work = Forgetting(person, dry_run, line.show)
        try:
            forget(work)
        except (ArchiveUnavailable, BufferUnavailable) as error:
            line.clear()
            done = ", ".join(f"{name} {number}" for name, number in work.counts.items()) or "nothing"
            raise CommandError(f"It ended early: {error}. Done: {done}. Run it again.") from error
        line.clear()
        for name, number in work.counts.items():
            self.stdout.write(f"{name}: {number}")
        for trouble in work.left:
            self.stderr.write(f"Not complete: {trouble}. Run this again.")
        return sum(work.counts.values())
