"""All benchmarks, one after the other: ``python -m benchmarks``, or ``make bench``

With ``--write`` each writes its figures (benchmarks/results) and its chart, and the tables of
docs/explanation/benchmarks.md are made anew from the figures. ``--all`` adds ``modes``, which drives a browser for
six minutes. ``--only track --only tag`` runs these. Ends with status 1 where a goal was missed, or one failed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import page
from benchmarks.harness import HEAD, Report, read

MODULES = (
    "pixel",
    "instructions",
    "durable",
    "flush",
    "dynamodb_flush",
    "track",
    "middleware",
    "tag",
    "buffers",
    "snippet",
    "capacity",
)
"""In the form of benchmarks/harness.py."""
OTHERS = ("profiles", "dashboard")
"""In a form of their own, which is only printed."""
LONG = ("modes",)


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    options.add_argument("--write", action="store_true", help="write JSON, charts and the page of the docs")
    options.add_argument("--all", action="store_true", help="also what takes long")
    options.add_argument("--only", action="append", choices=[*MODULES, *OTHERS, *LONG], help="run this one; repeatable")
    chosen = options.parse_args(arguments)
    names = chosen.only or [*MODULES, *OTHERS, *(LONG if chosen.all else ())]
    with tempfile.TemporaryDirectory() as folder:
        failed = [name for name in names if not run(name, Path(folder), write=chosen.write)]
        reports = [read(name, Path(folder)) for name in names if (Path(folder) / f"{name}.json").exists()]
    summarise(reports)
    if chosen.write:
        page.write()
    sys.exit("failed: " + ", ".join(failed) if failed else not all(r.met for each in reports for r in each.results))


def run(name: str, folder: Path, *, write: bool) -> bool:
    """Run one, which prints; whether it came to its end. One that missed a goal has."""
    own = ["--json", str(folder), *(["--write"] if write else [])] if name in MODULES else []
    print(f"\n== {name}", flush=True)
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *own], check=False)  # noqa: S603 - ours
    return done.returncode == 0 or (folder / f"{name}.json").exists()


def summarise(reports: Sequence[Report]) -> None:
    """Print what was compared, in columns."""
    rows = [HEAD, *(result.cells() for report in reports for result in report.results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
