"""One call made into one message: completed from its surroundings, checked as the SDK checks, its values made JSON.

The rules are those of segment-analytics-python 2.4 (``segment/analytics/client.py``);
``docs/how-to/server-events.md`` lists where ours differ.
"""

from __future__ import annotations

import logging
import numbers
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any
from uuid import UUID

from django.utils.functional import Promise
from django.utils.timezone import get_default_timezone, is_naive, make_aware

from segment_fallback import __version__
from segment_fallback.client.scope import Person
from segment_fallback.exceptions import InvalidMessage
from segment_fallback.log import log_fields
from segment_fallback.message import MAX_DEPTH, Way, new_message_id, normalise
from segment_fallback.outcome import Outcome, Refused

logger = logging.getLogger("segment_fallback")

LIBRARY = {"name": "django-segment-fallback", "version": __version__, "way": Way.SERVER.value}
"""``context.library`` of what server code says."""

_TEXT = (str, Promise)
_ID = (*_TEXT, numbers.Number, UUID)
_DICT = (dict, Mapping)
"""A dict first, of which it need not be asked whether it is a Mapping."""
_DROPPED = object()


def is_about(message: Mapping[str, Any], person: Person) -> bool:
    """Whether the message names nobody else: it has no ids, or that person's own."""
    user_id, anonymous_id = message.get("userId"), message.get("anonymousId")
    return (user_id is None or str(user_id) == person.user_id) and (
        anonymous_id is None or str(anonymous_id) == person.seen.anonymous_id
    )


def completed(message: Mapping[str, Any], person: Person) -> dict[str, Any]:
    """The message with that person's ids and context, where it has none of its own. Raises Refused."""
    seen = person.seen
    if seen.refused:
        raise Refused(seen.refused)
    full = {**message, "context": {**seen.context, **_mapping(message, "context")}}
    if full.get("userId") is None:
        full["userId"] = person.user_id
    if full["type"] == "alias":
        if full.get("previousId") is None:
            full["previousId"] = seen.anonymous_id
    elif full.get("anonymousId") is None:
        full["anonymousId"] = seen.anonymous_id
    if full["type"] == "page":
        # As analytics.js has it: a page event says in its properties, too, which page it was.
        full["properties"] = {**seen.context.get("page", {}), **_mapping(message, "properties")}
    if not full.get("userId") and not full.get("anonymousId"):
        raise Refused(Outcome.NO_ID)
    return full


def finished(message: Mapping[str, Any], library: Mapping[str, str] = LIBRARY) -> dict[str, Any]:
    """A new message with all that the SDK adds: time, messageId, library, ids as texts. Raises InvalidMessage."""
    _check(message)
    moment = message.get("timestamp") or datetime.now(timezone.utc)
    if is_naive(moment):
        moment = make_aware(moment, get_default_timezone())
    message_id = message.get("messageId")
    context = message.get("context") or {}
    return {
        **message,
        "userId": _id(message.get("userId")),
        "anonymousId": _id(message.get("anonymousId")),
        "integrations": message.get("integrations") or {},
        "context": {**context, "library": library},
        "timestamp": moment.isoformat(timespec="milliseconds"),
        "messageId": new_message_id() if message_id is None else str(message_id),
    }


def plain(message: Mapping[str, Any], *, strict: bool) -> dict[str, Any]:
    """The message as JSON has it. Bytes are read as UTF-8, as the SDK does.

    A value that has no form in JSON raises InvalidMessage if ``strict``. If not it is left out, with a line in the log.
    """
    try:
        value: dict[str, Any] = normalise(message)
    except InvalidMessage as error:
        if error.code != "value":
            raise
        value = normalise(_salvaged(message, 0, strict))
    return value


def _mapping(message: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = message.get(key) or {}
    _require(key, value, _DICT, "a dict")
    return value


def _check(message: Mapping[str, Any]) -> None:
    kind = message.get("type")
    for key in ("userId", "anonymousId", "groupId", "previousId"):
        if message.get(key) is not None:
            _require(key, message[key], _ID, "a text, a number or a UUID, such as user.pk")
    if not message.get("userId") and not message.get("anonymousId"):
        raise InvalidMessage("no_id", "a message needs a userId or an anonymousId")
    for key, of in (("groupId", "group"), ("previousId", "alias"), ("userId", "alias")):
        if kind == of and message.get(key) is None:
            raise InvalidMessage("value", f"{of} needs a {key}")
    for key in ("properties", "traits", "context", "integrations"):
        _mapping(message, key)
    if kind == "track" and message.get("event") is not None:
        _require("event", message["event"], _TEXT, "a text")
    for key in ("name", "category"):
        if message.get(key):
            _require(key, message[key], _TEXT, "a text")
    if message.get("timestamp") is not None:
        _require("timestamp", message["timestamp"], datetime, "a datetime")


def _require(name: str, value: object, types: Any, wanted: str) -> None:
    if not isinstance(value, types):
        raise InvalidMessage("value", f"{name} must be {wanted}, not {type(value).__name__}")


def _id(value: object) -> str | None:
    return None if value is None else str(value)


def _salvaged_key(key: Any, strict: bool) -> Any:
    """The key as JSON has it; as it is, if ``strict``, for ``normalise`` to refuse."""
    try:
        return key if strict else next(iter(normalise({key: None})))
    except InvalidMessage:
        name = type(key).__name__
        extra = log_fields("left_out", what="key", type=name)
        logger.warning("a key of type %s was left out of a message: it has no form in JSON", name, extra=extra)
        return _DROPPED


def _salvaged(value: Any, depth: int, strict: bool) -> Any:
    """The value without what has no form in JSON; _DROPPED if nothing is left of it."""
    if isinstance(value, Mapping) and depth <= MAX_DEPTH:
        # Of two keys that are the same text in JSON the last one stays, as in most readers of JSON.
        items = ((_salvaged_key(key, strict), _salvaged(item, depth + 1, strict)) for key, item in value.items())
        return {key: item for key, item in items if key is not _DROPPED and item is not _DROPPED}
    if isinstance(value, (list, tuple, set, frozenset)) and depth <= MAX_DEPTH:
        return [kept for item in value if (kept := _salvaged(item, depth + 1, strict)) is not _DROPPED]
    try:
        return normalise(value.decode() if isinstance(value, (bytes, bytearray)) else value)
    except (InvalidMessage, UnicodeDecodeError) as error:
        if strict or getattr(error, "code", "value") != "value":
            raise
        name = type(value).__name__
        extra = log_fields("left_out", what="value", type=name)
        logger.warning("a value of type %s was left out of a message: it has no form in JSON", name, extra=extra)
        return _DROPPED
