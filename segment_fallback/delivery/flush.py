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
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from segment_fallback.buffers import buffers
from segment_fallback.buffers.accept import acceptance
from segment_fallback.buffers.base import MAX_BACK_OFF, Claim, LeaseLost, Limits, Waiting, now_ms
from segment_fallback.conf import get_settings
from segment_fallback.delivery.archiving import Archiving, begin_upkeep, end_upkeep
from segment_fallback.delivery.in_flight import Flight, InFlight
from segment_fallback.delivery.report import Report
from segment_fallback.delivery.suspicion import Suspicion
from segment_fallback.delivery.transport import Answer, Transports, Verdict
from segment_fallback.exceptions import BufferUnavailable
from segment_fallback.log import log_fields
from segment_fallback.signals import buried, delivered, tell
from segment_fallback.tracing import Span, span

logger = logging.getLogger("segment_fallback")

T = TypeVar("T")

FIRST_BACK_OFF = 0.5
MAX_OWN_BACK_OFF = 60.0
"""Seconds. The SDKs' backoff: 0.5 · 2ⁿ, at most 60; more only where Segment asks for it."""

FRESH = 1 / 240
"""The part of a lease for which nobody asks whether it is still ours: a quarter of a second of a minute. Others take
it when nothing of it is left."""

DEDUPLICATED = 23 * 3_600_000
"""Milliseconds for which Segment surely knows a messageId again: it says about 24 hours."""


stopping = threading.Event()
"""Set when this process is asked to end: flushes start no further batch, and let go of what they hold."""


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
    sends = settings.SENDS_IN_FLIGHT
    with Transports(sends) as transports, ThreadPoolExecutor(sends, "segment_fallback.send") as pool:
        # In another order each time: what lies behind a backlog longer than the budget has its turn, too.
        for alias in _shuffled(buffers if aliases is None else aliases):
            buffer = buffers[alias]
            for part in _shuffled(range(buffer.parts) if parts is None else parts):
                if _is_over(deadline):
                    report.unfinished = True
                    break
                try:
                    claim = buffer.claim(part, lease=lease)
                    if claim is None:
                        report.busy += 1
                        continue
                    with span("flush", buffer=alias, part=part) as current, claim:
                        Flusher(claim, transports, InFlight(pool), report, deadline).run(current)
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


def _shuffled(these: Iterable[T]) -> list[T]:
    several = list(these)
    random.shuffle(several)
    return several


def _is_over(deadline: float) -> bool:
    """Whether no further batch shall be started."""
    return time.monotonic() > deadline or stopping.is_set()


