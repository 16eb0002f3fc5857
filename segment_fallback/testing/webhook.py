"""What Segment tells a site's webhook of its audiences, signed as Segment signs it."""

from __future__ import annotations

import hmac
import http.client
import json
import uuid
from contextlib import closing
from datetime import datetime, timezone
from urllib.parse import urlsplit


def tell_audience(url: str, secret: str, user_id: str, audience: str, *, member: bool) -> int:
    """POST to the webhook at ``url`` that the user has entered or left the audience; the status of its answer.

    Raises OSError or http.client.HTTPException where nobody answers within 10 seconds, ValueError for a URL that is
    not of http.
    """
    where = urlsplit(url)
    if where.scheme != "http" or not where.hostname:
        raise ValueError(f"{url!r} is not a URL of http")
    body = json.dumps(identify(user_id, audience, member=member)).encode()
    signature = hmac.new(secret.encode(), body, "sha1").hexdigest()
    headers = {"Content-Type": "application/json", "X-Signature": signature, "User-Agent": "Segment (local)"}
    with closing(http.client.HTTPConnection(where.hostname, where.port, timeout=10)) as connection:
        connection.request("POST", where.path, body, headers)
        return connection.getresponse().status


def identify(user_id: str, audience: str, *, member: bool) -> dict[str, object]:
    """The message: an ``identify`` whose trait has the audience's name."""
    return {
        "type": "identify",
        "userId": user_id,
        "messageId": f"personas_{uuid.uuid4().hex}",
        "timestamp": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "traits": {audience: member},
        "context": {"personas": {"computation_class": "audience", "computation_key": audience}},
    }
