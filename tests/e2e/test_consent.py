"""What a visitor chose, in a real browser: nothing is loaded or sent before it, or against it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Response

from segment_fallback.testing import LocalSegment
from tests.e2e.conftest import running_site
from tests.e2e.guests import FAST, Guest, Reception, ids, ways
from tests.e2e.visitors import blocked

COOKIE = "document.cookie = %r + '; path=/'"
CONSENTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "value": ({"COOKIE": "agreed", "VALUE": "yes"}, COOKIE % "agreed=yes", COOKIE % "agreed=no"),
    "contains": (
        {"COOKIE": "OptanonConsent", "CONTAINS": "C0002:1"},
        COOKIE % "OptanonConsent=isGpcEnabled=0&groups=C0001%3A1%2CC0002%3A1%2CC0004%3A0",
        COOKIE % "OptanonConsent=isGpcEnabled=0&groups=C0001%3A1%2CC0002%3A0%2CC0004%3A0",
    ),
    "any": ({"COOKIE": "agreed"}, COOKIE % "agreed=2026-11-21", COOKIE % "agreed=; max-age=0"),
    "callback": ({"CALLBACK": True}, "segmentFallback.consent(true)", "segmentFallback.consent(false)"),
}
"""CONSENT, and what a banner's script does where the visitor agrees or refuses."""

NAMES = ("consent", "agree", "refuse")
consents = pytest.mark.parametrize(NAMES, CONSENTS.values(), ids=CONSENTS)
both_kinds = pytest.mark.parametrize(NAMES, [CONSENTS["value"], CONSENTS["callback"]], ids=["cookie", "callback"])
"""Of the cookies one stands for all: from here on they are alike."""


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


@ways
@consents
def test_nothing_leaves_before_consent_and_one_event_after(
    site: Reception, column: str, consent: dict[str, Any], agree: str, refuse: str
) -> None:
    site.use(column, CONSENT=consent)
    runs, blocks = site.guest(), site.guest()
    blocks.meets("script", blocked())
    for guest in (runs, blocks):
        guest.open()
    runs.stay()
    for guest in (runs, blocks):
        assert guest.requests == [guest.url]
        assert guest.evaluate("Object.keys(localStorage)") == []
        guest.evaluate(agree)
    runs.until(lambda: runs.events() and blocks.events(), "no event after consent")
    for guest, way in ((runs, "javascript"), (blocks, "pixel")):
        events = guest.await_events(1)
        assert {each.way for each in events} == {way}
        assert guest.errors == []


@ways
@both_kinds
def test_nothing_leaves_where_consent_is_refused(
    site: Reception, column: str, consent: dict[str, Any], agree: str, refuse: str
) -> None:
    site.use(column, CONSENT=consent)
    guest = site.guest()
    guest.open()
    guest.evaluate(refuse)
    guest.evaluate("analytics.track('Bought')")
    guest.silent()
    assert guest.events() == []


@ways
@both_kinds
@pytest.mark.parametrize("blocks", [False, True], ids=["script runs", "script blocked"])
def test_nothing_is_sent_after_withdrawal_until_consent_comes_back(
    site: Reception, column: str, consent: dict[str, Any], agree: str, refuse: str, *, blocks: bool
) -> None:
    site.use(column, CONSENT=consent)
    guest = site.guest()
    if blocks:
        guest.meets("script", blocked())
    guest.open()
    guest.evaluate(agree)
    way = "pixel" if blocks else "javascript"
    guest.until(lambda: way in {each.way for each in guest.events()}, f"no event by {way}")
    guest.await_events(1)
    seen = len(guest.reports)
    # At once: the page's script does not wait for its next look at the cookie.
    guest.evaluate(f"{refuse}; setTimeout(() => analytics.track('Withdrawn'))")
    guest.stay(700)
    guest.evaluate("analytics.track('Withdrawn'); analytics.page('Withdrawn')")
    guest.stay()
    assert guest.reports[seen:] == []
    assert len(ids(guest.events())) == 1
    guest.evaluate(agree)
    guest.stay(700)
    guest.evaluate("analytics.track('Again')")
    [again] = guest.await_events(1, "track")
    assert again.message["event"] == "Again"
    assert len(ids(guest.events("page"))) == 1


