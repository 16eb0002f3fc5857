from __future__ import annotations

import gzip
import io
import json
import logging
import time
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.handlers.wsgi import WSGIHandler
from django.db import connection
from django.test import AsyncClient, Client, RequestFactory, override_settings

from segment_fallback.buffers.accept import acceptance
from segment_fallback.intake.body import read_json
from segment_fallback.intake.collect import KINDS
from segment_fallback.message import normalise
from segment_fallback.models import OutcomeCount, WaitingMessage
from segment_fallback.names import endpoint_names, id_cookies, public_key
from segment_fallback.outcome import Outcome, Refused
from tests.intake.posts import PAGE_HEADERS, WRITE_KEY, Sender, basic, batch, call, calls, event, single, url_of
from tests.intake.visits import Visit, outcomes, waiting

pytestmark = pytest.mark.django_db

SUCCESS = {"success": True}


def settings(**more: Any) -> override_settings:
    base = {"WRITE_KEY": WRITE_KEY, "OUTCOME_INTERVAL": 0, "SPOOL": "spool", "FIRST_PARTY": True}
    return override_settings(DEBUG=True, SEGMENT_FALLBACK={**base, **more})


@pytest.fixture(autouse=True)
def first_party() -> Iterator[None]:
    with settings():
        yield


@pytest.fixture(params=["sync", "async"])
def page(request: pytest.FixtureRequest) -> Sender:
    """A page of the site's, by WSGI's handler and by ASGI's."""
    return Sender(Client() if request.param == "sync" else AsyncClient())


@pytest.fixture
def server() -> Sender:
    """A library on a server: nothing of a browser's."""
    return Sender(headers={"user-agent": "analytics-python/2.4.0"})


def stored() -> dict[str, Any]:
    [message] = waiting()
    return message


# What is taken


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "text/plain; charset=utf-16", "TEXT/PLAIN"])
def test_event_of_analytics_js_waits_in_the_buffer(page: Sender, content_type: str) -> None:
    sent = {
        "timestamp": "2026-11-21T10:00:00.000Z",
        "integrations": {"All": True},
        "type": "page",
        "properties": {"path": "/shop/", "title": "A shop “ü” </script>"},
        "name": "Product",
        "context": {
            "page": {"path": "/shop/"},
            "userAgent": "forged",
            "locale": "en-GB",
            "library": {"name": "analytics.js", "version": "next-1.84.3"},
            "ip": "6.6.6.6",
        },
        "messageId": "ajs-next-1700000000000-4c1f",
        "anonymousId": "visitor",
        "userId": None,
        "writeKey": public_key(),
        "sentAt": "2026-11-21T10:00:00.100Z",
        "_metadata": {"bundled": ["Segment.io"], "unbundled": [], "bundledIds": []},
    }
    response = page.post("p", sent, content_type=content_type, authorization=basic(public_key()))

    assert (response.status_code, response.json()) == (200, SUCCESS)
    assert response["Content-Type"] == "application/json"
    assert response["Cache-Control"] == "private, no-cache"
    assert response["X-Segment-Fallback"] == "accepted"
    message = stored()
    assert message.pop("timestamp").startswith(datetime.now(timezone.utc).strftime("%Y-%m-%d"))
    assert message == {
        "type": "page",
        "messageId": "ajs-next-1700000000000-4c1f",
        "name": "Product",
        "anonymousId": "visitor",
        "userId": None,
        "properties": sent["properties"],
        "integrations": {"All": True},
        "_metadata": sent["_metadata"],
        "context": {
            "page": {"path": "/shop/"},
            "userAgent": PAGE_HEADERS["user-agent"],
            "locale": "en-GB",
            "library": {"name": "analytics.js", "version": "next-1.84.3"},
            "ip": "127.0.0.1",
        },
    }
    assert OutcomeCount.objects.get().way == WaitingMessage.objects.get().way == "javascript"


@pytest.mark.parametrize("kind", [key for key, kind in KINDS.items() if kind])
def test_every_type_has_its_short_and_its_long_url(kind: str) -> None:
    type_ = KINDS[kind]
    body = {"writeKey": public_key(), "messageId": "m", "event": "Bought", "groupId": "g", "anonymousId": "v"}
    if type_ == "alias":
        body["userId"] = "u"
        with settings(TRUST_CLIENT_USER_ID=True):
            Sender().post(kind, body)
    else:
        Sender().post(kind, {**body, "type": type_})
    assert stored()["type"] == type_


@pytest.mark.parametrize("kind", ["b", "batch"])
def test_batch_is_written_at_once_and_counted_by_event(page: Sender, kind: str) -> None:
    response = page.post(kind, batch(*(event(messageId=f"m{number}") for number in range(50))))
    assert (response.status_code, response.json()) == (200, SUCCESS)
    assert [message["messageId"] for message in waiting()] == [f"m{number}" for number in range(50)]
    assert outcomes() == {"accepted": 50}


def test_key_may_come_by_basic_auth_alone(page: Sender) -> None:
    assert page.post("t", event(), authorization=basic(public_key())).status_code == 200


