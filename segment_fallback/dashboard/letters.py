"""The dead letters that the dashboard shows, and what may be done with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice

from segment_fallback.buffers.base import Buffer, DeadLetter
from segment_fallback.dashboard.moments import Moment, moment
from segment_fallback.dashboard.traffic import LABELS
from segment_fallback.delivery import dead_letters
from segment_fallback.message import label

READ = 500
"""Letters that are read for the page, oldest first: their bodies are read with them."""
SHOWN = 50
AT_ONCE = 1_000
"""Letters that one request replays or deletes: more would outlast a web server's patience."""


@dataclass(frozen=True)
class Row:
    """A letter, without what it says of a person."""

    id: str
    reason: str
    type: str
    event: str
    way: str
    attempts: int
    buried: Moment | None


@dataclass(frozen=True)
class Letters:
    """The oldest ones, and how many of those read have which reason."""

    rows: list[Row]
    reasons: list[tuple[str, int]]
    read: int


def read_letters(buffer: Buffer, now: int) -> Letters:
    """Raises BufferUnavailable. ``now`` in milliseconds since 1970."""
    found = list(islice(buffer.dead_letters(), READ))
    rows = []
    for letter in found[:SHOWN]:
        kind, event = label(letter.message.body)
        rows.append(
            Row(
                letter.message.message_id,
                letter.reason,
                kind,
                event,
                LABELS.get(letter.message.way, letter.message.way),
                letter.attempts,
                moment(letter.buried, now),
            )
        )
    return Letters(rows, Counter(letter.reason for letter in found).most_common(), len(found))


def choose(buffer: Buffer, message_ids: Collection[str], reason: str | None) -> Iterator[DeadLetter]:
    """The letters of these ids, or of exactly this reason, AT_ONCE at most. Raises BufferUnavailable."""
    if reason is None:
        chosen = dead_letters.select(buffer, frozenset(message_ids)) if message_ids else iter(())
    else:
        chosen = (letter for letter in dead_letters.select(buffer, reason=reason) if letter.reason == reason)
    return islice(chosen, AT_ONCE)
