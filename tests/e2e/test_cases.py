"""Every way in which analytics.js can be blocked, broken or slow: one page view, one messageId.

Real Chromium, real analytics.js, real pixel, buffer and flush. The third party's answers are changed on their way to
the browser.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route

from segment_fallback.testing import Answer, LocalSegment, Received
from tests.e2e.conftest import Site, running_site

ARRIVES = 30.0
SETTLED = 2_500
"""Milliseconds in which beat flushes twice."""

SCRIPT = "/analytics.js/v1/"
SETTINGS = "/v1/projects/"
API = "/v1/p"

Handler = Callable[[Route], None]


@pytest.fixture(scope="module")
def site(segment: LocalSegment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("site"), segment) as site:
        yield site


def blocked(error: str) -> Handler:
    return lambda route: route.abort(error)


def answered(status: int, body: str = "", content_type: str = "application/javascript") -> Handler:
    headers = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "*"}
    return lambda route: route.fulfill(status=status, body=body, content_type=content_type, headers=headers)


def hanging(route: Route) -> None:
    """Never answered."""


NOOP = "window.analytics={%spage(){},track(){},identify(){},ready(){},on(){},load(){}}"
CASES: dict[str, tuple[str, Handler]] = {
    "script blocked by an extension": (SCRIPT, blocked("blockedbyclient")),
    "script: DNS failure": (SCRIPT, blocked("namenotresolved")),
    "script: connection refused": (SCRIPT, blocked("connectionrefused")),
    "script 403": (SCRIPT, answered(403)),
    "script 404": (SCRIPT, answered(404)),
    "script empty": (SCRIPT, answered(200)),
    "HTML instead of a script": (SCRIPT, answered(200, "<html>no</html>", "text/html")),
    "HTML with the type of a script": (SCRIPT, answered(200, "<html>no</html>")),
    "no-op surrogate": (SCRIPT, answered(200, NOOP % "")),
    "surrogate that sets initialized": (SCRIPT, answered(200, NOOP % "initialized:true,")),
    "script hangs": (SCRIPT, hanging),
    "settings blocked": (SETTINGS, blocked("blockedbyclient")),
    "settings 500": (SETTINGS, answered(500)),
    "settings hang": (SETTINGS, hanging),
    "API blocked": (API, blocked("blockedbyclient")),
    "API 400": (API, answered(400)),
    "API 403": (API, answered(403)),
    "API 500": (API, answered(500)),
    "API hangs": (API, hanging),
}


@dataclass
class View:
    """A page view in a fresh browser profile, and what became of it."""

    page: Page
    segment: LocalSegment
    url: str

    def arrivals(self) -> list[Received]:
        return [each for each in self.segment.messages if each.message["properties"]["url"] == self.url]

    def wait(self) -> None:
        """Until the view has arrived, or should have. Routes are served meanwhile."""
        for _ in range(int(ARRIVES * 10)):
            if self.arrivals():
                break
            self.page.wait_for_timeout(100)

    def arrived_once(self) -> str:
        """By which way the view arrived; it must, and under one messageId, whatever the page does afterwards."""
        self.wait()
        self.page.wait_for_timeout(SETTLED)
        self.page.goto("about:blank")
        self.page.wait_for_timeout(SETTLED)
        arrivals = self.arrivals()
        assert len({each.message_id for each in arrivals}) == 1, f"{len(arrivals)} arrivals of {self.url}"
        return "+".join(sorted({each.way for each in arrivals}))


@pytest.fixture
def context(browser: Browser, segment: LocalSegment) -> Iterator[BrowserContext]:
    segment.clear()
    with browser.new_context() as context:
        yield context
        context.unroute_all(behavior="ignoreErrors")
    segment.answer_normally()


def held(context: BrowserContext, segment: LocalSegment) -> list[Route]:
    """Requests of analytics.js, which the test lets go when it likes."""
    late: list[Route] = []

    def hold(route: Route) -> None:
        late.append(route)

    context.route(re.compile(re.escape(segment.url + SCRIPT)), hold)
    return late


def open_view(context: BrowserContext, site: Site, segment: LocalSegment, case: str = "any") -> View:
    page = context.new_page()
    url = f"{site.url}/shop/?case={case}"
    page.goto(url, wait_until="commit")
    return View(page, segment, url)


@pytest.fixture(scope="module")
def arrivals(browser: Browser, site: Site, segment: LocalSegment) -> dict[str, list[Received]]:
    """What arrived in each case. All are opened side by side, each in a profile of its own, and then left."""
    segment.clear()
    views = {}
    with contextlib.ExitStack() as stack:
        for number, (case, (path, answer)) in enumerate(CASES.items()):
            context = stack.enter_context(browser.new_context())
            context.route(re.compile(re.escape(segment.url + path)), answer)
            views[case] = open_view(context, site, segment, str(number))
        page = views[case].page
        segment.wait_for(len(CASES), timeout=3 * ARRIVES)
        page.wait_for_timeout(2 * SETTLED)
        for view in views.values():
            view.page.goto("about:blank")
        page.wait_for_timeout(SETTLED)
        for view in views.values():
            view.page.context.unroute_all(behavior="ignoreErrors")
        return {case: view.arrivals() for case, view in views.items()}


@pytest.mark.parametrize("case", CASES)
def test_third_party_that_does_not_work(arrivals: dict[str, list[Received]], case: str) -> None:
    assert len({each.message_id for each in arrivals[case]}) == 1
    assert {each.way for each in arrivals[case]} == {"pixel"}


@pytest.mark.parametrize("header", ["csp-script", "csp-connect"])
def test_policy_of_the_page_forbids_the_third_party(
    context: BrowserContext, site: Site, segment: LocalSegment, header: str
) -> None:
    assert open_view(context, site, segment, header).arrived_once() == "pixel"


def test_script_slower_than_the_patience(context: BrowserContext, site: Site, segment: LocalSegment) -> None:
    late = held(context, segment)
    view = open_view(context, site, segment)
    view.wait()  # it arrives by the pixel: nobody else can
    late[0].continue_()
    assert view.arrived_once() in ("javascript+pixel", "pixel")


def test_referrer_policy_that_hides_the_page(context: BrowserContext, site: Site, segment: LocalSegment) -> None:
    context.route(re.compile(re.escape(segment.url + SCRIPT)), blocked("blockedbyclient"))
    assert open_view(context, site, segment, "no-referrer").arrived_once() == "pixel"


# A visitor who leaves. Here the third party itself hangs: routes of the test's would die with the tab, and take the
# beacon with them.


@pytest.mark.parametrize("milliseconds", [100, 700])
@pytest.mark.parametrize("path", [SCRIPT, API])
def test_visitor_leaves_before_it_is_done(
    context: BrowserContext, site: Site, segment: LocalSegment, milliseconds: int, path: str
) -> None:
    segment.answer_with(Answer.hang(60), times=None, path=path)
    view = open_view(context, site, segment)
    view.page.wait_for_timeout(milliseconds)
    view.page.goto("about:blank")
    assert view.arrived_once() == "pixel"


def test_window_is_closed(context: BrowserContext, site: Site, segment: LocalSegment) -> None:
    segment.answer_with(Answer.hang(60), times=None, path=SCRIPT)
    opener = context.new_page()
    opener.goto(f"{site.url}/robots.txt")
    url = f"{site.url}/shop/?case=closed"
    with context.expect_page() as popup:
        opener.evaluate(f"popup = window.open('{url}')")
    popup.value.wait_for_function("window.analytics")
    popup.value.wait_for_timeout(300)
    opener.evaluate("popup.close()")
    assert View(opener, segment, url).arrived_once() == "pixel"


def of_case(segment: LocalSegment, case: str) -> list[Received]:
    """What arrived of one test's pages: those of an earlier one may report as they are closed."""
    return [each for each in segment.messages if each.message["properties"].get("search") == f"?case={case}"]


