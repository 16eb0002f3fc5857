"""Whether a page is the same for everybody, byte for byte, as a cache needs it."""

from __future__ import annotations

import re

from segment_fallback.doctor import html
from segment_fallback.doctor.cache import unless_private
from segment_fallback.doctor.fetch import Answer
from segment_fallback.doctor.finding import Findings, Level, kind
from segment_fallback.doctor.page import Page

VARIES = kind(
    "page.varies",
    Level.WARNING,
    "A page that is new each time has no copy that a cache could check or share, and what is personal in it could be "
    "shown to somebody else.",
    "Fetch what differs by a request of its own that is not cached, and keep the page the same for everybody.",
)
VARIES_BY_COOKIE = kind(
    "page.varies_by_cookie",
    Level.WARNING,
    "An edge must keep a copy for each visitor, that is, none; or it shows one visitor's page to another.",
    "Fetch what is personal by a request of its own, or let the edge pass this path (docs/how-to/edge-caching.md).",
)
VARIES_BY_HEADER = kind(
    "page.varies_by_header",
    Level.ERROR,
    "The page differs by a header which Vary does not name: an edge shows one visitor's version to all others.",
    "Put each version on a URL of its own, or name the header: django.utils.cache.patch_vary_headers.",
)
VARIES_BY_QUERY = kind(
    "page.varies_by_query",
    Level.WARNING,
    "Edges drop utm_* and its like, so that a campaign's visitors share one copy; whatever the page shows of such a "
    "parameter, all of them see.",
    "Let links in the page not repeat the query string, and read marketing parameters in the browser.",
)

GUESSES = (
    (re.compile(r"csrfmiddlewaretoken|csrf-?token", re.I), "a CSRF token: fetch it by JavaScript when a form is used"),
    (re.compile(r"\bnonce\s*=", re.I), "a nonce: with EXTERNAL_SCRIPT the snippet needs none"),
    (re.compile(r"\d{1,2}:\d{2}|\b1[6-9]\d{8}(?:\d{3})?\b|\d\.\d{3,}"), "a time"),
)
"""What makes a line new each time, by what is in it."""

_SECRET = re.compile(r"[A-Za-z0-9+/=_-]{20,}")


def is_the_same(page: Page) -> Findings:
    """Two equal requests get equal pages; and so do different visitors."""
    if not isinstance(page.again, Answer) or page.again.status != 200:
        return
    first, again = _lines(page.first), _lines(page.again)
    restless = {number for number, pair in enumerate(zip(first, again, strict=False)) if pair[0] != pair[1]}
    if page.first.body == page.again.body:
        yield VARIES.ok("Two requests got the same page, byte for byte.")
    else:
        number = min(restless, default=min(len(first), len(again)))
        line = first[number] if number < len(first) else again[number] if number < len(again) else ""
        what = f"Two equal requests got different pages: line {number + 1}, {_show(line)}."
        yield VARIES(what, level=unless_private(page.first))
    if len(first) == len(again):
        yield from _others(page, first, restless)


def _others(page: Page, first: list[str], restless: set[int]) -> Findings:
    """What other visitors get, but for the lines that are new each time anyway."""
    varied = {name.strip().lower() for name in page.first.headers.get("Vary", "").split(",")}
    for visitor, answer in page.others.items():
        if not isinstance(answer, Answer) or answer.status != 200:
            continue
        lines = _lines(answer)
        pairs = enumerate(zip(first, lines, strict=False))
        number = next((n for n, (one, other) in pairs if one != other and n not in restless), None)
        if number is None and len(first) == len(lines):
            continue
        if number is None:
            number = min(len(first), len(lines)) - 1
        where = f"line {number + 1}, {_show(first[number])}"
        if visitor == "Cookie":
            what = f"A visitor with cookies gets another page: {where}."
            yield VARIES_BY_COOKIE(what, level=unless_private(page.first))
        elif visitor == "query":
            what = f"With ?utm_source=… in the URL the page is another: {where}."
            yield VARIES_BY_QUERY(what, level=unless_private(page.first))
        elif not {visitor.lower(), "*"} & varied:
            what = f"With another {visitor} the page is another, and Vary does not say so: {where}."
            yield VARIES_BY_HEADER(what, level=unless_private(page.first))


def _lines(answer: Answer) -> list[str]:
    return html.decode(answer.body, answer.charset)[0].split("\n")


def _show(line: str) -> str:
    """A line, short and without secrets, and what makes it differ, as far as that can be guessed."""
    guess = next((text for pattern, text in GUESSES if pattern.search(line)), "")
    shown = _SECRET.sub("…", line.strip())[:80]
    return f"{shown!r}" + (f" ({guess})" if guess else "")
