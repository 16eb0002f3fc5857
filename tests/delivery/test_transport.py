from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from segment.analytics import request as sdk

from segment_fallback.conf import Settings, Source
from segment_fallback.delivery.transport import Answer, Transport, Verdict
from segment_fallback.testing import Answer as HTTPAnswer
from segment_fallback.testing import LocalSegment

MESSAGES: list[dict[str, Any]] = [
    {"type": "page", "messageId": "1", "anonymousId": "a", "properties": {"title": "Schön </script>"}},
    {"type": "track", "event": "e", "messageId": "2", "userId": "u", "properties": {"price": 9.5, "none": None}},
]
BODIES = [json.dumps(message, ensure_ascii=False).encode() for message in MESSAGES]


def transport_to(segment: LocalSegment, key: str = "a-key", **settings: Any) -> Transport:
    return Transport(Source("default", key, segment.url), Settings(**{"SEND_TIMEOUT": 5.0, **settings}))


def send(segment: LocalSegment, **settings: Any) -> Answer:
    with transport_to(segment, **settings) as transport:
        return transport.send(BODIES)


@pytest.mark.parametrize("gzip", [False, True])
@pytest.mark.parametrize("retries", [0, 2])
def test_request_on_the_wire_is_that_of_the_sdk(local_segment: LocalSegment, gzip: bool, retries: int) -> None:
    key = 'a "key"\\ä'
    with transport_to(local_segment, key, GZIP=gzip) as transport:
        transport.send(BODIES, retry_count=retries)
    ours = local_segment.requests, local_segment.messages
    local_segment.clear()
    sdk.post(key, local_segment.url, gzip=gzip, retry_count=retries, batch=MESSAGES)
    theirs = local_segment.requests, local_segment.messages

    [our_request], [their_request] = ours[0], theirs[0]
    assert (our_request.method, our_request.path) == (their_request.method, their_request.path)
    assert headers(our_request.headers) == headers(their_request.headers)
    assert [m.message for m in ours[1]] == [m.message for m in theirs[1]] == MESSAGES
    assert {m.write_key for m in ours[1]} == {m.write_key for m in theirs[1]} == {key}
    for received in (*ours[1], *theirs[1]):
        assert received.sent_at
        moment = datetime.fromisoformat(received.sent_at)
        assert moment.utcoffset() == timedelta(0)
        assert abs(datetime.now(timezone.utc) - moment) < timedelta(minutes=1)


def headers(sent: Any) -> dict[str, str]:
    """The headers but for the length: the SDK escapes what is not ASCII and puts spaces where JSON needs none."""
    return {name.lower(): value for name, value in sent.items() if name.lower() != "content-length"}


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        *[(status, Verdict.DELIVERED) for status in (200, 201, 204)],
        *[(status, Verdict.REFUSED) for status in (400, 413, 422)],
        *[(status, Verdict.RETRY) for status in (408, 410, 429, 460, 500, 502, 503, 504, 520)],
        *[(status, Verdict.MISCONFIGURED) for status in (401, 403, 404, 405, 501, 505, 300, 304)],
    ],
)
def test_verdict_follows_the_retry_policy_of_the_sdks(
    local_segment: LocalSegment, status: int, verdict: Verdict
) -> None:
    local_segment.answer_with(HTTPAnswer(status=status))
    answer = send(local_segment)
    assert answer.verdict is verdict
    assert (str(status) in answer.detail) is (verdict is not Verdict.DELIVERED)
    assert "a-key" not in answer.detail
    assert answer.doubtful is (verdict is Verdict.RETRY and status >= 500)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7), ("9999", 300), ("-1", 0), ("soon", None), ("", None)],
)
def test_retry_after_is_heard(local_segment: LocalSegment, header: str, seconds: int | None) -> None:
    local_segment.answer_with(HTTPAnswer(status=429, headers={"Retry-After": header}))
    assert send(local_segment).retry_after == seconds


def test_retry_after_as_a_date_is_heard(local_segment: LocalSegment) -> None:
    later = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=100), usegmt=True)
    local_segment.answer_with(HTTPAnswer(status=503, headers={"Retry-After": later}))
    retry_after = send(local_segment).retry_after
    assert retry_after
    assert 90 <= retry_after <= 100


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_a_failure_and_not_followed(local_segment: LocalSegment, status: int) -> None:
    with LocalSegment() as elsewhere:
        local_segment.answer_with(HTTPAnswer.redirect(elsewhere.url + "/v1/batch", status))
        assert send(local_segment).verdict is Verdict.MISCONFIGURED
        assert elsewhere.requests == []


@pytest.mark.parametrize("answer", [HTTPAnswer.cut(), HTTPAnswer.cut(received=True), HTTPAnswer.hang(30)])
def test_trouble_on_the_way_is_to_be_tried_again(local_segment: LocalSegment, answer: HTTPAnswer) -> None:
    local_segment.answer_with(answer)
    outcome = send(local_segment, SEND_TIMEOUT=0.5)
    assert (outcome.verdict, outcome.doubtful) == (Verdict.RETRY, True)


def test_segment_out_of_reach_is_to_be_tried_again() -> None:
    with LocalSegment() as segment:
        gone = transport_to(segment)
    with gone:
        answer = gone.send(BODIES)
    assert (answer.verdict, answer.doubtful) == (Verdict.RETRY, False)


def test_netrc_does_not_replace_the_write_key(
    local_segment: LocalSegment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    send(local_segment)
    assert headers(local_segment.requests[0].headers)["authorization"] == "Basic YS1rZXk6"


def test_envelope_is_what_the_request_needs_around_its_messages(local_segment: LocalSegment) -> None:
    with transport_to(local_segment) as transport:
        transport.send(BODIES)
        inside = sum(map(len, BODIES)) + len(BODIES) - 1
        assert local_segment.requests[0].size == transport.envelope + inside


def test_nothing_of_what_is_sent_is_logged(local_segment: LocalSegment, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(0):
        send(local_segment)
        local_segment.answer_with(HTTPAnswer(status=500))
        send(local_segment)
    assert "Schön" not in caplog.text
    assert "a-key" not in caplog.text
