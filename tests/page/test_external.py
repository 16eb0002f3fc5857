"""The page's script as a file: what caches may do with it."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client, override_settings
from django.urls import reverse

from segment_fallback.conf import get_settings
from segment_fallback.names import endpoint_names
from segment_fallback.page import script


def url(digest: str | None = None) -> str:
    return reverse("segment_fallback:page_script", args=[endpoint_names()[0], digest or script.digest(get_settings())])


def test_file_is_the_script_and_kept_for_ever() -> None:
    response = Client().get(url())
    assert response.status_code == 200
    assert response.content.decode() == script.external(get_settings())
    assert response["Content-Type"] == "text/javascript; charset=utf-8"
    assert response["Cache-Control"] == "public, max-age=31536000, immutable"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert not response.has_header("Vary")
    assert not response.cookies


def test_old_digest_is_answered_with_the_script_of_today_for_an_hour() -> None:
    response = Client().get(url("0123456789ab"))
    assert response.content.decode() == script.external(get_settings())
    assert response["Cache-Control"] == "public, max-age=3600"


@pytest.mark.parametrize(
    "keys", [{"CONSENT": {"COOKIE": "c"}}, {"HONOUR_GPC": False}, {"NAVIGATION": "auto"}, {"AUTOLOAD": False}]
)
def test_digest_names_what_the_file_holds(settings: Any, keys: dict[str, Any]) -> None:
    before = url()
    with override_settings(SEGMENT_FALLBACK={**settings.SEGMENT_FALLBACK, **keys}):
        assert url() != before
        assert "immutable" not in Client().get(before)["Cache-Control"]


@pytest.mark.parametrize("weak", [False, True])
def test_copy_that_is_current_is_not_sent_again(weak: bool) -> None:
    tag = Client().get(url())["ETag"]
    # A proxy that compresses the file makes the tag a weak one.
    headers = {"If-None-Match": f'"old", {"W/" if weak else ""}{tag}'}
    response = Client().get(url(), headers=headers)
    assert (response.status_code, response.content) == (304, b"")
    assert response["ETag"] == tag
    assert "immutable" in response["Cache-Control"]
    assert Client().get(url(), headers={"If-None-Match": '"old"'}).status_code == 200


def test_head_has_no_body() -> None:
    response = Client().head(url())
    assert (response.status_code, response.content) == (200, b"")
    assert response["ETag"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_method_is_refused(method: str) -> None:
    response = Client().generic(method, url())
    assert (response.status_code, response["Allow"]) == (405, "GET, HEAD")


def test_name_of_another_site_is_not_found() -> None:
    assert Client().get(url().replace(endpoint_names()[0], "other1")).status_code == 404
