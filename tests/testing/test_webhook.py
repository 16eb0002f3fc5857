"""The local Segment tells a webhook of an audience, signed as Segment signs."""

from __future__ import annotations

import hmac
import json
from typing import Any

import pytest
import requests

from segment_fallback.testing import Answer, LocalSegment
from tests.servers import free_port

WANTED = {"secret": "s", "user_id": "7", "audience": "gold", "member": True}


def tell(segment: LocalSegment, **wanted: Any) -> requests.Response:
    return requests.post(f"{segment.url}/_local/audience", json={**WANTED, **wanted}, timeout=10)


def test_webhook_is_told_and_its_status_is_the_answer() -> None:
    with LocalSegment() as segment, LocalSegment() as hook:
        hook.answer_with(Answer(status=403), path="/hook")
        assert tell(segment, url=f"{hook.url}/hook").json() == {"status": 403}
        [request] = hook.requests
        assert (request.method, request.path) == ("POST", "/hook")
        assert len(request.headers["X-Signature"]) == len(hmac.new(b"", b"", "sha1").hexdigest())


@pytest.mark.parametrize("wanted", [{}, {"url": "x"}, {"url": "https://a"}, {"url": "http://a", "member": 1}])
def test_odd_wish_is_refused(wanted: dict[str, Any]) -> None:
    with LocalSegment() as segment:
        assert tell(segment, **wanted).status_code == 400


def test_webhook_that_does_not_answer_is_said() -> None:
    with LocalSegment() as segment:
        answer = tell(segment, url=f"http://127.0.0.1:{free_port()}/")
    assert answer.status_code == 502
    assert "does not answer" in json.dumps(answer.json())
