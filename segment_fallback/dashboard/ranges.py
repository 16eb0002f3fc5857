"""The stretches of time that the dashboard can show, and the steps in which it does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

HOUR = 3_600
DAY = 24 * HOUR


@dataclass(frozen=True)
class Range:
    """So many steps up to now. ``counted`` is in what steps the buffer is asked; ``keep``, for how many seconds its
    answer is good: to sum up a long time costs more, and changes less."""

    key: str
    label: str
    steps: int
    step: timedelta
    counted: int = HOUR
    keep: int = 0

    def edges(self, now: float, zone: tzinfo) -> list[datetime]:
        """Where the steps begin, and at last where the running one ends: whole hours, or days and weeks of that
        time zone. A day on which clocks change has 23 or 25 hours."""
        local = datetime.fromtimestamp(now, zone)
        if self.step <= timedelta(hours=1):
            end = now // HOUR * HOUR + HOUR
            return [datetime.fromtimestamp(end - HOUR * n, zone) for n in range(self.steps, -1, -1)]
        end_of_day = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0) + timedelta(days=1)
        if self.step.days == 7:
            end_of_day += timedelta(days=6 - local.weekday())
        return [end_of_day - self.step * n for n in range(self.steps, -1, -1)]


RANGES = {
    each.key: each
    for each in (
        Range("24h", "24 hours", 24, timedelta(hours=1)),
        Range("7d", "7 days", 28, timedelta(hours=6)),
        Range("30d", "30 days", 30, timedelta(days=1), keep=60),
        Range("year", "A year", 53, timedelta(days=7), counted=DAY, keep=HOUR),
    )
}
DEFAULT = RANGES["24h"]
