from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from segment_fallback.buffers import buffers
from segment_fallback.buffers.base import Buffer, DeadLetter
from segment_fallback.delivery import dead_letters
from segment_fallback.exceptions import BufferUnavailable
from segment_fallback.wording import counted


class Command(BaseCommand):
    help = (
        "Messages that were given up: list, show or export them, replay them (same messageId and timestamp), or "
        "delete them. Replay and delete want messageIds, a filter, or --all."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("action", choices=["list", "show", "export", "replay", "delete"])
        parser.add_argument("message_ids", nargs="*", metavar="messageId", help="only these; default all")
        parser.add_argument("--reason", default="", metavar="TEXT", help="only those whose reason has this text in it")
        parser.add_argument("--older-than", type=float, metavar="DAYS", help="only those buried longer ago than that")
        parser.add_argument("--all", action="store_true", help="replay or delete every one of them")
        parser.add_argument("--buffer", default="default", metavar="ALIAS")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["buffer"] not in list(buffers):
            raise CommandError(f"There is no buffer {options['buffer']!r}; BUFFERS has {', '.join(buffers)}.")
        action, message_ids = options["action"], options["message_ids"]
        buffer = buffers[options["buffer"]]
        narrowed = message_ids or options["reason"] or options["older_than"] is not None
        if action in ("replay", "delete") and not narrowed and not options["all"]:
            raise CommandError(
                f"Which ones? Give messageIds, --reason or --older-than, or --all to {action} every one."
            )
        missing = set(message_ids)
        letters = dead_letters.select(
            buffer, frozenset(message_ids), reason=options["reason"], older_than=options["older_than"]
        )
        try:
            self.do(action, buffer, _ticked_off(letters, missing))
        except BufferUnavailable as error:
            raise CommandError(f"{error}.") from error
        if missing:
            raise CommandError(f"Not among the dead letters asked for: {', '.join(sorted(missing))}.")

    def do(self, action: str, buffer: Buffer, letters: Iterator[DeadLetter]) -> None:
        if action == "replay":
            self.stdout.write(f"{dead_letters.replay(buffer, letters)} wait for the next flush.")
        elif action == "delete":
            self.stdout.write(f"{dead_letters.delete(buffer, letters)} deleted.")
        else:
            write = {"list": self.list_line, "show": self.show, "export": self.export}[action]
            number = sum(1 for _ in map(write, letters))
            if action == "list":
                self.stdout.write(f"{counted(number, 'dead letter')}.")

    def list_line(self, letter: DeadLetter) -> None:
        """One line, without what the message says of a person."""
        buried = datetime.fromtimestamp(letter.buried / 1000, timezone.utc)
        attempts = counted(letter.attempts, "attempt")
        self.stdout.write(f"{buried:%Y-%m-%d %H:%M:%SZ}  {letter.message.message_id}  {attempts}  {letter.reason}")

    def show(self, letter: DeadLetter) -> None:
        self.stdout.write(json.dumps(dead_letters.as_json(letter), indent=2, ensure_ascii=False))

    def export(self, letter: DeadLetter) -> None:
        """One line of JSON, for a file of such lines."""
        self.stdout.write(json.dumps(dead_letters.as_json(letter), ensure_ascii=False))


def _ticked_off(letters: Iterator[DeadLetter], missing: set[str]) -> Iterator[DeadLetter]:
    """The letters; none of them is missing."""
    for letter in letters:
        missing.discard(letter.message.message_id)
        yield letter
