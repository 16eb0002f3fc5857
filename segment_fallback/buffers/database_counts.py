"""The hourly counts of a DatabaseBuffer: of outcomes, and of delivered events."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from django.db import connections, transaction
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


def by_way(buffer: DatabaseBuffer, since: int, step: int) -> dict[tuple[int, str, str], int]:
    """What ``Buffer.way_counts`` promises, summed up by the database.

    By the hour first, in the order of the index, and then by the step: to sort half a million rows by a start that
    has to be computed takes SQLite a second.
    """
    connection = connections[buffer.using]
    hour, way, kind, count, table = map(
        connection.ops.quote_name, ("hour", "way", "type", "count", EventCount._meta.db_table)
    )
    sql = f"""
        SELECT start, {way}, {kind}, SUM(number)
        FROM (
            SELECT {hour} - ({hour} - %s) %% %s AS start, {way}, {kind}, number
            FROM (
                SELECT {hour}, {way}, {kind}, SUM({count}) AS number FROM {table} WHERE {hour} >= %s
                GROUP BY {hour}, {way}, {kind}
            ) AS hours
        ) AS steps
        GROUP BY start, {way}, {kind}
    """  # noqa: S608 - the names are ours

    def work() -> dict[tuple[int, str, str], int]:
        with connection.cursor() as cursor:
            cursor.execute(sql, [since, step, since])
            return {(int(start), way, kind): int(number) for start, way, kind, number in cursor.fetchall()}

    return buffer.run(work)


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
