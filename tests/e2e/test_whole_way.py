"""A person opens a page; the page view arrives at Segment, once. Everything on the way is real."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from segment_fallback.testing import LocalSegment, Received
from tests.e2e.conftest import Site, running_site

ARRIVES = 30.0
"""Seconds within which an event must arrive: beat flushes every second."""


@pytest.fixture(scope="module", params=["SQLite", "DynamoDB Local"])
def site(
    request: pytest.FixtureRequest, segment: LocalSegment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    dynamodb = None if request.param == "SQLite" else request.getfixturevalue("dynamodb_local_url")
    directory: Path = tmp_path_factory.mktemp("site")
    with running_site(directory, segment, dynamodb) as site:
        yield site


@pytest.fixture(autouse=True)
def forget_what_came_before(segment: LocalSegment) -> None:
    segment.clear()


def block(context: BrowserContext, segment: LocalSegment, path: str) -> None:
    """Abort what goes to the third party, as an ad blocker does."""
    context.route(re.compile(re.escape(segment.url + path)), lambda route: route.abort("blockedbyclient"))


def visit(page: Page, url: str) -> None:
    page.goto(url)
    page.wait_for_load_state("networkidle")


def the_one_event(segment: LocalSegment, page: Page, way: str) -> Received:
    """The event that arrived; then the page is left, which must not bring another."""
    segment.wait_for(1, timeout=ARRIVES, type="page")
    page.goto("about:blank")
    requests = len(segment.requests)
    page.wait_for_timeout(2_500)
    assert requests == len(segment.requests), "nothing more was sent, for two flushes"
    [event] = segment.messages
    assert event.way == way
    return event


def test_analytics_js_allowed_brings_one_event_by_javascript(
    browser: Browser, site: Site, segment: LocalSegment
) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        pixels: list[str] = []
        page.on("request", lambda request: pixels.append(request.url) if "/s/" in request.url else None)
        visit(page, site.url)
        event = the_one_event(segment, page, "javascript")
        assert event.message["properties"]["title"] == "Home"
        assert pixels == [], "a page view that is delivered costs our server nothing"


def test_analytics_js_blocked_brings_one_event_by_the_pixel(
    browser: Browser, site: Site, segment: LocalSegment
) -> None:
    with browser.new_context() as context:
        block(context, segment, "/")
        page = context.new_page()
        visit(page, site.url)
        event = the_one_event(segment, page, "pixel")
        assert event.endpoint == "/v1/batch"
        assert event.message["properties"]["title"] == "Home"


def test_tracking_api_blocked_brings_one_event_by_the_pixel(
    browser: Browser, site: Site, segment: LocalSegment
) -> None:
    with browser.new_context() as context:
        block(context, segment, "/v1/p")
        page = context.new_page()
        visit(page, site.url)
        the_one_event(segment, page, "pixel")


def test_scripts_off_brings_one_event_by_noscript(browser: Browser, site: Site, segment: LocalSegment) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        visit(page, f"{site.url}/shop/?utm_source=x")
        event = the_one_event(segment, page, "noscript")
        assert event.message["properties"]["url"] == f"{site.url}/shop/?utm_source=x"
        assert event.message["name"] == "Shop"


ONE_SIDE_KNOWS = {
    "messageId": "each page view has its own",
    "timestamp": "of the call, or of the request",
    "context.library": "who sent it",
    "context.ip": "Segment sees the visitor's address only where the browser sends",
    "integrations": "analytics.js's own",
    "_metadata": "analytics.js's own",
    "writeKey": "analytics.js repeats it in each event",
    "sentAt": "analytics.js repeats it in each event",
}
"""The documented list (docs/how-to/blocked-scripts.md): the fields that may differ between both ways."""


@pytest.mark.parametrize(("first", "then"), [("/", "#next"), ("/caf%C3%A9/?a=1", None)], ids=["a link", "canonical"])
def test_event_of_the_pixel_equals_that_of_javascript(
    browser: Browser, site: Site, segment: LocalSegment, first: str, then: str | None
) -> None:
    events: dict[str, dict[str, Any]] = {}
    with browser.new_context(locale="en-GB", timezone_id="Europe/Lisbon") as context:
        for way in ("javascript", "pixel"):
            segment.clear()
            if way == "pixel":
                block(context, segment, "/")
            page = context.new_page()
            visit(page, site.url + first)
            if then:
                segment.wait_for(1, timeout=ARRIVES)
                segment.clear()
                page.click(then)
                page.wait_for_load_state("networkidle")
            [event] = segment.wait_for(1, timeout=ARRIVES)
            assert event.way == way
            events[way] = without(event.message, ONE_SIDE_KNOWS)
            page.close()
    assert events["pixel"] == events["javascript"]
    assert events["pixel"]["context"]["timezone"] == "Europe/Lisbon"
    if then:
        assert events["pixel"]["context"]["campaign"] == {"source": "home", "name": "May sale"}
        assert events["pixel"]["properties"]["referrer"] == site.url + "/"
        assert events["pixel"]["properties"]["tags"] == ["a", "é"]


def without(message: dict[str, Any], paths: dict[str, str]) -> dict[str, Any]:
    kept = {key: value for key, value in message.items() if key not in paths}
    kept["context"] = {key: value for key, value in message["context"].items() if f"context.{key}" not in paths}
    return kept
