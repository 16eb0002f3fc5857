"""Libraries from npm that sites bundle with their own code, unchanged, in a real browser, against a running site."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Response, sync_playwright

from segment_fallback.testing import LocalSegment
from tests.compat.project import Project, Visitor
from tests.servers import NODE_MODULES

HERE = Path(__file__).parent

SETTINGS = """
SEGMENT_FALLBACK |= {"FIRST_PARTY": True, "HOLD": 0}
"""
URLS = """
from pathlib import Path

def bundled(request):
    html = (Path(__file__).parent / "bundle.js").read_text()
    return HttpResponse(f"<!doctype html><meta charset=utf-8><title>A shop</title><script>{html}</script>")

urlpatterns += [path("bundled/", bundled)]
"""
BATCHING = {"strategy": "batching", "config": {"size": 3, "timeout": 1_000}}


@pytest.fixture
def shop(project: Callable[..., Project]) -> Iterator[tuple[Project, str]]:
    site = project(SETTINGS, URLS)
    with site.served() as server:
        yield site, server


def bundle(site: Project, script: str, options: dict[str, Any]) -> None:
    """What a site's build makes of the script."""
    source = (HERE / script).read_text()
    command = [str(NODE_MODULES / ".bin/esbuild"), "--bundle", "--minify", "--format=iife", "--log-level=error"]
    made = subprocess.run(
        command, input=source, capture_output=True, text=True, check=True, timeout=60, cwd=NODE_MODULES.parent
    ).stdout.replace("</script", "<\\/script")
    site.append("shop/bundle.js", f"window.OPTIONS = {json.dumps(options)};\n{made}")


def visit(server: str, chromium: dict[str, Any], requests: int) -> list[tuple[str, int]]:
    """See the page until it has posted so often; what it posted to, and the statuses of the answers."""
    answers: list[tuple[str, int]] = []

    def answered(response: Response) -> None:
        if response.request.method == "POST":
            answers.append((response.url.removeprefix(server).split("/", 3)[3], response.status))

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**chromium)
        page = browser.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("response", answered)
        page.goto(f"{server}/bundled/")
        for _ in range(100):
            if len(answers) >= requests:
                break
            page.wait_for_timeout(100)
        else:
            pytest.fail(f"{answers}, and the page said {said}")
        browser.close()
    return sorted(answers)


def names(server: str) -> dict[str, Any]:
    """The site's public key and paths, as its pages have them."""
    visitor = Visitor(server)
    visitor.see("/")
    return visitor.config


@pytest.mark.parametrize(
    ("strategy", "posted"),
    [({}, ["e/i", "e/p", "e/t"]), (BATCHING, ["e/b"])],
    ids=["single", "batching"],
)
def test_analytics_next_from_npm_delivers(
    shop: tuple[Project, str],
    segment: LocalSegment,
    chromium: dict[str, Any],
    strategy: dict[str, Any],
    posted: list[str],
) -> None:
    site, server = shop
    own = names(server)
    bundle(site, "npm_client.js", {"key": own["k"], "cdn": own["h"], "strategy": strategy or {"strategy": "standard"}})
    assert visit(server, chromium, len(posted)) == [(path, 200) for path in posted]
    site.manage("segment_flush")
    messages = {received.type or "": received.message for received in segment.messages}
    assert sorted(messages) == ["identify", "page", "track"]
    assert messages["track"]["properties"] == {"price": 9.5}
    assert messages["track"]["context"]["library"]["version"].startswith("npm:next-")
    assert {message["userId"] for message in messages.values()} == {None}
    assert len({message["anonymousId"] for message in messages.values()}) == 1


BATCH = {"queueOptions": {"batch": {"enabled": True, "maxItems": 4, "flushInterval": 500}}}


@pytest.mark.parametrize(
    ("options", "posted"),
    [({}, ["group", "identify", "page", "track"]), (BATCH, ["batch"])],
    ids=["single", "batch"],
)
def test_rudderstack_delivers(
    shop: tuple[Project, str], segment: LocalSegment, chromium: dict[str, Any], options: Any, posted: list[str]
) -> None:
    site, server = shop
    own = names(server)
    bundle(site, "rudder_client.js", {"key": own["k"], "api": own["api"], "options": options})
    assert visit(server, chromium, len(posted)) == [(f"e/v1/{kind}", 200) for kind in posted]
    site.manage("segment_flush")
    messages = {received.type or "": received.message for received in segment.messages}
    assert sorted(messages) == ["group", "identify", "page", "track"]
    assert (messages["page"]["name"], messages["group"]["groupId"]) == ("Shop", "staff")
    assert messages["track"]["properties"]["price"] == 9.5
    assert {message["userId"] for message in messages.values()} == {None}
    assert len({message["anonymousId"] for message in messages.values()}) == 1
    # Where the protocols differ: Segment would look for a user's traits at the event's top.
    assert messages["identify"]["context"]["traits"] == {"plan": "gold"}
    assert "traits" not in messages["identify"]


def test_rudderstacks_beacons_are_of_another_protocol(
    shop: tuple[Project, str], segment: LocalSegment, chromium: dict[str, Any]
) -> None:
    site, server = shop
    own = names(server)
    options = {"useBeacon": True, "beaconQueueOptions": {"maxItems": 1}}
    bundle(site, "rudder_client.js", {"key": own["k"], "api": own["api"], "options": options})
    [(path, status), *_] = visit(server, chromium, 1)
    assert (path.partition("?")[0], status) == ("e/beacon/v1/batch", 404)
