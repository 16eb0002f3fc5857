"""Times as the dashboard shows them: how long ago, and exactly, in the time zone that is active."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

from django.utils.formats import date_format
from django.utils.timezone import get_current_timezone

UNITS = ((86_400, "days"), (3_600, "h"), (60, "min"), (1, "s"))


@dataclass(frozen=True)
class Moment:
    """A point in time, in words: ``ago`` from now, ``exact`` with its time zone, ``iso`` for machines."""

    ago: str
    exact: str
    iso: str


def moment(at: int | None, now: int) -> Moment | None:
    """The moment of so many milliseconds since 1970, seen from another; None for 0, which is never."""
    if not at:
        return None
    when = datetime.fromtimestamp(at / 1000, timezone.utc)
    local = when.astimezone(get_current_timezone())
    seconds = (now - at) / 1000
    words = f"{duration(seconds)} ago" if seconds >= 0 else f"in {duration(-seconds)}"
    exact = f"{date_format(local, 'DATE_FORMAT')}, {local:%H:%M:%S} ({local.tzname()})"
    return Moment("just now" if abs(seconds) < 1 else words, exact, when.isoformat(timespec="seconds"))


def duration(seconds: float) -> str:
    """In the largest unit of which there are two: 119 s, 2 min."""
    for size, unit in UNITS[:-1]:
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"
