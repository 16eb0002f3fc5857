"""The default buffer: tables of a Django database. No lock is held while the network is used."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

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
    now_ms,
)
from segment_fallback.exceptions import BufferUnavailable
from segment_fallback.message import Message, Way
from segment_fallback.models import Lease, OutcomeCount, WaitingMessage

PAGE = 500
"""Rows that one statement reads or deletes: below the 999 variables that SQLite takes by default."""


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
        return not connections[self.using].in_atomic_block

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
        # atomic(): an error must not spoil a transaction of the caller's, who goes on without us.
        with self.guard(), transaction.atomic(using=self.using):
            self.waiting.bulk_create(rows, ignore_conflicts=True, batch_size=100)
            if replacements:
                self._replace_provisional(replacements)

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

    def claim(self, part: int, *, lease: float = 60.0) -> DatabaseClaim | None:
        with self.guard():
            claim = DatabaseClaim(self, part, lease)
            return claim if claim.take() else None

    def depth(self) -> int:
        with self.guard():
            return self.waiting.count()

    def oldest(self) -> int | None:
        with self.guard():
            oldest: int | None = self.waiting.aggregate(oldest=Min("created"))["oldest"]
            return oldest

    def dead_letters(self) -> Iterator[DeadLetter]:
        with self.guard():
            for row in self._dead.order_by("id").iterator():
                yield DeadLetter(_waiting(row), row.reason, row.attempts, row.buried)

    def remove_dead_letters(self, message_ids: Sequence[str]) -> int:
        with self.guard():
            removed = 0
            for start in range(0, len(message_ids), PAGE):
                removed += self._dead.filter(message_id__in=message_ids[start : start + PAGE]).delete()[0]
            return removed

    @property
    def _dead(self) -> QuerySet[models.DeadLetter]:
        rows: QuerySet[models.DeadLetter] = models.DeadLetter.objects.using(self.using)
        return rows

    def add_counts(self, counts: Counts) -> None:
        table = OutcomeCount.objects.using(self.using)
        with self.guard(), transaction.atomic(using=self.using):
            for (hour, way, outcome), number in counts.items():
                key = {"hour": hour, "way": way, "outcome": outcome}
                if not table.filter(**key).update(count=F("count") + number):
                    table.bulk_create([OutcomeCount(**key)], ignore_conflicts=True)
                    table.filter(**key).update(count=F("count") + number)

    def counts(self, since: int = 0) -> dict[tuple[int, str, str], int]:
        with self.guard():
            rows = OutcomeCount.objects.using(self.using).filter(hour__gte=since)
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

    @contextmanager
    def guard(self) -> Iterator[None]:
        """The database's errors as ours."""
        try:
            yield
        except (DatabaseError, InterfaceError) as error:
            # The first line only: further ones may quote the row, which is a visitor's.
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise BufferUnavailable(f"the database {self.using!r} failed: {reason}") from error


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
        expired = Q(expires__lte=now) | Q(expires__gt=far_ahead)
        may_try = Q(not_before__lte=now) | Q(not_before__gt=far_ahead)
        taken = self._row.filter(expired & may_try).update(owner=self.owner, expires=now + self._duration)
        if not taken and not self._row.exists():
            Lease.objects.using(self._buffer.using).bulk_create([Lease(part=self.part)], ignore_conflicts=True)
            return self.take()
        if taken:
            self.failures, doubts = self._row.values_list("failures", "doubts")[0]
            self.doubts = json.loads(doubts) if doubts else {}
        return bool(taken)

    @property
    def _duration(self) -> int:
        return round(self.lease * 1000)

    def messages(self) -> Iterator[Waiting]:
        last, now = 0, now_ms()
        part = Q(part=self.part)
        if self.part == self._buffer.parts - 1:
            part = Q(part__gte=self.part)
        while True:
            with self._buffer.guard():
                rows = list(self._buffer.waiting.filter(part, id__gt=last).order_by("id")[:PAGE])
            for row in rows:
                if row.not_before <= now:
                    yield _waiting(row)
            if len(rows) < PAGE:
                return
            last = rows[-1].pk

    def renew(self) -> None:
        with self._buffer.guard():
            now = now_ms()
            if not self._row.filter(owner=self.owner).update(expires=now + self._duration):
                raise LeaseLost(f"part {self.part} has another flusher")

    def save_doubts(self) -> None:
        with self._buffer.guard():
            doubts = json.dumps(self.doubts) if self.doubts else ""
            self._row.filter(owner=self.owner).update(doubts=doubts)

    def ack(self, batch: Sequence[Waiting]) -> None:
        with self._buffer.guard():
            for start in range(0, len(batch), PAGE):
                self._buffer.waiting.filter(pk__in=[m.key for m in batch[start : start + PAGE]]).delete()
            if self.failures:
                self._row.filter(owner=self.owner).update(failures=0)
                self.failures = 0
        self._settle(batch)

    def bury(self, batch: Sequence[Waiting], reason: str, attempts: int) -> None:
        using, buried = self._buffer.using, now_ms()
        letters = [
            models.DeadLetter(
                message_id=m.message_id,
                body=m.body,
                way=m.way,
                source=m.source,
                reason=reason[:200],
                attempts=attempts,
                created=m.created,
                buried=buried,
            )
            for m in batch
        ]
        with self._buffer.guard(), transaction.atomic(using=using):
            models.DeadLetter.objects.using(using).bulk_create(letters, ignore_conflicts=True, batch_size=100)
            self._buffer.waiting.filter(pk__in=[m.key for m in batch]).delete()
        self._settle(batch)

    def back_off(self, seconds: float) -> None:
        not_before = now_ms() + round(min(seconds, MAX_BACK_OFF) * 1000)
        with self._buffer.guard():
            self.failures += 1
            self._row.filter(owner=self.owner).update(
                owner="", expires=0, not_before=not_before, failures=self.failures
            )

    def release(self) -> None:
        with self._buffer.guard():
            self._row.filter(owner=self.owner).update(owner="", expires=0)


def _waiting(row: WaitingMessage | models.DeadLetter) -> Waiting:
    return Waiting(row.pk, row.message_id, bytes(row.body), row.way, row.created, row.source)
