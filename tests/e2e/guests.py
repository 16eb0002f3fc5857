"""Visitors whose every request and error is seen, on a site whose settings change from test to test."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser

from segment_fallback.testing import LocalSegment, Received
from tests.e2e.conftest import Site
from tests.e2e.visitors import COLUMNS, Visitor

PATIENCE = 1_000
"""Milliseconds that these sites wait for analytics.js."""
QUIET = 2_500
"""Milliseconds in which whatever is on its way would have come: longer than the patience, and than two flushes."""
FAST: dict[str, Any] = {"PATIENCE": PATIENCE / 1_000, "HOLD": 1}

REPORT = re.compile(r"/s/\w+/[pn]/|/q$|/v1/[a-z]$")

_NUMBERS = itertools.count(1)

ways = pytest.mark.parametrize("column", ["CDN", "first party"])


@dataclass
class Guest(Visitor):
    """A visitor whose requests are listed, and whose pages' uncaught errors."""

    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.context.on("weberror", lambda error: self.errors.append(str(error.error)))

    @property
    def beyond_the_page(self) -> list[str]:
        """The requests but those for pages and what else is no business of ours."""
        return [url for url in self.requests if "case=" not in url and "/modules/" not in url]

    @property
    def reports(self) -> list[str]:
        """The requests that carry events: pixel, calls, Tracking API."""
        return [url for url in self.requests if REPORT.search(url)]

    def events(self, type: str | None = None) -> list[Received]:  # noqa: A002
        """What Segment has of this visitor's pages."""
        own = [each for each in self.segment.messages if self.case in json.dumps(each.message["context"]["page"])]
        return [each for each in own if type in (None, each.type)]

    def until(self, condition: Callable[[], object], what: str) -> None:
        for _ in range(200):
            if condition():
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"{what}: {[(each.type, each.way) for each in self.events()]}, {self.requests}")

    def await_events(self, number: int, type: str | None = None) -> list[Received]:  # noqa: A002
        """So many different events, and no more afterwards. One that came by several ways counts as JavaScript's."""
        self.until(lambda: len(ids(self.events(type))) >= number, f"no {number} {type or 'events'}")
        self.stay(QUIET)
        kept: dict[str | None, Received] = {}
        for each in sorted(self.events(type), key=lambda each: each.way != "javascript"):
            kept.setdefault(each.message_id, each)
        assert len(kept) == number
        return list(kept.values())

    def stay(self, milliseconds: int = QUIET) -> None:
        self.page.wait_for_timeout(milliseconds)

    def silent(self) -> None:
        """Nothing leaves the browser but requests for its pages; not when it is left, either."""
        self.stay()
        self.leave()
        self.stay(500)
        assert self.beyond_the_page == []
        assert self.errors == []

    def evaluate(self, script: str) -> Any:
        return self.page.evaluate(script)


def ids(events: list[Received]) -> set[str | None]:
    return {each.message_id for each in events}


class Reception:
    """A running site, its settings, and the guests that a test has invited."""

    def __init__(self, browser: Browser, site: Site, segment: LocalSegment) -> None:
        self.browser, self.site, self.segment = browser, site, segment
        self.stack = contextlib.ExitStack()
        self.column = "CDN"

    def use(self, column: str, **keys: Any) -> None:
        self.column = column
        body = json.dumps({**COLUMNS[column], **FAST, **keys}).encode()
        urllib.request.urlopen(f"{self.site.url}/configure/", body, timeout=10).close()

    def guest(self, **options: Any) -> Guest:
        guest = Guest(self.browser, self.column, self.site, self.segment, f"guest-{next(_NUMBERS)}-", options)
        self.stack.callback(guest.close)
        return guest

    @contextlib.contextmanager
    def one_test(self) -> Iterator[Reception]:
        self.segment.clear()
        with self.stack:
            yield self
        self.segment.answer_normally()
