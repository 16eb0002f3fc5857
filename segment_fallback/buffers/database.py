"""The default buffer: tables of a Django database. No lock is held while the network is used."""

from __future__ import annotations

import functools
import json
import random
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from django.core import checks
from django.db import DatabaseError, InterfaceError, connections, router, transaction
from django.db.models import F, Min, Q, QuerySet

from segment_fallback import models
from segment_fallback.buffers.base import (
    FAR_AHEAD,
    MAX_BACK_OFF,
    Buffer,
    Claim,
    Counts,
    DeadLetter,
    LeaseLost,
    Waiting,
    is_due,
    now_ms,
    unsent,
)
from segment_fallback.exceptions import BufferUnavailable
from segment_fallback.message import Message, Way
from segment_fallback.models import Lease, OutcomeCount, WaitingMessage

Result = TypeVar("Result")
Row = TypeVar("Row", WaitingMessage, models.DeadLetter)

PAGE = 500
"""Rows that one statement reads or deletes: below the 999 variables that SQLite takes by default."""

COLLISIONS: frozenset[str | int] = frozenset({"40001", "40P01", 1020, 1213, "database is locked"})
"""Two transactions were in each other's way, and one was ended: PostgreSQL's serialization failure and deadlock,
MariaDB's changed record and deadlock, and SQLite's lock, which it refuses at once where waiting would be a deadlock."""

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

    def write(self, messages: Sequence[Message]) -> None:
        now = now_ms()
        rows = [
            WaitingMessage(
                message_id=message.message_id,
                part=zlib.crc32(message.message_id.encode()) % self.parts,
                body=message.body,
                way=message.way.value,
                source=message.source,
                provisional=message.provisional,
                not_before=now + round(message.hold * 1000) if message.hold else 0,
                created=now,
            )
            for message in messages
        ]
        replacements = {m.message_id: m for m in messages if m.way is Way.JAVASCRIPT}

        def write() -> None:
            # atomic(): an error must not spoil a transaction of the caller's, who goes on without us.
            with transaction.atomic(using=self.using):
                self.insert_new(self.waiting, rows)
                if replacements:
                    self._replace_provisional(replacements)

        self.run(write)

    def _replace_provisional(self, replacements: dict[str, Message]) -> None:
        held = self.waiting.filter(provisional=True)
        ids = list(replacements)
        for start in range(0, len(ids), PAGE):
            found = held.filter(message_id__in=ids[start : start + PAGE])
            for message_id in list(found.values_list("message_id", flat=True)):
                message = replacements[message_id]
                held.filter(message_id=message_id).update(
                    body=message.body, way=message.way.value, source=message.source, provisional=False, not_before=0
                )

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

    def bury(self, messages: Sequence[Message], reason: str) -> None:
        DatabaseClaim(self, 0, 0).bury([unsent(m) for m in messages], reason, 0)

    def dead_letters(self) -> Iterator[DeadLetter]:
        for row in self.pages(self.dead):
            yield DeadLetter(_waiting(row), row.reason, row.attempts, row.buried)

    def remove_dead_letters(self, message_ids: Sequence[str]) -> int:
        removed = 0
        for start in range(0, len(message_ids), PAGE):
            chosen = self.dead.filter(message_id__in=message_ids[start : start + PAGE])
            removed += self.run(chosen.delete)[0]
        return removed

    def add_counts(self, counts: Counts) -> None:
        """Add to the counts. Where the connection is lost at the very end they may be added twice."""
        table = OutcomeCount.objects.using(self.using)

        def add() -> None:
            with transaction.atomic(using=self.using):
                # Sorted: two processes that change the same rows in different orders would wait for each other.
                for (hour, way, outcome), number in sorted(counts.items()):
                    key = {"hour": hour, "way": way, "outcome": outcome}
                    if not table.filter(**key).update(count=F("count") + number):
                        table.get_or_create(**key)
                        table.filter(**key).update(count=F("count") + number)

        self.run(add)

    def counts(self, since: int = 0) -> dict[tuple[int, str, str], int]:
        rows = self.run(lambda: list(OutcomeCount.objects.using(self.using).filter(hour__gte=since)))
        return {(row.hour, row.way, row.outcome): row.count for row in rows}

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

    def pages(self, rows: QuerySet[Row]) -> Iterator[Row]:
        """The rows by id, read a page at a time: neither a cursor nor a transaction stays open meanwhile."""
        last = 0
        while True:
            page: list[Row] = self.run(functools.partial(list, rows.filter(id__gt=last).order_by("id")[:PAGE]))
            yield from page
            if len(page) < PAGE:
                return
            last = page[-1].pk

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
                failure = BufferUnavailable(f"the database {self.using!r} failed: {reason}")
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
    driver = error.__cause__
    codes = (getattr(driver, "sqlstate", None), getattr(driver, "pgcode", None), *error.args[:1])
    return not COLLISIONS.isdisjoint(codes)


