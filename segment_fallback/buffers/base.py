"""The contract of a buffer: where messages wait between their acceptance and their delivery.

A buffer has a fixed number of parts. One flusher at a time works on a part, all parts can be flushed at once,
and a lease that expires by itself says who. Every backend passes ``tests/buffers/contract.py``.
"""

from __future__ import annotations

import abc
import functools
import math
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from segment_fallback.buffers.event_key import EventKey
from segment_fallback.buffers.group_commit import GroupCommit
from segment_fallback.conf import DAY, DEFAULT_SOURCE
from segment_fallback.exceptions import BufferUnavailable
from segment_fallback.message import Message

if TYPE_CHECKING:
    from django.core.checks import CheckMessage

SPOOL = -1
"""The part whose lease says who drains the spool."""

ARCHIVE = -2
"""The part that stands for the archive: nobody claims it, but what fails there is noted."""

OutcomeCounts = Mapping[tuple[int, str, str], int]
"""(start of the hour in seconds since 1970, way, outcome) → number of hits."""

EventCounts = Mapping[EventKey, int]
"""How many messages were delivered, by event, hour and way."""

KEEP_COUNTS = 400 * DAY
"""Seconds for which counts are kept: a year, and a month to compare it with."""

MAX_BACK_OFF = 300.0
"""Seconds: the longest for which a flush backs off. Segment's SDKs honour a Retry-After up to that."""

FAR_AHEAD = 3_600.0
"""Seconds. No lease, back-off or hold lasts that long: one that ends later comes from a clock that was wrong, and
binds nobody."""


class Waiting(NamedTuple):
    """A message as it waits. ``key`` is the backend's own handle of it."""

    key: Any
    message_id: str
    body: bytes
    way: str
    created: int
    """When it was accepted, in milliseconds since 1970."""
    source: str = DEFAULT_SOURCE


Sendable = TypeVar("Sendable", Message, Waiting)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was given up. ``attempts`` is how often it was sent; ``buried`` in milliseconds since 1970."""

    message: Waiting
    reason: str
    attempts: int
    buried: int


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a batch may grow. Segment: 500 KB and 2,500 events; its SDKs stop at 475,000 bytes."""

    max_bytes: int = 475_000
    max_count: int = 2_500
    envelope: int = 200
    """Bytes that the batch's JSON needs around the messages."""


@dataclass(frozen=True, slots=True)
class LeaseState:
    """What is known of a part. Times in milliseconds since 1970; 0 is never."""

    part: int
    """Or SPOOL, or ARCHIVE."""
    owner: str = ""
    expires: int = 0
    not_before: int = 0
    """Nobody tries before then."""
    failures: int = 0
    """How many flushes have failed since one last delivered; of ARCHIVE, how many messages it lacks."""
    flushed: int = 0
    """When a flush last ended without trouble, also one that found nothing to send; none that had no time to begin."""
    error: str = ""
    error_at: int = 0


class LeaseLost(Exception):
    """Another flusher holds the part now. Stop before the next send."""


class TransactionBroken(BufferUnavailable):
    """The caller's own transaction takes nothing any more, so this put failed; the buffer may well be up."""


