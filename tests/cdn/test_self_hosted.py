from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from segment_fallback.names import endpoint_names, public_key
from segment_fallback.testing import LocalSegment
from tests.cdn.conftest import (
    BUNDLE,
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


@pytest.fixture
def folder(segment: LocalSegment, settings: Any, tmp_path: Path) -> Path:
    """A folder as the documentation says it: the package's own files."""
    assert segment.analytics_js
    for file in Path(segment.analytics_js, "dist", "umd").glob("*.js"):
        shutil.copy(file, tmp_path)
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "SELF_HOSTED": str(tmp_path)}
    return tmp_path


def test_library_comes_from_the_folder_and_nobody_is_asked(segment: LocalSegment, folder: Path) -> None:
    script, bundle = fetch(script_url()), fetch(bundle_url())
    assert public_key().encode() in script.content
    assert script["Cache-Control"].startswith("public, max-age=300,")
    assert bundle.content == without_source_map((folder / BUNDLE).read_bytes())
    assert "immutable" in bundle["Cache-Control"]
    assert fetch(settings_url()).status_code == 200
    assert fetch(integration_url("actions/a/0123456789abcdef.js")).status_code == 404
    assert asked(segment) == []


def test_library_is_what_the_cdn_serves(segment: LocalSegment, settings: Any, folder: Path) -> None:
    own = fetch(script_url(), accept_encoding="gzip")
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "SELF_HOSTED": None}
    theirs = fetch(script_url(), accept_encoding="gzip")
    assert own.content == theirs.content
    assert dict(own.headers) == dict(theirs.headers)
    assert len(asked(segment)) == 1


def test_settings_without_a_file_name_segment_only(folder: Path) -> None:
    content = fetch(settings_url()).json()
    assert list(content["integrations"]) == ["Segment.io"]
    assert content["integrations"]["Segment.io"]["apiKey"] == public_key()
    assert content["integrations"]["Segment.io"]["apiHost"] == f"testserver/s/{endpoint_names()[0]}/e"
    assert content["remotePlugins"] == []


def test_settings_of_a_file_are_rewritten_as_the_cdns_are(segment: LocalSegment, folder: Path) -> None:
    plugin = {"name": "Heap", "url": "https://cdn.segment.com/next-integrations/actions/heap/0123456789abcdef.js"}
    written = {"integrations": {"Segment.io": {"apiKey": WRITE_KEY}, "Heap": {"k": 1}}, "remotePlugins": [plugin]}
    (folder / "settings.json").write_text(json.dumps(written))
    response = fetch(settings_url())
    content = response.json()
    assert content["integrations"]["Heap"] == {"k": 1}
    assert WRITE_KEY not in response.text
    code = folder / "next-integrations" / "actions" / "heap"
    code.mkdir(parents=True)
    (code / "0123456789abcdef.js").write_text("let heap")
    url = content["remotePlugins"][0]["url"]
    assert url.startswith(f"{base()}/i/")
    assert fetch(url).content == b"let heap"
    assert asked(segment) == []


def test_unpacked_file_is_served_under_its_packed_name(folder: Path) -> None:
    code = folder / "next-integrations" / "integrations" / "heap" / "latest"
    code.mkdir(parents=True)
    (code / "heap.dynamic.js").write_text("let heap")
    assert fetch(integration_url("integrations/heap/latest/heap.dynamic.js.gz")).content == b"let heap"


def test_each_source_has_settings_of_its_own(settings: Any, folder: Path) -> None:
    sources = {"docs": {"WRITE_KEY": "docs-key"}, "../odd": {"WRITE_KEY": "odd-key"}}
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "SOURCES": sources}
    (folder / "settings.json").write_text('{"integrations": {"Main": {}}}')
    (folder / "settings.docs.json").write_text('{"integrations": {"Docs": {}}}')
    found = [set(fetch(settings_url(alias)).json()["integrations"]) for alias in ("default", "docs", "../odd")]
    assert found == [{"Main", "Segment.io"}, {"Docs", "Segment.io"}, {"Segment.io"}]


def test_changed_file_is_served_at_once(folder: Path) -> None:
    before = fetch(script_url())
    (folder / "standalone.js").write_text("let changed")
    after = fetch(script_url())
    assert after.content == b"let changed"
    assert after["ETag"] != before["ETag"]


@pytest.mark.parametrize("content", ["<html>", "", "[]", '{"integrations": {}, "a": NaN}'])
def test_malformed_settings_are_not_served(folder: Path, content: str, caplog: Any) -> None:
    (folder / "settings.json").write_text(content)
    response = fetch(settings_url())
    assert (response.status_code, response.content) == (502, b"")
    assert "settings.json in SELF_HOSTED cannot be served" in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_file_that_cannot_be_read_is_not_served(folder: Path, caplog: Any) -> None:
    (folder / "standalone.js").unlink()
    (folder / "standalone.js").symlink_to("/proc/self/mem")
    assert fetch(script_url()).status_code == 502
    assert "standalone.js in SELF_HOSTED cannot be served" in caplog.text


@pytest.mark.parametrize("name", ["settings.json", "..%2fsecret.js", "a.js.map", f"{BUNDLE}.map", "absent.js"])
def test_folder_gives_its_scripts_and_no_more(folder: Path, name: str) -> None:
    (folder.parent / "secret.js").write_text("secret")
    (folder / "settings.json").write_text("{}")
    (folder / f"{BUNDLE}.map").write_text("{}")
    assert fetch(f"{base()}/b/{name}").status_code == 404


def test_folder_that_is_not_there(segment: LocalSegment, settings: Any, tmp_path: Path) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "SELF_HOSTED": str(tmp_path / "none")}
    assert fetch(script_url()).status_code == 404
    assert asked(segment) == []
