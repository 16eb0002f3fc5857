"""A Django site in one module, for the end-to-end tests: settings, pages and the Celery app.

What differs between runs comes from the environment: E2E_DIR (where its files are), E2E_SEGMENT (URL of the local
Segment), E2E_SETTINGS (further keys of SEGMENT_FALLBACK, as JSON), and E2E_DYNAMODB (URL; without it the buffer is
the database). What differs between pages is asked for by the end of ``?case=…``.
"""

from __future__ import annotations

import functools
import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from celery import Celery
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.template import engines
from django.urls import include, path
from django.utils.safestring import mark_safe

from segment_fallback.conf import get_settings
from segment_fallback.tasks import schedule_flush

DIR = Path(os.environ["E2E_DIR"])
SEGMENT = os.environ["E2E_SEGMENT"]
DYNAMODB = os.environ.get("E2E_DYNAMODB")

SECRET_KEY = "e2e"
DEBUG = True
ALLOWED_HOSTS = ["localhost"]
ROOT_URLCONF = __name__
WSGI_APPLICATION = f"{__name__}.application"
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
    "RATE_LIMIT": 0,
    **json.loads(os.environ.get("E2E_SETTINGS", "{}")),
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
{{ after }}
</head>
<body><h1>{{ title }}</h1>
<a id="next" href="/shop/?utm_source=home&utm_campaign=May%20sale&x=1#part">next</a></body>
</html>"""


HEADERS = {
    "csp-script": {"Content-Security-Policy": "script-src 'unsafe-inline'"},
    "csp-connect": {"Content-Security-Policy": "connect-src 'none'"},
    "no-referrer": {"Referrer-Policy": "no-referrer"},
}


def page(request: HttpRequest, **context: Any) -> HttpResponseBase:
    """A page, with what its case asks for."""
    case = request.GET.get("case", "")
    if leaves := re.search(r"leaves-after-(\d+)$", case):
        context["after"] = script(f"setTimeout(() => location = '/robots.txt', {leaves[1]})")
    if closes := re.search(r"closes-after-(\d+)$", case):
        context["after"] = script(f"setTimeout(() => close(), {closes[1]})")
    html = engines["django"].from_string(PAGE).render(context, request)
    if case.endswith("left-before-the-script"):
        return StreamingHttpResponse(half_of(html))
    headers = next((HEADERS[end] for end in HEADERS if case.endswith(end)), {})
    return HttpResponse(html, headers={**strict_policy(), **headers})


def script(code: str) -> str:
    return mark_safe(f"<script nonce=case>{code}</script>")  # noqa: S308 - it is the test's own


def strict_policy() -> dict[str, str]:
    """For the external form of the script: nothing inline, but the case's own script."""
    settings = get_settings()
    if not settings.EXTERNAL_SCRIPT:
        return {}
    cdn, api = ("", "") if settings.FIRST_PARTY else (settings.CDN_HOST, settings.API_HOST)
    policy = f"default-src 'none'; script-src 'self' 'nonce-case' {cdn}; img-src 'self'; connect-src 'self' {api}"
    return {"Content-Security-Policy": policy}


def half_of(html: str) -> Iterator[str]:
    """The page up to the snippet; then nothing for longer than anybody waits."""
    yield html.partition("<script")[0] + " " * 2_000
    time.sleep(20)


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Django's, but the first-party script and API hang for pages that ask for it."""
    referer, url = environ.get("HTTP_REFERER", ""), environ["PATH_INFO"]
    if ("/c/" in url and "script-hangs" in referer) or ("/e/" in url and "api-hangs" in referer):
        time.sleep(20)
    if "/c/" in url and "script-missing" in referer:
        start_response("404 Not Found", [])
        return [b""]
    answer: Iterable[bytes] = django_application()(environ, start_response)
    return answer


django_application = functools.cache(get_wsgi_application)


urlpatterns = [
    path("", page, {"title": "Home"}),
    path(
        "shop/", page, {"title": 'A “shop” </script> & "more"', "name": "Shop", "category": "Pages", "tags": ["a", "é"]}
    ),
    path("caf\u00e9/", page, {"title": "Café", "name": "Café", "canonical": "https://shop.example/coffee/"}),
    path("s/", include("segment_fallback.urls")),
    path("to/", include("tests.e2e.navigated")),
    path("", include("tests.e2e.pages")),
]

app = Celery("e2e", broker=f"sqla+sqlite:///{DIR}/broker.sqlite3", set_as_current=False)
app.conf.update(
    broker_connection_retry_on_startup=True, include=["segment_fallback.tasks"], worker_hijack_root_logger=False
)
schedule_flush(app, every=1)
