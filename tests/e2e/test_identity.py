"""One id in real analytics.js and on the server, through deleted cookies and a reset."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.urls import reverse
from playwright.sync_api import sync_playwright

from segment_fallback.names import endpoint_names, id_cookies
from tests.e2e import test_collect
from tests.intake.posts import BPC, call, calls, url_of
from tests.intake.visits import waiting

pytestmark = pytest.mark.django_db(transaction=True)

site = test_collect.site

TWIN = "ajs_anonymous_id"
LIBRARYS_ID = "window.analytics.user && window.analytics.user().anonymousId()"
RECORD = "url => performance.getEntriesByType('resource').some((entry) => entry.name.endsWith(url))"


def test_analytics_js_and_the_server_agree_who_the_visitor_is(site: str, chromium: dict[str, Any]) -> None:
    reset = reverse("segment_fallback:reset", args=[endpoint_names()[0]])
    seen: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**chromium)
        context = browser.new_context()
        page = context.new_page()

        def visit() -> None:
            with page.expect_response(lambda response: response.url.endswith(url_of("i"))) as answer:
                page.goto(site)
            assert answer.value.status == 200
            seen.append(page.wait_for_function(LIBRARYS_ID).json_value())

        def cookie(name: str) -> Any:
            return next((cookie for cookie in context.cookies() if cookie["name"] == name), None)

        visit()
        signed = cookie(id_cookies()[0])
        assert (signed["httpOnly"], signed["sameSite"]) == (True, "Lax")
        assert seen[0] in signed["value"]
        assert id_cookies()[0] not in page.evaluate("document.cookie")
        # An answer that sets cookies leaves a record, too, for first_party.js to find.
        page.wait_for_function(RECORD, arg=url_of("p"))

        # With the copy in localStorage gone as well only the server knows the visitor; a hit brings the id back.
        context.clear_cookies(name=TWIN)
        page.evaluate("localStorage.clear()")
        body = json.dumps(calls(call("track", "Read", page={**BPC, "u": site})))
        page.evaluate("([url, body]) => fetch(url, {method: 'POST', body})", [url_of("q"), body])
        assert cookie(TWIN)["value"] == seen[0]
        visit()

        # With its copy in localStorage analytics.js would bring back what was only deleted.
        page.evaluate("url => fetch(url, {method: 'POST'})", reset)
        visit()
        assert cookie(TWIN)["value"] == seen[2]
        browser.close()

    assert seen[0] == seen[1] != seen[2]
    assert [message["anonymousId"] for message in waiting() if message["type"] == "identify"] == seen
