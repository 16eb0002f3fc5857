"""Real analytics.js in a real browser, all of it from the site's own host, with destinations of every kind."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest
from django.core.cache import caches
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import include, path, reverse
from playwright.sync_api import Browser, Page, Request, Route

from segment_fallback.cdn.store import store
from segment_fallback.names import endpoint_names, public_key
from segment_fallback.testing import Answer, LocalSegment

WRITE_KEY = "e2e-write-key-0123456789abcdef"
PAGE = """<!doctype html><title>A page</title><script>
analytics = [["page"]];
analytics._writeKey = KEY;
analytics._cdn = CDN;
analytics._loadOptions = {obfuscate: true};
</script><script src=SCRIPT></script>"""

LEGACY = """
window["google-analyticsDeps"] = ["/vendor/commons.c42222c4cb2f8913500f.js"];
window["google-analyticsLoader"] = function () {};
window["google-analyticsIntegration"] = function () {
  var handlers = {};
  this.once = this.on = function (name, handler) { (handlers[name] = handlers[name] || []).push(handler); };
  function emit(name) { (handlers[name] || []).forEach(function (handler) { handler(); }); }
  this.initialize = function () { emit("initialize"); setTimeout(emit, 0, "ready"); };
  this.invoke = function (method) { window.seen = (window.seen || []).concat("legacy " + method); };
};
window["google-analyticsIntegration"].prototype.name = "Google Analytics";
"""
ACTION = """
window.heapDestination = function () {
  return {
    name: "Heap", type: "destination", version: "1", isLoaded: function () { return true; },
    load: function () { return Promise.resolve(); },
    page: function (ctx) { window.seen = (window.seen || []).concat("action page"); return ctx; },
  };
};
"""


MIDDLEWARE = """
window.seenMiddleware = function (given) {
  window.seen = (window.seen || []).concat("middleware " + given.payload.type());
  given.next(given.payload);
};
"""


def page(request: HttpRequest) -> HttpResponse:
    key = public_key()
    script = reverse("segment_fallback:script", args=[endpoint_names()[0], key])
    values = {"KEY": key, "CDN": script.removesuffix(f"/{key}"), "SCRIPT": script}
    html = re.sub("KEY|CDN|SCRIPT", lambda found: json.dumps(values[found[0]]), PAGE)
    return HttpResponse(html)


urlpatterns = [path("", page), path("s/", include("segment_fallback.urls"))]


class Threads(ThreadingMixIn, WSGIServer):
    """A browser may open a connection and say nothing."""

    daemon_threads = True


class Quiet(WSGIRequestHandler):
    """Logs no requests."""

    def log_message(self, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def site(segment: LocalSegment) -> Iterator[str]:
    own = {"WRITE_KEY": WRITE_KEY, "CDN_HOST": segment.url, "API_HOST": segment.url, "FIRST_PARTY": True}
    segment.clear()
    with (
        override_settings(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["localhost"], SEGMENT_FALLBACK=own),
        make_server("localhost", 0, WSGIHandler(), server_class=Threads, handler_class=Quiet) as server,
    ):
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()
        thread.join()
        store.forget()
        caches["default"].clear()
    segment.answer_normally()


def with_destinations(segment: LocalSegment) -> None:
    """A source that has one of the old kind and one of the new."""
    content: dict[str, Any] = {
        "integrations": {
            "Segment.io": {"apiKey": WRITE_KEY, "apiHost": "api.segment.io/v1"},
            "Google Analytics": {"type": "browser", "versionSettings": {"version": "2.2.3"}},
            "Heap": {},
        },
        "enabledMiddleware": {"@segment/seen": True},
        "plan": {"track": {"__default": {"enabled": True, "integrations": {}}}},
        "metrics": {"sampleRate": 1},
        "remotePlugins": [
            {
                "name": "Heap",
                "creationName": "Heap",
                "libraryName": "heapDestination",
                "url": "https://cdn.segment.com/next-integrations/actions/heap/51855e573177634029a6.js",
                "settings": {},
            }
        ],
    }
    javascript = {"Content-Type": "application/javascript"}
    answers = {
        "/v1/projects/": Answer(status=200, body=json.dumps(content)),
        "/next-integrations/integrations/google-analytics/2.2.3/google-analytics.dynamic.js.gz": Answer(
            status=200, headers=javascript, body=LEGACY
        ),
        "/next-integrations/vendor/": Answer(status=200, headers=javascript, body="window.vendor = 1"),
        "/next-integrations/actions/heap/": Answer(status=200, headers=javascript, body=ACTION),
        "/next-integrations/middleware/": Answer(status=200, headers=javascript, body=MIDDLEWARE),
    }
    for prefix, answer in answers.items():
        segment.answer_with(answer, path=prefix)


def visit(browser: Browser, site: str) -> tuple[Page, list[Request], list[dict[str, Any]]]:
    """The page, once its page call has been posted, with all requests, and what was posted."""
    tab = browser.new_page()
    requests: list[Request] = []
    posted: list[dict[str, Any]] = []

    def record(request: Request) -> None:
        requests.append(request)

    def api(route: Route) -> None:
        posted.append(json.loads(route.request.post_data or "null"))
        route.fulfill(status=200, json={"success": True})

    tab.on("request", record)
    tab.route("**/e/*", api)
    tab.goto(site)
    tab.wait_for_function("window.analytics.initialized")
    for _ in range(100):
        if any("messageId" in each for each in posted):
            break
        tab.wait_for_timeout(50)
    return tab, requests, posted


@pytest.mark.parametrize("self_hosted", [False, True], ids=["from the CDN", "self-hosted"])
def test_library_works_with_nothing_but_the_sites_own_host(
    browser: Browser, site: str, segment: LocalSegment, self_hosted: bool
) -> None:
    assert segment.analytics_js
    own: Any = {"WRITE_KEY": WRITE_KEY, "CDN_HOST": segment.url, "FIRST_PARTY": True}
    if self_hosted:
        own["SELF_HOSTED"] = str(Path(segment.analytics_js, "dist", "umd"))
    with override_settings(SEGMENT_FALLBACK=own):
        tab, requests, posted = visit(browser, site)
    assert {f"http://{urlsplit(each.url).netloc}" for each in requests} == {site}
    [event] = posted
    assert (event["type"], event["writeKey"]) == ("page", public_key())
    assert tab.evaluate("analyticsWriteKey") == public_key()
    assert WRITE_KEY not in tab.content() + str([each.url for each in requests]) + str(posted)
    assert bool(segment.requests) is not self_hosted
    tab.close()


def test_destinations_load_from_the_site_by_opaque_names(browser: Browser, site: str, segment: LocalSegment) -> None:
    with_destinations(segment)
    tab, requests, _ = visit(browser, site)
    tab.wait_for_function("(window.seen || []).length >= 3")
    assert sorted(tab.evaluate("seen")) == ["action page", "legacy page", "middleware page"]
    assert tab.evaluate("vendor") == 1
    urls = [each.url for each in requests]
    assert {f"http://{urlsplit(url).netloc}" for url in urls} == {site}
    words = re.findall("[A-Za-z0-9]{2,}", " ".join(urlsplit(url).path.partition("/c/")[2] for url in urls))
    assert not [word for word in words if not re.fullmatch(f"{public_key()}|[0-9a-f]{{8,}}|gz", word)]
    assert sorted(request.path for request in segment.requests if "bundle" not in request.path) == [
        f"/analytics.js/v1/{WRITE_KEY}/analytics.min.js",
        "/next-integrations/actions/heap/51855e573177634029a6.js",
        "/next-integrations/integrations/google-analytics/2.2.3/google-analytics.dynamic.js.gz",
        "/next-integrations/middleware/seen/latest/seen.js.gz",
        "/next-integrations/vendor/commons.c42222c4cb2f8913500f.js.gz",
        f"/v1/projects/{WRITE_KEY}/settings",
    ]
    tab.close()
