from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from celery.beat import ScheduleEntry, Scheduler
from celery.contrib.testing.worker import start_worker
from celery.schedules import schedule

from segment_fallback import tasks
from segment_fallback.buffers import buffers
from segment_fallback.delivery import flush as delivery
from segment_fallback.message import encode, new_message_id
from segment_fallback.tasks import TASK, beat_schedule, flush, schedule_flush
from segment_fallback.testing import LocalSegment

if TYPE_CHECKING:
    from pytest_django import Settings

ROOT = Path(__file__).parents[1]
MINE = {"task": "shop.tasks.tidy", "schedule": 60.0}


@pytest.fixture
def app() -> Iterator[Celery]:
    """A Celery app of a site, with no broker."""
    with Celery("shop", broker="memory://", set_as_current=False) as app:
        yield app


def entry(app: Celery) -> ScheduleEntry:
    """What beat makes of the app's schedule."""
    scheduler = Scheduler(app=app, lazy=True)
    scheduler.setup_schedule()
    found: ScheduleEntry = scheduler.schedule["segment-fallback-flush"]
    return found


def python(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def test_task_has_the_name_that_beat_calls(app: Celery) -> None:
    assert flush.name == TASK == "segment_fallback.tasks.flush"
    assert TASK in app.tasks
    assert app.tasks[TASK].ignore_result is True


@pytest.mark.django_db
def test_task_delivers_what_waits(app: Celery, local_segment: LocalSegment) -> None:
    message = encode({"type": "page", "messageId": new_message_id(), "anonymousId": "a"})
    buffers["default"].put([message])
    assert app.tasks[TASK].apply().get() == "1 delivered in 1 batch, 0 dead letters"
    assert [received.message_id for received in local_segment.messages] == [message.message_id]
    assert buffers["default"].depth() == 0


@pytest.mark.parametrize("every", [10.0, 0.5, 60])
def test_beat_starts_the_flush_at_its_interval(app: Celery, every: float) -> None:
    schedule_flush(app, every)
    found = entry(app)
    assert found.task == TASK
    assert found.schedule == schedule(timedelta(seconds=every))
    assert found.options == {"expires": 3600}


def test_tick_that_waited_longer_than_the_interval_still_flushes(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = threading.Event()
    monkeypatch.setattr(delivery, "share_out", lambda start: flushed.set())
    schedule_flush(app, 0.1)
    Scheduler(app=app, lazy=True).apply_async(entry(app), advance=False)
    time.sleep(0.3)
    with start_worker(app, perform_ping_check=False):
        assert flushed.wait(20)


def test_ticks_do_not_pile_up_while_no_worker_runs(app: Celery) -> None:
    for task in (tasks.flush, tasks.flush_part, tasks.handle_events):
        assert app.tasks[task.name].expires == 3600


def test_schedule_flush_keeps_the_sites_own_entries(app: Celery) -> None:
    app.conf.beat_schedule = {"tidy": MINE}
    schedule_flush(app)
    assert app.conf.beat_schedule == {"tidy": MINE, **beat_schedule()}


def test_schedule_flush_twice_is_one_entry(app: Celery) -> None:
    schedule_flush(app)
    schedule_flush(app, 30)
    assert entry(app).schedule == schedule(timedelta(seconds=30))
    assert len(app.conf.beat_schedule) == 2


def test_beat_schedule_can_be_imported_by_settings(tmp_path: Path) -> None:
    settings = "from tests.settings import *\nfrom segment_fallback.tasks import beat_schedule\n"
    (tmp_path / "shop_settings.py").write_text(settings + "CELERY_BEAT_SCHEDULE = {**beat_schedule(15)}\n")
    run = python(
        f"import os, sys; sys.path.append({str(tmp_path)!r}); os.environ['DJANGO_SETTINGS_MODULE'] = 'shop_settings'\n"
        "import django; django.setup()\n"
        "from celery import Celery\n"
        "app = Celery('shop'); app.config_from_object('django.conf:settings', namespace='CELERY')\n"
        "entry = app.conf.beat_schedule['segment-fallback-flush']\n"
        "print(entry['schedule'], entry['task'] in app.tasks)"
    )
    assert run.stdout == "15 True\n", run.stderr


@pytest.mark.parametrize("name", ["schedule_flush", "flush"])
def test_tasks_without_celery_name_the_extra_that_brings_it(name: str) -> None:
    run = python(f"import sys; sys.modules['celery'] = None; from segment_fallback.tasks import {name}")
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1] == (
        "segment_fallback.exceptions.MissingExtra: segment_fallback.tasks needs an optional package: "
        "pip install 'django-segment-fallback[celery]'"
    )


def test_tasks_without_celery_can_be_imported_by_who_looks_for_the_tasks_of_every_app() -> None:
    run = python(
        "import sys; sys.modules['celery'] = None\n"
        "from django.conf import settings; settings.configure(INSTALLED_APPS=['segment_fallback'])\n"
        "import django; django.setup()\n"
        "from django.utils.module_loading import autodiscover_modules; autodiscover_modules('tasks')\n"
        "print(hasattr(sys.modules['segment_fallback.tasks'], '__wrapped__'))"
    )
    assert run.stdout == "False\n", run.stderr


@pytest.mark.django_db
def test_several_parts_are_flushed_by_a_task_each(
    local_segment: LocalSegment, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"BACKEND": "segment_fallback.buffers.database.DatabaseBuffer", "OPTIONS": {"parts": 3}}
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "BUFFERS": {"default": options}}
    with Celery("eager") as app:
        app.conf.update(task_always_eager=True, task_eager_propagates=True)
        flush_by_parts(local_segment, monkeypatch)


def flush_by_parts(local_segment: LocalSegment, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[tuple[str, int]] = []
    run = tasks.flush_part.run

    def note(*part: Any) -> str:
        flushed.append(part)
        return run(*part)

    monkeypatch.setattr(tasks.flush_part, "run", note)
    buffers["default"].put([encode({"type": "page", "messageId": str(n), "anonymousId": "a"}) for n in range(9)])

    assert tasks.flush() == "3 parts to flush; 0 delivered in 0 batches, 0 dead letters"
    assert sorted(flushed) == [("default", 0), ("default", 1), ("default", 2)]
    assert sorted(str(received.message_id) for received in local_segment.messages) == list("012345678")
    assert len(local_segment.requests) == 3


@pytest.mark.parametrize("handlers", [0, 1])
def test_site_without_our_tables_needs_them_only_if_it_handles_events(handlers: int, tmp_path: Path) -> None:
    code = (
        "import django; django.setup()\n"
        "from segment_fallback.events import on\n"
        f"for number in range({handlers}): on('order.completed')(lambda event: None)\n"
        "from segment_fallback.tasks import handle_events\n"
        "print(handle_events())\n"
    )
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "TESTS_DATABASE": str(tmp_path / "empty")}
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, check=False, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60)
    if handlers:
        assert "no such table" in ended.stderr
    else:
        assert ended.stdout == "no handlers\n"
