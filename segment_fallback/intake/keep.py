"""``keep``: where events go that have passed every check: into the buffer, or on to Segment (COLLECT "forward")."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segment_fallback.buffers.accept import accept
from segment_fallback.conf import Settings
from segment_fallback.message import Message
from segment_fallback.outcome import Outcome

if TYPE_CHECKING:
    from segment_fallback.delivery.transport import Answer


@dataclass(frozen=True)
class Kept:
    """How the messages ended. ``retry_after``: seconds that Segment asks to wait, if it does."""

    outcomes: Counter[Outcome]
    retry_after: int | None = None


def keep_one(message: Message, settings: Settings) -> Outcome:
    """Make sure of one message, and say how it ended. Raises SpoolFull or BufferUnavailable."""
    if settings.COLLECT == "buffer":
        accept([message])
        return Outcome.ACCEPTED
    [outcome] = keep([message], settings).outcomes
    return outcome


def keep(messages: Sequence[Message], settings: Settings) -> Kept:
    """Make sure of the messages, all of one source. Raises SpoolFull or BufferUnavailable."""
    if settings.COLLECT == "buffer":
        accept(messages)
        return Kept(Counter({Outcome.ACCEPTED: len(messages)}))

    from segment_fallback.delivery.forward import forward  # needs requests, which sites with a buffer do not load

    forwarded = forward(messages)
    outcomes = Counter({Outcome.ACCEPTED: forwarded.delivered, Outcome.SEGMENT_REFUSED: forwarded.refused})
    if forwarded.answer:
        outcomes[_outcome(forwarded.answer)] = len(messages) - outcomes.total()
    return Kept(+outcomes, forwarded.answer.retry_after if forwarded.answer else None)


def _outcome(answer: Answer) -> Outcome:
    if answer.verdict == "misconfigured":
        return Outcome.MISCONFIGURED
    return Outcome.SEGMENT_BUSY if answer.status == 429 else Outcome.SEGMENT_DOWN
