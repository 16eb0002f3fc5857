"""Celery, where the site has it: its broker, a worker that knows our task, and the schedule of beat."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from segment_fallback.doctor.finding import Findings, Level, kind
from segment_fallback.doctor.setup import Options

if TYPE_CHECKING:
    from celery import Celery

CELERY_MISSING = kind(
    "setup.celery_missing",
    Level.INFO,
    "Something must flush: without Celery that is cron, or a scheduled function.",
    "Call `manage.py segment_flush` every minute. If the site has a Celery app, name it: --celery-app project.celery.",
)
BROKER_UNREACHABLE = kind(
    "setup.broker_unreachable",
    Level.ERROR,
    "Beat cannot tell any worker to flush; nothing is delivered.",
    "Look whether the broker runs, and whether broker_url is right and its library installed.",
)
WORKER_MISSING = kind(
    "setup.worker_missing",
    Level.ERROR,
    "Beat's calls pile up in the broker until they expire; nothing is delivered.",
    "Start one: celery --app <project> worker. It must listen to the queue that the flush task is routed to.",
)
WORKER_UNKNOWN = kind(
    "setup.worker_unknown",
    Level.INFO,
    "The doctor cannot see by itself whether a worker runs; the age of the last flush tells.",
    "",
)
TASK_UNKNOWN = kind(
    "setup.task_unknown",
    Level.ERROR,
    "A worker drops calls of a task that it does not know; nothing is delivered.",
    "Let its app find the task: app.autodiscover_tasks(), with segment_fallback in INSTALLED_APPS; then restart it.",
)
SCHEDULE_MISSING = kind(
    "setup.schedule_missing",
    Level.ERROR,
    "Beat runs, and never starts a flush.",
    "Below app = Celery(…): segment_fallback.tasks.schedule_flush(app). With a scheduler of its own, such as "
    "django-celery-beat, add the task segment_fallback.tasks.flush there.",
)

CONNECT_TIMEOUT = 3
PING_TIMEOUT = 1.5
"""Seconds."""


def celery_works(options: Options) -> Findings:
    """Broker, worker, task and schedule, as far as each can be seen."""
    app = find_app(options.celery_app)
    if app is None:
        yield CELERY_MISSING("No Celery app of this project was found.")
        return
    yield from _schedule(app)
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=CONNECT_TIMEOUT)
            fans_out = "fanout" in connection.transport.implements.exchange_type
    except Exception as error:  # noqa: BLE001 - each transport raises what its library has; the text may have a password
        yield BROKER_UNREACHABLE(f"Celery's broker cannot be reached: {type(error).__name__}.")
        return
    yield BROKER_UNREACHABLE.ok("Celery's broker can be reached.")
    if not fans_out or not app.conf.worker_enable_remote_control:
        yield WORKER_UNKNOWN("The workers cannot be asked: broker or settings let nobody call all of them.")
        return
    yield from _workers(app)


def find_app(name: str = "") -> Celery | None:
    """The site's Celery app: the one named, that of the package that has the settings, or the current one."""
    try:
        from celery import current_app
        from celery.app.utils import find_app as find
    except ImportError:
        return None
    package = os.environ.get("DJANGO_SETTINGS_MODULE", "").partition(".")[0]
    if not name and package and _exists(f"{package}.celery"):
        name = package
    app: Celery = find(name) if name else current_app
    # Celery makes an app called "default" where nobody has made one.
    return None if app.main in (None, "default") and not name else app


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def _schedule(app: Celery) -> Findings:
    from segment_fallback.tasks import TASK

    entries = (app.conf.beat_schedule or {}).values()
    if any(isinstance(entry, dict) and entry.get("task") == TASK for entry in entries):
        yield SCHEDULE_MISSING.ok("Beat's schedule has the flush.")
    else:
        usual = "PersistentScheduler" in str(app.conf.beat_scheduler)
        level = Level.ERROR if usual else Level.INFO
        yield SCHEDULE_MISSING(f"The schedule of the Celery app {app.main!r} has no flush.", level=level)


def _workers(app: Celery) -> Findings:
    from segment_fallback.tasks import TASK

    inspect = app.control.inspect(timeout=PING_TIMEOUT)
    ask: Callable[[], dict[str, list[str]] | None] = inspect.registered
    registered = ask() or {}
    if not registered:
        yield WORKER_MISSING(f"No Celery worker answered within {PING_TIMEOUT} seconds.")
    elif not any(TASK in tasks for tasks in registered.values()):
        yield TASK_UNKNOWN(f"{len(registered)} workers answered, and none knows the task {TASK}.")
    else:
        yield WORKER_MISSING.ok(f"{len(registered)} Celery workers answered.")
