"""The real analytics.js, from the local CDN, in a real browser, sends to the local Segment."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from segment_fallback.testing import LocalSegment
from tests.e2e.conftest import missing

CHROMIUM = Path("/usr/bin/chromium")
PAGE = """<!doctype html><title>Shop</title><script>
window.analytics = [["page", {}, {messageId: "view-1"}]];
analytics._writeKey = "wk";
analytics._cdn = "CDN";
</script><script src="CDN/analytics.js/v1/wk/analytics.min.js"></script>"""


class Site(BaseHTTPRequestHandler):
    """A site with one page, everywhere."""

    page = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(self.page)

    def log_message(self, *args: object) -> None:
        """Be quiet."""


@pytest.mark.e2e
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_real_analytics_js_delivers_a_page_event(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not CHROMIUM.exists():
        missing("no Chromium: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with LocalSegment(write_keys=["wk"]) as segment, HTTPServer(("127.0.0.1", 0), Site) as site:
        if not segment.has_analytics_js:
            missing("no analytics.js: npm ci (in the checkout)")
        cdn = f"http://{host}:{segment.port}"
        monkeypatch.setattr(Site, "page", PAGE.replace("CDN", cdn).encode())
        thread = threading.Thread(target=site.serve_forever, args=(0.02,))
        thread.start()
        try:
            with playwright.sync_playwright() as driver:
                browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
                browser.new_page().goto(f"http://127.0.0.1:{site.server_port}/shoes?size=9")
                [page] = segment.wait_for(1, type="page")
                browser.close()
        finally:
            site.shutdown()
            thread.join()

    assert (page.way, page.message_id, page.endpoint, page.write_key) == (
        "javascript",
        "view-1",
        "/v1/p",
        "wk",
    )
    assert page.message["context"]["page"]["path"] == "/shoes"
    assert page.headers["Host"] == f"{host}:{segment.port}"
    assert [request.path for request in segment.requests if request.method == "GET"] == [
        "/analytics.js/v1/wk/analytics.min.js",
        "/v1/projects/wk/settings",
    ]
