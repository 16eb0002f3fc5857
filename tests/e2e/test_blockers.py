"""Blockers' lists, applied in a real browser: what they block of Segment's and of ours, and that the view arrives.

All cases of the table run with the same lists on first-party sites: see ``test_cases.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Playwright

from segment_fallback.testing import LocalSegment
from tests.blockers.engine import lists_folder
from tests.blockers.extension import Extension, build, surrogates
from tests.e2e.blocking import Blocker, blocking
from tests.e2e.conftest import Site, missing, running_site
from tests.e2e.guests import FAST, Guest, Reception

CDN = "https://cdn.segment.com/"
API = "https://api.segment.io/v1/"


@pytest.fixture(scope="module")
def running(segment: LocalSegment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("site"), segment, **FAST) as site:
        yield site


@pytest.fixture
def site(blocker: Blocker, running: Site, segment: LocalSegment) -> Iterator[Reception]:
    blocker.forget()
    with Reception(blocker.browser, running, segment).one_test() as reception:
        yield reception


def way_of_the_one_view(guest: Guest) -> str:
    """By which way it arrived, once, also when the page is left."""
    guest.await_events(1, "page")
    guest.leave()
    [event] = guest.await_events(1)
    return event.way


def test_lists_run_no_code_of_their_own_on_every_site(extension: Extension) -> None:
    """So the extension does all that a blocker with these lists would do to our pages, but for hiding elements."""
    assert extension.everywhere == []
    assert list(extension.actions.values()).count("block") > 10_000


def test_segments_script_is_blocked_and_the_view_arrives_by_the_pixel(site: Reception, blocker: Blocker) -> None:
    site.use("CDN", CDN_HOST=CDN.rstrip("/"))
    guest = site.guest()
    guest.open()
    assert way_of_the_one_view(guest) == "pixel"
    assert blocker.urls() == {f"{CDN}analytics.js/v1/e2e-key/analytics.min.js"}


def test_segments_api_is_blocked_and_the_view_arrives_by_the_pixel(site: Reception, blocker: Blocker) -> None:
    """analytics.js itself is the site's own here: from Segment's host it would not have come so far."""
    theirs = {"apiHost": API.removeprefix("https://").rstrip("/"), "protocol": "https"}
    site.use("first party", LOAD_OPTIONS={"integrations": {"Segment.io": theirs}})
    guest = site.guest()
    guest.open()
    assert way_of_the_one_view(guest) == "pixel"
    assert blocker.urls() == {f"{API}p"}


@pytest.mark.parametrize("column", ["first party", "first party, eager"])
def test_nothing_is_blocked_in_first_party_mode_and_the_view_arrives_by_javascript(
    site: Reception, blocker: Blocker, column: str
) -> None:
    site.use(column)
    guest = site.guest()
    guest.open()
    assert way_of_the_one_view(guest) == "javascript"
    assert blocker.urls() == set()
    assert guest.errors == []


def test_path_that_lists_look_for_is_blocked_and_the_view_is_lost(site: Reception, blocker: Blocker) -> None:
    """Of which the check W002 warns."""
    site.use("first party", ENDPOINT_NAME="hitcounter")
    guest = site.guest()
    guest.open()
    guest.stay()
    guest.leave()
    guest.stay()
    assert guest.events() == []
    ours = f"{site.site.url}/s/hitcounter/"
    assert {url.removeprefix(ours)[:2] for url in blocker.urls()} == {"c/", "p/"}


@pytest.fixture
def surrogate(playwright: Playwright, chromium: dict[str, Any], tmp_path: Path) -> Iterator[Blocker]:
    """A browser whose one list replaces analytics.js by uBlock Origin's script that does nothing."""
    resources = surrogates(lists_folder())
    if not (resources / "noop.js").exists():
        missing(f"no surrogates in {resources}: leave FILTER_LISTS out, for Debian's webext-ublock-origin-firefox")
    lists, directory = tmp_path / "lists", tmp_path / "extension"
    lists.mkdir()
    directory.mkdir()
    # As `xhr`, too, for the control.
    (lists / "list.txt").write_text("/analytics.js/v1/*$script,xhr,redirect=noop.js\n", "utf-8")
    extension = build(lists, directory, resources)
    with blocking(playwright, chromium, extension, tmp_path / "profile") as blocker:
        yield blocker


def test_script_replaced_by_a_surrogate_is_noticed_and_the_view_arrives_by_the_pixel(
    surrogate: Blocker, running: Site, segment: LocalSegment
) -> None:
    with Reception(surrogate.browser, running, segment).one_test() as site:
        surrogate.forget()
        site.use("CDN", CDN_HOST=CDN.rstrip("/"))
        guest = site.guest()
        guest.open()
        assert way_of_the_one_view(guest) == "pixel"
        assert surrogate.hits() == {(f"{CDN}analytics.js/v1/e2e-key/analytics.min.js", "script", "redirect")}
