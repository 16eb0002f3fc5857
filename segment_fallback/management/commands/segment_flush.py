from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from segment_fallback.buffers import buffers
from segment_fallback.delivery.flush import flush, stopping


@contextmanager
def finish_when_told_to_end() -> Iterator[None]:
    """SIGTERM and Ctrl-C end the flush between two batches, so that no lease has to run out."""
    if threading.current_thread() is not threading.main_thread():
        yield  # called by a program: its signals are its own
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for number in before:
            signal.signal(number, lambda *_: stopping.set())
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stopping.clear()


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
        with finish_when_told_to_end():
            report = flush(None if alias is None else [alias], budget=options["budget"])
        if report.trouble:
            raise CommandError(str(report))
        self.stdout.write(f"{report}.")
