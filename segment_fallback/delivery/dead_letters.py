"""Dead letters: messages that were given up. They stay until somebody decides what becomes of them."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator
from typing import Any

from segment_fallback.buffers.base import Buffer, DeadLetter
from segment_fallback.conf import DAY
from segment_fallback.message import Message, Way

CHUNK = 100
"""Letters that are put back, and then forgotten, at a time."""


def select(
    buffer: Buffer, message_ids: Collection[str] = (), *, reason: str = "", older_than: float | None = None
) -> Iterator[DeadLetter]:
    """The dead letters of these messageIds (of all, where none is given), whose reason has this text in it and
    that were buried more than so many days ago."""
    before = None if older_than is None else (time.time() - older_than * DAY) * 1000
    for letter in buffer.dead_letters():
        if message_ids and letter.message.message_id not in message_ids:
            continue
        if reason.lower() in letter.reason.lower() and (before is None or letter.buried < before):
            yield letter


def replay(buffer: Buffer, letters: Iterator[DeadLetter]) -> int:
    """Let the messages wait again, with the messageId and timestamp that they had; how many.

    Segment knows a messageId again for about a day: what reached it after all, longer ago, is counted twice.
    """
    return _in_chunks(buffer, letters, put_back=True)


def delete(buffer: Buffer, letters: Iterator[DeadLetter]) -> int:
    """Forget the messages for ever; how many."""
    return _in_chunks(buffer, letters, put_back=False)


def _in_chunks(buffer: Buffer, letters: Iterator[DeadLetter], *, put_back: bool) -> int:
    every = list(letters)  # all are read before the first is removed: backends need not read and write at once
    for start in range(0, len(every), CHUNK):
        chunk = every[start : start + CHUNK]
        if put_back:
            # Waiting again before it is forgotten here: killed in between, it is both.
            buffer.put([_revived(letter) for letter in chunk])
        buffer.remove_dead_letters([letter.message.message_id for letter in chunk])
    return len(every)


def _revived(letter: DeadLetter) -> Message:
    message = letter.message
    return Message(message.message_id, message.body, Way(message.way), source=message.source)


def as_json(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter for export: the message as it was to be sent, and what is known of its end."""
    return {
        "message": json.loads(letter.message.body),
        "source": letter.message.source,
        "way": letter.message.way,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "buried": letter.buried,
    }
