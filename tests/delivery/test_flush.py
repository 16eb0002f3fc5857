from __future__ import annotations

import json
import time
from collections.abc import Iterator
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import CommandError, call_command

from segment_fallback.buffers import buffers
from segment_fallback.buffers.base import Waiting
from segment_fallback.buffers.database import DatabaseBuffer
from segment_fallback.buffers.database_claim import DatabaseClaim
from segment_fallback.delivery import flush as delivery
from segment_fallback.delivery.flush import flush
from segment_fallback.message import encode
from segment_fallback.models import DeadLetter, Lease, WaitingMessage
from segment_fallback.signals import delivered
from segment_fallback.tasks import flush as flush_task
from segment_fallback.testing import Answer, LocalSegment

if TYPE_CHECKING:
    from pytest_django import Settings

pytestmark = pytest.mark.django_db


def put(*names: str, **properties: Any) -> None:
    messages = [
        {"type": "page", "messageId": name, "anonymousId": "a", "name": name, "properties": properties}
        for name in names
    ]
    buffers["default"].put([encode(message) for message in messages])


def ids(segment: LocalSegment) -> list[str]:
    return [str(received.message_id) for received in segment.messages]


@pytest.fixture(autouse=True)
def segment(local_segment: LocalSegment, settings: Settings) -> LocalSegment:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "SEND_TIMEOUT": 5}
    return local_segment


def try_again() -> None:
    """Let the time pass for which a part waits."""
    Lease.objects.update(not_before=0)


def test_waiting_messages_are_delivered_in_order_and_leave_the_buffer(segment: LocalSegment) -> None:
    put("1", "2", "3")
    report = flush()

    assert ids(segment) == ["1", "2", "3"]
    assert buffers["default"].depth() == 0
    assert str(report) == "3 delivered in 1 batch, 0 dead letters"
    assert [request.path for request in segment.requests] == ["/v1/batch"]


def test_nothing_waiting_sends_nothing(segment: LocalSegment) -> None:
    flush()
    assert segment.requests == []


def test_message_arrives_as_the_bytes_that_were_stored(segment: LocalSegment) -> None:
    put("1", title="Schön “</script>”")
    flush()
    assert segment.messages[0].message == json.loads(
        '{"type":"page","messageId":"1","anonymousId":"a","name":"1","properties":{"title":"Schön “</script>”"}}'
    )


def test_batches_keep_to_segments_limits(segment: LocalSegment) -> None:
    put(*map(str, range(40)), text="x" * 30_000)
    put(*(f"small-{number}" for number in range(3_000)))
    report = flush()

    assert report.delivered == len(ids(segment)) == len(set(ids(segment))) == 3_040
    sizes = [(request.size, request.messages) for request in segment.requests]
    assert all(size <= 475_000 and count <= 2_500 for size, count in sizes)
    assert len(sizes) <= 5, "batches are filled"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_trouble_keeps_the_messages_and_backs_off(segment: LocalSegment, status: int) -> None:
    put("1")
    segment.answer_with(Answer(status=status), times=None)
    report = flush()
    again = flush()

    assert str(status) in report.trouble
    assert again.busy == 1
    assert len(segment.requests) == 1, "nobody tries while the part backs off"
    assert buffers["default"].depth() == 1

    segment.answer_normally()
    try_again()
    assert flush().delivered == 1
    assert ids(segment) == ["1"]


def test_backoff_grows_and_ends_with_a_delivery(segment: LocalSegment) -> None:
    from segment_fallback.buffers.base import now_ms

    put("1")
    segment.answer_with(Answer(status=500), times=4)
    waits = []
    for _ in range(4):
        flush()
        waits.append(Lease.objects.get().not_before - now_ms())
        try_again()
    assert [Lease.objects.get().failures] == [4]
    for wait, expected in zip(waits, [500, 1_000, 2_000, 4_000], strict=True):
        assert wait <= expected * 1.25
    assert waits[3] > waits[0]

    flush()
    assert Lease.objects.get().failures == 0
    assert headers(segment, 4)["x-retry-count"] == "4"


def headers(segment: LocalSegment, number: int) -> dict[str, str]:
    return {name.lower(): value for name, value in segment.requests[number].headers.items()}


def test_retry_after_is_obeyed(segment: LocalSegment) -> None:
    from segment_fallback.buffers.base import now_ms

    put("1")
    segment.answer_with(Answer(status=429, headers={"Retry-After": "120"}))
    flush()
    assert 100_000 < Lease.objects.get().not_before - now_ms() <= 120_000