def test_event_goes_to_the_source_of_its_key(page: Sender) -> None:
    with settings(SOURCES={"docs": {"WRITE_KEY": "docs-key"}}):
        page.post("t", {**event(), "writeKey": public_key("docs")})
    assert WaitingMessage.objects.get().source == "docs"


def test_unknown_fields_are_dropped(page: Sender) -> None:
    page.post("t", single(receivedAt="x", projectId="p", version=2, evil={"a": 1}, channel="web", category=None))
    assert stored().keys() == {
        "type", "event", "messageId", "anonymousId", "userId", "channel", "context", "timestamp",
    }  # fmt: skip


@pytest.mark.parametrize("message_id", ["", "x" * 100, "a b", "é", 5, None, ["m"], "a\n"])
def test_message_id_of_odd_form_is_replaced(page: Sender, message_id: Any) -> None:
    page.post("t", single(messageId=message_id))
    assert len(stored()["messageId"]) == 32


def test_same_event_twice_is_one(page: Sender) -> None:
    for _ in range(2):
        page.post("t", single())
    assert stored()["messageId"] == "ajs-next-1"
    assert outcomes() == {"accepted": 2}


def test_event_takes_the_place_of_the_pixels_and_not_the_other_way_round(page: Sender) -> None:
    first, second = Visit(), Visit()
    first.send()
    for visit in (first, second):
        page.post("p", {"type": "page", "messageId": visit.message_id, "writeKey": public_key(), "name": "By script"})
    second.send()

    assert [message["name"] for message in waiting()] == ["By script"] * 2
    assert set(WaitingMessage.objects.values_list("way", "provisional", "not_before")) == {("javascript", False, 0)}


def test_odd_text_and_numbers_survive_or_are_refused_by_name(page: Sender) -> None:
    body = (
        '{"writeKey": "KEY", "batch": ['
        '{"type": "track", "event": "a", "properties": {"x": "\\ud800", "x2": 1, "x2": 2}},'
        '{"type": "track", "event": "b", "properties": {"x": 999}},'
        '{"type": "track", "event": "c", "properties": {"x": -1e999}}'
        "]}"
    )
    body = body.replace("KEY", public_key()).replace(" 999", "9" * 5_000)
    assert page.post("b", body.encode()).status_code == 200
    assert [message["properties"] for message in waiting()] == [{"x": "?", "x2": 2}, {"x": None}]
    assert outcomes() == {"accepted": 2, "invalid": 1}


def test_metrics_of_the_library_are_answered_and_dropped(page: Sender) -> None:
    response = page.post("m", {"series": [{"type": "Counter"}]})
    assert (response.status_code, response.json()) == (200, SUCCESS)
    assert (waiting(), outcomes()) == ([], {})


# Packed bodies


def test_body_may_be_packed_by_gzip(server: Sender) -> None:
    body = gzip.compress(json.dumps({"writeKey": WRITE_KEY, "batch": [event()]}).encode())
    assert server.post("batch", body, content_type="application/json", content_encoding="gzip").status_code == 200
    assert stored()["event"] == "Bought"


PACKED = [
    ("bomb", gzip.compress(b" " * 50_000_000), "size"),
    ("cut", gzip.compress(b"{}" * 100)[:-9], "malformed"),
    ("none", b"{}", "malformed"),
    ("empty", gzip.compress(b""), "malformed"),
]


@pytest.mark.parametrize(("body", "outcome"), [case[1:] for case in PACKED], ids=[case[0] for case in PACKED])
def test_odd_packed_body_is_refused(server: Sender, body: bytes, outcome: str) -> None:
    response = server.post("batch", body, content_encoding="gzip", authorization=basic(WRITE_KEY))
    assert response.json() == {"success": False, "reason": outcome}
    assert outcomes() == {outcome: 1}


# Refusals: each has its reason and its status, is counted, and writes nothing


