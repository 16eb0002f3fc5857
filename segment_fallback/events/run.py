"""Runs the handlers of waiting events. Whoever does, however many at once and wherever they are killed: an event has
one runner at a time, and stays until each of its handlers has succeeded or been given up."""

from __future__ import annotations

import json
import logging
import random
import secrets
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from django.db import router
from django.db.models import Q, QuerySet

from segment_fallback.ambient import ambient
from segment_fallback.buffers.base import FAR_AHEAD, now_ms
from segment_fallback.buffers.database import DatabaseBuffer
from segment_fallback.conf import get_settings
from segment_fallback.events.event import Event, event_of
from segment_fallback.events.handlers import Handler, registry
from segment_fallback.exceptions import BufferUnavailable
from segment_fallback.log import log_fields
from segment_fallback.message import Way
from segment_fallback.models import PendingEvent
from segment_fallback.outcome import Outcome
from segment_fallback.tally import tally
from segment_fallback.wording import counted

Result = TypeVar("Result")

logger = logging.getLogger("segment_fallback")

LEASE = 300_000
"""Milliseconds that one handler may take. A killed worker's events are free after that."""

FIRST_BACK_OFF, MAX_BACK_OFF = 10.0, 2_400.0
"""Seconds: 10 · 2ⁿ, at most 40 minutes. Ten tries take about two hours."""

CLAIMED = 20
"""Events that are claimed by one statement."""

UNHANDLED = 3_600_000
"""Milliseconds for which an event waits for somebody to handle it."""

KEPT = 7 * 86_400_000
"""Milliseconds for which an id that the caller gave is known again."""

MAX_ERROR = 4_000
"""Characters of a traceback that are kept: its end."""

DIED = "the worker died, or the lease ran out, while this handler ran"

Progress = dict[str, dict[str, Any]]


@dataclass
class Report:
    """What a run did."""

    handled: int = 0
    """Handlers that succeeded."""
    errors: int = 0
    """Handlers that raised."""
    failed: int = 0
    """Events that were given up."""
    unhandled: int = 0
    """Events for which there was no handler for an hour."""
    trouble: str = ""
    """The last error, in one line."""

    def __str__(self) -> str:
        text = f"{self.handled} handled, {counted(self.errors, 'error')}, {counted(self.failed, 'event')} failed"
        if self.unhandled:
            text += f", {self.unhandled} without a handler"
        return f"{text}; {self.trouble}" if self.trouble else text


def run(*, budget: float | None = None) -> Report:
    """Run what is due until nothing is; ``budget``: seconds after which no event is begun, by default FLUSH_BUDGET.

    Raises BufferUnavailable, and what importing an app's ``segment_events`` raises.
    """
    from segment_fallback.delivery.flush import stopping  # it imports what sends, which no web process needs

    registry.all()
    runner = Runner(router.db_for_write(PendingEvent))
    deadline = time.monotonic() + (get_settings().FLUSH_BUDGET if budget is None else budget)
    while rows := runner.claim():
        for row in rows:
            if time.monotonic() > deadline or stopping.is_set():
                runner.release(row)
            else:
                runner.run(row)
        if time.monotonic() > deadline or stopping.is_set():
            break
    runner.forget_old_ids()
    return runner.report


def run_if_handled() -> str:
    """What a scheduled task does: ``run``. A site without handlers need not have the tables: its messages may wait in
    DynamoDB. Returns a line for the worker's log."""
    try:
        return str(run())
    except BufferUnavailable:
        if registry.all():
            raise
        return "no handlers"


def claim_unborn(row: PendingEvent) -> None:
    """Give a row that is about to be stored to this process, so that no worker takes it first."""
    row.owner, row.next_try = secrets.token_hex(8), now_ms() + LEASE


def run_inline(row: PendingEvent, database: str) -> None:
    """Run the inline handlers of a row that is this process's, and leave the rest to a worker."""
    Runner(database).run(row, only_inline=True)