class Buffer(abc.ABC):
    """Where messages wait. Made once a process and shared by its threads.

    ``OPTIONS`` of the setting ``BUFFERS`` become keyword arguments of the constructor, which neither connects
    nor queries.
    """

    parts: int

    counting_costs: bool = False
    """Whether ``depth``, ``oldest`` and ``dead_letter_count`` cost money: nobody shall ask every few seconds."""

    def put(self, messages: Sequence[Message]) -> None:
        """Store the messages; they are durable when this returns. Concurrent calls are joined into one write.

        The same messageId never waits twice: an event by JavaScript takes the place of a provisional one (a
        pixel's) that still waits, anything else changes nothing. Raises BufferUnavailable.
        """
        if self.joins_writes():
            self._group_commit.put(messages)
        else:
            self.write(messages)

    @functools.cached_property
    def _group_commit(self) -> GroupCommit:
        return GroupCommit(self.write)

    def joins_writes(self) -> bool:
        """Whether this thread's messages may be written by another thread."""
        return True

    @abc.abstractmethod
    def write(self, messages: Sequence[Message]) -> None:
        """What ``put`` promises, for messages of one or many callers."""

    @abc.abstractmethod
    def claim(self, part: int, *, lease: float = 60.0) -> Claim | None:
        """Become the one flusher of a part for ``lease`` seconds; None while another is, or nobody may try."""

    @abc.abstractmethod
    def depth(self) -> int:
        """How many messages wait."""

    @abc.abstractmethod
    def oldest(self) -> int | None:
        """When the oldest waiting message was accepted, in milliseconds since 1970."""

    @abc.abstractmethod
    def waiting_messages(self) -> Iterator[Waiting]:
        """All that wait, in any order. Nobody is kept from sending them meanwhile."""

    @abc.abstractmethod
    def discard(self, message_ids: Sequence[str]) -> int:
        """Forget these waiting messages, undelivered; how many there were of them."""

    @abc.abstractmethod
    def leases(self) -> list[LeaseState]:
        """What is known of each part that was ever claimed, and of SPOOL and ARCHIVE."""

    @abc.abstractmethod
    def note_failure(self, part: int, error: str, number: int = 1) -> None:
        """Remember what went wrong where nobody holds a claim, and add to the part's failures."""

    @abc.abstractmethod
    def bury(self, messages: Sequence[Message], reason: str) -> None:
        """Keep the messages as dead letters, without that they ever wait. Raises BufferUnavailable."""

    @abc.abstractmethod
    def dead_letters(self) -> Iterator[DeadLetter]:
        """The messages that were given up, in the order in which they were."""

    @abc.abstractmethod
    def dead_letter_count(self, since: int = 0) -> int:
        """How many there are that were buried from then on, in milliseconds since 1970."""

    @abc.abstractmethod
    def remove_dead_letters(self, message_ids: Sequence[str]) -> int:
        """Forget these dead letters; how many there were of them."""

    @abc.abstractmethod
    def add_outcome_counts(self, counts: OutcomeCounts) -> None:
        """Add to the counts of outcomes."""

    @abc.abstractmethod
    def outcome_counts(self, since: int = 0) -> dict[tuple[int, str, str], int]:
        """The counts of outcomes of all hours from ``since`` (seconds since 1970), of KEEP_COUNTS at most."""

    @abc.abstractmethod
    def event_counts(self, since: int = 0) -> dict[EventKey, int]:
        """How many messages accepted from ``since`` (seconds since 1970) were delivered, of KEEP_COUNTS at most."""

    def way_counts(self, since: int, step: int = 3_600) -> dict[tuple[int, str, str], int]:
        """The same counts, of all events together: (start of the step, way, type) → number of messages.

        ``since`` starts an hour; the steps follow each other from there, each of so many seconds, whole hours.
        """
        counts: Counter[tuple[int, str, str]] = Counter()
        for key, number in self.event_counts(since).items():
            counts[key.hour - (key.hour - since) % step, key.way, key.type] += number
        return dict(counts)

    @abc.abstractmethod
    def set_event_counts(self, hour: int, counts: EventCounts) -> None:
        """Replace all counts of one hour by these."""

    def check(self) -> list[CheckMessage]:
        """What is wrong with this buffer's set-up, for ``manage.py check``. Does not connect."""
        return []