@ways
@both_kinds
def test_pending_view_is_not_sent_after_withdrawal(
    site: Reception, column: str, consent: dict[str, Any], agree: str, refuse: str
) -> None:
    site.use(column, CONSENT=consent)
    guest = site.guest()
    held = guest.held("script")
    guest.open()
    guest.evaluate(agree)
    guest.until(lambda: held, "analytics.js was not asked for")
    guest.evaluate("analytics.track('Before')")
    guest.evaluate(refuse)
    guest.stay(700)
    held[0].continue_()
    guest.page.wait_for_function("(window.analytics || 0).initialized")
    guest.stay()
    guest.leave()
    guest.stay()
    assert guest.reports == []
    assert guest.events() == []


def test_pixel_of_a_withdrawn_consent_is_refused(site: Reception) -> None:
    site.use("CDN", CONSENT={"COOKIE": "agreed", "VALUE": "yes"})
    guest = site.guest()
    guest.context.add_cookies([{"name": "agreed", "value": "yes", "url": site.site.url}])
    guest.meets("script", blocked())
    outcomes: list[str] = []

    def answered(response: Response) -> None:
        if "/p/" in response.url:
            outcomes.append(response.headers["x-segment-fallback"])

    guest.context.on("response", answered)
    # The cookie goes between the decision of the page and the request.
    guest.context.add_init_script(
        "const {set} = Object.getOwnPropertyDescriptor(HTMLImageElement.prototype, 'src');"
        "Object.defineProperty(HTMLImageElement.prototype, 'src', {set(url) {"
        "document.cookie = 'agreed=no;path=/'; set.call(this, url)}})"
    )
    guest.open()
    guest.until(lambda: outcomes, "no pixel")
    assert outcomes == ["consent"]


@ways
@pytest.mark.parametrize(
    ("answer", "views"),
    [
        ("Promise.resolve(true)", 1),
        ("Promise.resolve(false)", 0),
        ("Promise.reject(new Error('the banner broke'))", 0),
        ("'denied'", 0),
        ("undefined", 0),
        ("new Promise(() => {})", 0),
    ],
)
def test_answer_may_be_a_promise(site: Reception, column: str, answer: str, views: int) -> None:
    site.use(column, CONSENT={"CALLBACK": True})
    guest = site.guest()
    guest.open()
    guest.evaluate(f"void segmentFallback.consent({answer})")
    if views:
        guest.await_events(1)
        assert guest.errors == []
    else:
        guest.silent()


def test_last_answer_counts_also_where_an_earlier_one_takes_longer(site: Reception) -> None:
    site.use("CDN", CONSENT={"CALLBACK": True})
    guest = site.guest()
    guest.open()
    guest.evaluate(
        "segmentFallback.consent(new Promise(yes => setTimeout(yes, 300, true))); segmentFallback.consent(false)"
    )
    guest.silent()


@ways
def test_cached_page_serves_who_agrees_and_who_does_not(site: Reception, column: str) -> None:
    site.use(column, CONSENT={"COOKIE": "agreed"})
    agrees, refuses = site.guest(), site.guest()
    agrees.context.add_cookies([{"name": "agreed", "value": "1", "url": site.site.url}])
    fresh = [guest.context.request.get(f"{site.site.url}/shop/") for guest in (agrees, refuses)]
    bodies = {answer.body() for answer in fresh}
    assert len(bodies) == 1
    assert not any({"set-cookie", "vary"} & set(answer.headers) for answer in fresh)
    for guest in (agrees, refuses):
        guest.context.route(guest.url, lambda route: route.fulfill(body=next(iter(bodies)), content_type="text/html"))
        guest.open()
    agrees.await_events(1)
    refuses.silent()


