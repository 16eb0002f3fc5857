from __future__ import annotations

import json
import logging
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.http import HttpRequest
from django.test import Client, override_settings
from django.urls import reverse

from segment_fallback.buffers.accept import acceptance
from segment_fallback.conf import DAY
from segment_fallback.intake.pixel import GIF
from segment_fallback.models import WaitingMessage
from segment_fallback.names import endpoint_names
from segment_fallback.outcome import Outcome
from segment_fallback.page import token
from tests.intake.visits import Visit, encode, outcomes, waiting

pytestmark = pytest.mark.django_db


def settings(**more: Any) -> override_settings:
    base = {"WRITE_KEY": "tests-write-key", "OUTCOME_INTERVAL": 0, "SPOOL": "spool"}
    return override_settings(DEBUG=True, SEGMENT_FALLBACK={**base, **more})


@pytest.fixture(autouse=True)
def debug() -> Iterator[None]:
    with settings():
        yield


def test_image_is_the_transparent_gif_of_43_bytes() -> None:
    assert len(GIF) == 43
    assert GIF[:6] == b"GIF89a"
    assert struct.unpack("<HH", GIF[6:10]) == (1, 1)
    assert GIF[-1:] == b";"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_visit_is_accepted_and_waits_in_the_buffer(method: str) -> None:
    response = Visit(method=method).send()

    assert (response.status_code, response.content) == (200, GIF)
    assert response["Content-Type"] == "image/gif"
    assert response["Cache-Control"] == "private, no-store"
    assert response["X-Segment-Fallback"] == "accepted"
    assert outcomes() == {"accepted": 1}
    assert len(waiting()) == 1


def test_event_has_the_fields_that_analytics_js_sends() -> None:
    visit = Visit(
        path="/shop/köln/",
        name="Product",
        category="Shop",
        properties={"sku": "A-1", "price": 9.5},
        search="?utm_source=news&utm_campaign=May%20sale&x=1",
        title="A “shop” </script>",
        referrer="https://search.example/?q=shoes",
        referer="http://testserver/shop/k%C3%B6ln/?utm_source=news&utm_campaign=May%20sale&x=1",
    )
    visit.send()

    [event] = waiting()
    page = {
        "path": "/shop/k%C3%B6ln/",
        "referrer": "https://search.example/?q=shoes",
        "search": "?utm_source=news&utm_campaign=May%20sale&x=1",
        "title": "A “shop” </script>",
        "url": "http://testserver/shop/k%C3%B6ln/?utm_source=news&utm_campaign=May%20sale&x=1",
    }
    assert event.pop("timestamp").endswith("Z")
    assert event.pop("anonymousId")
    assert event == {
        "type": "page",
        "messageId": visit.message_id,
        "name": "Product",
        "category": "Shop",
        "userId": None,
        "properties": {**page, "name": "Product", "category": "Shop", "sku": "A-1", "price": 9.5},
        "context": {
            "page": page,
            "userAgent": "Mozilla/5.0 (X11; Linux x86_64) Chrome/156.0.0.0",
            "userAgentData": {
                "brands": [{"brand": "Chromium", "version": "156"}, {"brand": "Not A;Brand", "version": "24"}],
                "mobile": False,
                "platform": "Linux",
            },
            "locale": "en-GB",
            "timezone": "Europe/Berlin",
            "campaign": {"source": "news", "name": "May sale"},
            "ip": "127.0.0.1",
            "library": {"name": "django-segment-fallback", "version": "0.1.0", "way": "pixel"},
        },
    }


def test_noscript_event_takes_the_query_string_from_the_referer() -> None:
    Visit(script=False, referer="http://testserver/shop/?utm_medium=mail").send()

    [event] = waiting()
    assert event["properties"]["url"] == "http://testserver/shop/?utm_medium=mail"
    assert event["context"]["campaign"] == {"medium": "mail"}
    assert event["context"]["library"]["way"] == "noscript"
    assert event["properties"]["title"] == ""


def test_noscript_events_have_ids_of_their_own() -> None:
    client = Client()
    for _ in range(3):
        Visit(script=False, client=client).send()

    assert len({event["messageId"] for event in waiting()}) == 3
    assert len({event["anonymousId"] for event in waiting()}) == 1


