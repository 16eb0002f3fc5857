"""How the pipeline does, read in one go: for the dashboard, health checks, metrics and the doctor."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field

from segment_fallback.buffers import buffers
from segment_fallback.buffers.accept import acceptance
from segment_fallback.buffers.base import ARCHIVE, LeaseState, now_ms
from segment_fallback.conf import get_settings
from segment_fallback.exceptions import BufferUnavailable

HOUR = 3_600_000
"""Milliseconds."""


@dataclass(frozen=True, kw_only=True)
class BufferStatus:
    """What one buffer holds. Times in milliseconds since 1970. Where it did not answer, ``error`` says why."""

    alias: str
    parts: int
    waiting: int = 0
    oldest: int | None = None
    """When the oldest waiting message was accepted."""
    dead_letters: int = 0
    buried: int = 0
    """Of them, within the last hour."""
    leases: list[LeaseState] = field(default_factory=list)
    error: str = ""

    @property
    def flushed(self) -> int:
        """When a flush was last seen to end, with or without trouble; 0 is never."""
        return max((max(state.flushed, state.error_at) for state in self.leases if state.part >= 0), default=0)

    @property
    def trouble(self) -> LeaseState | None:
        """The part with the last error, if it has not delivered since."""
        failing = [state for state in self.leases if state.part >= 0 and state.failures]
        return max(failing, key=lambda state: state.error_at, default=None)


@dataclass(frozen=True, kw_only=True)
class SpoolStatus:
    """What waits outside of the buffer."""

    files: int = 0
    bytes: int = 0
    error: str = ""


class Ailment(str, enum.Enum):
    """What can be wrong. The value is the word in health answers and metrics."""

    BUFFER_DOWN = "buffer_down"
    SPOOL_DOWN = "spool_down"
    MESSAGE_TOO_OLD = "message_too_old"
    FLUSH_NOT_SEEN = "flush_not_seen"
    DEAD_LETTERS = "dead_letters"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong now, in one line."""

    ailment: Ailment
    detail: str


@dataclass(frozen=True, kw_only=True)
class Status:
    """All of it, at one moment (milliseconds since 1970)."""

    at: int
    buffers: list[BufferStatus]
    spool: SpoolStatus

    @property
    def waiting(self) -> int:
        return sum(buffer.waiting for buffer in self.buffers)

    @property
    def oldest(self) -> int | None:
        return min((buffer.oldest for buffer in self.buffers if buffer.oldest is not None), default=None)

    @property
    def age(self) -> float:
        """Seconds for which the oldest message has waited; 0 where none waits."""
        return 0.0 if self.oldest is None else max(self.at - self.oldest, 0) / 1000

    @property
    def dead_letters(self) -> int:
        return sum(buffer.dead_letters for buffer in self.buffers)

    @property
    def flushed(self) -> int:
        """When a flush of any buffer was last seen to end; 0 is never."""
        return max(buffer.flushed for buffer in self.buffers)

    @property
    def unarchived(self) -> int:
        """How many delivered messages the archive lacks, because it failed."""
        states = (state for buffer in self.buffers for state in buffer.leases)
        return sum(state.failures for state in states if state.part == ARCHIVE)

    @property
    def problems(self) -> list[Problem]:
        """What is wrong by the limits of HEALTH_MAX_AGE and HEALTH_MAX_SILENCE, worst first."""
        return list(self._problems())

    def _problems(self) -> Iterator[Problem]:
        settings = get_settings()
        for buffer in self.buffers:
            if buffer.error:
                yield Problem(Ailment.BUFFER_DOWN, f"buffer {buffer.alias!r}: {buffer.error}")
        if self.spool.error:
            yield Problem(Ailment.SPOOL_DOWN, self.spool.error)
        silence = (self.at - self.flushed) / 1000
        if not self.flushed and self.age > settings.HEALTH_MAX_SILENCE:
            yield Problem(Ailment.FLUSH_NOT_SEEN, "messages wait, and no flush was ever seen")
        elif self.flushed and silence > settings.HEALTH_MAX_SILENCE:
            yield Problem(Ailment.FLUSH_NOT_SEEN, f"the last flush was seen {silence:.0f} s ago")
        if self.age > settings.HEALTH_MAX_AGE:
            yield Problem(Ailment.MESSAGE_TOO_OLD, f"the oldest message has waited {self.age:.0f} s")
        if buried := sum(buffer.buried for buffer in self.buffers):
            yield Problem(Ailment.DEAD_LETTERS, f"{buried} messages became dead letters within the hour")


def read_status() -> Status:
    """Ask every buffer and the spool. What does not answer is said in the status; nothing raises."""
    at = now_ms()
    return Status(at=at, buffers=[_buffer(alias, at) for alias in buffers], spool=_spool())


def _buffer(alias: str, at: int) -> BufferStatus:
    buffer = buffers[alias]
    try:
        return BufferStatus(
            alias=alias,
            parts=buffer.parts,
            waiting=buffer.depth(),
            oldest=buffer.oldest(),
            dead_letters=buffer.dead_letter_count(),
            buried=buffer.dead_letter_count(since=at - HOUR),
            leases=buffer.leases(),
        )
    except BufferUnavailable as error:
        return BufferStatus(alias=alias, parts=buffer.parts, error=str(error))


def _spool() -> SpoolStatus:
    try:
        return SpoolStatus(files=len(acceptance.spool.files()), bytes=acceptance.spool.size())
    except BufferUnavailable as error:
        return SpoolStatus(error=str(error))
