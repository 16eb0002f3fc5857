"""COLLECT "forward": what passes every check goes on to a real local Segment, whose answer is the client's."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest
from asgiref.testing import ApplicationCommunicator
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import include, path

from segment_fallback.buffers.accept import acceptance
from segment_fallback.delivery.flush import flush
from segment_fallback.intake.pixel import GIF
from segment_fallback.models import OutcomeCount
from segment_fallback.names import endpoint_names, public_key
from segment_fallback.testing import Answer, LocalSegment
from tests.intake.posts import PAGE_HEADERS, WRITE_KEY, Sender, basic, batch, call, calls, event, single, url_of
from tests.intake.visits import Visit, outcomes, waiting

pytestmark = pytest.mark.django_db

SUCCESS = {"success": True}


def settings(**more: Any) -> override_settings:
    base = {"WRITE_KEY": WRITE_KEY, "OUTCOME_INTERVAL": 0, "SPOOL": "spool", "FIRST_PARTY": True, "COLLECT": "forward"}
    return override_settings(DEBUG=True, SEGMENT_FALLBACK={**base, "SEND_TIMEOUT": 1, **more})


@pytest.fixture(autouse=True)
def segment(local_segment: LocalSegment) -> Iterator[LocalSegment]:
    with settings(API_HOST=local_segment.url):
        yield local_segment
    assert (waiting(), acceptance.spool.files()) == ([], [])


@pytest.fixture(params=["sync", "async"])
def page(request: pytest.FixtureRequest) -> Sender:
    """A page of the site's, by WSGI's handler and by ASGI's."""
    return Sender(Client() if request.param == "sync" else AsyncClient())


def ids(segment: LocalSegment) -> list[str | None]:
    return [received.message_id for received in segment.messages]


# What is taken


def test_event_of_analytics_js_is_at_segment_before_the_answer(page: Sender, segment: LocalSegment) -> None:
    forged = {"userAgent": "forged", "ip": "6.6.6.6", "locale": "en-GB"}
    response = page.post("t", single(context=forged, userId="somebody"), authorization=basic(public_key()))

    assert (response.status_code, response.json()) == (200, SUCCESS)
    assert response["X-Segment-Fallback"] == "accepted"
    assert response["Cache-Control"] == "private, no-cache"
    [received] = segment.messages
    assert received.write_key == WRITE_KEY
    message = received.message
    assert (message["messageId"], message["anonymousId"], message["userId"]) == ("ajs-next-1", "visitor", None)
    assert message["context"] == {"ip": "127.0.0.1", "userAgent": PAGE_HEADERS["user-agent"], "locale": "en-GB"}
    assert outcomes() == {"accepted": 1}


def test_request_to_segment_has_nothing_of_the_visitors(page: Sender, segment: LocalSegment) -> None:
    page.client.cookies["sessionid"] = "secret"
    page.post("t", single(), authorization=basic(public_key()), x_forwarded_host="evil.example", x_retry_count="3")
    [request] = segment.requests
    assert (request.method, request.path) == ("POST", "/v1/batch")
    assert {name.lower() for name in request.headers} == {
        "host", "user-agent", "accept-encoding", "accept", "connection", "content-type", "content-length",
        "authorization",
    }  # fmt: skip
    assert request.headers["Authorization"] == basic(WRITE_KEY)
    assert request.headers["User-Agent"].startswith("analytics-python/")
    assert request.headers["Host"] == segment.url.removeprefix("http://")


def test_pixel_and_noscript_go_to_segment(segment: LocalSegment) -> None:
    visit = Visit()
    for response in (visit.send(), Visit(script=False).send()):
        assert (response.status_code, response.content) == (200, GIF)
        assert response["X-Segment-Fallback"] == "accepted"
    assert [received.way for received in segment.messages] == ["pixel", "noscript"]
    assert ids(segment)[0] == visit.message_id


