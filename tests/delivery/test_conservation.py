"""What a collector must be able to say: so many came, so many were delivered, so many were refused, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest

from segment_fallback.buffers import buffers
from segment_fallback.buffers.accept import accept
from segment_fallback.delivery.flush import flush
from segment_fallback.exceptions import InvalidMessage
from segment_fallback.intake.verify import MAX_URL
from segment_fallback.message import MAX_DEPTH, MAX_MESSAGE_BYTES, Message, encode
from segment_fallback.testing import LocalSegment
from tests.intake.visits import Visit, outcomes

if TYPE_CHECKING:
    from pytest_django import Settings

GOOD, OVERSIZE, MALFORMED = 100_000, 1_000, 1_000
HITS = {"accepted": 1_000, "size": 250, "malformed": 250}
"""How many of these come as pixel hits, by how they must end. The rest comes from server code."""
CHUNK = 1_000

Event = dict[str, Any]


def deep(levels: int) -> Event:
    return {"a": deep(levels - 1)} if levels else {}


FAULTS: dict[str, Callable[[Event], Event]] = {
    "type": lambda event: {**event, "type": "visit"},
    "message_id": lambda event: {**event, "messageId": "x" * 100},
    "no_id": lambda event: {**event, "anonymousId": ""},
    "no_event": lambda event: {**event, "event": None},
    "value": lambda event: {**event, "properties": {"bytes": b""}},
    "depth": lambda event: {**event, "properties": deep(MAX_DEPTH)},
}
"""What can be wrong with a message beside its size, by the code of the refusal."""


def event(name: str) -> Event:
    return {"type": "track", "event": "Order", "messageId": name, "anonymousId": "a"}


def malformed_hit(number: int) -> Visit:
    """Each third has another fault."""
    return [Visit(data="____"), Visit(data="e30"), Visit(message_id="not-ours")][number % 3]


@pytest.mark.django_db
def test_all_that_is_good_is_delivered_once_and_all_else_refused_with_its_reason(
    local_segment: LocalSegment, settings: Settings
) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "RATE_LIMIT": 0}
    good: set[str] = set()
    refused: Counter[str] = Counter()

    # Pixel hits, as browsers and those who only seem to be one send them.
    visits = [Visit() for _ in range(HITS["accepted"])]
    visits += [Visit(data="A" * MAX_URL) for _ in range(HITS["size"])]
    visits += [malformed_hit(number) for number in range(HITS["malformed"])]
    for visit in visits:
        assert visit.send().status_code == 200
    good.update(visit.message_id for visit in visits[: HITS["accepted"]])

    # Messages of server code.
    def messages() -> Iterator[Message]:
        events = [event(f"good-{number}") for number in range(GOOD - HITS["accepted"])]
        good.update(event["messageId"] for event in events)
        for number in range(OVERSIZE - HITS["size"]):
            large = {**event(f"oversize-{number}"), "properties": {"text": "x" * MAX_MESSAGE_BYTES}}
            events.insert(number * 100, large)
        faults = list(FAULTS.values())
        for number in range(MALFORMED - HITS["malformed"]):
            events.insert(number * 101, faults[number % len(faults)](event(f"malformed-{number}")))
        for each in events:
            try:
                yield encode(each)
            except InvalidMessage as refusal:
                refused[refusal.code] += 1

    taken = messages()
    while chunk := list(islice(taken, CHUNK)):
        accept(chunk)

    report = flush(budget=600)

    assert outcomes() == HITS
    assert refused == {
        "size": OVERSIZE - HITS["size"],
        **dict.fromkeys(FAULTS, (MALFORMED - HITS["malformed"]) // len(FAULTS)),
    }
    assert refused.total() + HITS["size"] + HITS["malformed"] == OVERSIZE + MALFORMED
    delivered = [received.message_id for received in local_segment.messages]
    assert len(delivered) == report.delivered == GOOD
    assert set(delivered) == good
    assert {request.status for request in local_segment.requests} == {200}
    assert (buffers["default"].depth(), list(buffers["default"].dead_letters())) == (0, [])
