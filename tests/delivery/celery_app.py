"""A Celery app whose worker flushes once, as soon as it is ready."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.signals import worker_ready

app = Celery("shutdown", broker="memory://", include=["segment_fallback.tasks"])


@worker_ready.connect
def flush_now(**kwargs: Any) -> None:
    app.send_task("segment_fallback.tasks.flush")
