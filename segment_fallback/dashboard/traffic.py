"""What arrived, by step and way; and how much of it only the fallback brought."""

from __future__ import annotations

import bisect
import functools
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from django.core.cache import cache
from django.utils.timezone import get_current_timezone

from segment_fallback.buffers import buffers
from segment_fallback.buffers.base import now_ms
from segment_fallback.dashboard.ask import ask
from segment_fallback.dashboard.ranges import HOUR, Range
from segment_fallback.message import Way

WAYS = {
    Way.JAVASCRIPT: ("JavaScript", "analytics.js by way of this site"),
    Way.PIXEL: ("Pixel", "the page's own report, where analytics.js was blocked"),
    Way.NOSCRIPT: ("No script", "the image in <noscript>"),
    Way.CALL: ("Call", "calls of a page whose analytics.js was blocked"),
    Way.SERVER: ("Server", "server code, and Segment's server libraries"),
}
"""The name of each way to Segment, and what it is, in the order in which they are shown."""

LABELS = {**{way.value: name for way, (name, _) in WAYS.items()}, Way.PROFILE.value: "Profile"}
"""The names alone; also of Segment's own webhook, of which nothing goes to Segment."""

SAVED = (Way.PIXEL, Way.NOSCRIPT, Way.CALL)
"""The ways of what would have been lost."""

Summed = tuple[int, dict[tuple[int, str, str], int]]
"""When it was summed up, in milliseconds since 1970, and the counts."""


@dataclass
class Traffic:
    """What was delivered within a range, by when it was accepted."""

    range: Range
    edges: list[datetime]
    at: int
    """When it was summed up, in milliseconds since 1970."""
    steps: list[Counter[Way]]
    """The messages of each step by way."""
    views: Counter[Way] = field(default_factory=Counter)
    """All page views by way."""
    errors: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(step.total() for step in self.steps)

    @property
    def by_way(self) -> Counter[Way]:
        return sum(self.steps, Counter[Way]())

    @property
    def saved(self) -> int:
        """Page views that arrived by the fallback."""
        return sum(self.views[way] for way in SAVED)

    @property
    def share(self) -> float | None:
        """Their share of the page views that browsers reported to this site; None where there were none."""
        seen = self.saved + self.views[Way.JAVASCRIPT]
        return self.saved / seen if seen else None


def read_traffic(range_: Range, now: float) -> Traffic:
    """Ask every buffer. One that does not answer is named in ``errors``."""
    edges = range_.edges(now, get_current_timezone())
    starts = [edge.timestamp() for edge in edges]
    traffic = Traffic(range_, edges, now_ms(), [Counter() for _ in edges[1:]])
    for alias in buffers:
        since = int(starts[0]) // HOUR * HOUR
        nothing: Summed = (traffic.at, {})
        (at, counts), error = ask(functools.partial(_counts, alias, range_, since), nothing)
        if error:
            traffic.errors.append(f"buffer {alias!r}: {error}")
        traffic.at = min(traffic.at, at)
        for (start, word, kind), number in counts.items():
            step = max(bisect.bisect_right(starts, start) - 1, 0)
            way = next((way for way in Way if way.value == word), Way.SERVER)
            # Another machine's clock may be ahead.
            traffic.steps[min(step, len(traffic.steps) - 1)][way] += number
            if kind == "page":
                traffic.views[way] += number
    return traffic


def _counts(alias: str, range_: Range, since: int) -> Summed:
    """Out of the cache, where the range allows it. A cache that is down makes the page slower, and not an error."""
    key = f"segment_fallback:dashboard:{alias}:{range_.key}:{since}"
    kept: Summed | None = ask(lambda: cache.get(key), None)[0] if range_.keep else None
    if kept is not None:
        return kept
    summed = now_ms(), buffers[alias].way_counts(since, range_.counted)
    if range_.keep:
        ask(lambda: cache.set(key, summed, range_.keep), None)
    return summed
