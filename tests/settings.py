"""Django's settings for the tests: small, strict, and with nothing that a reusable app may not assume."""

from __future__ import annotations

import os

SECRET_KEY = "tests"
ALLOWED_HOSTS = ["testserver", "shop.example"]
ROOT_URLCONF = "tests.urls"
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "segment_fallback",
]
MIDDLEWARE = [
    "segment_fallback.middleware.SegmentMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("TESTS_DATABASE", ":memory:"),
    }
}
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    }
]
STORAGES = {
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    "spool": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
}
SEGMENT_FALLBACK = {"WRITE_KEY": "tests-write-key", "OUTCOME_INTERVAL": 0, "SPOOL": "spool"}
