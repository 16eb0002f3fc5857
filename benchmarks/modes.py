"""What each mode costs in requests, and what it wins: ``python -m benchmarks.modes [--visits 20]``.

Three sites side by side in one run, of which only the mode differs: analytics.js from Segment's CDN, first party, and
first party with EAGER. Counted in a real Chromium: the requests of one page view beside the page itself, and how many
of the visits arrive whose tab is closed a few milliseconds after the page's script began, or whose `fetch` a blocker
has replaced by one that only pretends.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Request, sync_playwright

from segment_fallback.testing import LocalSegment
from tests.e2e.cases import FAKE_FETCH
from tests.e2e.conftest import Site, running_site
from tests.e2e.visitors import ARRIVES, COLUMNS, SETTLED, Visitor, blocked

CLOSED_AFTER = (0, 20, 50, 100, 300)
"""Milliseconds after the page's script began."""


def requests_of_a_view(visitor: Visitor) -> tuple[int, int]:
    """How many requests one view makes, to the site and elsewhere; without the page itself and the browser's icon."""
    seen: list[Request] = []
    visitor.page.on("request", lambda request: seen.append(request))  # noqa: PLW0108 - Playwright wants a function
    visitor.open()
    visitor.wait()
    visitor.page.wait_for_timeout(SETTLED)
    made = [url for each in seen if (url := urlsplit(each.url)).path not in ("/shop/", "/favicon.ico")]
    ours = sum(url.netloc == urlsplit(visitor.site.url).netloc for url in made)
    return ours, len(made) - ours


def share_that_arrives(visitor: Visitor, visits: int, after: int) -> float:
    """Of visits in a tab that closes so soon."""
    visitor.open(f"{visitor.site.url}/robots.txt")
    for number in range(visits):
        url = f"{visitor.site.url}/shop/?case={visitor.case}-{number}-closes-after-{after}"
        visitor.page.evaluate(f"window.open({url!r})")
        visitor.page.wait_for_timeout(500)
    visitor.page.wait_for_timeout(2 * SETTLED)
    return len({each.message_id for each in visitor.arrivals()}) / visits


def measure(browser: Browser, mode: str, site: Site, segment: LocalSegment, visits: int) -> list[str]:
    """One column of the table."""

    def somebody(case: str) -> contextlib.closing[Visitor]:
        segment.clear()
        return contextlib.closing(Visitor(browser, mode, site, segment, case))

    cells = []
    for case in ("well", "script"):
        rounds = []
        for number in range(3):
            with somebody(f"{case}-{number}") as visitor:
                if case == "script":
                    visitor.meets("script", blocked())
                rounds.append(requests_of_a_view(visitor))
        ours, theirs = (int(statistics.median(each)) for each in zip(*rounds, strict=True))
        cells.append(f"{ours} + {theirs}")
    for after in CLOSED_AFTER:
        with somebody(f"closed-{after}") as visitor:
            cells.append(f"{share_that_arrives(visitor, visits, after):.0%}")
    with somebody("faked") as visitor:
        visitor.context.add_init_script(FAKE_FETCH)
        visitor.open()
        visitor.page.wait_for_timeout(min(ARRIVES, 4 * SETTLED))
        cells.append(f"{len({each.message_id for each in visitor.arrivals()}):.0%}")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visits", type=int, default=20, help="visits in tabs that close, for each time (20)")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    arguments = parser.parse_args()
    rows = [
        "requests of a view, to the site + elsewhere",
        "the same, analytics.js blocked",
        *(f"tab closed after {after} ms: arrives" for after in CLOSED_AFTER),
        "`fetch` only pretends: arrives",
    ]
    columns = []
    with sync_playwright() as playwright, LocalSegment() as segment, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(
            executable_path=arguments.chromium, args=["--no-sandbox", "--disable-popup-blocking"]
        )
        for number, (mode, settings) in enumerate(COLUMNS.items()):
            directory = Path(folder, str(number))
            directory.mkdir()
            with running_site(directory, segment, **settings) as site:
                columns.append(measure(browser, mode, site, segment, arguments.visits))
    print(f"| | {' | '.join(COLUMNS)} |")
    print("|---" * (1 + len(COLUMNS)) + "|")
    for row, cells in zip(rows, zip(*columns, strict=True), strict=True):
        print(f"| {row} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
