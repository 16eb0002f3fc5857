"""Makes the screenshots of docs/how-to/dashboard.md anew: ``python -m tests.dashboard.screenshots``."""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, sync_playwright

from segment_fallback.dashboard.ranges import RANGES
from tests.dashboard.site import ROOT, running

IMAGES = ROOT / "docs/images"
PATH = "/admin/segment_fallback/dashboard/"
SIZES = {"desktop": (1280, 1000), "phone": (360, 780)}
THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--all", type=Path, metavar="FOLDER", help="every size, theme and range, whole pages, there")
    folder = options.parse_args().all
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no Chromium: apt-get install chromium")
    with (
        tempfile.TemporaryDirectory() as place,
        running(Path(place), trouble=folder is not None) as url,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        if folder:
            for theme, (name, size), time in itertools.product(THEMES, SIZES.items(), RANGES):
                file = folder / f"{name}-{theme}-{time}.png"
                shoot(browser, f"{url}{PATH}?range={time}", file, size=size, theme=theme, whole=True)
        else:
            shoot(browser, f"{url}{PATH}", IMAGES / "dashboard.png", size=SIZES["desktop"], theme="light")
            shoot(browser, f"{url}{PATH}?range=7d", IMAGES / "dashboard-phone.png", size=SIZES["phone"], theme="dark")
        browser.close()


def shoot(
    browser: Browser,
    url: str,
    file: Path,
    *,
    size: tuple[int, int],
    theme: Literal["light", "dark"],
    whole: bool = False,
) -> None:
    """One picture, of the screen or the whole page."""
    width, height = size
    with browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=theme,
        reduced_motion="reduce",
    ) as context:
        page = context.new_page()
        page.goto(url)  # which asks who it is, and leads back
        page.fill("#id_username", "admin")
        page.fill("#id_password", "admin")
        page.click("input[type=submit]")
        page.wait_for_selector(".sf-on")
        page.screenshot(path=file, full_page=whole)


if __name__ == "__main__":
    main()