DEEP = b"[" * 100_000
REQUESTS: list[tuple[str, dict[str, Any], Outcome, int]] = [
    ("get", {"method": "GET"}, Outcome.METHOD, 405),
    ("head", {"method": "HEAD"}, Outcome.METHOD, 405),
    ("put", {"method": "PUT"}, Outcome.METHOD, 405),
    ("a form", {"content_type": "application/x-www-form-urlencoded"}, Outcome.CONTENT_TYPE, 415),
    ("a file", {"content_type": "multipart/form-data; boundary=x"}, Outcome.CONTENT_TYPE, 415),
    ("html", {"content_type": "text/html"}, Outcome.CONTENT_TYPE, 415),
    ("no type", {"content_type": ""}, Outcome.CONTENT_TYPE, 415),
    ("brotli", {"content_encoding": "br"}, Outcome.CONTENT_TYPE, 415),
    ("too much", {"body": b" " * 500_001}, Outcome.SIZE, 413),
    ("empty", {"body": b" "}, Outcome.MALFORMED, 400),
    ("no json", {"body": b"{"}, Outcome.MALFORMED, 400),
    ("no utf-8", {"body": b'{"a": "\xff"}'}, Outcome.MALFORMED, 400),
    ("utf-16", {"body": "{}".encode("utf-16")}, Outcome.MALFORMED, 400),
    ("nan", {"body": b'{"a": NaN}'}, Outcome.MALFORMED, 400),
    ("infinity", {"body": b'{"a": -Infinity}'}, Outcome.MALFORMED, 400),
    ("a list", {"body": b"[]"}, Outcome.MALFORMED, 400),
    ("a text", {"body": b'"x"'}, Outcome.MALFORMED, 400),
    ("digits", {"body": b"9" * 5_000}, Outcome.MALFORMED, 400),
    ("deep", {"body": DEEP}, Outcome.MALFORMED, 400),
    ("deep objects", {"body": b'{"a":' * 20_000}, Outcome.MALFORMED, 400),
    ("no key", {"body": b"{}"}, Outcome.WRITE_KEY, 403),
    ("unknown key", {"body": b'{"writeKey": "x", "k": "x"}'}, Outcome.WRITE_KEY, 403),
    ("a number as key", {"body": b'{"writeKey": 5, "k": 5}'}, Outcome.WRITE_KEY, 403),
    ("an odd key", {"body": b'{"writeKey": "\\ud800", "k": "\\ud800"}'}, Outcome.WRITE_KEY, 403),
    ("other host", {"host": "evil.example"}, Outcome.HOST, 403),
    ("other origin", {"origin": "https://evil.example"}, Outcome.HOST, 403),
    ("other referer", {"referer": "https://evil.example/"}, Outcome.HOST, 403),
    ("look-alike", {"origin": "https://shop.example.evil.example"}, Outcome.HOST, 403),
    ("credentials", {"referer": "http://testserver@evil.example/"}, Outcome.HOST, 403),
    ("cross-site", {"sec_fetch_site": "cross-site"}, Outcome.CROSS_SITE, 403),
    ("typed in", {"sec_fetch_site": "none"}, Outcome.CROSS_SITE, 403),
    ("odd site", {"sec_fetch_site": ""}, Outcome.CROSS_SITE, 403),
    ("a frame", {"sec_fetch_site": "cross-site", "origin": "null"}, Outcome.CROSS_SITE, 403),
    ("an old browser's frame", {"sec_fetch_site": None, "origin": "null"}, Outcome.REFERER_MISSING, 403),
    ("odd origin", {"sec_fetch_site": "same-site", "origin": "http://[x"}, Outcome.REFERER_MISSING, 403),
    ("an extension", {"sec_fetch_site": None, "origin": "chrome-extension://abc"}, Outcome.REFERER_MISSING, 403),
    ("neighbour without origin", {"sec_fetch_site": "same-site", "origin": None, "referer": None},
     Outcome.REFERER_MISSING, 403),
    ("prefetch", {"sec_purpose": "prefetch;prerender"}, Outcome.PREFETCH, 403),
    ("gpc", {"sec_gpc": "1"}, Outcome.GPC, 403),
    ("dnt", {"dnt": "1"}, Outcome.DNT, 403),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["t", "page", "b", "batch", "q"])
@pytest.mark.parametrize(
    ("change", "outcome", "status"), [case[1:] for case in REQUESTS], ids=[case[0] for case in REQUESTS]
)
def test_refused_request(page: Sender, kind: str, change: dict[str, Any], outcome: Outcome, status: int) -> None:
    good = {"t": single(), "page": single(type="page"), "q": calls(call("track", "A"))}.get(kind, batch(event()))
    response = page.post(kind, **{"body": good, **change})

    assert waiting() == []
    assert outcomes() == {outcome.value: 1}
    assert response["X-Segment-Fallback"] == outcome.value
    assert response["Cache-Control"] == "private, no-store"
    assert not response.cookies
    if kind == "q":
        assert (response.status_code, response.content) == (405 if outcome is Outcome.METHOD else 204, b"")
    else:
        assert response.status_code == status
        assert change.get("method") == "HEAD" or response.json() == {"success": False, "reason": outcome.value}
    assert page.post(kind, good)["X-Segment-Fallback"] == "accepted", "and what was refused shuts nobody out"


def nested(depth: int) -> Any:
    return json.loads("[" * depth + "]" * depth)


EVENTS: list[tuple[str, Any, Outcome]] = [
    ("unknown type", {"type": "click"}, Outcome.INVALID),
    ("a list as type", {"type": ["track"]}, Outcome.INVALID),
    ("type of Object's", {"type": "__proto__"}, Outcome.INVALID),
    ("no event name", {"event": None}, Outcome.INVALID),
    ("empty event name", {"event": ""}, Outcome.INVALID),
    ("a number as name", {"event": 5}, Outcome.INVALID),
    ("an object as name", {"event": {"a": 1}}, Outcome.INVALID),
    ("a list as properties", {"properties": []}, Outcome.INVALID),
    ("a text as context", {"context": "x"}, Outcome.INVALID),
    ("a list as integrations", {"integrations": [1]}, Outcome.INVALID),
    ("an object as id", {"userId": {"$ne": 1}}, Outcome.INVALID),
    ("true as id", {"anonymousId": True}, Outcome.INVALID),
    ("digits as id", {"userId": 10**500}, Outcome.INVALID),
    ("two keys of one text", {"properties": dict.fromkeys(["\ud800", "\ud801"], 1)}, Outcome.INVALID),
    ("deep", {"properties": {"a": nested(25)}}, Outcome.MALFORMED),
    ("large", {"properties": {"a": "x" * 32_000}}, Outcome.SIZE),
    ("large in bytes", {"properties": {"a": "ü" * 16_000}}, Outcome.SIZE),
]


