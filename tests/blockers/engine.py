"""Asks a real filter engine, that of Ghostery, which rules of a folder of blockers' lists match."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.page.test_script import node, tool

TYPES = ("image", "ping", "script", "xmlhttprequest", "other")
"""What our URLs are requested as: pixel, beacon, analytics.js and its parts, fetch, and what a browser cannot name."""

DEBIANS = Path("/usr/share/mozilla/extensions")
"""Debian's webext-ublock-origin-firefox brings EasyList, EasyPrivacy and uBlock's own lists, at one version a release.

Not the package for Chromium: Debian's Chromium would load it, in other tests too.
"""


@dataclass(frozen=True)
class Request:
    """What a page of that URL asks for; tried as each of TYPES."""

    url: str
    page: str = "https://shop.example/cart"


@dataclass(frozen=True)
class Answer:
    """What matched, and how much there was to match it."""

    lists: Sequence[str]
    rules: int
    requests: Sequence[tuple[str, str, str]]
    """URL, type and rule."""
    cookies: Sequence[tuple[str, str]]
    """Name and rule."""

    @property
    def urls(self) -> set[str]:
        return {url for url, _, _ in self.requests}


def lists_folder() -> Path:
    """The folder that FILTER_LISTS names, or the lists that Debian packages; without either, a skip that says so."""
    if named := os.environ.get("FILTER_LISTS"):
        return Path(named)
    found = sorted(DEBIANS.glob("*/uBlock0@raymondhill.net/assets"))
    if found:
        return found[0]
    text = "no blockers' lists: install Debian's webext-ublock-origin-firefox, or set FILTER_LISTS to a folder of lists"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)


def ask(folder: Path, requests: Iterable[Request] = (), cookies: Iterable[str] = ()) -> Answer:
    """Which of these the lists in the folder match."""
    tool("@ghostery/adblocker")
    asked = [{"url": request.url, "page": request.page, "types": TYPES} for request in requests]
    script = Path(__file__).with_name("match.cjs")
    done = subprocess.run(
        [node(), str(script), str(folder)],
        input=json.dumps({"requests": asked, "cookies": list(cookies)}),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
    )
    answer = json.loads(done.stdout)
    return Answer(
        answer["lists"],
        answer["rules"],
        [(hit["url"], hit["type"], hit["rule"]) for hit in answer["requests"]],
        [(hit["name"], hit["rule"]) for hit in answer["cookies"]],
    )
