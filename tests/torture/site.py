"""The site that is tortured: Django's settings, all of whose particulars come from the environment as JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pymysql
from django.urls import include, path

# Django's backend for MariaDB imports MySQLdb; this one needs no compiler.
pymysql.install_as_MySQLdb()

_OPTIONS = json.loads(os.environ["TORTURE"])
DIR = Path(_OPTIONS["directory"])

SECRET_KEY = "torture"
DEBUG = True  # so that a hit's answer says in a header how it ended
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = __name__
USE_TZ = True
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "segment_fallback"]
MIDDLEWARE = ["segment_fallback.middleware.SegmentMiddleware"]
DATABASES = _OPTIONS["databases"]
STORAGES = {
    name: {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": str(DIR / name), "file_permissions_mode": 0o600},
    }
    for name in ("spool", "archive")
}
SEGMENT_FALLBACK = {
    "WRITE_KEY": "torture-key",
    "API_HOST": _OPTIONS["segment"],
    "BUFFERS": _OPTIONS["buffers"],
    "SPOOL": "spool",
    "SPOOL_MAX_BYTES": 2_000_000,
    "ARCHIVE": "archive",
    "RATE_LIMIT": 0,
    "HOLD": 0.2,
    # A lease lasts four times as long: whoever was killed frees its part within three seconds.
    "SEND_TIMEOUT": 0.75,
}

urlpatterns = [path("s/", include("segment_fallback.urls"))]
