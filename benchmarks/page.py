"""The tables of docs/explanation, made from what the benchmarks have written, and from the model of costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.capacity import rows
from benchmarks.capacity_model import Site
from benchmarks.harness import CHARTS, HEAD, RESULTS, Report, read

PAGES = Path(__file__).parents[1] / "docs" / "explanation"
BEGIN, END = "<!-- Made by `make bench ARGS=--write`: -->\n", "<!-- until here. -->\n"


def sections() -> str:
    """A section for each benchmark that has written figures."""
    return "".join(section(read(file.stem)) for file in sorted(RESULTS.glob("*.json")))


def section(report: Report) -> str:
    """A heading, a table, a chart, and the figures that have no goal."""
    results = [result.cells() for result in report.results]
    parts = [f"## {report.title}", table([HEAD, *results]) if results else ""]
    if (CHARTS / f"{report.name}.svg").exists():
        parts.append(f"![{report.title}: each figure beside its goal](../images/benchmarks/{report.name}.svg)")
    parts.append("\n".join(f"- {note}" for note in report.notes))
    parts.append(f"`python -m benchmarks.{report.name}`, {report.at[:10]}, {report.machine}")
    return "".join(f"{part}\n\n" for part in parts if part)


def table(rows: Sequence[Sequence[str]]) -> str:
    """In Markdown; the first row is the head."""
    head, *others = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *others))


def made() -> dict[Path, str]:
    """The text of each page, with its tables in their place."""
    costs = f"{table(rows(Site()))}\n\n"
    return {
        PAGES / name: with_tables((PAGES / name).read_text("utf-8"), tables)
        for name, tables in {"benchmarks.md": sections(), "costs.md": costs}.items()
    }


def with_tables(text: str, tables: str) -> str:
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tables}{END}{after}"


def write() -> None:
    """Put the tables into the pages."""
    for path, text in made().items():
        path.write_text(text, "utf-8")
