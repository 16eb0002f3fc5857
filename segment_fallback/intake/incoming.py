"""One event as a client sends it, made into one to keep: known fields, times by our clock, nobody else's ids.

The fields are those of Segment's spec (https://segment.com/docs/connections/spec/common/).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from django.utils.dateparse import parse_datetime

from segment_fallback import message
from segment_fallback.intake import identity
from segment_fallback.outcome import Outcome, Refused

Event = dict[str, Any]

MAX_AGE = timedelta(days=30)
"""How long ago a browser's event may have been: analytics.js keeps what it could not send for the next visit."""

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

_TEXTS = ("event", "name", "category", "channel")
_IDS = ("userId", "anonymousId", "groupId", "previousId")
_OBJECTS = ("properties", "traits", "context", "integrations", "_metadata")


def checked(raw: Any, kind: str | None) -> Event:
    """The fields of Segment's spec that an event has; others are dropped. ``kind``: its type where the URL says it.

    Null is as good as nothing. Whole numbers become ids as JavaScript writes them. A messageId of odd form is
    replaced. Raises Refused, MALFORMED or INVALID. The times are for ``set_time``.
    """
    if not isinstance(raw, dict):
        raise Refused(Outcome.MALFORMED)
    if raw.get("type", kind) != kind and kind is not None:
        raise Refused(Outcome.INVALID)
    message_id = raw.get("messageId")
    event: Event = {
        "type": kind or raw.get("type"),
        "messageId": message_id if message.is_message_id(message_id) else message.new_message_id(),
    }
    for key in (*_TEXTS, *_IDS, *_OBJECTS):
        value = raw.get(key)
        if key in _IDS and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if value is None:
            continue
        if not isinstance(value, dict if key in _OBJECTS else str):
            raise Refused(Outcome.INVALID)
        event[key] = value
    event.setdefault("context", {})
    return event


def set_time(event: Event, raw: Mapping[str, Any], sent_at: Any, received: datetime, *, browser: bool) -> None:
    """When it happened, by our clock: ``receivedAt - (sentAt - timestamp)``, as Segment corrects clocks.

    Now, where the client names no time or one that is none, or one after it was sent. A browser's event of long
    ago is put at MAX_AGE, a server's before 1970 at 1970.
    """
    happened = _moment(raw.get("timestamp")) or _moment(raw.get("originalTimestamp"))
    sent = _moment(sent_at) or received
    age = sent - happened if happened else timedelta()
    age = min(max(age, timedelta()), MAX_AGE if browser else received - EPOCH)
    event["timestamp"] = message.timestamp(received - age)


def _moment(text: Any) -> datetime | None:
    """A time in ISO 8601; without an offset it is one of UTC."""
    if not isinstance(text, str) or len(text) > 40:
        return None
    try:
        moment = parse_datetime(text)
        if moment is None:
            return None
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True)
class Visitor:
    """Who a browser is, by what it cannot make up: cookies, Django's auth, the connection.

    ``anonymous_id`` is the cookie's, and ``new_anonymous_id`` what an event gets that has none either.
    """

    anonymous_id: str | None
    new_anonymous_id: str
    user_id: str | None
    trusted: bool
    """TRUST_CLIENT_USER_ID."""
    ip: str | None
    user_agent: str

    def own(self, event: Event) -> None:
        """Make the event this visitor's, whoever it says it is. Raises Refused, IDENTITY.

        What a page may name are groups, and traits of its visitor: these the site cannot know.
        """
        context, named = event["context"], event.get("userId")
        event["anonymousId"] = anonymous_id = self._anonymous_id(event.get("anonymousId"))
        event["userId"] = self.user_id or (named if self.trusted else None)
        if event["type"] == "alias":
            # As analytics.js has it: who names no previous id means the anonymous one.
            previous = event.setdefault("previousId", anonymous_id)
            own = {anonymous_id, self.user_id}
            if not event["userId"] or not (self.trusted or (named in (None, self.user_id) and previous in own)):
                raise Refused(Outcome.IDENTITY)
        if not self.trusted:
            # By these Segment would merge profiles: https://segment.com/docs/unify/identity-resolution/externalids/
            context.pop("externalIds", None)
        context.pop("ip", None)
        if self.ip:
            context["ip"] = self.ip
        context["userAgent"] = self.user_agent

    def _anonymous_id(self, named: Any) -> str:
        if self.anonymous_id:
            return self.anonymous_id
        return named if identity.is_anonymous_id(named) else self.new_anonymous_id
