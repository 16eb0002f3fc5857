"""Calls of the site's own code, whatever becomes of analytics.js: each reaches Segment once, and in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from segment_fallback.testing import LocalSegment, Received
from tests.e2e.conftest import running_site
from tests.e2e.guests import FAST, Guest, Reception, ids, ways
from tests.e2e.visitors import answered, blocked

CALLS = """
analytics.identify({plan: "gold"});
await new Promise(soon => setTimeout(soon, 30));
analytics.track("Bought", {price: 9.5});
await new Promise(soon => setTimeout(soon, 30));
analytics.group("a-group", {size: 3});
await new Promise(soon => setTimeout(soon, 30));
analytics.page("Shop", "Second view", {own: true});
await new Promise(soon => setTimeout(soon, 30));
analytics.alias("somebody");
"""
KINDS = ["identify", "track", "group", "page", "alias"]


@pytest.fixture(scope="module")
def running(
    browser: Browser, segment: LocalSegment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Browser, Any, LocalSegment]]:
    # What is refused to a stranger, alias, is tested with the endpoint.
    with running_site(tmp_path_factory.mktemp("site"), segment, **FAST) as site:
        yield browser, site, segment


@pytest.fixture
def site(running: tuple[Browser, Any, LocalSegment]) -> Iterator[Reception]:
    with Reception(*running).one_test() as reception:
        yield reception


def own_calls(guest: Guest) -> list[Received]:
    """The events of the calls above, without repetitions, by the time at which they were made."""
    first: dict[str | None, Received] = {}
    for each in guest.events():
        if each.type != "page" or each.message["properties"].get("own"):
            first.setdefault(each.message_id, each)
    return sorted(first.values(), key=lambda each: each.message["timestamp"])


def views(guest: Guest) -> list[Received]:
    """The events of the snippet's own page call."""
    return [each for each in guest.events("page") if not each.message["properties"].get("own")]


def all_arrived_once(guest: Guest) -> list[Received]:
    guest.until(lambda: len(own_calls(guest)) >= len(KINDS), "calls are missing")
    guest.until(lambda: views(guest), "the view is missing")
    guest.stay()
    guest.leave()
    guest.stay()
    calls = own_calls(guest)
    # In one request they keep their order. In several, as when the patience ends meanwhile, one may overtake another.
    if sum(url.endswith("/q") for url in guest.requests) > 1:
        calls.sort(key=lambda each: KINDS.index(str(each.type)))
    assert [each.type for each in calls] == KINDS
    assert calls[1].message["properties"] == {"price": 9.5}
    assert calls[3].message["properties"]["path"] == "/shop/"
    assert len(ids(views(guest))) == 1
    assert guest.errors == []
    return calls


def make(guest: Guest, calls: str = CALLS) -> None:
    guest.page.wait_for_function("window.analytics")
    guest.evaluate(f"(async () => {{{calls}}})()")


@ways
@pytest.mark.parametrize("when", ["at once", "later"])
def test_calls_arrive_where_all_is_well(site: Reception, column: str, when: str) -> None:
    site.use(column, TRUST_CLIENT_USER_ID=True)
    guest = site.guest()
    guest.open()
    if when == "later":
        guest.page.wait_for_function("(window.analytics || 0).initialized")
    make(guest)
    guest.until(lambda: len(own_calls(guest)) >= len(KINDS), "calls are missing")
    guest.stay()
    assert sorted(str(each.type) for each in own_calls(guest)) == sorted(KINDS)
    assert {each.way for each in own_calls(guest)} == {"javascript"}


