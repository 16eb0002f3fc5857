"""The Celery app: ``celery --app example_project worker``, and one ``celery --app example_project beat``."""

from __future__ import annotations

import os

from celery import Celery

from segment_fallback.tasks import schedule_flush

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")

app = Celery("example_project")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()  # finds segment_fallback.tasks
schedule_flush(app, every=2)  # seconds: soon enough to watch; the default of 10 suits a site