@pytest.mark.parametrize(("fault", "outcome"), [case[1:] for case in EVENTS], ids=[case[0] for case in EVENTS])
def test_bad_event_is_refused_and_takes_no_other_with_it(page: Sender, fault: dict[str, Any], outcome: Outcome) -> None:
    alone = page.post("t", single(**fault))
    assert alone.status_code == (413 if outcome is Outcome.SIZE else 400)
    assert alone.json() == {"success": False, "reason": outcome.value}
    assert page.post("b", batch(event(**fault))).json() == {"success": False, "reason": outcome.value}

    mixed = page.post("b", batch(event(messageId="1"), event(**fault), event(messageId="2")))
    assert (mixed.status_code, mixed.json()) == (200, SUCCESS)
    assert set(mixed["X-Segment-Fallback"].split(", ")) == {"accepted", outcome.value}
    assert [message["messageId"] for message in waiting()] == ["1", "2"]
    assert outcomes() == {"accepted": 2, outcome.value: 3}


BATCHES: list[tuple[str, dict[str, Any], Outcome]] = [
    ("none", {}, Outcome.MALFORMED),
    ("empty", {"batch": []}, Outcome.MALFORMED),
    ("an object", {"batch": {"0": event()}}, Outcome.MALFORMED),
    ("of texts", {"batch": ["x"]}, Outcome.MALFORMED),
    ("of nulls", {"batch": [None]}, Outcome.MALFORMED),
    ("without type", {"batch": [{"event": "A"}]}, Outcome.INVALID),
    ("too many", {"batch": [{}] * 2_501}, Outcome.SIZE),
]


@pytest.mark.parametrize(("body", "outcome"), [case[1:] for case in BATCHES], ids=[case[0] for case in BATCHES])
def test_odd_batch_is_refused(page: Sender, body: dict[str, Any], outcome: Outcome) -> None:
    response = page.post("b", {"writeKey": public_key(), **body})
    assert response.json() == {"success": False, "reason": outcome.value}
    assert outcomes() == {outcome.value: 1}
    assert waiting() == []


def test_type_other_than_the_urls_is_refused(page: Sender) -> None:
    assert page.post("p", single(type="track")).json()["reason"] == "invalid"


def test_every_event_of_a_mixed_batch_is_accounted_for(page: Sender) -> None:
    """1,000 good ones and 10 bad: exactly as many are kept and refused."""
    bad = [fault for _name, fault, _outcome in EVENTS[:10]]
    good = [{"type": "track", "event": "A", "messageId": f"m{number}"} for number in range(1_000)]
    mixed = [*good[:500], *(event(**fault) for fault in bad), *good[500:]]
    with settings(RATE_LIMIT=0):
        assert page.post("batch", batch(*mixed)).status_code == 200
    assert {message["messageId"] for message in waiting()} == {f"m{number}" for number in range(1_000)}
    assert outcomes() == {"accepted": 1_000, "invalid": 10}


@pytest.mark.parametrize("kind", ["x", "tt", "identifyy", "B", "-"])
def test_other_url_is_not_found(page: Sender, kind: str) -> None:
    assert page.post(kind, single()).status_code == 404