class Claim(abc.ABC):
    """One flusher's hold on one part. A context manager that lets go of the part at the end."""

    failures: int = 0
    """How many flushes of this part have failed since one last succeeded."""
    doubts: dict[str, int]
    """The messages that were sent and got no clear answer, so that they may have been delivered: messageId to
    when that was, in milliseconds since 1970."""
    max_doubts: float = math.inf
    """How many of them can be kept: of so many messages at once may the answer be outstanding."""

    def __init__(self, part: int, lease: float) -> None:
        self.part = part
        self.lease = lease
        self.owner = secrets.token_hex(8)
        self.doubts = {}

    @abc.abstractmethod
    def messages(self) -> Iterator[Waiting]:
        """The waiting messages of this part that may be sent now, oldest first where the backend can."""

    @abc.abstractmethod
    def renew(self) -> None:
        """Hold the part for another ``lease`` seconds from now. Raises LeaseLost."""

    @abc.abstractmethod
    def ack(self, batch: Sequence[Waiting]) -> None:
        """These were delivered: forget them, and count them by event, hour and way."""

    @abc.abstractmethod
    def bury(self, batch: Sequence[Waiting], reason: str, attempts: int) -> None:
        """These are given up: move them to the dead letters. ``attempts``: how often they were sent."""

    def doubt(self, batch: Sequence[Waiting]) -> None:
        """Remember, beyond this claim, that these may have been delivered."""
        now = now_ms()
        self.doubts = {**{message.message_id: now for message in batch}, **self.doubts}
        self.save_doubts()

    def _settle(self, batch: Sequence[Waiting]) -> None:
        """Forget the doubts about messages that have left the buffer."""
        if self.doubts:
            left = {message.message_id for message in batch}
            self.doubts = {message_id: since for message_id, since in self.doubts.items() if message_id not in left}
            self.save_doubts()

    @abc.abstractmethod
    def save_doubts(self) -> None:
        """Write ``doubts`` beside the lease."""

    @abc.abstractmethod
    def back_off(self, seconds: float, error: str = "") -> None:
        """Let go of the part because of this error, and let nobody try before then. MAX_BACK_OFF at most."""

    @abc.abstractmethod
    def release(self, *, flushed: bool = True) -> None:
        """Let go of the part, if it is still ours. ``flushed``: without trouble."""

    def batches(self, limits: Limits = Limits()) -> Iterator[list[Waiting]]:
        """The waiting messages in batches that Segment accepts, each for one source."""
        return in_batches(self.messages(), limits)

    def __enter__(self) -> Claim:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release(flushed=error is None)


def one_line(text: str) -> str:
    """At most 200 characters that every store takes: databases refuse NUL, or what their character set has not."""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text[:200])


def in_batches(messages: Iterable[Sendable], limits: Limits = Limits()) -> Iterator[list[Sendable]]:
    """The messages, in their order, in batches that Segment accepts, each for one source.

    After the first full batch, and each time that there are twice as many of them, the one that was begun first goes,
    full or not: a source of few messages need not wait until the backlog of another has been read to its end.
    """
    open_batches: dict[str, tuple[list[Sendable], int]] = {}
    """By source; the one that was begun first is the first."""
    full, overtaken_at = 0, 1
    for message in messages:
        batch, size = open_batches.get(message.source, ([], limits.envelope))
        if batch and (size + len(message.body) + 1 > limits.max_bytes or len(batch) >= limits.max_count):
            yield open_batches.pop(message.source)[0]
            full += 1
            if open_batches and full >= overtaken_at:
                yield open_batches.pop(next(iter(open_batches)))[0]
                overtaken_at = 2 * full
            batch, size = [], limits.envelope
        batch.append(message)
        open_batches[message.source] = batch, size + len(message.body) + 1
    yield from (batch for batch, _ in open_batches.values())


def unsent(message: Message, key: Any = None) -> Waiting:
    """A message that never waited, in the form in which it is buried."""
    return Waiting(key, message.message_id, message.body, message.way.value, now_ms(), message.source)


def is_due(not_before: int, now: int) -> bool:
    """Whether a message that is held until then may be sent now. Both in milliseconds since 1970."""
    return not_before <= now or not_before > now + FAR_AHEAD * 1000


def now_ms() -> int:
    """Milliseconds since 1970 (UTC)."""
    return time.time_ns() // 1_000_000
