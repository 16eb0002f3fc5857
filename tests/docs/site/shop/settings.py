"""What the documentation takes for granted: a project as ``startproject`` makes it, and the app in it."""

from __future__ import annotations

from pathlib import Path

BASE_DIR = Path("/nonexistent")
SECRET_KEY = "shop"
DEBUG = False
ALLOWED_HOSTS = ["testserver", "shop.example"]
ROOT_URLCONF = "shop.urls"
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "segment_fallback",
    "shop",
]
MIDDLEWARE = [
    "segment_fallback.middleware.SegmentMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
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
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "static/"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    "spool": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
}
SEGMENT_FALLBACK = {"WRITE_KEY": "shop-write-key", "OUTCOME_INTERVAL": 0, "SPOOL": "spool"}
BILLING_SECRET = "billing-secret"
OLD_BILLING_SECRET = "old-billing-secret"
