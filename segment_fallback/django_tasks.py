"""Flush, and events' handlers, as tasks of Django's own framework, for sites that use it instead of Celery.

Needs Django 6.0. ``django.tasks`` runs what somebody enqueues, and has no schedule: a scheduler of the site's has to
call ``flush.enqueue()`` and ``handle_events.enqueue()`` every so many seconds.
"""

from __future__ import annotations

import django

if django.VERSION < (6, 0):
    raise ImportError(
        f"segment_fallback.django_tasks needs Django 6.0 or later, and this is {django.get_version()}: "
        "flush by Celery, or let cron call `manage.py segment_flush`"
    )

from django.tasks import task

from segment_fallback.delivery import flush as delivery
from segment_fallback.events import run


@task
def flush() -> str:
    """Flush every buffer to Segment; several parts in parallel, each by a task of its own.

    May overlap with itself, be killed or be run twice: no event is lost.
    """
    return delivery.share_out(flush_part.enqueue)


@task
def flush_part(alias: str, part: int) -> str:
    """Flush one part of one buffer."""
    return str(delivery.flush([alias], parts=[part]))


@task
def handle_events() -> str:
    """Run the handlers of events that are due. May overlap with itself, be killed or be run twice."""
    return run.run_if_handled()
