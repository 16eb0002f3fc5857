"""What every benchmark does alike: contenders in turn, medians, ratios beside their goals, JSON and a chart.

These machines are shared and noisy, so no figure stands alone: contenders are measured in turn within one run, and
the ratio of two medians is what a goal is about.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import django

RESULTS = Path(__file__).parent / "results"
"""A benchmark's figures, as JSON, and the profiles of its runs."""
CHARTS = Path(__file__).parents[1] / "docs" / "images" / "benchmarks"


@dataclass(frozen=True)
class Result:
    """One figure of ours beside one of theirs."""

    what: str
    against: str
    ours: float
    theirs: float
    unit: str
    goal: float
    at_most: bool = False
    """Whether the goal is a most; else it is a least."""
    difference: bool = False
    """Whether the goal is about ours less theirs, in the unit; else about ours as so many times theirs."""

    @property
    def value(self) -> float:
        """What the goal is about."""
        return self.ours - self.theirs if self.difference else self.ours / self.theirs

    @property
    def met(self) -> bool:
        return self.value <= self.goal if self.at_most else self.value >= self.goal

    def cells(self) -> list[str]:
        """A row of the table."""
        sign, more = ("≤" if self.at_most else "≥"), (f" {self.unit} more" if self.difference else " ×")
        value, goal = f"{number(self.value)}{more}", f"{sign} {self.goal:,g}{more}"
        ours, theirs = (f"{number(figure)} {self.unit}" for figure in (self.ours, self.theirs))
        return [self.what, self.against, ours, theirs, value, goal, "met" if self.met else "missed"]


HEAD = ["what", "against", "ours", "theirs", "comes to", "goal", ""]


@dataclass
class Report:
    """What one benchmark measured."""

    name: str
    title: str
    results: list[Result] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Figures that have no goal, a line each."""
    machine: str = ""
    """What it was measured on, and ``at`` when, of a report that was written."""
    at: str = ""

    def add(self, result: Result) -> None:
        """Add a result, and print it."""
        self.results.append(result)
        print("  ".join(result.cells()), flush=True)

    def note(self, line: str) -> None:
        self.notes.append(line)
        print(line, flush=True)

    def write(self, folder: Path = RESULTS) -> None:
        """Write JSON into the folder."""
        folder.mkdir(exist_ok=True)
        told = {**asdict(self), "machine": machine(), "at": datetime.now(timezone.utc).isoformat(timespec="seconds")}
        text = json.dumps(told, indent=2, ensure_ascii=False)
        (folder / f"{self.name}.json").write_text(f"{text}\n", encoding="utf-8")

    def draw(self) -> None:
        """Write the chart."""
        CHARTS.mkdir(parents=True, exist_ok=True)
        draw(self, CHARTS / f"{self.name}.svg")


def read(name: str, folder: Path = RESULTS) -> Report:
    """What a benchmark last wrote into the folder. Raises FileNotFoundError."""
    told = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return Report(**{**told, "results": [Result(**result) for result in told["results"]]})


def main(name: str, title: str, measure: Callable[[Report, argparse.Namespace], None], **defaults: float) -> None:
    """The command of a benchmark: ``--rounds`` and what else ``defaults`` has are options, of these defaults.

    Results are written where ``--write`` asks for it. Ends with status 1 where a goal was missed.
    """
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    options = argparse.ArgumentParser(description=title)
    for option, default in defaults.items():
        options.add_argument(f"--{option.replace('_', '-')}", type=type(default), default=default)
    options.add_argument("--write", action="store_true", help="write JSON and chart")
    options.add_argument("--json", type=Path, metavar="FOLDER", help="write JSON there, too")
    arguments = options.parse_args()
    print(title)
    report = Report(name, title)
    measure(report, arguments)
    if arguments.write:
        report.write()
        report.draw()
    if arguments.json:
        report.write(arguments.json)
    sys.exit(not all(result.met for result in report.results))


def in_turn(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The medians of so many rounds, in each of which every contender is measured once, after one that warms up."""
    figures: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        order = list(contenders.items())
        for name, measure in order if turn % 2 else reversed(order):
            figure = measure()
            if turn:
                figures[name].append(figure)
    return {name: statistics.median(measured) for name, measured in figures.items()}


def number(figure: float) -> str:
    """With three digits that say something."""
    return f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:.3g}"


def machine() -> str:
    """What the figures were measured on."""
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, Django {django.__version__}"


def draw(report: Report, path: Path) -> None:
    """A bar a result: ours in terms of the goal, so that bars of one chart can be compared."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    # The same bytes from the same figures, and text that stays text.
    mpl.rcParams.update({"svg.hashsalt": report.name, "svg.fonttype": "none", "font.size": 9})
    shares = [result.value / result.goal for result in report.results]
    figure, axes = plt.subplots(figsize=(8, 0.8 + 0.42 * len(shares)), layout="constrained")
    places = range(len(shares))
    axes.barh(places, shares, color=["#2a7d4f" if result.met else "#b3412f" for result in report.results], height=0.6)
    axes.set_yticks(places, [f"{result.what}\nagainst {result.against}" for result in report.results])
    axes.invert_yaxis()
    axes.axvline(1, color="#444444", linewidth=1, linestyle="--")
    axes.set_xlim(0, max([*shares, 1]) * 1.35)
    axes.set_xticks([0, 1], ["0", "goal"])
    for place, share, result in zip(places, shares, report.results, strict=True):
        text = "  goal ".join(result.cells()[4:6])
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        axes.annotate(text, (share, place), (5, 0), textcoords="offset points", va="center", fontsize=8, bbox=box)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(report.title, loc="left", fontsize=10)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
