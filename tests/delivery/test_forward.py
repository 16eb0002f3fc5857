"""Events posted to Segment while their request waits, to the real local Segment."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.test import override_settings

from segment_fallback.delivery import forward as module
from segment_fallback.delivery.forward import Forwarded, forward, lines
from segment_fallback.delivery.transport import Verdict
from segment_fallback.message import Message, encode
from segment_fallback.testing import Answer, LocalSegment
from segment_fallback.testing.server import Server

SILENCE = Answer.hang(30)


@pytest.fixture(autouse=True)
def short_patience() -> Iterator[None]:
    """A third of a second, for what does not answer."""
    with patience(0.3):
        yield


def patience(seconds: float, **more: Any) -> override_settings:
    return override_settings(SEGMENT_FALLBACK={**settings.SEGMENT_FALLBACK, "SEND_TIMEOUT": seconds, **more})


@pytest.fixture
def segment(local_segment: LocalSegment) -> Iterator[LocalSegment]:
    with patience(0.3):
        yield local_segment


def message(number: int = 0, source: str = "default", **more: Any) -> Message:
    event = {"type": "track", "event": "Bought", "messageId": f"m{number}", "anonymousId": "a", **more}
    return encode(event, source=source)


def ids(segment: LocalSegment) -> list[str | None]:
    return [received.message_id for received in segment.messages]


def test_delivered_is_what_segment_has(segment: LocalSegment) -> None:
    assert forward([message(1), message(2)]) == Forwarded(delivered=2)
    assert ids(segment) == ["m1", "m2"]
    assert {received.write_key for received in segment.messages} == {"tests-write-key"}


def test_batch_past_segments_limits_goes_as_several(segment: LocalSegment) -> None:
    many = [message(number, properties={"text": "x" * 30_000}) for number in range(40)]
    assert forward(many) == Forwarded(delivered=40)
    assert ids(segment) == [f"m{number}" for number in range(40)]
    assert [request.size <= 475_000 for request in segment.requests] == [True] * 3


def test_refused_event_does_not_take_the_others_with_it(
    segment: LocalSegment, caplog: pytest.LogCaptureFixture
) -> None:
    segment.refuse(lambda event: event["messageId"] in ("m3", "m7"))
    assert forward([message(number) for number in range(10)]) == Forwarded(delivered=8, refused=2)
    assert sorted(map(str, ids(segment))) == [f"m{number}" for number in range(10) if number not in (3, 7)]
    assert caplog.text.count("Segment refuses an event: HTTP 400") == 2
    assert "tests-write-key" not in caplog.text
    assert "Bought" not in caplog.text


def test_no_further_post_is_started_when_the_time_is_up(segment: LocalSegment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUDGET", 0.1)
    segment.answer_with(Answer(delay=0.15), times=None)
    forwarded = forward([message(number, properties={"text": "x" * 30_000}) for number in range(40)])
    assert 0 < forwarded.delivered < 40
    assert forwarded.answer is not None
    assert (forwarded.answer.verdict, forwarded.answer.retry_after) == (Verdict.RETRY, None)
    assert len(segment.requests) == 1


@pytest.mark.parametrize(
    ("answer", "verdict", "retry_after"),
    [
        (Answer(status=500), Verdict.RETRY, None),
        (Answer(status=503, headers={"Retry-After": "7"}), Verdict.RETRY, 7),
        (Answer(status=429, headers={"Retry-After": "9999"}), Verdict.RETRY, 300),
        (Answer(status=401), Verdict.MISCONFIGURED, None),
        (Answer.redirect("http://127.0.0.1:9/"), Verdict.MISCONFIGURED, None),
        (Answer.cut(), Verdict.RETRY, 1),
    ],
)
def test_what_segment_does_not_take_is_told_with_its_reason(
    segment: LocalSegment,
    caplog: pytest.LogCaptureFixture,
    answer: Answer,
    verdict: Verdict,
    retry_after: int | None,
) -> None:
    segment.answer_with(answer)
    forwarded = forward([message(1), message(2)])
    assert (forwarded.delivered, forwarded.refused) == (0, 0)
    assert forwarded.answer is not None
    assert (forwarded.answer.verdict, forwarded.answer.retry_after) == (verdict, retry_after)
    assert "Segment has not taken 2 events" in caplog.text
    assert "tests-write-key" not in caplog.text


# While Segment is down


def pause_after(forwarded: Forwarded) -> int:
    """The seconds after which to try again what was not delivered."""
    assert forwarded.delivered == 0
    assert forwarded.answer is not None
    assert forwarded.answer.retry_after is not None
    return forwarded.answer.retry_after


@pytest.mark.parametrize("answer", [SILENCE, Answer.cut(), Answer(status=429, headers={"Retry-After": "1"})])
def test_nobody_waits_for_what_was_silent_or_asked_to_wait(segment: LocalSegment, answer: Answer) -> None:
    segment.answer_with(answer)
    forward([message(1)])

    pause = pause_after(forward([message(2)]))
    assert len(segment.requests) == 1

    time.sleep(pause)
    assert forward([message(3)]) == forward([message(4)]) == Forwarded(delivered=1)


@pytest.mark.parametrize("status", [400, 403, 500])
def test_event_that_segment_dislikes_stops_nobody_elses(segment: LocalSegment, status: int) -> None:
    segment.answer_with(Answer(status=status))
    forward([message(1)])
    assert forward([message(2)]) == Forwarded(delivered=1)


def by_threads(number: int) -> list[Forwarded]:
    """What came of messages that as many threads forward at once."""
    results: list[Forwarded] = []
    threads = [threading.Thread(target=lambda: results.append(forward([message()]))) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_one_at_a_time_finds_out_whether_segment_is_back(segment: LocalSegment) -> None:
    segment.answer_with(SILENCE, times=None)
    time.sleep(pause_after(forward([message(1)])))
    assert [each.delivered for each in by_threads(10)] == [0] * 10
    assert len(segment.requests) == 2


def test_pause_grows_until_segment_answers_again(segment: LocalSegment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.6)
    segment.answer_with(Answer.cut(), times=2)
    pauses = [pause_after(forward([message(1)]))]
    time.sleep(0.7)
    pauses.append(pause_after(forward([message(2)])))
    time.sleep(1.3)
    assert forward([message(3)]) == Forwarded(delivered=1)
    segment.answer_with(Answer.cut())
    pauses.append(pause_after(forward([message(4)])))
    assert pauses == [1, 2, 1]


def test_many_that_meet_the_same_silence_count_once(segment: LocalSegment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 2.0)
    segment.answer_with(SILENCE, times=10)
    by_threads(10)
    assert len(segment.requests) == 10
    assert pause_after(forward([message()])) <= 2


def test_trouble_of_one_source_does_not_stop_the_others(segment: LocalSegment) -> None:
    with LocalSegment() as other, patience(0.3, SOURCES={"docs": {"WRITE_KEY": "docs-key", "API_HOST": other.url}}):
        segment.answer_with(SILENCE)
        forward([message(1)])
        forwarded = forward([message(2, "docs")])
        assert forwarded == Forwarded(delivered=1)
        assert [received.write_key for received in other.messages] == ["docs-key"]


def test_source_without_a_write_key_is_an_error_and_not_another_source() -> None:
    with pytest.raises(LookupError, match="'gone'"):
        forward([message(1, "gone")])


def test_pause_is_longer_than_the_wait_before_it(segment: LocalSegment) -> None:
    with patience(1.1):
        segment.answer_with(SILENCE)
        assert 4 <= pause_after(forward([message(1)])) <= 8


# The connections of a process


@pytest.fixture
def connections(segment: LocalSegment, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The addresses from which Segment was connected to."""
    seen: list[Any] = []
    original = Server.process_request

    def noting(self: Server, request: Any, client_address: Any) -> None:
        seen.append(client_address)
        original(self, request, client_address)

    monkeypatch.setattr(Server, "process_request", noting)
    return seen


