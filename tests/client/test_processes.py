"""Calls of server code under real servers: after a preload and its forks, at SIGTERM, and killed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from pytest_django import DjangoDbBlocker

from tests.databases import database
from tests.serving.site import Site, wait_until

pytestmark = pytest.mark.slow

PROJECT = {"DJANGO_SETTINGS_MODULE": "tests.client.project"}


@pytest.fixture
def site(tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> Iterator[Site]:
    settings = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(tmp_path / "site.sqlite3"),
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": "PRAGMA journal_mode=WAL"},
    }
    alias = f"site-{uuid4().hex}"
    with database(alias, settings, django_db_blocker):
        yield Site(tmp_path, alias, settings)


@pytest.fixture
def kept(site: Site, django_db_blocker: DjangoDbBlocker) -> Iterator[object]:
    with django_db_blocker.unblock():
        yield None


def track(site: Site, more: str = "") -> str:
    name = uuid4().hex
    site.get(f"/track/?id={name}{more}")
    return name


def ids(name: str) -> set[str]:
    return {f"{name}-call", f"{name}-sdk", f"{name}-thread"}


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("server", ["gunicorn preload", "uvicorn"])
def test_server_that_is_told_to_end_keeps_what_was_tracked(site: Site, server: str) -> None:
    """``SERVING_TOUCH``: what a process makes once was used before the fork."""
    tracked: list[str] = []

    def visit() -> None:
        for _ in range(10):
            tracked.append(track(site))

    with site.served_by(server, SERVING_TOUCH="1", **PROJECT) as process:
        visitors = [threading.Thread(target=visit) for _ in range(4)]
        for visitor in visitors:
            visitor.start()
        for visitor in visitors:
            visitor.join()
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    assert set.union(*map(ids, tracked)) - site.kept() == set(), site.log


@pytest.mark.usefixtures("kept")
def test_process_that_ends_right_after_the_response_loses_only_what_waited_for_it(site: Site) -> None:
    """``os._exit`` between the response and the write loses the request's own messages; after it, nothing."""
    with site.served_by("gunicorn sync", **PROJECT):
        after = track(site, "&die=after")
        wait_until(lambda: ids(after) <= site.kept(), lambda: site.log)
        wait_until(lambda: site.get("/sync/") == "here", lambda: site.log)
        before = track(site, "&die=first")
        wait_until(lambda: site.get("/sync/") == "here", lambda: site.log)
    assert ids(after) <= site.kept()
    assert site.kept() & ids(before) == {f"{before}-thread"}
