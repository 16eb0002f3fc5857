"""What waits and what failed: counted, shown, tried again, forgotten. All of it raises BufferUnavailable."""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Iterator
from typing import Any

from django.db import router
from django.db.models import Count, Min, QuerySet

from segment_fallback.buffers.base import now_ms
from segment_fallback.buffers.database import DatabaseBuffer
from segment_fallback.events.handlers import registry
from segment_fallback.models import PendingEvent

LOOKED_AT = 100
"""Rows in which the last error is looked for."""


def _database() -> DatabaseBuffer:
    return DatabaseBuffer(using=router.db_for_write(PendingEvent))


def _rows() -> QuerySet[PendingEvent]:
    rows: QuerySet[PendingEvent] = PendingEvent.objects.using(_database().using).exclude(state=PendingEvent.DONE)
    return rows


def select(event_ids: Collection[str] = ()) -> Iterator[PendingEvent]:
    """These events, or else all that failed, oldest first."""
    rows = _rows().filter(event_id__in=event_ids) if event_ids else _rows().filter(state=PendingEvent.FAILED)
    yield from _database().pages(rows)


def counts() -> list[tuple[str, str, int, int]]:
    """(name, state, number, when the oldest was emitted) of what waits and of what failed."""
    found = _rows().values("name", "state").annotate(number=Count("id"), oldest=Min("created"))
    rows = _database().run(lambda: list(found.order_by("name", "state")))
    return [(row["name"], row["state"], row["number"], row["oldest"]) for row in rows]


def overdue(seconds: float) -> tuple[int, int]:
    """How many events have been due for longer than that, and since when the first, in milliseconds since 1970.

    What somebody runs, or tries again later, is not due.
    """
    due = _rows().filter(state=PendingEvent.WAITING, next_try__lt=now_ms() - round(seconds * 1000))
    found = _database().run(lambda: due.aggregate(number=Count("id"), first=Min("next_try")))
    return found["number"], found["first"] or 0


def last_error() -> tuple[str, str, str] | None:
    """(handler, event's id, the traceback's last line) of the error that came last."""
    rows = _rows().filter(progress__contains='"error"').order_by("-id")[:LOOKED_AT]
    found = [
        (entry["next"], handler, row.event_id, entry["error"])
        for row in _database().run(lambda: list(rows))
        for handler, entry in json.loads(row.progress).items()
        if "error" in entry
    ]
    if not found:
        return None
    _, handler, event_id, error = max(found)
    return handler, event_id, error.strip().rpartition("\n")[2]


def retry(event_ids: Collection[str] = ()) -> int:
    """Let these events, or else all of them, be run as soon as may be, failed handlers too; how many.

    What a worker is running is left to it.
    """
    database, rows, number = _database(), _rows().filter(owner=""), 0
    if event_ids:
        rows = rows.filter(event_id__in=event_ids)
    for row in database.pages(rows):
        progress = json.loads(row.progress)
        for entry in progress.values():
            if entry["state"] != "done":
                entry |= {"state": "waiting", "attempts": 0, "next": 0}
        # Not if a worker has taken it meanwhile.
        unchanged = _rows().filter(pk=row.pk, owner="", progress=row.progress)
        again = {"state": PendingEvent.WAITING, "next_try": now_ms(), "progress": json.dumps(progress)}
        number += database.run(functools.partial(unchanged.update, **again))
    return number


def delete(event_ids: Collection[str] = ()) -> int:
    """Forget these events, or all, as far as they failed; how many."""
    failed = _rows().filter(state=PendingEvent.FAILED)
    chosen = failed.filter(event_id__in=event_ids) if event_ids else failed
    number: int = _database().run(chosen.delete)[0]
    return number


def as_json(row: PendingEvent) -> dict[str, Any]:
    """An event with all that is known of it."""
    return {
        "event_id": row.event_id,
        "name": row.name,
        "state": row.state,
        "occurred": row.occurred,
        "payload": json.loads(row.payload),
        "caller": json.loads(row.caller),
        "handlers": json.loads(row.progress),
    }


def overview() -> dict[str, Any]:
    """Handlers, counts and the last error."""
    error = last_error()
    return {
        "handlers": [
            {"name": handler.name, "events": list(handler.patterns), "inline": handler.inline}
            for handler in registry.all()
        ],
        "events": [dict(zip(("name", "state", "count", "oldest"), row, strict=True)) for row in counts()],
        "last_error": error and dict(zip(("handler", "event_id", "error"), error, strict=True)),
    }
