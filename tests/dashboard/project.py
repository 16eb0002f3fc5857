"""A Django site with an admin, in one module: for the dashboard's tests, its screenshots and its benchmark.

What differs between runs comes from the environment: DASHBOARD_DIR (where its database is, else in memory) and
DASHBOARD_SETTINGS (further keys of SEGMENT_FALLBACK, as JSON).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, URLResolver, include, path

FOLDER = os.environ.get("DASHBOARD_DIR")

SECRET_KEY = "dashboard"
DEBUG = True  # so that runserver serves the static files
ALLOWED_HOSTS = ["localhost", "testserver"]
ROOT_URLCONF = "tests.dashboard.urls"
USE_TZ = True
TIME_ZONE = "Europe/Berlin"
STATIC_URL = "static/"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "segment_fallback",
]
MIDDLEWARE = [
    "segment_fallback.middleware.SegmentMiddleware",
    "tests.dashboard.project.strict_policy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(Path(FOLDER) / "site.sqlite3") if FOLDER else ":memory:",
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"},
    }
}
STORAGES = {
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    "spool": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
}
# One that all processes share, where there are several.
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": f"{FOLDER}/cache"}
    if FOLDER
    else {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
}
SEGMENT_FALLBACK: dict[str, Any] = {
    "WRITE_KEY": "dashboard-key",
    "SPOOL": "spool",
    "FIRST_PARTY": True,
    "LAST_EVENTS": True,
    **json.loads(os.environ.get("DASHBOARD_SETTINGS", "{}")),
}
POLICY = "default-src 'self'"


def strict_policy(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """No page may hold a script or a style of its own, nor ask another host for anything."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response["Content-Security-Policy"] = POLICY
        return response

    return middleware


def own_site() -> admin.AdminSite:
    """An admin that is not Django's default one."""
    from segment_fallback.admin import DashboardAdmin
    from segment_fallback.models import Dashboard

    site = admin.AdminSite(name="back-office")
    site.register(Dashboard, DashboardAdmin)
    return site


def urls() -> list[URLPattern | URLResolver]:
    return [
        path("admin/", admin.site.urls),
        path("office/", own_site().urls),
        path("favicon.ico", lambda request: HttpResponse(status=204)),  # browsers ask for it, whatever the page
        path("s/", include("segment_fallback.urls")),
    ]