def test_two_tabs_at_the_same_moment(context: BrowserContext, site: Site, segment: LocalSegment) -> None:
    context.route(re.compile(re.escape(segment.url + SCRIPT)), blocked("blockedbyclient"))
    first, second = context.new_page(), context.new_page()
    for page in (first, second):
        page.evaluate(f"setTimeout(() => location.href = '{site.url}/shop/?case=tabs', 300)")
    for _ in range(int(ARRIVES * 10)):
        if len(of_case(segment, "tabs")) >= 2:
            break
        first.wait_for_timeout(100)
    first.wait_for_timeout(SETTLED)
    assert len({each.message_id for each in of_case(segment, "tabs")}) == 2
    assert {each.way for each in of_case(segment, "tabs")} == {"pixel"}


@pytest.mark.parametrize("signal", ["globalPrivacyControl: true", "doNotTrack: '1'"])
def test_visitor_who_does_not_want_to_be_counted(
    context: BrowserContext, site: Site, segment: LocalSegment, signal: str
) -> None:
    name, _, value = signal.partition(": ")
    context.add_init_script(f"Object.defineProperty(navigator, '{name}', {{value: {value}}})")
    page = context.new_page()
    url = f"{site.url}/?case={name}"
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(url, wait_until="networkidle")
    page.evaluate("analytics.track('a click')")
    page.goto("about:blank")
    page.wait_for_timeout(SETTLED)
    assert of_case(segment, name) == []
    assert [each for each in requests if each != "about:blank"] == [url]


