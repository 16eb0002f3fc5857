"""One Segment message: build, normalise, measure, refuse.

The rules are those of Segment's Tracking API (https://segment.com/docs/connections/spec/common/ and
https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/): Segment answers 200 to
nearly everything and drops in silence what it does not like, so what it would drop is refused here, by name.
"""

from __future__ import annotations

import enum
import json
import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.utils.functional import Promise

from segment_fallback.exceptions import InvalidMessage

TYPES = frozenset({"alias", "group", "identify", "page", "screen", "track"})

MAX_MESSAGE_BYTES = 32_000
"""Segment refuses an event past 32 KB; this keeps to the smaller reading of KB."""
MAX_MESSAGE_ID = 99
MAX_DEPTH = 20

_MESSAGE_ID = re.compile(r"[!-~]{1,99}\Z")


class Way(str, enum.Enum):
    """How a message came to us. Segment sees it as ``context.library.way``."""

    JAVASCRIPT = "javascript"
    PIXEL = "pixel"
    NOSCRIPT = "noscript"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Message:
    """A message ready to wait in a buffer.

    ``body`` is the UTF-8 JSON that will be sent: a flush joins bodies and parses nothing. A ``provisional``
    message (a pixel's) gives way to a definitive one of the same messageId; ``hold`` is how many seconds it
    waits for that.
    """

    message_id: str
    body: bytes
    way: Way = Way.SERVER
    provisional: bool = False
    hold: float = 0.0


def new_message_id() -> str:
    """A messageId of 128 random bits: nobody can send it first, and no two page views share it."""
    return secrets.token_hex(16)


def timestamp(moment: datetime | None = None) -> str:
    """ISO 8601 in UTC with milliseconds, the form in which analytics.js writes times. Now, by default."""
    moment = moment or datetime.now(timezone.utc)
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def encode(
    message: Mapping[str, Any], *, way: Way = Way.SERVER, provisional: bool = False, hold: float = 0.0
) -> Message:
    """Check a message against Segment's rules, and turn it into the bytes that will be sent.

    Raises InvalidMessage; its ``code`` is one of ``type``, ``message_id``, ``no_id``, ``no_event``, ``value``,
    ``depth`` and ``size``.
    """
    if message.get("type") not in TYPES:
        raise InvalidMessage("type", f"type must be one of {', '.join(sorted(TYPES))}")
    message_id = message.get("messageId")
    if not isinstance(message_id, str) or not _MESSAGE_ID.match(message_id):
        raise InvalidMessage("message_id", f"messageId must be 1 to {MAX_MESSAGE_ID} printable ASCII characters")
    if not message.get("userId") and not message.get("anonymousId"):
        raise InvalidMessage("no_id", "a message needs a userId or an anonymousId")
    if message["type"] == "track" and not message.get("event"):
        raise InvalidMessage("no_event", "a track message needs an event name")
    text = json.dumps(normalise(message), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    body = text.encode()
    if len(body) > MAX_MESSAGE_BYTES:
        raise InvalidMessage("size", f"a message may have {MAX_MESSAGE_BYTES} bytes of JSON, this one has {len(body)}")
    return Message(message_id, body, way, provisional, hold)


def normalise(value: Any, depth: int = 0) -> Any:
    """The value as JSON has it. Nothing is dropped: what has no form in JSON raises InvalidMessage.

    As in Segment's own SDKs dates become ISO 8601 and Decimals numbers; UUIDs and lazy strings become text,
    sets and tuples lists, NaN and Infinity null (as JavaScript has it), lone surrogates question marks.
    """
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, (str, Promise)):
        return str(value).encode("utf-8", "replace").decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return normalise(float(value))
    if isinstance(value, (Mapping, list, tuple, set, frozenset)):
        if depth >= MAX_DEPTH:
            raise InvalidMessage("depth", f"a message may be nested {MAX_DEPTH} levels deep")
        if isinstance(value, Mapping):
            return {_key(key): normalise(item, depth + 1) for key, item in value.items()}
        return [normalise(item, depth + 1) for item in value]
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.astimezone()).isoformat()
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    raise InvalidMessage("value", f"a value of type {type(value).__name__} has no form in JSON")


def _key(key: object) -> str:
    if isinstance(key, (str, Promise, int, float, UUID)):
        return str(key).encode("utf-8", "replace").decode()
    raise InvalidMessage("value", f"a key of type {type(key).__name__} has no form in JSON")