def test_same_message_id_twice_is_one_event() -> None:
    first = Visit(title="first")
    first.send()
    Visit(title="second", message_id=first.message_id).send()

    [event] = waiting()
    assert event["properties"]["title"] == "first"
    assert outcomes() == {"accepted": 2}


def test_properties_of_the_page_call_override_those_of_the_page() -> None:
    Visit(properties={"title": "Chosen", "url": "https://shop.example/chosen"}).send()

    [event] = waiting()
    assert event["properties"]["title"] == event["context"]["page"]["title"] == "Chosen"
    assert event["context"]["page"]["url"] == "https://shop.example/chosen"


@pytest.mark.parametrize(
    ("canonical", "path", "url"),
    [
        ("https://shop.example/c/", "/c/", "https://shop.example/c/?a=1"),
        ("https://shop.example/c?b=2", "/c", "https://shop.example/c?b=2"),
        ("https://shop.example", "/", "https://shop.example?a=1"),
        ("/relative/", "/relative/", "/relative/?a=1"),
        ("bare", "/bare", "bare?a=1"),
    ],
)
def test_canonical_link_names_path_and_url(canonical: str, path: str, url: str) -> None:
    Visit(canonical=canonical, search="?a=1").send()

    [event] = waiting()
    assert (event["properties"]["path"], event["properties"]["url"]) == (path, url)


def test_user_id_comes_from_djangos_auth() -> None:
    client, user = Client(), User.objects.create_user("ada")
    client.force_login(user)
    Visit(client=client).send()

    assert waiting()[0]["userId"] == str(user.pk)


def email(user: User) -> str:
    return user.email


def test_user_id_is_what_the_sites_function_says() -> None:
    client = Client()
    client.force_login(User.objects.create_user("ada", email="ada@shop.example"))
    with settings(USER_ID="tests.intake.test_pixel.email"):
        Visit(client=client).send()

    assert waiting()[0]["userId"] == "ada@shop.example"


@pytest.mark.parametrize("query", ["?userId=1", "?ajs_uid=1", "?uid=1&anonymousId=1"])
def test_user_id_never_comes_from_the_url(query: str) -> None:
    client = Client()
    client.cookies["ajs_user_id"] = "1"
    Visit(client=client, search=query).send()

    assert waiting()[0]["userId"] is None


@pytest.mark.parametrize("cookie", ["a-visitor", "%22a-visitor%22"])
def test_anonymous_id_is_that_of_analytics_js(cookie: str) -> None:
    client = Client()
    client.cookies["ajs_anonymous_id"] = cookie
    response = Visit(client=client).send()

    assert waiting()[0]["anonymousId"] == "a-visitor"
    assert "ajs_anonymous_id" not in response.cookies


@pytest.mark.parametrize("cookie", ["", "a b", "x" * 101, "%22", "<script>", "{}"])
def test_anonymous_id_of_odd_form_is_replaced(cookie: str) -> None:
    client = Client()
    client.cookies["ajs_anonymous_id"] = cookie
    response = Visit(client=client).send()

    assert waiting()[0]["anonymousId"] == response.cookies["ajs_anonymous_id"].value != cookie


def test_new_anonymous_id_is_kept_as_analytics_js_keeps_its_own() -> None:
    with settings(COOKIE_DOMAIN="shop.example"):
        cookie = Visit(headers={"wsgi.url_scheme": "https"}, referer="https://testserver/shop/").send().cookies

    morsel = cookie["ajs_anonymous_id"]
    assert (morsel["domain"], morsel["path"], morsel["samesite"]) == ("shop.example", "/", "Lax")
    assert (morsel["max-age"], morsel["httponly"], morsel["secure"]) == (365 * DAY, "", True)


def test_cookie_is_not_set_by_a_refused_hit() -> None:
    assert not Visit(token="forged").send().cookies


# Refusals: each has its reason, is counted, writes nothing, and answers the same image.


NOTHING = encode(0)


def signed(**parts: Any) -> str:
    return token.sign(token.Page(**{"path": "/shop/", **parts}))


