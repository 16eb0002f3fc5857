"""The default buffer: tables of a Django database. No lock is held while the network is used."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from django.core import checks
from django.db import DatabaseError, InterfaceError, connections, router, transaction
from django.db.models import F, QuerySet

from segment_fallback import models
from segment_fallback.buffers import database_counts, database_put
from segment_fallback.buffers.base import (
    Buffer,
    DeadLetter,
    EventCounts,
    LeaseState,
    OutcomeCounts,
    TransactionBroken,
    Waiting,
    now_ms,
    one_line,
    unsent,
)
from segment_fallback.buffers.database_claim import PAGE, DatabaseClaim, as_waiting
from segment_fallback.buffers.database_counts import OutcomeKey
from segment_fallback.buffers.event_key import EventKey
from segment_fallback.buffers.group_commit import GroupCommit
from segment_fallback.exceptions import BufferUnavailable
from segment_fallback.message import Message
from segment_fallback.models import EventCount, Lease, OutcomeCount, WaitingMessage

Result = TypeVar("Result")
Row = TypeVar("Row", WaitingMessage, models.DeadLetter)
Kept = TypeVar("Kept", WaitingMessage, models.DeadLetter, models.PendingEvent)

COLLISIONS: frozenset[str | int] = frozenset({"40001", "40P01", 1020, 1213, "database is locked"})
"""Two transactions were in each other's way, and one was ended: PostgreSQL's serialization failure and deadlock,
MariaDB's changed record and deadlock, and SQLite's lock, which it refuses at once where waiting would be a deadlock."""

FAILED_TRANSACTION = "25P02"
"""PostgreSQL's: a statement of the transaction has failed, and it takes no further ones. Others leave that to Django,
which refuses them by a TransactionManagementError where it knows that the transaction will be rolled back."""

WRITERS = 2
"""Joined writes that may be under way at once in a process, where the database is a server."""
TRIES = 8
PATIENCE = 3.0
"""Seconds after which what collides is not tried again: a visitor waits. PostgreSQL sees a deadlock after one."""


class DatabaseBuffer(Buffer):
    """Messages in the table of ``WaitingMessage``.

    ``using``: alias of the database; by default the one that Django's routers name for this app.
    ``parts``: how many flushers may work at once. It may be changed at any time: rows of a part that is no
    more belong to the last one.
    """

    def __init__(self, *, using: str | None = None, parts: int = 1) -> None:
        if parts not in range(1, 32_768):
            raise ValueError(f"parts must be a whole number from 1 to 32,767, not {parts!r}")
        self._using = using
        self.parts = parts

    @property
    def using(self) -> str:
        return self._using or router.db_for_write(WaitingMessage)

    def joins_writes(self) -> bool:
        # Inside a transaction of the caller's, its messages must share that transaction's fate, and only its own.
        connection = connections[self.using]
        return not connection.in_atomic_block and (connection.connection is None or connection.autocommit)

    @functools.cached_property
    def _group_commit(self) -> GroupCommit:
        # SQLite has one writer; a server works for one while the answer to another is on its way.
        return GroupCommit(self.write, writers=1 if connections[self.using].vendor == "sqlite" else WRITERS)

    def write(self, messages: Sequence[Message]) -> None:
        self.run(lambda: database_put.put(self, messages))

    def insert_new(self, table: QuerySet[Row], rows: list[Row]) -> None:
        """Insert those rows whose messageId is not there yet."""
        if connections[self.using].vendor == "mysql":
            # INSERT IGNORE, what ignore_conflicts would be here, also cuts off what does not fit, and says nothing.
            table.bulk_create(rows, update_conflicts=True, update_fields=["message_id"], batch_size=100)
        else:
            table.bulk_create(rows, ignore_conflicts=True, batch_size=100)

    def claim(self, part: int, *, lease: float = 60.0) -> DatabaseClaim | None:
        claim = DatabaseClaim(self, part, lease)
        return claim if self.run(claim.take) else None

    def depth(self) -> int:
        """How many messages wait. Reads an index from end to end."""
        return self.run(self.waiting.count)

    def oldest(self) -> int | None:
        """When the message that has waited longest was accepted. Reads one row."""
        first = self.waiting.order_by("id")[:1]
        return next((row.created for row in self.run(lambda: list(first.only("created")))), None)

    def waiting_messages(self) -> Iterator[Waiting]:
        return map(as_waiting, self.pages(self.waiting))

    def discard(self, message_ids: Sequence[str]) -> int:
        return self._delete(self.waiting, message_ids)

    def leases(self) -> list[LeaseState]:
        return [
            LeaseState(
                row.part,
                row.owner,
                row.expires,
                row.not_before,
                row.failures,
                row.flushed,
                row.error,
                row.error_at,
            )
            for row in self.run(lambda: list(Lease.objects.using(self.using).order_by("part")))
        ]

    def note_failure(self, part: int, error: str, number: int = 1) -> None:
        leases = Lease.objects.using(self.using)

        def note() -> None:
            lease, _ = leases.get_or_create(part=part)
            failed = {"error": one_line(error), "error_at": now_ms()}
            leases.filter(pk=lease.pk).update(failures=F("failures") + number, **failed)

        self.run(note)

    def bury(self, messages: Sequence[Message], reason: str) -> None:
        DatabaseClaim(self, 0, 0).bury([unsent(m) for m in messages], reason, 0)

    def dead_letters(self) -> Iterator[DeadLetter]:
        for row in self.pages(self.dead):
            yield DeadLetter(as_waiting(row), row.reason, row.attempts, row.buried)

    def dead_letter_count(self, since: int = 0) -> int:
        number: int = self.run(self.dead.filter(buried__gte=since).count)
        return number

    def remove_dead_letters(self, message_ids: Sequence[str]) -> int:
        return self._delete(self.dead, message_ids)

    def _delete(self, table: QuerySet[Row], message_ids: Sequence[str]) -> int:
        removed = 0
        for start in range(0, len(message_ids), PAGE):
            chosen = table.filter(message_id__in=message_ids[start : start + PAGE])
            removed += self.run(chosen.delete)[0]
        return removed

    def add_outcome_counts(self, counts: OutcomeCounts) -> None:
        """Add to the counts. Where the connection is lost at the very end they may be added twice."""
        keyed = {OutcomeKey(*key): number for key, number in counts.items()}
        self.run(lambda: self.atomically(lambda: database_counts.add(self, OutcomeCount, keyed)))

    def outcome_counts(self, since: int = 0) -> dict[tuple[int, str, str], int]:
        return {(row.hour, row.way, row.outcome): row.count for row in database_counts.read(self, OutcomeCount, since)}

    def event_counts(self, since: int = 0) -> dict[EventKey, int]:
        rows = database_counts.read(self, EventCount, since)
        return {EventKey(row.hour, row.way, row.type, row.event): row.count for row in rows}

    def way_counts(self, since: int, step: int = 3_600) -> dict[tuple[int, str, str], int]:
        return database_counts.by_way(self, since, step)

    def set_event_counts(self, hour: int, counts: EventCounts) -> None:
        database_counts.replace(self, hour, counts)

    def check(self) -> list[checks.CheckMessage]:
        if self._using is None or self._using in connections:
            return []
        return [
            checks.Error(
                f"DatabaseBuffer's option 'using' names the database {self._using!r}, which is not in DATABASES.",
                hint=f"Write one of {', '.join(sorted(connections))}.",
                id="segment_fallback.E007",
            )
        ]

    @property
    def waiting(self) -> QuerySet[WaitingMessage]:
        rows: QuerySet[WaitingMessage] = WaitingMessage.objects.using(self.using)
        return rows

    @property
    def dead(self) -> QuerySet[models.DeadLetter]:
        rows: QuerySet[models.DeadLetter] = models.DeadLetter.objects.using(self.using)
        return rows

    def pages(self, rows: QuerySet[Kept]) -> Iterator[Kept]:
        """The rows by id, read a page at a time: neither a cursor nor a transaction stays open meanwhile."""
        last = 0
        while True:
            page: list[Kept] = self.run(functools.partial(list, rows.filter(id__gt=last).order_by("id")[:PAGE]))
            yield from page
            if len(page) < PAGE:
                return
            last = page[-1].pk

    def atomically(self, work: Callable[[], Result]) -> Result:
        """The work's result, in a transaction or a savepoint of its own."""
        with transaction.atomic(using=self.using):
            return work()

    def run(self, work: Callable[[], Result]) -> Result:
        """The work's result; the database's errors as ours.

        Repeated where another transaction was in its way, and once on a new connection where the old one is dead:
        outside a request nobody but us looks after a thread's connection. So the work must bear to be repeated
        after it was done. Inside a transaction of the caller's nothing can be repeated.
        """
        connection = connections[self.using]
        if connection.errors_occurred and not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()
        started = time.monotonic()
        for pause in (0.01 * 2**n for n in range(TRIES)):
            before, within = connection.connection, connection.in_atomic_block
            try:
                return work()
            except (DatabaseError, InterfaceError) as error:
                # The first line only: further ones may quote the row, which is a visitor's.
                reason = (str(error) or type(error).__name__).splitlines()[0]
                kind = TransactionBroken if _is_in_a_broken_transaction(error) else BufferUnavailable
                failure = kind(f"the database {self.using!r} failed: {reason}")
                failure.__cause__ = error
                if within:
                    break
                if connection.connection is not None and not connection.is_usable():
                    connection.close()
                # At the end of a transaction Django itself may have put a new connection in the place of a dead one.
                lost = before is not None and connection.connection is not before
                if not lost and not (_is_collision(error) and time.monotonic() - started < PATIENCE):
                    break
                time.sleep(random.uniform(0, pause))  # noqa: S311 - jitter
        raise failure


def _is_collision(error: Exception) -> bool:
    return not COLLISIONS.isdisjoint(_codes(error))


def _is_in_a_broken_transaction(error: Exception) -> bool:
    return isinstance(error, transaction.TransactionManagementError) or FAILED_TRANSACTION in _codes(error)


def _codes(error: Exception) -> tuple[str | int | None, ...]:
    """What drivers call an error, wherever they say it."""
    driver = error.__cause__
    return getattr(driver, "sqlstate", None), getattr(driver, "pgcode", None), *error.args[:1]
