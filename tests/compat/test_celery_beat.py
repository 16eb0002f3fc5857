"""django-celery-beat: schedules in the database, which the admin changes. A real worker with a real beat."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from segment_fallback.testing import LocalSegment
from tests.compat.project import Project
from tests.serving.site import kill, wait_until

pytest.importorskip("django_celery_beat", reason="django-celery-beat does not allow this Django yet")

SETTINGS = """
INSTALLED_APPS += ["django_celery_beat"]
CELERY_BROKER_URL = f"sqla+sqlite:///{BASE_DIR}/broker.sqlite3"
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BEAT_MAX_LOOP_INTERVAL = 0.2
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
"""
CELERY = """
from celery import Celery

app = Celery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
"""
BY_US = """
from segment_fallback.tasks import schedule_flush

schedule_flush(app, every=1)
"""
BY_HAND = """
from django_celery_beat.models import IntervalSchedule, PeriodicTask

every, _ = IntervalSchedule.objects.get_or_create(every=1, period=IntervalSchedule.SECONDS)
for task in ("flush", "handle_events"):
    PeriodicTask.objects.create(name=task, task=f"segment_fallback.tasks.{task}", interval=every)
"""


@pytest.fixture
def shop(project: Callable[..., Project]) -> Project:
    site = project(SETTINGS)
    site.append("shop/celery.py", CELERY)
    site.append("shop/__init__.py", "from shop.celery import app as celery_app\n")
    site.manage("migrate", "--verbosity", "0")
    return site


@pytest.mark.parametrize("by", ["schedule_flush", "hand"])
def test_schedule_in_the_database_flushes(shop: Project, segment: LocalSegment, by: str) -> None:
    if by == "hand":
        shop.shell(BY_HAND)
    else:
        shop.append("shop/celery.py", BY_US)
    shop.shell("from segment_fallback import track; track('ada', 'Bought')")
    command = [sys.executable, "-m", "celery", "-A", "shop", "worker", "-B", "--pool", "solo", "--loglevel", "INFO"]
    with (shop.directory / "log").open("w") as log:
        worker = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, **shop.options)
        try:
            wait_until(lambda: bool(segment.messages), (shop.directory / "log").read_text)
        finally:
            kill(worker)
    assert [received.message["event"] for received in segment.messages] == ["Bought"]
    found = shop.shell(
        "from django_celery_beat.models import PeriodicTask as P\n"
        "print(*sorted(P.objects.filter(task__startswith='segment_fallback').values_list('task', flat=True)))"
    )
    assert found.split() == ["segment_fallback.tasks.flush", "segment_fallback.tasks.handle_events"]


def test_ticks_expire_though_the_schedule_forgets_when(shop: Project) -> None:
    shop.append("shop/celery.py", BY_US)
    printed = shop.shell(
        """
        from django_celery_beat.schedulers import DatabaseScheduler
        from shop.celery import app
        app.conf.broker_url = "memory://"
        scheduler = DatabaseScheduler(app=app)
        entry = scheduler.schedule["segment-fallback-flush"]
        print(entry.options.get("expires"))
        scheduler.apply_async(entry, advance=False)
        with app.connection() as connection:
            headers = connection.SimpleQueue("celery").get(timeout=5).headers
        print(headers["task"], headers["expires"] is not None)
        """
    )
    assert printed.splitlines() == ["None", "segment_fallback.tasks.flush True"]
