"""Counts that a process adds up for OUTCOME_INTERVAL seconds, and then writes.

So a flood costs a write a second and not a write each. What a process has added up is written by a timer, and when it
exits; a SIGKILL loses at most that interval's counts.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from django.db import connections

from segment_fallback.conf import get_settings
from segment_fallback.log import log_fields

logger = logging.getLogger("segment_fallback")

Counts = TypeVar("Counts")


class Counting(ABC, Generic[Counts]):
    """The counts that this process has not written yet."""

    event: str
    """The log's word for counts that could not be written yet; ``trouble`` says it in words, of ``number``."""
    trouble: str

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending = self.none()
        self._timer: threading.Timer | None = None

    @abstractmethod
    def none(self) -> Counts:
        """Where counting begins; false, as long as nothing was counted."""

    @abstractmethod
    def store(self, counts: Counts) -> None:
        """Write the counts, or raise."""

    @abstractmethod
    def merge(self, older: Counts, newer: Counts) -> Counts:
        """Both, after ``older`` could not be written."""

    @abstractmethod
    def number(self, counts: Counts) -> int:
        """How much was counted."""

    def change(self, how: Callable[[Counts], None]) -> None:
        """Let ``how`` count. Never raises for what the writing does."""
        interval = get_settings().OUTCOME_INTERVAL
        with self._lock:
            how(self._pending)
            later = interval and (self._timer is not None or self._set_timer(interval))
        if not later:
            self.write()

    def _set_timer(self, seconds: float) -> bool:
        """Whether a timer runs now. The lock is held."""
        timer = threading.Timer(seconds, self._on_timer)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:  # no further thread is to be had, or the interpreter is about to end
            return False
        self._timer = timer
        return True

    def write(self) -> None:
        """Write what is pending. Where that fails it stays pending."""
        with self._lock:
            pending, self._pending = self._pending, self.none()
            self._timer = None
        if not pending:
            return
        try:
            self.store(pending)
        except Exception as error:  # noqa: BLE001 - a count that fails must not fail what it counts
            number = self.number(pending)
            extra = log_fields(self.event, number=number, reason=str(error))
            logger.warning(f"{self.trouble}: %s", number, error, extra=extra)
            with self._lock:
                self._pending = self.merge(pending, self._pending)

    def _on_timer(self) -> None:
        try:
            self.write()
        finally:
            connections.close_all()  # those of the timer's own thread

    def forget(self) -> None:
        """What a parent has counted is the parent's to write."""
        self.__init__()  # type: ignore[misc]


Kind = TypeVar("Kind", bound=Counting[Any])

_ours: list[Counting[Any]] = []


def of_the_process(counting: Kind) -> Kind:
    """What counts for the whole process: written when that ends, and begun anew in its forks."""
    _ours.append(counting)
    return counting


def write_all() -> None:
    """Write whatever this process has counted."""
    for counting in _ours:
        counting.write()


def _forget_all() -> None:
    for counting in _ours:
        counting.forget()


atexit.register(write_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
