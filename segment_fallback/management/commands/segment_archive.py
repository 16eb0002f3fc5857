from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from segment_fallback.delivery.archive import Archive, hour_of, open_archive
from segment_fallback.exceptions import ArchiveUnavailable


class Command(BaseCommand):
    help = "Says what is in the archive, and deletes what is old. A flush does that, too, after ARCHIVE_DAYS."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--delete-older-than", type=float, metavar="DAYS", help="delete the days (UTC) that ended longer ago"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        archive, days = open_archive(), options["delete_older_than"]
        if archive is None:
            raise CommandError("There is no archive: the setting ARCHIVE says where it is to be.")
        try:
            if days is None:
                self.stdout.write(overview(archive))
            elif 0 <= days <= 36_500:
                self.stdout.write(f"{archive.prune(days)} files deleted.")
            else:
                raise CommandError("DAYS must be from 0 to 36,500.")
        except ArchiveUnavailable as error:
            raise CommandError(str(error)) from error


def overview(archive: Archive) -> str:
    """How many files, from when to when, and how many of them have not got there yet."""
    names, aside = list(archive.files()), len(archive.aside())
    if not names:
        return "The archive is empty."
    text = f"{len(names)} files, from {hour_of(names[0])} to {hour_of(names[-1])}"
    return f"{text}; {aside} of them wait in the spool's storage." if aside else f"{text}."
