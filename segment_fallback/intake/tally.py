"""Counts how hits ended. A process adds up for OUTCOME_INTERVAL seconds, then writes to the buffer.

So a flood of forged hits costs a write a second and not a write each. What a process has added up is written
by a timer, and when it exits; a SIGKILL loses at most that interval's counts, never an event.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import Counter

from django.db import connections

from segment_fallback.buffers import buffers
from segment_fallback.conf import get_settings
from segment_fallback.intake.outcome import Outcome
from segment_fallback.message import Way

logger = logging.getLogger("segment_fallback")


class Tally:
    """The counts that this process has not written yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: Counter[tuple[int, str, str]] = Counter()
        self._timer: threading.Timer | None = None

    def add(self, way: Way, outcome: Outcome, number: int = 1) -> None:
        """Count hits; of a batch each event is one. Never raises."""
        hour = int(time.time()) // 3600 * 3600
        interval = get_settings().OUTCOME_INTERVAL
        with self._lock:
            self._pending[hour, way.value, outcome.value] += number
            if interval and self._timer is None:
                self._timer = threading.Timer(interval, self._on_timer)
                self._timer.daemon = True
                self._timer.start()
        if not interval:
            self.write()

    def write(self) -> None:
        """Write what is pending. If the buffer is down it stays pending."""
        with self._lock:
            pending, self._pending = self._pending, Counter()
            self._timer = None
        if not pending:
            return
        try:
            buffers["default"].add_outcome_counts(pending)
        except Exception as error:  # noqa: BLE001 - a count that fails must not fail the hit that it counts
            logger.warning("outcomes of %d hits could not be counted yet: %s", pending.total(), error)
            with self._lock:
                self._pending.update(pending)

    def _on_timer(self) -> None:
        try:
            self.write()
        finally:
            connections.close_all()  # those of the timer's own thread

    def forget(self) -> None:
        """What a parent has counted is the parent's to write."""
        self.__init__()  # type: ignore[misc]


tally = Tally()
atexit.register(tally.write)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=tally.forget)
