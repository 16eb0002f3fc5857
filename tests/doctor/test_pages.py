from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.urls import clear_url_caches

from segment_fallback.doctor import register_tracker, trackers
from segment_fallback.doctor.cause import is_local
from segment_fallback.doctor.finding import KINDS, Finding, Level
from segment_fallback.doctor.run import examine_page
from segment_fallback.page.snippet import render
from segment_fallback.page.token import Page
from tests.doctor import site
from tests.doctor.conftest import Serve
from tests.doctor.pages import CSRF, FAULTS, ONE_TRUST, Fault, middleware
from tests.doctor.site import Application, Respond, View, altered, page, rewrites, with_header, with_page

if TYPE_CHECKING:
    from pytest_django import Settings


LOAD = "<script>analytics.load('k')</script>"
OPTANON = {"CONSENT": {"COOKIE": "OptanonConsent"}}


def examine(serve: Serve, fault: Fault) -> list[Finding]:
    url = serve(fault.view, fault.keys, fault.edge, **fault.django)
    return list(examine_page(fault.url(url)))


def of(findings: list[Finding], kind: str) -> list[str]:
    """What the findings of a kind say, but for those that all is well."""
    return [finding.what for finding in findings if finding.id == kind and finding.level is not Level.OK]


@pytest.mark.parametrize("kind", FAULTS)
def test_page_with_a_fault_is_found(serve: Serve, kind: str) -> None:
    found = examine(serve, FAULTS[kind])
    assert any(FAULTS[kind].says in what for what in of(found, kind)), [(f.id, f.what) for f in found if f.level]
    assert all(finding.subject for finding in found)
    # A fault makes no examination fail.
    assert of(found, "doctor.failed") == []


def test_good_page_has_no_finding_but_that_there_is_no_edge(serve: Serve) -> None:
    found = list(examine_page(serve()))
    assert [finding.id for finding in found if finding.level is not Level.OK] == ["cache.no_edge"]
    assert len(found) > 10


def test_good_page_behind_an_edge_has_no_finding(serve: Serve) -> None:
    found = list(examine_page(serve(edge=rewrites(below="/page/", Age="7", X_Cache="HIT"))))
    assert [finding.what for finding in found if finding.level is not Level.OK] == []


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("page.varies_by_header", Fault("", site.by_language_and_vary)),
        ("page.snippet_missing", Fault("", keys={"INJECT": True}, view=with_page(snippet=""))),
        ("page.snippet_altered", Fault("", keys={"EXTERNAL_SCRIPT": True})),
        ("page.snippet_other", Fault("", keys={"AUTOLOAD": False}, view=with_page(head=LOAD))),
        ("page.noscript_missing", Fault("", keys={"CONSENT": {"CALLBACK": True}})),
        ("cache.not_kept", Fault("", edge=rewrites(X_Varnish="32770 3"))),
        ("endpoint.library_missing", Fault("", keys={"FIRST_PARTY": True})),
        ("endpoint.script_missing", Fault("", keys={"EXTERNAL_SCRIPT": True})),
        ("policy.no_load", Fault("", keys={"AUTOLOAD": False}, view=with_page(head='<script src="/own.js"></script>'))),
        ("policy.consent_unseen", Fault("", keys=OPTANON, view=with_page(head=ONE_TRUST))),
        ("policy.consent_ignored", Fault("", keys=OPTANON, view=with_page(head=ONE_TRUST))),
        ("policy.referrer", Fault("", with_header("Referrer-Policy", "no-referrer, strict-origin-when-cross-origin"))),
        ("policy.csp_script", Fault("", with_header("Content-Security-Policy-Report-Only", "script-src 'none'"))),
        ("page.snippet_altered", Fault("", keys={"NAVIGATION": "auto", "IDENTIFY": True})),
    ],
)  # fmt: skip
def test_page_without_that_fault_is_not_accused_of_it(serve: Serve, kind: str, fault: Fault) -> None:
    assert of(examine(serve, fault), kind) == []


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault("", site.reads_session), r"site\.py:\d+, in reads_session"),
        (Fault("", site.reads_user_in_template), r"basket\.html, line 2: 'user\.username'"),
        (Fault("", django=middleware("tests.doctor.site.session_middleware")), r"site\.py:\d+, in middleware"),
    ],
)
def test_reader_of_the_session_is_named(serve: Serve, fault: Fault, says: str) -> None:
    found = examine(serve, fault)
    [said] = of(found, "cause.session")
    assert re.search(says, said), said
    # It only answers to the read.
    assert not any("SessionMiddleware" in what for what in of(found, "cause.header"))