@pytest.mark.parametrize("kind", ["t", "track", "b", "m"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_nothing_is_there_unless_the_site_is_first_party(page: Sender, kind: str, method: str) -> None:
    with settings(FIRST_PARTY=False):
        assert page.post(kind, single(), method=method).status_code == 404
    assert outcomes() == {}


# The body is not read past its limits


class Input(io.RawIOBase):
    """What a server hands to WSGI: it never ends, and counts what is taken from it."""

    taken = 0

    def read(self, size: int = -1) -> bytes:
        assert size >= 0, "the body was read without a limit"
        self.taken += size
        return b" " * size


def wsgi(stream: Input, **environ: str) -> str:
    base = RequestFactory().post(url_of("b"), content_type="text/plain").environ
    status: list[str] = []
    headers = {f"HTTP_{key.upper().replace('-', '_')}": value for key, value in PAGE_HEADERS.items()}
    WSGIHandler()({**base, **headers, "wsgi.input": stream, **environ}, lambda line, _headers: status.append(line))
    return status[0]


@pytest.mark.parametrize("length", ["500001", "1" + "0" * 5_000])
def test_body_that_says_it_is_too_large_is_not_read(length: str) -> None:
    stream = Input()
    assert wsgi(stream, CONTENT_LENGTH=length).startswith("413")
    assert stream.taken == 0


@pytest.mark.parametrize(("length", "taken"), [("1000", 1_000), ("500000", 500_000), ("", 0), ("x", 0), ("-5", 0)])
def test_body_is_read_as_far_as_it_says(length: str, taken: int) -> None:
    stream = Input()
    assert wsgi(stream, CONTENT_LENGTH=length).startswith("400")
    assert stream.taken == taken


@pytest.mark.parametrize("change", [{"HTTP_ORIGIN": "https://evil.example"}, {"HTTP_SEC_GPC": "1"}])
def test_body_of_a_request_that_its_headers_refuse_is_not_read(change: dict[str, str]) -> None:
    stream = Input()
    assert wsgi(stream, CONTENT_LENGTH="1000", **change).startswith("403")
    assert stream.taken == 0


def test_body_without_a_length_is_read_as_far_as_the_limit() -> None:
    request = RequestFactory().post("/", content_type="text/plain")
    del request.META["CONTENT_LENGTH"]
    stream = Input()
    request._stream = stream  # type: ignore[assignment]
    with pytest.raises(Refused) as refused:
        read_json(request, 1_000)
    assert (refused.value.outcome, stream.taken) == (Outcome.SIZE, 1_001)


def test_client_that_goes_away_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Input):
        def read(self, size: int = -1) -> bytes:
            raise OSError("connection reset")

    with caplog.at_level(logging.ERROR, "segment_fallback"):
        assert wsgi(Broken(), CONTENT_LENGTH="1000").startswith("400")
    assert caplog.text == ""
    assert outcomes() == {"malformed": 1}


def test_number_of_many_digits_has_no_form_that_passes() -> None:
    request = RequestFactory().post("/", b'{"a": %s}' % (b"9" * 5_000), content_type="text/plain")
    with pytest.raises(ValueError, match="no form in JSON"):
        normalise(read_json(request))


# Nobody writes as someone else


@pytest.fixture
def ada() -> User:
    user: User = User.objects.create_user("ada")
    return user


def signed_in(user: User) -> Sender:
    client = Client()
    client.force_login(user)
    return Sender(client)


@pytest.mark.parametrize("type_", ["track", "identify", "page", "screen", "group"])
def test_page_cannot_name_its_user(page: Sender, type_: str) -> None:
    page.post("b", batch(event(type=type_, userId="someone", traits={"a": 1}, groupId="g")))
    message = stored()
    assert message["userId"] is None
    assert message["anonymousId"] == "visitor"
    assert (message["traits"], message["groupId"]) == ({"a": 1}, "g")


def test_user_of_a_page_is_the_one_who_is_signed_in(ada: User) -> None:
    for trust in (False, True):
        with settings(TRUST_CLIENT_USER_ID=trust):
            signed_in(ada).post("i", single(type="identify", messageId=str(trust), userId="someone"))
    assert [message["userId"] for message in waiting()] == [str(ada.pk)] * 2


def test_site_may_let_its_pages_name_the_user(page: Sender) -> None:
    with settings(TRUST_CLIENT_USER_ID=True):
        page.post("i", single(type="identify", userId=42))
    assert stored()["userId"] == "42"


def alias(**more: Any) -> dict[str, Any]:
    return {"type": "alias", "messageId": "m", "writeKey": public_key(), "anonymousId": "visitor", **more}


def test_stranger_cannot_merge_people(page: Sender) -> None:
    for body in (alias(userId="someone"), alias(userId="someone", previousId="visitor"), alias(previousId="someone")):
        response = page.post("a", body)
        assert (response.status_code, response.json()["reason"]) == (403, "identity")
    assert (waiting(), outcomes()) == ([], {"identity": 3})


def test_signed_in_visitor_can_merge_none_but_themselves(ada: User) -> None:
    sender, own = signed_in(ada), str(ada.pk)
    for body in (alias(userId="someone"), alias(userId=own, previousId="someone")):
        assert sender.post("a", body).json()["reason"] == "identity"
    for number, body in enumerate([alias(userId=own), alias(), alias(userId=own, previousId="visitor")]):
        assert sender.post("a", {**body, "messageId": str(number)}).status_code == 200
    assert [(m["userId"], m["previousId"]) for m in waiting()] == [(own, "visitor")] * 3


def test_site_may_let_its_pages_merge_people(page: Sender) -> None:
    with settings(TRUST_CLIENT_USER_ID=True):
        assert page.post("a", alias(userId="new", previousId="old")).status_code == 200
        assert page.post("a", alias()).json()["reason"] == "identity"
    assert (stored()["userId"], stored()["previousId"]) == ("new", "old")


def test_page_cannot_name_ids_by_which_profiles_merge(page: Sender) -> None:
    external = [{"id": "someone", "type": "user_id", "collection": "users", "encoding": "none"}]
    page.post("t", single(messageId="1", context={"externalIds": external, "groupId": "g"}))
    with settings(TRUST_CLIENT_USER_ID=True):
        page.post("t", single(messageId="2", context={"externalIds": external}))
    first, second = waiting()
    assert "externalIds" not in first["context"]
    assert first["context"]["groupId"] == "g"
    assert second["context"]["externalIds"] == external


def test_cookie_says_who_the_visitor_is(page: Sender) -> None:
    page.client.cookies["ajs_anonymous_id"] = "mine"
    response = page.post("t", single(anonymousId="of somebody else"))
    assert stored()["anonymousId"] == "mine"
    assert set(response.cookies) == {id_cookies()[0]}


@pytest.mark.parametrize("anonymous_id", [None, "", "a b", "<script>", "x" * 101])
def test_visitor_without_a_usable_id_gets_one_and_keeps_it(page: Sender, anonymous_id: str | None) -> None:
    response = page.post("b", batch(*(event(messageId=str(n), anonymousId=anonymous_id) for n in range(2))))
    [one] = {message["anonymousId"] for message in waiting()}
    assert str(uuid.UUID(one)) == response.cookies["ajs_anonymous_id"].value == one


def test_address_and_browser_are_those_of_the_connection(page: Sender) -> None:
    with settings(TRUSTED_PROXIES=1):
        page.post("t", single(context={"ip": "6.6.6.6", "userAgent": "x"}), x_forwarded_for="6.6.6.6, 198.51.100.7")
    assert stored()["context"] == {"ip": "198.51.100.7", "userAgent": PAGE_HEADERS["user-agent"]}


# Servers


@pytest.mark.parametrize("key", [public_key, lambda: "x", lambda: WRITE_KEY + " ", WRITE_KEY.upper])
def test_server_needs_the_real_key(server: Sender, key: Any) -> None:
    response = server.post("t", {**event(), "writeKey": key()})
    assert (response.status_code, response.json()["reason"]) == (403, "write_key")
    assert list(OutcomeCount.objects.values_list("way", "outcome")) == [("server", "write_key")]


def test_server_says_who_and_where_its_people_are(server: Sender) -> None:
    body = event(userId="someone", context={"ip": "6.6.6.6", "userAgent": "Mozilla", "externalIds": [1]})
    response = server.post("t", {**body, "writeKey": WRITE_KEY}, content_type="application/json")
    assert response.status_code == 200
    message = stored()
    assert (message["userId"], message["anonymousId"], message["context"]) == ("someone", "visitor", body["context"])
    assert WaitingMessage.objects.get().way == "server"
    assert not response.cookies


def test_servers_own_address_and_name_are_nobodys(server: Sender) -> None:
    server.post("t", {**event(), "writeKey": WRITE_KEY})
    assert stored()["context"] == {}


def test_server_may_merge_people(server: Sender) -> None:
    server.post("alias", {"writeKey": WRITE_KEY, "userId": "new", "previousId": "old"})
    assert (stored()["userId"], stored()["previousId"]) == ("new", "old")


def test_server_that_names_nobody_is_refused(server: Sender) -> None:
    response = server.post("t", {**event(anonymousId=None), "writeKey": WRITE_KEY})
    assert response.json()["reason"] == "invalid"


def test_server_asks_an_allowed_host(server: Sender) -> None:
    response = server.post("t", {**event(), "writeKey": WRITE_KEY}, host="evil.example")
    assert response.json()["reason"] == "host"


def test_page_with_the_real_key_is_still_a_page(page: Sender) -> None:
    page.post("t", single(writeKey=WRITE_KEY, userId="someone"))
    assert stored()["userId"] is None


# Times


NOW = datetime.now(timezone.utc)


def iso(**ago: float) -> str:
    return (datetime.now(timezone.utc) - timedelta(**ago)).isoformat()


def seconds_ago(message: dict[str, Any]) -> float:
    moment = datetime.fromisoformat(message["timestamp"].replace("Z", "+00:00"))
    return (datetime.now(timezone.utc) - moment).total_seconds()


DAY = 86_400
TIMES: list[tuple[str, dict[str, Any], float, float]] = [
    ("none", {}, 0, 0),
    ("right", {"timestamp": iso(hours=1), "sentAt": iso()}, 3_600, 3_600),
    ("without sentAt", {"timestamp": iso(hours=1)}, 3_600, 3_600),
    ("a clock of yesterday", {"timestamp": iso(days=1, hours=1), "sentAt": iso(days=1)}, 3_600, 3_600),
    ("a clock of next year", {"timestamp": iso(days=-365, hours=1), "sentAt": iso(days=-365)}, 3_600, 3_600),
    ("by its old name", {"originalTimestamp": iso(hours=1), "sentAt": iso()}, 3_600, 3_600),
    ("after it was sent", {"timestamp": iso(hours=-1), "sentAt": iso()}, 0, 0),
    ("of the future", {"timestamp": "9999-12-31T23:59:59Z"}, 0, 0),
    ("of the future, far west", {"timestamp": "9999-12-31T23:59:59-14:00"}, 0, 0),
    ("long ago", {"timestamp": iso(days=90)}, 30 * DAY, 90 * DAY),
    ("long ago, far east", {"timestamp": "0001-01-01T00:00:00+14:00"}, 0, 0),
    ("no time", {"timestamp": "yesterday"}, 0, 0),
    ("a day that is none", {"timestamp": "2026-02-30T00:00:00Z"}, 0, 0),
    ("a number", {"timestamp": 1_700_000_000_000}, 0, 0),
    ("a long text", {"timestamp": "2" * 30_000}, 0, 0),
]


@pytest.mark.parametrize(
    ("times", "in_browser", "on_server"), [case[1:] for case in TIMES], ids=[case[0] for case in TIMES]
)
def test_time_is_by_our_clock(server: Sender, times: dict[str, Any], in_browser: float, on_server: float) -> None:
    # The table was made when the module was loaded.
    passed = (datetime.now(timezone.utc) - NOW).total_seconds()
    Sender().post("t", single(messageId="1", **times))
    server.post("t", {**event(messageId="2"), "writeKey": WRITE_KEY, **times})
    first, second = waiting()
    assert seconds_ago(first) == pytest.approx(in_browser, abs=passed + 5)
    assert seconds_ago(second) == pytest.approx(on_server, abs=passed + 5)
    assert first["timestamp"].endswith("Z")
    assert "sentAt" not in first
    assert "originalTimestamp" not in first


def test_servers_history_begins_in_1970(server: Sender) -> None:
    times = ["0001-01-02T00:00:00Z", "1999-05-05T05:05:05+00:00"]
    server.post("b", {"writeKey": WRITE_KEY, "batch": [event(messageId=at, timestamp=at) for at in times]})
    assert [message["timestamp"][:10] for message in waiting()] == ["1970-01-01", "1999-05-05"]


def test_batch_is_corrected_by_its_own_clock(page: Sender) -> None:
    events = [event(messageId=str(n), timestamp=iso(days=10, minutes=n)) for n in range(3)]
    page.post("b", batch(*events, sentAt=iso(days=10)))
    assert [round(seconds_ago(message) / 60) for message in waiting()] == [0, 1, 2]


# Pages on another host of the site's


NEIGHBOUR: dict[str, Any] = {
    "origin": "https://shop.example",
    "sec_fetch_site": "same-site",
    "referer": "https://shop.example/",
}


def test_page_of_another_allowed_host_may_write_and_read_the_answer(page: Sender) -> None:
    response = page.post("t", single(), **NEIGHBOUR)
    assert response.status_code == 200
    assert response["Access-Control-Allow-Origin"] == "https://shop.example"
    assert response["Access-Control-Allow-Credentials"] == "true"
    assert response["Access-Control-Expose-Headers"] == "Retry-After"
    assert response["Vary"] == "Origin"


def preflight(page: Sender, **headers: str | None) -> Any:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,x-retry-count"}
    return page.post("b", b"", method="OPTIONS", **{**NEIGHBOUR, **asked, **headers})


def test_preflight_of_an_allowed_host_is_granted(page: Sender) -> None:
    response = preflight(page)
    assert (response.status_code, response.content) == (204, b"")
    assert response["Access-Control-Allow-Origin"] == "https://shop.example"
    assert response["Access-Control-Allow-Methods"] == "POST"
    assert response["Access-Control-Allow-Headers"] == "Authorization, Content-Type, X-Retry-Count"
    assert outcomes() == {}


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://shop.example.evil.example", "x", ""])
def test_preflight_of_another_site_is_refused_and_counted(page: Sender, origin: str) -> None:
    response = preflight(page, origin=origin)
    assert response.status_code == 403
    assert not [header for header in response.headers if header.startswith("Access-Control")]
    assert outcomes() == {"host": 1}


def test_preflight_to_another_host_is_refused(page: Sender) -> None:
    assert preflight(page, host="evil.example").status_code == 403


def test_options_of_nobody_are_told(page: Sender) -> None:
    response = preflight(page, origin=None)
    assert (response.status_code, response["Allow"]) == (204, "POST, OPTIONS")
    assert "Access-Control-Allow-Origin" not in response.headers


def test_any_host_that_django_serves_is_not_any_site(page: Sender) -> None:
    with override_settings(ALLOWED_HOSTS=["*"]):
        assert preflight(page, origin="https://evil.example").status_code == 403
        assert page.post("t", single(), origin="https://evil.example").json()["reason"] == "host"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec_fetch_site": None},
        {"sec_fetch_site": None, "origin": None},
        {"referer": None},
        {"origin": None},
        {"origin": "null", "referer": None},
        {"origin": None, "referer": None},
        {"origin": None, "referer": "http://testserver/"},
        {"sec_fetch_site": "same-site", "origin": "http://shop.example:8000", "referer": None},
        {"sec_fetch_site": "same-site", "origin": None, "referer": "http://shop.example/"},
    ],
)
def test_browser_proves_its_page_by_what_it_sends(page: Sender, headers: dict[str, Any]) -> None:
    assert page.post("t", single(), **headers).status_code == 200


