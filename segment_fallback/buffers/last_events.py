"""The last events that were accepted, for whoever debugs: their keys and the form of their values, never the values.

They are in Django's cache, so that one process shows what another has taken, as far as they share the cache.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

from django.core.cache import cache

from segment_fallback.buffers.base import now_ms
from segment_fallback.conf import DAY, get_settings
from segment_fallback.log import log_fields
from segment_fallback.message import Message, label

logger = logging.getLogger("segment_fallback")

KEPT = 50
PREFIX = "segment_fallback:last_events:"
MAX_KEYS = 60
"""Of each object. Further ones are counted."""
MAX_NAME = 60
"""Characters of a key, or of an event's name, that are kept."""
IDS = ("messageId", "anonymousId")
"""Random ids, of which the last characters tell one from another and nothing else."""


def remember(messages: Sequence[Message]) -> None:
    """Keep these, masked, in the place of the oldest, if LAST_EVENTS says so. Never raises."""
    if not get_settings().last_events:
        return
    try:
        chosen = messages[-KEPT:]
        cache.add(f"{PREFIX}number", 0, None)
        number = cache.incr(f"{PREFIX}number", len(chosen))
        first = number - len(chosen)
        entries = {f"{PREFIX}{n % KEPT}": _entry(n, each) for n, each in enumerate(chosen, first)}
        cache.set_many(entries, DAY)
    except Exception as error:  # noqa: BLE001 - what is only for debugging must not fail an event
        name = type(error).__name__
        extra = log_fields("not_remembered", reason=name)
        logger.warning("the last events could not be remembered: %s", name, extra=extra)


def recall() -> list[dict[str, Any]]:
    """Those events, newest first: ``number``, ``at`` (milliseconds since 1970), ``id``, ``way``, ``source``, ``type``,
    ``event``, and ``body``, masked. Raises what the cache raises."""
    found = cache.get_many([f"{PREFIX}{slot}" for slot in range(KEPT)])
    return sorted(found.values(), key=lambda entry: -entry["number"])


def _entry(number: int, message: Message) -> dict[str, Any]:
    kind, event = label(message.body)
    return {
        "number": number,
        "at": now_ms(),
        "id": shortened(message.message_id),
        "way": message.way.value,
        "source": message.source,
        "type": kind,
        "event": event[:MAX_NAME],
        "body": masked(json.loads(message.body)),
    }


def shortened(text: str) -> str:
    """The last quarter of an id, of 8 characters at most: what comes first in a messageId is often the time."""
    return f"…{text[len(text) - min(8, len(text) // 4) :]}"


def masked(value: Any) -> Any:
    """The value's form: keys as they are, but of a text its length and of anything else its type."""
    if isinstance(value, dict):
        shown = {str(key)[:MAX_NAME]: _member(key, item) for key, item in list(value.items())[:MAX_KEYS]}
        return shown if len(value) <= MAX_KEYS else {**shown, "…": f"{len(value) - MAX_KEYS} more keys"}
    if isinstance(value, list):
        more = [f"{len(value) - 1} more"] if len(value) > 1 else []
        return [masked(item) for item in value[:1]] + more
    if isinstance(value, str):
        return f"text of {len(value)}"
    return {bool: "true or false", int: "number", float: "number"}.get(type(value), "null")


def _member(key: str, value: Any) -> Any:
    return shortened(value) if key in IDS and isinstance(value, str) else masked(value)
