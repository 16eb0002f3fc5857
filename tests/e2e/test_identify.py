"""Who is signed in, on pages that are the same for everybody."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import override_settings
from playwright.sync_api import Browser

from segment_fallback.names import hint_cookie
from segment_fallback.testing import LocalSegment
from tests.e2e.conftest import running_site
from tests.e2e.guests import FAST, Guest, Reception, ways
from tests.e2e.visitors import blocked


@pytest.fixture(scope="module")
def running(
    browser: Browser, segment: LocalSegment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Browser, Any, LocalSegment]]:
    with running_site(tmp_path_factory.mktemp("site"), segment, **FAST) as site:
        yield browser, site, segment


@pytest.fixture
def site(running: tuple[Browser, Any, LocalSegment]) -> Iterator[Reception]:
    with Reception(*running).one_test() as reception:
        yield reception


def log_in(guest: Guest, name: str) -> str:
    """The userId."""
    return guest.context.request.get(f"{guest.site.url}/log-in/{name}/").text()


def log_out(guest: Guest) -> None:
    guest.context.request.get(f"{guest.site.url}/log-out/")


def see(guest: Guest, user_id: str | None) -> None:
    """Open a page, on which analytics.js must come to know this userId, and keep to it."""
    guest.open(f"{guest.url}{time.monotonic()}")
    guest.page.wait_for_function("(window.analytics || 0).initialized")
    if user_id:
        guest.page.wait_for_function("id => analytics.user().id() == id", arg=user_id)
    guest.stay(700)
    assert guest.evaluate("analytics.user().id()") == user_id
    assert guest.errors == []


def asked(guest: Guest) -> int:
    return len([url for url in guest.requests if url.endswith("/w")])


def anonymous_id(guest: Guest) -> str:
    return str(guest.evaluate("analytics.user().anonymousId()"))


@ways
def test_stranger_is_nobody_and_nobody_asks(site: Reception, column: str) -> None:
    site.use(column, IDENTIFY=True)
    guest = site.guest()
    see(guest, None)
    assert asked(guest) == 0
    with override_settings(SECRET_KEY="e2e"):
        assert hint_cookie() not in {cookie["name"] for cookie in guest.context.cookies()}


@ways
def test_cached_page_learns_who_is_signed_in_once_a_login(site: Reception, column: str) -> None:
    site.use(column, IDENTIFY=True)
    stranger, guest = site.guest(), site.guest()
    user_id = log_in(guest, "ann")
    answers = [each.context.request.get(f"{site.site.url}/shop/") for each in (stranger, guest)]
    assert answers[0].body() == answers[1].body()
    assert not any({"set-cookie", "vary"} & set(answer.headers) for answer in answers)
    see(guest, user_id)
    see(guest, user_id)
    assert asked(guest) == 1
    guest.until(lambda: guest.events("identify"), "no identify")
    assert [each.message["userId"] for each in guest.events("identify")] == [user_id]
    later = [each for each in guest.events("page") if each.message["userId"]]
    assert {each.message["userId"] for each in later} == {user_id}


@ways
def test_logout_makes_a_stranger_of_the_visitor(site: Reception, column: str) -> None:
    site.use(column, IDENTIFY=True)
    guest = site.guest()
    see(guest, log_in(guest, "ann"))
    before = anonymous_id(guest)
    log_out(guest)
    see(guest, None)
    see(guest, None)
    assert anonymous_id(guest) != before
    assert asked(guest) == 1


@ways
@pytest.mark.parametrize("out", [True, False], ids=["after logout", "in place of the other"])
def test_another_user_is_somebody_else(site: Reception, column: str, out: bool) -> None:
    site.use(column, IDENTIFY=True)
    guest = site.guest()
    first = log_in(guest, "ann")
    see(guest, first)
    before = anonymous_id(guest)
    if out:
        log_out(guest)
    second = log_in(guest, "bob")
    assert second != first
    see(guest, second)
    assert anonymous_id(guest) != before
    assert asked(guest) == 2


@ways
def test_forged_hint_learns_nothing_and_goes(site: Reception, column: str) -> None:
    site.use(column, IDENTIFY=True)
    forger, guest = site.guest(), site.guest()
    log_in(guest, "ann")
    [hint] = [cookie for cookie in guest.context.cookies() if len(cookie["value"]) == 12]
    forger.context.add_cookies([{"name": hint["name"], "value": hint["value"], "url": site.site.url}])
    see(forger, None)
    assert asked(forger) == 1
    assert forger.events("identify") == []
    assert hint["name"] not in {cookie["name"] for cookie in forger.context.cookies()}


@ways
def test_login_while_analytics_js_is_blocked_is_told_to_it_later(site: Reception, column: str) -> None:
    site.use(column, IDENTIFY=True)
    guest = site.guest()
    user_id = log_in(guest, "ann")
    guest.meets("script", blocked())
    for _ in range(2):
        guest.open()
        guest.stay(700)
    guest.until(lambda: guest.events("identify"), "no identify")
    assert [(each.way, each.message["userId"]) for each in guest.events("identify")] == [("call", user_id)]
    assert asked(guest) == 1, "once a login, also where analytics.js is blocked"
    guest.no_longer_meets("script")
    see(guest, user_id)


@ways
def test_logout_while_analytics_js_is_blocked_is_told_to_it_later(site: Reception, column: str) -> None:
    site.use(column, IDENTIFY=True)
    guest = site.guest()
    see(guest, log_in(guest, "ann"))
    log_out(guest)
    second = log_in(guest, "bob")
    guest.meets("script", blocked())
    guest.open()
    guest.stay(700)
    guest.no_longer_meets("script")
    see(guest, second)


def test_page_of_another_site_is_told_nothing(site: Reception) -> None:
    site.use("CDN", IDENTIFY=True)
    guest = site.guest()
    see(guest, log_in(guest, "ann"))
    url = next(url for url in guest.requests if url.endswith("/w"))
    guest.page.goto(f"{site.segment.url}/")
    for mode in ("cors", "no-cors"):
        options = f"{{credentials: 'include', mode: {mode!r}}}"
        assert (
            guest.evaluate(f"fetch({url!r}, {options}).then((answer) => answer.text(), () => 'refused')") == "refused"
        )


def test_answer_is_kept_nowhere(site: Reception) -> None:
    site.use("CDN", IDENTIFY=True)
    guest = site.guest()
    log_in(guest, "ann")
    with guest.page.expect_response("**/w") as answer:
        guest.open()
    assert answer.value.headers["cache-control"] == "private, no-store"
