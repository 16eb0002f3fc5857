"""Whether edges may keep a page, whether they do, and what in the site forbids it."""

from __future__ import annotations

import re

from segment_fallback.doctor.fetch import Answer
from segment_fallback.doctor.finding import Findings, Level, kind
from segment_fallback.doctor.page import Page

SET_COOKIE = kind(
    "cache.set_cookie",
    Level.WARNING,
    "An edge does not keep such a page; one that does gives one visitor's cookie to all others.",
    "Set the cookie on a request that is not cached. A csrftoken comes from {% csrf_token %}, a sessionid from "
    "whatever writes to request.session.",
)
VARY_COOKIE = kind(
    "cache.vary_cookie",
    Level.WARNING,
    "Every visitor has other cookies, so an edge keeps a copy for each of them, that is, none.",
    "Read neither request.session nor request.user while the page is made: not in the view, a middleware, a context "
    "processor or a template.",
)
VARY_WIDE = kind(
    "cache.vary_wide",
    Level.WARNING,
    "There are thousands of such values, so hardly two visitors share a copy.",
    "Make the page the same for all of them, and let CSS and JavaScript adapt it.",
)
NOT_ALLOWED = kind(
    "cache.not_allowed",
    Level.INFO,
    "Each visit costs Django the whole page. Our snippet does not need that: it is the same for every visitor.",
    "If the page is not personal: @cache_control(public=True, max_age=300), or s_maxage=… for the edge alone.",
)
NOT_KEPT = kind(
    "cache.not_kept",
    Level.WARNING,
    "The page says that it may be kept, an edge stands before the site, and each visit reaches Django all the same.",
    "Look at the edge's rules for this path: docs/how-to/edge-caching.md has ready configurations.",
)
NO_EDGE = kind(
    "cache.no_edge",
    Level.INFO,
    "Nothing in the answer tells of a cache. That is well if there is none; where there is one, give its public URL.",
    "docs/how-to/edge-caching.md has configurations for Varnish, nginx, CloudFront and Cloudflare.",
)

_HIT = re.compile(r"\bhit\b|^stale|^revalidated|^updating", re.IGNORECASE)
_FORBIDS = re.compile(r"\b(?:private|no-store|no-cache)\b", re.IGNORECASE)
_LIFETIME = re.compile(r"\b(s-maxage|max-age)\s*=\s*\"?(\d+)", re.IGNORECASE)

EDGE_HEADERS = (
    "X-Cache",
    "X-Cache-Status",
    "CF-Cache-Status",
    "X-Varnish",
    "X-Vercel-Cache",
    "X-Proxy-Cache",
    "X-Fastcgi-Cache",
    "Cache-Status",
)
"""By which edges tell what they did."""


def is_hit(answer: Answer) -> bool | None:
    """Whether a cache had it; None where no cache tells."""
    told = [answer.headers[name] for name in EDGE_HEADERS if name != "X-Varnish" and name in answer.headers]
    varnish = answer.headers.get("X-Varnish", "").split()
    age = answer.headers.get("Age", "")
    if any(map(_HIT.search, told)) or len(varnish) == 2 or (age.isdigit() and int(age) > 0):
        return True
    return False if told or varnish or age else None


def may_be_kept(answer: Answer) -> bool:
    """Whether its Cache-Control lets an edge keep it for a while."""
    said = answer.headers.get("Cache-Control", "")
    lifetimes = {name.lower(): int(seconds[:9]) for name, seconds in _LIFETIME.findall(said)}
    return not _FORBIDS.search(said) and lifetimes.get("s-maxage", lifetimes.get("max-age", 0)) > 0


def unless_private(answer: Answer) -> Level | None:
    """The level of what is a fault on a page for everybody: a remark where the page says that it is for one alone."""
    return Level.INFO if _FORBIDS.search(answer.headers.get("Cache-Control", "")) else None


def sets_no_cookie(page: Page) -> Findings:
    """No Set-Cookie on a page."""
    for name in page.first.cookies:
        what = f"The page sets the cookie {name[:60]!r} for a visitor who has none."
        yield SET_COOKIE(what, level=unless_private(page.first))
    if not page.first.cookies:
        yield SET_COOKIE.ok("The page sets no cookie.")


def varies_little(page: Page) -> Findings:
    """No Vary that parts every visitor from all others."""
    varied = {name.strip().lower() for name in page.first.headers.get("Vary", "").split(",")}
    if "cookie" in varied:
        yield VARY_COOKIE("The page has Vary: Cookie.", level=unless_private(page.first))
    else:
        yield VARY_COOKIE.ok("The page does not vary on Cookie.")
    wide = sorted(varied & {"*", "user-agent", "referer", "authorization"})
    if wide:
        yield VARY_WIDE(f"The page has Vary: {', '.join(wide)}.", level=unless_private(page.first))


def is_kept(page: Page) -> Findings:
    """A page that may be kept is kept."""
    said = page.first.headers.get("Cache-Control", "")
    if not may_be_kept(page.first):
        reason = f"Cache-Control: {said[:100]}" if said else "it has no Cache-Control"
        yield NOT_ALLOWED(f"No edge may keep the page: {reason}.")
        return
    if not isinstance(page.again, Answer):
        return
    hit = is_hit(page.again)
    if hit:
        yield NOT_KEPT.ok("An edge keeps the page.")
    elif hit is None:
        yield NO_EDGE("The page may be kept, and no edge says that it does.")
    else:
        yield NOT_KEPT("The page may be kept, and an edge asked Django a second time.")
