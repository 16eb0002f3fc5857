from __future__ import annotations

import base64
import hmac
import json
from io import BytesIO
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from segment_fallback import on, track
from segment_fallback.events import webhook_view
from segment_fallback.events.event import event_of
from segment_fallback.events.run import run
from segment_fallback.exceptions import BufferUnavailable
from segment_fallback.models import PendingEvent
from tests.events.conftest import sent, waiting

pytestmark = pytest.mark.django_db

view = webhook_view("invoice.paid", secret=["new", "old"], header="X-Signature", prefix="sha256=")


def signed(body: bytes, key: str = "new") -> str:
    return "sha256=" + hmac.new(key.encode(), body, "sha256").hexdigest()


def post(body: Any, signature: str | None = None, view: Any = view, **headers: str) -> HttpResponse:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"X-Signature": signed(data) if signature is None else signature, **headers}
    request = RequestFactory(enforce_csrf_checks=True).post("/hooks/", data, "application/json", headers=headers)
    answer: HttpResponse = view(request)
    assert answer.content == b""
    return answer


def test_webhook_is_an_event_with_its_payload() -> None:
    assert post({"id": "in_1", "total": 5}).status_code == 204
    event = event_of(waiting())
    assert (event.name, event.payload) == ("invoice.paid", {"id": "in_1", "total": 5})


def test_same_webhook_again_counts_once() -> None:
    on("invoice.paid")(lambda event: track("7", "Invoice Paid"))
    for total in (5, 5, 6):
        assert post({"id": "in_1", "total": total}).status_code == 204
        run()
    assert post({"id": "in_2", "total": 5}).status_code == 204
    run()
    assert len(sent()) == 2


def test_webhook_without_an_id_is_told_by_its_body() -> None:
    for total in (5, 5, 6):
        post({"total": total})
    assert PendingEvent.objects.count() == 2


def test_id_may_come_in_a_header() -> None:
    own = webhook_view("e", secret="new", prefix="sha256=", id_header="X-Delivery")
    for delivery in "112":
        post({"id": "same"}, view=own, **{"X-Delivery": delivery})
    assert PendingEvent.objects.count() == 2


def test_name_may_be_a_function_of_the_payload() -> None:
    own = webhook_view(lambda payload: f"stripe.{payload['type']}", secret="new", prefix="sha256=")
    assert post({"type": "invoice.paid"}, view=own).status_code == 204
    assert waiting().name == "stripe.invoice.paid"
    assert post({"kind": 1}, view=own).status_code == 400


@pytest.mark.parametrize("name", [lambda payload: payload["type"].lower(), lambda payload: payload["lines"][0]])
def test_payload_of_another_shape_than_the_name_wants_is_refused(name: Any) -> None:
    own = webhook_view(name, secret="new", prefix="sha256=")
    assert post({"type": None, "lines": []}, view=own).status_code == 400
    assert not PendingEvent.objects.exists()


@pytest.mark.parametrize(
    "signature",
    ["", "sha256=", signed(b"other"), signed(b"{}", "stranger"), signed(b"{}").upper(), "sha256=\udcff", "ü"],
)
def test_webhook_that_is_not_signed_is_refused(signature: str) -> None:
    request = RequestFactory().post("/hooks/", b"{}", "application/json")
    request.META["HTTP_X_SIGNATURE"] = signature
    assert view(request).status_code == 403
    assert not PendingEvent.objects.exists()


def test_former_secret_and_base64_are_good_signatures() -> None:
    assert post({"a": 1}, signed(b'{"a": 1}', "old")).status_code == 204
    digest = base64.b64encode(hmac.new(b"new", b'{"a": 2}', "sha256").digest()).decode()
    assert post({"a": 2}, f"sha256={digest}").status_code == 204


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"text"', b"\xff", b'{"id": ' + b"[" * 20_000, b'{"a":' * 30 + b"1" + b"}" * 30,
     b'{"$model": "auth.user", "pk": 1}', b'{"a": ' + b"9" * 5_000 + b"}"],
)  # fmt: skip
def test_body_that_is_no_event_is_refused(body: bytes) -> None:
    assert post(body).status_code == 400
    assert not PendingEvent.objects.exists()


def test_nan_is_null() -> None:
    assert post(b'{"a": NaN}').status_code == 204
    assert event_of(waiting()).payload == {"a": None}


@pytest.mark.parametrize("length", ["50001", "odd", None])
def test_large_body_is_not_read(length: str | None) -> None:
    request = RequestFactory().post("/hooks/", b"x" * 50_001, "application/json")
    if length is None:
        del request.META["CONTENT_LENGTH"]
        request._stream = BytesIO(b"x" * 50_001)
    else:
        request.META["CONTENT_LENGTH"] = length
    assert view(request).status_code == 413


def test_other_methods_are_refused() -> None:
    assert view(RequestFactory().get("/hooks/")).status_code == 405


def test_sender_is_asked_again_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def down(row: Any) -> None:
        raise BufferUnavailable("down")

    monkeypatch.setattr("segment_fallback.events.webhook.keep", down)
    assert post({"id": 1}).status_code == 503


@pytest.mark.parametrize(
    "options", [{"secret": ""}, {"secret": []}, {"secret": ["a", ""]}, {"secret": "a", "algorithm": "x"}]
)
def test_view_without_a_secret_or_algorithm_is_refused(options: Any) -> None:
    with pytest.raises(ValueError, match=r"secret|hash"):
        webhook_view("e", **options)


def test_view_needs_no_csrf_token() -> None:
    assert view.csrf_exempt  # type: ignore[attr-defined]
    assert isinstance(view(HttpRequest()), HttpResponse)
