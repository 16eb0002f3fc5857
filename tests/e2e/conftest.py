"""What the end-to-end tests run on: a real browser, and sites with a real Celery worker and beat."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Playwright, sync_playwright

from segment_fallback.testing import LocalSegment
from tests.blockers.engine import lists_folder
from tests.blockers.extension import Extension, build, surrogates
from tests.e2e.blocking import Blocker, blocking
from tests.servers import free_port

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def chromium() -> dict[str, Any]:
    """How to launch Chromium."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        missing("no Chromium: apt-get install chromium")
    quiet = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    # Playwright switches the back/forward cache off.
    return {"executable_path": path, "args": quiet, "ignore_default_args": ["--disable-back-forward-cache"]}


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(playwright: Playwright, chromium: dict[str, Any]) -> Iterator[Browser]:
    with contextlib.closing(playwright.chromium.launch(**chromium)) as browser:
        yield browser


@pytest.fixture(scope="session")
def extension(tmp_path_factory: pytest.TempPathFactory) -> Extension:
    """Debian's lists, or those of FILTER_LISTS, as an extension."""
    folder = lists_folder()
    return build(folder, tmp_path_factory.mktemp("extension"), surrogates(folder))


@pytest.fixture(scope="module")
def blocker(
    playwright: Playwright, chromium: dict[str, Any], extension: Extension, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Blocker]:
    """A browser that has the extension."""
    with blocking(playwright, chromium, extension, tmp_path_factory.mktemp("profile")) as blocker:
        yield blocker


def missing(reason: str) -> None:
    """Skip with a line that says what to install; in CI nothing may be missing."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def segment() -> Iterator[LocalSegment]:
    with LocalSegment() as segment:
        if not segment.has_analytics_js:
            missing("no analytics.js: npm install (in the checkout)")
        yield segment


@dataclass
class Site:
    """A running site: the web server, a Celery worker and beat, each a process of its own."""

    url: str
    directory: Path

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()


@contextlib.contextmanager
def running_site(
    directory: Path, segment: LocalSegment, dynamodb: str | None = None, **settings: Any
) -> Iterator[Site]:
    """A site with these keys in SEGMENT_FALLBACK, beside those of ``project.py``."""
    port = free_port()
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.e2e.project",
        "PYTHONPATH": str(ROOT),
        "E2E_DIR": str(directory),
        "E2E_SEGMENT": segment.url,
        "E2E_SETTINGS": json.dumps(settings),
        **({"E2E_DYNAMODB": dynamodb, "AWS_ACCESS_KEY_ID": "e2e", "AWS_SECRET_ACCESS_KEY": "e2e"} if dynamodb else {}),
    }
    python = [sys.executable, "-m"]
    celery = [*python, "celery", "--app", "tests.e2e.project:app"]
    subprocess.run([*python, "django", "migrate", "--verbosity", "0"], env=environment, cwd=ROOT, check=True)
    if dynamodb:
        subprocess.run([*python, "django", "segment_table", "--create"], env=environment, cwd=ROOT, check=True)
    commands = {
        "site": [*python, "django", "runserver", "--noreload", f"localhost:{port}"],
        "worker": [*celery, "worker", "--pool", "solo", "--loglevel", "INFO"],
        "beat": [*celery, "beat", "--loglevel", "INFO", "--schedule", str(directory / "beat")],
    }
    with contextlib.ExitStack() as stack:
        for name, command in commands.items():
            log = stack.enter_context((directory / f"{name}.log").open("w"))
            process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
            stack.callback(stop, process)
        site = Site(f"http://localhost:{port}", directory)
        wait_until_it_answers(site)
        yield site


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT if "runserver" in process.args else signal.SIGTERM)  # type: ignore[operator]
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_until_it_answers(site: Site) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(site.url, timeout=5).close()
        except OSError:
            if time.monotonic() > deadline:
                pytest.fail(f"the site did not start:\n{site.log('site')}")
            time.sleep(0.1)
        else:
            return
