"""The example's pages and switches, in this process; test_demo.py runs all of it for real."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from pytest_django import Settings

from example_project import arrivals
from example_project import settings as example
from example_project.catalogue import PIECES
from example_project.switches import COOKIE, SWITCHES
from segment_fallback.profiles.variations import registry
from segment_fallback.testing import LocalSegment

PAGES = ["/", "/kiln/", "/offers/", *(f"/pieces/{slug}/" for slug in PIECES)]
SETTINGS = [
    "ALLOWED_HOSTS",
    "INSTALLED_APPS",
    "MIDDLEWARE",
    "ROOT_URLCONF",
    "STATIC_URL",
    "TEMPLATES",
]


@pytest.fixture
def segment() -> Iterator[LocalSegment]:
    with LocalSegment() as segment:
        yield segment


@pytest.fixture
def site(settings: Settings, segment: LocalSegment, monkeypatch: pytest.MonkeyPatch, db: None) -> Client:
    for name in SETTINGS:
        setattr(settings, name, getattr(example, name))
    settings.SEGMENT_FALLBACK = {**example.SEGMENT_FALLBACK, "OUTCOME_INTERVAL": 0}
    monkeypatch.setattr(arrivals, "LOCAL_SEGMENT", segment.url)
    # What the example declares is not other tests'.
    monkeypatch.setattr(registry, "_experiments", {})
    monkeypatch.setattr(registry, "by_path", {})
    return Client(headers={"host": "127.0.0.1:8000"})


@pytest.mark.parametrize("path", PAGES)
def test_page_has_one_snippet_last_in_its_head(site: Client, path: str) -> None:
    html = site.get(path).content.decode()
    assert html.count("analytics.min.js") == 1
    assert html.count("<noscript><picture") == 1
    assert html.split("</noscript>")[1].strip().startswith("</head>")


@pytest.mark.parametrize("path", PAGES)
def test_page_is_the_same_for_everybody(site: Client, path: str) -> None:
    stranger = site.get(path)
    other = Client(headers={"host": "127.0.0.1:8000", "user-agent": "another", "accept-language": "fr"})
    other.force_login(User.objects.create_user("ada"))
    other.cookies["ajs_anonymous_id"] = "somebody"
    other.cookies[COOKIE] = "script"
    known = other.get(path, {"utm_source": "news"})
    assert stranger.content == known.content
    for response in (stranger, known):
        assert not response.has_header("Vary")
        assert not response.cookies
    assert stranger["Cache-Control"] == "public, max-age=0, s-maxage=3600"
    assert known["Cache-Control"] == "no-store"


def test_product_page_reports_its_price_as_a_number(site: Client) -> None:
    html = site.get("/pieces/tumbler/").content.decode()
    assert '"price":22.5' in html
    assert '"sku":"SG-117"' in html


def test_piece_that_does_not_exist_is_not_found(site: Client) -> None:
    assert site.get("/pieces/teapot/").status_code == 404


@pytest.mark.parametrize(
    ("switch", "policy"),
    [
        ("allowed", ""),
        ("script", "script-src 'self' 'unsafe-inline'"),
        ("api", "script-src 'self' 'unsafe-inline' {segment}; connect-src 'self' {segment}/v1/projects/ "),
        ("javascript", "sandbox allow-same-origin "),
        ("unknown", ""),
    ],
)
def test_switch_sets_the_policy_of_the_shop_alone(site: Client, switch: str, policy: str) -> None:
    response = site.post("/live/switch/", {"switch": switch, "next": "/kiln/"})
    assert (response.status_code, response["Location"]) == (302, "/kiln/")
    header = site.get("/kiln/").get("Content-Security-Policy", "")
    assert header.startswith(policy.format(segment=example.LOCAL_SEGMENT))
    assert bool(header) is bool(policy)
    assert "allow-scripts" not in header
    assert not site.get("/live/").has_header("Content-Security-Policy")


def test_switch_shows_what_is_chosen_and_leads_back_to_its_page(site: Client) -> None:
    site.cookies[COOKIE] = "api"
    response = site.get("/live/switch/", headers={"referer": "http://127.0.0.1:8000/kiln/?a=1"})
    html = response.content.decode()
    assert html.count('aria-pressed="true"') == 1
    assert f'value="api" aria-pressed="true">{SWITCHES["api"].label}' in html
    assert '<input type="hidden" name="next" value="/kiln/">' in html
    assert response["X-Frame-Options"] == "SAMEORIGIN"
    assert "no-store" in response["Cache-Control"]


def test_switch_leads_to_no_other_site(site: Client) -> None:
    response = site.post("/live/switch/", {"switch": "api", "next": "//elsewhere.example/"})
    assert response["Location"] == "/"


def test_switch_needs_its_csrf_token(site: Client) -> None:
    strict = Client(enforce_csrf_checks=True, headers={"host": "127.0.0.1:8000"})
    assert strict.post("/live/switch/", {"switch": "api"}).status_code == 403


def test_live_page_and_its_data_show_what_arrived(site: Client, segment: LocalSegment) -> None:
    page: dict[str, Any] = {
        "type": "page",
        "name": "Product",
        "category": "Shop",
        "messageId": "a" * 32,
        "anonymousId": "visitor-<1>",
        "context": {"library": {"name": "x", "way": "pixel"}, "page": {"path": "/pieces/tumbler/", "search": "?q=1"}},
    }
    again = {**page, "context": {**page["context"], "library": {"name": "analytics.js"}}}
    body = {"batch": [page, again], "writeKey": "k", "sentAt": "2026-01-01T00:00:00Z"}
    requests.post(f"{segment.url}/v1/batch", json=body, timeout=5).raise_for_status()

    data = site.get("/live/data/").json()
    [event] = data["events"]
    assert (event["way"], event["name"], event["path"]) == ("pixel", "Shop · Product", "/pieces/tumbler/?q=1")
    assert [other["way"] for other in event["again"]] == ["javascript"]
    assert (data["segment"], data["total"], data["waiting"]) == (True, 1, 0)

    html = site.get("/live/").content.decode()
    assert '<span class="badge pixel">pixel</span>' in html
    assert "visitor-&lt;1&gt;" in html
    assert '<meta http-equiv="refresh"' in html
    assert "analytics.min.js" not in html


def test_live_page_leads_to_the_dashboard(site: Client) -> None:
    link = "/admin/segment_fallback/dashboard/"
    assert f'href="{link}"' in site.get("/live/").content.decode()
    site.force_login(User.objects.create_superuser("demo"))
    site.cookies[COOKIE] = "javascript"
    response = site.get(link)
    assert "What arrived" in response.content.decode()
    assert not response.has_header("Content-Security-Policy")


def test_live_page_says_so_when_segment_is_down(site: Client, segment: LocalSegment) -> None:
    segment.stop()
    assert site.get("/live/data/").json()["segment"] is False
    assert site.get("/live/").status_code == 200


def test_hits_on_the_pixel_are_counted_and_wait(site: Client) -> None:
    html = site.get("/kiln/").content.decode()
    pixel = html.partition('<img src="')[2].partition('"')[0]
    headers = {"referer": "http://127.0.0.1:8000/kiln/", "sec-fetch-site": "same-origin"}
    assert site.get(pixel, headers=headers)["Content-Type"] == "image/gif"
    data = site.get("/live/data/").json()
    assert data["waiting"] == 1
    assert [(hit["way"], hit["outcome"], hit["count"]) for hit in data["outcomes"]] == [("noscript", "accepted", 1)]
    assert "The event is in the buffer; " in site.get("/live/").content.decode()


def test_checks_find_nothing(site: Client) -> None:
    call_command("check", fail_level="WARNING")
