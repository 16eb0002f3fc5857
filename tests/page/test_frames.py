"""What pages have alike is made once, and made anew wherever something differs that it depends on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.conf.urls.i18n import i18n_patterns
from django.test import override_settings
from django.urls import get_script_prefix, include, path, set_script_prefix, set_urlconf
from django.utils import translation

from segment_fallback.conf import DAY
from segment_fallback.page import snippet, token
from segment_fallback.page.snippet import Frames, render
from segment_fallback.page.token import Page, sign
from tests.page.html import parse

urlpatterns = i18n_patterns(path("elsewhere/", include("segment_fallback.urls")))


@pytest.fixture(autouse=True)
def place() -> Iterator[None]:
    """The tests move where our URLs are."""
    prefix = get_script_prefix()
    yield
    set_script_prefix(prefix)
    set_urlconf(None)


def base_of(path: str = "/") -> str:
    """The path below which a page's script finds our URLs."""
    return str(parse(render(Page(path))).config["b"])


def test_prefix_of_the_server_is_that_of_the_request() -> None:
    before = base_of()
    set_script_prefix("/app/")
    assert base_of() == f"/app{before}"
    set_script_prefix("/")
    assert base_of() == before


def test_urlconf_and_language_are_those_of_the_request() -> None:
    before = base_of()
    set_urlconf(__name__)
    found = {}
    for language in ("de", "fr", "de"):
        with translation.override(language):
            found[language] = base_of()
            image = parse(render(Page("/"))).attributes("img")["src"]
            assert str(image).startswith(f"/{language}/elsewhere/")
    assert {language: url.split("/")[1:3] for language, url in found.items()} == {
        "de": ["de", "elsewhere"],
        "fr": ["fr", "elsewhere"],
    }
    set_urlconf(None)
    assert base_of() == before


def test_settings_and_secrets_take_effect(settings: Any) -> None:
    before = parse(render(Page("/"))).config
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "PATIENCE": 1.5}
    assert parse(render(Page("/"))).config == {**before, "w": 1500, "t": sign(Page("/"))}
    settings.SECRET_KEY = "another"
    after = parse(render(Page("/"))).config
    assert (after["c"], after["t"]) != (before["c"], before["t"])
    assert after["c"] in base_of()


def test_unknown_source_is_refused_each_time() -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="SOURCES has no source 'docs'"):
            render(Page("/", source="docs"))


def test_number_of_frames_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snippet, "MAX_FRAMES", 3)
    frames = Frames()
    for number in range(10):
        set_script_prefix(f"/{number}/")
        assert f'"b":"/{number}/' in frames.of("default").before
        assert len(frames._made) <= 3


def test_threads_get_frames_of_their_own_prefix() -> None:
    def rendered(number: int) -> tuple[int, str]:
        set_script_prefix(f"/{number}/")
        return number, base_of(f"/{number}/")

    with ThreadPoolExecutor(8) as threads:
        assert all(url.startswith(f"/{number}/") for number, url in threads.map(rendered, range(50)))


def test_page_is_signed_once_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page("/once-a-day/", "Product", None, {"sku": "A"})
    token._signed.cache_clear()
    assert sign(page) == sign(Page("/once-a-day/", "Product", None, {"sku": "A"}))
    assert token._signed.cache_info().misses == 1
    later = time.time() + DAY
    monkeypatch.setattr(time, "time", lambda: later)
    assert token.verify(sign(page)).issued == later // DAY
    with override_settings(SECRET_KEY="another"):
        assert token.verify(sign(page)).path == page.path
    assert token._signed.cache_info().misses == 3
