from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from django.test import override_settings
from django.urls import resolve, reverse
from django.utils.functional import lazystr
from hypothesis import given, settings
from hypothesis import strategies as st

from segment_fallback.conf import compile_settings
from segment_fallback.exceptions import InvalidMessage
from segment_fallback.names import endpoint_names, hint_cookie, public_key
from segment_fallback.page.snippet import base, load_options, render
from segment_fallback.page.token import Page, sign, verify
from tests.page.html import parse

HOSTILE = [
    "</script><script>alert(1)</script>",
    "</SCRIPT >",
    "<!-- <script>",
    "]]>",
    "\"'`;alert(1)//",
    '\\"\\u003C/script>',
    "&lt;/script&gt;&quot;",
    "\u2028\u2029\x00\r\n",
    "{{ x }}{% y %}",
    "${alert(1)}",
]


def options(**keys: Any) -> dict[str, Any]:
    settings = compile_settings({"WRITE_KEY": "wk", **keys})[0]
    return load_options(settings, settings.API_HOST)


def test_render_gives_one_script_and_one_image() -> None:
    found = parse(render(Page("/")))
    assert [tag for tag, _ in found.tags] == ["script", "noscript", "picture", "source", "img"]
    assert found.attributes("script") == {}


def test_render_configures_the_script() -> None:
    name = endpoint_names()[0]
    page = Page("/shop/", "Product", "Shop", {"sku": "A"})
    assert parse(render(page)).config == {
        "k": "tests-write-key",
        "u": "https://cdn.segment.com/analytics.js/v1/tests-write-key/analytics.min.js",
        "o": {"useQueryString": False},
        "a": ["Shop", "Product", {"sku": "A"}],
        "b": f"/s/{name}/",
        "t": sign(page),
        "c": name,
        "w": 5000,
    }


FIRST_PARTY_KEYS = {"FIRST_PARTY": True, "API_HOST": "https://events.eu1.segmentapis.com"}
ABSENT = object()


@pytest.mark.parametrize(
    ("keys", "config"),
    [
        ({"CDN_HOST": "https://cdn.shop.example/"}, {"u": "https://cdn.shop.example/analytics.js/v1/wk/analytics.min.js"}),
        ({"WRITE_KEY": "../a?b"}, {"u": "https://cdn.segment.com/analytics.js/v1/..%2Fa%3Fb/analytics.min.js"}),
        ({"PATIENCE": 0.25}, {"w": 250}),
        ({"CDN_HOST": "http://localhost:8001"}, {"h": "http://localhost:8001"}),
        ({"ENDPOINT_NAME": "x"}, {"c": "x", "b": "/s/x/"}),
        ({"AUTOLOAD": False}, {"o": ABSENT}),
        ({"COOKIELESS": True}, {"n": 1}),
        ({}, {"n": ABSENT}),
        ({"NAVIGATION": "auto"}, {"auto": 1}),
        ({"NAVIGATION": "manual"}, {"auto": ABSENT}),
        ({"CONSENT": {"COOKIE": "c", "VALUE": "yes"}}, {"consent": {"n": "c", "v": "yes"}}),
        ({"CONSENT": {"COOKIE": "c", "CONTAINS": "C2:1"}}, {"consent": {"n": "c", "v": "C2:1", "x": 1}}),
        ({"CONSENT": {"COOKIE": "c"}}, {"consent": {"n": "c", "v": ""}}),
        ({"CONSENT": {"CALLBACK": True}}, {"consent": {}}),
        ({"ENDPOINT_NAME": "x", "IDENTIFY": True}, {"me": "/s/x/w", "hint": hint_cookie()}),
        ({"ENDPOINT_NAME": "x", **FIRST_PARTY_KEYS}, {
            "k": public_key(), "h": "/s/x/c", "u": f"/s/x/c/{public_key()}", "api": "/s/x/e/",
            "o": {"obfuscate": True, "useQueryString": False},
        }),
        ({"LOAD_OPTIONS": {"user": {"since": date(2025, 1, 2)}, "x": lazystr("y")}},
         {"o": {"useQueryString": False, "user": {"since": "2025-01-02"}, "x": "y"}}),
    ],
)  # fmt: skip
def test_render_follows_the_settings(keys: dict[str, Any], config: dict[str, Any]) -> None:
    with override_settings(SEGMENT_FALLBACK={"WRITE_KEY": "wk", **keys}):
        found = parse(render(Page("/"))).config
    assert {key: found.get(key, ABSENT) for key in config} == config


def test_noscript_image_is_the_pixel_of_this_very_page() -> None:
    image = parse(render(Page("/shop/", "Product"))).attributes("img")
    # The page's own Referrer-Policy could hide the Referer by which the pixel knows its page.
    assert image["referrerpolicy"] == "same-origin"
    assert (image["alt"], image["width"], image["height"]) == ("", "1", "1")
    match = resolve(str(image["src"]))
    assert match.view_name == "segment_fallback:noscript"
    page = verify(match.kwargs["token"])
    assert (page.path, page.name) == ("/shop/", "Product")


def test_render_without_noscript() -> None:
    assert [tag for tag, _ in parse(render(Page("/"), noscript=False)).tags] == ["script"]


