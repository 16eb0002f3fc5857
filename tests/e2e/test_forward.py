"""COLLECT "forward" with real analytics.js in a real browser: no flush runs, and each view arrives once."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Response

from segment_fallback.testing import Answer, LocalSegment
from tests.e2e.conftest import Site, running_site

SETTLED = 1_500
"""Milliseconds in which analytics.js would have sent what it has twice."""


@pytest.fixture(scope="module")
def site(segment: LocalSegment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    with running_site(directory, segment, FIRST_PARTY=True, COLLECT="forward", SEND_TIMEOUT=1) as site:
        yield site


@pytest.fixture
def context(browser: Browser, site: Site, segment: LocalSegment) -> Iterator[BrowserContext]:
    segment.clear()
    with contextlib.closing(browser.new_context()) as context:
        yield context
    segment.answer_normally()


def statuses(page: Page) -> list[int]:
    """Will hold those of the page's posts to the Tracking API."""
    seen: list[int] = []

    def answered(response: Response) -> None:
        if "/e/" in response.url:
            seen.append(response.status)

    page.on("response", answered)
    return seen


def wait_for(page: Page, segment: LocalSegment) -> None:
    for _ in range(150):
        if segment.messages:
            break
        page.wait_for_timeout(100)
    page.wait_for_timeout(SETTLED)


def test_analytics_js_delivers_through_the_site_at_once(
    context: BrowserContext, site: Site, segment: LocalSegment
) -> None:
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    seen = statuses(page)
    page.goto(f"{site.url}/shop/")
    wait_for(page, segment)

    assert seen == [200]
    [received] = segment.messages
    assert (received.type, received.way, received.write_key) == ("page", "javascript", "e2e-key")
    assert received.message["context"]["ip"] == "127.0.0.1"
    assert [url for url in asked if not url.startswith(site.url)] == []


def test_blocked_analytics_js_leaves_it_to_the_pixel(
    context: BrowserContext, site: Site, segment: LocalSegment
) -> None:
    context.route(re.compile("/c/"), lambda route: route.abort("blockedbyclient"))
    page = context.new_page()
    page.goto(f"{site.url}/shop/")
    wait_for(page, segment)
    assert [received.way for received in segment.messages] == ["pixel"]


@pytest.mark.parametrize(
    ("answer", "first"),
    [
        (Answer(status=500), 503),
        (Answer(status=429, headers={"Retry-After": "1"}), 429),
        (Answer.hang(20), 503),
        (Answer(status=400), 400),
    ],
    ids=["500", "429", "hang", "400"],
)
def test_view_arrives_once_although_segment_did_not_take_it_at_first(
    context: BrowserContext, site: Site, segment: LocalSegment, answer: Answer, first: int
) -> None:
    """analytics.js tries again, and the page asks the pixel; whoever comes through has the same messageId."""
    segment.answer_with(answer)
    page = context.new_page()
    seen = statuses(page)
    page.goto(f"{site.url}/shop/")
    wait_for(page, segment)
    page.goto("about:blank")
    page.wait_for_timeout(SETTLED)

    assert seen[0] == first
    assert len(segment.distinct) == 1
    assert {received.type for received in segment.messages} == {"page"}


def test_what_segment_did_not_take_comes_with_the_next_page(
    context: BrowserContext, site: Site, segment: LocalSegment
) -> None:
    segment.answer_with(Answer(status=503), times=None)
    page = context.new_page()
    page.goto(f"{site.url}/shop/")
    page.wait_for_timeout(SETTLED)
    assert segment.messages == []

    segment.answer_normally()
    page.goto(f"{site.url}/")
    for _ in range(150):
        if len(segment.distinct) >= 2:
            break
        page.wait_for_timeout(100)
    page.wait_for_timeout(SETTLED)
    assert sorted(received.message["properties"]["path"] for received in segment.distinct) == ["/", "/shop/"]
