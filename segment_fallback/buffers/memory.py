"""Messages in this process's memory: for tests. What waits is gone with the process."""

from __future__ import annotations

import threading
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields

from segment_fallback.buffers.base import (
    FAR_AHEAD,
    MAX_BACK_OFF,
    Buffer,
    Claim,
    DeadLetter,
    EventCounts,
    LeaseLost,
    LeaseState,
    OutcomeCounts,
    Waiting,
    is_due,
    now_ms,
    one_line,
    unsent,
)
from segment_fallback.buffers.event_key import EventKey, event_counter
from segment_fallback.message import Message, Way


@dataclass
class _Row:
    message: Waiting
    part: int
    provisional: bool
    not_before: int


@dataclass
class _Lease:
    owner: str = ""
    expires: int = 0
    not_before: int = 0
    failures: int = 0
    doubts: dict[str, int] = field(default_factory=dict)
    flushed: int = 0
    error: str = ""
    error_at: int = 0


class Store:
    """What several buffers of one process may share, as they would a database."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.rows: dict[str, _Row] = {}
        self.dead: dict[str, DeadLetter] = {}
        self.leases: dict[int, _Lease] = {}
        self.outcomes: Counter[tuple[int, str, str]] = Counter()
        self.events: Counter[EventKey] = Counter()


class MemoryBuffer(Buffer):
    """A buffer that needs nothing: ``"BACKEND": "segment_fallback.buffers.memory.MemoryBuffer"``.

    ``parts``: how many flushers may work at once. ``store``: what it keeps its messages in; by default its own.
    """

    def __init__(self, *, parts: int = 1, store: Store | None = None) -> None:
        if parts < 1:
            raise ValueError(f"parts must be at least 1, not {parts!r}")
        self.parts = parts
        self.store = store or Store()

    def joins_writes(self) -> bool:
        """Nothing is won by it: memory keeps nobody waiting."""
        return False

    def write(self, messages: Sequence[Message]) -> None:
        now = now_ms()
        with self.store.lock:
            for message in messages:
                found = self.store.rows.get(message.message_id)
                if found is not None and not (found.provisional and message.way is Way.JAVASCRIPT):
                    continue
                key, created = message.message_id, found.message.created if found else now
                kept = Waiting(key, key, message.body, message.way.value, created, message.source)
                held = now + round(message.hold * 1000) if message.hold else 0
                part = zlib.crc32(key.encode()) % self.parts
                self.store.rows[key] = _Row(kept, part, message.provisional, held)

    def claim(self, part: int, *, lease: float = 60.0) -> MemoryClaim | None:
        claim = MemoryClaim(self, part, lease)
        return claim if claim.take() else None

    def depth(self) -> int:
        return len(self.store.rows)

    def oldest(self) -> int | None:
        with self.store.lock:
            return min((row.message.created for row in self.store.rows.values()), default=None)

    def bury(self, messages: Sequence[Message], reason: str) -> None:
        MemoryClaim(self, 0, 0).bury([unsent(m) for m in messages], reason, 0)

    def dead_letters(self) -> Iterator[DeadLetter]:
        yield from list(self.store.dead.values())

    def dead_letter_count(self, since: int = 0) -> int:
        return sum(letter.buried >= since for letter in list(self.store.dead.values()))

    def remove_dead_letters(self, message_ids: Sequence[str]) -> int:
        with self.store.lock:
            return sum(self.store.dead.pop(message_id, None) is not None for message_id in message_ids)

    def waiting_messages(self) -> Iterator[Waiting]:
        with self.store.lock:
            rows = list(self.store.rows.values())
        yield from (row.message for row in rows)

    def discard(self, message_ids: Sequence[str]) -> int:
        with self.store.lock:
            return sum(self.store.rows.pop(message_id, None) is not None for message_id in message_ids)

    def leases(self) -> list[LeaseState]:
        with self.store.lock:
            return [
                LeaseState(part, *(getattr(lease, each.name) for each in fields(LeaseState)[1:]))
                for part, lease in sorted(self.store.leases.items())
            ]

    def note_failure(self, part: int, error: str, number: int = 1) -> None:
        with self.store.lock:
            lease = self.store.leases.setdefault(part, _Lease())
            lease.failures += number
            lease.error, lease.error_at = one_line(error), now_ms()

    def add_outcome_counts(self, counts: OutcomeCounts) -> None:
        with self.store.lock:
            self.store.outcomes.update(counts)

    def outcome_counts(self, since: int = 0) -> dict[tuple[int, str, str], int]:
        with self.store.lock:
            return {key: number for key, number in self.store.outcomes.items() if key[0] >= since}

    def event_counts(self, since: int = 0) -> dict[EventKey, int]:
        with self.store.lock:
            return {key: number for key, number in self.store.events.items() if key.hour >= since}

    def set_event_counts(self, hour: int, counts: EventCounts) -> None:
        with self.store.lock:
            for key in [key for key in self.store.events if key.hour == hour]:
                del self.store.events[key]
            self.store.events.update(counts)


class MemoryClaim(Claim):
    """The lease is an object of the store."""

    def __init__(self, buffer: MemoryBuffer, part: int, lease: float) -> None:
        super().__init__(part, lease)
        self._buffer = buffer
        self._store = buffer.store

    def take(self) -> bool:
        """Whether the part is ours now."""
        now = now_ms()
        far_ahead = now + round(FAR_AHEAD * 1000)
        with self._store.lock:
            lease = self._store.leases.setdefault(self.part, _Lease())
            if now < lease.expires <= far_ahead or now < lease.not_before <= far_ahead:
                return False
            lease.owner, lease.expires = self.owner, now + round(self.lease * 1000)
            self.failures, self.doubts = lease.failures, dict(lease.doubts)
            return True

    def messages(self) -> Iterator[Waiting]:
        now, last = now_ms(), self._buffer.parts - 1
        with self._store.lock:
            rows = [row for row in self._store.rows.values() if min(row.part, last) == self.part]
        yield from (row.message for row in rows if is_due(row.not_before, now))

    def renew(self) -> None:
        if not self._change(expires=now_ms() + round(self.lease * 1000)):
            raise LeaseLost(f"part {self.part} has another flusher")

    def save_doubts(self) -> None:
        self._change(doubts=dict(self.doubts))

    def ack(self, batch: Sequence[Waiting]) -> None:
        with self._store.lock:
            gone = [message for message in batch if self._store.rows.pop(message.message_id, None)]
            self._store.events.update(event_counter.count(gone))
        if self.failures:
            self._change(failures=0)
            self.failures = 0
        self._settle(batch)

    def bury(self, batch: Sequence[Waiting], reason: str, attempts: int) -> None:
        reason = one_line(reason)
        with self._store.lock:
            for message in batch:
                self._store.dead.setdefault(message.message_id, DeadLetter(message, reason, attempts, now_ms()))
                self._store.rows.pop(message.message_id, None)
        self._settle(batch)

    def back_off(self, seconds: float, error: str = "") -> None:
        now = now_ms()
        self.failures += 1
        not_before = now + round(min(seconds, MAX_BACK_OFF) * 1000)
        failed = {"failures": self.failures, "error": one_line(error), "error_at": now}
        self._change(owner="", expires=0, not_before=not_before, **failed)

    def release(self, *, flushed: bool = True) -> None:
        self._change(owner="", expires=0, **({"flushed": now_ms()} if flushed else {}))

    def _change(self, **values: object) -> bool:
        """Change the part's lease, if it is ours; whether it is."""
        with self._store.lock:
            lease = self._store.leases[self.part]
            if lease.owner != self.owner:
                return False
            for name, value in values.items():
                setattr(lease, name, value)
            return True
