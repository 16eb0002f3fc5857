"""The tasks that Celery finds in this app, and what schedules them.

Whatever looks for the ``tasks`` of every app, as other schedulers do that a site may use, can import this module where
Celery is not installed. What is in it then says which extra brings it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from segment_fallback.exceptions import MissingExtra

try:
    from segment_fallback.celery_tasks import (
        EVENTS_TASK,
        TASK,
        beat_schedule,
        flush,
        flush_part,
        handle_events,
        propagate_identity,
        schedule_flush,
    )
except MissingExtra:
    if not TYPE_CHECKING:

        def __getattr__(name: str) -> NoReturn:
            if name.startswith("__"):
                raise AttributeError(name)
            raise MissingExtra("segment_fallback.tasks", "celery")


__all__ = [
    "EVENTS_TASK",
    "TASK",
    "beat_schedule",
    "flush",
    "flush_part",
    "handle_events",
    "propagate_identity",
    "schedule_flush",
]