@pytest.mark.parametrize("answer", [Answer.cut(), Answer.cut(received=True), Answer.redirect("http://127.0.0.1:9/")])
def test_message_without_an_answer_is_sent_again_with_the_same_id(segment: LocalSegment, answer: Answer) -> None:
    put("1")
    segment.answer_with(answer)
    assert flush().delivered == 0
    try_again()
    assert flush().delivered == 1
    assert [received.message_id for received in segment.distinct] == ["1"]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_wrong_key_or_host_buries_nothing(segment: LocalSegment, status: int) -> None:
    put("1", "2")
    segment.answer_with(Answer(status=status))
    report = flush()
    assert "check WRITE_KEY and API_HOST" in report.trouble
    assert buffers["default"].depth() == 2
    assert not DeadLetter.objects.exists()


@pytest.mark.parametrize("poison", [{"0"}, {"6"}, {"12"}, {"3", "4"}, set(map(str, range(13)))])
def test_refused_batch_is_halved_until_the_poison_stands_alone(segment: LocalSegment, poison: set[str]) -> None:
    names = [str(number) for number in range(13)]
    put(*names)
    segment.refuse(lambda message: message["messageId"] in poison)
    report = flush()

    assert sorted(ids(segment)) == sorted(set(names) - poison)
    assert (report.delivered, report.buried) == (13 - len(poison), len(poison))
    dead = [(letter.message.message_id, letter.reason) for letter in buffers["default"].dead_letters()]
    assert {message_id for message_id, _ in dead} == poison
    assert all("HTTP 400" in reason for _, reason in dead)
    assert buffers["default"].depth() == 0


def test_part_that_another_flusher_holds_is_left_alone(segment: LocalSegment) -> None:
    put("1")
    claim = buffers["default"].claim(0)
    assert claim
    report = flush()
    assert (report.busy, report.delivered, segment.requests) == (1, 0, [])
    claim.release()
    assert flush().delivered == 1


def test_flusher_whose_lease_was_lost_stops_before_its_next_send(
    segment: LocalSegment, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "SENDS_IN_FLIGHT": 1}
    put(*map(str, range(40)), text="x" * 30_000)

    def lose(**kwargs: Any) -> None:
        Lease.objects.update(owner="another")

    monkeypatch.setattr(delivery, "FRESH", 0)
    delivered.connect(lose)
    try:
        report = flush()
    finally:
        delivered.disconnect(lose)
    assert len(segment.requests) == 1
    assert "another flusher" in report.trouble
    assert Lease.objects.get().owner == "another"


def test_budget_spent_starts_no_further_batch(segment: LocalSegment) -> None:
    put("1")
    assert flush(budget=-1).delivered == 0
    assert segment.requests == []
    assert flush().delivered == 1


def test_flush_that_its_budget_cuts_off_says_so_and_leaves_what_it_did_not_begin_unflushed(
    segment: LocalSegment, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("1")
    report = flush(budget=-1)
    assert report.unfinished
    assert not Lease.objects.exists()

    messages = DatabaseClaim.messages

    def read_slowly(self: DatabaseClaim) -> Iterator[Waiting]:
        time.sleep(0.3)
        return messages(self)

    monkeypatch.setattr(DatabaseClaim, "messages", read_slowly)
    report = flush(budget=0.2)
    lease = Lease.objects.get()
    assert (report.delivered, report.unfinished) == (0, True)
    assert (lease.owner, lease.flushed, lease.failures) == ("", 0, 0)

    report = flush()
    assert (report.delivered, report.unfinished) == (1, False)
    assert Lease.objects.get().flushed > 0


def test_flush_that_its_budget_cuts_off_has_flushed_what_it_began(segment: LocalSegment, settings: Settings) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "SENDS_IN_FLIGHT": 1}
    put(*map(str, range(60)), text="x" * 30_000)
    segment.answer_with(Answer.slow(0.3), times=None)
    report = flush(budget=0.2)
    assert report.unfinished
    assert 0 < report.delivered < 60
    assert Lease.objects.get().flushed > 0


def test_flush_begins_with_any_buffer_and_any_part(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = {"BACKEND": "segment_fallback.buffers.database.DatabaseBuffer", "OPTIONS": {"parts": 2}}
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "BUFFERS": {"default": backend, "old": backend}}
    begun: list[tuple[DatabaseBuffer, int]] = []

    def refuse(self: DatabaseBuffer, part: int, *, lease: float = 60.0) -> None:
        begun.append((self, part))

    monkeypatch.setattr(DatabaseBuffer, "claim", refuse)
    firsts = set()
    for _ in range(100):
        flush()
        firsts.add(begun[0])
        assert len(set(begun)) == 4, "each in its turn"
        begun.clear()
    assert len(firsts) == 4


def test_every_buffer_is_flushed(segment: LocalSegment, settings: Settings) -> None:
    backend = "segment_fallback.buffers.database.DatabaseBuffer"
    settings.SEGMENT_FALLBACK = {
        **settings.SEGMENT_FALLBACK,
        "BUFFERS": {"default": {"BACKEND": backend, "OPTIONS": {"parts": 3}}, "old": {"BACKEND": backend}},
    }
    put(*map(str, range(20)))
    assert flush().delivered == 20
    assert WaitingMessage.objects.count() == 0


