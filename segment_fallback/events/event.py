"""An event as a handler gets it, and its payload as it is kept: JSON, with references for model instances."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from django.apps import apps
from django.db import router
from django.db.models import Field, Model
from django.db.models.fields.files import FieldFile

from segment_fallback.exceptions import InvalidMessage
from segment_fallback.message import MAX_DEPTH, normalise
from segment_fallback.models import PendingEvent

MAX_PAYLOAD_BYTES = 100_000
"""Of JSON. What is larger belongs into a row of its own, to which the event refers."""

MODEL = "$model"
"""The key by which a reference is known in the JSON; no dict of a payload may have it."""

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Reference:
    """A model instance in a payload. ``model`` is its label (``shop.order``); ``fields`` what ``snapshot`` kept."""

    model: str
    pk: Any
    fields: Mapping[str, Any] = field(default_factory=dict)
    database: str | None = None

    def get(self) -> Any:
        """The instance as it is now. Raises its model's DoesNotExist."""
        return apps.get_model(self.model)._base_manager.using(self.database).get(pk=self.pk)


def snapshot(instance: Model, *fields: str) -> Reference:
    """A reference to the instance with the values that these fields have now; of a foreign key, its key.

    Raises FieldDoesNotExist.
    """
    if instance.pk is None:
        raise InvalidMessage("value", f"{instance._meta.label} that was not saved cannot be referred to")
    values = {name: _value(instance, name) for name in fields}
    database = router.db_for_write(type(instance), instance=instance)
    return Reference(instance._meta.label_lower, instance.pk, values, database)


def _value(instance: Model, name: str) -> Any:
    field = instance._meta.get_field(name)
    if not isinstance(field, Field):
        raise InvalidMessage("value", f"{instance._meta.label}.{name} is no column, and has no value to keep")
    value = getattr(instance, field.attname)
    return value.name if isinstance(value, FieldFile) else value


def encode(payload: Mapping[str, Any]) -> str:
    """The payload's JSON. Raises InvalidMessage."""
    try:
        plain = normalise(_with_references(payload, 0))
    except RecursionError as error:
        raise InvalidMessage("depth", "a payload contains itself") from error
    text = json.dumps(plain, separators=(",", ":"), allow_nan=False)
    if len(text) > MAX_PAYLOAD_BYTES:
        raise InvalidMessage("size", f"a payload may have {MAX_PAYLOAD_BYTES} bytes of JSON, this one has {len(text)}")
    return text


def _with_references(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        return value  # normalise refuses it
    if isinstance(value, Model):
        value = snapshot(value)
    if isinstance(value, Reference):
        found = {MODEL: value.model, "pk": value.pk, "fields": value.fields, "database": value.database}
        return {key: item for key, item in found.items() if item}
    if isinstance(value, Mapping):
        if MODEL in value:
            raise InvalidMessage("value", f"a dict of a payload may not have the key {MODEL!r}")
        return {key: _with_references(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_references(item, depth + 1) for item in value]
    if getattr(value, "is_anonymous", False) is True:
        return None  # request.user of a stranger
    return value


def decode(text: str) -> Any:
    """The payload of its JSON."""
    return json.loads(text, object_hook=_reference)


def _reference(found: dict[str, Any]) -> Any:
    if MODEL not in found:
        return found
    return Reference(found[MODEL], found.get("pk"), found.get("fields", {}), found.get("database"))


@dataclass(frozen=True)
class Event:
    """What happened. ``event["order"]`` is the order as it is now; ``event.payload["order"]`` its Reference."""

    id: str
    name: str
    payload: Mapping[str, Any]
    occurred_at: datetime
    anonymous_id: str | None = None
    user_id: str | None = None
    context: Mapping[str, Any] = field(default_factory=dict)
    attempt: int = 1
    """1 when the handler sees the event for the first time."""
    _loaded: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __getitem__(self, key: str) -> Any:
        """A value of the payload; of a reference, its instance, read from the database once."""
        value = self.payload[key]
        if not isinstance(value, Reference):
            return value
        if key not in self._loaded:
            self._loaded[key] = value.get()
        return self._loaded[key]


def event_of(row: PendingEvent, attempt: int = 1) -> Event:
    """The event that waits in this row."""
    caller = json.loads(row.caller)
    occurred_at = EPOCH + timedelta(milliseconds=row.occurred)
    who = caller.get("anonymousId"), caller.get("userId"), caller.get("context", {})
    return Event(row.event_id, row.name, decode(row.payload), occurred_at, *who, attempt)
