"""How many messages were delivered, by event, hour and way.

In SQL each delivery counts once, whatever is killed. In DynamoDB a flusher writes what it counted every few seconds:
killed before, it leaves that uncounted, and an answer that is lost may count it twice. ``rebuild`` counts anew from the
archive.

A view that a pixel brought counts again if the view's JavaScript event came after that was delivered. Segment knows
the messageId again and keeps one; HOLD makes it rare.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone

from segment_fallback.buffers import buffers
from segment_fallback.buffers.base import now_ms
from segment_fallback.buffers.event_key import EventKey, event_counter
from segment_fallback.delivery.archive import Archived, hour_of, open_archive
from segment_fallback.exceptions import ArchiveUnavailable


@dataclass(frozen=True, slots=True)
class Count:
    """So many messages of an event, accepted within the hour that began then, came by this way and were delivered."""

    hour: datetime
    way: str
    type: str
    event: str
    """Of a track call; else empty."""
    count: int


def event_counts(
    since: datetime,
    until: datetime | None = None,
    *,
    events: Collection[str] = (),
    types: Collection[str] = (),
    ways: Collection[str] = (),
) -> list[Count]:
    """The counts of all hours that began from ``since`` on and before ``until``, in order; of these events, types and
    ways only, where any are named.

    Of all buffers together, and of the last 400 days. Raises BufferUnavailable.
    """
    total: dict[EventKey, int] = {}
    first = _seconds(since)
    end = None if until is None else _seconds(until)
    for alias in buffers:
        for key, number in buffers[alias].event_counts(first).items():
            chosen = (end is None or key.hour < end) and all(
                not wanted or value in wanted
                for value, wanted in ((key.event, events), (key.type, types), (key.way, ways))
            )
            if chosen:
                total[key] = total.get(key, 0) + number
    return [
        Count(datetime.fromtimestamp(key.hour, timezone.utc), key.way, key.type, key.event, number)
        for key, number in sorted(total.items())
    ]


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """An hour that was counted anew: how many deliveries were counted before, and are now."""

    hour: datetime
    before: int
    now: int


def rebuild(since: datetime, until: datetime | None = None, *, tell: Callable[[Rebuilt], None] = lambda _: None) -> int:
    """Count the hours from ``since`` (its own hour included) to ``until`` anew, from the archive; how many hours.

    A messageId counts once an hour. Hours of which the archive has nothing keep their counts, and so do those of
    which messages may still be on their way: the present hour, and all since the oldest waiting message. Raises
    ArchiveUnavailable, also where there is no archive, and BufferUnavailable.
    """
    archive = open_archive()
    if archive is None:
        raise ArchiveUnavailable("there is none: the setting ARCHIVE says where it is to be")
    archive.move_on()
    end, hours = _end(until) * 1000, 0
    before: Counter[int] = Counter()
    for alias in buffers:
        for key, number in buffers[alias].event_counts(_hour(since)).items():
            before[key.hour] += number
    for folder, names in itertools.groupby(archive.files(_hour(since) * 1000, end - 1), hour_of):
        hour = datetime.strptime(f"{folder}+0000", "dt=%Y-%m-%d/hour=%H%z")
        counted = event_counter.count(_once(message for name in names for message in archive.read(name)))
        # All buffers deliver to one archive: what the others counted of the hour would come on top.
        for alias in buffers:
            buffers[alias].set_event_counts(_seconds(hour), counted if alias == "default" else {})
        hours += 1
        tell(Rebuilt(hour, before[_seconds(hour)], counted.total()))
    return hours


def _once(messages: Iterator[Archived]) -> Iterator[Archived]:
    """The first of each messageId and source: a batch that was sent again was archived again."""
    seen: set[tuple[str, object]] = set()
    for message in messages:
        delivery = message.source, message.message.get("messageId")
        if delivery not in seen:
            seen.add(delivery)
            yield message


def _end(until: datetime | None) -> int:
    """Where a rebuild ends, in seconds: before the hours of which something may still be on its way."""
    oldest = [moment for alias in buffers if (moment := buffers[alias].oldest()) is not None]
    settled = min([*oldest, now_ms()]) // 3_600_000 * 3600
    return settled if until is None else min(settled, _seconds(until))


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def _hour(moment: datetime) -> int:
    return _seconds(moment) // 3600 * 3600
