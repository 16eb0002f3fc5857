"""Empties the buffers: claim a part, send its messages in batches, acknowledge what was delivered.

Whoever runs it, however often and wherever it is killed: a message leaves its buffer only after Segment took
it, or as a dead letter with Segment's reason.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from segment_fallback.buffers import buffers
from segment_fallback.buffers.accept import acceptance
from segment_fallback.buffers.base import MAX_BACK_OFF, Claim, LeaseLost, Waiting
from segment_fallback.conf import get_settings
from segment_fallback.delivery.transport import Answer, Transport, Verdict
from segment_fallback.exceptions import BufferUnavailable

logger = logging.getLogger("segment_fallback")

FIRST_BACK_OFF = 0.5
MAX_OWN_BACK_OFF = 60.0
"""Seconds. The SDKs' backoff: 0.5 · 2ⁿ, at most 60; more only where Segment asks for it."""


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
    trouble: str = ""

    def __str__(self) -> str:
        text = f"{self.delivered} delivered in {self.batches} batches, {self.buried} dead letters"
        if self.unspooled:
            text += f", {self.unspooled} drained from the spool"
        if self.busy:
            text += f", {self.busy} parts busy or backing off"
        return f"{text}; {self.trouble}" if self.trouble else text


def flush(aliases: Iterable[str] | None = None, *, budget: float | None = None) -> Report:
    """Flush every part of the buffers named, by default of all.

    ``budget``: seconds after which no further batch is started; by default FLUSH_BUDGET. Trouble with Segment
    or with a buffer does not raise; it is logged and in the report.
    """
    settings = get_settings()
    report = Report()
    if not settings.WRITE_KEY:
        report.trouble = "no WRITE_KEY is set: there is no source to send to"
        return report
    deadline = time.monotonic() + (settings.FLUSH_BUDGET if budget is None else budget)
    lease = 4 * settings.SEND_TIMEOUT
    try:
        report.unspooled = acceptance.drain(lease)
    except (BufferUnavailable, LeaseLost) as error:
        report.trouble = str(error)
        logger.error("the spool could not be drained: %s", error)
    with Transport(settings) as transport:
        for alias in list(buffers) if aliases is None else aliases:
            buffer = buffers[alias]
            for part in range(buffer.parts):
                try:
                    claim = buffer.claim(part, lease=lease)
                    if claim is None:
                        report.busy += 1
                        continue
                    with claim:
                        Flusher(claim, transport, report, deadline).run()
                except LeaseLost as error:
                    report.trouble = str(error)
                    logger.warning("flush of %r stops: %s", alias, error)
                except BufferUnavailable as error:
                    report.trouble = str(error)
                    logger.error("flush of %r failed: %s", alias, error)
                    break
    return report


class Flusher:
    """Flushes the one part that it has claimed."""

    def __init__(self, claim: Claim, transport: Transport, report: Report, deadline: float) -> None:
        self._claim = claim
        self._transport = transport
        self._report = report
        self._deadline = deadline

    def run(self) -> None:
        for batch in self._claim.batches(self._transport.limits):
            if time.monotonic() > self._deadline or not self._deliver(batch):
                return

    def _deliver(self, batch: Sequence[Waiting]) -> bool:
        """Send a batch; whether to go on with the part."""
        self._claim.renew()
        answer = self._transport.send([message.body for message in batch], retry_count=self._claim.failures)
        if answer.verdict is Verdict.DELIVERED:
            self._claim.ack(batch)
            self._report.delivered += len(batch)
            self._report.batches += 1
            return True
        if answer.verdict is Verdict.REFUSED:
            return self._halve(batch, answer)
        self._back_off(answer)
        return False

    def _halve(self, batch: Sequence[Waiting], answer: Answer) -> bool:
        """Segment refuses a batch for the sake of one message: find it, bury it, deliver the others."""
        if len(batch) == 1:
            self._claim.bury(batch, answer.detail)
            self._report.buried += 1
            logger.error("a message of %d bytes is a dead letter now: %s", len(batch[0].body), answer.detail)
            return True
        middle = len(batch) // 2
        return self._deliver(batch[:middle]) and self._deliver(batch[middle:])

    def _back_off(self, answer: Answer) -> None:
        own = min(FIRST_BACK_OFF * 2**self._claim.failures, MAX_OWN_BACK_OFF) * random.uniform(0.75, 1.25)  # noqa: S311 - jitter
        seconds = min(float(answer.retry_after), MAX_BACK_OFF) if answer.retry_after is not None else own
        self._claim.back_off(seconds)
        self._report.trouble = answer.detail
        logger.warning("part %d waits %.1f s before it tries again: %s", self._claim.part, seconds, answer.detail)
