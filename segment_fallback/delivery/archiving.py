"""Archives what a flush delivers, in threads, while it delivers on. The order is send, archive, acknowledge.

So a flusher that is killed anywhere loses no line. But delivery depends on no archive: a batch that it does not
take soon is set aside in the spool's storage, and one that nobody takes is counted as missing and acknowledged.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent import futures
from functools import partial

from segment_fallback.buffers.base import Claim, LeaseLost, Waiting
from segment_fallback.conf import get_settings
from segment_fallback.delivery.archive import Archive, archive_failed, make_files, open_archive
from segment_fallback.exceptions import ArchiveUnavailable
from segment_fallback.log import log_fields

logger = logging.getLogger("segment_fallback")

OUTSTANDING = 4
"""Batches of one flusher that may be on their way into the archive: about two megabytes."""

THREADS = 4
"""That write at once, in one process."""

JOINED_BATCHES = 6
JOINED_MESSAGES = 5_000
"""What is acknowledged at once, at least, while there is more to send: a database writes its pages once for all of
them. No more, because nobody else can write to an SQLite database meanwhile."""

PAUSES = (0.2, 1.0)
"""Seconds before each further try."""

PATIENCE = 15.0
"""Seconds that a batch may take into the archive; as long as Segment may take to answer."""
ASIDE_PATIENCE = 5.0
"""Seconds that it may take into the spool's storage after that."""

RESPITE = 60.0
"""Seconds for which a storage that failed is not asked again by this process."""

HOUR = 3_600.0
LAST_WAIT = 5.0
"""Seconds that a flush waits at its end for the archive's upkeep; what is not done then, the next one does."""


class Lane:
    """The threads that write to one storage, and until when it is left alone.

    Daemons, started when they are needed: one that hangs keeps no process from ending.
    """

    def __init__(self, threads: int = THREADS) -> None:
        self._limit = threads
        self._work: queue.SimpleQueue[tuple[futures.Future[None], Callable[[], object]]] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._started = self._stuck = 0
        self._down_until = float("-inf")

    def is_open(self) -> bool:
        """Whether there is any use in trying."""
        return time.monotonic() >= self._down_until and self._stuck < self._limit

    def submit(self, work: Callable[[], object]) -> futures.Future[None]:
        """Let a thread do it."""
        future: futures.Future[None] = futures.Future()
        self._work.put((future, work))
        if not self._idle.acquire(blocking=False):
            with self._lock:
                if self._started < self._limit:
                    threading.Thread(target=self._run, name="segment_fallback.archive", daemon=True).start()
                    self._started += 1
        return future

    def _run(self) -> None:
        while True:
            future, work = self._work.get()
            if future.set_running_or_notify_cancel():
                try:
                    work()
                except BaseException as error:  # noqa: BLE001 - whoever waits for it decides
                    future.set_exception(error)
                else:
                    future.set_result(None)
            del future, work  # nobody's messages are kept while there is nothing to do
            self._idle.release()

    def give_up(self, future: futures.Future[None]) -> None:
        """Nobody waits for it any more. The thread that does it, if one does, is stuck until it ends."""
        if not future.cancel():
            self._count_stuck(1)
            future.add_done_callback(lambda _: self._count_stuck(-1))

    def _count_stuck(self, number: int) -> None:
        with self._lock:
            self._stuck += number

    def close(self) -> None:
        """Leave the storage alone for a while."""
        self._down_until = time.monotonic() + RESPITE


class Lanes:
    """The lanes of this process: to the archive, to the spool's storage, and for the upkeep."""

    def __init__(self) -> None:
        self.archive, self.aside, self.upkeep = Lane(), Lane(), Lane(1)
        self.kept_up: futures.Future[None] | None = None
        self.pruned = float("-inf")

    def forget(self) -> None:
        """For the child of a fork, which has none of its parent's threads, and for tests."""
        self.__init__()  # type: ignore[misc]


lanes = Lanes()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lanes.forget)