def share_out(start: Callable[[str, int], object]) -> str:
    """What a scheduled task does: flush the only part that there is, or ``start`` a task for each of several, by alias
    and number, and do what is to be done once. Returns a line for the worker's log."""
    parts = [(alias, part) for alias in buffers for part in range(buffers[alias].parts)]
    if len(parts) == 1:
        return str(flush())
    report = Report()
    begin_upkeep()
    drain(report, lease=4 * get_settings().SEND_TIMEOUT)
    for alias, part in parts:
        start(alias, part)
    return f"{len(parts)} parts to flush; {report}"


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
    """Flushes the one part that it has claimed. Trouble with one source does not stop the others.

    Only the requests to Segment are made in other threads: whatever an answer means for the claim is done here, in
    the order send, archive, acknowledge.
    """

    def __init__(
        self, claim: Claim, transports: Transports, in_flight: InFlight, report: Report, deadline: float
    ) -> None:
        self._claim = claim
        self._transports = transports
        self._in_flight = in_flight
        self._report = report
        self._deadline = deadline
        self._archiving = Archiving(claim)
        self._to_send: list[Flight] = []
        """The next one last."""
        # After a failure one batch tries whether Segment is well again.
        self._sends = 1 if claim.failures else get_settings().SENDS_IN_FLIGHT
        self._suspicion = Suspicion(claim.failures)
        self._stopped: dict[str, Answer] = {}
        self._renewed = 0

    def run(self, current: Span) -> None:
        """Send what there is, and say in the span how it went."""
        before = self._report.delivered, self._report.buried
        try:
            self._send_all()
        finally:
            # However it ended: each answer to what was sent is heeded, and what was delivered is acknowledged.
            try:
                self._hear_the_rest()
            finally:
                try:
                    self._archiving.settle()
                finally:
                    self._report.unarchived += self._archiving.missing
                    current.set(delivered=self._report.delivered - before[0], buried=self._report.buried - before[1])
        if self._stopped:
            current.fail(self._report.trouble)
            self._claim.back_off(self._back_off(), self._report.trouble)

    def _send_all(self) -> None:
        for number, batch in enumerate(self._claim.batches(Limits())):
            if _is_over(self._deadline):
                self._report.unfinished = True
                if not number:
                    self._claim.release(flushed=False)  # nobody shall take it for served
                break
            transport = self._transports[batch[0].source]
            if transport is None:
                detail = f"messages wait for the source {batch[0].source!r}, which has no write key"
                self._stop(batch[0].source, Answer(Verdict.MISCONFIGURED, detail=detail))
            elif batch[0].source not in self._stopped and (fresh := self._without_stale(batch)):
                self._to_send.append(Flight(fresh, transport))
                self._send()
        while self._in_flight:
            self._listen()
            self._send()

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

    def _send(self) -> None:
        """Send what is to be sent, each batch as soon as it may join those that are in flight."""
        while self._to_send:
            while self._in_flight and not self._may_join(self._to_send[-1]):
                self._listen()
            flight = self._to_send.pop()
            if stopping.is_set():
                self._report.unfinished = True
            elif flight.source not in self._stopped:
                self._renew()
                self._in_flight.start(flight, self._claim.failures)

    def _renew(self) -> None:
        now = now_ms()  # the clock of leases, which goes on while a machine sleeps
        if not 0 <= now - self._renewed < self._claim.lease * 1000 * FRESH:
            self._claim.renew()
            self._renewed = now

    def _may_join(self, flight: Flight) -> bool:
        if flight.halvings:
            return False  # the search goes one by one, so that dead letters are in their order
        # Should no answer be clear, there must be room for all these doubts.
        doubts = self._in_flight.messages + len(flight.batch)
        return len(self._in_flight) < self._sends and doubts <= self._claim.max_doubts

    def _listen(self) -> None:
        """Heed the answers that have come, or else the next one. Raises LeaseLost."""
        if not self._in_flight.wait(0):
            self._archiving.acknowledge()
            while not self._in_flight.wait(self._claim.lease / 4):
                self._renew()
        for flight, answer in self._in_flight.landed():
            self._heed(flight, answer)

    def _hear_the_rest(self) -> None:
        """Heed the answers that have not come yet, each whatever happens to the others. Sends nothing more."""
        with contextlib.ExitStack() as answers:
            while self._in_flight:
                self._in_flight.wait(None)
                for flight, answer in self._in_flight.landed():
                    answers.callback(self._heed, flight, answer)

    def _heed(self, flight: Flight, future: Future[Answer]) -> None:
        batch, answer = flight.batch, future.result()
        if answer.verdict is Verdict.DELIVERED:
            self._sends = get_settings().SENDS_IN_FLIGHT
            self._suspicion.passed = True
            self._archiving.add(batch)
            self._report.delivered += len(batch)
            self._report.batches += 1
            tell(delivered, Waiting, source=flight.source, messages=batch)
        elif answer.verdict is not Verdict.REFUSED:
            if answer.doubtful:
                self._claim.doubt(batch)
            if not self._suspicion.falls_on(flight, answer):
                self._stop(flight.source, answer)
            elif len(batch) > 1:
                # The newer half first: what is in the way has been waiting for long.
                self._to_send += flight.halves()
            else:
                self._leave(flight.source, answer)
        elif len(batch) == 1:
            self._bury(batch, self._claim.failures + flight.halvings + 1, answer.detail)
        else:
            # Segment refuses a batch for the sake of one message: find it, and deliver the others.
            self._to_send += reversed(flight.halves())

    def _leave(self, source: str, answer: Answer) -> None:
        """Let one message wait that fails where others pass."""
        self._report.trouble = answer.detail
        extra = log_fields("left_waiting", part=self._claim.part, source=source, reason=answer.detail)
        logger.warning(
            "a message of part %d waits on, without the others: %s", self._claim.part, answer.detail, extra=extra
        )

    def _bury(self, batch: Sequence[Waiting], attempts: int, reason: str) -> None:
        self._claim.bury(batch, reason, attempts)
        self._report.buried += len(batch)
        extra = log_fields("buried", number=len(batch), source=batch[0].source, reason=reason)
        logger.error("%d messages are dead letters now: %s", len(batch), reason, extra=extra)
        tell(buried, Waiting, source=batch[0].source, messages=batch, reason=reason)

    def _stop(self, source: str, answer: Answer) -> None:
        """Send nothing more to this source, and let the part wait when the others have been served."""
        self._report.misconfigured |= answer.verdict is Verdict.MISCONFIGURED
        known = self._stopped.get(source)
        # Of several that were in flight, the one that asks for the longest wait counts.
        if known is None or (answer.retry_after or 0) > (known.retry_after or 0):
            self._stopped[source] = answer
            self._report.trouble = answer.detail

    def _back_off(self) -> float:
        """Seconds for which the part waits, for the sake of the source that needs it most."""
        own = min(FIRST_BACK_OFF * 2**self._claim.failures, MAX_OWN_BACK_OFF)
        part, failures, longest = self._claim.part, self._claim.failures + 1, 0.001
        for source, answer in self._stopped.items():
            seconds = own * random.uniform(0.75, 1.25)  # noqa: S311 - jitter
            if answer.retry_after is not None:
                seconds = min(float(answer.retry_after), MAX_BACK_OFF)
            named = {"part": part, "source": source, "seconds": seconds, "failures": failures, "reason": answer.detail}
            text = "part %d waits %.1f s before it tries again: %s"
            logger.warning(text, part, seconds, answer.detail, extra=log_fields("backing_off", **named))
            longest = max(longest, seconds)
        return longest