def test_calls_go_to_segment(page: Sender, segment: LocalSegment) -> None:
    response = page.post("q", calls(call("track", "Bought", {"price": 1}), call("identify", "x", message_id="b" * 32)))
    assert response.status_code == 204
    assert [(received.type, received.way) for received in segment.messages] == [("track", "call"), ("identify", "call")]


def test_library_of_a_server_is_forwarded_to(segment: LocalSegment) -> None:
    server = Sender(headers={"user-agent": "analytics-python/2.4.0"})
    response = server.post("batch", batch(event(userId="ada"), writeKey=WRITE_KEY))
    assert (response.status_code, response.json()) == (200, SUCCESS)
    assert segment.messages[0].message["userId"] == "ada"


def test_event_goes_to_the_source_of_its_key(page: Sender, segment: LocalSegment) -> None:
    with LocalSegment() as other, settings(SOURCES={"docs": {"WRITE_KEY": "docs-key", "API_HOST": other.url}}):
        assert page.post("t", {**event(), "writeKey": public_key("docs")}).status_code == 200
        assert [received.write_key for received in other.messages] == ["docs-key"]
    assert segment.requests == []


@pytest.mark.parametrize(
    ("body", "headers", "reason"),
    [
        (single(), {"origin": "https://evil.example"}, "host"),
        (single(), {"sec_fetch_site": "cross-site"}, "cross_site"),
        (single(), {"sec_gpc": "1"}, "gpc"),
        (single(writeKey="another"), {}, "write_key"),
        (single(event=""), {}, "invalid"),
        (b"{", {}, "malformed"),
    ],
)
def test_what_fails_a_check_is_not_forwarded(
    page: Sender, segment: LocalSegment, body: object, headers: dict[str, str], reason: str
) -> None:
    assert page.post("t", body, **headers).json() == {"success": False, "reason": reason}
    assert segment.requests == []


def test_rate_holds(segment: LocalSegment) -> None:
    sender = Sender()
    with settings(API_HOST=segment.url, RATE_LIMIT=20):
        statuses = [sender.post("t", single()).status_code for _ in range(10)]
    assert 0 < statuses.count(429) < 10
    assert len(segment.messages) == statuses.count(200)


# What Segment does not take

ENDINGS: list[tuple[Answer, int, str, str]] = [
    (Answer(status=500), 503, "segment_down", ""),
    (Answer(status=503, headers={"Retry-After": "7"}), 503, "segment_down", "7"),
    (Answer(status=408), 503, "segment_down", ""),
    (Answer.hang(30), 503, "segment_down", "[3-9]"),
    (Answer.hang(30, received=True), 503, "segment_down", "[3-9]"),
    (Answer.cut(), 503, "segment_down", "1"),
    (Answer(status=429, headers={"Retry-After": "30"}), 429, "segment_busy", "30"),
    (Answer(status=429), 429, "segment_busy", ""),
    (Answer(status=400), 400, "segment_refused", ""),
    (Answer(status=413), 400, "segment_refused", ""),
    (Answer(status=401), 503, "misconfigured", ""),
    (Answer.redirect("http://127.0.0.1:9/v1/batch"), 503, "misconfigured", ""),
]


@pytest.mark.parametrize("ending", ENDINGS)
def test_verdict_of_segment_is_told_in_the_words_of_analytics_js(
    page: Sender, segment: LocalSegment, ending: tuple[Answer, int, str, str]
) -> None:
    answer, status, reason, retry_after = ending
    segment.answer_with(answer)
    response = page.post("t", single())
    assert (response.status_code, response.json()) == (status, {"success": False, "reason": reason})
    assert re.fullmatch(retry_after, response.headers.get("Retry-After", ""))
    assert response["X-Segment-Fallback"] == reason
    assert response["Cache-Control"] == "private, no-store"
    assert not response.cookies
    assert outcomes() == {reason: 1}


