"""Whoever has not the secret changes nothing; whoever has an old body changes nothing, either."""

from __future__ import annotations

import base64
import gzip
import hmac
import json
import logging
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from django.test import Client, RequestFactory, override_settings

from segment_fallback.models import KeptProfile, OutcomeCount
from segment_fallback.profiles import Ids, profiles
from segment_fallback.profiles.webhook import MAX_BODY, webhook
from tests.profiles.posts import OURS, SECRET, identify, moment, post, sign, url

pytestmark = pytest.mark.django_db

BODY = json.dumps(identify({"vip": True})).encode()


@pytest.fixture(autouse=True)
def ours() -> Any:
    with override_settings(SEGMENT_FALLBACK=OURS):
        yield


def refused(status: int, outcome: str) -> None:
    assert not KeptProfile.objects.exists()
    (row,) = OutcomeCount.objects.all()
    assert (row.way, row.outcome, row.count) == ("profile", outcome, 1), status


@pytest.mark.parametrize(
    "signature",
    [
        "",
        " ",
        "0" * 40,
        sign(BODY)[:-1],
        sign(BODY) + "0",
        sign(BODY).upper(),
        f"sha1={sign(BODY)}",
        f" {sign(BODY)}",
        f"{sign(BODY)},{sign(BODY)}",
        sign(b"{}"),
        sign(BODY, ""),
        sign(BODY, "the-shared-secreT"),
        hmac.new(SECRET.encode(), BODY, "sha256").hexdigest(),
        base64.b64encode(hmac.new(SECRET.encode(), BODY, "sha1").digest()).decode(),
        "é" * 20,
        "None",
        "0" * 10_000,
    ],
)
def test_wrong_signature_is_refused(signature: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "segment_fallback"):
        assert post(BODY, signature) == 403
    refused(403, "signature")
    assert SECRET not in caplog.text
    assert sign(BODY) not in caplog.text


def test_missing_signature_is_refused() -> None:
    assert Client().post(url(), BODY, "application/json").status_code == 403
    refused(403, "signature")


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body + b" ",
        lambda body: b"\xef\xbb\xbf" + body,
        lambda body: body.replace(b'"7"', b'"8"'),
        lambda body: body.replace(b": ", b":"),
        lambda body: body[:-1] + b', "userId": "8"}',
        lambda body: b"",
    ],
)
def test_signature_of_another_body_is_refused(change: Callable[[bytes], bytes]) -> None:
    assert change(BODY) != BODY
    assert post(change(BODY), sign(BODY)) == 403
    refused(403, "signature")


def test_signature_elsewhere_than_in_its_header_counts_nothing() -> None:
    elsewhere = f"X-Signature={sign(BODY)}"
    answer = Client().post(f"{url()}?{elsewhere}", BODY, "application/json", headers={"Cookie": elsewhere})
    assert answer.status_code == 403


def test_batch_of_which_only_the_first_is_signed_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    """As Segment signs a batch: https://segment.com/docs/connections/destinations/catalog/actions-webhook/"""
    batch = b" [" + BODY + b"," + json.dumps(identify({"vip": True}, userId="8")).encode() + b"]"
    for signature in (sign(BODY), sign(batch)):
        assert post(batch, signature) == 400
    assert not KeptProfile.objects.exists()
    assert "switch batching off" in caplog.text


def test_replays_change_nothing() -> None:
    bodies = [json.dumps(identify({"vip": value}, ago=ago)).encode() for value, ago in ((True, 30), (False, 20))]
    for body in (*bodies, *bodies, bodies[0], bodies[0]):
        assert post(body) == 200
    profile = profiles.store.get(Ids("7"))
    assert profile is not None
    assert profile.traits == {"vip": False}
    assert KeptProfile.objects.get().version == 2  # and costs no write


def test_replay_cannot_outlive_what_came_after_it() -> None:
    with override_settings(SEGMENT_FALLBACK={**OURS, "PROFILE_TTL": 10}):
        replayed = json.dumps(identify({"vip": True}, ago=11)).encode()
        assert post(replayed) == 200
    assert not KeptProfile.objects.exists()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b"{" * 5_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        json.dumps(identify({"a": 1}, userId=None)).encode(),
        json.dumps(identify({"a": 1}, userId="", anonymousId="")).encode(),
        json.dumps(identify({"a": 1}, userId={"$ne": 1})).encode(),
        json.dumps(identify({"a": 1}, userId=True)).encode(),
        json.dumps(identify({"a": 1}, userId=["7"])).encode(),
        json.dumps(identify({"a": 1}, userId="x" * 501)).encode(),
        json.dumps(identify({"a": 1}, timestamp=None)).encode(),
        json.dumps(identify({"a": 1}, timestamp=1_700_000_000)).encode(),
        json.dumps(identify({"a": 1}, timestamp="2026-13-45T00:00:00Z")).encode(),
        json.dumps(identify({})).encode(),
        json.dumps(identify(["vip"])).encode(),
        json.dumps(identify("vip")).encode(),
        json.dumps(identify({"a": float("nan")})).encode(),
        json.dumps(identify(None)).replace("null", '{"a": ' + "9" * 5_000 + "}").encode(),
        json.dumps(identify(None)).replace("null", '{"a": ' + "[" * 50 + "]" * 50 + "}").encode(),
        json.dumps({**identify(None), "type": "track", "event": "Something"}).encode(),
        json.dumps({**identify(None), "type": "track", "event": ["Audience Entered"], "properties": {}}).encode(),
        json.dumps({"type": "delete", "timestamp": moment()}).encode(),
        json.dumps({"type": "delete", "userId": "7"}).encode(),
    ],
)
def test_signed_nonsense_is_refused(body: bytes) -> None:
    assert post(body) == 400
    refused(400, "malformed")


@pytest.mark.parametrize("name", ["__proto__", "constructor", "x" * 10_000, "", "\x00", "</script>", "ключ"])
def test_odd_names_and_values_are_kept_as_they_are(name: str) -> None:
    assert post(identify({name: name})) == 200
    profile = profiles.store.get(Ids("7"))
    assert profile is not None
    assert profile.traits == {name: name}


@pytest.mark.parametrize("length", [str(MAX_BODY + 1), "9" * 30, None])
def test_large_body_is_not_read_to_its_end(length: str | None) -> None:
    body = b"x" * (MAX_BODY + 100_000)
    request = RequestFactory().post("/", body, "application/json", headers={"X-Signature": sign(body)})
    stream = BytesIO(body)
    request._stream = stream
    if length is None:
        del request.META["CONTENT_LENGTH"]
    else:
        request.META["CONTENT_LENGTH"] = length
    assert webhook(request, "name").status_code == 413
    assert stream.tell() <= MAX_BODY + 1
    refused(413, "size")


def test_packed_body_is_not_unpacked() -> None:
    body = gzip.compress(BODY)
    assert post(body, sign(body), **{"Content-Encoding": "gzip"}) == 400
    refused(400, "malformed")


def test_cookie_or_session_of_a_user_signs_nothing(django_user_model: Any) -> None:
    client = Client()
    client.force_login(django_user_model.objects.create_superuser("admin", password="x"))
    assert client.post(url(), BODY, "application/json").status_code == 403
