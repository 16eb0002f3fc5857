from __future__ import annotations

import json
from typing import Any

import pytest

from segment_fallback.cdn import rewrite
from segment_fallback.cdn.files import bundle, integration, opaque_url
from segment_fallback.cdn.rewrite import Place

PLACE = Place("/s/abc234/c", "https://cdn.example", ((b"secret", b"public"),))


def script(text: str) -> str:
    return rewrite.script(PLACE, "text/javascript", text.encode()).decode()


@pytest.mark.parametrize(
    ("text", "rewritten"),
    [
        ('return "https://cdn.segment.com"}', 'return "/s/abc234/c"}'),
        ("'https://cdn.example/next-integrations/x'", "'/s/abc234/c/next-integrations/x'"),
        ('p="https://cdn.segment.com/analytics-next/bundles/"', 'p="/s/abc234/c/analytics-next/bundles/"'),
        ('x="api.segment.io/v1"', 'x=(location.host+"/s/abc234/e/v1")'),
        ("x='api.segment.io/v1'", 'x=(location.host+"/s/abc234/e/v1")'),
        ('k="secret";l="secretsecret"', 'k="public";l="publicpublic"'),
    ],
)
def test_script_is_rewritten(text: str, rewritten: str) -> None:
    assert script(text) == rewritten


@pytest.mark.parametrize(
    "text",
    [
        'new RegExp("https://cdn.segment.(com|build)")',
        '"https://segment.com/docs/"',
        '"https://cdn.segment.community"',
        '"https://cdn.segment.com/analytics.js/v1/"',
        '"https://api.segment.io/v1/m"',
        '"api.segment.io/v1/t"',
        'a("// sourceMappingURL is a comment")',
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert script(text) == text


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        ("a();\n//# sourceMappingURL=a.js.map", "a();\n"),
        ("a();\n//# sourceMappingURL=a.js.map\n", "a();\n"),
        ("a();//# sourceMappingURL=a.js.map", "a();"),
        ("a()\n//@ sourceMappingURL=a.js.map\nb()", "a()\nb()"),
        ("a()\r\n  //# sourceMappingURL=data:application/json;base64,AAAA==", "a()\r\n"),
        ('a("\\n//# sourceMappingURL=a.map")', 'a("\\n//# sourceMappingURL=a.map")'),
    ],
)
def test_source_map_is_stripped(text: str, stripped: str) -> None:
    assert script(text) == stripped


def first_party(content: dict[str, Any], scheme: str = "https") -> Any:
    body = rewrite.settings(json.dumps(content).encode())
    return json.loads(rewrite.first_party_settings(PLACE, body, host="shop.example", scheme=scheme, key="public"))


def test_settings_without_segment_itself_get_it() -> None:
    assert first_party({"integrations": {}})["integrations"] == {
        "Segment.io": {"apiKey": "public", "apiHost": "shop.example/s/abc234/e/v1", "protocol": "https"}
    }


def test_settings_keep_all_else() -> None:
    content = {
        "integrations": {"Segment.io": {"apiKey": "secret", "retryQueue": False}, "Heap": {"appId": "é\ud800"}},
        "plan": {"track": {}},
    }
    found = first_party(content)
    assert found["integrations"]["Heap"] == {"appId": "é\ud800"}
    assert found["integrations"]["Segment.io"]["retryQueue"] is False
    assert found["plan"] == {"track": {}}


@pytest.mark.parametrize(
    ("metrics", "scheme", "rate"),
    [
        ({"sampleRate": 0.1}, "https", 0.1),
        ({"sampleRate": 0.1}, "http", 0),
        ({}, "https", 0),
        (None, "https", 0),
        ([1], "https", 0),
    ],
)
def test_metrics_come_to_the_site_if_anywhere(metrics: object, scheme: str, rate: float) -> None:
    found = first_party({"integrations": {}, "metrics": metrics}, scheme)["metrics"]
    assert found == {"host": "shop.example/s/abc234/e/v1", "sampleRate": rate}


ACTION = "next-integrations/actions/google-analytics-4-web/51855e573177634029a6.js"
OPAQUE = "/s/abc234/c/next-integrations/actions/Z29vZ2xlLWFuYWx5dGljcy00LXdlYg/51855e573177634029a6.js"


@pytest.mark.parametrize(
    ("url", "rewritten"),
    [
        (f"https://cdn.segment.com/{ACTION}", OPAQUE),
        (f"https://cdn.example/{ACTION}", OPAQUE),
        ("https://cdn.example/next-integrations/vendor/a.js", "/s/abc234/c/next-integrations/vendor/a.js"),
        (f"https://other.example/{ACTION}", None),
        (f"http://cdn.segment.com/{ACTION}", None),
        (f"https://cdn.segment.com/x/{ACTION}", None),
        ("https://cdn.segment.com/next-integrations/actions/../x.js", None),
        ("https://cdn.segment.com/other/x.js", None),
        ("https://[", None),
        ("", None),
    ],
)
def test_plugin_is_loaded_from_the_site_without_its_name(url: str, rewritten: str | None) -> None:
    plugins: list[object] = [{"name": "GA", "url": url, "settings": {}}, {"name": "no url"}, 5]
    found = first_party({"integrations": {}, "remotePlugins": plugins})["remotePlugins"]
    assert found == [{"name": "GA", "url": rewritten or url, "settings": {}}, {"name": "no url"}, 5]


DESTINATIONS = """
adobe-analytics amplitude amplitude-plugins appcues bing-ads braze chameleon clevertap criteo customerio drift
elevio facebook-pixel fullstory google-adwords-new google-analytics google-tag-manager heap hotjar hubspot
hubspot-web intercom iterate kissmetrics linkedin-insight-tag mixpanel mouseflow optimizely pendo quantcast
rollbar sentry tapfiliate visual-website-optimizer webhooks yandex-metrica edge edge_sdk comscore
"""


@pytest.mark.parametrize("name", DESTINATIONS.split())
def test_plain_and_encoded_names_are_told_apart(name: str) -> None:
    for path in (f"actions/{name}/51855e573177634029a6.js", f"integrations/{name}/1.0.0/{name}.dynamic.js.gz"):
        file = integration(path)
        assert file is not None
        assert file.path == f"/next-integrations/{path}"
    opaque = opaque_url(f"https://cdn.segment.com/next-integrations/actions/{name}/51855e573177634029a6.js", "/c", "")
    assert name not in opaque
    file = integration(opaque.removeprefix("/c/next-integrations/"))
    assert file is not None
    assert file.path == f"/next-integrations/actions/{name}/51855e573177634029a6.js"


@pytest.mark.parametrize(
    ("name", "immutable"),
    [
        ("ajs-destination.bundle.40628baed746e9904edc.js", True),
        ("407.bundle.61efa1acb302134c434b.js", True),
        ("index.js", False),
        ("deadbeef.js", False),
        ("a.bundle.40628baed746e9904edg.js", False),
    ],
)
def test_only_a_hash_in_its_name_makes_a_file_immutable(name: str, immutable: bool) -> None:
    file = bundle(name)
    assert file is not None
    assert file.immutable is immutable


def test_destination_by_version_is_not_immutable() -> None:
    for version in ("latest", "2.2.3"):
        file = integration(f"integrations/heap/{version}/heap.dynamic.js.gz")
        assert file is not None
        assert not file.immutable
    vendor = integration("integrations/vendor/commons.c42222c4cb2f8913500f.js.gz")
    assert vendor is not None
    assert vendor.immutable
