"""Model changes as events, by declaration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import Field, Model
from django.db.models.signals import post_save, pre_delete, pre_save

from segment_fallback.events.event import Reference
from segment_fallback.events.outbox import emit

BEFORE = "_segment_fallback_before"


def track_model(
    model: type[Model], *, created: str = "", updated: str = "", deleted: str = "", fields: Sequence[str] = ()
) -> None:
    """Emit an event of the given name whenever an instance is created, updated or deleted.

    Only ``fields`` are told: ``event.payload["instance"].fields`` is what they are, or were when it was deleted, and of
    an update ``event.payload["changed"]`` is ``{field: [before, after]}``. ``updated`` is emitted only where one of
    ``fields`` has changed; to know, it reads them before each save. As Django's signals it does not see
    ``QuerySet.update()``, ``bulk_create()`` and the like; fixtures are not events.

    For ``models.py`` or ``AppConfig.ready()``: not for ``segment_events.py``, which is imported later.
    Raises FieldDoesNotExist.
    """
    if updated and not fields:
        raise TypeError(f"track_model({model.__name__}, updated=…) needs fields: what is to be looked at")
    tracked = TrackedModel(model, created, updated, deleted, fields)
    uid = f"segment_fallback.{model._meta.label}"
    if updated:
        pre_save.connect(tracked.before_save, sender=model, weak=False, dispatch_uid=uid)
    if created or updated:
        post_save.connect(tracked.after_save, sender=model, weak=False, dispatch_uid=uid)
    if deleted:
        pre_delete.connect(tracked.before_delete, sender=model, weak=False, dispatch_uid=uid)


class TrackedModel:
    """The receivers of one model's signals."""

    def __init__(self, model: type[Model], created: str, updated: str, deleted: str, fields: Sequence[str]) -> None:
        self._model, self._created, self._updated, self._deleted = model, created, updated, deleted
        found = {name: model._meta.get_field(name) for name in fields}
        self._attributes = {name: field.attname for name, field in found.items() if isinstance(field, Field)}
        if unfit := sorted(set(found) - set(self._attributes)):
            raise TypeError(f"{model.__name__}.{unfit[0]} is no column, and cannot be tracked")

    def _stored(self, instance: Model, using: str) -> dict[str, Any] | None:
        """The fields as the database has them; None where it has no such row."""
        if not self._attributes:
            return {}
        rows = self._model._base_manager.using(using).filter(pk=instance.pk)
        row = rows.values_list(*self._attributes.values()).first()
        return None if row is None else dict(zip(self._attributes, row, strict=True))

    def before_save(
        self, instance: Model, raw: bool, using: str, update_fields: frozenset[str] | None, **kwargs: Any
    ) -> None:
        instance.__dict__.pop(BEFORE, None)
        touched = update_fields is None or not update_fields.isdisjoint({*self._attributes, *self._attributes.values()})
        if not raw and touched and instance.pk is not None:
            instance.__dict__[BEFORE] = self._stored(instance, using)

    def after_save(self, instance: Model, created: bool, raw: bool, using: str, **kwargs: Any) -> None:
        before = instance.__dict__.pop(BEFORE, None)
        if raw:
            return
        if created:
            if self._created:
                emit(self._created, instance=self._reference(instance, using), using=using)
        elif before is not None:
            # Read back: what was set may be an expression, or text for a number.
            after = self._stored(instance, using)
            changed = {name: [before[name], now] for name, now in (after or {}).items() if before[name] != now}
            if changed:
                emit(self._updated, instance=self._reference(instance, using), changed=changed, using=using)

    def before_delete(self, instance: Model, using: str, **kwargs: Any) -> None:
        # Before: what was not loaded could not be read later. Where the deletion fails, its transaction does.
        emit(self._deleted, instance=self._reference(instance, using), using=using)

    def _reference(self, instance: Model, using: str) -> Reference:
        return Reference(instance._meta.label_lower, instance.pk, self._stored(instance, using) or {}, using)
