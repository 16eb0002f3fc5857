"""What a site on the resources of cloudformation.yaml or terraform/ adds to its settings.

Copy it beside your settings and write at their end:

    from segment_settings import *
    STORAGES = {**STORAGES, **SEGMENT_STORAGES}

Environment: SEGMENT_TABLE, SEGMENT_BUCKET, SEGMENT_WRITE_KEY_SECRET, where Celery flushes SEGMENT_QUEUE, and perhaps
SEGMENT_PROFILES_TABLE: the outputs and parameters of the stack. The scheduled flush has them already.
"""

from __future__ import annotations

import os
from typing import Any

import boto3

_secrets = boto3.client("secretsmanager")

SEGMENT_FALLBACK: dict[str, Any] = {
    # Read when the process starts, so that it is in no template, no environment and no console.
    "WRITE_KEY": _secrets.get_secret_value(SecretId=os.environ["SEGMENT_WRITE_KEY_SECRET"])["SecretString"],
    "BUFFERS": {
        "default": {
            "BACKEND": "segment_fallback.buffers.dynamodb.DynamoDBBuffer",
            "OPTIONS": {"table": os.environ["SEGMENT_TABLE"]},
        }
    },
    "SPOOL": "segment-spool",  # a function has no disk that others could drain
    "ARCHIVE": "segment-archive",
    "ARCHIVE_DAYS": 0,  # the bucket deletes what is too old
    "OUTCOME_INTERVAL": 0,  # a frozen function writes nothing later
}

if "SEGMENT_PROFILES_TABLE" in os.environ:
    SEGMENT_FALLBACK["PROFILES"] = {
        "BACKEND": "segment_fallback.profiles.dynamodb.DynamoDBProfiles",
        "OPTIONS": {"table": os.environ["SEGMENT_PROFILES_TABLE"]},
    }

# Needs django-storages: pip install 'django-segment-fallback[dynamodb,s3]'.
SEGMENT_STORAGES = {
    f"segment-{folder}": {
        "BACKEND": "storages.backends.s3.S3Storage",
        "OPTIONS": {"bucket_name": os.environ["SEGMENT_BUCKET"], "location": folder, "default_acl": None},
    }
    for folder in ("spool", "archive")
}

if "SEGMENT_QUEUE" in os.environ:
    # Celery's own names, for app.config_from_object("django.conf:settings", namespace="CELERY"). A queue that is named
    # here is neither looked for nor made, which the roles do not allow.
    CELERY_BROKER_URL = "sqs://"
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "region": boto3.session.Session().region_name,
        "visibility_timeout": 600,
        "predefined_queues": {"celery": {"url": os.environ["SEGMENT_QUEUE"]}},
    }
    CELERY_WORKER_ENABLE_REMOTE_CONTROL = False  # it would want queues of its own