def test_event_that_the_site_itself_drops_is_not_sent_by_the_pixel(
    context: BrowserContext, site: Site, segment: LocalSegment
) -> None:
    context.add_init_script("addEventListener('DOMContentLoaded', () => analytics.addSourceMiddleware(() => {}))")
    page = context.new_page()
    page.goto(f"{site.url}/?case=dropped", wait_until="networkidle")
    page.wait_for_timeout(4_000)
    page.goto("about:blank")
    page.wait_for_timeout(SETTLED)
    assert of_case(segment, "dropped") == []


def test_calls_made_before_analytics_js_arrives_are_queued(
    context: BrowserContext, site: Site, segment: LocalSegment
) -> None:
    late = held(context, segment)
    view = open_view(context, site, segment, "early")
    view.page.wait_for_load_state("domcontentloaded")
    view.page.evaluate("analytics.track('Early', {a: 1}); analytics.identify('u-1', {name: 'Ada'})")
    view.page.wait_for_timeout(300)
    late[0].continue_()
    for _ in range(int(ARRIVES * 10)):
        found = {str(each.type): each.message for each in segment.messages if in_page(each, view.url)}
        if len(found) == 3:
            break
        view.page.wait_for_timeout(100)
    assert sorted(found) == ["identify", "page", "track"]
    assert found["identify"]["userId"] == "u-1"
    assert found["track"]["event"] == "Early"


def in_page(received: Received, url: str) -> bool:
    """Whether the call was made in that page."""
    return bool(received.message["context"]["page"]["url"] == url)


# The pixel itself does not work, or has no cookie.


@pytest.mark.parametrize("answer", [blocked("internetdisconnected"), answered(503)], ids=["network down", "503"])
def test_view_that_the_pixel_could_not_take_is_sent_from_the_next_page(
    context: BrowserContext, site: Site, segment: LocalSegment, answer: Handler
) -> None:
    context.route(re.compile(re.escape(segment.url + SCRIPT)), blocked("blockedbyclient"))
    context.route(re.compile(re.escape(site.url + "/s/")), answer)
    lost = open_view(context, site, segment, "lost")
    lost.page.wait_for_function("Object.keys(localStorage).some(key => localStorage[key].includes('case=lost'))")
    context.unroute(re.compile(re.escape(site.url + "/s/")))
    lost.page.goto(f"{site.url}/caf%C3%A9/?case=next")

    assert lost.arrived_once() == "pixel"
    event = lost.arrivals()[0]
    [next_page] = {each.message_id: each.message for each in of_case(segment, "next")}.values()
    assert event.message["messageId"] != next_page["messageId"]
    assert event.message["timestamp"] < next_page["timestamp"]


def test_visitor_who_refuses_cookies(context: BrowserContext, site: Site, segment: LocalSegment) -> None:
    # What a page sees where the browser is set to block cookies; headless Chromium has no such setting.
    context.add_init_script(
        "Object.defineProperty(navigator, 'cookieEnabled', {value: false});"
        "Object.defineProperty(document, 'cookie', {get: () => '', set: () => {}})"
    )
    context.route(re.compile(re.escape(segment.url + SCRIPT)), blocked("blockedbyclient"))
    assert open_view(context, site, segment).arrived_once() == "pixel"


def test_visitor_who_refuses_local_storage(context: BrowserContext, site: Site, segment: LocalSegment) -> None:
    context.add_init_script("Object.defineProperty(window, 'localStorage', {get() { throw new Error('refused') }})")
    context.route(re.compile(re.escape(segment.url + SCRIPT)), blocked("blockedbyclient"))
    assert open_view(context, site, segment).arrived_once() == "pixel"
