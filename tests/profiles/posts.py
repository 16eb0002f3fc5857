"""What Segment posts to the webhook of profiles, in the form that its documentation shows."""

from __future__ import annotations

import hmac
import json
from datetime import datetime, timedelta, timezone
from typing import Any

from django.test import Client
from django.urls import reverse

from segment_fallback.names import endpoint_names

SECRET, FORMER = "the-shared-secret", "the-former-secret"
STORE = {"BACKEND": "segment_fallback.profiles.database.DatabaseProfiles"}
OURS: dict[str, Any] = {
    "WRITE_KEY": "tests-write-key",
    "OUTCOME_INTERVAL": 0,
    "SPOOL": "spool",
    "PROFILES": STORE,
    "PROFILE_SECRETS": [SECRET, FORMER],
}
PERSONAS = {
    "computation_class": "audience",
    "computation_id": "aud_1",
    "computation_key": "vip",
    "namespace": "spa_1",
    "space_id": "spa_1",
}


def moment(seconds_ago: float = 0) -> str:
    then = datetime.now(timezone.utc) - timedelta(seconds=seconds_ago)
    return then.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def identify(traits: Any, *, ago: float = 0, **fields: Any) -> dict[str, Any]:
    return {
        "type": "identify",
        "messageId": "personas_1",
        "userId": "7",
        "context": {"personas": PERSONAS},
        "timestamp": moment(ago),
        "traits": traits,
        **fields,
    }


def track(event: str, properties: Any, **fields: Any) -> dict[str, Any]:
    return identify(None, **{"type": "track", "event": event, "properties": properties, **fields})


def sign(body: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), body, "sha1").hexdigest()


def url() -> str:
    return reverse("segment_fallback:profile_webhook", args=[endpoint_names()[0]])


def post(content: Any, signature: str | None = None, **headers: str) -> int:
    """The status of the answer."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    sent = {"X-Signature": sign(body) if signature is None else signature, **headers}
    answer = Client(enforce_csrf_checks=True).post(url(), body, "application/json", headers=sent)
    assert answer.content == b""
    assert answer["Cache-Control"] == "private, no-store"
    assert not answer.cookies
    return answer.status_code
