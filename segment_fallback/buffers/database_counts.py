"""The hourly counts of a DatabaseBuffer: of outcomes, and of delivered events."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from django.db import transaction
from django.db.models import F, QuerySet

from segment_fallback.buffers.base import KEEP_COUNTS, EventCounts
from segment_fallback.buffers.event_key import EventKey
from segment_fallback.models import EventCount, OutcomeCount

if TYPE_CHECKING:
    from segment_fallback.buffers.database import DatabaseBuffer

Row = TypeVar("Row", EventCount, OutcomeCount)


class OutcomeKey(NamedTuple):
    """Which hits are counted together."""

    hour: int
    way: str
    outcome: str


Key = TypeVar("Key", OutcomeKey, EventKey)


def add(buffer: DatabaseBuffer, model: type[Row], counts: Mapping[Key, int]) -> None:
    """Add to the counts, as a part of the caller's transaction."""
    table = _table(buffer, model)
    # Sorted: two processes that change the same rows in different orders would wait for each other.
    for key, number in sorted(counts.items()):
        row = key._asdict()
        if table.filter(**row).update(count=F("count") + number):
            continue
        _, created = table.get_or_create(**row, defaults={"count": number})
        if created:
            _forget_what_is_old(table)
        else:
            table.filter(**row).update(count=F("count") + number)


def read(buffer: DatabaseBuffer, model: type[Row], since: int) -> list[Row]:
    """The rows of all hours from then on."""
    return buffer.run(lambda: list(_table(buffer, model).filter(hour__gte=since)))


def replace(buffer: DatabaseBuffer, hour: int, counts: EventCounts) -> None:
    """Replace the hour's counts of events."""
    table = _table(buffer, EventCount)

    def work() -> None:
        with transaction.atomic(using=buffer.using):
            table.filter(hour=hour).delete()
            table.bulk_create([EventCount(**key._asdict(), count=number) for key, number in sorted(counts.items())])

    buffer.run(work)


def _table(buffer: DatabaseBuffer, model: type[Row]) -> QuerySet[Row]:
    rows: QuerySet[Row] = model._default_manager.using(buffer.using)
    return rows


def _forget_what_is_old(table: QuerySet[Row]) -> None:
    """At each new row, so that the table does not grow for ever: the hour is the first column of its index."""
    table.filter(hour__lt=int(time.time()) - KEEP_COUNTS).delete()
