"""Visitors of the three kinds of site that the cases are run on, and what the world does to them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, Route

from segment_fallback.testing import LocalSegment, Received
from tests.e2e.conftest import Site

Handler = Callable[[Route], None]

COLUMNS: dict[str, dict[str, Any]] = {
    "CDN": {},
    "first party": {"FIRST_PARTY": True, "HOLD": 3},
    "first party, eager": {"FIRST_PARTY": True, "HOLD": 3, "EAGER": True},
}
"""The settings of each kind of site, beside those of ``project.py``."""

PATIENCE = 3_000
"""Milliseconds that these sites wait for analytics.js."""
ARRIVES = 30_000
"""Milliseconds within which an event must arrive: beat flushes every second."""
SETTLED = 3_500
"""Milliseconds in which beat flushes twice, and in first-party mode a held event is due."""


def blocked(error: str = "blockedbyclient") -> Handler:
    return lambda route: route.abort(error)


def answered(status: int, body: str = "", content_type: str = "application/javascript") -> Handler:
    headers = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "*"}
    return lambda route: route.fulfill(status=status, body=body, content_type=content_type, headers=headers)


def hanging(route: Route) -> None:
    """Never answered."""


@dataclass
class Visitor:
    """Somebody with a browser profile of their own, who comes to see one page."""

    browser: Browser
    column: str
    site: Site
    segment: LocalSegment
    case: str
    """Stands in the page's URL, so that its event is known among others; may ask the site for headers."""
    options: dict[str, Any] = field(default_factory=dict)
    context: BrowserContext = field(init=False)
    page: Page = field(init=False)

    def __post_init__(self) -> None:
        self.context = self.browser.new_context(**self.options)
        self.page = self.context.new_page()

    @property
    def url(self) -> str:
        return f"{self.site.url}/shop/?case={self.case}"

    def open(self, url: str | None = None) -> Page:
        self.page.goto(url or self.url, wait_until="commit")
        return self.page

    def pattern(self, what: str) -> re.Pattern[str]:
        """The URLs of ``script``, ``settings``, ``API`` or ``pixel``."""
        ours = re.escape(self.site.url) + r"/s/\w+"
        theirs = re.escape(self.segment.url)
        first_party = {"script": r"/c/\w+$", "settings": r"/c/\w+/s$", "API": "/e/p$"}
        third_party = {"script": r"/analytics\.js/v1/", "settings": "/v1/projects/", "API": "/v1/p$"}
        if what == "pixel":
            return re.compile(ours + "/[pn]/")
        return re.compile(theirs + third_party[what] if self.column == "CDN" else ours + first_party[what])

    def meets(self, what: str, handler: Handler) -> Visitor:
        """From now on what the page asks for is answered so."""
        self.context.route(self.pattern(what), handler)
        return self

    def no_longer_meets(self, what: str) -> None:
        self.context.unroute(self.pattern(what))

    def held(self, what: str) -> list[Route]:
        """What the page asks for waits here until the test lets it go."""
        waiting: list[Route] = []
        self.meets(what, lambda route: waiting.append(route))  # noqa: PLW0108 - Playwright wants a function
        return waiting

    def arrivals(self, case: str | None = None) -> list[Received]:
        """The page events of that page, by whichever way."""
        search = f"?case={case or self.case}"
        return [
            each
            for each in self.segment.messages
            if each.type == "page" and str(each.message["properties"].get("search")).startswith(search)
        ]

    def wait(self, number: int = 1, case: str | None = None) -> None:
        """Until so many different views have arrived, or should have; routes are served meanwhile."""
        for _ in range(ARRIVES // 100):
            if len({each.message_id for each in self.arrivals(case)}) >= number:
                return
            self.page.wait_for_timeout(100)

    def arrived_once(self) -> str:
        """By which way the view arrived; it must, and under one messageId, whatever the page does afterwards."""
        self.wait()
        self.page.wait_for_timeout(SETTLED)
        self.leave()
        self.page.wait_for_timeout(SETTLED)
        arrivals = self.arrivals()
        assert len({each.message_id for each in arrivals}) == 1, f"{len(arrivals)} arrivals of {self.url}"
        return "+".join(sorted({each.way for each in arrivals}))

    def leave(self) -> None:
        if not self.page.is_closed():
            with contextlib.suppress(Exception):  # a page that has crashed cannot be left
                self.page.goto("about:blank")

    def close(self) -> None:
        self.context.unroute_all(behavior="ignoreErrors")
        self.context.close()


@contextlib.contextmanager
def visitor(browser: Browser, column: str, site: Site, segment: LocalSegment, case: str) -> Iterator[Visitor]:
    somebody = Visitor(browser, column, site, segment, case)
    try:
        yield somebody
    finally:
        somebody.close()
