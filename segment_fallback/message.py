"""One Segment message: build, normalise, measure, refuse.

The rules are those of Segment's Tracking API (https://segment.com/docs/connections/spec/common/ and
https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/): Segment answers 200 to
nearly everything and drops in silence what it does not like, so what it would drop is refused here, by name.
"""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timezone
from decimal import Decimal
from enum import Enum
from time import time_ns
from typing import Any
from uuid import UUID

from django.utils.functional import Promise
from django.utils.timezone import get_default_timezone, is_naive, make_aware

from segment_fallback.conf import DEFAULT_SOURCE
from segment_fallback.exceptions import InvalidMessage

try:
    import orjson
except ImportError:  # the extra "orjson": the same JSON, in a fraction of the time
    orjson = None  # type: ignore[assignment]

TYPES = frozenset({"alias", "group", "identify", "page", "screen", "track"})

MAX_MESSAGE_BYTES = 32_000
"""Segment refuses an event past 32 KB; this keeps to the smaller reading of KB."""
MAX_MESSAGE_ID = 99
MAX_SOURCE = 40
MAX_DEPTH = 20

_MESSAGE_ID = re.compile(r"[!-~]{1,99}\Z")
# json.dumps would make an encoder each time. What is normalised holds nothing twice, so nothing in itself either.
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False).encode


class Way(str, Enum):
    """How a message came to us. Segment sees it as ``context.library.way``."""

    JAVASCRIPT = "javascript"
    PIXEL = "pixel"
    NOSCRIPT = "noscript"
    CALL = "call"
    SERVER = "server"
    PROFILE = "profile"
    """Segment's own webhook: it tells of profiles, and none of it goes back."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message ready to wait in a buffer.

    ``body`` is the UTF-8 JSON that will be sent: a flush joins bodies and parses nothing. A ``provisional``
    message (a pixel's) gives way to a definitive one of the same messageId; ``hold`` is how many seconds it
    waits for that. ``source`` is the alias of the source that it goes to.
    """

    message_id: str
    body: bytes
    way: Way = Way.SERVER
    provisional: bool = False
    hold: float = 0.0
    source: str = DEFAULT_SOURCE


def new_message_id() -> str:
    """A messageId that nobody can send first, and no two page views share: 80 random bits, as 20 hexadecimal digits.

    The milliseconds before them, 12 digits, put the ids in the order in which they were made, as in a UUID of version 7
    (https://www.rfc-editor.org/rfc/rfc9562#section-5.7): an index of a database then grows at its end and is emptied
    from its start, and costs the same however much waits.
    """
    return f"{time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def is_message_id(value: object) -> bool:
    """Whether it has the form of a messageId."""
    return isinstance(value, str) and _MESSAGE_ID.match(value) is not None


