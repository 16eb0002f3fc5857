from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from segment_fallback.buffers import buffers
from segment_fallback.delivery.flush import flush


class Command(BaseCommand):
    help = "Sends the waiting messages to Segment: for cron, and for a look at what happens. Celery does it by a task."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--buffer", metavar="ALIAS", help="flush this buffer only")
        parser.add_argument(
            "--budget", type=float, metavar="SECONDS", help="start no batch after that; default FLUSH_BUDGET"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        alias = options["buffer"]
        if alias is not None and alias not in list(buffers):
            raise CommandError(f"There is no buffer {alias!r}; BUFFERS has {', '.join(buffers)}.")
        report = flush(None if alias is None else [alias], budget=options["budget"])
        if report.trouble:
            raise CommandError(str(report))
        self.stdout.write(f"{report}.")