# Too much, and what is down


LIMITED = {"RATE_LIMIT": 20, "TRUSTED_PROXIES": 1}


def test_flood_is_asked_to_wait_for_the_next_minute(page: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = []
    with settings(**LIMITED):
        for n, seconds in enumerate([0, 0, 0, 42.5]):
            monkeypatch.setattr("segment_fallback.intake.verify.time.monotonic", lambda now=600_000 + seconds: now)
            page.client.cookies.clear()
            events = (event(messageId=f"{n}-{m}") for m in range(8))
            answers.append(page.post("b", batch(*events), x_forwarded_for="8.8.8.8"))
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert (answers[3]["Retry-After"], answers[3].json()["reason"]) == ("18", "rate")
    assert outcomes() == {"accepted": 24, "rate": 8}


def test_server_with_the_key_is_not_damped(server: Sender) -> None:
    with settings(**LIMITED):
        for number in range(30):
            body = {**event(messageId=str(number)), "writeKey": WRITE_KEY}
            assert server.post("t", body, x_forwarded_for="8.8.8.8").status_code == 200


@pytest.fixture
def broken_buffer(transactional_db: None) -> Iterator[None]:
    """The database has lost the buffer's table."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE segment_fallback_waitingmessage RENAME TO gone")
    yield
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE gone RENAME TO segment_fallback_waitingmessage")


@pytest.mark.usefixtures("broken_buffer")
def test_events_go_to_the_spool_while_the_buffer_is_down(page: Sender) -> None:
    assert page.post("b", batch(event(messageId="1"), event(messageId="2"))).status_code == 200
    assert [message.message_id for spooled in acceptance.spool.drain() for message in spooled] == ["1", "2"]


@pytest.mark.usefixtures("broken_buffer")
@pytest.mark.parametrize("kind", ["b", "q"])
def test_client_is_asked_to_send_again_what_cannot_be_kept(
    page: Sender, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    body = batch(event(event="secret"), event(type="x")) if kind == "b" else calls(call("track", "secret"), call("x"))
    with settings(SPOOL_MAX_BYTES=0):
        response = page.post(kind, body)
    assert response.status_code == 503
    assert response.content in (b'{"success": false, "reason": "spool_full"}', b"")
    assert outcomes() == {"spool_full": 1, "invalid": 1}
    assert not response.cookies
    assert "secret" not in caplog.text
    assert "django.request" not in {record.name for record in caplog.records}, "the admins would get a mail for each"


def failing(user: User) -> str:
    raise RuntimeError("a site's own function failed")


def test_failure_of_the_sites_own_function_is_logged_and_asks_to_try_again(
    ada: User, caplog: pytest.LogCaptureFixture
) -> None:
    with settings(USER_ID="tests.intake.test_collect.failing"), caplog.at_level(logging.ERROR):
        assert signed_in(ada).post("b", batch(event(), event())).status_code == 503
    assert "a site's own function failed" in caplog.text
    assert outcomes() == {"unavailable": 2}


@override_settings(DEBUG=False)
def test_reason_is_in_a_header_under_debug_only(page: Sender) -> None:
    assert "X-Segment-Fallback" not in page.post("t", single()).headers


@pytest.mark.parametrize("early", [True, False], ids=["early", "routed"])
def test_no_csrf_token_is_needed_and_no_session_written(early: bool, ada: User) -> None:
    ours = ["segment_fallback.middleware.SegmentMiddleware"] if early else []
    rest = ["django.contrib.sessions.middleware.SessionMiddleware", "django.middleware.csrf.CsrfViewMiddleware"]
    client = Client(enforce_csrf_checks=True)
    client.force_login(ada)
    with override_settings(MIDDLEWARE=[*ours, *rest]):
        response = Sender(client).post("t", single())
    assert response.status_code == 200
    assert "sessionid" not in response.cookies
    assert stored()["userId"] == str(ada.pk)


def test_endpoint_of_a_retired_secret_still_takes_events() -> None:
    with override_settings(SECRET_KEY="old"):
        name, key = endpoint_names()[0], public_key()
    with override_settings(SECRET_KEY_FALLBACKS=["old"]):
        url = f"/s/{name}/e/v1/t"
        body = json.dumps({**event(), "writeKey": key}).encode()
        assert Sender().request("POST", url, body, {}, "text/plain").status_code == 200


@pytest.mark.parametrize(("path", "status"), [("e/t", 200), ("e/v1/t", 200), ("e/v1/track", 200), ("e/track", 404)])
def test_page_posts_to_letters_and_server_libraries_to_words_too(page: Sender, path: str, status: int) -> None:
    url = f"/s/{endpoint_names()[0]}/{path}"
    assert page.request("POST", url, json.dumps(single()).encode(), {}, "text/plain").status_code == status


def test_largest_batch_is_taken_within_seconds(page: Sender) -> None:
    many = batch(*({"type": "track", "event": "A", "messageId": f"m{n}", "properties": {"x": n}} for n in range(2_500)))
    started = time.perf_counter()
    with settings(RATE_LIMIT=0):
        assert page.post("b", many).status_code == 200
    assert time.perf_counter() - started < 10, "about 0.3 s where nothing else runs"
    assert WaitingMessage.objects.count() == 2_500