@pytest.mark.parametrize(
    "keys", [{"CONSENT": {"CALLBACK": True}}, {"AUTOLOAD": False}, {"LOAD_OPTIONS": {"disable": True}}]
)
def test_render_without_noscript_where_only_code_knows_of_consent(keys: dict[str, Any]) -> None:
    with override_settings(SEGMENT_FALLBACK={"WRITE_KEY": "wk", **keys}):
        assert [tag for tag, _ in parse(render(Page("/"))).tags] == ["script"]


def test_render_names_no_write_key_where_everything_is_first_party() -> None:
    with override_settings(SEGMENT_FALLBACK={"WRITE_KEY": "secret-key", "FIRST_PARTY": True}):
        html = render(Page("/"))
    assert "secret-key" not in html
    assert "segment.com" not in html


def test_render_external_has_no_inline_code() -> None:
    page = Page("/shop/", "</script>\"'&", properties={"a": "<!--"})
    with override_settings(SEGMENT_FALLBACK={"WRITE_KEY": "wk", "EXTERNAL_SCRIPT": True}):
        html = render(page, nonce="n")
    found = parse(html)
    external = found.attributes("script")
    assert found.script == ""
    assert external.get("nonce") == "n"
    match = resolve(str(external.get("src")))
    assert match.view_name == "segment_fallback:page_script"
    with override_settings(SEGMENT_FALLBACK={"WRITE_KEY": "wk"}):
        inline = parse(render(page)).config
    assert json.loads(str(external.get("data-page"))) == inline


def test_base_begins_every_url() -> None:
    name = endpoint_names()[0]
    url = reverse("segment_fallback:pixel", args=[name, "m" * 32, "data"])
    assert url == base(name) + "p/" + "m" * 32 + "/data"


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_render_keeps_every_argument_data(text: str) -> None:
    page = Page(f"/{text}", text, text, {text: text, "deep": [{text: [text]}]})
    write_key = "".join(character for character in text if "!" <= character <= "~") or "key"
    keys = {"WRITE_KEY": write_key, "LOAD_OPTIONS": {text: text}}
    with override_settings(SEGMENT_FALLBACK=keys):
        html = render(page, nonce=text)
        found = parse(html)
    assert [tag for tag, _ in found.tags] == ["script", "noscript", "picture", "source", "img"]
    assert found.page_call == [text, text, page.properties]
    assert (found.config["k"], found.config["o"][text]) == (write_key, text)
    assert found.attributes("script") == {"nonce": text}
    assert verify(found.config["t"]).path == page.path
    arguments = found.arguments
    assert not set("<>&\u2028\u2029\x00\r\n") & set(arguments)


@settings(deadline=None)  # a busy machine is no failure
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
def test_render_keeps_any_text_data(text: str) -> None:
    found = parse(render(Page("/", text, text, {"a": text})))
    assert found.page_call == [text, text, {"a": text}]


def test_render_normalises_properties_alike_for_script_and_token() -> None:
    page = Page("/", properties={"price": Decimal("19.90"), "day": date(2025, 1, 2), "tags": {"b", "a"}})
    plain = {"price": 19.9, "day": "2025-01-02", "tags": ["a", "b"]}
    found = parse(render(page))
    assert found.page_call == [None, None, plain]
    assert verify(found.config["t"]).properties == plain


def test_render_refuses_a_property_without_form_in_json() -> None:
    with pytest.raises(InvalidMessage, match="bytes"):
        render(Page("/", properties={"a": b"x"}))


def test_load_options_name_the_api_host_only_where_it_is_not_segments_own() -> None:
    assert options() == {"useQueryString": False}
    europe = options(API_HOST="https://events.eu1.segmentapis.com")
    assert europe["integrations"] == {
        "Segment.io": {"apiHost": "events.eu1.segmentapis.com/v1", "protocol": "https"}
    }  # fmt: skip
    local = options(API_HOST="http://localhost:8001/")["integrations"]["Segment.io"]
    assert local == {"apiHost": "localhost:8001/v1", "protocol": "http"}


def test_load_options_of_the_site_are_merged_and_win() -> None:
    found = options(
        API_HOST="https://eu.example",
        LOAD_OPTIONS={
            "obfuscate": True,
            "useQueryString": {"aid": "a"},
            "integrations": {"All": False, "Segment.io": {"protocol": "http", "deliveryStrategy": {}}},
        },
    )
    assert found == {
        "obfuscate": True,
        "useQueryString": {"aid": "a"},
        "integrations": {
            "All": False,
            "Segment.io": {"apiHost": "eu.example/v1", "protocol": "http", "deliveryStrategy": {}},
        },
    }


@pytest.mark.parametrize(("own", "merged"), [(True, {"apiHost": "eu.example/v1", "protocol": "https"}), (False, False)])
def test_load_options_that_switch_segment_on_or_off_are_kept(own: bool, merged: object) -> None:
    found = options(API_HOST="https://eu.example", LOAD_OPTIONS={"integrations": {"Segment.io": own}})
    assert found["integrations"]["Segment.io"] == merged


def test_load_options_leave_the_setting_alone() -> None:
    mine: dict[str, Any] = {"integrations": {"Segment.io": {}}}
    options(API_HOST="https://eu.example", LOAD_OPTIONS=mine)
    assert mine == {"integrations": {"Segment.io": {}}}
