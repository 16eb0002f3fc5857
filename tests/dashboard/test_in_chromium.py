"""The dashboard in a real browser, under a strict Content-Security-Policy."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from segment_fallback.dashboard.ranges import RANGES
from tests.dashboard.project import POLICY
from tests.dashboard.site import running
from tests.e2e.conftest import missing

PATH = "/admin/segment_fallback/dashboard/"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dashboard")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with running(folder, trouble=True) as url:
        yield f"{url}{PATH}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        missing("no Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextlib.contextmanager
def signed_in(browser: Browser, url: str, *, width: int = 1280, scripts: bool = True) -> Iterator[Page]:
    with browser.new_context(viewport={"width": width, "height": 800}, java_script_enabled=scripts) as context:
        page = context.new_page()
        sign_in(page, url)
        yield page


def sign_in(page: Page, url: str) -> None:
    page.goto(url)
    page.fill("#id_username", "admin")
    page.fill("#id_password", "admin")
    page.click("input[type=submit]")
    page.wait_for_selector("#sf-live")


def change(folder: Path, sql: str, *values: object) -> None:
    """Do to the site's database what a flush does."""
    with contextlib.closing(sqlite3.connect(folder / "site.sqlite3", timeout=20)) as connection, connection:
        connection.execute(sql, values)


def number(page: Page, title: str) -> str:
    return page.locator(f".sf-tiles div:has(dt:text-is('{title}')) dd").first.inner_text()


@pytest.mark.parametrize("range_", RANGES)
def test_page_holds_under_a_strict_policy_and_asks_nobody_else(browser: Browser, url: str, range_: str) -> None:
    with browser.new_context() as context:
        complaints: list[str] = []
        hosts: set[str | None] = set()
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
        sign_in(page, f"{url}?range={range_}")
        with page.expect_response(lambda response: "/live/" in response.url, timeout=15_000) as live:
            pass
        assert live.value.headers["content-security-policy"] == POLICY
        page.wait_for_function("document.getElementById('sf-state').textContent === 'Live'")
        assert page.locator(".sf-wide").evaluate("chart => getComputedStyle(chart).display") == "block"
        assert complaints == []
        assert hosts == {"localhost"}


