from __future__ import annotations

import pytest
from django.test import RequestFactory

from segment_fallback.intake.context import campaign, environment, page_context


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ("", {}),
        ("?a=1", {}),
        ("?utm_campaign=a&utm_source=b", {"name": "a", "source": "b"}),
        ("?utm_term=two+words&utm_content=%C3%A9", {"term": "two words", "content": "é"}),
        ("?utm_source=a?utm_medium=b", {"source": "a", "medium": "b"}),
        ("?utm_=x", {}),
        ("?utm_id", {"id": ""}),
        ("?utm_source=%E0%A4%A", {"source": "\ufffd%A"}),
    ],
)
def test_campaign_is_read_as_analytics_js_reads_it(search: str, expected: dict[str, str]) -> None:
    assert campaign(search) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, {"userAgent": ""}),
        ({"accept-language": "de"}, {"userAgent": "", "locale": "de"}),
        ({"accept-language": "en-US;q=0.8, de"}, {"userAgent": "", "locale": "en-US"}),
        ({"user-agent": "x" * 5_000}, {"userAgent": "x" * 1_000}),
        ({"sec-ch-ua": "nonsense"}, {"userAgent": ""}),
        (
            {"sec-ch-ua": '"A\\"B";v="1"', "sec-ch-ua-mobile": "?1", "sec-ch-ua-platform": '"Android"'},
            {
                "userAgent": "",
                "userAgentData": {
                    "brands": [{"brand": 'A\\"B', "version": "1"}],
                    "mobile": True,
                    "platform": "Android",
                },
            },
        ),
    ],
)
def test_environment_is_what_the_headers_say(headers: dict[str, str], expected: dict[str, object]) -> None:
    assert environment(RequestFactory().get("/", headers=headers)) == expected


@pytest.mark.parametrize("canonical", ["http://[broken", "//host/path", "javascript:alert(1)", "\u0000"])
def test_odd_canonical_is_only_text(canonical: str) -> None:
    page = page_context(origin="https://shop.example", path="/a", search="", title="", referrer="", canonical=canonical)
    assert page["url"] == canonical
    assert page["path"].startswith("/")