def test_without_a_write_key_nothing_is_sent(segment: LocalSegment, settings: Settings) -> None:
    put("1")
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "WRITE_KEY": ""}
    assert "no write key" in flush().trouble
    assert buffers["default"].depth() == 1


def test_celery_task_flushes(segment: LocalSegment) -> None:
    put("1")
    assert flush_task() == "1 delivered in 1 batch, 0 dead letters"
    assert ids(segment) == ["1"]


def test_command_flushes_and_says_so(segment: LocalSegment) -> None:
    put("1", "2")
    out = StringIO()
    call_command("segment_flush", stdout=out)
    assert out.getvalue() == "2 delivered in 1 batch, 0 dead letters.\n"


def test_command_fails_with_the_reason(segment: LocalSegment) -> None:
    put("1")
    segment.answer_with(Answer(status=500))
    with pytest.raises(CommandError, match="HTTP 500"):
        call_command("segment_flush", "--budget", "10")
    with pytest.raises(CommandError, match="no buffer 'nope'; BUFFERS has default"):
        call_command("segment_flush", "--buffer", "nope")


# Several sources.


@pytest.fixture
def docs(settings: Settings) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "SOURCES": {"docs": {"WRITE_KEY": "docs-key"}}}


def put_for(source: str, *names: str) -> None:
    messages = [{"type": "page", "messageId": name, "anonymousId": "a"} for name in names]
    buffers["default"].put([encode(message, source=source) for message in messages])


@pytest.mark.usefixtures("docs")
def test_message_goes_to_its_sources_key(segment: LocalSegment) -> None:
    for number in range(6):
        put_for("docs" if number % 2 else "default", str(number))
    assert flush().batches == 2
    assert {(r.message_id, r.write_key) for r in segment.messages} == {
        (str(number), "docs-key" if number % 2 else "tests-write-key") for number in range(6)
    }


@pytest.mark.usefixtures("docs")
@pytest.mark.parametrize("status", [401, 429])
def test_trouble_of_one_source_does_not_stop_the_others(segment: LocalSegment, status: int) -> None:
    segment.write_keys = frozenset(["docs-key"])
    put_for("default", "1")
    put_for("docs", "2")
    if status == 429:
        segment.write_keys = None
        segment.answer_with(Answer(status=429))
    report = flush()
    assert report.delivered == 1
    assert str(status) in report.trouble
    assert buffers["default"].depth() == 1
    assert flush().busy == 1


def test_source_that_the_settings_no_longer_know_waits(segment: LocalSegment) -> None:
    put_for("gone", "1")
    put_for("default", "2")
    report = flush()
    assert ids(segment) == ["2"]
    assert "'gone', which has no write key" in report.trouble
    assert buffers["default"].depth() == 1


# What may have been delivered.

UNCLEAR = [Answer.cut(received=True), Answer(status=500, received=True), Answer.hang(30, received=True)]


def days_later(monkeypatch: pytest.MonkeyPatch, hours: float) -> None:
    from segment_fallback.buffers import base, database, database_claim
    from segment_fallback.delivery import flush as module

    later = base.now_ms() + round(hours * 3_600_000)
    for place in (base, database, database_claim, module):
        monkeypatch.setattr(place, "now_ms", lambda: later)


@pytest.mark.parametrize("answer", UNCLEAR)
def test_message_that_may_have_been_delivered_a_day_ago_is_not_sent_blindly(
    segment: LocalSegment, answer: Answer, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "SEND_TIMEOUT": 0.5}
    put("1", "2")
    segment.answer_with(answer)
    flush()
    put("3")
    days_later(monkeypatch, 23.5)
    report = flush()

    assert (report.delivered, report.buried) == (1, 2)
    assert ids(segment) == ["1", "2", "3"]
    assert {letter.reason for letter in buffers["default"].dead_letters()} == {
        "may have been delivered, too long ago for Segment to know it again"
    }


@pytest.mark.parametrize(("hours", "resend"), [(22, False), (100, True)])
def test_message_in_doubt_is_sent_again_while_segment_knows_it_or_where_a_setting_says_so(
    segment: LocalSegment, monkeypatch: pytest.MonkeyPatch, settings: Settings, hours: float, resend: bool
) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "RESEND_STALE": resend}
    put("1")
    segment.answer_with(Answer.cut(received=True))
    flush()
    days_later(monkeypatch, hours)
    assert flush().delivered == 1
    assert ids(segment) == ["1", "1"]
    assert Lease.objects.get().doubts == "{}" or not Lease.objects.get().doubts


@pytest.mark.parametrize("answer", [Answer(status=429), Answer(status=401)])
def test_message_that_was_surely_not_delivered_is_sent_however_late(
    segment: LocalSegment, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("1")
    segment.answer_with(answer)
    flush()
    days_later(monkeypatch, 1_000)
    assert flush().delivered == 1
