"""The last events: masked, off in production, and never in an event's way."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from django.core.cache import cache
from django.test import Client
from pytest_django import Settings

from segment_fallback.buffers import last_events
from segment_fallback.buffers.accept import accept
from segment_fallback.buffers.last_events import KEPT, masked, recall
from segment_fallback.conf import Settings as OurSettings
from segment_fallback.message import Message, Way, encode

URL = "/admin/segment_fallback/dashboard/"


def order(name: str = "0123456789abcdef") -> Message:
    message = {
        "type": "track",
        "event": "Order Completed",
        "messageId": name,
        "anonymousId": "fedcba9876543210",
        "userId": "ada@example.org",
        "properties": {"email": "ada@example.org", "total": 184.5, "gift": True, "note": None, "skus": ["A-1", "B-2"]},
    }
    return encode(message, way=Way.PIXEL)


@pytest.fixture
def on(settings: Settings, db: None) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "LAST_EVENTS": True}
    cache.clear()


def test_accepted_event_is_remembered_with_its_keys_and_without_its_values(on: None) -> None:
    accept([order()])
    [entry] = recall()
    assert (entry["way"], entry["type"], entry["event"], entry["id"]) == ("pixel", "track", "Order Completed", "…cdef")
    assert entry["body"]["anonymousId"] == "…3210"
    assert entry["body"]["properties"] == {
        "email": "text of 15",
        "total": "number",
        "gift": "true or false",
        "note": "null",
        "skus": ["text of 3", "1 more"],
    }
    kept = json.dumps(entry)
    for value in ("ada", "184", "A-1", "456789", "fedc"):
        assert value not in kept


def test_no_id_is_short_enough_to_be_shown_whole() -> None:
    assert masked({"messageId": "abc", "anonymousId": ""}) == {"messageId": "…", "anonymousId": "…"}


def test_object_of_many_keys_is_cut() -> None:
    shown = masked({f"{n:03}{'k' * 200}": n for n in range(100)})
    assert len(shown) == last_events.MAX_KEYS + 1
    assert shown["…"] == "40 more keys"
    assert max(map(len, shown)) == last_events.MAX_NAME


def test_only_the_last_ones_are_kept_newest_first(on: None) -> None:
    accept([order(f"first-{n:010}") for n in range(KEPT)])
    for n in range(3):
        accept([order(f"later-event-{n}")])
    found = recall()
    assert len(found) == KEPT
    assert [entry["id"][-1] for entry in found[:4]] == ["2", "1", "0", "9"]
    accept([order(f"many-{n:011}") for n in range(KEPT * 3)])
    assert len(recall()) == KEPT


@pytest.mark.parametrize(("debug", "setting", "expected"), [(False, None, 0), (True, None, 1), (True, False, 0)])
def test_off_unless_debug_or_the_setting_says_so(
    settings: Settings, db: None, debug: bool, setting: bool | None, expected: int
) -> None:
    settings.DEBUG = debug
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "LAST_EVENTS": setting}
    assert OurSettings(LAST_EVENTS=setting).last_events is bool(expected)
    cache.clear()
    accept([order()])
    assert len(recall()) == expected


def test_cache_that_is_down_takes_no_event_and_no_page_with_it(
    viewer: Client, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "a file, and no folder"
    place.touch()
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": str(place)}
    }
    with caplog.at_level(logging.WARNING, "segment_fallback"):
        accept([order()])
    assert "the last events could not be remembered" in caplog.text
    assert "ada" not in caplog.text
    page = viewer.get(URL).content.decode()
    assert "<dt>Waiting</dt><dd>1</dd>" in page
    assert "None within a day" in page


def test_page_shows_them_masked(viewer: Client) -> None:
    accept([order()])
    page = viewer.get(URL).content.decode()
    assert "<b>Order Completed</b>" in page
    assert "&quot;email&quot;: &quot;text of 15&quot;" in page
    assert "ada@example.org" not in page


def test_page_says_how_to_switch_them_on(viewer: Client, settings: Settings) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "LAST_EVENTS": None}
    assert '<code>"LAST_EVENTS": True</code>' in viewer.get(URL).content.decode()