class Runner:
    """Claims events and runs their handlers."""

    def __init__(self, database: str) -> None:
        self._database = DatabaseBuffer(using=database)
        self.report = Report()
        self._alone = False

    @property
    def _rows(self) -> QuerySet[PendingEvent]:
        rows: QuerySet[PendingEvent] = PendingEvent.objects.using(self._database.using)
        return rows

    def claim(self) -> list[PendingEvent]:
        """Events that are due, and this runner's from now on. What a worker died of is claimed alone."""
        now, owner = now_ms(), secrets.token_hex(8)
        # A lease or back-off that ends so late comes from a clock that was wrong.
        due = self._rows.filter(
            Q(next_try__lte=now) | Q(next_try__gt=now + round(FAR_AHEAD * 1000)), state=PendingEvent.WAITING
        )

        def take() -> list[PendingEvent]:
            found = dict(due.order_by("next_try", "id").values_list("pk", "owner")[:CLAIMED])
            died_of = [pk for pk, former in found.items() if former][:1]
            chosen = died_of or list(found)
            due.filter(pk__in=chosen).update(owner=owner, next_try=now + LEASE)
            rows = list(self._rows.filter(pk__in=chosen, owner=owner).order_by("id"))
            for row in rows:
                row.next_try = now + LEASE
                if row.pk in died_of:
                    self._blame(row)
            return rows

        return self._do(take)

    def run(self, row: PendingEvent, *, only_inline: bool = False) -> None:
        """Run those handlers of a claimed event whose time it is, and write down what became of them."""
        progress: Progress = json.loads(row.progress)
        handlers = registry.matching(row.name)
        if row.next_try - now_ms() < LEASE * 3 // 4 and not self._save(row, progress):
            return
        for handler in handlers:
            entry = progress.setdefault(handler.name, {"state": "waiting", "attempts": 0, "next": 0})
            if (only_inline and not handler.inline) or not _is_due(entry):
                continue
            self._try(handler, event_of(row, entry["attempts"] + 1), entry)
            if len(handlers) > 1 and not self._save(row, progress):
                return  # the lease ran out, and another runner has it
        if only_inline:
            self._change(row, progress=json.dumps(progress), owner="", next_try=now_ms())
        else:
            self._settle(row, progress, [progress[handler.name] for handler in handlers])

    def _try(self, handler: Handler, event: Event, entry: dict[str, Any]) -> None:
        who = {"anonymousId": event.anonymous_id, "userId": event.user_id, "context": event.context}
        fields = {"timestamp": event.occurred_at, **{key: value for key, value in who.items() if value}}
        try:
            with ambient(lambda: fields, seed=f"{event.id}/{handler.name}"):
                handler(event)
        except Exception as error:
            self.report.errors += 1
            self.report.trouble = f"{handler.name}: {type(error).__name__}"
            _note_failure(entry, "".join(traceback.format_exception(error)))
            extra = log_fields("handler_failed", handler=handler.name, attempts=entry["attempts"])
            logger.exception("handler %s failed, for the %d. time", handler.name, entry["attempts"], extra=extra)
        else:
            self.report.handled += 1
            entry.clear()
            entry["state"] = "done"

    def _settle(self, row: PendingEvent, progress: Progress, entries: list[dict[str, Any]]) -> None:
        """What becomes of an event after its handlers had their turn."""
        text, states = json.dumps(progress), {entry["state"] for entry in entries}
        if not entries:
            self._settle_unhandled(row)
        elif "waiting" in states:
            next_try = min(entry["next"] for entry in entries if entry["state"] == "waiting")
            self._change(row, progress=text, owner="", next_try=next_try)
        elif "failed" in states:
            if self._change(row, progress=text, owner="", state=PendingEvent.FAILED):
                self.report.failed += 1
                tally.add(Way.SERVER, Outcome.FAILED)
        else:
            self._forget(row)

    def _settle_unhandled(self, row: PendingEvent) -> None:
        age = now_ms() - row.created
        if age < UNHANDLED:
            self._change(row, owner="", next_try=now_ms() + max(age, 10_000))
        elif self._forget(row):
            self.report.unhandled += 1
            tally.add(Way.SERVER, Outcome.UNHANDLED)

    def _forget(self, row: PendingEvent) -> bool:
        """The event is over; where its id may come again, the id stays."""
        if row.keep_id:
            empty = {"payload": "{}", "caller": "{}", "progress": "{}", "owner": ""}
            return self._change(row, **empty, state=PendingEvent.DONE, next_try=now_ms() + KEPT)
        return bool(self._do(lambda: self._rows.filter(pk=row.pk, owner=row.owner).delete()[0]))

    def forget_old_ids(self) -> None:
        self._do(lambda: self._rows.filter(state=PendingEvent.DONE, next_try__lte=now_ms()).delete())

    def release(self, row: PendingEvent) -> None:
        """Let go of an event that was claimed, and not begun."""
        self._change(row, owner="", next_try=now_ms())

    def _blame(self, row: PendingEvent) -> None:
        """A runner died of this event: that is a failure of the handler whose turn it was."""
        progress: Progress = json.loads(row.progress)
        for handler in registry.matching(row.name):
            entry = progress.setdefault(handler.name, {"state": "waiting", "attempts": 0, "next": 0})
            if _is_due(entry):
                _note_failure(entry, DIED)
                entry["next"] = 0
                break
        row.progress = json.dumps(progress)
        self._rows.filter(pk=row.pk, owner=row.owner).update(progress=row.progress)

    def _save(self, row: PendingEvent, progress: Progress) -> bool:
        """Write down what is done, and hold the event for another LEASE; whether it is still ours."""
        row.next_try = now_ms() + LEASE
        return self._change(row, progress=json.dumps(progress), next_try=row.next_try)

    def _change(self, row: PendingEvent, **values: object) -> bool:
        """Change the row, if it is ours; whether it is."""
        return bool(self._do(lambda: self._rows.filter(pk=row.pk, owner=row.owner).update(**values)))

    def _do(self, work: Callable[[], Result]) -> Result:
        return self._database.run(work)


def _is_due(entry: dict[str, Any]) -> bool:
    return bool(entry["state"] == "waiting" and entry["next"] <= now_ms())


def _note_failure(entry: dict[str, Any], error: str) -> None:
    entry["attempts"] += 1
    entry["error"] = error[-MAX_ERROR:]
    if entry["attempts"] >= get_settings().EVENT_ATTEMPTS:
        entry["state"] = "failed"
    seconds = min(FIRST_BACK_OFF * 2 ** (entry["attempts"] - 1), MAX_BACK_OFF) * random.uniform(0.75, 1.25)  # noqa: S311 - jitter
    entry["next"] = now_ms() + round(seconds * 1000)
