"""A browser behind an edge: the first view is the default, the next one is the visitor's."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from uuid import uuid4

import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import BrowserContext, Page

from tests.edge.servers import Edge
from tests.edge.varied import VISITORS, cookie_of, wanted
from tests.edge.visits import waiting


def cookies_of(context: BrowserContext, edge: Edge, number: int) -> None:
    for cookie in cookie_of(number).split("; "):
        name, _, value = cookie.partition("=")
        context.add_cookies([{"name": name, "value": value, "url": edge.url}])


def until(tab: Page, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        tab.wait_for_timeout(50)


@pytest.mark.parametrize("varied", ["varnish"], indirect=True, scope="module")
@pytest.mark.parametrize("blocked", [False, True])
def test_browser_learns_its_variation_and_its_traits(varied: Edge, browser: Chromium, *, blocked: bool) -> None:
    edge, page = varied, f"/sale/{uuid4().hex}/"

    def viewed() -> list[str]:
        return [event["properties"]["variation"] for event in waiting(edge) if event.get("event") == "Variation Viewed"]

    def heard(number: int) -> bool:
        return len(viewed()) == number

    before = len(viewed())
    number = VISITORS + (6 if blocked else 1)
    assert wanted(number) == "gold"
    with browser.new_context() as context:
        cookies_of(context, edge, number)
        tab = context.new_page()
        asked: list[str] = []
        tab.on("request", lambda request: asked.append(request.url))
        if blocked:
            tab.route("**/analytics.min.js", lambda route: route.abort())
        for turn, variation in enumerate(["regular", "gold"], 1):
            tab.goto(edge.url + page)
            assert tab.text_content("body").startswith(f"Sale: {variation}.")  # type: ignore[union-attr]
            until(tab, functools.partial(heard, before + turn))
        assert viewed()[before:] == ["regular", "gold"]
        until(tab, lambda: tab.evaluate("Object.keys(localStorage).some((key) => localStorage[key].includes('gold'))"))
        if not blocked:
            until(tab, lambda: tab.evaluate("analytics.user().traits().plan") == "gold")
            assert "email" not in tab.evaluate("analytics.user().traits()")
        # Everything is told, and less than a minute ago: nobody asks again.
        asks = len([url for url in asked if url.endswith("/v")])
        tab.goto(edge.url + page)
        tab.wait_for_load_state("networkidle")
        assert len([url for url in asked if url.endswith("/v")]) == asks == 2