def test_page_that_says_it_is_personal_may_be(serve: Serve) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        response = site.has_form(request)
        response["Cache-Control"] = "private"
        return response

    found = list(examine_page(serve(view, MIDDLEWARE=middleware(CSRF)["MIDDLEWARE"])))
    assert {"page.varies", "cache.set_cookie", "cache.vary_cookie"} <= {f.id for f in found if f.level is Level.INFO}
    assert [f.what for f in found if f.level > Level.INFO] == []


def test_page_of_another_project_is_not_rendered_here(serve: Serve) -> None:
    url = serve(site.reads_session, ALLOWED_HOSTS=["*"])
    assert is_local(url)
    assert not is_local("http://shop.example/")
    assert not is_local("http://127.0.0.1.evil.example/")


@pytest.mark.parametrize(
    ("policy", "header"),
    [
        (
            "default-src 'self'; script-src 'none'; object-src 'none'",
            "default-src 'self'; script-src 'self' CDN; object-src 'none'; connect-src 'self' CDN https://api.segment.io",
        ),
        (
            "script-src 'nonce-c2VjcmV0' 'unsafe-inline' CDN; connect-src *; img-src *",
            "script-src 'nonce-…' 'unsafe-inline' CDN 'self'; connect-src *; img-src *",
        ),
    ],
)
def test_policy_gets_what_it_lacks_and_nothing_else(serve: Serve, settings: Settings, policy: str, header: str) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "API_HOST": "https://api.segment.io"}
    cdn = settings.SEGMENT_FALLBACK["CDN_HOST"]
    url = serve(with_header("Content-Security-Policy", policy.replace("CDN", cdn)))
    [finding] = [f for f in examine_page(url) if f.id == "policy.csp_script" and f.level is not Level.OK]
    assert finding.cure == (
        f"Set EXTERNAL_SCRIPT, and use this header: Content-Security-Policy: {header.replace('CDN', cdn)}"
    )
    assert "c2VjcmV0" not in str(finding)


def test_header_of_the_finding_lets_the_snippet_work(serve: Serve) -> None:
    url = serve(with_header("Content-Security-Policy", "default-src 'none'"))
    [cure, *others] = {f.cure for f in examine_page(url) if f.id.startswith("policy.csp")}
    assert others == []
    header = cure.partition("Content-Security-Policy: ")[2]
    url = serve(with_header("Content-Security-Policy", header), {"EXTERNAL_SCRIPT": True})
    assert [f.what for f in examine_page(url) if f.id.startswith("policy.csp") and f.level is not Level.OK] == []


def test_nonce_of_the_policy_is_enough(serve: Serve) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        response = page(request, render(Page(request.path), nonce="abc"))
        response["Content-Security-Policy"] = "script-src 'nonce-abc' 'strict-dynamic'"
        response["Cache-Control"] = "private"
        return response

    found = list(examine_page(serve(view)))
    assert [f.what for f in found if f.id.startswith("policy.csp") and f.level is not Level.OK] == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00\xff" * 1_000,
        b"<!doctype html><script>" + b'{"k":' * 20_000 + b"</script>",
        b"<script>" + b'{"k":' * 5_000 + b"1" + b"}" * 5_000 + b"</script>",
        b"<" * 100_000,
        b"<![if><!--<script data-page='{}'>",
        b"<![odd[<p>",
        b'<script data-page=\'{"k":1,"u":2,"a":3,"b":4,"t":"x","c":6,"w":7}\'></script>',
        '<meta charset="utf-16">é'.encode(),
    ],
    ids=["empty", "binary", "broken", "nested", "open", "odd", "section", "types", "charset"],
)
def test_hostile_page_is_a_finding_and_no_traceback(serve: Serve, body: bytes) -> None:
    found = list(examine_page(serve(lambda request: HttpResponse(body))))
    assert found
    assert of(found, "doctor.failed") == []


def test_page_cannot_command_the_terminal(serve: Serve) -> None:
    def edge(application: Application) -> Application:
        evil = "\x1b]0;owned\x07"
        with_headers = rewrites(Cache_Control=f"no-store {evil}", Content_Security_Policy=f"img-src {evil}")
        return with_headers(application)

    found = list(examine_page(serve(altered('"b":"/s/', '"b":"/\\u001b[31m/'), edge=edge)))
    assert any("owned" in finding.cure for finding in found)
    assert any("[31m" in finding.what for finding in found)
    assert all(finding.what.isprintable() and finding.cure.isprintable() for finding in found)


