"""Empties the buffers: claim a part, send its messages in batches, acknowledge what was delivered.

Whoever runs it, however often and wherever it is killed: a message leaves its buffer only after Segment took
it, or as a dead letter with Segment's reason.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from segment_fallback.buffers import buffers
from segment_fallback.buffers.accept import acceptance
from segment_fallback.buffers.base import MAX_BACK_OFF, Claim, LeaseLost, Limits, Waiting, now_ms
from segment_fallback.conf import get_settings, get_source
from segment_fallback.delivery.archiving import Archiving, begin_upkeep, end_upkeep
from segment_fallback.delivery.transport import Answer, Transport, Verdict
from segment_fallback.exceptions import BufferUnavailable
from segment_fallback.log import log_fields
from segment_fallback.signals import buried, delivered, tell
from segment_fallback.tracing import Span, span

logger = logging.getLogger("segment_fallback")

FIRST_BACK_OFF = 0.5
MAX_OWN_BACK_OFF = 60.0
"""Seconds. The SDKs' backoff: 0.5 · 2ⁿ, at most 60; more only where Segment asks for it."""

DEDUPLICATED = 23 * 3_600_000
"""Milliseconds for which Segment surely knows a messageId again: it says about 24 hours."""


stopping = threading.Event()
"""Set when this process is asked to end: flushes start no further batch, and let go of what they hold."""


@dataclass
class Report:
    """What a flush did. ``trouble`` is the last thing that went wrong, in one line, or empty."""

    delivered: int = 0
    batches: int = 0
    buried: int = 0
    busy: int = 0
    """Parts that another flusher holds, or that wait before they try again."""
    unspooled: int = 0
    """Messages that came back from the spool into the buffer."""
    unarchived: int = 0
    """Messages that were delivered, and that the archive will never have."""
    trouble: str = ""

    def __str__(self) -> str:
        text = f"{self.delivered} delivered in {self.batches} batches, {self.buried} dead letters"
        if self.unspooled:
            text += f", {self.unspooled} drained from the spool"
        if self.unarchived:
            text += f", {self.unarchived} missing in the archive"
        if self.busy:
            text += f", {self.busy} parts busy or backing off"
        return f"{text}; {self.trouble}" if self.trouble else text


class Transports(contextlib.ExitStack):
    """The transport of each source, opened at its first use and kept for the length of a flush."""

    def __init__(self) -> None:
        super().__init__()
        self._opened: dict[str, Transport | None] = {}

    def __getitem__(self, alias: str) -> Transport | None:
        """The transport of a source; None where the settings know no such source."""
        if alias not in self._opened:
            source = get_source(alias)
            self._opened[alias] = self.enter_context(Transport(source, get_settings())) if source else None
        return self._opened[alias]


def flush(
    aliases: Iterable[str] | None = None, *, parts: Iterable[int] | None = None, budget: float | None = None
) -> Report:
    """Flush the buffers named, by default all; of each the parts named, or else all of them and the spool too.

    ``budget``: seconds after which no further batch is started; by default FLUSH_BUDGET. Trouble with Segment
    or with a buffer does not raise; it is logged and in the report.
    """
    settings = get_settings()
    report = Report()
    deadline = time.monotonic() + (settings.FLUSH_BUDGET if budget is None else budget)
    lease = 4 * settings.SEND_TIMEOUT
    upkeep = None
    if parts is None:
        upkeep = begin_upkeep()
        drain(report, lease)
    with Transports() as transports:
        for alias in list(buffers) if aliases is None else aliases:
            buffer = buffers[alias]
            for part in range(buffer.parts) if parts is None else parts:
                try:
                    claim = buffer.claim(part, lease=lease)
                    if claim is None:
                        report.busy += 1
                        continue
                    with span("flush", buffer=alias, part=part) as current, claim:
                        Flusher(claim, transports, report, deadline).run(current)
                except LeaseLost as error:
                    report.trouble = str(error)
                    logger.warning("flush of %r stops: %s", alias, error, extra=_about("lease_lost", alias, error))
                except BufferUnavailable as error:
                    report.trouble = str(error)
                    logger.error("flush of %r failed: %s", alias, error, extra=_about("flush_failed", alias, error))
                    break
    if upkeep is not None and not stopping.is_set():
        end_upkeep(upkeep)
    return report


def _about(event: str, alias: str, error: Exception) -> Mapping[str, object]:
    return log_fields(event, buffer=alias, reason=str(error))


