"""Django's settings of the example. What differs from a site of yours is what makes it run on one machine alone.

Environment variables that begin with EXAMPLE_ say where it keeps its files and what it talks to.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

BASE_DIR = Path(__file__).resolve().parents[1]

# Everything that the example writes: databases, the broker's file, logs. SQLite makes files but no folders.
VAR = Path(os.environ.get("EXAMPLE_VAR", BASE_DIR / "var")).resolve()
VAR.mkdir(parents=True, exist_ok=True)

# The shop is for your own machine. Under DEBUG Django serves its static files, and the pixel says in a response
# header how each hit ended. A live site has neither this nor a secret in its source.
DEBUG = True
SECRET_KEY = "not a secret: the example runs on your machine only"
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]

# --- Segment ---------------------------------------------------------------------------------------------------

# The local Segment stands in for both of Segment's hosts: https://api.segment.io and https://cdn.segment.com.
LOCAL_SEGMENT = os.environ.get("EXAMPLE_SEGMENT_URL", "http://127.0.0.1:8001")

SEGMENT_FALLBACK: dict[str, Any] = {
    "WRITE_KEY": "example-write-key",
    "API_HOST": LOCAL_SEGMENT,
    "CDN_HOST": LOCAL_SEGMENT,
    "PROFILES": {"BACKEND": "segment_fallback.profiles.database.DatabaseProfiles"},
    "PROFILE_SECRETS": ["not a secret: the local Segment signs with it"],
    "VARIATIONS": "edge",  # as `manage.py demo --varnish` shows; without an edge Django goes by the same cookies
    "TRUSTED_PROXIES": int(os.environ.get("EXAMPLE_PROXIES", "0")),
}

# EXAMPLE_BUFFER=dynamodb lets messages wait in DynamoDB, or in DynamoDB Local at EXAMPLE_DYNAMODB_URL.
BUFFER = os.environ.get("EXAMPLE_BUFFER", "database")
if BUFFER == "dynamodb":
    options = {"region": os.environ.get("AWS_REGION", "us-east-1")}
    if url := os.environ.get("EXAMPLE_DYNAMODB_URL"):
        options["endpoint_url"] = url
    SEGMENT_FALLBACK["BUFFERS"] = {
        "default": {"BACKEND": "segment_fallback.buffers.dynamodb.DynamoDBBuffer", "OPTIONS": options},
    }

# --- Celery ----------------------------------------------------------------------------------------------------

# A broker that is a file: nothing to install. A live site has Redis, RabbitMQ or SQS.
CELERY_BROKER_URL = os.environ.get("EXAMPLE_BROKER_URL", f"sqla+sqlite:///{VAR / 'broker.sqlite3'}")
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BEAT_SCHEDULE_FILENAME = str(VAR / "beat-schedule")
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False  # the broker cannot broadcast
CELERY_TASK_IGNORE_RESULT = True

# --- Django ----------------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "django.contrib.admin",  # which has the dashboard
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "segment_fallback",
    "example_project",
]
MIDDLEWARE = [
    "segment_fallback.middleware.SegmentMiddleware",  # first: a hit needs nothing of what follows
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "example_project.switches.switch_middleware",
]
ROOT_URLCONF = "example_project.urls"
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
STATIC_URL = "static/"
USE_TZ = True
TIME_ZONE = "UTC"

# SQLite for several processes at once: readers do not wait for a writer, a writer asks for its lock at the start
# of the transaction (later it could not wait for it), and waits this many seconds.
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("EXAMPLE_DATABASE", VAR / "example.sqlite3"),
        "OPTIONS": {
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL",
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
        },
    }
}

# EXAMPLE_POSTGRESQL=host:port lets it be PostgreSQL's database "example"; user and password are of the same name.
if address := os.environ.get("EXAMPLE_POSTGRESQL"):
    host, _, port = address.partition(":")
    login = dict.fromkeys(("NAME", "USER", "PASSWORD"), "example")
    DATABASES["default"] = {"ENGINE": "django.db.backends.postgresql", "HOST": host, "PORT": port, **login}
