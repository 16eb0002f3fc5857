"""Real analytics.js in a real browser, delivering to our Tracking API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import override_settings
from django.urls import include, path
from playwright.sync_api import Response, sync_playwright

from segment_fallback.models import WaitingMessage
from segment_fallback.names import public_key
from segment_fallback.outcome import Outcome, Refused
from tests.intake.posts import WRITE_KEY, url_of
from tests.intake.test_clients import OneByOne, without_static_files
from tests.intake.visits import outcomes, waiting

pytestmark = pytest.mark.django_db(transaction=True)

LIBRARY = Path(__file__).parents[2] / "node_modules/@segment/analytics-next/dist/umd/standalone.js"
PAGE = """<!doctype html><title>A shop</title><script>
analytics = [["page", "Shop"], ["track", "Bought", {"price": 9.5}], ["identify", "someone", {"plan": "gold"}]]
analytics._writeKey = "KEY"; analytics._cdn = location.origin
</script><script src="/standalone.js"></script>"""

delivery: dict[str, Any] = {}


def shop(request: HttpRequest) -> HttpResponse:
    return HttpResponse(PAGE.replace("KEY", public_key()))


def library(request: HttpRequest) -> HttpResponse:
    return HttpResponse(LIBRARY.read_bytes(), content_type="text/javascript")


def source(request: HttpRequest, key: str) -> HttpResponse:
    own = {"apiKey": key, "apiHost": request.get_host() + url_of("p").removesuffix("/p"), "protocol": "http"}
    return JsonResponse({"integrations": {"Segment.io": {**own, **delivery}}})


urlpatterns = [
    path("s/", include("segment_fallback.urls")),
    path("shop/", shop),
    path("standalone.js", library),
    path("v1/projects/<key>/settings", source),
]


@pytest.fixture
def site(transactional_db: None) -> Iterator[str]:
    """The URL of the shop, in a server on the test's own database."""
    base = {"WRITE_KEY": WRITE_KEY, "OUTCOME_INTERVAL": 0, "SPOOL": "spool", "FIRST_PARTY": True}
    connection = connections["default"]
    thread = OneByOne("localhost", without_static_files, connections_override={"default": connection})  # type: ignore[arg-type]
    thread.daemon = True
    connection.inc_thread_sharing()
    with override_settings(SEGMENT_FALLBACK=base, ALLOWED_HOSTS=["localhost"], ROOT_URLCONF=__name__):
        thread.start()
        thread.is_ready.wait(30)
        assert thread.error is None
        yield f"http://localhost:{thread.port}/shop/"
        thread.terminate()
    connection.dec_thread_sharing()


def visit(site: str, chromium: dict[str, Any], requests: int) -> list[int]:
    """See the page until analytics.js has posted so often; the statuses of the answers."""
    statuses: list[int] = []

    def answered(response: Response) -> None:
        if "/e/" in response.url:
            statuses.append(response.status)

    # Not the module's browser: while one runs, its event loop makes Django refuse queries.
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**chromium)
        page = browser.new_page()
        page.on("response", answered)
        page.goto(site)
        for _ in range(100):
            if len(statuses) >= requests:
                break
            page.wait_for_timeout(100)
        browser.close()
    return statuses


BATCHING = {"deliveryStrategy": {"strategy": "batching", "config": {"size": 3, "timeout": 1_000}}}


@pytest.mark.parametrize(("strategy", "requests"), [({}, 3), (BATCHING, 1)], ids=["single", "batching"])
def test_analytics_js_delivers_unchanged(
    site: str, chromium: dict[str, Any], monkeypatch: pytest.MonkeyPatch, strategy: dict[str, Any], requests: int
) -> None:
    monkeypatch.setitem(globals(), "delivery", strategy)
    assert visit(site, chromium, requests) == [200] * requests

    messages = {message["type"]: message for message in waiting()}
    assert sorted(messages) == ["identify", "page", "track"]
    assert messages["track"]["properties"] == {"price": 9.5}
    assert messages["identify"]["traits"] == {"plan": "gold"}
    assert {message["userId"] for message in messages.values()} == {None}
    assert len({message["anonymousId"] for message in messages.values()}) == 1
    assert messages["page"]["context"]["page"]["path"] == "/shop/"
    assert {message["context"]["library"]["name"] for message in messages.values()} == {"analytics.js"}
    assert set(WaitingMessage.objects.values_list("way", flat=True)) == {"javascript"}
    assert outcomes() == {"accepted": 3}


def test_analytics_js_sends_again_what_could_not_be_kept(
    site: str, chromium: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = [Outcome.UNAVAILABLE] * 3

    def failing(*_: object) -> None:
        if refusals:
            raise Refused(refusals.pop())

    monkeypatch.setattr("segment_fallback.intake.collect.check_choices", failing)
    statuses = visit(site, chromium, 6)

    assert sorted(statuses) == [200] * 3 + [503] * 3
    assert sorted(message["type"] for message in waiting()) == ["identify", "page", "track"]
    assert outcomes() == {"accepted": 3, "unavailable": 3}
