"""What the doctor says of a Content-Security-Policy is what a real browser does with it."""

from __future__ import annotations

import time
from typing import Any

from django.http import HttpRequest, HttpResponse
from playwright.sync_api import sync_playwright

from segment_fallback.doctor.finding import Level
from segment_fallback.doctor.run import examine_page
from segment_fallback.page.snippet import render
from segment_fallback.page.token import Page
from segment_fallback.testing import LocalSegment
from tests.doctor.conftest import Serve
from tests.doctor.site import page, with_header
from tests.e2e.conftest import chromium  # noqa: F401 - a fixture


def looked_at(url: str, launch: dict[str, Any], segment: LocalSegment, seconds: float) -> tuple[list[str], int]:
    """What Chromium's console says of the policy, and how many page views have arrived within that time, or one."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**launch)
        tab = browser.new_page()
        refused: list[str] = []
        tab.on("console", lambda line: refused.append(line.text) if "Content Security Policy" in line.text else None)
        tab.goto(url)
        deadline = time.monotonic() + seconds
        while not segment.messages and time.monotonic() < deadline:
            tab.wait_for_timeout(50)
        browser.close()
    return refused, len(segment.messages)


def test_header_of_the_finding_lets_a_browser_report(
    serve: Serve,
    local_segment: LocalSegment,
    chromium: dict[str, Any],  # noqa: F811 - the fixture
) -> None:
    url = serve(with_header("Content-Security-Policy", "default-src 'none'"))
    [header] = {
        finding.cure.partition("Content-Security-Policy: ")[2]
        for finding in examine_page(url)
        if finding.id.startswith("policy.csp") and finding.level is not Level.OK
    }
    refused, arrived = looked_at(url, chromium, local_segment, 1)
    assert refused
    assert arrived == 0
    url = serve(with_header("Content-Security-Policy", header), {"EXTERNAL_SCRIPT": True})
    refused, arrived = looked_at(url, chromium, local_segment, 20)
    assert (refused, arrived) == ([], 1)


def test_policy_that_is_said_to_be_enough_is_enough(
    serve: Serve,
    local_segment: LocalSegment,
    chromium: dict[str, Any],  # noqa: F811 - the fixture
) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        response = page(request, render(Page(request.path), nonce="abc"))
        response["Content-Security-Policy"] = "script-src 'nonce-abc' 'strict-dynamic'; img-src 'self'"
        response["Cache-Control"] = "private"
        return response

    url = serve(view)
    assert [f.id for f in examine_page(url) if f.id.startswith("policy") and f.level is not Level.OK] == []
    assert looked_at(url, chromium, local_segment, 20) == ([], 1)
