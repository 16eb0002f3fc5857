"""A Django site for the servers that the tests start: settings, views and the Celery app.

From the environment: SERVING_DIR (where its files are), SERVING_DATABASE (JSON: the entry of DATABASES) and
SERVING_SETTINGS (JSON: further keys of SEGMENT_FALLBACK).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from celery import Celery
from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from segment_fallback.tasks import schedule_flush

BASE_DIR = Path(os.environ["SERVING_DIR"])
SECRET_KEY = "tests"  # that of the tests, which sign the pages' tokens
DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = __name__
USE_TZ = True
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "segment_fallback"]
MIDDLEWARE = ["segment_fallback.middleware.SegmentMiddleware"]
DATABASES: dict[str, dict[str, Any]] = {"default": json.loads(os.environ["SERVING_DATABASE"])}
SEGMENT_FALLBACK: dict[str, Any] = {"WRITE_KEY": "key", **json.loads(os.environ.get("SERVING_SETTINGS", "{}"))}


async def asynchronous(request: HttpRequest) -> HttpResponse:
    return HttpResponse("here")


def synchronous(request: HttpRequest) -> HttpResponse:
    return HttpResponse("here")


urlpatterns = [
    path("async/", asynchronous),
    path("sync/", synchronous),
    path("s/", include("segment_fallback.urls")),
]


app = Celery("serving", broker=f"sqla+sqlite:///{BASE_DIR}/broker.sqlite3", set_as_current=False)
app.conf.update(
    broker_connection_retry_on_startup=True, include=["segment_fallback.tasks"], worker_hijack_root_logger=False
)
schedule_flush(app, every=0.5)