@pytest.mark.parametrize("width", [360, 700, 768, 1024, 1280])
def test_page_never_scrolls_sideways(browser: Browser, url: str, width: int) -> None:
    with signed_in(browser, url, width=width) as page:
        page.evaluate("document.querySelectorAll('details').forEach((each) => each.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.locator("button", has_text="Delete").first.click()
        page.wait_for_selector("text=No, keep them")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_page_changes_without_a_reload_and_leaves_the_reader_alone(browser: Browser, url: str, folder: Path) -> None:
    with signed_in(browser, url) as page:
        page.evaluate("window.sameDocument = true")
        page.locator("#sf-list-default summary").click()
        page.locator("#sf-numbers summary").click()
        box = page.locator(".sf-letters input").nth(5)
        chosen = box.get_attribute("value")
        box.check()
        box.focus()
        box.scroll_into_view_if_needed()
        top = page.evaluate("scrollY")
        first = page.locator(".sf-letters input").first.get_attribute("value")
        waiting = int(number(page, "Waiting"))
        now = int(time.time() * 1000)
        change(
            folder,
            "INSERT INTO segment_fallback_waitingmessage (message_id, part, body, way, source, provisional, not_before,"
            " created) VALUES (?, 0, '{}', 'pixel', 'default', 0, 0, ?)",
            f"new-{now}",
            now,
        )
        change(folder, "DELETE FROM segment_fallback_deadletter WHERE message_id = ?", first)
        expect(page.locator(f"[data-key='{first}']")).to_have_count(0, timeout=15_000)
        assert int(number(page, "Waiting")) == waiting + 1
        assert page.evaluate("document.activeElement.value") == chosen
        assert page.evaluate(
            "[...document.querySelectorAll('.sf-letters input:checked')].map((each) => each.value)"
        ) == [chosen]
        assert page.locator("#sf-list-default").get_attribute("open") is not None
        assert page.locator("#sf-numbers").get_attribute("open") is not None
        assert abs(page.evaluate("scrollY") - top) < 100, "but for the row that went"
        assert page.evaluate("window.sameDocument")


def test_problem_that_comes_and_goes_is_told_politely_once(browser: Browser, url: str, folder: Path) -> None:
    with signed_in(browser, url) as page:
        status = page.locator("#sf-status")
        page.evaluate(
            "window.told = []; new MutationObserver((all) => told.push(...all.filter("
            "(each) => each.target.parentElement.closest('#sf-status') || [...each.addedNodes].some("
            "(node) => node.id === 'sf-status'))))"
            ".observe(document.getElementById('sf-live'), {subtree: true, childList: true, characterData: true})"
        )
        change(folder, "UPDATE segment_fallback_lease SET flushed = 1000, error_at = 1000, owner = '', expires = 0")
        expect(status).to_contain_text("Nobody flushes", timeout=15_000)
        expect(page.locator("#sf-problems")).to_be_visible()
        page.wait_for_timeout(7_000)  # in which the seconds of its silence change
        now = int(time.time() * 1000)
        change(folder, "UPDATE segment_fallback_lease SET flushed = ?", now)
        expect(status).not_to_contain_text("Nobody flushes", timeout=15_000)
        assert page.evaluate("window.told.length") == 2


def test_hidden_or_paused_page_asks_for_nothing(browser: Browser, url: str) -> None:
    with signed_in(browser, url) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.get_by_role("button", name="Pause").click()
        page.wait_for_timeout(6_000)
        assert asked == []
        page.get_by_role("button", name="Go on").click()
        page.wait_for_timeout(1_000)
        assert len(asked) == 1
        page.evaluate(
            "Object.defineProperty(document, 'hidden', {value: true, configurable: true});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
        page.wait_for_timeout(6_000)
        assert len(asked) == 1
        page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
        page.wait_for_timeout(1_000)
        assert len(asked) == 2


def test_page_says_so_when_its_session_has_ended(browser: Browser, url: str) -> None:
    with signed_in(browser, url) as page:
        page.context.clear_cookies()
        expect(page.locator("#sf-state")).to_have_text("You are signed out: reload the page.", timeout=15_000)
        expect(page.get_by_role("button", name="Pause")).to_be_hidden()


def test_page_without_scripts_is_a_plain_page(browser: Browser, url: str) -> None:
    with signed_in(browser, url, scripts=False) as page:
        assert page.locator("#sf-state").inner_text().startswith("As it was ")
        assert not page.locator("#sf-pause").is_visible()
        page.locator("#sf-numbers summary").click()
        assert page.locator("#sf-numbers td").first.is_visible()


def test_dead_letters_are_replayed_and_deleted_by_keyboard(browser: Browser, url: str) -> None:
    with signed_in(browser, url) as page:
        before = int(number(page, "Dead letters"))
        page.locator("button[name=replay-reason]").last.focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("text=2 dead letters replayed; the next flush sends what waits.")
        page.locator("button[name=delete-reason]").last.focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("text=No, keep them")
        page.keyboard.press("Tab")
        page.get_by_role("button", name="Delete 3").press("Enter")
        page.wait_for_selector("text=3 dead letters deleted.")
        assert int(number(page, "Dead letters")) == before - 5


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_bars_stand_out_in_light_and_dark(browser: Browser, url: str, scheme: str) -> None:
    with signed_in(browser, url) as page:
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        for selector in (".sf-hint", ".sf-note", ".sf-saved dd", ".sf-axis", ".sf-error", ".sf-fill-pixel"):
            least = 3.0 if "fill" in selector else 4.5
            assert page.evaluate(CONTRAST, selector) >= least, selector


CONTRAST = """selector => {
  const numbers = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const light = (text) => {
    const [r, g, b] = numbers(text).map((n) => ((n /= 255) <= 0.03928 ? n / 12.92 : ((n + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const element = document.querySelector(selector);
  const style = getComputedStyle(element);
  const ink = element instanceof SVGElement ? style.fill : style.color;
  let behind = element;
  const clear = (each) => /(, 0\\)|transparent)$/.test(getComputedStyle(each).backgroundColor);
  while (behind && clear(behind)) behind = behind.parentElement;
  const paper = getComputedStyle(behind || document.body).backgroundColor;
  const [one, other] = [light(ink), light(paper)].sort((a, b) => b - a);
  return (one + 0.05) / (other + 0.05);
}"""
