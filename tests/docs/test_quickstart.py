"""docs/quickstart.md, followed to the letter in a fresh environment, leads to what it promises."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Route, sync_playwright

from tests.docs.newcomer import PATIENCE, Newcomer
from tests.docs.pages import DOCS, ROOT
from tests.e2e.conftest import missing
from tests.servers import free_port

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

TEXT = (DOCS / "quickstart.md").read_text("utf-8")
BY_HAND, _, BY_ITSELF = TEXT.partition("## Let it run by itself")
CELERY, _, DYNAMODB = BY_ITSELF.partition("## More than one machine")
SET_UP, _, FLUSH = BY_HAND.partition("Open <http://127.0.0.1:8000/>")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The app as a site installs it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--installer", "pip", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        missing("no Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


class Ports:
    """Free ones in place of those that the page names."""

    def __init__(self, dynamodb: str = "") -> None:
        self.site, self.segment, self.redis = free_port(), free_port(), free_port()
        self.dynamodb = dynamodb

    def instead(self, wheel: Path) -> dict[str, str]:
        return {
            "http://127.0.0.1:8002": self.dynamodb,
            ":8001": f":{self.segment}",
            ":6379": f":{self.redis}",
            "segment_fallback.testing": f"segment_fallback.testing --port {self.segment}",
            "manage.py runserver": f"manage.py runserver {self.site}",
            "redis-server": f"redis-server --port {self.redis} --save ''",
            "pip install django-segment-fallback": f"pip install --quiet {wheel}",
            "pip install 'django-segment-fallback": f"pip install --quiet '{wheel}",
        }


@contextlib.contextmanager
def newcomer(folder: Path, ports: Ports, wheel: Path) -> Iterator[Newcomer]:
    given = frozenset({"docker run"}) if ports.dynamodb else frozenset()
    newcomer = Newcomer(folder, ports.instead(wheel), given)
    try:
        yield newcomer
    finally:
        newcomer.close()


def look(browser: Browser, port: int) -> list[str]:
    """Open the page with analytics.js blocked; what the header says of each request to the site's own pixel."""

    def block(route: Route) -> None:
        route.abort("blockedbyclient")

    wait_until_it_answers(f"http://127.0.0.1:{port}/")
    with contextlib.closing(browser.new_page()) as page:
        page.route("**/analytics.min.js", block)
        outcomes: list[str | None] = []
        page.on("response", lambda response: outcomes.append(response.headers.get("x-segment-fallback")))
        with page.expect_response(lambda response: "/p/" in response.url, timeout=PATIENCE * 1000):
            page.goto(f"http://127.0.0.1:{port}/")
    return [outcome for outcome in outcomes if outcome]


def wait_until_it_answers(url: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.2)
        else:
            return


def arrived(port: int, number: int) -> list[dict[str, Any]]:
    """What the local Segment got, as the page says where to look; as many messages, or fewer where they do not come."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/_local/messages", timeout=5) as answer:
            messages: list[dict[str, Any]] = json.load(answer)["messages"]
        if len(messages) >= number or time.monotonic() > deadline:
            return messages
        time.sleep(0.2)


def test_quickstart_with_sqlite_only(tmp_path: Path, wheel: Path, browser: Browser) -> None:
    ports = Ports()
    with newcomer(tmp_path, ports, wheel) as somebody:
        somebody.follow(SET_UP)
        assert look(browser, ports.site) == ["accepted"]
        somebody.follow(FLUSH)
        [page] = arrived(ports.segment, 1)
        assert page["way"] == "pixel"
        assert page["message"]["properties"]["title"] == "Home"


def test_quickstart_with_celery_redis_and_dynamodb(
    tmp_path: Path, wheel: Path, browser: Browser, dynamodb_local_url: str
) -> None:
    if shutil.which("redis-server") is None:
        missing("no Redis: apt-get install redis-server")
    ports = Ports(dynamodb_local_url)
    with newcomer(tmp_path, ports, wheel) as somebody:
        somebody.follow(SET_UP)
        look(browser, ports.site)
        somebody.follow(FLUSH)
        somebody.follow(CELERY)
        somebody.start_again("python manage.py runserver")  # it does so by itself, at a moment that nobody knows
        look(browser, ports.site)
        assert len(arrived(ports.segment, 2)) == 2, somebody.log("celery --app mysite worker").read_text()
        somebody.follow(DYNAMODB)
        somebody.start_again("celery --app mysite worker", "celery --app mysite beat", "python manage.py runserver")
        look(browser, ports.site)
        pages = arrived(ports.segment, 3)
        assert len({page["message"]["messageId"] for page in pages}) == 3
        assert {page["way"] for page in pages} == {"pixel"}
