from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client

from segment_fallback.names import endpoint_names, public_key
from segment_fallback.testing import Answer, LocalSegment
from tests.cdn.conftest import (
    BUNDLE,
    LIBRARY_UPSTREAM,
    SETTINGS_UPSTREAM,
    WRITE_KEY,
    asked,
    base,
    bundle_url,
    fetch,
    integration_url,
    script_url,
    settings_url,
    without_source_map,
)

OURS = "segment_fallback.middleware.SegmentMiddleware"
CHANGING = "public, max-age=300, stale-while-revalidate=3600, stale-if-error=86400"
IMMUTABLE = "public, max-age=31536000, immutable"
JS = {"Content-Type": "application/javascript"}
URLS = {"script": script_url, "settings": settings_url, "bundle": bundle_url}


def unreachable(get_response: object) -> Callable[[HttpRequest], HttpResponse]:
    """Stands for sessions, auth and the rest: an early answer does not reach it."""

    def middleware(request: HttpRequest) -> HttpResponse:
        raise AssertionError(f"{request.path} came as far as here")

    return middleware


def umd(segment: LocalSegment, name: str) -> bytes:
    assert segment.analytics_js
    return Path(segment.analytics_js, "dist", "umd", name).read_bytes()


def test_script_is_the_library_with_the_public_key(segment: LocalSegment) -> None:
    response = fetch(script_url())
    assert response.status_code == 200
    assert f"window.analyticsWriteKey='{public_key()}'".encode() in response.content.replace(b'"', b"'")
    assert b"https://cdn.segment.com/analytics-next" not in response.content
    assert b"api.segment.io" not in response.content
    assert abs(len(response.content) - len(umd(segment, "standalone.js"))) < 1_000
    assert asked(segment) == [LIBRARY_UPSTREAM]


def test_settings_point_the_library_at_the_site(segment: LocalSegment) -> None:
    segment_io = fetch(settings_url()).json()["integrations"]["Segment.io"]
    assert segment_io["apiHost"] == f"testserver/s/{endpoint_names()[0]}/e"
    assert (segment_io["protocol"], segment_io["apiKey"]) == ("http", public_key())
    assert asked(segment) == [SETTINGS_UPSTREAM]


def test_settings_follow_the_pages_host_and_scheme_from_one_fetch(segment: LocalSegment) -> None:
    hosts = []
    for host, secure in [("testserver", False), ("shop.example", True), ("shop.example:8443", True)]:
        content = Client().get(settings_url(), secure=secure, headers={"host": host}).json()
        own = content["integrations"]["Segment.io"]
        hosts.append((own["apiHost"].partition("/")[0], own["protocol"], content["metrics"]["host"].partition("/")[0]))
    assert hosts == [
        ("testserver", "http", "testserver"),
        ("shop.example", "https", "shop.example"),
        ("shop.example:8443", "https", "shop.example:8443"),
    ]
    assert len(asked(segment)) == 1


def test_settings_for_an_unknown_host_are_refused(segment: LocalSegment) -> None:
    response = fetch(settings_url(), host="evil.example")
    assert response.status_code == 400
    assert b"apiHost" not in response.content


def test_bundle_is_the_packages_own_without_its_source_map(segment: LocalSegment) -> None:
    assert fetch(bundle_url()).content == without_source_map(umd(segment, BUNDLE))


@pytest.mark.parametrize(
    ("url", "content_type", "cache_control"),
    [
        (script_url, "text/javascript; charset=utf-8", CHANGING),
        (settings_url, "application/json", CHANGING),
        (bundle_url, "text/javascript; charset=utf-8", IMMUTABLE),
    ],
)
def test_headers_are_these_and_no_others(
    segment: LocalSegment, url: Callable[[], str], content_type: str, cache_control: str, settings: Any
) -> None:
    settings.MIDDLEWARE = [OURS]
    response = fetch(url())
    assert re.fullmatch(r'W/"[0-9a-f]{32}"', response["ETag"])
    assert dict(response.headers) == {
        "Content-Type": content_type,
        "Content-Length": str(len(response.content)),
        "Cache-Control": cache_control,
        "Vary": "Accept-Encoding",
        "ETag": response["ETag"],
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "same-origin",
    }


