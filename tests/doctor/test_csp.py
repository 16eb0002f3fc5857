from __future__ import annotations

import base64
import hashlib

import pytest
from django.http import HttpRequest, HttpResponse

from segment_fallback.doctor.csp import allows
from segment_fallback.doctor.finding import Level
from segment_fallback.doctor.run import examine_page
from tests.doctor.conftest import Serve
from tests.doctor.site import page, with_page

SITE = "https://shop.example/page/"
CDN = "https://cdn.segment.com/analytics.js/v1/k/analytics.min.js"


@pytest.mark.parametrize(
    ("source", "url", "allowed"),
    [
        ("*", CDN, True),
        ("https:", CDN, True),
        ("http:", CDN, True),
        ("data:", CDN, False),
        ("'self'", SITE, True),
        ("'self'", CDN, False),
        ("'none'", SITE, False),
        ("cdn.segment.com", CDN, True),
        ("CDN.Segment.com", CDN, True),
        ("https://cdn.segment.com", CDN, True),
        ("http://cdn.segment.com", CDN, True),
        ("https://cdn.segment.com", CDN.replace("https", "http"), False),
        ("*.segment.com", CDN, True),
        ("*.segment.com", "https://segment.com/", False),
        ("*.segment.com", "https://evil-segment.com/", False),
        ("cdn.segment.com:443", CDN, True),
        ("cdn.segment.com:8443", CDN, False),
        ("cdn.segment.com:*", CDN.replace(".com/", ".com:8443/"), True),
        ("cdn.segment.com/analytics.js/", CDN, True),
        ("cdn.segment.com/analytics.js", CDN, False),
        ("cdn.segment.com/other/", CDN, False),
    ],
)
def test_sources_match_as_browsers_match_them(source: str, url: str, allowed: bool) -> None:
    assert allows([source], url, SITE) is allowed


def policy_findings(serve: Serve, policy: str) -> list[str]:
    def view(request: HttpRequest) -> HttpResponse:
        response = page(request)
        text = response.content.decode()
        script = text.partition("<script>")[2].partition("</script>")[0]
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        response["Content-Security-Policy"] = policy.replace("HASH", f"'sha256-{digest}'")
        return response

    found = examine_page(serve(view))
    return [finding.id for finding in found if finding.id.startswith("policy.csp") and finding.level is not Level.OK]


@pytest.mark.parametrize(
    ("policy", "found"),
    [
        ("script-src * HASH", []),
        ("script-src * 'unsafe-inline'", []),
        ("script-src * 'unsafe-inline' 'nonce-abc'", ["policy.csp_script"]),
        ("script-src * 'unsafe-inline' 'strict-dynamic'", ["policy.csp_script"]),
        ("script-src 'none'; script-src-elem * 'unsafe-inline'", []),
        ("script-src * 'unsafe-inline'; script-src 'none'", []),
        ("object-src 'none', img-src 'none'", ["policy.csp_img"]),
        (";;", []),
    ],
)
def test_policy_is_read_as_browsers_read_it(serve: Serve, policy: str, found: list[str]) -> None:
    assert policy_findings(serve, policy) == found


def test_policy_in_a_meta_counts(serve: Serve) -> None:
    meta = '<meta http-equiv="Content-Security-Policy" content="img-src \'none\'">'
    [finding] = [f for f in examine_page(serve(with_page(head=meta))) if f.id == "policy.csp_img"]
    assert finding.what.startswith("<meta http-equiv=")
    assert "img-src 'self'" in finding.cure


def test_first_party_needs_the_site_only(serve: Serve) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        response = page(request)
        response["Content-Security-Policy"] = "default-src 'self'; script-src 'self' 'unsafe-inline'"
        return response

    found = list(examine_page(serve(view, {"FIRST_PARTY": True})))
    assert [f.what for f in found if f.id.startswith("policy.csp") and f.level is not Level.OK] == []
