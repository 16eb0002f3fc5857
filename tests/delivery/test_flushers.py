"""Many flushers at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import call_command

from segment_fallback.buffers import buffers
from segment_fallback.delivery.flush import flush
from segment_fallback.message import encode, new_message_id
from segment_fallback.testing import Answer, LocalSegment

if TYPE_CHECKING:
    from pytest_django import Settings


@pytest.fixture
def segment(
    local_segment: LocalSegment, settings: Settings, dynamodb_local_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalSegment]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "tests")
    buffer = {
        "BACKEND": "segment_fallback.buffers.dynamodb.DynamoDBBuffer",
        "OPTIONS": {
            "endpoint_url": dynamodb_local_url,
            "region": "us-east-1",
            "table": f"flushers-{new_message_id()}",
            "parts": 5,
        },
    }
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "BUFFERS": {"default": buffer}}
    call_command("segment_table", create=True, verbosity=0)
    yield local_segment
    buffers["default"].client.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("flushers", [2, 10, 50])
def test_flushers_at_once_never_send_a_message_twice(segment: LocalSegment, flushers: int) -> None:
    messages = [
        {"type": "page", "messageId": str(number), "anonymousId": "a", "properties": {"text": "x" * 20_000}}
        for number in range(150)
    ]
    buffers["default"].put([encode(message) for message in messages])
    segment.answer_with(Answer.slow(0.05), times=None)
    start = threading.Barrier(flushers)
    reports = []

    def run() -> None:
        start.wait(30)
        reports.append(flush(budget=60))

    threads = [threading.Thread(target=run) for _ in range(flushers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)

    assert len(reports) == flushers
    assert sum(report.busy for report in reports) > 0, "they met"
    while buffers["default"].depth():  # a part that all of them had found busy
        reports.append(flush())
    delivered = [received.message_id for received in segment.messages]
    assert len(delivered) == len(set(delivered)) == 150
    assert sum(report.delivered for report in reports) == 150


def test_flush_from_dynamodb_costs_two_write_units_an_event(segment: LocalSegment) -> None:
    """And beyond them three a part, to claim it, to count and to let go of it, and at most one a batch, to renew."""
    written: list[float] = []
    events = buffers["default"].client.meta.events  # type: ignore[attr-defined]

    def ask(params: dict[str, Any], **kwargs: Any) -> None:
        params["ReturnConsumedCapacity"] = "TOTAL"

    def note(parsed: Mapping[str, Any], **kwargs: Any) -> None:
        used = parsed["ConsumedCapacity"]
        written.extend(table["CapacityUnits"] for table in (used if isinstance(used, list) else [used]))

    for operation in ("PutItem", "UpdateItem", "BatchWriteItem"):
        events.register(f"before-parameter-build.dynamodb.{operation}", ask)
        events.register(f"after-call.dynamodb.{operation}", note)
    for number in range(100):
        event = {"type": "track", "event": f"Event {number % 10}", "messageId": str(number), "userId": "u"}
        buffers["default"].put([encode({**event, "properties": {"text": "x" * 700}})])
    report = flush()
    assert (report.delivered, report.batches, buffers["default"].depth()) == (100, 5, 0)
    assert 2 * 100 + 5 * 3 <= sum(written) <= 2 * 100 + 5 * 3 + 5
