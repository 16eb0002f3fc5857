"""The benchmarks run, and what the docs show is what they have written. What they measure is not for a test."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import page
from benchmarks.__main__ import MODULES, OTHERS
from benchmarks.harness import HEAD, Report, Result, read

ROOT = Path(__file__).parents[1]
OWN_FORM = {"joined_puts", "packed_puts", "single_puts"}
"""Questions that were asked once, and are not among the goals."""
SMALLEST = {
    "track": ["--rounds", "1", "--calls", "5"],
    "middleware": ["--rounds", "1", "--calls", "5"],
    "tag": ["--rounds", "1", "--pages", "5"],
    "buffers": ["--rounds", "1", "--few", "200", "--many", "300"],
    "snippet": [],
    "capacity": ["--outage-of", "500"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_benchmark_comes_to_its_end(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", f"benchmarks.{name}", *SMALLEST[name], "--json", str(tmp_path)]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=300)
    report = read(name, tmp_path)
    assert done.stderr == ""
    assert report.results
    assert done.returncode == (not all(result.met for result in report.results))
    for result in report.results:
        assert "  ".join(result.cells()) in done.stdout


def test_every_benchmark_is_in_the_list_of_all() -> None:
    commands = {file.stem for file in (ROOT / "benchmarks").glob("*.py") if "__main__" in file.read_text("utf-8")}
    assert commands - {"__main__", "modes"} - OWN_FORM <= {*MODULES, *OTHERS}


def test_tables_of_the_docs_are_those_of_the_figures() -> None:
    for path, text in page.made().items():
        assert path.read_text("utf-8") == text, "run `make bench ARGS=--write`"


def test_results_meet_their_goals_by_ratio_or_difference() -> None:
    least, most = Result("a", "b", 3, 2, "µs", 1.5), Result("a", "b", 3, 2, "µs", 1.5, at_most=True)
    more = Result("a", "b", 3, 2, "µs", 0.5, at_most=True, difference=True)
    assert (least.met, most.met, more.met) == (True, True, False)
    assert more.cells()[4:] == ["1 µs more", "≤ 0.5 µs more", "missed"]


def test_report_that_was_written_is_read_again(tmp_path: Path) -> None:
    report = Report("name", "Title", [Result("a", "b", 3, 2, "µs", 1.5)], ["a note"])
    report.write(tmp_path)
    found = read("name", tmp_path)
    assert (found.title, found.results, found.notes) == (report.title, report.results, report.notes)
    assert found.machine
    assert re.match(r"\d{4}-\d\d-\d\dT", found.at)
    assert json.loads((tmp_path / "name.json").read_text("utf-8"))["machine"] == found.machine


def test_section_of_the_page_has_table_notes_and_how_to_repeat_it() -> None:
    result = Result("pixel", "a view", 3, 2, "requests/s", 1.4)
    text = page.section(Report("pixel", "Pixels", [result], ["a note"], "2 cores", "2025-01-02T03:04:05+00:00"))
    assert text.startswith(f"## Pixels\n\n| {' | '.join(HEAD)} |\n| --- |")
    assert f"| {' | '.join(result.cells())} |" in text
    assert "- a note\n" in text
    assert "`python -m benchmarks.pixel`, 2025-01-02, 2 cores" in text


def test_what_was_made_takes_the_place_of_what_was_there() -> None:
    text = f"before\n{page.BEGIN}\nold\n\n{page.END}after\n"
    assert page.with_tables(text, "new\n\n") == f"before\n{page.BEGIN}\nnew\n\n{page.END}after\n"
