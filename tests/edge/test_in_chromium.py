"""Real browsers through real edges: one copy of a page and an event of each visitor; and Segment's custom proxy."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from segment_fallback.testing import LocalSegment
from tests.edge.servers import Edge, custom_proxy, running
from tests.edge.visits import arrived, view


@pytest.mark.parametrize("edge", ["varnish"], indirect=True, scope="package")
def test_two_visitors_see_the_same_bytes_and_make_an_event_each(edge: Edge, page: str, browser: Browser) -> None:
    """The second of them blocks analytics.js."""
    library = view(edge, page).config["u"]
    bodies = []
    for number, blocked in enumerate([None, f"**{library}"], 1):
        with browser.new_context() as context:
            tab = context.new_page()
            if blocked:
                tab.route(blocked, lambda route: route.abort())
            response = tab.goto(f"{edge.url}{page}?utm_source=news")
            assert response
            assert response.headers["x-cache"] == "HIT"
            assert not {"set-cookie", "vary"} & response.headers.keys()
            bodies.append(response.body())
            deadline = time.monotonic() + 20
            while len(arrived(edge, page)) < number:
                assert time.monotonic() < deadline, f"no event of visitor {number}"
                tab.wait_for_timeout(50)
    assert bodies[0] == bodies[1]
    assert edge.made(page) == 1
    events = arrived(edge, page)
    assert [event["context"]["library"].get("way", "javascript") for event in events] == ["javascript", "pixel"]
    assert len({event["messageId"] for event in events}) == len({event["anonymousId"] for event in events}) == 2
    assert [event["context"]["campaign"]["source"] for event in events] == ["news", "news"]


def test_page_reports_through_a_custom_proxy(browser: Browser, segment: LocalSegment, tmp_path: Path) -> None:
    segment.clear()
    with custom_proxy(tmp_path, segment.url.removeprefix("http://")) as (cdn, api):
        proxy = {"apiHost": f"127.0.0.1:{api}/v1", "protocol": "http"}
        settings = {"CDN_HOST": f"http://127.0.0.1:{cdn}", "LOAD_OPTIONS": {"integrations": {"Segment.io": proxy}}}
        with running("django", tmp_path, "", settings) as edge, browser.new_context() as context:
            tab = context.new_page()
            asked: list[str] = []
            tab.on("request", lambda request: asked.append(request.url))
            context.add_cookies([{"name": "sessionid", "value": "secret", "url": edge.url}])
            tab.goto(f"{edge.url}/shop/proxied/")
            deadline = time.monotonic() + 20
            while not segment.messages:
                assert time.monotonic() < deadline, asked
                tab.wait_for_timeout(50)
    [received] = segment.messages
    assert received.type == "page"
    assert not [url for url in asked if url.startswith(segment.url) or "/p/" in url], "neither past it nor by the pixel"
    assert {request.method for request in segment.requests} >= {"GET", "POST"}
    for request in segment.requests:
        assert request.headers["Host"] == ("cdn.segment.com" if request.method == "GET" else "api.segment.io")
    assert not [request for request in segment.requests if request.headers["Cookie"]]
