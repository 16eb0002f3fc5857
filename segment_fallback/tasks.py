"""Celery's task, and its place in a beat schedule."""

from __future__ import annotations

from typing import Any

try:
    from celery import Celery, group, shared_task
    from celery.signals import worker_shutting_down
except ImportError as error:
    from segment_fallback.exceptions import MissingExtra

    raise MissingExtra("segment_fallback.tasks", "celery") from error

from segment_fallback.buffers import buffers
from segment_fallback.conf import get_settings
from segment_fallback.delivery import flush as delivery

TASK = "segment_fallback.tasks.flush"


@worker_shutting_down.connect
def stop_flushing(**kwargs: Any) -> None:
    """End a flush between two batches. Prefork's children do not hear of it; they end with their budget."""
    delivery.stopping.set()


@shared_task(name=TASK, ignore_result=True)
def flush() -> str:
    """Flush every buffer to Segment; several parts in parallel, each by a task of its own.

    May overlap with itself, be killed or be delivered twice: no event is lost.
    """
    parts = [(alias, part) for alias in buffers for part in range(buffers[alias].parts)]
    if len(parts) == 1:
        return str(delivery.flush())
    report = delivery.Report()
    delivery.drain(report, lease=4 * get_settings().SEND_TIMEOUT)
    # What no worker has begun within the budget of one flush, the next will do.
    group(flush_part.s(*part) for part in parts).apply_async(expires=get_settings().FLUSH_BUDGET)
    return f"{len(parts)} parts to flush; {report}"


@shared_task(name="segment_fallback.tasks.flush_part", ignore_result=True)
def flush_part(alias: str, part: int) -> str:
    """Flush one part of one buffer."""
    return str(delivery.flush([alias], parts=[part]))


def beat_schedule(every: float = 10.0) -> dict[str, dict[str, Any]]:
    """The entry of a beat schedule that flushes every so many seconds.

    In settings: ``CELERY_BEAT_SCHEDULE = {**beat_schedule()}``.
    """
    # A tick that no worker took before the next one comes is of no use.
    options = {"expires": every * 0.9}
    return {"segment-fallback-flush": {"task": TASK, "schedule": every, "options": options}}


def schedule_flush(app: Celery, every: float = 10.0) -> None:
    """Add the flush to a Celery app's beat schedule: ``schedule_flush(app)`` below ``app = Celery(…)``."""
    app.conf.beat_schedule = {**(app.conf.beat_schedule or {}), **beat_schedule(every)}
