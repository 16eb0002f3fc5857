"""Puts messages of the archive back into the buffer, for the usual way to Segment: the same source's, or another's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from segment_fallback.ambient import derived_id
from segment_fallback.buffers import buffers
from segment_fallback.buffers.base import now_ms
from segment_fallback.delivery.archive import Archive, Archived, hour_of
from segment_fallback.delivery.flush import DEDUPLICATED
from segment_fallback.exceptions import ArchiveUnavailable
from segment_fallback.message import Message, Way

CHUNK = 500
"""Messages that are put back at a time."""


@dataclass(frozen=True)
class Selection:
    """Which messages: accepted from ``since`` until just before ``until``, in milliseconds since 1970.

    ``events``: names, of track calls or of pages and screens. An empty field allows all.
    """

    since: int
    until: int
    events: frozenset[str] = frozenset()
    kind: str = ""
    source: str = ""

    def __contains__(self, found: tuple[Archived, dict[str, Any]]) -> bool:
        archived, message = found
        name = message.get("event" if "event" in message else "name")
        return (
            self.since <= archived.created < self.until
            and (not self.source or archived.source == self.source)
            and (not self.kind or message.get("type") == self.kind)
            and (not self.events or (isinstance(name, str) and name in self.events))
        )


@dataclass
class Progress:
    """How far it has come. ``hour``: of the archive, such as ``dt=2026-11-21/hour=02``."""

    number: int = 0
    again: int = 0
    """How many of them Segment may count twice."""
    hour: str = ""
    unreadable: list[str] = field(default_factory=list)
    """What is wrong with files that were passed over."""


def select(archive: Archive, wanted: Selection, progress: Progress) -> Iterator[tuple[Archived, str]]:
    """What is wanted, with its messageId: each once a source. Raises ArchiveUnavailable where the storage fails.

    What was archived twice is so under one hour, that of its acceptance.
    """
    seen: set[tuple[str, str]] = set()
    for name in archive.files(wanted.since, wanted.until):
        hour = hour_of(name)
        if hour != progress.hour:
            progress.hour, seen = hour, set()
        try:
            lines = archive.read(name)
        except ArchiveUnavailable as error:
            progress.unreadable.append(str(error))
            continue
        for archived in lines:
            message = archived.message
            delivery = archived.source, message["messageId"]
            if (archived, message) in wanted and delivery not in seen:
                seen.add(delivery)
                yield archived, message["messageId"]


def counted_twice(archived: Archived, to: str = "") -> bool:
    """Whether Segment may count it once more, because it has forgotten the messageId and the source is the same."""
    return archived.source == (to or archived.source) and archived.created < now_ms() - DEDUPLICATED


def replay(
    found: Iterable[tuple[Archived, str]], progress: Progress, to: str = "", tell: Callable[[], object] = lambda: None
) -> None:
    """Let the messages wait again, with the messageId and timestamp that they had. Raises BufferUnavailable.

    ``to``: alias of another source; in the buffer, and among dead letters, the messages then have ids of their own.
    ``tell`` is called after each CHUNK. Ended in between, it may be begun anew.
    """
    chunk: list[Message] = []
    for archived, message_id in found:
        source = to or archived.source
        # The buffer keeps one of each id, and the same message may wait for several sources.
        own_id = message_id if source == archived.source else derived_id(source, message_id)
        chunk.append(Message(own_id, archived.body, Way(archived.way), source=source))
        if len(chunk) == CHUNK:
            _put(chunk, progress)
            chunk = []
            tell()
    _put(chunk, progress)


def _put(chunk: list[Message], progress: Progress) -> None:
    if chunk:
        buffers["default"].put(chunk)
        progress.number += len(chunk)