def timestamp(moment: datetime | None = None) -> str:
    """ISO 8601 in UTC with milliseconds, the form in which analytics.js writes times. Now, by default.

    A naive moment is one of ``TIME_ZONE``, here and in every value of a message.
    """
    moment = moment or datetime.now(timezone.utc)
    if moment.tzinfo is not timezone.utc:
        moment = _aware(moment).astimezone(timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def encode(
    message: Mapping[str, Any],
    *,
    way: Way = Way.SERVER,
    provisional: bool = False,
    hold: float = 0.0,
    source: str = DEFAULT_SOURCE,
) -> Message:
    """Check a message against Segment's rules, and turn it into the bytes that will be sent.

    Raises InvalidMessage; its ``code`` is one of ``type``, ``message_id``, ``source``, ``no_id``, ``no_event``,
    ``value``, ``depth`` and ``size``.
    """
    return encode_plain(normalise(message), way=way, provisional=provisional, hold=hold, source=source)


def encode_plain(
    plain: Mapping[str, Any],
    *,
    way: Way = Way.SERVER,
    provisional: bool = False,
    hold: float = 0.0,
    source: str = DEFAULT_SOURCE,
) -> Message:
    """``encode`` of what ``normalise`` returned."""
    kind, message_id = plain.get("type"), plain.get("messageId")
    if not isinstance(kind, str) or kind not in TYPES:
        raise InvalidMessage("type", f"type must be one of {', '.join(sorted(TYPES))}")
    if not isinstance(message_id, str) or not is_message_id(message_id):
        raise InvalidMessage("message_id", f"messageId must be 1 to {MAX_MESSAGE_ID} printable ASCII characters")
    if len(source) > MAX_SOURCE:
        raise InvalidMessage("source", f"a source's alias may have {MAX_SOURCE} characters, this one has {len(source)}")
    if not plain.get("userId") and not plain.get("anonymousId"):
        raise InvalidMessage("no_id", "a message needs a userId or an anonymousId")
    if kind == "track" and not plain.get("event"):
        raise InvalidMessage("no_event", "a track message needs an event name")
    # Type and event first: there ``label`` finds them without parsing the rest.
    head = {"type": kind, "event": plain["event"]} if kind == "track" else {"type": kind}
    body = _json({**head, **plain})
    if len(body) > MAX_MESSAGE_BYTES:
        raise InvalidMessage("size", f"a message may have {MAX_MESSAGE_BYTES} bytes of JSON, this one has {len(body)}")
    return Message(message_id, body, way, provisional, hold, source)


def _json(plain: Mapping[str, Any]) -> bytes:
    """The same values in both; only a very large or small float may be written in another way (1e16 for 1e+16)."""
    if orjson is not None:
        try:
            return orjson.dumps(plain)
        except TypeError:  # whole numbers past 64 bits, and what json.dumps refuses, too
            pass
    return _to_json(plain).encode()


_LABEL = re.compile(rb'\{"type":"([a-z]+)"(?:,"event":("(?:[^"\\]|\\.)*"))?')


def label(body: bytes) -> tuple[str, str]:
    """The type of an encoded message, and the event of a track call; both empty where the body is not of ``encode``."""
    found = _LABEL.match(body)
    if found is None:
        return "", ""
    kind, event = found.groups()
    return kind.decode(), json.loads(event) if event and kind == b"track" else ""


def labelling(body: bytes) -> bytes:
    """As much of an encoded message as ``label`` reads: messages that have this in common have one label."""
    found = _LABEL.match(body)
    return found[0] if found else b""


def normalise(value: Any, depth: int = 0) -> Any:
    """The value as JSON has it. Nothing is dropped: what has no form in JSON raises InvalidMessage.

    As in Segment's own SDKs dates become ISO 8601, Decimals numbers and enums their values; UUIDs and lazy
    strings become text, tuples lists, NaN and Infinity null (as JavaScript has it), lone surrogates question
    marks. Sets become sorted lists, so that a page's bytes are the same in every process. Keys become text as
    ``json.dumps`` writes them (``true``, ``null``, ``1.5``); two that become the same text are refused, and so
    are bytes and numbers past the range of a double. ``depth``: how deep in a message the value is to stand.
    """
    try:
        return _plain(value, depth)
    except InvalidMessage:
        raise
    except Exception as error:  # a lazy value, or a class of the site's own, fails to give what it stands for
        raise InvalidMessage("value", f"a value has no form in JSON: {type(error).__name__}") from error


def _plain(value: Any, depth: int) -> Any:
    # First what nearly every value is, by its very type: a subclass may mean anything.
    kind = type(value)
    if kind is str:
        return value if value.isascii() else _text(value)
    if value is None or kind is bool:
        return value
    if kind is int or kind is float:
        return _number(value)
    if kind is dict and depth < MAX_DEPTH:
        return _object(value, depth)
    if kind is list and depth < MAX_DEPTH:
        return [_plain(item, depth + 1) for item in value]
    return _made_plain(value, depth)


def _made_plain(value: Any, depth: int) -> Any:
    """Of the types that JSON does not know, and what is too deep."""
    if isinstance(value, Enum):  # before text and numbers, which an enum may be too
        return _plain(value.value, depth)
    if isinstance(value, (str, Promise, UUID)):
        return _text(value)
    if isinstance(value, bool):  # also a lazy one, which is of another type
        return bool(value)
    if isinstance(value, (int, float, Decimal)):
        return _number(value)
    if isinstance(value, (Mapping, list, tuple, set, frozenset)):
        if depth >= MAX_DEPTH:
            raise InvalidMessage("depth", f"a message may be nested {MAX_DEPTH} levels deep")
        if isinstance(value, Mapping):
            return _object(value, depth)
        items = [_plain(item, depth + 1) for item in value]
        return sorted(items, key=repr) if isinstance(value, (set, frozenset)) else items
    if isinstance(value, datetime):
        return _aware(value).isoformat()
    if isinstance(value, (date, time)):
        return value.isoformat()
    raise InvalidMessage("value", f"a value of type {type(value).__name__} has no form in JSON")


def _text(value: object) -> str:
    return str(value).encode("utf-8", "replace").decode()


def _number(value: float | Decimal) -> float | None:
    number = value.real  # the plain number, also of a lazy object
    if isinstance(number, int):
        if number.bit_length() <= 1024:
            return number
    elif math.isfinite(as_float := float(number)):
        return as_float
    elif isinstance(number, float) or not number.is_finite():
        return None
    raise InvalidMessage("value", "a number past the range of a double has no form that JSON's readers agree on")


def _object(value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for key, item in value.items():
        name = key if type(key) is str and key.isascii() else _key(key)
        if name in plain:
            raise InvalidMessage("value", "two keys of a dict are the same text in JSON")
        plain[name] = item if type(item) is str and item.isascii() else _plain(item, depth + 1)
    return plain


def _key(key: object) -> str:
    if isinstance(key, Enum):
        key = key.value
    if isinstance(key, (str, Promise, UUID)):
        return _text(key)
    if key is None or isinstance(key, (bool, int, float)):
        return json.dumps(key, allow_nan=False)
    raise InvalidMessage("value", f"a key of type {type(key).__name__} has no form in JSON")


def _aware(moment: datetime) -> datetime:
    return make_aware(moment, get_default_timezone()) if is_naive(moment) else moment