@pytest.mark.parametrize(("answer", "reason"), [(answer, reason) for answer, _, reason, _ in ENDINGS])
def test_pixel_and_calls_are_told_whether_to_send_again(segment: LocalSegment, answer: Answer, reason: str) -> None:
    again = reason != "segment_refused"
    segment.answer_with(answer, times=None)
    pixel = Visit().send()
    assert (pixel.status_code, pixel.content) == ((503, b"") if again else (200, GIF))
    assert Sender().post("q", calls(call("track", "Bought"))).status_code == (503 if again else 204)
    counted = OutcomeCount.objects.order_by("way").values_list("way", "outcome", "count")
    assert [*counted] == [("call", reason, 1), ("pixel", reason, 1)]


def test_one_event_that_segment_refuses_does_not_take_the_others_with_it(page: Sender, segment: LocalSegment) -> None:
    segment.refuse(lambda message: message["messageId"] == "m1")
    response = page.post("b", batch(*(event(messageId=f"m{number}") for number in range(4))))
    assert (response.status_code, response.json()) == (200, SUCCESS)
    assert ids(segment) == ["m0", "m2", "m3"]
    assert outcomes() == {"accepted": 3, "segment_refused": 1}


def test_batch_that_breaks_off_is_sent_again_as_a_whole(page: Sender, segment: LocalSegment) -> None:
    segment.answer_with(Answer())
    segment.answer_with(Answer(status=500))
    many = batch(*(event(messageId=f"m{number}", properties={"text": "x" * 24_000}) for number in range(20)))
    assert page.post("b", many).status_code == 503
    counted = outcomes()
    assert counted["accepted"] + counted["segment_down"] == 20
    assert counted["segment_down"] > 0

    assert page.post("b", many).json() == SUCCESS
    assert [received.message_id for received in segment.distinct] == [f"m{number}" for number in range(20)]


def test_segment_that_is_back_is_used_again(page: Sender, segment: LocalSegment) -> None:
    segment.stop()
    assert [page.post("t", single()).status_code for _ in range(3)] == [503] * 3
    segment.start()
    time.sleep(0.6)
    assert page.post("t", single()).json() == SUCCESS


# Beside the rest


def test_what_waits_from_before_is_flushed_all_the_same(segment: LocalSegment) -> None:
    with settings(API_HOST=segment.url, COLLECT="buffer"):
        Sender().post("t", single(messageId="before"))
    Sender().post("t", single(messageId="after"))
    assert flush().delivered == 1
    assert ids(segment) == ["after", "before"]


async def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello")


urlpatterns = [path("s/", include("segment_fallback.urls")), path("hello/", hello)]


@pytest.mark.django_db(transaction=True)
def test_loop_serves_others_while_segment_is_silent(segment: LocalSegment) -> None:
    segment.answer_with(Answer.slow(1.0))
    ended: list[str] = []

    async def ask(application: ASGIHandler, method: str, url: str, body: bytes = b"") -> None:
        headers = {**PAGE_HEADERS, "host": "testserver", "content-type": "text/plain"}
        scope = {
            "type": "http", "method": method, "path": url, "query_string": b"", "http_version": "1.1",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }  # fmt: skip
        connection = cast(Any, ApplicationCommunicator)(application, scope)
        await connection.send_input({"type": "http.request", "body": body})
        start = await connection.receive_output(timeout=5)
        assert start["status"] == 200
        await connection.wait(timeout=5)
        ended.append(url)

    async def both() -> None:
        application = ASGIHandler()
        event = asyncio.create_task(ask(application, "POST", url_of("t"), json.dumps(single()).encode()))
        while not segment.requests:
            await asyncio.sleep(0.01)
        await ask(application, "GET", "/hello/")
        await event

    with settings(API_HOST=segment.url, SEND_TIMEOUT=5), override_settings(ROOT_URLCONF=__name__):
        asyncio.run(both())
    assert ended == ["/hello/", f"/s/{endpoint_names()[0]}/e/t"]
    assert ids(segment) == ["ajs-next-1"]
