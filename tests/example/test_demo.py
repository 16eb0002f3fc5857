"""`make demo`, as somebody who tries it: the shop, its switches, what arrived, and Ctrl-C."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Page, sync_playwright

from tests.e2e.conftest import missing
from tests.servers import free_port

ROOT = Path(__file__).parents[2]
STARTS = 60.0
ARRIVES = 30.0


@dataclass
class Demo:
    url: str
    process: subprocess.Popen[str]
    folder: Path

    def events(self) -> list[dict[str, Any]]:
        """What the live page shows."""
        events: list[dict[str, Any]] = requests.get(f"{self.url}/live/data/", timeout=10).json()["events"]
        return events


def command(folder: Path, *arguments: object) -> tuple[list[str], dict[str, str]]:
    environment = {**os.environ, "EXAMPLE_VAR": str(folder), "PYTHONUNBUFFERED": "1"}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    return [sys.executable, "manage.py", "demo", *map(str, arguments)], environment


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("var")
    port = free_port()
    arguments, environment = command(folder, "--port", port, "--segment-port", free_port())
    with (folder / "demo.out").open("w") as out:
        process = subprocess.Popen(
            arguments, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT, text=True
        )
    demo = Demo(f"http://127.0.0.1:{port}", process, folder)
    try:
        deadline = time.monotonic() + STARTS
        while "Ctrl-C stops everything" not in (folder / "demo.out").read_text():
            assert process.poll() is None, (folder / "demo.out").read_text()
            assert time.monotonic() < deadline, "the demo did not start"
            time.sleep(0.1)
        yield demo
        children = processes_of(folder)
        assert len(children) >= 4, "the shop, the worker, beat and the local Segment"
        process.send_signal(signal.SIGINT)
        process.wait(20)
        assert process.returncode == 0
        assert processes_of(folder) == [], "Ctrl-C stops all of it"
    finally:
        process.kill()
        process.wait()


def processes_of(folder: Path) -> list[int]:
    """The processes that run with this folder in their environment, but for this one."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"EXAMPLE_VAR={folder}".encode() in entry.read_bytes():
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        missing("no Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def switch_to(page: Page, demo: Demo, label: str) -> None:
    page.goto(f"{demo.url}/live/")
    page.get_by_role("button", name=label).click()
    page.wait_for_load_state()


@pytest.mark.parametrize(
    ("label", "way"),
    [
        ("analytics.js allowed", "javascript"),
        ("analytics.js blocked", "pixel"),
        ("Tracking API blocked", "pixel"),
        ("JavaScript off", "noscript"),
    ],
)
def test_switch_shows_the_way_by_which_a_page_view_arrives(demo: Demo, browser: Browser, label: str, way: str) -> None:
    before = {event["messageId"] for event in demo.events()}
    with browser.new_context() as context:
        page = context.new_page()
        switch_to(page, demo, label)
        page.goto(f"{demo.url}/kiln/")
        deadline = time.monotonic() + ARRIVES
        while not (arrived := [event for event in demo.events() if event["messageId"] not in before]):
            assert time.monotonic() < deadline, "no page view arrived"
            page.wait_for_timeout(200)
        page.goto(f"{demo.url}/live/")
        assert page.get_by_text(arrived[0]["messageId"][-8:]).first.is_visible()
    assert [event["way"] for event in arrived] == [way]


def test_dashboard_is_a_link_and_a_password_away(demo: Demo, browser: Browser) -> None:
    assert "/admin/segment_fallback/dashboard/ (demo, password demo)" in (demo.folder / "demo.out").read_text()
    with browser.new_context() as context:
        live = context.new_page()
        live.goto(f"{demo.url}/live/")
        with context.expect_page() as opened:
            live.get_by_role("link", name="the dashboard").click()
        page = opened.value
        page.fill("#id_username", "demo")
        page.fill("#id_password", "demo")
        page.click("input[type=submit]")
        assert page.get_by_role("heading", name="What arrived").is_visible()


def test_pages_are_the_same_bytes_for_everybody(demo: Demo) -> None:
    for path in ("/", "/kiln/"):
        plain = requests.get(demo.url + path, timeout=10)
        other = requests.get(
            demo.url + path,
            params={"utm_source": "x"},
            cookies={"demo_switch": "script", "sessionid": "somebody", "ajs_anonymous_id": "b"},
            timeout=10,
        )
        assert plain.status_code == 200
        assert plain.content == other.content
        assert not {"Set-Cookie", "Vary"} & set(plain.headers)


def test_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        arguments, environment = command(tmp_path, "--port", port, "--segment-port", free_port())
        result = subprocess.run(
            arguments, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
    assert result.returncode == 1
    assert f"Port {port} cannot be used" in result.stderr
    assert "--port" in result.stderr
