from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command

from segment_fallback import status as module
from segment_fallback.buffers import buffers
from segment_fallback.buffers.accept import acceptance
from segment_fallback.buffers.base import ARCHIVE, LeaseState, now_ms
from segment_fallback.buffers.dynamodb import DynamoDBBuffer
from segment_fallback.buffers.memory import MemoryBuffer
from segment_fallback.delivery.flush import flush
from segment_fallback.exceptions import BufferUnavailable
from segment_fallback.message import Message
from segment_fallback.status import BufferStatus, Look, SpoolStatus, Status, read_status
from segment_fallback.testing import Answer, LocalSegment

if TYPE_CHECKING:
    from pytest_django import Settings

MEMORY = {"BACKEND": "segment_fallback.buffers.memory.MemoryBuffer"}
BODY = b'{"type":"page","messageId":"1","anonymousId":"a"}'
NOW = 1_800_000_000_000


class DearBuffer(MemoryBuffer):
    """One that must not be counted every few seconds, and says so if it is."""

    counting_costs = True

    def depth(self) -> int:
        raise AssertionError("this costs money")


class Hanging(MemoryBuffer):
    """One that answers when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.let = threading.Event(), threading.Event()

    def leases(self) -> list[LeaseState]:
        self.asked.set()
        self.let.wait(10)
        return super().leases()


@pytest.fixture
def memory(settings: Settings) -> MemoryBuffer:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "BUFFERS": {"default": MEMORY}}
    buffer = buffers["default"]
    assert isinstance(buffer, MemoryBuffer)
    return buffer


def put(buffer: MemoryBuffer, *ids: str) -> None:
    buffer.put([Message(message_id, BODY) for message_id in ids])


def words(status: Status) -> list[str]:
    return [problem.ailment.value for problem in status.problems]


def lease(part: int = 0, **more: Any) -> LeaseState:
    return LeaseState(part, **more)


def at_noon(*leases: LeaseState, spool: SpoolStatus | None = None, **more: Any) -> Status:
    buffer = BufferStatus(alias="default", parts=1, leases=list(leases), **more)
    return Status(at=NOW, buffers=[buffer], spool=spool or SpoolStatus())


def ago(seconds: float) -> int:
    return round(NOW - seconds * 1000)


def test_new_site_is_well(memory: MemoryBuffer) -> None:
    status = read_status()
    assert status.problems == []
    assert (status.waiting, status.oldest, status.age, status.dead_letters, status.flushed) == (0, None, 0.0, 0, 0)


def test_status_tells_what_waits_is_buried_and_is_spooled(memory: MemoryBuffer) -> None:
    put(memory, "1", "2")
    memory.bury([Message("3", BODY)], "a test")
    acceptance.spool.put([Message("4", BODY)])
    status = read_status()

    assert (status.waiting, status.dead_letters) == (2, 1)
    assert 0 <= status.age < 5
    assert status.spool.files == 1
    assert status.spool.bytes > len(BODY)
    assert status.spool.oldest
    assert 0 <= status.at - status.spool.oldest < 60_000
    assert [problem.detail for problem in status.problems] == ["new dead letters within the hour: 1"]


def test_dead_letters_of_long_ago_are_no_news(memory: MemoryBuffer, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.bury([Message("3", BODY)], "a test")
    monkeypatch.setattr(module, "now_ms", lambda: now_ms() + 3_700_000)
    status = read_status()
    assert status.dead_letters == 1
    assert status.problems == []


def test_flush_is_seen_and_what_went_wrong_in_it(memory: MemoryBuffer, local_segment: LocalSegment) -> None:
    put(memory, "1")
    flush()
    status = read_status()
    assert status.at - status.flushed < 5_000
    assert status.buffers[0].trouble is None

    local_segment.answer_with(Answer(503))
    put(memory, "2")
    flush()
    trouble = read_status().buffers[0].trouble
    assert trouble is not None
    assert trouble.error.startswith("HTTP 503")


@pytest.mark.parametrize(
    ("status", "found"),
    [
        (at_noon(lease(flushed=ago(299))), []),
        (at_noon(lease(flushed=ago(301))), ["flush_not_seen"]),
        (at_noon(lease(flushed=ago(9_000), error_at=ago(10), failures=3)), []),
        (at_noon(lease(ARCHIVE, flushed=ago(1)), lease(flushed=ago(301))), ["flush_not_seen"]),
        (at_noon(lease(flushed=ago(9_000), owner="x", expires=NOW + 60_000)), []),
        (at_noon(lease(flushed=ago(9_000), owner="x", expires=ago(1))), ["flush_not_seen"]),
        (at_noon(lease(flushed=ago(9_000), owner="x", expires=NOW + 10**9)), ["flush_not_seen"]),
        (at_noon(oldest=ago(299), waiting=1), []),
        (at_noon(oldest=ago(301), waiting=1), ["flush_not_seen"]),
        (at_noon(lease(flushed=ago(1)), oldest=ago(600), waiting=1), []),
        (at_noon(lease(flushed=ago(1)), oldest=ago(601), waiting=1), ["message_too_old"]),
        (at_noon(oldest=NOW + 9_000, waiting=1), []),
        (at_noon(error="gone"), ["buffer_down"]),
        (at_noon(spool=SpoolStatus(error="gone")), ["spool_down"]),
        (at_noon(lease(flushed=ago(1)), spool=SpoolStatus(files=1, oldest=ago(600))), []),
        (at_noon(lease(flushed=ago(1)), spool=SpoolStatus(files=1, oldest=ago(601))), ["message_too_old"]),
        (at_noon(buried=1), ["dead_letters"]),
    ],
)  # fmt: skip
def test_problems_are_found_at_their_limits(status: Status, found: list[str]) -> None:
    assert words(status) == found


@pytest.mark.parametrize(
    ("leases", "found"),
    [
        ([], ["flush_not_seen"]),
        ([lease(flushed=ago(5))], []),
        ([lease(flushed=ago(599), error_at=ago(5), failures=9)], []),
        ([lease(flushed=ago(601), error_at=ago(5), failures=9)], ["message_too_old"]),
        ([lease(flushed=ago(601), error_at=ago(5)), lease(1, flushed=ago(5))], []),
        ([lease(error_at=ago(5), failures=17)], []),
        ([lease(error_at=ago(5), failures=18)], ["message_too_old"]),
    ],
)  # fmt: skip
def test_problems_are_found_by_the_leases_alone(leases: list[LeaseState], found: list[str]) -> None:
    assert words(at_noon(*leases, counted=False)) == found


def test_message_that_is_held_waits_as_it_should(settings: Settings) -> None:
    settings.SEGMENT_FALLBACK = {"WRITE_KEY": "k", "FIRST_PARTY": True, "HOLD": 3_600}
    flushed = lease(flushed=ago(1))
    assert words(at_noon(flushed, oldest=ago(4_100), waiting=1)) == []
    assert words(at_noon(flushed, oldest=ago(4_300), waiting=1)) == ["message_too_old"]
    assert words(at_noon(oldest=ago(3_700), waiting=1)) == []


def test_site_that_forwards_needs_no_flush(settings: Settings) -> None:
    settings.SEGMENT_FALLBACK = {"WRITE_KEY": "k", "COLLECT": "forward"}
    assert words(at_noon(lease(flushed=ago(9_000)))) == []
    assert words(at_noon(counted=False)) == []
    assert words(at_noon(lease(flushed=ago(9_000)), oldest=ago(310), waiting=1)) == ["flush_not_seen"]


def test_what_does_not_answer_is_said_and_nothing_raises(
    memory: MemoryBuffer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(error: Exception) -> Any:
        def leases() -> Sequence[LeaseState]:
            raise error

        return leases

    monkeypatch.setattr(memory, "leases", fail(BufferUnavailable("the table is gone\nfor long")))
    monkeypatch.setattr(acceptance.spool, "size", fail(OSError("/secret/path")))
    status = read_status()
    assert status.buffers[0].error == "the table is gone?for long"
    assert status.spool.error == "OSError"
    assert words(status) == ["buffer_down", "spool_down"]

    monkeypatch.setattr(memory, "leases", fail(KeyError("a payload")))
    assert read_status().buffers[0].error == "KeyError"

    settings.SEGMENT_FALLBACK = {"WRITE_KEY": "k", "BUFFERS": {"default": {"BACKEND": "no.such.Buffer"}}}
    with pytest.raises(ImproperlyConfigured):
        buffers["default"]
    assert "cannot import 'no.such.Buffer'" in read_status().buffers[0].error


def test_buffer_whose_counting_costs_is_asked_for_its_leases_only(settings: Settings) -> None:
    dear = {"BACKEND": f"{__name__}.DearBuffer"}
    settings.SEGMENT_FALLBACK = {"WRITE_KEY": "k", "BUFFERS": {"default": dear}, "SPOOL": "spool"}
    assert DynamoDBBuffer.counting_costs
    status = read_status(counting=False)
    assert not status.buffers[0].counted
    assert status.buffers[0].error == ""
    assert read_status().buffers[0].error == "AssertionError"


def test_look_is_shared_for_some_seconds(memory: MemoryBuffer, monkeypatch: pytest.MonkeyPatch) -> None:
    look = Look(counting=False)
    first = look.status()
    put(memory, "1")
    assert look.status() is first
    monkeypatch.setattr(module, "FRESH", 0.0)
    second = look.status()
    assert second is not None
    assert second.waiting == 1


def test_one_thread_looks_and_others_do_not_queue_behind_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SEGMENT_FALLBACK = {
        "WRITE_KEY": "k",
        "SPOOL": "spool",
        "BUFFERS": {"default": {"BACKEND": f"{__name__}.Hanging"}},
    }
    buffer = buffers["default"]
    assert isinstance(buffer, Hanging)
    monkeypatch.setattr(module, "WAIT", 0.05)
    look = Look(counting=False)
    thread = threading.Thread(target=look.status)
    thread.start()
    assert buffer.asked.wait(10)
    assert look.status() is None, "nothing is known yet"
    buffer.let.set()
    thread.join()
    known = look.status()
    assert known is not None

    monkeypatch.setattr(module, "FRESH", 0.0)
    buffer.asked.clear()
    buffer.let.clear()
    thread = threading.Thread(target=look.status)
    thread.start()
    assert buffer.asked.wait(10)
    began = time.monotonic()
    assert look.status() is known
    assert time.monotonic() - began < 0.04, "the last look is told at once"
    buffer.let.set()
    thread.join()


def test_cheap_look_at_dynamodb_is_one_read_of_the_leases(settings: Settings, dynamodb_local_url: str) -> None:
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    options = {"table": "looks", "endpoint_url": dynamodb_local_url, "region": "eu-central-1", "client": keys}
    dynamodb = {"BACKEND": "segment_fallback.buffers.dynamodb.DynamoDBBuffer", "OPTIONS": options}
    settings.SEGMENT_FALLBACK = {"WRITE_KEY": "k", "SPOOL": "spool", "BUFFERS": {"default": dynamodb}}
    call_command("segment_table", "--create", stdout=StringIO())
    buffer = buffers["default"]
    assert isinstance(buffer, DynamoDBBuffer)
    buffer.put([Message("1", BODY)])
    asked: list[str] = []
    buffer.client.meta.events.register("before-call.dynamodb", lambda model, **rest: asked.append(model.name))

    assert words(read_status(counting=False)) == ["flush_not_seen"]
    assert asked == ["BatchGetItem"]
    claim = buffer.claim(0)
    assert claim is not None
    claim.release()
    assert words(read_status(counting=False)) == []
    status = read_status()
    assert status.waiting == 1
    assert status.problems == []


@pytest.mark.django_db
def test_look_at_a_database_costs_five_queries(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(5):
        read_status(counting=False)
