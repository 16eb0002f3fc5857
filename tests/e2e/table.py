"""The table of docs/explanation/exactly-once.md, made by running the cases: ``python -m tests.e2e.table``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.e2e.cases import CASES
from tests.e2e.visitors import COLUMNS

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs/explanation/exactly-once.md"
TABLE = re.compile(r"(?s)(<!-- table: [^\n]*-->\n)(.*?)(\n<!-- /table -->)")

Seen = dict[str, tuple[int, list[str]]]
"""By case: how many different messageIds arrived, and by which ways."""


def rows(text: str) -> dict[str, list[str]]:
    """The cells of the table in the document, by case."""
    found = TABLE.search(text)
    assert found, f"{DOCUMENT.name} has no table"
    lines = [line.strip("| ").split(" | ") for line in found[2].splitlines()[2:]]
    return {cells[0]: cells[1:] for cells in lines}


def write(file: Path, column: str, seen: Seen) -> None:
    """Put one column, as it was just seen, into the document."""
    text = file.read_text()
    before, place = rows(text), list(COLUMNS).index(column)
    lines = [f"| Case | {' | '.join(COLUMNS)} |", "|---" * (1 + len(COLUMNS)) + "|"]
    for case in CASES:
        cells = before.get(case.name, ["?"] * len(COLUMNS))
        cells[place] = cell(*seen[case.name], case.lost.get(column))
        lines.append(f"| {case.name} | {' | '.join(cells)} |")
    found = TABLE.search(text)
    assert found
    file.write_text(text[: found.start(2)] + "\n".join(lines) + text[found.end(2) :])


def cell(ids: int, ways: list[str], lost: str | None) -> str:
    """What the table says: how many events (messageIds, that is), by which way."""
    if ids == 0:
        return f"0: {lost}" if lost else "0"
    return f"{ids}, {' and '.join(ways)}"


if __name__ == "__main__":
    # In a process of its own: pytest wants to load the modules that this one has loaded.
    command = [sys.executable, "-m", "pytest", "-q", str(Path(__file__).with_name("test_cases.py")), *sys.argv[1:]]
    sys.exit(subprocess.run(command, env={**os.environ, "PAGE_VIEWS_TABLE": str(DOCUMENT)}, check=False).returncode)