CROSS = {"HTTP_SEC_FETCH_SITE": "cross-site"}
SILENT = {"HTTP_SEC_FETCH_SITE": ""}
REFUSED = [
    ("head", Visit(method="HEAD"), Outcome.METHOD),
    ("put", Visit(method="PUT"), Outcome.METHOD),
    ("delete", Visit(method="DELETE"), Outcome.METHOD),
    ("options", Visit(method="OPTIONS"), Outcome.METHOD),
    ("long url", Visit(data="A" * 8_100), Outcome.SIZE),
    ("no base64", Visit(data="A"), Outcome.MALFORMED),
    ("no text", Visit(data=encode("x")), Outcome.MALFORMED),
    ("no age", Visit(data=encode("", "Europe/Berlin")), Outcome.MALFORMED),
    ("age in other digits", Visit(data=encode("\u0661")), Outcome.MALFORMED),
    ("age of a kilometre", Visit(data=encode("1" * 400)), Outcome.MALFORMED),
    ("from the future", Visit(age=-1), Outcome.MALFORMED),
    ("of last month", Visit(age=30 * DAY * 1000), Outcome.MALFORMED),
    ("another page, which nobody allowed", Visit(more='["/other/",null,null,null]'), Outcome.MALFORMED),
    ("message id short", Visit(message_id="abc"), Outcome.MALFORMED),
    ("message id of others", Visit(message_id="ajs-next-1"), Outcome.MALFORMED),
    ("token empty", Visit(token=""), Outcome.TOKEN_MISSING),
    ("token forged", Visit(token="WzFd:forged"), Outcome.TOKEN_INVALID),
    ("token tampered", Visit(token="A" + signed()), Outcome.TOKEN_INVALID),
    ("token huge", Visit(token="A" * 3_000), Outcome.TOKEN_INVALID),
    ("cross-site", Visit(headers=CROSS), Outcome.CROSS_SITE),
    ("same-site", Visit(headers={"HTTP_SEC_FETCH_SITE": "same-site"}), Outcome.CROSS_SITE),
    ("typed in", Visit(headers={"HTTP_SEC_FETCH_SITE": "none"}), Outcome.CROSS_SITE),
    ("empty fetch site", Visit(headers=SILENT), Outcome.CROSS_SITE),
    ("other host", Visit(referer="http://evil.example/shop/"), Outcome.HOST),
    ("look-alike host", Visit(referer="http://shop.example.evil.example/shop/"), Outcome.HOST),
    ("credentials", Visit(referer="http://testserver@evil.example/shop/"), Outcome.HOST),
    ("other page", Visit(script=False, referer="http://testserver/other/"), Outcome.REFERER_MISMATCH),
    ("other case", Visit(script=False, referer="http://testserver/SHOP/"), Outcome.REFERER_MISMATCH),
    ("other page, markup", Visit(cookie=False, referer="http://testserver/other/"), Outcome.REFERER_MISMATCH),
    ("home page, markup", Visit(cookie=False, referer="http://testserver/"), Outcome.REFERER_MISSING),
    ("noscript without referer", Visit(script=False, referer=None), Outcome.REFERER_MISSING),
    ("noscript with origin only", Visit(script=False, referer="http://testserver/"), Outcome.REFERER_MISSING),
    ("odd referer", Visit(script=False, referer="http://[broken/"), Outcome.REFERER_MISSING),
    ("file referer", Visit(script=False, referer="file:///shop/"), Outcome.REFERER_MISSING),
    ("prefetch", Visit(headers={"HTTP_SEC_PURPOSE": "prefetch"}), Outcome.PREFETCH),
    ("prerender", Visit(headers={"HTTP_SEC_PURPOSE": "prefetch;prerender"}), Outcome.PREFETCH),
    ("gpc", Visit(headers={"HTTP_SEC_GPC": "1"}), Outcome.GPC),
    ("dnt", Visit(headers={"HTTP_DNT": "1"}), Outcome.DNT),
    ("no consent", Visit(consent={"COOKIE": "c"}), Outcome.CONSENT),
    ("no consent, no script", Visit(consent={"COOKIE": "c"}, script=False), Outcome.CONSENT),
    ("other consent", Visit(consent={"COOKIE": "c", "VALUE": "yes"}, consents="yes,no"), Outcome.CONSENT),
    ("partial consent", Visit(consent={"COOKIE": "c", "CONTAINS": "C2:1"}, consents="C1:1"), Outcome.CONSENT),
    ("consent withdrawn", Visit(consent={"COOKIE": "c"}, consents=""), Outcome.CONSENT),
    ("host header", Visit(headers={"HTTP_HOST": "evil.example"}), Outcome.HOST),
]


