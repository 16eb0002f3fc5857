"""The cases: every way in which analytics.js can be blocked, broken, slow or neutered, and in which a visitor may come
and go. Each is a generator: it opens its page and yields; it goes on when the page has lost its patience; and again
when what should have arrived has arrived.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from playwright.sync_api import Error

from tests.e2e.visitors import Handler, Visitor, answered, blocked, hanging

Act = Callable[[Visitor], Generator[None]]

NEVER = "no code of ours ran"
FAKED = "nothing in the page can know; FIRST_PARTY does"


@dataclass(frozen=True)
class Case:
    """``views``: how many page views it is. ``lost``: why there is no event, by column."""

    name: str
    act: Act
    views: int = 1
    lost: dict[str, str] = field(default_factory=dict)
    segment: str | None = None
    """What Segment does meanwhile: ``script hangs``, ``API hangs`` or ``script missing``. Routes of the test's own
    would die with the tab."""
    options: dict[str, object] = field(default_factory=dict)


def meets(what: str, handler: Handler) -> Act:
    def act(visitor: Visitor) -> Generator[None]:
        visitor.meets(what, handler).open()
        yield

    return act


def comes(case: str = "") -> Act:
    """Somebody opens the page; what is special stands in its URL."""

    def act(visitor: Visitor) -> Generator[None]:
        visitor.case += case
        visitor.open()
        yield

    return act


def with_script(script: str, *, block: bool = True) -> Act:
    """The browser is so, and analytics.js is blocked."""

    def act(visitor: Visitor) -> Generator[None]:
        visitor.context.add_init_script(script)
        if block:
            visitor.meets("script", blocked())
        visitor.open()
        yield

    return act


NO_OP = "window.analytics={%spage(){},track(){},identify(){},ready(){},on(){},load(){}}"
FAKE_FETCH = """
const real = window.fetch;
window.fetch = (url, ...rest) => /\\/(v1|e)\\/p$/.test(url) ? Promise.resolve(new Response("{}")) : real(url, ...rest);
"""
# What a page sees where the browser is set to block cookies; headless Chromium has no such setting.
NO_COOKIES = """
Object.defineProperty(navigator, "cookieEnabled", {value: false});
Object.defineProperty(document, "cookie", {get: () => "", set: () => {}});
"""
NO_STORAGE = 'Object.defineProperty(window, "localStorage", {get() { throw new Error("refused") }})'


def slower_than_the_patience(visitor: Visitor) -> Generator[None]:
    held = visitor.held("script")
    visitor.open()
    yield
    held[0].continue_()
    yield


def referrer_policy(visitor: Visitor) -> Generator[None]:
    visitor.case += "-no-referrer"
    visitor.meets("script", blocked()).open()
    yield


def closes_the_window(visitor: Visitor) -> Generator[None]:
    visitor.case += "-script-hangs"
    visitor.open(f"{visitor.site.url}/robots.txt")
    with visitor.context.expect_page() as popup:
        visitor.page.evaluate(f"popup = window.open({visitor.url!r})")
    popup.value.wait_for_function("window.analytics")
    popup.value.wait_for_timeout(300)
    visitor.page.evaluate("popup.close()")
    yield


def leaves_before_the_script(visitor: Visitor) -> Generator[None]:
    visitor.case += "-left-before-the-script"
    visitor.open().wait_for_timeout(100)
    visitor.open(f"{visitor.site.url}/robots.txt")
    yield


def goes_and_comes_back(visitor: Visitor, *, delivered: bool) -> Generator[None]:
    held = [] if delivered else visitor.held("API")
    visitor.open().wait_for_load_state("load")
    visitor.page.evaluate("window.sameDocument = true")
    if delivered:
        visitor.wait()
    visitor.page.wait_for_timeout(1_000)
    visitor.open(f"{visitor.site.url}/robots.txt")
    visitor.page.evaluate("history.back()")
    visitor.page.wait_for_timeout(500)
    for route in held:
        route.continue_()
    yield
    assert visitor.page.evaluate("window.sameDocument"), "the page came from the back/forward cache"
    yield


PRERENDER = """
document.head.append(Object.assign(document.createElement("script"), {type: "speculationrules", text:
    JSON.stringify({%s: [{source: "list", urls: [%s], eagerness: "immediate"}]})}))
