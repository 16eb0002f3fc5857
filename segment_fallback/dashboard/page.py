"""All that the dashboard's page shows, read and put into the words of its template."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from segment_fallback.buffers import buffers, last_events
from segment_fallback.buffers.base import ARCHIVE, SPOOL, LeaseState, now_ms
from segment_fallback.conf import get_settings
from segment_fallback.dashboard import advice, chart
from segment_fallback.dashboard.ask import ask
from segment_fallback.dashboard.letters import Letters, read_letters
from segment_fallback.dashboard.moments import Moment, duration, moment
from segment_fallback.dashboard.ranges import DAY, HOUR, RANGES, Range
from segment_fallback.dashboard.traffic import LABELS, WAYS, Traffic, read_traffic
from segment_fallback.outcome import Outcome
from segment_fallback.status import BufferStatus, Status, read_status

REFUSALS_FOR = 7 * DAY
"""Refusals tell what is wrong now: older ones are not shown."""


OFTEN, SELDOM = 5, 60
"""Seconds. Seldom where to count means to read a whole table, which DynamoDB has its price for."""


@dataclass(frozen=True)
class Part:
    """A part of a buffer: what it does now, and how its last flushes went."""

    name: str
    state: str
    failing: bool
    until: Moment | None
    flushed: Moment | None
    failures: int
    error: str
    error_at: Moment | None


@dataclass(frozen=True)
class Shelf:
    """A buffer: what waits in it, its parts, and its dead letters."""

    status: BufferStatus
    oldest: Moment | None
    parts: list[Part]
    letters: Letters | None
    error: str
    """Why the letters could not be read."""


@dataclass(frozen=True)
class Refusal:
    """Hits that were refused for one reason."""

    word: str
    hits: int
    ways: str
    meaning: str
    advice: str


def read_page(range_: Range) -> dict[str, Any]:
    """The template's context. What does not answer is said in it; nothing raises."""
    now = now_ms()
    settings = get_settings()
    status = read_status()
    traffic = read_traffic(range_, time.time())
    shelves = [_shelf(buffer, now) for buffer in status.buffers]
    ways, rows = chart.rows(traffic)
    refusals, hits, error = _refusals(min(range_.steps * range_.step.total_seconds(), REFUSALS_FOR))
    return {
        "ranges": RANGES.values(),
        "range": range_,
        "now": moment(now, now),
        "problems": [(problem.detail, *advice.AILMENTS[problem.ailment]) for problem in status.problems],
        "status": status,
        "age": duration(status.age),
        "traffic": traffic,
        "summed": moment(traffic.at, now) if range_.keep else None,
        "ways": [(way.value, *WAYS[way], traffic.by_way[way]) for way, _ in ways],
        "charts": [chart.draw(traffic, box) for box in (chart.WIDE, chart.NARROW)],
        "summary": chart.summary(traffic),
        "columns": [name for _, name in ways],
        "rows": rows,
        "share": _percent(traffic),
        "first_party": settings.FIRST_PARTY,
        "forwards": settings.COLLECT == "forward",
        "shelves": shelves,
        "archives": bool(settings.ARCHIVE),
        "lost_archive": _archive(status, now),
        "refusals": refusals,
        "hits": hits,
        "refusals_error": error,
        "every": _pause(),
        "last_on": settings.last_events,
        "last": _last_events(now) if settings.last_events else [],
    }


def _percent(traffic: Traffic) -> float | None:
    return None if traffic.share is None else traffic.share * 100


def _shelf(status: BufferStatus, now: int) -> Shelf:
    letters, error = None, ""
    if status.dead_letters:
        letters, error = ask(lambda: read_letters(buffers[status.alias], now), None)
    parts = [_part(state, now) for state in status.leases if state.part != ARCHIVE]
    return Shelf(status, moment(status.oldest, now), parts, letters, error)


def _part(state: LeaseState, now: int) -> Part:
    until = None
    if state.expires > now:
        words, until = "at work, lease ends", state.expires
    elif state.not_before > now:
        words, until = "backs off, tries again", state.not_before
    else:
        words = "idle"
    return Part(
        "Spool" if state.part == SPOOL else f"Part {state.part}",
        words,
        bool(state.failures),
        moment(until, now),
        moment(state.flushed, now),
        state.failures,
        state.error,
        moment(state.error_at, now),
    )


def _archive(status: Status, now: int) -> tuple[int, str, Moment | None] | None:
    """How many delivered messages the archive lacks, and the last error."""
    states = [state for buffer in status.buffers for state in buffer.leases if state.part == ARCHIVE and state.failures]
    if not states:
        return None
    last = max(states, key=lambda state: state.error_at)
    return status.unarchived, last.error, moment(last.error_at, now)


def _refusals(seconds: float) -> tuple[list[Refusal], int, str]:
    """The reasons of that time, most frequent first; how many hits there were, good ones too; and an error."""
    since = int(time.time() - seconds) // HOUR * HOUR + HOUR
    nothing: dict[tuple[int, str, str], int] = {}
    counts, error = ask(lambda: buffers["default"].outcome_counts(since), nothing)
    totals: Counter[str] = Counter()
    ways: dict[str, Counter[str]] = {}
    for (_, way, word), number in counts.items():
        totals[word] += number
        ways.setdefault(word, Counter())[way] += number
    known = {outcome.value: outcome for outcome in Outcome if outcome.refused}
    refusals = [
        Refusal(
            word,
            number,
            ", ".join(LABELS.get(way, way) for way, _ in ways[word].most_common()),
            known[word].explanation,
            advice.of_outcome(known[word], [way for way, _ in ways[word].most_common()]),
        )
        for word, number in totals.most_common()
        if word in known
    ]
    return refusals, totals.total(), error


def _pause() -> int:
    """Seconds from one look to the next."""
    return SELDOM if ask(lambda: any(buffers[alias].counting_costs for alias in buffers), False)[0] else OFTEN


def _last_events(now: int) -> list[dict[str, Any]]:
    nothing: list[dict[str, Any]] = []
    return [
        {
            **entry,
            "at": moment(entry["at"], now),
            "word": entry["way"],
            "way": LABELS.get(entry["way"], entry["way"]),
            "body": json.dumps(entry["body"], indent=2, ensure_ascii=False),
        }
        for entry in ask(last_events.recall, nothing)[0]
    ]
