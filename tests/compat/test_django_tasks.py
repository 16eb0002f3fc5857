"""Flush and events by Django's own tasks: its own backend, and django-tasks-db with a worker and a scheduler."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import django
import pytest

from segment_fallback.testing import LocalSegment
from tests.compat.project import Project, python
from tests.serving.site import kill, wait_until

Make = Callable[..., Project]

before_django_6 = pytest.mark.skipif(django.VERSION < (6, 0), reason="Django has tasks since 6.0")

PARTS = """
BUFFER = {"BACKEND": "segment_fallback.buffers.database.DatabaseBuffer", "OPTIONS": {"parts": 3}}
SEGMENT_FALLBACK |= {"BUFFERS": {"default": BUFFER}}
"""
DATABASE_TASKS = """
INSTALLED_APPS += ["crontask", "django_tasks_db", "shop"]
TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
"""
SCHEDULE = """
from apscheduler.triggers.interval import IntervalTrigger
from crontask import cron
from segment_fallback import django_tasks

every = IntervalTrigger(seconds=1)
cron(every)(django_tasks.flush)
cron(every)(django_tasks.handle_events)
"""
HANDLER = """
from segment_fallback import on, track

@on("order.completed")
def tell(event):
    track("ada", "Handled")
"""


@pytest.mark.skipif(django.VERSION >= (6, 0), reason="Django has tasks since 6.0")
def test_module_says_what_it_needs_and_what_does_without() -> None:
    run = python("import segment_fallback.django_tasks")
    assert run.stderr.splitlines()[-1] == (
        f"ImportError: segment_fallback.django_tasks needs Django 6.0 or later, and this is {django.get_version()}: "
        "flush by Celery, or let cron call `manage.py segment_flush`"
    )


@before_django_6
@pytest.mark.parametrize("parts", ["", PARTS], ids=["one part", "three parts"])
def test_tasks_run_at_once_by_the_backend_that_is_the_default(project: Make, segment: LocalSegment, parts: str) -> None:
    site = project(parts + 'INSTALLED_APPS.append("shop")\n')
    site.append("shop/segment_events.py", HANDLER)
    printed = site.shell(
        """
        from segment_fallback import emit, track
        from segment_fallback.django_tasks import flush, handle_events
        for number in range(9):
            track("ada", "Bought")
        emit("order.completed", {})
        for task in (handle_events, flush):
            print(task.enqueue().return_value)
        """
    )
    handled, flushed = printed.splitlines()
    assert handled == "1 handled, 0 errors, 0 events failed"
    said = "3 parts to flush; 0 delivered" if parts else "10 delivered"
    assert flushed.startswith(said)
    assert sorted(received.message["event"] for received in segment.messages) == ["Bought"] * 9 + ["Handled"]


@contextlib.contextmanager
def process(site: Project, *arguments: str) -> Iterator[Path]:
    """A command of the site's that goes on; yields its log."""
    log = site.directory / f"{arguments[0]}.log"
    with log.open("w") as output:
        command = [sys.executable, "-u", "manage.py", *arguments]
        running = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True, **site.options)
        try:
            yield log
        finally:
            kill(running)


@before_django_6
def test_worker_and_scheduler_without_celery_deliver(project: Make, segment: LocalSegment) -> None:
    """django-crontask imports the ``tasks`` of every app."""
    pytest.importorskip("django_tasks_db", reason="tox.ini installs what Django's tasks need")
    pytest.importorskip("crontask", reason="tox.ini installs what Django's tasks need")
    site = project(DATABASE_TASKS)
    site.append("shop/tasks.py", SCHEDULE)
    site.append("shop/segment_events.py", HANDLER)
    site.append("celery.py", "raise ImportError('not installed here')\n")
    site.manage("migrate", "--verbosity", "0")
    site.shell(
        """
        from segment_fallback import emit, track
        track("ada", "Bought")
        emit("order.completed", {})
        """
    )
    with process(site, "crontask", "--no-heartbeat") as schedule, process(site, "db_worker", "--no-reload") as worker:
        wait_until(lambda: len(segment.messages) == 2, lambda: schedule.read_text() + worker.read_text())
    assert sorted(received.message["event"] for received in segment.messages) == ["Bought", "Handled"]
