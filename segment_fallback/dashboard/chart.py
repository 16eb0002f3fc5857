"""Stacked bars as SVG: what arrived, by step and way. The template draws what is reckoned out here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils.formats import date_format, number_format

from segment_fallback.dashboard.ranges import Range
from segment_fallback.dashboard.traffic import WAYS, Traffic
from segment_fallback.message import Way

LINES = 4
"""Lines of the grid above the axis, at most."""


@dataclass(frozen=True)
class Box:
    """A drawing's size in pixels, its margins, and how wide a label below the axis is."""

    name: str
    width: int
    height: int
    label: int
    left: int = 52
    top: int = 10
    bottom: int = 26

    @property
    def base(self) -> int:
        """The axis."""
        return self.height - self.bottom


WIDE = Box("wide", 960, 250, label=56)
NARROW = Box("narrow", 330, 220, label=42, left=46)
"""For phones: scaled down, the wide one's labels could not be read."""


@dataclass(frozen=True)
class Segment:
    """A way's part of a bar."""

    way: str
    y: float
    height: float


@dataclass(frozen=True)
class Bar:
    """A step: where its bar stands, what it consists of, and the words that a pointer is shown."""

    x: float
    left: float
    title: str
    segments: list[Segment]


@dataclass(frozen=True)
class Label:
    """A text at a place on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """All that one drawing needs. ``bar`` and ``step`` are widths."""

    box: Box
    bar: float
    step: float
    bars: list[Bar]
    lines: list[Label]
    labels: list[Label]


def draw(traffic: Traffic, box: Box) -> Chart:
    """The drawing of that size."""
    peak = max((step.total() for step in traffic.steps), default=0)
    top, every = scale(peak)
    height, room = box.base - box.top, box.width - box.left
    step = room / len(traffic.steps)
    bar = round(step * 0.78, 2)
    bars = []
    for number, counts in enumerate(traffic.steps):
        left, below, segments = box.left + number * step, float(box.base), []
        for way in WAYS:
            if counts[way]:
                tall = counts[way] / top * height
                below -= tall
                segments.append(Segment(way.value, round(below, 2), round(tall, 2)))
        x = left + (step - bar) / 2
        bars.append(Bar(round(x, 2), round(left, 2), title(traffic, number), segments))
    lines = [
        Label(round(box.base - value / top * height, 2), short(value)) for value in range(0, top + 1, every) if value
    ]
    return Chart(box, bar, round(step, 2), bars, lines, labels(traffic, box, step))


def scale(peak: int) -> tuple[int, int]:
    """The value at the chart's upper end, and the distance of the lines: 1, 2 or 5 times a power of ten."""
    rough = max(peak, 1) / LINES
    power = 10 ** max(math.floor(math.log10(rough)), 0)
    every = next(n * power for n in (1, 2, 5, 10) if n * power >= rough)
    return max(math.ceil(peak / every), 1) * every, every


def short(value: int) -> str:
    """The number in the few characters that an axis has room for."""
    for size, letter in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if value >= size and value >= 10_000:
            decimals = 0 if value % size == 0 else 1
            return f"{number_format(value / size, decimals)}{letter}"
    return number_format(value, force_grouping=True)


def labels(traffic: Traffic, box: Box, step: float) -> list[Label]:
    """What is written below the axis: as many times as there is room for, at round ones."""
    found: list[Label] = []
    free = 0.0
    for n, edge in enumerate(traffic.edges[:-1]):
        at = box.left + (n + 0.5) * step
        if _is_round(traffic.range, edge) and at >= free and at + box.label / 2 <= box.width:
            found.append(Label(round(at, 2), _axis(traffic.range, edge)))
            free = at + box.label
    return found


def _is_round(range_: Range, edge: datetime) -> bool:
    if range_.step <= timedelta(hours=1):
        return edge.hour % 3 == 0
    if range_.step < timedelta(days=1):
        return edge.hour == 0
    return range_.step.days < 7 or edge.day <= 7


def _axis(range_: Range, edge: datetime) -> str:
    if range_.step <= timedelta(hours=1):
        return f"{edge:%H:%M}"
    if range_.step < timedelta(days=1):
        return date_format(edge, "D j")
    return date_format(edge, "j M" if range_.step.days < 7 else "M")


def name(traffic: Traffic, number: int) -> str:
    """A step in words: ``Sat 21 Nov, 14:00 to 15:00``."""
    start, end = traffic.edges[number : number + 2]
    step = traffic.range.step
    if step < timedelta(days=1):
        return f"{date_format(start, 'D j M')}, {start:%H:%M} to {end:%H:%M}"
    if step == timedelta(days=1):
        return date_format(start, "D j M Y")
    return f"{date_format(start, 'j M')} to {date_format(end - timedelta(days=1), 'j M Y')}"


def title(traffic: Traffic, number: int) -> str:
    counts = traffic.steps[number]
    ways = [f"{WAYS[way][0]} {number_format(counts[way], force_grouping=True)}" for way in WAYS if counts[way]]
    return f"{name(traffic, number)}: {', '.join(ways) or 'nothing'}"


def summary(traffic: Traffic) -> str:
    """The chart in a sentence, for whoever does not see it."""
    if not traffic.total:
        return f"Nothing arrived within {traffic.range.label.lower()}."
    ways = [f"{number_format(n, force_grouping=True)} by {WAYS[way][0]}" for way, n in traffic.by_way.most_common()]
    peak = max(range(len(traffic.steps)), key=lambda n: traffic.steps[n].total())
    most = number_format(traffic.steps[peak].total(), force_grouping=True)
    return f"{', '.join(ways)}. Most, {most}, {name(traffic, peak)}."


def rows(traffic: Traffic) -> tuple[list[tuple[Way, str]], list[tuple[str, list[int], int]]]:
    """The numbers as a table, newest first: the ways that occur, and of each step its name, counts and sum."""
    shown = [(way, WAYS[way][0]) for way in WAYS if traffic.by_way[way]]
    steps = range(len(traffic.steps) - 1, -1, -1)
    return shown, [
        (name(traffic, n), [traffic.steps[n][way] for way, _ in shown], traffic.steps[n].total()) for n in steps
    ]