def test_connections_are_kept_and_shared_by_threads(
    segment: LocalSegment, connections: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    results: list[Forwarded] = []

    def visitors() -> None:
        results.extend(forward([message()]) for _ in range(20))

    threads = [threading.Thread(target=visitors) for _ in range(15)]
    with patience(5), caplog.at_level(logging.WARNING):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == [Forwarded(delivered=1)] * 300
    assert len(segment.requests) == 300
    assert 1 <= len(connections) <= 15
    assert caplog.text == ""  # urllib3 says where it has to drop a connection


def test_child_of_a_fork_opens_its_own_connection(segment: LocalSegment, connections: list[Any]) -> None:
    forward([message(1)])
    child = os.fork()
    if child == 0:
        os._exit(0 if forward([message(2)]).delivered == 1 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert forward([message(3)]) == Forwarded(delivered=1)
    assert ids(segment) == ["m1", "m2", "m3"]
    assert len(connections) == 2


def test_cookies_of_an_answer_do_not_come_back_with_the_next_events(segment: LocalSegment) -> None:
    segment.answer_with(Answer(status=200, headers={"Set-Cookie": "who=ada; Path=/"}))
    for number in range(2):
        forward([message(number)])
    assert [request.headers.get("Cookie") for request in segment.requests] == [None, None]


def test_settings_that_change_take_effect(segment: LocalSegment) -> None:
    forward([message(1)])
    with patience(0.3, WRITE_KEY="another"):
        forward([message(2)])
    assert [received.write_key for received in segment.messages] == ["tests-write-key", "another"]


def test_oauth_is_waited_for_no_longer_than_segment_is() -> None:
    oauth = {"client_id": "me", "client_key": "no key", "key_id": "k", "timeout": 15}
    with patience(0.3, OAUTH=oauth):
        forwarded = forward([message(1)])
        assert lines["default"]._transport._oauth.timeout == 0.3  # type: ignore[union-attr]
    assert forwarded.answer is not None
    assert forwarded.answer.verdict is Verdict.MISCONFIGURED
    # Whose settings are wrong does not sign a request for each visitor.
    assert forwarded.answer.retry_after == 1


def test_body_is_that_of_the_buffer(segment: LocalSegment) -> None:
    sent = message(1, properties={"title": "Schön </script>"})
    forward([sent])
    assert segment.messages[0].message == json.loads(sent.body)
