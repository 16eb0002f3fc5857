"""What Segment does to us: every kind of answer, and none."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import Any

from segment_fallback.testing import Answer, LocalSegment

POISON = "poison"
"""The event that Segment refuses."""

ANSWERS: Mapping[str, Callable[[LocalSegment], Answer]] = {
    "400": lambda _: Answer(status=400),
    "401": lambda _: Answer(status=401),
    "408": lambda _: Answer(status=408),
    "413": lambda _: Answer(status=413),
    "429 in seconds": lambda _: Answer(status=429, headers={"Retry-After": "1"}),
    "429 until a date": lambda _: Answer(status=429, headers={"Retry-After": formatdate(time.time() + 2, usegmt=True)}),
    "500": lambda _: Answer(status=500),
    "500, received": lambda _: Answer(status=500, received=True),
    "503": lambda _: Answer(status=503),
    # To a page that answers 200: whoever follows loses what it sent.
    "redirect": lambda segment: Answer.redirect(f"{segment.url}/v1/projects/torture-key/settings"),
    "cut": lambda _: Answer.cut(),
    "cut, received": lambda _: Answer.cut(received=True),
    "hang": lambda _: Answer.hang(1.5),
    "hang, received": lambda _: Answer.hang(1.5, received=True),
    "slow": lambda _: Answer.slow(0.5),
}


def poisoned(message: dict[str, Any]) -> bool:
    return message.get("event") == POISON


def behave(segment: LocalSegment) -> None:
    """Answer as Segment does, which refuses the poison."""
    segment.answer_normally()
    segment.refuse(poisoned)


def statuses(segment: LocalSegment) -> Counter[str]:
    """How often each status was answered to those who brought messages."""
    return Counter(
        str(request.status or "reset") for request in segment.requests if request.path.startswith("/v1/batch")
    )


def garbled(segment: LocalSegment) -> list[str]:
    """The messages that arrived as another's: each carries its own id in its title."""
    return [
        str(received.message_id)
        for received in segment.messages
        if received.message["properties"].get("title") != received.message_id
    ]
