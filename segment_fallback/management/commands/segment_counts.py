from __future__ import annotations

import csv
import json
from argparse import RawDescriptionHelpFormatter
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.timezone import get_default_timezone

from segment_fallback.delivery.counts import Count, Rebuilt, event_counts, rebuild
from segment_fallback.exceptions import ArchiveUnavailable, BufferUnavailable
from segment_fallback.management.moments import moment
from segment_fallback.message import TYPES, Way

ROWS: dict[str, Callable[[Count], str]] = {
    "event": lambda count: count.event or count.type,
    "hour": lambda count: f"{count.hour.astimezone(get_default_timezone()):%Y-%m-%d %H:%M}",
    "day": lambda count: f"{count.hour.astimezone(get_default_timezone()):%Y-%m-%d}",
}
WAYS = [way.value for way in Way if way is not Way.PROFILE]
"""Of what goes to Segment; what its webhook brings never does."""
FIELDS = ("hour", "way", "type", "event", "count")


class Command(BaseCommand):
    help = (
        "How many messages were delivered, by event, hour of acceptance and way. Times without a zone are in TIME_ZONE."
    )

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        examples = "example:\n  segment_counts --event 'Order Completed' --since 24h"
        kwargs.update(epilog=examples, formatter_class=RawDescriptionHelpFormatter)
        return super().create_parser(prog_name, subcommand, **kwargs)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--event", action="append", default=[], metavar="NAME", help="only track calls of this name"
        )
        parser.add_argument(
            "--type", action="append", default=[], choices=sorted(TYPES), help="only calls of this type"
        )
        parser.add_argument("--way", action="append", default=[], choices=WAYS, help="only what came this way")
        parser.add_argument("--since", type=moment, default="24h", help="24h (the default), 7d, 2026-11-21T14:30 …")
        parser.add_argument("--until", type=moment, help="hours that began before then; by default all")
        parser.add_argument(
            "--by", choices=sorted(ROWS), help="the table's rows; by default hour with --event, else event"
        )
        parser.add_argument("--json", action="store_true", help="an object for each count, one a line")
        parser.add_argument("--csv", action="store_true", help="a row for each count")
        parser.add_argument("--rebuild", action="store_true", help="count those hours anew first, from the archive")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["json"] and options["csv"]:
            raise CommandError("Which one, --json or --csv?")
        if options["until"] and options["until"] <= options["since"]:
            raise CommandError("--until must be later than --since.")
        try:
            if options["rebuild"]:
                self.rebuild(options)
            counts = event_counts(
                options["since"],
                options["until"],
                events=options["event"],
                types=options["type"],
                ways=options["way"],
            )
        except ArchiveUnavailable as error:
            raise CommandError(f"The archive: {error}.") from error
        except BufferUnavailable as error:
            raise CommandError(f"{error}.") from error
        if options["json"]:
            self.write_json(counts)
        elif options["csv"]:
            self.write_csv(counts)
        else:
            self.write_table(counts, options["by"] or ("hour" if options["event"] else "event"))

    def rebuild(self, options: dict[str, Any]) -> None:
        if options["event"] or options["type"] or options["way"]:
            raise CommandError("--rebuild counts whole hours: leave --event, --type and --way out.")

        def tell(hour: Rebuilt) -> None:
            self.stderr.write(
                f"{hour.hour:%Y-%m-%d %H:%MZ}: {hour.now} deliveries, {hour.before} before", self.style.NOTICE
            )

        hours = rebuild(options["since"], options["until"], tell=tell)
        self.stderr.write(f"{hours} hours counted anew from the archive.", self.style.NOTICE)

    def write_json(self, counts: Sequence[Count]) -> None:
        for count in counts:
            self.stdout.write(json.dumps({**asdict(count), "hour": count.hour.isoformat()}, ensure_ascii=False))

    def write_csv(self, counts: Sequence[Count]) -> None:
        writer = csv.writer(self.stdout, lineterminator="\n")
        writer.writerow(FIELDS)
        for count in counts:
            writer.writerow([count.hour.isoformat(), count.way, count.type, safe_cell(count.event), count.count])

    def write_table(self, counts: Sequence[Count], by: str) -> None:
        row = ROWS[by]
        cells = Counter[tuple[str, str]]()
        for count in counts:
            cells[row(count), count.way] += count.count
        if not cells:
            self.stdout.write("Nothing was delivered of what was accepted then.")
            return
        ways = [way for way in WAYS if any(cell[1] == way for cell in cells)]
        names = dict.fromkeys(name for name, _ in cells)
        lines = [[by, *ways, "total"]]
        for name in names:
            numbers = [cells[name, way] for way in ways]
            lines.append([printable(name), *map(str, numbers), str(sum(numbers))])
        sums = [sum(cells[name, way] for name in names) for way in ways]
        lines.append(["total", *map(str, sums), str(sum(sums))])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            first, *rest = (
                cell.ljust(width) if index == 0 else cell.rjust(width)
                for index, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            self.stdout.write("  ".join([first, *rest]).rstrip())


def printable(name: str) -> str:
    """An event's name, which a stranger may have chosen, as a terminal may show it."""
    return "".join(c if c.isprintable() else "?" for c in name)


def safe_cell(name: str) -> str:
    """The same for a spreadsheet, which takes what begins so for a formula."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name
