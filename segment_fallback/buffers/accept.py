"""``accept``: the one way in. What it has taken is durable, in the buffer or, while that is down, in the spool."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence

from segment_fallback.buffers import buffers, last_events
from segment_fallback.buffers.base import SPOOL, TransactionBroken
from segment_fallback.buffers.spool import Spool, make_spool
from segment_fallback.conf import get_settings
from segment_fallback.exceptions import BufferUnavailable
from segment_fallback.log import log_fields
from segment_fallback.message import Message
from segment_fallback.signals import received, tell
from segment_fallback.tracing import span

logger = logging.getLogger("segment_fallback")

RESPITE = 5.0
"""Seconds for which a buffer that has just failed is not asked again: a visitor must not wait for what is down."""


class Acceptance:
    """Which of both stores takes messages now. One a process."""

    def __init__(self) -> None:
        self._down_until = float("-inf")
        self._spool: Spool | None = None
        self._spool_made_for: object = None

    def accept(self, messages: Sequence[Message]) -> None:
        """Keep the messages for delivery. Raises SpoolFull or BufferUnavailable; then none of them is promised."""
        with span("put", messages=len(messages), bytes=sum([len(message.body) for message in messages])):
            self._keep(messages)
        last_events.remember(messages)
        tell(received, Message, messages=messages)

    def _keep(self, messages: Sequence[Message]) -> None:
        if time.monotonic() >= self._down_until:
            try:
                buffers["default"].put(messages)
            except TransactionBroken:
                pass  # nobody else's put fails for it: they go on to the buffer, and only this one to the spool
            except BufferUnavailable as error:
                extra = log_fields("spooling", seconds=RESPITE, reason=str(error))
                logger.error("messages go to the spool for %.0f s: %s", RESPITE, error, extra=extra)
                self._down_until = time.monotonic() + RESPITE
            else:
                return
        self.spool.put(messages)

    @property
    def spool(self) -> Spool:
        settings = get_settings()
        if self._spool is None or self._spool_made_for is not settings:
            self._spool, self._spool_made_for = make_spool(), settings
        return self._spool

    def drain(self, lease: float) -> int:
        """Move what the spool holds into the buffer; how many messages. Nothing while another process does it.

        Killed in between, a file's messages are in both, and have the same ids. Raises BufferUnavailable.
        """
        spool, buffer, moved = self.spool, buffers["default"], 0
        if not spool.files():
            return 0
        claim = buffer.claim(SPOOL, lease=lease)
        if claim is None:
            return 0
        with claim:
            for messages in spool.drain():
                claim.renew()
                buffer.put(messages)
                moved += len(messages)
        return moved

    def forget(self) -> None:
        """For the child of a fork, and for tests."""
        self.__init__()  # type: ignore[misc]


acceptance = Acceptance()
accept = acceptance.accept
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=acceptance.forget)
