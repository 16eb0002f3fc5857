from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from django.dispatch import Signal

from segment_fallback import plan, signals, track
from segment_fallback.buffers import buffers
from segment_fallback.buffers.accept import accept, acceptance
from segment_fallback.delivery.flush import flush
from segment_fallback.exceptions import BufferUnavailable
from segment_fallback.message import Message, Way
from segment_fallback.outcome import Outcome
from segment_fallback.tally import tally
from segment_fallback.testing import Answer, LocalSegment
from tests.intake.visits import Visit

if TYPE_CHECKING:
    from pytest_django import Settings

pytestmark = pytest.mark.django_db

Told = list[dict[str, Any]]
Listen = Callable[[Signal], Told]


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Listen to a signal: what it tells is in the list."""
    connected: list[tuple[Signal, Any]] = []

    def connect(signal: Signal) -> Told:
        told: Told = []

        def receiver(signal: Signal, **named: Any) -> None:
            told.append(named)

        signal.connect(receiver, weak=False)
        connected.append((signal, receiver))
        return told

    yield connect
    for signal, receiver in connected:
        signal.disconnect(receiver)


@pytest.fixture
def breaking() -> Iterator[None]:
    """A receiver of every signal that raises."""

    def fail(**named: Any) -> None:
        raise RuntimeError("a receiver's own trouble")

    every = [signals.received, signals.refused, signals.delivered, signals.buried]
    for signal in every:
        signal.connect(fail, weak=False)
    yield
    for signal in every:
        signal.disconnect(fail)


def ids(told: Told) -> list[list[str]]:
    return [[message.message_id for message in each["messages"]] for each in told]


def message(name: str) -> Message:
    return Message(name, b'{"type":"page","messageId":"%s","anonymousId":"a"}' % name.encode())


def test_page_view_is_told_once_it_is_kept(listen: Listen) -> None:
    waited: list[int] = []

    def receiver(**named: Any) -> None:
        waited.append(buffers["default"].depth())

    told = listen(signals.received)
    signals.received.connect(receiver)
    visit = Visit()
    visit.send()
    assert ids(told) == [[visit.message_id]]
    assert told[0]["sender"] is Message
    assert told[0]["messages"][0].way is Way.PIXEL
    assert waited == [1]


def test_call_of_server_code_is_told(listen: Listen) -> None:
    told = listen(signals.received)
    assert track("user-1", "Bought")[0]
    assert told[0]["messages"][0].way is Way.SERVER


def test_what_goes_to_the_spool_is_told_and_what_goes_nowhere_is_not(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise BufferUnavailable("gone")

    told = listen(signals.received)
    monkeypatch.setattr(buffers["default"], "put", fail)
    accept([message("1")])
    assert ids(told) == [["1"]]
    monkeypatch.setattr(acceptance.spool, "put", fail)
    with pytest.raises(BufferUnavailable):
        accept([message("2")])
    assert ids(told) == [["1"]]


def test_refusal_is_told_with_its_outcome(listen: Listen) -> None:
    told = listen(signals.refused)
    Visit(referer="http://elsewhere.example/").send()
    assert told == [{"sender": Outcome, "way": Way.PIXEL, "outcome": Outcome.HOST, "number": 1}]


def test_accepted_hit_is_no_refusal(listen: Listen) -> None:
    told = listen(signals.refused)
    Visit().send()
    assert told == []


def test_delivery_is_told_by_the_batch(listen: Listen, local_segment: LocalSegment) -> None:
    told = listen(signals.delivered)
    accept([message("1"), message("2")])
    assert told == []
    flush()
    assert ids(told) == [["1", "2"]]
    assert told[0]["source"] == "default"
    flush()
    assert len(told) == 1


def test_dead_letter_is_told_with_its_reason(listen: Listen, local_segment: LocalSegment) -> None:
    told, delivered = listen(signals.buried), listen(signals.delivered)
    local_segment.answer_with(Answer(413), times=None)
    accept([message("1")])
    flush()
    assert ids(told) == [["1"]]
    assert told[0]["reason"].startswith("HTTP 413")
    assert told[0]["source"] == "default"
    assert delivered == []


def test_message_that_the_plan_blocks_is_told_as_buried(
    listen: Listen, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "PLAN_BLOCK": True}
    monkeypatch.setattr(plan, "plan", plan.Plan())
    plan.planned("Bought", schema={"type": "object", "required": ["sku"]})
    told, refused = listen(signals.buried), listen(signals.refused)
    assert not track("user-1", "Bought")[0]
    assert told[0]["reason"].startswith("plan: ")
    assert [each["outcome"] for each in refused] == [Outcome.PLAN]


def test_forwarded_event_is_told_as_received_and_delivered(
    listen: Listen, settings: Settings, local_segment: LocalSegment
) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "COLLECT": "forward"}
    received, delivered = listen(signals.received), listen(signals.delivered)
    visit = Visit()
    visit.send()
    assert ids(received) == ids(delivered) == [[visit.message_id]]


def test_receiver_that_raises_breaks_nothing(
    breaking: None, local_segment: LocalSegment, caplog: pytest.LogCaptureFixture
) -> None:
    assert Visit().send().status_code == 200
    assert Visit(referer="http://elsewhere.example/").send().status_code == 200
    report = flush()
    assert (report.delivered, report.trouble) == (1, "")
    assert len(local_segment.messages) == 1
    local_segment.answer_with(Answer(413), times=None)
    accept([message("1")])
    assert flush().buried == 1
    assert {record.name for record in caplog.records} >= {"django.dispatch"}


def test_receiver_that_tracks_does_not_call_itself(listen: Listen) -> None:
    told = listen(signals.received)

    def receiver(**named: Any) -> None:
        track("user-1", "Echo")

    signals.received.connect(receiver)
    assert track("user-1", "Bought")[0]
    assert len(told) == 1
    assert buffers["default"].depth() == 2
    assert track("user-1", "Bought again")[0]
    assert len(told) == 2


def test_async_receiver_in_a_loop_breaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    called: list[Outcome] = []

    async def receiver(outcome: Outcome, **named: Any) -> None:
        called.append(outcome)

    async def hit() -> None:
        signals.tell(signals.refused, Outcome, way=Way.PIXEL, outcome=Outcome.RATE, number=1)

    signals.refused.connect(receiver)
    with caplog.at_level(logging.ERROR, "segment_fallback"):
        asyncio.run(hit())
    assert "receivers of a signal could not be called: RuntimeError" in caplog.text
    tally.add(Way.PIXEL, Outcome.RATE)
    assert called == [Outcome.RATE]
