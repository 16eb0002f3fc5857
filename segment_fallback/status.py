"""How the pipeline does, read in one go: for the dashboard, health checks, metrics and the doctor."""

from __future__ import annotations

import enum
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from django.core.exceptions import ImproperlyConfigured

from segment_fallback.buffers import buffers
from segment_fallback.buffers.accept import acceptance
from segment_fallback.buffers.base import ARCHIVE, FAR_AHEAD, LeaseState, now_ms, one_line
from segment_fallback.buffers.spool import spooled_at
from segment_fallback.conf import Settings, get_settings
from segment_fallback.exceptions import SegmentFallbackError

HOUR = 3_600_000
"""Milliseconds."""

FRESH = 5.0
"""Seconds for which a process believes its last look."""
LAST = 60.0
"""Seconds for which it does so while a thread of it is looking anew."""
WAIT = 2.0
"""Seconds that other threads wait for that one, where nothing as recent is known."""

MINUTE = 60
FIRST_MINUTE = 7
"""A part that fails backs off for about a minute, and for less only at its first failures."""


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
    counted: bool = True
    """Whether messages and dead letters were counted. If not, they are 0 here, whatever there is."""

    @property
    def flushed(self) -> int:
        """When a flush was last seen to end, with or without trouble; 0 is never."""
        return max((max(state.flushed, state.error_at) for state in self.leases if state.part >= 0), default=0)

    @property
    def trouble(self) -> LeaseState | None:
        """The part with the last error, if it has not delivered since."""
        failing = [state for state in self.leases if state.part >= 0 and state.failures]
        return max(failing, key=lambda state: state.error_at, default=None)

    def is_flushed_at(self, at: int) -> bool:
        """Whether somebody holds a part then: a flush of a large backlog may take long."""
        last = at + FAR_AHEAD * 1000
        return any(state.part >= 0 and state.owner and at < state.expires <= last for state in self.leases)

    def undelivered(self, at: int) -> float:
        """Seconds for which, by the leases alone, a part has tried in vain; 0 where none has."""
        failing = (state for state in self.leases if state.part >= 0 and state.failures)
        return max((_vain(state, at) for state in failing), default=0.0)


def _vain(state: LeaseState, at: int) -> float:
    if state.flushed:
        return (at - state.flushed) / 1000
    return max(state.failures - FIRST_MINUTE, 0) * MINUTE


@dataclass(frozen=True, kw_only=True)
class SpoolStatus:
    """What waits outside of the buffer. Times in milliseconds since 1970."""

    files: int = 0
    bytes: int = 0
    oldest: int | None = None
    """When the oldest of them was written."""
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
        times = [self.spool.oldest, *(buffer.oldest for buffer in self.buffers)]
        return min((moment for moment in times if moment is not None), default=None)

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
        if self._misses_flush(settings):
            silence = (self.at - self.flushed) / 1000
            seen = f"the last flush was seen {silence:.0f} s ago" if self.flushed else "no flush was ever seen"
            yield Problem(Ailment.FLUSH_NOT_SEEN, f"{seen}, and messages wait" if self.waiting else seen)
        vain = max((buffer.undelivered(self.at) for buffer in self.buffers if not buffer.counted), default=0.0)
        if self.age > settings.HEALTH_MAX_AGE + settings.hold:  # a message that is held waits as it should
            yield Problem(Ailment.MESSAGE_TOO_OLD, f"the oldest message has waited {self.age:.0f} s")
        elif vain > settings.HEALTH_MAX_AGE:
            yield Problem(Ailment.MESSAGE_TOO_OLD, f"a part has tried in vain for {vain:.0f} s")
        if buried := sum(buffer.buried for buffer in self.buffers):
            yield Problem(Ailment.DEAD_LETTERS, f"new dead letters within the hour: {buried}")

    def _misses_flush(self, settings: Settings) -> bool:
        if any(buffer.is_flushed_at(self.at) for buffer in self.buffers):
            return False
        if settings.COLLECT == "forward" and not self.waiting:
            return False  # a site without a flush needs none
        if not self.flushed:
            # Where nobody counts, nobody knows that nothing waits.
            blind = not any(buffer.counted or buffer.error for buffer in self.buffers)
            return blind or self.age > settings.HEALTH_MAX_SILENCE + settings.hold
        return self.at - self.flushed > settings.HEALTH_MAX_SILENCE * 1000


def read_status(*, counting: bool = True) -> Status:
    """Ask every buffer and the spool. What does not answer is said in the status; nothing raises.

    ``counting``: also count what only the read of a whole table tells, as in DynamoDB; else such a buffer is asked for
    its leases only.
    """
    at = now_ms()
    return Status(at=at, buffers=[_buffer(alias, at, counting) for alias in buffers], spool=_spool())


class Look:
    """A look that the threads of a process share: nobody can make them ask the buffers more often than now and then."""

    def __init__(self, *, counting: bool) -> None:
        self._counting = counting
        self.forget()

    def forget(self) -> None:
        """For the child of a fork, and for tests."""
        self._lock = threading.Lock()
        self._last: tuple[float, Status] | None = None

    def status(self) -> Status | None:
        """The status, some seconds old at most; None where another thread has been waiting for one, too."""
        known = self._since(FRESH)
        if known is not None:
            return known
        lock = self._lock
        if not lock.acquire(timeout=0 if self._since(LAST) else WAIT):
            return self._since(LAST)
        try:
            known = self._since(FRESH)
            if known is None:
                known = read_status(counting=self._counting)
                self._last = time.monotonic(), known
            return known
        finally:
            lock.release()

    def _since(self, seconds: float) -> Status | None:
        last = self._last
        return last[1] if last is not None and time.monotonic() - last[0] < seconds else None


cheap, full = Look(counting=False), Look(counting=True)
"""This process's looks: one by what costs little everywhere, one that counts."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=cheap.forget)
    os.register_at_fork(after_in_child=full.forget)


def _buffer(alias: str, at: int, counting: bool) -> BufferStatus:
    try:
        buffer = buffers[alias]
        known = BufferStatus(alias=alias, parts=buffer.parts, leases=buffer.leases(), counted=False)
        if buffer.counting_costs and not counting:
            return known
        return replace(
            known,
            waiting=buffer.depth(),
            oldest=buffer.oldest(),
            dead_letters=buffer.dead_letter_count(),
            buried=buffer.dead_letter_count(since=at - HOUR),
            counted=True,
        )
    except Exception as error:  # noqa: BLE001 - wrong settings, or what a backend of the site's own raises
        return BufferStatus(alias=alias, parts=0, counted=False, error=_told(error))


def _spool() -> SpoolStatus:
    try:
        files = acceptance.spool.files()
        oldest = int(spooled_at(files[0]) * 1000) if files else None
        return SpoolStatus(files=len(files), bytes=acceptance.spool.size(), oldest=oldest)
    except Exception as error:  # noqa: BLE001 - storages raise what they like
        return SpoolStatus(error=_told(error))


def _told(error: Exception) -> str:
    """In one line; of what is not ours only the name: its text may quote a row."""
    known = isinstance(error, (SegmentFallbackError, ImproperlyConfigured))
    return one_line(str(error)) if known else type(error).__name__