"""


def is_prepared(visitor: Visitor, how: str, *, shown: bool) -> Generator[None]:
    visitor.open(f"{visitor.site.url}/robots.txt")
    visitor.page.evaluate(PRERENDER % (how, repr(visitor.url)))
    visitor.page.wait_for_timeout(1_500)
    assert visitor.arrivals() == []
    if shown:
        visitor.page.evaluate(f"location.href = {visitor.url!r}")
    yield


def is_fetched_ahead(visitor: Visitor) -> Generator[None]:
    visitor.open(f"{visitor.site.url}/robots.txt")
    visitor.page.evaluate(
        "url => document.head.append(Object.assign(document.createElement('link'), {rel: 'prefetch', href: url}))",
        visitor.url,
    )
    yield
    assert visitor.arrivals() == []
    visitor.open()
    yield


def has_two_tabs(visitor: Visitor) -> Generator[None]:
    visitor.meets("script", blocked())
    for page in (visitor.page, visitor.context.new_page()):
        page.evaluate(f"setTimeout(() => location.href = {visitor.url!r}, 300)")
    yield


def crashes(visitor: Visitor) -> Generator[None]:
    visitor.open()
    visitor.wait()
    with contextlib.suppress(Error):
        visitor.page.goto("chrome://crash", timeout=2_000)
    visitor.page = visitor.context.new_page()
    visitor.open()
    yield


def pixel_does_not_work(visitor: Visitor, handler: Handler) -> Generator[None]:
    visitor.meets("script", blocked()).meets("pixel", handler).open()
    visitor.page.wait_for_function(
        f"Object.keys(localStorage).some(key => localStorage[key].includes({visitor.case!r}))"
    )
    yield
    assert visitor.arrivals() == []
    visitor.no_longer_meets("pixel")
    visitor.open(f"{visitor.site.url}/caf%C3%A9/?case=next-{visitor.case}")
    yield


def is_in_a_frame(visitor: Visitor) -> Generator[None]:
    # 127.0.0.1 is another site than localhost.
    visitor.meets("script", blocked())
    visitor.open(f"{visitor.segment.url}/")
    visitor.page.evaluate(f"document.body.innerHTML = '<iframe src=\"{visitor.url}\"></iframe>'")
    yield


def nothing(visitor: Visitor) -> Generator[None]:
    visitor.open()
    yield


EVERYWHERE = dict.fromkeys(("CDN", "first party", "first party, eager"), NEVER)

CASES = [
    Case("all is well", nothing),
    Case("script blocked by an extension", meets("script", blocked())),
    Case("script: DNS failure", meets("script", blocked("namenotresolved"))),
    Case("script: connection refused", meets("script", blocked("connectionrefused"))),
    Case("script: 403", meets("script", answered(403))),
    Case("script: 404", meets("script", answered(404))),
    Case("script: empty", meets("script", answered(200))),
    Case("script: HTML instead", meets("script", answered(200, "<html>no</html>", "text/html"))),
    Case("script: HTML with the type of a script", meets("script", answered(200, "<html>no</html>"))),
    Case("script: a surrogate that does nothing", meets("script", answered(200, NO_OP % ""))),
    Case("script: a surrogate that sets `initialized`", meets("script", answered(200, NO_OP % "initialized:true,"))),
    Case("script: slower than the patience", slower_than_the_patience),
    Case("script: hangs", meets("script", hanging)),
    Case("settings: blocked", meets("settings", blocked())),
    Case("settings: 500", meets("settings", answered(500))),
    Case("settings: hang", meets("settings", hanging)),
    Case("Tracking API: blocked", meets("API", blocked())),
    Case("Tracking API: 400", meets("API", answered(400))),
    Case("Tracking API: 403", meets("API", answered(403))),
    Case("Tracking API: 500", meets("API", answered(500))),
    Case("Tracking API: hangs", meets("API", hanging)),
    Case("`fetch` replaced: the API seems to answer", with_script(FAKE_FETCH, block=False), lost={"CDN": FAKED}),
    Case("CSP forbids the script", comes("-csp-script")),
    Case("CSP forbids the connection", comes("-csp-connect")),
    Case("JavaScript off", comes(), options={"java_script_enabled": False}),
    Case("cookies refused", with_script(NO_COOKIES)),
    Case("localStorage refused", with_script(NO_STORAGE)),
    Case("`Referrer-Policy: no-referrer` on the page", referrer_policy),
    Case("in a frame of another site", is_in_a_frame),
    Case("back/forward cache, before delivery", functools.partial(goes_and_comes_back, delivered=False)),
    Case("back/forward cache, after delivery", functools.partial(goes_and_comes_back, delivered=True)),
    Case("prefetched by a link, then opened", is_fetched_ahead),
    Case("prefetched by a speculation rule, then opened", functools.partial(is_prepared, how="prefetch", shown=True)),
    Case("prerendered, then shown", functools.partial(is_prepared, how="prerender", shown=True)),
    Case("prerendered, never shown", functools.partial(is_prepared, how="prerender", shown=False), views=0),
    Case("two tabs at the same moment", has_two_tabs, views=2),
    Case("tab crashed after delivery, page restored", crashes, views=2),
    Case("pixel answers 503", functools.partial(pixel_does_not_work, handler=answered(503))),
    Case("network down", functools.partial(pixel_does_not_work, handler=blocked("internetdisconnected"))),
    *(
        Case(f"left {ms} ms after the page's script began, {what}", comes(f"-{mark}-leaves-after-{ms}"), segment=what)
        for what, mark, moments in (
            ("script hangs", "script-hangs", (0, 10, 50, 200, 700)),
            ("API hangs", "api-hangs", (0, 10, 50, 200, 700)),
            ("script missing", "script-missing", (10, 50)),
        )
        for ms in moments
    ),
    Case("window closed by a script after 300 ms", closes_the_window, segment="script hangs"),
    Case("left before the page's script began", leaves_before_the_script, lost=EVERYWHERE),
]  # fmt: skip
