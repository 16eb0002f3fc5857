"""As what a delivered message is counted: its event, the hour in which it was accepted, and its way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from segment_fallback.message import label, labelling

MAX_EVENT = 100
"""Characters of an event's name that are counted apart. Longer names are cut."""

MAX_EVENTS = 500
"""Names that a process counts apart in an hour: who may send events must not be able to fill a table with names."""

OTHERS = "(others)"
"""As what further ones are counted."""


class EventKey(NamedTuple):
    """``hour``: its start, in seconds since 1970. ``event``: the name of a track call's event, else empty."""

    hour: int
    way: str
    type: str
    event: str = ""


class Counted(Protocol):
    """What is counted: a waiting message, or an archived one."""

    @property
    def body(self) -> bytes: ...
    @property
    def way(self) -> str: ...
    @property
    def created(self) -> int: ...


class EventCounter:
    """Adds up, with a limit of MAX_EVENTS names an hour."""

    def __init__(self) -> None:
        self._names: dict[int, set[str]] = {}

    def count(self, messages: Iterable[Counted]) -> Counter[EventKey]:
        """How many there are of each."""
        # What is alike is looked at once: most of a batch.
        alike = Counter([(m.created // 3_600_000, m.way, labelling(m.body)) for m in messages])
        counts: Counter[EventKey] = Counter()
        for (hour, way, start), number in alike.items():
            counts[self._key(hour * 3600, way, start)] += number
        return counts

    def _key(self, hour: int, way: str, start: bytes) -> EventKey:
        kind, event = label(start)
        event = event[:MAX_EVENT].replace("\x00", "?").strip()
        if event:
            names = self._names.get(hour)
            if names is None:
                if len(self._names) > 100:  # hours long past
                    self._names.clear()
                names = self._names[hour] = set()
            if len(names) < MAX_EVENTS:
                names.add(event)
            elif event not in names:
                event = OTHERS
        return EventKey(hour, way, kind, event)


event_counter = EventCounter()
"""That of this process."""