def test_login_in_the_url_is_used_and_not_shown(serve: Serve) -> None:
    referers: list[str] = []

    def edge(application: Application) -> Application:
        def guarded(environ: dict[str, Any], respond: Respond) -> Iterable[bytes]:
            referers.append(environ.get("HTTP_REFERER", ""))
            if environ.get("HTTP_AUTHORIZATION") == "Basic c2hvcDpub3QgdG8gYmUgc2hvd24=":
                return application(environ, respond)
            respond("401 Unauthorized", [("WWW-Authenticate", "Basic")])
            return [b""]

        return guarded

    url = serve(edge=edge)
    [refused] = examine_page(url)
    assert (refused.id, refused.what) == ("page.status", "The page answers with status 401.")
    found = list(examine_page(url.replace("//", "//shop:not%20to%20be%20shown@")))
    assert [finding.id for finding in found if finding.level is not Level.OK] == ["cache.no_edge"]
    assert {finding.subject for finding in found} == {url}
    assert "shown" not in str([*found, *referers])


def test_secrets_of_a_page_that_varies_are_not_shown(serve: Serve) -> None:
    found = list(examine_page(serve(site.has_form, MIDDLEWARE=middleware(CSRF)["MIDDLEWARE"])))
    [said] = of(found, "page.varies")
    assert "csrfmiddlewaretoken" in said
    assert "a CSRF token" in said
    assert not re.search(r"[A-Za-z0-9]{30}", said)


def test_tracker_of_the_sites_own_is_found(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "TRACKERS", dict(trackers.TRACKERS))
    register_tracker("House statistics", r"stats\.shop\.example")
    url = serve(with_page(head='<script src="https://stats.shop.example/t.js" defer></script>'))
    assert of(list(examine_page(url)), "trackers.found") == ["House statistics is on the page, too."]
    with pytest.raises(ValueError, match="needs a pattern"):
        register_tracker("Nothing")


def test_registering_a_tracker_loads_nothing_that_a_site_does_not_need() -> None:
    code = "import sys, segment_fallback.doctor; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert {"requests", "urllib3", "celery"} & set(run.stdout.split()) == set()


@pytest.mark.parametrize("kind", FAULTS)
def test_every_finding_links_to_its_place(kind: str) -> None:
    assert KINDS[kind]("what").link == f"docs/reference/doctor.md#{kind}"


@pytest.mark.parametrize(
    ("view", "says"),
    [
        (altered("<script>((", "<script defer>(("), "made async or defer"),
        (altered('"k":', "k:"), "its configuration is unreadable"),
    ],
)
def test_script_that_was_changed_is_found(serve: Serve, view: View, says: str) -> None:
    [said] = of(list(examine_page(serve(view))), "page.snippet_altered")
    assert says in said


def test_site_that_is_switched_off_has_no_snippet_and_no_error(serve: Serve) -> None:
    [finding] = [f for f in examine_page(serve(with_page(snippet=""), {"WRITE_KEY": ""})) if "snippet" in f.id]
    assert finding.level is Level.INFO
    assert "tracking is off" in finding.what


def test_site_that_fails_now_and_then_is_no_failure_of_the_doctor(serve: Serve) -> None:
    asked: list[str] = []

    def view(request: HttpRequest) -> HttpResponse:
        asked.append(request.path)
        return page(request) if len(asked) % 2 else HttpResponse(status=503)

    found = list(examine_page(serve(view)))
    assert len(asked) > 1
    assert {"page.varies", "doctor.failed"} & {finding.id for finding in found} == set()


def test_visitor_who_gets_more_is_found(serve: Serve) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        response = page(request)
        response.content += b"<p>Welcome back\n" if "visited" in request.COOKIES else b""
        return response

    [said] = of(list(examine_page(serve(view))), "page.varies_by_cookie")
    assert "line 10" in said


def test_page_whose_lines_come_and_go_varies(serve: Serve) -> None:
    numbers = itertools.count()

    def view(request: HttpRequest) -> HttpResponse:
        return page(request, body="<p>A page" + "\n" * next(numbers))

    assert "different pages: line 11, ''" in of(list(examine_page(serve(view))), "page.varies")[0]


def test_site_without_our_urls_is_examined_all_the_same(serve: Serve, settings: Settings) -> None:
    url = serve(with_page(snippet=""))
    unmounted = ModuleType("tests_doctor_unmounted")
    unmounted.urlpatterns = site.urlpatterns[:1]  # type: ignore[attr-defined]
    settings.ROOT_URLCONF = unmounted
    clear_url_caches()
    found = list(examine_page(url))
    assert of(found, "doctor.failed") == []
    assert of(found, "page.snippet_missing") == ["The page has no snippet of ours."]
