"""Views without a page load, in real Chromium with real analytics.js, Turbo and htmx: each is one event."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page

from segment_fallback.testing import LocalSegment
from tests.e2e.conftest import Site, running_site
from tests.e2e.navigated import CANONICAL, TITLES
from tests.e2e.visitors import ARRIVES, Visitor, blocked

# A patience that a slow machine with eleven pages at once does not use up: who delivers is looked at as well.
COLUMNS: dict[str, dict[str, Any]] = {
    "CDN": {"NAVIGATION": "auto", "PATIENCE": 20},
    "first party": {"NAVIGATION": "auto", "PATIENCE": 20, "FIRST_PARTY": True, "HOLD": 1},
}
SETTLED = 2_200
"""Milliseconds in which beat flushes twice."""
WALKS = [
    "turbo/head", "turbo/body", "turbo/first", "htmx2/head", "htmx2/body", "htmx4/head", "htmx4/body", "htmx4/first",
    "router/first", "late/first", "router/body",
]  # fmt: skip
PAGES = ["one", "two", "three", "two", "one", "two", "one", "three"]
"""What a walk shows: links, back, back, forward, links again."""
BACK = {3: "back", 4: "back", 5: "forward"}
SHOWN = 900
"""Milliseconds after which a page is in place, and a router's moment is over."""

Event = dict[str, Any]


