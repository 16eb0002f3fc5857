from __future__ import annotations

from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from segment_fallback.buffers.base import now_ms
from segment_fallback.conf import DEFAULT_SOURCE, get_settings, get_source
from segment_fallback.delivery.archive import Archive, open_archive
from segment_fallback.delivery.replay import Progress, Selection, counted_twice, replay, select
from segment_fallback.exceptions import ArchiveUnavailable, BufferUnavailable
from segment_fallback.management.moments import moment
from segment_fallback.management.terminal import ProgressLine, confirm
from segment_fallback.message import TYPES
from segment_fallback.wording import counted


class Command(BaseCommand):
    help = (
        "Sends messages of the archive again, with the messageId and timestamp that they had: they wait in the buffer "
        "for the next flush. Times are of TIME_ZONE unless they say otherwise, and mean when a message was accepted."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--since", required=True, type=moment, metavar="TIME", help="2026-11-20T14:30, or 24h (ago)"
        )
        parser.add_argument("--until", type=moment, metavar="TIME", help="just before then; default now")
        parser.add_argument("--event", action="append", default=[], metavar="NAME", help="only these; repeatable")
        parser.add_argument("--type", default="", choices=sorted(TYPES), help="only calls of this type")
        parser.add_argument("--source", default="", metavar="ALIAS", help="only what was sent to this source")
        parser.add_argument("--to", default="", metavar="ALIAS", help="send it to this source; default the same")
        parser.add_argument("--dry-run", action="store_true", help="only count")
        parser.add_argument("--yes", action="store_true", help="do not ask, even if Segment may count some twice")

    def handle(self, *args: Any, **options: Any) -> None:
        archive = open_archive()
        if archive is None:
            raise CommandError("There is no archive: the setting ARCHIVE says where it is to be.")
        # This very millisecond is over for whoever waits for the answer; what comes later may be what is sent again.
        since, until = _ms(options["since"]), _ms(options["until"]) if options["until"] else now_ms() + 1
        if since >= until:
            raise CommandError("--since must be before --until.")
        if options["to"] and get_source(options["to"]) is None:
            raise CommandError(f"There is no source {options['to']!r} with a write key; there are {_sources()}.")
        if (source := options["source"]) and source not in (DEFAULT_SOURCE, *get_settings().SOURCES):
            self.stderr.write(f"There is no source {source!r} now; there are {_sources()}.")
        wanted = Selection(since, until, frozenset(options["event"]), options["type"], options["source"])
        self.line = ProgressLine(self.stdout)
        try:
            if options["dry_run"] or not options["yes"]:
                found = self.count(archive, wanted, options["to"])
                warning = twice(found.again) if found.again else ""
                if options["dry_run"] or not found.number:
                    self.stdout.write(warning, ending="\n" if warning else "")
                    return
                if warning:
                    confirm(warning, "Send them all the same?")
            self.replay(archive, wanted, options["to"])
        except ArchiveUnavailable as error:
            raise CommandError(str(error)) from error

    def count(self, archive: Archive, wanted: Selection, to: str) -> Progress:
        """Say what would be sent."""
        progress = Progress()
        for archived, _ in select(archive, wanted, progress):
            progress.number += 1
            progress.again += counted_twice(archived, to)
            if progress.number % 1_000 == 0:
                self.line.show(f"{progress.hour}: {progress.number} found")
        self.line.clear()
        self.stdout.write(f"{counted(progress.number, 'message')} found.")
        self.complain(progress)
        return progress

    def replay(self, archive: Archive, wanted: Selection, to: str) -> None:
        """Put them back, and say how many, also if it ends early."""
        progress = Progress()

        def tell() -> None:
            self.line.show(f"{progress.hour}: {progress.number} wait")

        try:
            replay(select(archive, wanted, progress), progress, to, tell)
        except (BufferUnavailable, ArchiveUnavailable, KeyboardInterrupt) as error:
            self.line.clear()
            done = f"{progress.number} wait for the next flush, those before {progress.hour or 'it'} among them"
            raise CommandError(
                f"{done}. Then it ended: {str(error) or 'interrupted'}. Run it again, or with a later --since to go on."
            ) from error
        self.line.clear()
        self.complain(progress)
        self.stdout.write(f"{progress.number} wait for the next flush.")

    def complain(self, progress: Progress) -> None:
        """Name the files that nobody could read."""
        for trouble in progress.unreadable:
            self.stderr.write(f"Passed over: {trouble}.")


def twice(number: int) -> str:
    """The warning."""
    return (
        f"{number} of them were accepted more than 23 hours ago, and go to the source that had them: Segment, which "
        f"knows a messageId for about a day, counts them once more."
    )


def _sources() -> str:
    return ", ".join(dict.fromkeys([DEFAULT_SOURCE, *get_settings().SOURCES]))


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