def test_header_of_the_upstream_is_not_passed_on(segment: LocalSegment, settings: Any) -> None:
    settings.MIDDLEWARE = [OURS]
    theirs = {
        **JS,
        "Set-Cookie": "a=1",
        "Vary": "Origin",
        "X-Powered-By": "x",
        "ETag": '"theirs"',
        "SourceMap": "x.map",
        "Cache-Control": "private",
    }
    segment.answer_with(Answer(status=200, headers=theirs, body="let a"), path=LIBRARY_UPSTREAM)
    response = fetch(script_url())
    assert response.content == b"let a"
    assert not response.cookies
    assert set(response.headers) & {"X-Powered-By", "SourceMap", "Set-Cookie"} == set()
    assert (response["Vary"], response["Cache-Control"]) == ("Accept-Encoding", CHANGING)
    assert "theirs" not in response["ETag"]


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
def test_gzip_for_those_who_take_it(segment: LocalSegment, url: Callable[[], str]) -> None:
    plain = fetch(url())
    assert "Content-Encoding" not in plain
    for accept in ("gzip", "br, GZIP;q=0.5", "deflate, gzip, br, zstd"):
        packed = fetch(url(), accept_encoding=accept)
        assert packed["Content-Encoding"] == "gzip"
        assert packed["Content-Length"] == str(len(packed.content))
        assert gzip.decompress(packed.content) == plain.content
        assert packed["ETag"] == plain["ETag"]
    for accept in ("", "br", "gzip;q=0", "gzip; q=0.0", "identity"):
        assert "Content-Encoding" not in fetch(url(), accept_encoding=accept)
    assert len(asked(segment)) == 1


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
def test_revalidation_by_a_browser_or_an_edge_is_answered_304(segment: LocalSegment, url: Callable[[], str]) -> None:
    first = fetch(url())
    for condition in (first["ETag"], first["ETag"].removeprefix("W/"), f'"x", {first["ETag"]}', "*"):
        again = fetch(url(), if_none_match=condition, accept_encoding="gzip")
        assert (again.status_code, again.content) == (304, b"")
        assert (again["ETag"], again["Cache-Control"]) == (first["ETag"], first["Cache-Control"])
    assert fetch(url(), if_none_match='"other"').status_code == 200


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
def test_head_has_the_headers_of_get(segment: LocalSegment, url: Callable[[], str]) -> None:
    get, head = Client().get(url()), Client().head(url())
    assert (head.status_code, head.content) == (200, b"")
    assert dict(head.headers) == dict(get.headers)


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
@pytest.mark.parametrize("method", ["post", "put", "patch", "delete", "options", "trace"])
@pytest.mark.parametrize("early", [True, False], ids=["early", "routed"])
def test_other_method_is_answered_405(
    segment: LocalSegment, settings: Any, url: Callable[[], str], method: str, early: bool
) -> None:
    settings.MIDDLEWARE = [*([OURS] if early else []), "django.middleware.csrf.CsrfViewMiddleware"]
    response = getattr(Client(enforce_csrf_checks=True), method)(url())
    assert (response.status_code, response["Allow"], response.content) == (405, "GET, HEAD", b"")
    assert response["Cache-Control"] == "no-store"
    assert asked(segment) == []


@pytest.mark.parametrize("url", [*URLS.values(), lambda: integration_url("actions/braze/0123456789abcdef0123.js")])
def test_without_first_party_there_is_nothing(segment: LocalSegment, settings: Any, url: Callable[[], str]) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "FIRST_PARTY": False}
    for method in ("get", "head", "post"):
        response = getattr(Client(), method)(url())
        assert (response.status_code, response.content) == (404, b"")
    assert asked(segment) == []


@pytest.mark.parametrize("handler", ["sync", "async"])
@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
def test_answered_early_as_by_routing(
    segment: LocalSegment, settings: Any, url: Callable[[], str], handler: str
) -> None:
    get: Any = Client().get if handler == "sync" else async_to_sync(AsyncClient().get)
    settings.MIDDLEWARE = [OURS, f"{__name__}.unreachable"]
    early = get(url())
    settings.MIDDLEWARE = []
    routed = get(url())
    assert (early.status_code, early.content) == (200, routed.content)
    assert dict(early.headers) == dict(routed.headers)