class Writing:
    """One batch on its way into the archive, or else into the spool's storage."""

    def __init__(self, archive: Archive, batch: Sequence[Waiting]) -> None:
        self.batch = batch
        self.detail = ""
        """What went wrong last."""
        self.kept = True
        self._files: dict[str, bytes] = {}
        self._ways = [
            (lanes.aside, partial(self._write, archive.set_aside, ()), ASIDE_PATIENCE),
            (lanes.archive, partial(self._write, archive.save, PAUSES), PATIENCE),
        ]
        self._future: futures.Future[None] | None = None
        self._next()

    def _write(self, write: Callable[[dict[str, bytes]], None], pauses: Sequence[float]) -> None:
        # Made here: packing takes longer than sending waits. The same names in each try.
        self._files = self._files or make_files(self.batch)
        for pause in pauses:
            try:
                return write(self._files)
            except Exception:  # noqa: BLE001 - storages raise what they like; the last one counts
                time.sleep(pause)
        return write(self._files)

    def _next(self) -> None:
        """Try the next way that is open."""
        self._future = None
        while self._ways and self._future is None:
            self._lane, work, patience = self._ways.pop()
            if self._lane.is_open():
                self._deadline = time.monotonic() + patience
                try:
                    self._future = self._lane.submit(work)
                except RuntimeError as error:  # no thread is to be had, as at the end of a process
                    self._fail(str(error))
            else:
                self.detail = self.detail or "it has failed a moment ago"
        self.kept = self._future is not None

    def _fail(self, detail: str) -> None:
        self.detail = f"{self.detail}; set aside: {detail}" if self.detail else detail
        if self._ways:
            extra = log_fields("archive_failed", reason=detail)
            logger.error(
                "the archive failed; what is delivered meanwhile is set aside in the spool: %s", detail, extra=extra
            )
        self._lane.close()

    def wait(self, seconds: float) -> bool:
        """Whether it has ended, well or not (``kept``), after so many seconds at most."""
        end = time.monotonic() + seconds
        while self._future is not None:
            futures.wait([self._future], max(0.0, min(end, self._deadline) - time.monotonic()))
            if self._future.done():
                error = self._future.exception()
                if error is None:
                    return True
                self._fail(str(error) if isinstance(error, ArchiveUnavailable) else type(error).__name__)
            elif time.monotonic() >= self._deadline:
                self._lane.give_up(self._future)
                self._fail("it does not answer")
            else:
                return False
            self._next()
        return True


class Archiving:
    """What one flusher has sent and not yet acknowledged."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._archive = open_archive()
        self._outstanding: deque[Writing] = deque()
        self._ended: list[Sequence[Waiting]] = []
        """Batches that only have to be acknowledged."""
        self.missing = 0
        """Messages that were delivered and are not archived."""

    def add(self, batch: Sequence[Waiting]) -> None:
        """This batch was delivered: acknowledge it, with others, when it is archived, or will not be."""
        if self._archive is None:
            self._end(batch)
            return
        self._outstanding.append(Writing(self._archive, batch))
        self._wait(OUTSTANDING - 1)

    def settle(self) -> None:
        """Wait until all is archived, or will not be, and acknowledge it."""
        self._wait(0)
        self.acknowledge()

    def acknowledge(self) -> None:
        """Acknowledge what has been archived, or will not be. For whoever would only wait otherwise."""
        ended, self._ended = self._ended, []
        if ended:
            self._claim.ack([message for batch in ended for message in batch])

    def _wait(self, left: int) -> None:
        """Take note of what has been archived, and wait until at most so many batches are ``left``."""
        while self._outstanding:
            must = len(self._outstanding) > left
            if self._outstanding[0].wait(self._claim.lease / 4 if must else 0):
                writing = self._outstanding.popleft()
                if not writing.kept:
                    self.missing += len(writing.batch)
                    archive_failed(len(writing.batch), writing.detail)
                self._end(writing.batch)
            elif must:
                with contextlib.suppress(LeaseLost):  # the next send will find that out; this was sent
                    self._claim.renew()
            else:
                return

    def _end(self, batch: Sequence[Waiting]) -> None:
        self._ended.append(batch)
        if len(self._ended) >= JOINED_BATCHES or sum(map(len, self._ended)) >= JOINED_MESSAGES:
            self.acknowledge()


def begin_upkeep() -> futures.Future[None] | None:
    """Begin, in a thread, to move on what was set aside and, once an hour, to delete what is too old.

    None where there is no archive, or an upkeep that has not ended.
    """
    archive = open_archive()
    if archive is None or (lanes.kept_up is not None and not lanes.kept_up.done()):
        return None
    try:
        lanes.kept_up = lanes.upkeep.submit(partial(keep_up, archive))
    except RuntimeError:  # no thread is to be had: the next flush tries again
        return None
    return lanes.kept_up


def end_upkeep(begun: futures.Future[None]) -> None:
    """Wait a little for it: the process may end after this."""
    futures.wait([begun], LAST_WAIT)


def keep_up(archive: Archive) -> None:
    """Move on what was set aside; once an hour delete what is older than ARCHIVE_DAYS."""
    try:
        if lanes.archive.is_open() and (moved := archive.move_on()):
            logger.info(
                "%d files that were set aside are in the archive now",
                moved,
                extra=log_fields("archived_late", number=moved),
            )
        days = get_settings().ARCHIVE_DAYS
        if days and time.monotonic() - lanes.pruned > HOUR:
            lanes.pruned = time.monotonic()
            archive.prune(days)
    except ArchiveUnavailable as error:
        logger.error("the archive's upkeep failed: %s", error, extra=log_fields("upkeep_failed", reason=str(error)))
