"""The gateway between processes: what emits, and what handles, share nothing but the database."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

EMITTER = """
import sys
import django; django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from segment_fallback import emit
for line in sys.stdin:
    print(emit("order.completed", number=int(line)), flush=True)
"""
LEFT = """
import django; django.setup()
from segment_fallback.models import PendingEvent, WaitingMessage
import json
messages = [json.loads(bytes(row.body)) for row in WaitingMessage.objects.order_by("id")]
print(PendingEvent.objects.count(), *(message["event"] for message in messages))
"""
FREE = """
import django; django.setup()
from segment_fallback.models import PendingEvent
print(PendingEvent.objects.exclude(owner="").update(next_try=0))
"""
HANDLER = """
from segment_fallback import on, track
@on("order.*")
def tell(event):
    track("7", {name!r})
"""
HANGING = """
import pathlib, time
from segment_fallback import on, track
@on("order.*")
def tell(event):
    pathlib.Path({started!r}).touch()
    time.sleep(60)
"""


class Site:
    """A project with one app, whose handlers can be written anew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "shop").mkdir()
        (path / "shop" / "__init__.py").touch()
        (path / "shop_settings.py").write_text(
            "from tests.settings import *\nINSTALLED_APPS = [*INSTALLED_APPS, 'shop']\n"
        )
        self.environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "shop_settings",
            "TESTS_DATABASE": str(path / "db.sqlite3"),
            "PYTHONPATH": os.pathsep.join([str(path), str(ROOT)]),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def deploy(self, source: str) -> None:
        (self.path / "shop" / "segment_events.py").write_text(source)

    def python(self, code: str) -> str:
        return self._run("-c", code)

    def work(self) -> str:
        """A worker that was just started, until it has nothing more to do."""
        return self._run("-m", "django", "segment_events", "--run")

    def _run(self, *arguments: str) -> str:
        command = [sys.executable, *arguments]
        run = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False, timeout=60)
        assert run.returncode == 0, run.stderr
        return run.stdout


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def emitter(site: Site) -> Iterator[subprocess.Popen[str]]:
    """A web process, which is not restarted."""
    command = [sys.executable, "-c", EMITTER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=site.environment, text=True, bufsize=1, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def emit(emitter: subprocess.Popen[str], number: int) -> str:
    assert emitter.stdin
    assert emitter.stdout
    emitter.stdin.write(f"{number}\n")
    return emitter.stdout.readline().strip()


def test_worker_that_was_restarted_alone_runs_the_new_code(site: Site, emitter: subprocess.Popen[str]) -> None:
    site.deploy(HANDLER.format(name="Old"))
    emit(emitter, 1)
    assert site.work() == "1 handled, 0 errors, 0 events failed.\n"
    emit(emitter, 2)  # no worker runs
    site.deploy(HANDLER.format(name="New"))
    emit(emitter, 3)
    assert site.work() == "2 handled, 0 errors, 0 events failed.\n"
    assert site.python(LEFT) == "0 Old New New\n"


def test_event_of_a_worker_that_was_killed_is_handled_by_the_next(site: Site, emitter: subprocess.Popen[str]) -> None:
    started = site.path / "started"
    site.deploy(HANGING.format(started=str(started)))
    emit(emitter, 1)
    command = [sys.executable, "-m", "django", "segment_events", "--run"]
    with subprocess.Popen(command, env=site.environment) as worker:
        deadline = time.monotonic() + 60
        while not started.exists():
            assert worker.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        worker.kill()
    site.deploy(HANDLER.format(name="Told"))
    assert site.work() == "0 handled, 0 errors, 0 events failed.\n", "its lease has not ended"
    assert site.python(FREE) == "1\n"
    assert site.work() == "1 handled, 0 errors, 0 events failed.\n"
    assert site.python(LEFT) == "0 Told\n"