@ways
@pytest.mark.parametrize("what", ["script", "settings"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_calls_arrive_where_analytics_js_is_blocked(site: Reception, column: str, what: str, when: str) -> None:
    site.use(column, TRUST_CLIENT_USER_ID=True)
    guest = site.guest()
    held = guest.held(what)
    guest.open()
    guest.until(lambda: held, "not asked for")
    if when == "before":
        make(guest)
    held[0].abort("blockedbyclient")
    if when == "after":
        guest.until(lambda: [url for url in guest.requests if "/p/" in url], "no pixel")
        make(guest)
    calls = all_arrived_once(guest)
    assert {each.way for each in calls} == {"call"}


@ways
@pytest.mark.parametrize("what", ["script", "settings"])
def test_calls_arrive_once_where_analytics_js_is_slower_than_the_patience(
    site: Reception, column: str, what: str
) -> None:
    site.use(column, TRUST_CLIENT_USER_ID=True)
    guest = site.guest()
    held = guest.held(what)
    guest.open()
    make(guest)
    guest.until(lambda: [url for url in guest.requests if url.endswith("/q")], "no fallback")
    held[0].continue_()
    guest.page.wait_for_function("(window.analytics || 0).initialized")
    guest.evaluate("analytics.track('Late')")
    guest.until(lambda: len(own_calls(guest)) > len(KINDS), "calls are missing")
    guest.stay()
    # On a slow machine the patience ends while the page still makes its calls: then they go in several requests.
    ways = sorted((str(each.type), str(each.way)) for each in own_calls(guest))
    assert ways == sorted([*((kind, "call") for kind in KINDS), ("track", "javascript")])


@ways
def test_call_with_a_callback_is_not_taken_for_the_snippets_own(site: Reception, column: str) -> None:
    site.use(column)
    guest = site.guest()
    guest.meets("script", blocked()).open()
    guest.evaluate("void analytics.page('Shop', 'Whole', {own: true}, {}, () => {})")
    guest.until(lambda: own_calls(guest), "the call is missing")
    assert [each.message["name"] for each in own_calls(guest)] == ["Whole"]


@ways
@pytest.mark.parametrize("how", ["503", "network down"])
def test_calls_wait_for_the_next_page_where_the_site_cannot_take_them(site: Reception, column: str, how: str) -> None:
    site.use(column, TRUST_CLIENT_USER_ID=True)
    guest = site.guest()
    guest.meets("script", blocked())
    handler = answered(503) if how == "503" else blocked("internetdisconnected")
    guest.context.route("**/q", handler)
    guest.open()
    make(guest)
    guest.page.wait_for_function(
        f"Object.values(localStorage).some(kept => kept[0] == '[' && JSON.parse(kept).length == {len(KINDS)})"
    )
    guest.stay(500)
    assert own_calls(guest) == []
    guest.context.unroute("**/q")
    guest.open(f"{site.site.url}/caf%C3%A9/?case=next")
    guest.until(lambda: len(own_calls(guest)) >= len(KINDS), "calls are missing")
    guest.stay()
    assert [each.type for each in own_calls(guest)] == KINDS
    assert not [kept for kept in guest.evaluate("Object.values(localStorage)") if guest.case in kept]


@ways
@pytest.mark.parametrize("what", ["script", "settings"])
def test_call_made_just_before_the_page_is_left_arrives(site: Reception, column: str, what: str) -> None:
    site.use(column)
    guest = site.guest()
    guest.held(what)
    guest.open().wait_for_function("window.analytics")
    guest.evaluate("analytics.track('Bought', {price: 9.5}); location = '/robots.txt'")
    guest.until(lambda: own_calls(guest) and views(guest), "call or view is missing")
    guest.stay()
    [call] = own_calls(guest)
    assert (call.type, call.way) == ("track", "call")
    assert len(ids(guest.events("page"))) == 1


@ways
def test_call_is_known_by_the_time_at_which_it_was_made(site: Reception, column: str) -> None:
    site.use(column, PATIENCE=3)
    guest = site.guest()
    guest.held("script")
    guest.open().wait_for_function("window.analytics")
    made = guest.evaluate("analytics.track('Bought'), new Date().toISOString()")
    guest.until(lambda: own_calls(guest), "the call is missing")
    [call] = own_calls(guest)
    assert abs(moment(call.message["timestamp"]) - moment(made)) < 1


def moment(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
