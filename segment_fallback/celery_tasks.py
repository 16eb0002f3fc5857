"""Celery's tasks, their place in a beat schedule, and tasks that know whose request they come from.

Sites import them from ``segment_fallback.tasks``.
"""

from __future__ import annotations

import contextlib
from typing import Any

try:
    from celery import Celery, Task, shared_task
    from celery.signals import (
        before_task_publish,
        celeryd_after_setup,
        task_postrun,
        task_prerun,
        worker_process_shutdown,
        worker_shutting_down,
    )
except ImportError as error:
    from segment_fallback.exceptions import MissingExtra

    raise MissingExtra("segment_fallback.tasks", "celery") from error

from segment_fallback import ambient, counting
from segment_fallback.client.sending import off_the_loop
from segment_fallback.delivery import flush as delivery
from segment_fallback.message import normalise

TASK = "segment_fallback.tasks.flush"
EVENTS_TASK = "segment_fallback.tasks.handle_events"

EXPIRES = 3600.0
"""Seconds for which a tick waits for a worker, so that no more than an hour's pile up while none runs. Those after the
first find nothing to do.

Far more than the interval: on a queue that is always later than that, or for a worker whose clock is so far ahead of
beat's, each would expire, and nothing ever be sent.
"""

HEADER = "segment_fallback"
"""The header of a task that says whose request published it."""


@worker_shutting_down.connect
def stop_flushing(**kwargs: Any) -> None:
    """End a flush between two batches. Prefork's children do not hear of it; they end with their budget."""
    delivery.stopping.set()


@worker_process_shutdown.connect
def write_counts(**kwargs: Any) -> None:
    """Of a fork of the pool, which ends without running what ``atexit`` was told."""
    counting.write_all()


@celeryd_after_setup.connect
def import_handlers(**kwargs: Any) -> None:
    """Before the pool forks, so that all its forks have the same code, whenever they begin."""
    from segment_fallback.events.handlers import registry  # needs the models, and settings may import this module

    with contextlib.suppress(Exception):  # each run says what is wrong
        registry.discover()


@shared_task(name=TASK, ignore_result=True, expires=EXPIRES)
def flush() -> str:
    """Flush every buffer to Segment; several parts in parallel, each by a task of its own.

    May overlap with itself, be killed or be delivered twice: no event is lost.
    """
    return delivery.share_out(flush_part.delay)


@shared_task(name="segment_fallback.tasks.flush_part", ignore_result=True, expires=EXPIRES)
def flush_part(alias: str, part: int) -> str:
    """Flush one part of one buffer."""
    return str(delivery.flush([alias], parts=[part]))


@shared_task(name=EVENTS_TASK, ignore_result=True, expires=EXPIRES)
def handle_events() -> str:
    """Run the handlers of events that are due. May overlap with itself, be killed or be delivered twice."""
    from segment_fallback.events.run import run_if_handled  # needs the models, and settings may import this module

    return run_if_handled()


def beat_schedule(every: float = 10.0) -> dict[str, dict[str, Any]]:
    """The entries of a beat schedule that run events' handlers, and flush, every so many seconds.

    In settings: ``CELERY_BEAT_SCHEDULE = {**beat_schedule()}``.
    """
    # What the tasks say themselves is unknown to a beat that does not import them.
    options = {"expires": max(EXPIRES, 2 * every)}
    return {
        "segment-fallback-events": {"task": EVENTS_TASK, "schedule": every, "options": options},
        "segment-fallback-flush": {"task": TASK, "schedule": every, "options": options},
    }


def schedule_flush(app: Celery, every: float = 10.0) -> None:
    """Add flush and events to a Celery app's beat schedule: ``schedule_flush(app)`` below ``app = Celery(…)``."""
    app.conf.beat_schedule = {**(app.conf.beat_schedule or {}), **beat_schedule(every)}


def propagate_identity(app: Celery) -> None:
    """Let this app's tasks be about the visitor whose request published them, and the tasks that those publish.

    Ids and context (the address, too) ride in the broker, in a header. Publishing reads the session, as tracking does.
    """

    def carry(headers: dict[str, Any] | None = None, **kwargs: Any) -> None:
        now = ambient.current.get()
        if now is not None and headers is not None:
            # A task's time is its own.
            fields = {key: value for key, value in off_the_loop(now.fields).items() if key != "timestamp"}
            headers.setdefault(HEADER, normalise(fields))

    def begin(task: Task[Any, Any], **kwargs: Any) -> None:
        fields = task.request.get(HEADER)
        if task.app is app and isinstance(fields, dict):
            task.request.segment_token = ambient.current.set(ambient.Ambient(lambda: fields))  # type: ignore[attr-defined]

    def end(task: Task[Any, Any], **kwargs: Any) -> None:
        token = task.request.get("segment_token")
        if task.app is app and token is not None:
            ambient.current.reset(token)

    name = f"segment_fallback.{id(app)}"
    before_task_publish.connect(carry, weak=False, dispatch_uid="segment_fallback")
    task_prerun.connect(begin, weak=False, dispatch_uid=name)
    task_postrun.connect(end, weak=False, dispatch_uid=name)
