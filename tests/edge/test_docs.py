"""What docs/how-to/edge-caching.md and its files say agrees with the app, and with each other."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest
from django.test import override_settings

from segment_fallback import urls
from segment_fallback.conf import compile_settings, get_source
from segment_fallback.page.snippet import configuration
from segment_fallback.page.token import Page
from tests.edge.servers import DOCS

GUIDE = DOCS.parent / "how-to/edge-caching.md"
PROXY = DOCS.parent / "how-to/from-a-custom-proxy.md"
PASSED = re.compile(r"\^/s/\[A-Za-z0-9_-\]\+/\(([a-z|]+)\)\(/\|")
KEPT = re.compile(r"\^/s/\[A-Za-z0-9_-\]\+/\(([a-z|]+)\)/")
RESET = "r"


def endpoints() -> set[str]:
    """The letters below the endpoints' name."""
    routes = [str(pattern.pattern) for pattern in urls.urlpatterns]
    return {route.split("/")[1] for route in routes} | {RESET}


@pytest.mark.parametrize("name", ["varnish.vcl", "nginx.conf"])
def test_every_endpoint_is_passed_or_kept(name: str) -> None:
    text = (DOCS / name).read_text()
    [passed], [kept] = PASSED.findall(text), KEPT.findall(text)
    assert set(kept.split("|")) == {"c", "f"}
    assert set(passed.split("|")) == endpoints() - {"c", "f"}


def test_guide_names_every_endpoint() -> None:
    assert set(re.findall(r"`/s/<name>/([a-z])\b", GUIDE.read_text())) == endpoints()


def test_marketing_parameters_are_the_same_everywhere() -> None:
    lists = re.findall(r"\((?:\?:)?(utm_\[a-z_\]\+\|[^)]*)\)=", "".join(map(text, ["varnish.vcl", "nginx.conf"])))
    assert len(lists) == 4
    assert len(set(lists)) == 1
    pattern = re.compile(lists[0])
    cloudflare = json.loads(text("cloudflare.json"))["rules"][0]["action_parameters"]["cache_key"]["custom_key"]
    cloudfront = re.findall(r"^ {14}- (\w+)$", text("cloudfront.yaml"), re.MULTILINE)
    assert len(cloudfront) == 10, "the quota"
    for parameter in {*cloudflare["query_string"]["exclude"]["list"], *cloudfront}:
        assert pattern.fullmatch(parameter), parameter
    assert set(cloudfront) <= set(cloudflare["query_string"]["exclude"]["list"])


def text(name: str) -> str:
    return (DOCS / name).read_text()


def test_template_of_cloudfront_is_valid() -> None:
    """By AWS's own linter, which comes with moto."""
    lint = [sys.executable, "-c", "from cfnlint.runner import main; main()", "--non-zero-exit-code", "warning"]
    result = subprocess.run([*lint, str(DOCS / "cloudfront.yaml")], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def custom_proxies() -> list[dict[str, Any]]:
    """The settings in the guide to custom proxies: US, then EU."""
    section = PROXY.read_text()
    found = []
    for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        values: dict[str, Any] = {}
        exec(block, values)  # noqa: S102 - our own documentation
        found.append(values["SEGMENT_FALLBACK"])
    return found


@pytest.mark.parametrize(
    ("number", "deliveries"), [(0, "https://api.segment.io"), (1, "https://events.eu1.segmentapis.com")]
)
def test_documented_settings_point_the_snippet_to_the_custom_proxy(number: int, deliveries: str) -> None:
    own = custom_proxies()[number]
    assert compile_settings(own)[1] == []
    with override_settings(SEGMENT_FALLBACK=own):
        config, source = configuration(Page("/"), "token"), get_source()
    assert source
    assert source.api_host == deliveries
    assert config["u"].startswith("https://cdn-proxy.shop.example/analytics.js/v1/")
    assert config["o"]["integrations"]["Segment.io"]["apiHost"] == "api-proxy.shop.example/v1"
    assert config["o"]["integrations"]["Segment.io"].get("protocol", "https") == "https"
    assert "segment.io/" not in json.dumps(config)
    assert "segmentapis.com" not in json.dumps(config)


def test_api_host_alone_sends_pages_and_deliveries_to_the_custom_proxy() -> None:
    host = "https://api-proxy.shop.example"
    assert f'"API_HOST": "{host}"' in PROXY.read_text()
    with override_settings(SEGMENT_FALLBACK={"WRITE_KEY": "key", "API_HOST": host}):
        options = configuration(Page("/"), "token")["o"]
    assert options["integrations"]["Segment.io"] == {"apiHost": "api-proxy.shop.example/v1", "protocol": "https"}


def test_guide_links_to_files_that_exist() -> None:
    links = re.findall(r"\]\(\.\./(edge/[^)]+)\)", GUIDE.read_text() + PROXY.read_text())
    assert {DOCS / link.removeprefix("edge/") for link in links} == set(DOCS.iterdir())
