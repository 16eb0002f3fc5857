"""A Django site in one module, for the end-to-end tests: settings, pages and the Celery app.

What differs between runs comes from the environment: E2E_DIR (where its files are), E2E_SEGMENT (URL of the local
Segment), and E2E_DYNAMODB (URL; without it the buffer is the database).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import Celery
from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.urls import include, path

from segment_fallback.tasks import schedule_flush

DIR = Path(os.environ["E2E_DIR"])
SEGMENT = os.environ["E2E_SEGMENT"]
DYNAMODB = os.environ.get("E2E_DYNAMODB")

SECRET_KEY = "e2e"
DEBUG = True
ALLOWED_HOSTS = ["localhost"]
ROOT_URLCONF = __name__
USE_TZ = True
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "segment_fallback"]
MIDDLEWARE = [
    "segment_fallback.middleware.SegmentMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates"}]
DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DIR / "site.sqlite3",
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"},
    }
}
SEGMENT_FALLBACK: dict[str, Any] = {
    "WRITE_KEY": "e2e-key",
    "API_HOST": SEGMENT,
    "CDN_HOST": SEGMENT,
    "PATIENCE": 3,
    "OUTCOME_INTERVAL": 0,
}
if DYNAMODB:
    SEGMENT_FALLBACK["BUFFERS"] = {
        "default": {
            "BACKEND": "segment_fallback.buffers.dynamodb.DynamoDBBuffer",
            "OPTIONS": {"endpoint_url": DYNAMODB, "region": "us-east-1", "table": f"e2e-{DIR.name}", "parts": 2},
        }
    }

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{{ title }}</title>
{% if canonical %}<link rel="canonical" href="{{ canonical }}">{% endif %}
{% load segment_fallback %}{% segment_snippet name category=category price=9.5 tags=tags %}
</head>
<body><h1>{{ title }}</h1><a id="next" href="/shop/?utm_source=home&utm_campaign=May%20sale&x=1#part">next</a></body>
</html>"""


HEADERS = {
    "csp-script": {"Content-Security-Policy": "script-src 'self' 'unsafe-inline'"},
    "csp-connect": {"Content-Security-Policy": "connect-src 'self'"},
    "no-referrer": {"Referrer-Policy": "no-referrer"},
    "back-forward-cache": {"Cache-Control": "no-cache"},
}


def page(request: HttpRequest, **context: Any) -> HttpResponse:
    """A page; the last part of ``?case=…`` may ask for headers."""
    html = engines["django"].from_string(PAGE).render(context, request)
    return HttpResponse(html, headers=HEADERS.get(request.GET.get("case", ""), {}))


urlpatterns = [
    path("", page, {"title": "Home"}),
    path(
        "shop/", page, {"title": 'A “shop” </script> & "more"', "name": "Shop", "category": "Pages", "tags": ["a", "é"]}
    ),
    path("caf\u00e9/", page, {"title": "Café", "name": "Café", "canonical": "https://shop.example/coffee/"}),
    path("s/", include("segment_fallback.urls")),
]

app = Celery("e2e", broker=f"sqla+sqlite:///{DIR}/broker.sqlite3", set_as_current=False)
app.conf.update(
    broker_connection_retry_on_startup=True, include=["segment_fallback.tasks"], worker_hijack_root_logger=False
)
schedule_flush(app, every=1)
