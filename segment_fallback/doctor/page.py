"""A page as it comes: whether it comes at all, and what other visitors get in its place."""

from __future__ import annotations

import functools
from urllib.parse import urlsplit

from django.conf import settings as django_settings
from django.urls import NoReverseMatch

from segment_fallback.doctor import html
from segment_fallback.doctor.fetch import PHONE, Answer, NoAnswer, fetch
from segment_fallback.doctor.finding import Finding, Findings, Level, kind
from segment_fallback.names import endpoint_names
from segment_fallback.page.snippet import base

UNREACHABLE = kind(
    "page.unreachable",
    Level.ERROR,
    "What does not answer is visited by nobody, and the doctor cannot look at it.",
    "Open the URL in a browser on this machine. If it works there: does a firewall or a proxy keep programs out?",
)
TLS = kind(
    "page.tls",
    Level.ERROR,
    "Browsers show a warning instead of the page.",
    "Renew or complete the certificate. For one of your own authority name its file in REQUESTS_CA_BUNDLE.",
)
BAD_URL = kind(
    "page.bad_url", Level.ERROR, "There is nothing to look at.", "Write it in full: https://shop.example/page/"
)
REDIRECTS = kind(
    "page.redirects",
    Level.ERROR,
    "Browsers give up, too.",
    "Look which of edge, SECURE_SSL_REDIRECT (with SECURE_PROXY_SSL_HEADER) and APPEND_SLASH undo each other.",
)
STATUS = kind(
    "page.status",
    Level.ERROR,
    "An error page is not what visitors are to see; the snippet on it says nothing of the others.",
    "For 404: is the URL right? For 401: write the login into the URL, https://user:password@…. For 403: "
    "let this machine past the protection against bots. For 5xx: see the site's log.",
)
NOT_HTML = kind(
    "page.not_html",
    Level.ERROR,
    "Only HTML pages can carry the snippet.",
    "Give the URL of a page. If it is one, its view must answer with Content-Type text/html.",
)
TOO_LARGE = kind(
    "page.too_large",
    Level.WARNING,
    "The doctor reads 5 MB of a page; INJECT leaves packed pages past 4 MB alone.",
    "Serve a smaller page, or look at the rest yourself.",
)
CHARSET = kind(
    "page.charset",
    Level.WARNING,
    "Titles and paths arrive garbled, and INJECT leaves pages in odd charsets alone.",
    "Serve pages as UTF-8, and say so: Content-Type: text/html; charset=utf-8.",
)


class Page:
    """A page under examination, with the answers to several kinds of visitors."""

    def __init__(self, url: str, first: Answer) -> None:
        self.url, self.first = url, first
        text, self.charset_fault = html.decode(first.body, first.charset)
        self.document = html.parse(text)
        self.hooks = html.hooks(self.document, our_urls())

    @property
    def hook(self) -> html.Hook | None:
        """Our snippet, if there is one that can be read."""
        return next((hook for hook in self.hooks if hook.config), None)

    @functools.cached_property
    def again(self) -> Answer | NoAnswer:
        """The same once more, as an edge asks: without cookies."""
        return fetch(self.url)

    @functools.cached_property
    def others(self) -> dict[str, Answer | NoAnswer]:
        """What other visitors get, by what makes them others."""
        cookies = {**self.first.cookies, "visited": "yes", django_settings.SESSION_COOKIE_NAME: "doctor" * 5}
        separator = "&" if urlsplit(self.url).query else "?"
        return {
            "Cookie": fetch(self.url, Cookie="; ".join(f"{name}={value}" for name, value in cookies.items())),
            "Accept-Language": fetch(self.url, Accept_Language="de,fr;q=0.8"),
            "User-Agent": fetch(self.url, User_Agent=PHONE),
            "query": fetch(f"{self.url}{separator}utm_source=doctor"),
        }


def our_urls() -> list[str]:
    """The URLs below which our endpoints are, by today's name and by those that old pages carry."""
    try:
        return [base(name) for name in endpoint_names()]
    except NoReverseMatch:
        return []


def arrive(url: str) -> Finding | Page:
    """The page, or why there is none."""
    answer = fetch(url)
    if isinstance(answer, NoAnswer):
        by_problem = {"url": BAD_URL, "tls": TLS, "redirects": REDIRECTS}
        return by_problem.get(answer.problem, UNREACHABLE)(f"The page cannot be fetched: {answer.detail}.")
    if answer.status != 200:
        return STATUS(f"The page answers with status {answer.status}.")
    if answer.content_type not in ("text/html", "application/xhtml+xml"):
        said = f"Content-Type {answer.content_type[:60]!r}" if answer.content_type else "no Content-Type"
        return NOT_HTML(f"The answer is no page: it has {said}.")
    return Page(url, answer)


def came_whole(page: Page) -> Findings:
    """All of it, in the charset that it names."""
    if page.first.cut:
        yield TOO_LARGE("The page has more than 5,000,000 bytes; the doctor looked at the first of them.")
    if page.charset_fault:
        yield CHARSET(f"The page's charset is wrong: {page.charset_fault}.")
