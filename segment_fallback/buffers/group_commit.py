"""Joins the writes of many threads into one: as databases do with their log, and for the same reason."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from segment_fallback.message import Message

MAX_JOINED = 500
"""Messages in one write. More wait for the next."""


class _Put:
    """One caller's messages, and how the caller learns what became of them."""

    __slots__ = ("error", "leads", "messages", "wake")

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages
        self.wake = threading.Event()
        self.error: BaseException | None = None
        self.leads = False


class GroupCommit:
    """The first caller in writes for those who arrive meanwhile; each returns when its own messages are durable.

    Nobody waits for company: a caller that finds no write under way writes at once. When a write is done, the
    first of those who waited takes the lead, so that nobody serves others for longer than one write. An error
    of a joined write is raised in each of its callers.
    """

    def __init__(self, write: Callable[[Sequence[Message]], None]) -> None:
        self._write = write
        self._lock = threading.Lock()
        self._queue: list[_Put] = []
        self._led = False

    def put(self, messages: Sequence[Message]) -> None:
        put = _Put(messages)
        with self._lock:
            self._queue.append(put)
            put.leads = not self._led
            self._led = True
        if not put.leads:
            put.wake.wait()
        if put.leads:
            self._lead(put)
        if put.error is not None:
            raise put.error

    def _lead(self, own: _Put) -> None:
        with self._lock:
            joined = self._take()
        error: BaseException | None = None
        try:
            self._write([message for put in joined for message in put.messages])
        except BaseException as raised:  # noqa: BLE001 - a thread that is being ended must not leave the others waiting
            error = raised
        with self._lock:
            if self._queue:
                self._queue[0].leads = True
                self._queue[0].wake.set()
            else:
                self._led = False
        for put in joined:
            put.error = error
            put.wake.set()

    def _take(self) -> list[_Put]:
        """The puts of the next write, in order of arrival: the leader's own is the first."""
        size, number = 0, 0
        for put in self._queue:
            size += len(put.messages)
            if number and size > MAX_JOINED:
                break
            number += 1
        joined, self._queue = self._queue[:number], self._queue[number:]
        return joined
