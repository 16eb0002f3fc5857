"""One flusher's hold on one part of a DatabaseBuffer."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from django.db import connections, transaction
from django.db.models import Min, Q, QuerySet

from segment_fallback import models
from segment_fallback.buffers import database_counts
from segment_fallback.buffers.base import FAR_AHEAD, MAX_BACK_OFF, Claim, LeaseLost, Waiting, now_ms, one_line
from segment_fallback.buffers.event_key import event_counter
from segment_fallback.models import EventCount, Lease, WaitingMessage

if TYPE_CHECKING:
    from segment_fallback.buffers.database import DatabaseBuffer

PAGE = 500
"""Rows that one statement reads or deletes: below the 999 variables that SQLite takes by default."""


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
        now, part = now_ms(), self.part
        while True:
            yield from self._due(part, now)
            if self.part < self._buffer.parts - 1:
                return
            # The last part's flusher sends what was put while there were more parts: one by one, as the index goes.
            further = self._buffer.waiting.filter(part__gt=part)
            part = self._buffer.run(functools.partial(further.aggregate, next=Min("part")))["next"]
            if part is None:
                return

    def _due(self, part: int, now: int) -> Iterator[Waiting]:
        """The messages of one part that may be sent now, by id, read a page at a time: neither a cursor nor a
        transaction stays open meanwhile. As tuples: the objects of models cost ten times as much."""
        sql = f"""
            SELECT id, message_id, body, way, created, source FROM {self._table}
            WHERE {self._further} AND (not_before <= %(now)s OR not_before > %(far)s) ORDER BY part, id LIMIT {PAGE}
        """  # noqa: S608 - the table is ours
        last = 0
        while True:
            values = {"part": part, "last": last, "now": now, "far": now + round(FAR_AHEAD * 1000)}
            page = self._buffer.run(functools.partial(self._read, sql, values))
            for key, message_id, body, way, created, source in page:
                yield Waiting(key, message_id, bytes(body), way, created, source)
            if len(page) < PAGE:
                return
            last = page[-1][0]

    @property
    def _further(self) -> str:
        """The condition for a part's messages behind the last one read, in the form by which the index is walked."""
        if connections[self._buffer.using].vendor == "postgresql":
            # Without statistics, as after a first outage, it would sort all that is left, for each page.
            return "(part, id) > (%(part)s, %(last)s) AND part <= %(part)s"
        # SQLite and MariaDB would begin at the part's first message, for each page.
        return "part = %(part)s AND id > %(last)s"

    def _read(self, sql: str, values: Mapping[str, int]) -> list[tuple[Any, ...]]:
        with connections[self._buffer.using].cursor() as cursor:
            cursor.execute(sql, values)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows

    @property
    def _table(self) -> str:
        return connections[self._buffer.using].ops.quote_name(WaitingMessage._meta.db_table)

    def renew(self) -> None:
        if not self._change(expires=now_ms() + self._duration):
            raise LeaseLost(f"part {self.part} has another flusher")

    def save_doubts(self) -> None:
        self._change(doubts=json.dumps(self.doubts) if self.doubts else "")

    def ack(self, batch: Sequence[Waiting]) -> None:
        # Forgotten and counted in one transaction: whatever is killed, each message counts once.
        if not self._buffer.run(lambda: self._buffer.atomically(lambda: self._forget(batch))):
            self._buffer.run(lambda: self._buffer.atomically(lambda: self._forget_what_is_left(batch)))
        if self.failures:
            self._change(failures=0)
            self.failures = 0
        self._settle(batch)

    def bury(self, batch: Sequence[Waiting], reason: str, attempts: int) -> None:
        buried = now_ms()
        reason = one_line(reason)
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
            self._buffer.insert_new(self._buffer.dead, letters)
            self._delete(batch)

        self._buffer.run(lambda: self._buffer.atomically(move))
        self._settle(batch)

    def _forget(self, batch: Sequence[Waiting]) -> bool:
        """Delete and count all of them; False, and nothing was done, if one is gone already."""
        if self._delete(batch) == len(batch):
            database_counts.add(self._buffer, EventCount, event_counter.count(batch))
            return True
        transaction.set_rollback(True, using=self._buffer.using)
        return False

    def _forget_what_is_left(self, batch: Sequence[Waiting]) -> None:
        """One by one: another flusher, who found the lease expired, has acknowledged the others."""
        ours = [message for message in batch if self._delete([message])]
        database_counts.add(self._buffer, EventCount, event_counter.count(ours))

    def _delete(self, batch: Sequence[Waiting]) -> int:
        """By their ids, and not by a range of them: a sequence's numbers may be committed in any order, so that what is
        between two rows of ours may be somebody's who has just come."""
        sql = f"DELETE FROM {self._table} WHERE id IN ({', '.join(['%s'] * PAGE)})"  # noqa: S608 - the table is ours
        keys, deleted = [message.key for message in batch if message.key is not None], 0
        with connections[self._buffer.using].cursor() as cursor:
            for start in range(0, len(keys), PAGE):
                page = keys[start : start + PAGE]
                # Filled up with the last one: SQLite's driver keeps a hundred statements, and each new text is one.
                cursor.execute(sql, page + page[-1:] * (PAGE - len(page)))
                deleted += cursor.rowcount
        return deleted

    def back_off(self, seconds: float, error: str = "") -> None:
        now = now_ms()
        self.failures += 1
        self._change(
            owner="",
            expires=0,
            not_before=now + round(min(seconds, MAX_BACK_OFF) * 1000),
            failures=self.failures,
            error=one_line(error),
            error_at=now,
        )

    def release(self, *, flushed: bool = True) -> None:
        self._change(owner="", expires=0, **({"flushed": now_ms()} if flushed else {}))

    def _change(self, **values: object) -> bool:
        """Change the part's lease, if it is ours; whether it is."""
        return bool(self._buffer.run(lambda: self._row.filter(owner=self.owner).update(**values)))


def as_waiting(row: WaitingMessage | models.DeadLetter) -> Waiting:
    return Waiting(row.pk, row.message_id, bytes(row.body), row.way, row.created, row.source)