def test_page_of_a_retired_secret_is_still_served(segment: LocalSegment, settings: Any) -> None:
    script, own = script_url(), settings_url()
    old_name, old_key = endpoint_names()[0], public_key()
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new", [settings.SECRET_KEY]
    assert old_key.encode() in fetch(script).content
    content = fetch(own).json()["integrations"]["Segment.io"]
    assert content["apiKey"] == old_key
    assert content["apiHost"].endswith(f"/s/{old_name}/e")
    settings.SECRET_KEY_FALLBACKS = []
    assert fetch(script).status_code == fetch(own).status_code == 404


def test_each_source_has_its_own_key_and_none_shows_anothers(segment: LocalSegment, settings: Any) -> None:
    sources = {"docs": {"WRITE_KEY": "docs-write-key"}}
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "SOURCES": sources}
    assert public_key("docs").encode() in fetch(script_url("docs")).content
    assert asked(segment) == ["/analytics.js/v1/docs-write-key/analytics.min.js"]
    body = json.dumps({"integrations": {"Segment.io": {"apiKey": "docs-write-key", "x": WRITE_KEY}}})
    segment.answer_with(Answer(status=200, body=body), path="/v1/projects/docs-write-key")
    own = fetch(settings_url("docs")).json()["integrations"]["Segment.io"]
    assert (own["apiKey"], own["x"]) == (public_key("docs"), public_key())


@pytest.mark.parametrize("key", [WRITE_KEY, "x" * 32, "default", "0"])
@pytest.mark.parametrize("path", ["{}", "{}/s", "v1/projects/{}/settings"])
def test_unknown_key_and_the_write_key_itself_are_not_served(segment: LocalSegment, key: str, path: str) -> None:
    response = fetch(f"{base()}/{path.format(key)}")
    assert (response.status_code, response.content) == (404, b"")
    assert asked(segment) == []


TRICKS = [
    "",
    "/",
    "s",
    "//s",
    "b",
    "b/",
    "b/s",
    "b/..",
    "b/a.css",
    "b/zz",
    "b/00",
    "b/a%2fb.js",
    "b/%2e%2e%2fa.js",
    "i",
    "i/",
    "i/a",
    "i/a.gz",
    "i/00/a",
    "i/zz/a",
    "i/d/a",
    "i/d/a/b/c/d",
    "i/d/../1/a",
    "i/m/a",
    "i/m/../a",
    "i/m/a/b/c/d",
    "analytics-next/bundles/",
    "analytics-next/bundles/.js",
    "analytics-next/bundles/..js",
    "analytics-next/bundles/a..js",
    "analytics-next/bundles/a.js.map",
    "analytics-next/bundles/a.css",
    "analytics-next/bundles/a.js%0a",
    "analytics-next/bundles/a.js%00.js",
    "analytics-next/bundles/a b.js",
    "analytics-next/bundles/%C3%A9.js",
    "analytics-next/bundles/%D9%A1.js",
    "analytics-next/bundles/../../v1/projects/x.js",
    "analytics-next/bundles/..%2f..%2fv1%2fprojects%2fx.js",
    "analytics-next/bundles/%2e%2e%2fa.js",
    "analytics-next/bundles/%252e%252e%252fa.js",
    "analytics-next/bundles/..%5ca.js",
    "analytics-next/bundles/a%2fb.js",
    "analytics-next/bundles/http:%2f%2fevil.example%2fa.js",
    "analytics-next/bundles/@evil.example.js%3f",
    "analytics-next/bundles/a.js%3fx=1",
    "analytics-next/bundles/a.js%23",
    "next-integrations/",
    "next-integrations/a.js",
    "next-integrations/actions/",
    "next-integrations/actions/../x.js",
    "next-integrations/actions/%2e%2e/%2e%2e/x.js",
    "next-integrations/actions//x.js",
    "next-integrations/actions/a/b/c/d.js",
    "next-integrations/actions/a/b.js.map",
    "next-integrations/actions/a/b.html",
    "next-integrations/actions/a%5cb/c.js",
    "next-integrations/other/a/b.js",
    "next-integrations/integrations/heap/latest/heap.json",
    "next-integrations/integrations/Li4vLi4/latest/Li4vLi4.dynamic.js.gz/x",
    "v1/projects/{key}/settings/",
    "v1/projects/{key}/other",
    "v1/projects/../settings",
    "{key}/",
    "{key}/s/",
    "{key}/../{key}",
    "{key}/main.js",
    "{key}%0a",
    "{key}%0a/s",
    "analytics.js/v1/{key}/analytics.min.js",
]


