"""Every finding about a page, and a site that has that fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings as django_settings
from django.http import HttpResponse, HttpResponseRedirect

from segment_fallback.page.snippet import render
from segment_fallback.page.token import Page
from tests.doctor import site
from tests.doctor.conftest import untouched
from tests.doctor.site import Edge, View, altered, page, refuses, rewrites, with_header, with_page, with_token

CLASSIC = """<script>!function(){var analytics=window.analytics=window.analytics||[];analytics.load=function(k){
t.src="https://cdn.segment.com/analytics.js/v1/"+k};analytics.SNIPPET_VERSION="4.15.3";analytics.load("k");}();</script>"""

GTAG = '<script async src="https://www.googletagmanager.com/gtag/js?id=G-ABC"></script>'
ONE_TRUST = '<script src="https://cdn.cookielaw.org/scripttemplates/otSDKStub.js"></script>'
CSRF = "django.middleware.csrf.CsrfViewMiddleware"
SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"


@dataclass(frozen=True)
class Fault:
    """A fault of a page, or of the way to it, and what the doctor then says."""

    says: str
    view: View = page
    keys: dict[str, Any] = field(default_factory=dict)
    edge: Edge = untouched
    django: dict[str, Any] = field(default_factory=dict)
    url: Callable[[str], str] = str


def middleware(*more: str) -> dict[str, Any]:
    return {"MIDDLEWARE": [*django_settings.MIDDLEWARE, *more]}


def csp(policy: str, **more: Any) -> dict[str, Any]:
    return {"view": with_header("Content-Security-Policy", policy), **more}


FAULTS: dict[str, Fault] = {
    "page.unreachable": Fault("Connection refused", url=lambda url: "http://127.0.0.1:1/"),
    "page.tls": Fault("cannot be fetched", url=lambda url: url.replace("http:", "https:")),
    "page.bad_url": Fault("no URL of http", url=lambda url: "shop.example/page/"),
    "page.redirects": Fault("more than 10", lambda request: HttpResponseRedirect(request.path)),
    "page.status": Fault("status 503", lambda request: HttpResponse(status=503)),
    "page.not_html": Fault("'image/png'", lambda request: HttpResponse(b"\x89PNG", content_type="image/png")),
    "page.too_large": Fault("5,000,000", with_page(body="x" * 6_000_000)),
    "page.charset": Fault("'klingon'", with_header("Content-Type", "text/html; charset=klingon")),
    "page.snippet_missing": Fault("no snippet", with_page(snippet="")),
    "page.snippet_twice": Fault("2 times", lambda request: page(request, head=render(Page(request.path)))),
    "page.snippet_other": Fault("Line 5", with_page(head=CLASSIC)),
    "page.script_held_back": Fault(
        "'1a2b-text/javascript'", altered("<script>((", '<script type="1a2b-text/javascript">((')
    ),
    "page.snippet_altered": Fault("not the one", altered("window.analytics||[]", "window.analytics || []")),
    "page.noscript_missing": Fault("no image", lambda r: page(r, render(Page(r.path), noscript=False))),
    "page.token_invalid": Fault("SECRET_KEY", with_token(key="another site's")),
    "page.token_expired": Fault("499 days ago", with_token(days_old=500)),
    "page.token_path": Fault("'/other/'", with_token(at="/other/")),
    "page.varies": Fault("line 9, '<p>Rendered at", site.by_the_hour),
    "page.varies_by_cookie": Fault("line 9, '<p>Seen", site.by_cookie),
    "page.varies_by_header": Fault("another Accept-Language", site.by_language),
    "page.varies_by_query": Fault("utm_source", site.by_query),
    "cache.set_cookie": Fault("'basket'", site.sets_cookie),
    "cache.vary_cookie": Fault("Vary: Cookie", site.reads_session),
    "cache.vary_wide": Fault("user-agent", with_header("Vary", "User-Agent")),
    "cache.not_allowed": Fault("private", with_header("Cache-Control", "private, max-age=300")),
    "cache.not_kept": Fault("second time", edge=rewrites(X_Cache="MISS")),
    "cache.no_edge": Fault("no edge"),
    "cause.session": Fault("site.py", site.reads_session),
    "cause.csrf": Fault("contact.html, line 2: 'csrf_token'", site.has_form, django=middleware(CSRF)),
    "cause.header": Fault(
        "Set-Cookie: experiment comes from tests.doctor.site.cookie_middleware",
        django=middleware("tests.doctor.site.cookie_middleware"),
    ),
    "policy.referrer": Fault(
        "no-referrer; and the image in line",
        altered(' referrerpolicy="same-origin"', ""),
        django={"SECURE_REFERRER_POLICY": "no-referrer"},
        edge=rewrites(without="Referrer-Policy", Referrer_Policy="no-referrer"),
    ),
    "policy.referrer_strict": Fault(
        "STRICT_REFERER is on", with_page(head='<meta name="referrer" content="origin">'), {"STRICT_REFERER": True}
    ),
    "policy.csp_script": Fault("lacks 'self' in script-src", **csp("script-src 'none'; img-src *")),
    "policy.csp_library": Fault("in script-src", **csp("script-src 'self' 'unsafe-inline'")),
    "policy.csp_connect": Fault("in connect-src", **csp("script-src * 'unsafe-inline'; connect-src 'self'")),
    "policy.csp_img": Fault("lacks 'self' in img-src", **csp("img-src https://img.example")),
    "policy.csp_nonce_kept": Fault("has a nonce", lambda r: page(r, render(Page(r.path), nonce="abc"))),
    "policy.consent_ignored": Fault("OneTrust", with_page(head=ONE_TRUST)),
    "policy.consent_unseen": Fault(
        "'OptanonConsnt'", with_page(head=ONE_TRUST), {"CONSENT": {"COOKIE": "OptanonConsnt"}}
    ),
    "policy.no_load": Fault("analytics.load()", keys={"AUTOLOAD": False}),
    "trackers.found": Fault("Google Analytics 4", with_page(head=GTAG)),
    "endpoint.unreachable": Fault("Connection refused", altered('"b":"/', '"b":"http://127.0.0.1:1/')),
    "endpoint.missing": Fault("(404)", edge=refuses("404 Not Found")),
    "endpoint.redirected": Fault("'https://www", edge=refuses("301 Moved", Location="https://www.shop.example/")),
    "endpoint.refused": Fault("status 403", edge=refuses("403 Forbidden")),
    "endpoint.altered": Fault("'text/html'", edge=refuses("200 OK", body=b"<p>Hello", Content_Type="text/html")),
    "endpoint.kept": Fault("by a cache", edge=rewrites(below="/s/", Age="30", X_Cache="HIT")),
    "endpoint.storable": Fault("no-store", edge=rewrites(below="/s/", without="Cache-Control")),
    "endpoint.listed": Fault("'track'", keys={"ENDPOINT_NAME": "track"}),
    "endpoint.script_missing": Fault("404", keys={"EXTERNAL_SCRIPT": True}, edge=refuses("404 No", below="/f/")),
    "endpoint.library_missing": Fault("Connection refused", keys={"CDN_HOST": "http://127.0.0.1:1"}),
}
