from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timezone
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from segment_fallback.events import store
from segment_fallback.events.handlers import registry
from segment_fallback.events.run import run
from segment_fallback.exceptions import BufferUnavailable
from segment_fallback.management.commands.segment_flush import finish_when_told_to_end
from segment_fallback.models import PendingEvent


class Command(BaseCommand):
    help = (
        "The events that wait for their handlers, or whose handlers failed for good. Without an option: which handlers "
        "there are, how many events wait and failed, and the last error."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("event_ids", nargs="*", metavar="eventId", help="for --show, --retry and --delete")
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--run", action="store_true", help="run the handlers of what is due: for cron")
        what.add_argument("--show", action="store_true", help="events in full, with payload and tracebacks")
        what.add_argument("--retry", action="store_true", help="let failed handlers try again, waiting ones now")
        what.add_argument("--delete", action="store_true", help="forget events that failed")
        parser.add_argument("--all", action="store_true", help="--retry or --delete every one")
        parser.add_argument("--json", action="store_true", help="the overview as JSON")
        parser.add_argument("--budget", type=float, metavar="SECONDS", help="--run begins no event after that")

    def handle(self, *args: Any, **options: Any) -> None:
        ids, everything = options["event_ids"], options["all"]
        if (options["retry"] or options["delete"]) and not ids and not everything:
            raise CommandError("Which ones? Give eventIds, or --all.")
        try:
            self.do(ids, options)
        except BufferUnavailable as error:
            raise CommandError(f"{error}.") from error

    def do(self, ids: list[str], options: dict[str, Any]) -> None:
        if options["run"]:
            self.run(options["budget"])
        elif options["retry"]:
            self.stdout.write(f"{store.retry(ids)} wait for the next run.")
        elif options["delete"]:
            self.stdout.write(f"{store.delete(ids)} deleted.")
        elif options["show"]:
            for row in store.select(ids):
                self.stdout.write(json.dumps(store.as_json(row), indent=2, ensure_ascii=False))
        elif options["json"]:
            self.stdout.write(json.dumps(store.overview(), indent=2, ensure_ascii=False))
        else:
            self.overview()

    def run(self, budget: float | None) -> None:
        with finish_when_told_to_end():
            report = run(budget=budget)
        self.stdout.write(f"{report}.")

    def overview(self) -> None:
        for handler in registry.all():
            inline = " (inline)" if handler.inline else ""
            self.stdout.write(f"{', '.join(handler.patterns)}: {handler.name}{inline}")
        total: Counter[str] = Counter()
        for name, state, number, oldest in store.counts():
            since = datetime.fromtimestamp(oldest / 1000, timezone.utc)
            whose = "" if registry.matching(name) else ", and no handler"
            self.stdout.write(f"{name}: {number} {state}, the oldest since {since:%Y-%m-%d %H:%M:%SZ}{whose}")
            total[state] += number
        self.stdout.write(f"{total[PendingEvent.WAITING]} events wait, {total[PendingEvent.FAILED]} failed.")
        if error := store.last_error():
            self.stdout.write(f"The last error, of {error[0]} in {error[1]}: {error[2]}")