SIGNALS = {
    "GPC": ("globalPrivacyControl", "true", "Sec-GPC", "HONOUR_GPC"),
    "DNT": ("doNotTrack", "'1'", "DNT", "HONOUR_DNT"),
}


@ways
@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("alone", [False, True], ids=["both honoured", "alone"])
def test_signal_of_the_browser_is_honoured(site: Reception, column: str, signal: str, alone: bool) -> None:
    [other] = SIGNALS.keys() - {signal}
    site.use(column, CONSENT={"CALLBACK": True}, **({SIGNALS[other][3]: False} if alone else {}))
    guest = sends(site.guest(), signal)
    guest.open()
    guest.evaluate("segmentFallback.consent(true); analytics.track('Bought')")
    guest.silent()


@ways
@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("both", [False, True], ids=["one off", "both off"])
def test_signal_is_ignored_where_settings_say_so(site: Reception, column: str, signal: str, both: bool) -> None:
    site.use(column, **{SIGNALS[name][3]: False for name in SIGNALS if both or name == signal})
    guest = sends(site.guest(), signal)
    guest.meets("script", blocked()).open()
    [event] = guest.await_events(1)
    assert event.way == "pixel"


def sends(guest: Guest, signal: str) -> Guest:
    name, value, header, _ = SIGNALS[signal]
    guest.context.add_init_script(f"Object.defineProperty(navigator, {name!r}, {{value: {value}}})")
    guest.context.set_extra_http_headers({header: "1"})
    return guest


@ways
@pytest.mark.parametrize("blocks", [False, True], ids=["script runs", "script blocked"])
@pytest.mark.parametrize("by_the_page", [False, True], ids=["LOAD_OPTIONS", "load()"])
def test_nothing_is_sent_where_the_site_switches_analytics_js_off(
    site: Reception, column: str, blocks: bool, by_the_page: bool
) -> None:
    site.use(column, **({"AUTOLOAD": False} if by_the_page else {"LOAD_OPTIONS": {"disable": True}}))
    guest, scriptless = site.guest(), site.guest(java_script_enabled=False)
    if blocks:
        guest.meets("script", blocked())
    guest.open()
    scriptless.open()
    if by_the_page:
        guest.evaluate("analytics.load('a-key', {disable: true})")
    guest.stay()
    guest.leave()
    guest.stay()
    assert guest.events() == scriptless.events() == []
    assert guest.reports == scriptless.reports == []


@ways
def test_view_that_a_source_middleware_drops_is_not_sent_by_the_pixel(site: Reception, column: str) -> None:
    site.use(column)
    guest = site.guest()
    guest.context.add_init_script(
        "addEventListener('DOMContentLoaded', () => analytics.addSourceMiddleware(() => undefined))"
    )
    guest.open()
    guest.page.wait_for_function("(window.analytics || 0).initialized")
    guest.stay()
    guest.leave()
    guest.stay()
    assert guest.events() == []
    assert guest.reports == []


@ways
@pytest.mark.parametrize("blocks", [False, True], ids=["script runs", "script blocked"])
@pytest.mark.parametrize("agrees", [True, False], ids=["agrees", "refuses"])
def test_segments_consent_wrapper_decides(site: Reception, column: str, blocks: bool, agrees: bool) -> None:
    site.use(column, AUTOLOAD=False)
    guest = site.guest()
    if blocks:
        guest.meets("script", blocked())
    guest.open(f"{site.site.url}/wrapper/?case={guest.case}")
    guest.page.wait_for_function("!!window.decide")
    guest.stay()
    assert guest.beyond_the_page == []
    guest.evaluate(f"decide({'true' if agrees else 'false'})")
    if not agrees:
        guest.silent()
        return
    events = guest.await_events(1)
    assert {each.way for each in events} == {"pixel" if blocks else "javascript"}
    if not blocks:
        assert events[0].message["context"]["consent"] == {"categoryPreferences": {"Analytics": True}}
