"""Posts a visitor's events to Segment while the visitor's request waits: COLLECT "forward".

What it says is delivered Segment has; of the rest it says why. A request waits a few seconds at most, and while
Segment does not answer only one of a process's threads at a time finds that out: the others are told at once.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from segment_fallback.buffers.base import MAX_BACK_OFF, Limits, in_batches
from segment_fallback.conf import Settings, Source, get_settings, get_source
from segment_fallback.delivery.transport import Answer, Transport, Verdict
from segment_fallback.log import log_fields
from segment_fallback.message import Message
from segment_fallback.signals import delivered as delivered_signal
from segment_fallback.signals import received, tell

logger = logging.getLogger("segment_fallback")

CONNECT_TIMEOUT = 1.5
ANSWER_TIMEOUT = 3.0
"""Seconds; SEND_TIMEOUT where that is less. Segment takes a fifth of a second from another continent."""

BUDGET = 3.0
"""Seconds after which a request starts no further post: of a batch that is too large, or that Segment refuses."""

CONNECTIONS = 100
"""How many a process keeps open to a source; more threads than that at once open their own."""

FIRST_PAUSE = 0.5
MAX_PAUSE = 60.0
"""Seconds: the SDKs' backoff, 0.5 · 2ⁿ, at most 60."""

AS_LONG_AGAIN = 3.0
"""A pause is at least so many times the wait that led to it: a quarter of one thread's time at most is waited for a
Segment that is silent."""


@dataclass(frozen=True)
class Forwarded:
    """What became of the messages: so many delivered, so many refused by Segment, and the rest not taken.

    ``answer`` is why not, where there is a rest.
    """

    delivered: int = 0
    refused: int = 0
    answer: Answer | None = None


def forward(messages: Sequence[Message]) -> Forwarded:
    """Post the messages, all of one source, to Segment now. Never raises for what Segment or the network does."""
    line, delivered, refused = lines[messages[0].source], 0, 0
    deadline = time.monotonic() + BUDGET
    # The next one last.
    batches = [*in_batches(messages, Limits(envelope=line.envelope))][::-1]
    while batches:
        batch = batches.pop()
        answer = line.send(batch) if time.monotonic() < deadline else Answer(Verdict.RETRY, detail="no time is left")
        if answer.verdict is Verdict.DELIVERED:
            delivered += len(batch)
            tell(received, Message, messages=batch)
            tell(delivered_signal, Message, source=batch[0].source, messages=batch)
        elif answer.verdict is not Verdict.REFUSED:
            return Forwarded(delivered, refused, answer)
        elif len(batch) > 1:
            # Segment refuses a batch for the sake of one message: find it, and deliver the others.
            middle = len(batch) // 2
            batches += [batch[middle:], batch[:middle]]
        else:
            refused += 1
            extra = log_fields("segment_refused", source=batch[0].source, reason=answer.detail)
            logger.error("Segment refuses an event: %s", answer.detail, extra=extra)
    return Forwarded(delivered, refused)


class Line:
    """The way to one source: its connections, and until when nobody tries. Shared by the threads of a process."""

    def __init__(self, source: Source, settings: Settings) -> None:
        answer_timeout = min(ANSWER_TIMEOUT, settings.SEND_TIMEOUT)
        if source.oauth:
            patience = min(answer_timeout, source.oauth.get("timeout", ANSWER_TIMEOUT))
            source = replace(source, oauth={**source.oauth, "timeout": patience})
        timeout = min(CONNECT_TIMEOUT, settings.SEND_TIMEOUT), answer_timeout
        self._transport = Transport(source, settings, timeout=timeout, connections=CONNECTIONS)
        self.envelope = self._transport.envelope
        self._trial = sum(timeout)
        self._lock = threading.Lock()
        self._trouble: Answer | None = None
        self._failures = 0
        self._since = self._until = float("-inf")

    def send(self, batch: Sequence[Message]) -> Answer:
        """Post one batch; or, while nobody shall try, say what was the matter, and in how many seconds to try."""
        began = time.monotonic()
        if trouble := self._paused(began):
            return trouble
        answer = self._transport.send([message.body for message in batch])
        if answer.verdict in (Verdict.RETRY, Verdict.MISCONFIGURED):
            extra = log_fields("segment_down", number=len(batch), source=batch[0].source, reason=answer.detail)
            logger.error("Segment has not taken %d events: %s", len(batch), answer.detail, extra=extra)
        return self._heed(answer, began)

    def _paused(self, now: float) -> Answer | None:
        with self._lock:
            if self._trouble is None:
                return None
            if now < self._until:
                return replace(self._trouble, retry_after=math.ceil(self._until - now))
            # This one tries; the others wait for what comes of it.
            self._since, self._until = now, now + self._trial
            return None

    def _heed(self, answer: Answer, began: float) -> Answer:
        """Only silence, or a wait that Segment asks for, stops everybody's events: else whoever finds an event that
        Segment does not like could stop them."""
        silent = answer.status is None
        with self._lock:
            if began < self._since:
                return answer  # of one who began before the pause did: it is known
            if not silent and answer.retry_after is None:
                self._trouble, self._failures = None, 0
                return answer
            now = time.monotonic()
            seconds = min(max(FIRST_PAUSE * 2**self._failures, AS_LONG_AGAIN * (now - began)), MAX_PAUSE)
            if answer.retry_after is not None:
                seconds = min(float(answer.retry_after), MAX_BACK_OFF)
            self._trouble, self._failures = answer, self._failures + 1
            self._since, self._until = now, now + seconds
            return replace(answer, retry_after=math.ceil(seconds))


class Lines:
    """The line to each source, made at its first use: one a process; anew after a fork or a change of settings."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[str, Line] = {}
        self._made_for: object = None

    def __getitem__(self, alias: str) -> Line:
        """The line to a source that has a write key."""
        settings = get_settings()
        with self._lock:
            if self._made_for is not settings:
                self._made, self._made_for = {}, settings
            if alias not in self._made:
                source = get_source(alias)
                if source is None:
                    raise LookupError(f"the source {alias!r} has no write key")
                self._made[alias] = Line(source, settings)
            return self._made[alias]

    def forget(self) -> None:
        """For the child of a fork, which must not share its parent's connections, and for tests."""
        self.__init__()  # type: ignore[misc]


lines = Lines()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lines.forget)