class DatabaseClaim(Claim):
    """The lease is one row a part, taken by one conditional UPDATE."""

    def __init__(self, buffer: DatabaseBuffer, part: int, lease: float) -> None:
        super().__init__(part, lease)
        self._buffer = buffer

    @property
    def _row(self) -> QuerySet[Lease]:
        row: QuerySet[Lease] = Lease.objects.using(self._buffer.using).filter(part=self.part)
        return row

    def take(self) -> bool:
        """Whether the part is ours now."""
        now = now_ms()
        far_ahead = now + round(FAR_AHEAD * 1000)
        # "owner": the first answer may have been lost, and this be the second try.
        free = Q(expires__lte=now) | Q(expires__gt=far_ahead) | Q(owner=self.owner)
        may_try = Q(not_before__lte=now) | Q(not_before__gt=far_ahead)
        taken = self._row.filter(free & may_try).update(owner=self.owner, expires=now + self._duration)
        if not taken and not self._row.exists():
            Lease.objects.using(self._buffer.using).get_or_create(part=self.part)
            return self.take()
        if taken:
            self.failures, doubts = self._row.values_list("failures", "doubts")[0]
            self.doubts = json.loads(doubts) if doubts else {}
        return bool(taken)

    @property
    def _duration(self) -> int:
        return round(self.lease * 1000)

    def messages(self) -> Iterator[Waiting]:
        now = now_ms()
        waiting, part = self._buffer.waiting, self.part
        while True:
            for row in self._buffer.pages(waiting.filter(part=part)):
                if is_due(row.not_before, now):
                    yield _waiting(row)
            if self.part < self._buffer.parts - 1:
                return
            # The last part's flusher sends what was put while there were more parts: one by one, as the index goes.
            further = waiting.filter(part__gt=part)
            part = self._buffer.run(functools.partial(further.aggregate, next=Min("part")))["next"]
            if part is None:
                return

    def renew(self) -> None:
        if not self._change(expires=now_ms() + self._duration):
            raise LeaseLost(f"part {self.part} has another flusher")

    def save_doubts(self) -> None:
        self._change(doubts=json.dumps(self.doubts) if self.doubts else "")

    def ack(self, batch: Sequence[Waiting]) -> None:
        for start in range(0, len(batch), PAGE):
            delivered = self._buffer.waiting.filter(pk__in=[m.key for m in batch[start : start + PAGE]])
            self._buffer.run(delivered.delete)
        if self.failures:
            self._change(failures=0)
            self.failures = 0
        self._settle(batch)

    def bury(self, batch: Sequence[Waiting], reason: str, attempts: int) -> None:
        buried = now_ms()
        # Databases refuse NUL, or what their character set has not.
        reason = "".join(c if c.isascii() and c.isprintable() else "?" for c in reason[:200])
        letters = [
            models.DeadLetter(
                message_id=m.message_id,
                body=m.body,
                way=m.way,
                source=m.source,
                reason=reason,
                attempts=attempts,
                created=m.created,
                buried=buried,
            )
            for m in batch
        ]

        def move() -> None:
            with transaction.atomic(using=self._buffer.using):
                self._buffer.insert_new(self._buffer.dead, letters)
                for start in range(0, len(batch), PAGE):
                    self._buffer.waiting.filter(pk__in=[m.key for m in batch[start : start + PAGE]]).delete()

        self._buffer.run(move)
        self._settle(batch)

    def back_off(self, seconds: float) -> None:
        not_before = now_ms() + round(min(seconds, MAX_BACK_OFF) * 1000)
        self.failures += 1
        self._change(owner="", expires=0, not_before=not_before, failures=self.failures)

    def release(self) -> None:
        self._change(owner="", expires=0)

    def _change(self, **values: object) -> bool:
        """Change the part's lease, if it is ours; whether it is."""
        return bool(self._buffer.run(lambda: self._row.filter(owner=self.owner).update(**values)))


def _waiting(row: WaitingMessage | models.DeadLetter) -> Waiting:
    return Waiting(row.pk, row.message_id, bytes(row.body), row.way, row.created, row.source)