@pytest.mark.parametrize(("visit", "outcome"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_refused(visit: Visit, outcome: Outcome) -> None:
    response = visit.send()

    assert waiting() == []
    assert outcomes() == {outcome.value: 1}
    assert response["X-Segment-Fallback"] == outcome.value
    assert response["Cache-Control"] == "private, no-store"
    assert response.content == (b"" if visit.method == "HEAD" else GIF)
    assert response.status_code == (405 if outcome is Outcome.METHOD and visit.method != "HEAD" else 200)


@pytest.mark.parametrize(
    ("consent", "consents"),
    [
        ({"COOKIE": "c"}, "0"),
        ({"COOKIE": "c", "VALUE": "yes, all"}, "yes%2C%20all"),
        ({"COOKIE": "c", "CONTAINS": "C2:1"}, "groups=C1%3A1%2CC2%3A1"),
        ({"CALLBACK": True}, None),
    ],
)
@pytest.mark.parametrize("script", [True, False])
def test_view_of_somebody_who_consents_is_accepted(consent: dict[str, Any], consents: str | None, script: bool) -> None:
    visit = Visit(consent=consent, consents=consents, script=script)
    assert visit.send()["X-Segment-Fallback"] == "accepted"


@pytest.mark.parametrize("referer", ["http://testserver/other/", "http://testserver/"])
@pytest.mark.parametrize("late", [Visit(age=1_001, cookie=False), Visit(age=0)], ids=["late", "by cookie"])
def test_view_that_another_page_sends_later_is_that_of_its_own_page(late: Visit, referer: str) -> None:
    assert replace(late, referer=referer, search="?a=1").send()["X-Segment-Fallback"] == "accepted"
    [event] = waiting()
    assert event["context"]["page"]["url"] == "http://testserver/shop/?a=1"


NAVIGATION = {"NAVIGATION": "auto"}


def test_page_that_was_navigated_to_is_reported_with_the_token_of_the_first() -> None:
    more = json.dumps(["/caf%C3%A9/", "Shop", "Café", {"sku": "A"}])
    with settings(**NAVIGATION):
        Visit(name="First", properties={"old": 1}, more=more, referer="http://testserver/caf%C3%A9/").send()
    [event] = waiting()
    assert (event["category"], event["name"]) == ("Shop", "Café")
    assert event["properties"]["sku"] == "A"
    assert "old" not in event["properties"]
    assert event["context"]["page"]["path"] == "/caf%C3%A9/"


@pytest.mark.parametrize(
    "more", ["[", "{}", "[]", '["a",null,null,null]', '["/a",1,null,null]', '["/a",null,null,[]]', "[" * 2_000]
)
def test_page_that_was_navigated_to_must_be_described(more: str) -> None:
    with settings(**NAVIGATION):
        assert Visit(more=more).send()["X-Segment-Fallback"] == "malformed"


def test_refused_for_a_token_older_than_its_age(monkeypatch: pytest.MonkeyPatch) -> None:
    old = signed()
    later = time.time() + 368 * DAY
    monkeypatch.setattr(time, "time", lambda: later)

    assert Visit(token=old).send()["X-Segment-Fallback"] == "token_expired"
    assert Visit().send()["X-Segment-Fallback"] == "accepted"


def test_token_of_a_cached_page_lives_as_long_as_caches_keep_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    old = signed()
    later = time.time() + 365 * DAY
    monkeypatch.setattr(time, "time", lambda: later)

    assert Visit(token=old).send()["X-Segment-Fallback"] == "accepted"


@override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["tests"])
def test_page_rendered_before_the_secret_was_rotated_still_reports() -> None:
    with override_settings(SECRET_KEY="tests", SECRET_KEY_FALLBACKS=[]):
        old_name, old_token = endpoint_names()[0], signed()
    client = Client()
    client.cookies[old_name] = old_token
    url = reverse("segment_fallback:pixel", args=[old_name, "0a" * 16, NOTHING])
    headers = {"referer": "http://testserver/shop/", "sec-fetch-site": "same-origin"}

    assert old_name != endpoint_names()[0]
    assert client.get(url, headers=headers)["X-Segment-Fallback"] == "accepted"


def test_name_of_another_site_is_not_found() -> None:
    url = reverse("segment_fallback:pixel", args=["zzzzzz", "0a" * 16, NOTHING])
    assert Client().get(url).status_code == 404


@pytest.mark.parametrize("referer", [None, "http://testserver/", "http://testserver"])
def test_trimmed_referer_is_decided_by_a_setting(referer: str | None) -> None:
    assert Visit(referer=referer).send()["X-Segment-Fallback"] == "accepted"
    assert (
        Visit(referer=referer, headers={"HTTP_SEC_FETCH_SITE": "cross-site"}).send()["X-Segment-Fallback"] != "accepted"
    )
    with settings(STRICT_REFERER=True):
        assert Visit(referer=referer).send()["X-Segment-Fallback"] == "referer_missing"
        assert Visit().send()["X-Segment-Fallback"] == "accepted"
    [first, _second] = waiting()
    assert first["properties"]["url"] == "http://testserver/shop/"


def test_token_in_the_url_stands_in_for_a_refused_cookie() -> None:
    url = reverse("segment_fallback:pixel", args=[endpoint_names()[0], "0a" * 16, NOTHING, signed()])
    headers = {"referer": "http://testserver/shop/", "sec-fetch-site": "same-origin"}
    assert Client().get(url, headers=headers)["X-Segment-Fallback"] == "accepted"
    headers.pop("referer")
    assert Client().get(url, headers=headers)["X-Segment-Fallback"] == "referer_missing"


def test_view_that_was_kept_has_the_time_at_which_it_was_seen() -> None:
    Visit(age=3_600_000).send()
    seen = datetime.fromisoformat(waiting()[0]["timestamp"].replace("Z", "+00:00"))
    assert timedelta(minutes=59) < datetime.now(timezone.utc) - seen < timedelta(minutes=61)


def test_browser_without_fetch_metadata_is_judged_by_its_referer() -> None:
    headers = {"referer": "http://testserver/shop/"}
    client, name = Client(), endpoint_names()[0]
    client.cookies[name] = signed()
    url = reverse("segment_fallback:pixel", args=[name, "0a" * 16, NOTHING])

    assert client.get(url, headers=headers)["X-Segment-Fallback"] == "accepted"
    assert client.get(url)["X-Segment-Fallback"] == "referer_missing"


def test_page_of_another_allowed_host_may_report() -> None:
    assert Visit(referer="https://shop.example/shop/").send()["X-Segment-Fallback"] == "accepted"
    with settings(ALLOWED_HOSTS=["other.example"]):
        assert Visit(referer="https://shop.example/shop/").send()["X-Segment-Fallback"] == "host"
        assert Visit(referer="https://other.example/shop/").send()["X-Segment-Fallback"] == "accepted"


@override_settings(ALLOWED_HOSTS=["*"])
def test_any_host_allowed_does_not_let_any_page_report() -> None:
    assert Visit(referer="https://evil.example/shop/").send()["X-Segment-Fallback"] == "host"
    assert Visit().send()["X-Segment-Fallback"] == "accepted"


def test_choices_are_not_asked_for_where_the_site_says_so() -> None:
    with settings(HONOUR_GPC=False, HONOUR_DNT=False):
        Visit(headers={"HTTP_SEC_GPC": "1", "HTTP_DNT": "1"}).send()
    assert outcomes() == {"accepted": 1}


def test_without_a_write_key_nothing_is_taken() -> None:
    with settings(WRITE_KEY=""):
        assert Visit().send()["X-Segment-Fallback"] == "disabled"
    assert waiting() == []


def test_event_goes_to_the_source_of_its_page() -> None:
    page = token.Page("/shop/", source="docs")
    with settings(SOURCES={"docs": {"WRITE_KEY": "docs-key"}}):
        Visit(token=token.sign(page)).send()
    assert WaitingMessage.objects.get().source == "docs"
    assert Visit(token=token.sign(page)).send()["X-Segment-Fallback"] == "disabled"


def test_event_that_grows_too_large_is_refused() -> None:
    # Compressed they fit the token.
    assert Visit(properties={"text": "x" * 40_000}).send()["X-Segment-Fallback"] == "size"


@override_settings(DEBUG=False)
def test_reason_is_shown_under_debug_only() -> None:
    assert "X-Segment-Fallback" not in Visit().send()
    assert "X-Segment-Fallback" not in Visit(token="forged").send()


@pytest.fixture
def broken_buffer(transactional_db: None) -> Iterator[None]:
    """The database has lost the buffer's table."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE segment_fallback_waitingmessage RENAME TO gone")
    yield
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE gone RENAME TO segment_fallback_waitingmessage")


@pytest.mark.usefixtures("broken_buffer")
def test_visit_is_accepted_into_the_spool_while_the_buffer_is_down() -> None:
    visit = Visit()
    assert visit.send()["X-Segment-Fallback"] == "accepted"
    [[message]] = acceptance.spool.drain()
    assert message.message_id == visit.message_id


@pytest.mark.usefixtures("broken_buffer")
def test_browser_is_asked_to_try_again_when_buffer_and_spool_are_down(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "spool").write_text("a file where the folder should be")
    storage = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": tmp_path / "spool"}}
    with override_settings(STORAGES={"spool": storage}):
        response = Visit(title="secret title").send()

    assert (response.status_code, response.content) == (503, b"")
    assert response["X-Segment-Fallback"] == "unavailable"
    assert response["Cache-Control"] == "private, no-store"
    assert "secret title" not in caplog.text
    assert "django.request" not in {record.name for record in caplog.records}, "the admins would get a mail for each"


@pytest.mark.usefixtures("broken_buffer")
def test_spool_at_its_cap_refuses_the_newest_hit() -> None:
    with settings(SPOOL_MAX_BYTES=1_500):
        responses = [Visit().send() for _ in range(3)]

    assert [response["X-Segment-Fallback"] for response in responses] == ["accepted", "spool_full", "spool_full"]
    assert [response.status_code for response in responses] == [200, 503, 503]
    assert outcomes() == {"accepted": 1, "spool_full": 2}


def failing(user: User) -> str:
    raise RuntimeError("a site's own function failed")


def test_failure_of_the_sites_own_function_is_logged_and_asks_to_try_again(caplog: pytest.LogCaptureFixture) -> None:
    client = Client()
    client.force_login(User.objects.create_user("ada"))
    with settings(USER_ID="tests.intake.test_pixel.failing"), caplog.at_level(logging.ERROR):
        assert Visit(client=client).send().status_code == 503
    assert "a site's own function failed" in caplog.text


def test_csrf_is_not_asked_for() -> None:
    client = Client(enforce_csrf_checks=True)
    assert Visit(client=client, method="POST").send()["X-Segment-Fallback"] == "accepted"


def test_session_is_not_written_nor_sent() -> None:
    client = Client()
    client.force_login(User.objects.create_user("ada"))
    response = Visit(client=client).send()

    assert "sessionid" not in response.cookies
    assert not response.has_header("Vary")


def test_every_outcome_is_explained() -> None:
    assert all(len(outcome.explanation) > 20 for outcome in Outcome)
    assert [o for o in Outcome if not o.refused] == [Outcome.ACCEPTED]


def test_request_object_is_not_kept() -> None:
    """The view takes what it needs: a beacon's body, however large, is never read."""
    name = endpoint_names()[0]

    class Exploding(HttpRequest):
        @property
        def body(self) -> bytes:
            raise AssertionError("the body was read")

    from segment_fallback.intake.pixel import noscript

    request = Exploding()
    request.method = "POST"
    request.META = {"HTTP_REFERER": "http://testserver/shop/", "HTTP_HOST": "testserver", "REMOTE_ADDR": "::1"}
    request.path = request.path_info = "/x"
    assert noscript(request, name, signed()).status_code == 200
    assert outcomes() == {"accepted": 1}