@pytest.mark.parametrize("trick", TRICKS)
def test_path_that_is_not_on_the_list_asks_nobody(segment: LocalSegment, trick: str) -> None:
    # The client decodes the path once, as a server does.
    response = fetch(f"{base()}/{trick.replace('{key}', public_key())}")
    assert response.status_code == 404
    assert asked(segment) == []


def test_encoded_name_that_leads_elsewhere_stays_a_name(segment: LocalSegment) -> None:
    for name in ("Li4vLi4", "Li4", "aHR0cDovL2V2aWwuZXhhbXBsZQ"):  # ../.., .., http://evil.example
        fetch(integration_url(f"integrations/{name}/latest/{name}.dynamic.js.gz"))
    assert asked(segment) == [
        f"/next-integrations/integrations/{name}/latest/{name}.dynamic.js.gz"
        for name in ("Li4vLi4", "Li4", "aHR0cDovL2V2aWwuZXhhbXBsZQ")
    ]


def test_query_of_the_visitor_is_not_passed_on(segment: LocalSegment) -> None:
    assert fetch(f"{script_url()}?host=evil.example&x=1").status_code == 200
    assert asked(segment) == [LIBRARY_UPSTREAM]


@pytest.mark.parametrize(
    ("name", "upstream"),
    [
        (
            "integrations/{}/2.2.3/{}.dynamic.js.gz",
            "integrations/google-analytics/2.2.3/google-analytics.dynamic.js.gz",
        ),
        ("middleware/{}/latest/{}.js.gz", "middleware/google-analytics/latest/google-analytics.js.gz"),
        ("actions/{}/51855e573177634029a6.js", "actions/google-analytics/51855e573177634029a6.js"),
    ],
)
@pytest.mark.parametrize("written", ["google-analytics", "Z29vZ2xlLWFuYWx5dGljcw", "WjI5dloyeGxMV0Z1WVd4NWRHbGpjdw"])
def test_destination_is_fetched_by_its_name_however_it_is_written(
    segment: LocalSegment, name: str, upstream: str, written: str
) -> None:
    segment.answer_with(Answer(status=200, headers=JS, body="let a"), path="/next-integrations/")
    assert fetch(integration_url(name.format(written, written))).content == b"let a"
    assert asked(segment) == [f"/next-integrations/{upstream}"]


def test_write_key_is_in_no_answer(segment: LocalSegment) -> None:
    body = f'analytics._writeKey="{WRITE_KEY}";x="https://cdn/{WRITE_KEY}/a"'
    for path in (LIBRARY_UPSTREAM, "/analytics-next/", "/next-integrations/"):
        segment.answer_with(Answer(status=200, headers=JS, body=body), path=path)
    hidden = WRITE_KEY.replace("t", "\\u0074")
    content = f'{{"integrations": {{"{hidden}": {{"{hidden}": ["{hidden}"]}}}}, "other": "a{hidden}b"}}'
    segment.answer_with(Answer(status=200, body=content), path=SETTINGS_UPSTREAM)
    for url in (script_url(), settings_url(), bundle_url(), integration_url("actions/a/0123456789abcdef.js")):
        response = fetch(url)
        assert response.status_code == 200
        assert WRITE_KEY.encode() not in response.content
        assert public_key().encode() in response.content
        assert WRITE_KEY not in str(response.headers)
