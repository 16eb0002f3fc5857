"""Joins the writes of many threads into one: as databases do with their log, and for the same reason."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from segment_fallback.exceptions import BufferUnavailable
from segment_fallback.message import Message

MAX_JOINED = 500
"""Messages in one write, by default."""


class _Put:
    """One caller's messages, and how the caller learns what became of them."""

    __slots__ = ("ended", "error", "joined", "leads", "messages", "wake")

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages
        self.wake = threading.Lock()
        """Held while it waits: who has written for it, or hands it the lead, lets go. Cheaper than an Event."""
        self.error: BaseException | None = None
        self.ended = False
        """Whether its caller is gone, and can lead no more."""
        self.leads = False
        """Whether it is for this one to write, or to pass the lead on."""
        self.joined: list[_Put] = []
        """The others for whom it writes, if it leads."""


class GroupCommit:
    """The first caller in writes for those who arrive meanwhile; each returns when its own messages are durable.

    Nobody waits for company: a caller that finds no write under way writes at once. When a write is done, the
    first of those who waited takes the lead, so that nobody serves others for longer than one write. An error
    of a joined write is raised in each of its callers. Any of them may be ended meanwhile, by a time limit or
    with its greenlet: whoever waits for it to write waits for another then; those for whom it was writing get a
    BufferUnavailable, for nobody knows what became of that write.

    ``max_joined``: messages in one write; more wait for the next. ``writers``: writes that may be under way at
    once. ``patience``: seconds after which one who waits leads a further write, where the store's answers take
    longer than its work; by default nobody does.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Message]], None],
        *,
        max_joined: int = MAX_JOINED,
        writers: int = 1,
        patience: float | None = None,
    ) -> None:
        self._write = write
        self._max_joined = max_joined
        self._writers = writers
        self._patience = -1.0 if patience is None else patience
        self._lock = threading.Lock()
        self._queue: list[_Put] = []
        """Those who wait, and neither lead nor are being written."""
        self._writing = 0

    def put(self, messages: Sequence[Message]) -> None:
        put = _Put(messages)
        try:
            with self._lock:
                if self._writing < self._writers:
                    self._writing += 1
                    put.leads = True
                else:
                    put.wake.acquire()
                    self._queue.append(put)
            if not put.leads and not put.wake.acquire(timeout=self._patience):
                self._lose_patience(put)
            if put.leads:
                self._lead(put)
        except BaseException:
            self._leave(put)
            raise
        if put.error is not None:
            raise put.error

    def _lose_patience(self, put: _Put) -> None:
        with self._lock:
            if put in self._queue:
                self._queue.remove(put)
                self._writing += 1
                put.leads = True
        if not put.leads:
            put.wake.acquire()

    def _lead(self, own: _Put) -> None:
        with self._lock:
            self._join(own)
        try:
            self._write([message for put in (own, *own.joined) for message in put.messages])
        except BaseException as raised:  # noqa: BLE001 - a thread that is being ended must not leave the others waiting
            own.error = raised
        with self._lock:
            self._pass_on(own)
        error = own.error
        if error is not None and not isinstance(error, Exception):
            # What ends one caller must not end the others: they have only not been served.
            error = BufferUnavailable(f"the thread that wrote for several was ended by {type(error).__name__}")
        for put in own.joined:
            put.error = error
            put.wake.release()

    def _leave(self, put: _Put) -> None:
        """Take back what is not being written, of a caller that is ended."""
        with self._lock:
            put.ended = True
            if put in self._queue:
                self._queue.remove(put)
            elif put.leads:
                self._queue[:0] = [joined for joined in put.joined if not joined.ended]
                self._pass_on(put)

    def _pass_on(self, leader: _Put) -> None:
        """Hand the lead to the first of those who wait, if another write may be under way. The lock is held."""
        leader.leads = False
        if self._queue and self._writing <= self._writers:
            successor = self._queue.pop(0)
            self._join(successor)  # now, lest the others be handed to several who have nobody to write for
            successor.leads = True
            successor.wake.release()
        else:
            self._writing -= 1

    def _join(self, leader: _Put) -> None:
        """Give the leader the first of those who wait, as far as one write has room for their messages."""
        room = self._max_joined - sum(len(put.messages) for put in (leader, *leader.joined))
        while self._queue and len(self._queue[0].messages) <= room:
            put = self._queue.pop(0)
            room -= len(put.messages)
            leader.joined.append(put)