def drain(report: Report, lease: float) -> None:
    """Bring what the spool holds back into the buffer."""
    try:
        report.unspooled = acceptance.drain(lease)
    except (BufferUnavailable, LeaseLost) as error:
        report.trouble = str(error)
        logger.error("the spool could not be drained: %s", error, extra=log_fields("drain_failed", reason=str(error)))


class Flusher:
    """Flushes the one part that it has claimed. Trouble with one source does not stop the others."""

    def __init__(self, claim: Claim, transports: Transports, report: Report, deadline: float) -> None:
        self._claim = claim
        self._transports = transports
        self._report = report
        self._deadline = deadline
        self._archiving = Archiving(claim)
        self._stopped: set[str] = set()
        self._back_off = 0.0

    def run(self, current: Span) -> None:
        """Send what there is, and say in the span how it went."""
        before = self._report.delivered, self._report.buried
        try:
            self._send_all()
        finally:
            # However it ended: what was sent is acknowledged.
            try:
                self._archiving.settle()
            finally:
                self._report.unarchived += self._archiving.missing
                current.set(delivered=self._report.delivered - before[0], buried=self._report.buried - before[1])
        if self._back_off:
            current.fail(self._report.trouble)
            self._claim.back_off(self._back_off, self._report.trouble)

    def _send_all(self) -> None:
        for batch in self._claim.batches(Limits()):
            if time.monotonic() > self._deadline or stopping.is_set():
                break
            transport = self._transports[batch[0].source]
            if transport is None:
                self._stop(batch[0].source, f"messages wait for the source {batch[0].source!r}, which has no write key")
            elif batch[0].source not in self._stopped:
                self._deliver(self._without_stale(batch), transport)

    def _without_stale(self, batch: Sequence[Waiting]) -> Sequence[Waiting]:
        """The batch, less what may have been delivered so long ago that Segment would count it again."""
        if not self._claim.doubts or get_settings().RESEND_STALE:
            return batch
        forgotten = now_ms() - DEDUPLICATED
        stale = [m for m in batch if self._claim.doubts.get(m.message_id, forgotten) < forgotten]
        if not stale:
            return batch
        self._bury(stale, self._claim.failures, "may have been delivered, too long ago for Segment to know it again")
        buried = {message.message_id for message in stale}
        return [message for message in batch if message.message_id not in buried]

    def _deliver(self, batch: Sequence[Waiting], transport: Transport, halvings: int = 0) -> None:
        if not batch or batch[0].source in self._stopped or stopping.is_set():
            return
        self._claim.renew()
        answer = transport.send([message.body for message in batch], retry_count=self._claim.failures)
        if answer.verdict is Verdict.DELIVERED:
            self._archiving.add(batch)
            self._report.delivered += len(batch)
            self._report.batches += 1
            tell(delivered, Waiting, source=batch[0].source, messages=batch)
        elif answer.verdict is not Verdict.REFUSED:
            if answer.doubtful:
                self._claim.doubt(batch)
            self._stop(batch[0].source, answer.detail, answer)
        elif len(batch) == 1:
            self._bury(batch, self._claim.failures + halvings + 1, answer.detail)
        else:
            # Segment refuses a batch for the sake of one message: find it, and deliver the others.
            middle = len(batch) // 2
            self._deliver(batch[:middle], transport, halvings + 1)
            self._deliver(batch[middle:], transport, halvings + 1)

    def _bury(self, batch: Sequence[Waiting], attempts: int, reason: str) -> None:
        self._claim.bury(batch, reason, attempts)
        self._report.buried += len(batch)
        extra = log_fields("buried", number=len(batch), source=batch[0].source, reason=reason)
        logger.error("%d messages are dead letters now: %s", len(batch), reason, extra=extra)
        tell(buried, Waiting, source=batch[0].source, messages=batch, reason=reason)

    def _stop(self, source: str, detail: str, answer: Answer | None = None) -> None:
        """Send nothing more to this source, and let the part wait when the others have been served."""
        if source in self._stopped:
            return
        self._stopped.add(source)
        seconds = min(FIRST_BACK_OFF * 2**self._claim.failures, MAX_OWN_BACK_OFF) * random.uniform(0.75, 1.25)  # noqa: S311 - jitter
        if answer is not None and answer.retry_after is not None:
            seconds = min(float(answer.retry_after), MAX_BACK_OFF)
        self._back_off = max(self._back_off, seconds, 0.001)
        self._report.trouble = detail
        part, failures = self._claim.part, self._claim.failures + 1
        extra = log_fields("backing_off", part=part, source=source, seconds=seconds, failures=failures, reason=detail)
        logger.warning("part %d waits %.1f s before it tries again: %s", part, seconds, detail, extra=extra)