@dataclass
class Walker(Visitor):
    """Walks without loading a page; the views that arrive are told by the case in every URL."""

    how: str = ""

    def url_of(self, page: str) -> str:
        return f"{self.site.url}/to/{self.how}/{page}/?case={self.case}"

    def start(self, page: str = "one") -> Walker:
        self.open(self.url_of(page)).wait_for_load_state("load")
        self.page.evaluate("window.sameDocument = true")
        return self

    def go(self, number: int) -> None:
        """Take a step of PAGES."""
        if number in BACK:
            self.page.evaluate(f"history.{BACK[number]}()")
        else:
            self.page.click(f"#{PAGES[number]}")

    def is_at(self, page: str) -> None:
        self.page.wait_for_function("title => document.title == title", arg=TITLES[page])
        assert self.page.evaluate("window.sameDocument"), "no page was loaded"

    def views(self) -> list[Event]:
        """The different ones, in their order."""
        first: dict[object, Event] = {}
        for each in self.segment.messages:
            search = str(each.message.get("properties", {}).get("search"))
            if each.type == "page" and search.partition("&")[0] == f"?case={self.case}":
                first.setdefault(each.message_id, each.message)
        return sorted(first.values(), key=lambda event: str(event["timestamp"]))

    def all_views(self, number: int) -> list[Event]:
        """The views, when so many have arrived, and nothing more does."""
        for _ in range(ARRIVES // 100):
            if len(self.views()) >= number:
                break
            self.page.wait_for_timeout(100)
        self.page.wait_for_timeout(SETTLED)
        self.leave()
        self.page.wait_for_timeout(SETTLED)
        return self.views()

    def paths(self, number: int) -> list[str]:
        """The pages of the views."""
        named = {"/first/": "one"}
        return [named.get(path := event["properties"]["path"], path.split("/")[-2]) for event in self.all_views(number)]


@contextlib.contextmanager
def walker(
    browser: Browser, site: Site, segment: LocalSegment, how: str, case: str, *, block: bool
) -> Iterator[Walker]:
    column = "first party" if "first-party" in case else "CDN"
    somebody = Walker(browser, column, site, segment, case, how=how)
    if block:
        somebody.meets("script", blocked())
    try:
        yield somebody
    finally:
        somebody.close()


@dataclass
class Column:
    name: str
    site: Site
    walks: dict[tuple[str, bool], list[Event]]


@pytest.fixture(scope="module", params=COLUMNS)
def column(
    request: pytest.FixtureRequest, browser: Browser, segment: LocalSegment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Column]:
    name: str = request.param
    with running_site(tmp_path_factory.mktemp("site"), segment, **COLUMNS[name]) as site:
        column = Column(name, site, {})
        for block in (False, True):
            column.walks |= walk(browser, site, segment, name, block=block)
        yield column


def walk(
    browser: Browser, site: Site, segment: LocalSegment, name: str, *, block: bool
) -> dict[tuple[str, bool], list[Event]]:
    """All walks side by side, step by step."""
    with contextlib.ExitStack() as stack:
        walkers = {}
        for how in WALKS:
            case = f"{name} {how} {block}".lower().replace("/", "-").replace(" ", "-")
            walkers[how] = stack.enter_context(walker(browser, site, segment, how, case, block=block)).start()
        clock = stack.enter_context(contextlib.closing(browser.new_page()))
        for number, page in enumerate(PAGES):
            for each in walkers.values():
                if number:
                    each.go(number)
            for each in walkers.values():
                each.is_at(page)
            clock.wait_for_timeout(SHOWN)
        for _ in range(ARRIVES // 100):
            if all(len(each.views()) >= len(PAGES) for each in walkers.values()):
                break
            clock.wait_for_timeout(100)
        for each in walkers.values():
            each.leave()
        clock.wait_for_timeout(SETTLED)
        return {(how, block): each.views() for how, each in walkers.items()}


def expected(how: str, case: str, url: str) -> list[dict[str, Any]]:
    """What the views of a walk say."""
    framework, where = how.split("/")
    views: list[dict[str, Any]] = []
    referrer = ""
    for page in PAGES:
        path = f"/to/{how}/{page}/"
        canonical = page == "one"
        views.append(
            {
                "title": TITLES[page],
                "path": urlsplit(CANONICAL).path if canonical else path,
                "url": (CANONICAL if canonical else url + path) + f"?case={case}",
                "referrer": referrer,
            }
        )
        # htmx leaves the new page's head alone, so that a snippet there is not seen; a router asks for no page at all.
        if page == "one" or (where == "head" and framework == "turbo") or (where == "body" and framework != "router"):
            views[-1] |= {"name": f"Page {page}", "category": "Nav", "number": list(TITLES).index(page)}
        referrer = f"{url}{path}?case={case}"
    return views


@pytest.mark.parametrize("block", [False, True], ids=["analytics.js works", "analytics.js blocked"])
@pytest.mark.parametrize("how", WALKS)
def test_each_view_is_one_event_with_what_its_page_says(column: Column, how: str, block: bool) -> None:
    events = column.walks[how, block]
    case = f"{column.name} {how} {block}".lower().replace("/", "-").replace(" ", "-")
    keys = ("title", "path", "url", "referrer", "name", "category", "number")
    said = [{key: event["properties"][key] for key in keys if key in event["properties"]} for event in events]
    assert said == expected(how, case, column.site.url), "\n".join(map(str, said))
    for event in events:
        properties = event["properties"]
        assert [event.get(key) for key in ("name", "category")] == [properties.get("name"), properties.get("category")]
        page = event["context"]["page"]
        assert page == {key: properties[key] for key in ("title", "path", "url", "referrer", "search")}
        assert (event["context"]["library"]["name"] == "analytics.js") is not block


@pytest.fixture(scope="module")
def automatic(segment: LocalSegment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("site"), segment, **COLUMNS["CDN"]) as site:
        yield site


@pytest.fixture
def go(
    request: pytest.FixtureRequest, browser: Browser, segment: LocalSegment, automatic: Site
) -> Iterator[Callable[..., Walker]]:
    """Start a walk of the test's own."""
    with contextlib.ExitStack() as stack:

        def start(how: str, *, block: bool = True, page: str = "one") -> Walker:
            case = request.node.name.replace(" ", "-").translate({ord(c): "-" for c in "[]/,"})
            return stack.enter_context(walker(browser, automatic, segment, how, case, block=block)).start(page)

        yield start


FRAMEWORKS = ["turbo/head", "htmx2/body", "htmx4/body", "router/first"]


@pytest.mark.parametrize("block", [False, True], ids=["works", "blocked"])
@pytest.mark.parametrize("how", FRAMEWORKS)
def test_what_changes_no_page_is_no_view(go: Callable[..., Walker], how: str, block: bool) -> None:
    walker = go(how, block=block)
    page = walker.page
    page.click("#hash")
    page.wait_for_function("location.hash")  # Turbo takes its time
    page.evaluate("history.back()")
    page.wait_for_timeout(SHOWN)
    page.evaluate("history.replaceState(history.state, '', location.pathname + location.search + '&replaced')")
    if "htmx" in how:
        page.click("#swap")
        page.wait_for_selector("#spot b")
    page.click("#hash")
    page.wait_for_timeout(SHOWN)
    page.evaluate("""() => {
        for (const type of ["turbo:load", "htmx:afterSettle", "htmx:historyRestore", "htmx:finally:swap", "popstate"])
            (type == "popstate" ? window : document).dispatchEvent(new CustomEvent(type, {detail: {ctx: {}}}))
    }""")
    page.wait_for_timeout(SHOWN)
    assert walker.paths(1) == ["one"]


@pytest.mark.parametrize("block", [False, True], ids=["works", "blocked"])
@pytest.mark.parametrize("how", FRAMEWORKS)
def test_leaving_right_after_a_navigation_loses_nothing(go: Callable[..., Walker], how: str, block: bool) -> None:
    walker = go(how, block=block)
    walker.page.wait_for_timeout(SHOWN)
    walker.page.evaluate("""() => {
        const { pushState } = history;
        history.pushState = function () {
            pushState.apply(history, arguments);
            location.href = "/robots.txt";
        };
        document.querySelector("#two").click();
    }""")
    walker.page.wait_for_url("**/robots.txt")
    assert walker.paths(2) == ["one", "two"]


def test_pages_of_a_router_that_are_passed_quickly_are_views(go: Callable[..., Walker]) -> None:
    walker = go("router/first")
    walker.page.evaluate("""() => {
        document.querySelector("#two").click();
        setTimeout(() => document.querySelector("#three").click(), 30);
        setTimeout(() => history.back(), 60);
    }""")
    walker.page.wait_for_timeout(SHOWN)
    events = walker.all_views(4)
    assert [event["properties"]["title"] for event in events] == [
        TITLES[page] for page in ("one", "two", "three", "two")
    ]
    assert [event["properties"]["path"].split("/")[-2] for event in events] == ["first", "two", "three", "two"]


@pytest.mark.parametrize("how", ["htmx2/body", "htmx4/body"])  # Turbo changes the URL before the page has come
def test_page_that_never_came_is_no_view(go: Callable[..., Walker], how: str) -> None:
    walker = go(how)
    walker.page.wait_for_timeout(SHOWN)
    walker.page.click("#slow")
    walker.page.wait_for_timeout(SHOWN)
    walker.leave()
    assert walker.paths(1) == ["one"]


def errors_of(page: Page) -> list[str]:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    return errors


MANUAL = {"NAVIGATION": "manual"}


@pytest.fixture(scope="module")
def manual(segment: LocalSegment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("site"), segment, **MANUAL) as site:
        yield site


@pytest.mark.parametrize("block", [False, True], ids=["works", "blocked"])
def test_page_code_reports_views_of_its_own(browser: Browser, segment: LocalSegment, manual: Site, block: bool) -> None:
    with walker(browser, manual, segment, "router/first", f"manual-{block}", block=block) as visitor:
        errors = errors_of(visitor.start().page)
        visitor.go(1)
        visitor.page.wait_for_timeout(SHOWN)
        call = "detail => segmentFallback.page(detail)"
        visitor.page.evaluate(call, {"name": "Zwei", "category": "Käse", "properties": {"sku": "A-1", "n": [1, None]}})
        visitor.page.wait_for_timeout(100)
        visitor.go(2)
        visitor.page.evaluate(call, {"name": "N" * 3_000, "properties": {"big": "ü" * 600, "small": 1}})
        visitor.page.wait_for_timeout(100)
        visitor.page.evaluate("""() => {
            const loop = {name: 7, properties: {}};
            loop.properties.self = loop;
            segmentFallback.page(loop);
        }""") if block else visitor.page.evaluate(call, {"name": 7})
        visitor.page.wait_for_timeout(100)
        visitor.go(1)
        visitor.page.evaluate("segmentFallback.page()")
        visitor.page.wait_for_timeout(100)
        events = visitor.all_views(5)
        assert errors == []
    assert [event["properties"]["path"].split("/")[-2] for event in events] == ["first", "two", "three", "three", "two"]
    assert [event["properties"]["title"] for event in events] == [
        TITLES[p] for p in ("one", "two", "three", "three", "two")
    ]
    _, own, long, odd, plain = events
    assert (own["name"], own["category"]) == ("Zwei", "Käse")
    assert (own["properties"]["sku"], own["properties"]["n"]) == ("A-1", [1, None])
    assert own["properties"]["referrer"] == f"{manual.url}/to/router/first/one/?case=manual-{block}"
    assert "number" not in own["properties"]
    assert long["name"] == "N" * (100 if block else 3_000)
    assert ("small" in long["properties"]) is not block, "more than the pixel can carry goes by analytics.js only"
    assert odd["name"] == "7"
    assert "name" not in plain or plain["name"] is None


def test_manual_counts_nothing_by_itself(browser: Browser, segment: LocalSegment, manual: Site) -> None:
    with walker(browser, manual, segment, "turbo/head", "manual-turbo", block=True) as visitor:
        visitor.start().go(1)
        visitor.is_at("two")
        visitor.page.wait_for_timeout(SHOWN)
        visitor.page.evaluate("segmentFallback.page()")
        events = visitor.all_views(2)
    assert [event["name"] for event in events] == ["Page one", "Page two"], "page() takes what the server has rendered"


def test_without_the_setting_nothing_is_touched(
    browser: Browser, segment: LocalSegment, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with (
        running_site(tmp_path_factory.mktemp("site"), segment) as site,
        walker(browser, site, segment, "turbo/head", "unset", block=True) as visitor,
    ):
        errors = errors_of(visitor.start().page)
        native = "String(history.pushState).includes('native') && String(history.replaceState).includes('native')"
        assert visitor.page.evaluate(f"{native} && window.segmentFallback === undefined")
        visitor.go(1)
        visitor.is_at("two")
        visitor.page.wait_for_timeout(SHOWN)
        assert visitor.paths(1) == ["one"]
        assert errors == []
