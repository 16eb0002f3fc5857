"""The endpoint to which a page reports the calls that analytics.js could not make."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import AsyncClient, Client, override_settings

from segment_fallback.models import OutcomeCount, WaitingMessage
from segment_fallback.names import public_key
from tests.intake.posts import BPC, PAGE_HEADERS, WRITE_KEY, Sender, call, calls
from tests.intake.visits import outcomes, waiting

pytestmark = pytest.mark.django_db


def settings(**more: Any) -> override_settings:
    base = {"WRITE_KEY": WRITE_KEY, "OUTCOME_INTERVAL": 0, "SPOOL": "spool"}
    return override_settings(DEBUG=True, SEGMENT_FALLBACK={**base, **more})


@pytest.fixture(autouse=True)
def debug() -> Iterator[None]:
    with settings():
        yield


@pytest.fixture(params=["sync", "async"])
def page(request: pytest.FixtureRequest) -> Sender:
    return Sender(Client() if request.param == "sync" else AsyncClient())


def test_call_becomes_the_event_that_analytics_js_sends(page: Sender) -> None:
    buffered = {**BPC, "s": "?utm_source=news", "u": "http://testserver/shop/?utm_source=news#top", "r": "http://a.b/"}
    made = call("track", "Bought", {"price": 9.5}, {"context": {"x": 1}}, None, age=60_000, page=buffered)
    response = page.post("q", calls(made, z="Europe/Berlin"))

    assert (response.status_code, response.content) == (204, b"")
    assert response["Cache-Control"] == "private, no-cache"
    [event] = waiting()
    moment = datetime.fromisoformat(event.pop("timestamp").replace("Z", "+00:00"))
    assert 59 < (datetime.now(timezone.utc) - moment).total_seconds() < 65
    assert event.pop("anonymousId") == response.cookies["ajs_anonymous_id"].value
    assert event == {
        "type": "track",
        "event": "Bought",
        "messageId": "0a" * 16,
        "userId": None,
        "properties": {"price": 9.5},
        "integrations": {},
        "context": {
            "x": 1,
            "page": {
                "path": "/shop/",
                "referrer": "http://a.b/",
                "search": "?utm_source=news",
                "title": "A shop",
                "url": "http://testserver/shop/?utm_source=news",
            },
            "userAgent": PAGE_HEADERS["user-agent"],
            "locale": "en-GB",
            "timezone": "Europe/Berlin",
            "campaign": {"source": "news"},
            "ip": "127.0.0.1",
            "library": {"name": "django-segment-fallback", "version": "0.1.0", "way": "call"},
        },
    }
    assert list(OutcomeCount.objects.values_list("way", "outcome", "count")) == [("call", "accepted", 1)]
    row = WaitingMessage.objects.get()
    assert (row.way, row.provisional, row.not_before) == ("call", False, 0)


@pytest.mark.parametrize("key", [lambda: WRITE_KEY, public_key])
def test_key_may_be_the_one_that_the_page_has(page: Sender, key: Any) -> None:
    page.post("q", {"k": key(), "c": [call("track", "A")]})
    assert outcomes() == {"accepted": 1}


def test_calls_of_every_kind_arrive_once_each(page: Sender) -> None:
    methods = ["track", "identify", "group", "page", "screen"]
    body = calls(*(call(method, "A", message_id=method) for method in methods))
    for _ in range(2):
        page.post("q", body)
    assert [event["messageId"] for event in waiting()] == methods
    assert outcomes() == {"accepted": 10}


def test_page_call_has_the_properties_of_the_page(page: Sender) -> None:
    page.post("q", calls(call("page", "Shop", "Product", {"sku": "A-1", "title": "Mine"})))
    [event] = waiting()
    own = {"path": "/shop/", "referrer": "", "search": "?a=1", "title": "Mine", "url": "http://testserver/shop/?a=1"}
    assert event["properties"] == {**own, "sku": "A-1", "category": "Shop", "name": "Product"}
    assert event["context"]["page"] == own


def test_user_of_a_call_is_the_one_who_is_signed_in(page: Sender) -> None:
    page.post("q", calls(call("identify", "someone", {"plan": "gold"}, {"userId": "someone", "ip": "6.6.6.6"})))
    client, ada = Client(), User.objects.create_user("ada")
    client.force_login(ada)
    Sender(client).post("q", calls(call("identify", "someone", message_id="2")))
    with settings(TRUST_CLIENT_USER_ID=True):
        page.post("q", calls(call("identify", "someone", message_id="3")))

    assert [event["userId"] for event in waiting()] == [None, str(ada.pk), "someone"]
    assert waiting()[0]["context"]["ip"] == "127.0.0.1"
    assert waiting()[0]["traits"] == {"plan": "gold"}


def test_options_may_name_the_message(page: Sender) -> None:
    page.post("q", calls(call("track", "A", {}, {"messageId": "own", "timestamp": "2026-01-01T00:00:00Z"})))
    assert waiting()[0]["messageId"] == "own"


FAULTS: list[tuple[str, Any, str]] = [
    ("no list", {"a": 1}, "malformed"),
    ("short", ["m", 0], "malformed"),
    ("no id", [None, 0, ["track", "A", BPC]], "malformed"),
    ("no age", ["m", None, ["track", "A", BPC]], "malformed"),
    ("true as age", ["m", True, ["track", "A", BPC]], "malformed"),
    ("no call", ["m", 0, []], "malformed"),
    ("no arguments", ["m", 0, ["track"]], "malformed"),
    ("no page", ["m", 0, ["track", "A"]], "invalid"),
    ("other method", call("reset"), "invalid"),
    ("no event name", call("track"), "invalid"),
    ("alias", call("alias", "someone"), "identity"),
    ("page of another site", call("track", "A", page={**BPC, "u": "https://evil.example/"}), "host"),
    ("page that is none", call("track", "A", page={**BPC, "u": "javascript:alert(1)"}), "host"),
    ("large", call("track", "A", {"x": "x" * 33_000}), "size"),
    ("deep", call("track", "A", {"x": [[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]}), "malformed"),
]


@pytest.mark.parametrize(("fault", "outcome"), [case[1:] for case in FAULTS], ids=[case[0] for case in FAULTS])
def test_bad_call_is_refused_and_takes_no_other_with_it(page: Sender, fault: Any, outcome: str) -> None:
    response = page.post("q", calls(call("track", "A"), fault))
    assert response.status_code == 204
    assert [event["messageId"] for event in waiting()] == ["0a" * 16]
    assert outcomes() == {"accepted": 1, outcome: 1}


BODIES: list[tuple[str, Any, str]] = [
    ("no calls", {}, "malformed"),
    ("none", {"c": []}, "malformed"),
    ("an object", {"c": {}}, "malformed"),
    ("too many", {"c": [call("track", "A")] * 101}, "size"),
    ("large", {"c": [call("track", "A", {"x": "x" * 1_000})] * 99}, "size"),
]


@pytest.mark.parametrize(("body", "outcome"), [case[1:] for case in BODIES], ids=[case[0] for case in BODIES])
def test_odd_report_is_refused(page: Sender, body: Any, outcome: str) -> None:
    assert page.post("q", {"k": public_key(), **body}).status_code == 204
    assert (waiting(), outcomes()) == ([], {outcome: 1})


@pytest.mark.parametrize(
    ("age", "expected"), [(-5_000, 0), (0, 0), (10**30, 30 * 86_400), (90 * 86_400_000, 30 * 86_400)]
)
def test_age_is_kept_within_its_bounds(page: Sender, age: int, expected: int) -> None:
    page.post("q", calls(call("track", "A", age=age)))
    moment = datetime.fromisoformat(waiting()[0]["timestamp"].replace("Z", "+00:00"))
    assert (datetime.now(timezone.utc) - moment).total_seconds() == pytest.approx(expected, abs=10)


@pytest.mark.parametrize("key", [public_key, lambda: WRITE_KEY])
def test_only_a_page_reports_calls(key: Any) -> None:
    Sender(headers={}).post("q", {"k": key(), "c": [call("track", "A")]})
    assert (waiting(), outcomes()) == ([], {"referer_missing": 1})
