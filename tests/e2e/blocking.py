"""Chromium with a blocker: an extension that applies blockers' lists to everything that any page in it asks for.

Not routes: they would leave out what a prerendered page or a closing tab asks for, and switch the HTTP cache off.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Error, Playwright

from tests.blockers.extension import Extension

CONTROL = "http://localhost:9/analytics.js/v1/control"
"""EasyPrivacy blocks the path on every host; nobody answers here."""

SWITCHES = [
    "--enable-unsafe-extension-debugging",
    # Did the lists miss something, it would reach Segment itself.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
]

MOST_REFUSED = 20
"""Rules that Chromium may refuse; of 21,000 it was 2."""


@dataclass(frozen=True)
class Blocker:
    """A browser with the extension, which is at work in every context of it."""

    browser: Browser
    extension: Extension
    profile: BrowserContext

    def hits(self) -> set[tuple[str, str, str]]:
        """What the lists have kept from being fetched as it was asked for: URL, type, and ``block`` or ``redirect``."""
        kept = self.profile.service_workers[0].evaluate("chrome.storage.local.get()").values()
        hits = {(url, kind, self.extension.actions[rule]) for url, kind, rule in kept}
        return {hit for hit in hits if hit[2] in ("block", "redirect")}

    def forget(self) -> None:
        """Nothing has been hit so far."""
        self.profile.service_workers[0].evaluate("chrome.storage.local.clear()")

    def urls(self) -> set[str]:
        """The URLs of the hits."""
        return {url for url, _, _ in self.hits()}


@contextlib.contextmanager
def blocking(
    playwright: Playwright, chromium: dict[str, Any], extension: Extension, profile: Path
) -> Iterator[Blocker]:
    """The browser, once the control is blocked or replaced in it; its profile is written into that directory."""
    options = {
        **chromium,
        "args": [*chromium["args"], *SWITCHES],
        "ignore_default_args": [*chromium["ignore_default_args"], "--disable-extensions"],
    }
    with contextlib.closing(playwright.chromium.launch_persistent_context(profile, **options)) as context:
        browser = context.browser
        assert browser
        install(browser, extension)
        blocker = Blocker(browser, extension, context)
        wait_until_it_blocks(blocker, CONTROL)
        yield blocker


def install(browser: Browser, extension: Extension) -> None:
    """Without the few rules that Chromium refuses, one at a time: its regular expressions know less than others."""
    session = browser.new_browser_cdp_session()
    for _ in range(MOST_REFUSED):
        try:
            # The contexts of the tests are incognito ones to Chromium.
            session.send("Extensions.loadUnpacked", {"path": str(extension.directory), "enableInIncognito": True})
        except Error as error:
            refused = re.search(r'Rule with id (\d+) .*"regexFilter"', error.message)
            if not refused:
                raise
            extension.drop(int(refused[1]))
        else:
            return
    raise AssertionError(f"Chromium refuses more than {MOST_REFUSED} rules")


def wait_until_it_blocks(blocker: Blocker, url: str) -> None:
    with contextlib.closing(blocker.browser.new_page()) as page:
        for _ in range(100):
            page.evaluate("url => fetch(url).catch(() => {})", url)
            if blocker.profile.service_workers and url in blocker.urls():
                return
            page.wait_for_timeout(100)
    raise AssertionError(f"the lists {', '.join(blocker.extension.lists)} do not block {url}")
