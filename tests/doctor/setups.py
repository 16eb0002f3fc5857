"""Every finding about the set-up, and a site that has that fault."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from typing import Any
from unittest.mock import patch

from celery._state import get_current_app
from django.db import connection
from django.db.models import Model

from segment_fallback.buffers import buffers
from segment_fallback.buffers.accept import acceptance
from segment_fallback.buffers.base import ARCHIVE, now_ms
from segment_fallback.delivery.flush import flush
from segment_fallback.doctor.setup import Options
from segment_fallback.events.handlers import on, registry
from segment_fallback.events.outbox import emit
from segment_fallback.message import Message, encode, new_message_id
from segment_fallback.models import PendingEvent, WaitingMessage
from segment_fallback.testing import Answer, LocalSegment
from segment_fallback.testing.cdn import settings as source_settings
from tests.doctor.celery_apps import nobody

NOWHERE = "http://127.0.0.1:1"
Prepare = Callable[[LocalSegment], AbstractContextManager[None]]


def nothing(segment: LocalSegment) -> AbstractContextManager[None]:
    return nullcontext()


SILENT = Options(celery_app="tests.doctor.celery_apps:silent")


@dataclass(frozen=True)
class Fault:
    """A fault of a set-up, and what the doctor then says."""

    says: str
    keys: dict[str, Any] = field(default_factory=dict)
    django: dict[str, Any] = field(default_factory=dict)
    prepare: Prepare = nothing
    options: Options = SILENT


def with_app(name: str) -> Options:
    return Options(celery_app=f"tests.doctor.celery_apps:{name}")


def event() -> Message:
    return encode({"type": "page", "messageId": new_message_id(), "anonymousId": "a"})


@contextmanager
def without_table(segment: LocalSegment, model: type[Model] = WaitingMessage) -> Iterator[None]:
    """The database has lost the table; by default of waiting messages."""
    table = connection.ops.quote_name(model._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO lost")
        try:
            yield
        finally:
            cursor.execute(f"ALTER TABLE lost RENAME TO {table}")


@contextmanager
def old_message(segment: LocalSegment) -> Iterator[None]:
    buffers["default"].put([event()])
    WaitingMessage.objects.update(created=1_000)
    yield


@contextmanager
def handlers() -> Iterator[None]:
    """The site has a handler, and no other."""
    with patch.multiple(registry, _handlers={}, _discovered=True):
        on("order.*")(lambda event: None)
        yield


@contextmanager
def overdue_events(segment: LocalSegment) -> Iterator[None]:
    """Four events that nobody has run for a quarter of an hour; one that is tried again later; and one that failed."""
    with handlers():
        for _ in range(6):
            emit("order.completed")
        first, second, *_ = PendingEvent.objects.order_by("id")
        PendingEvent.objects.update(next_try=now_ms() - 900_000)
        PendingEvent.objects.filter(pk=first.pk).update(next_try=now_ms() + 60_000)
        PendingEvent.objects.filter(pk=second.pk).update(state=PendingEvent.FAILED)
        yield


@contextmanager
def dead_letter(segment: LocalSegment) -> Iterator[None]:
    buffers["default"].bury([event()], "HTTP 413")
    yield


@contextmanager
def spooled(segment: LocalSegment) -> Iterator[None]:
    acceptance.spool.put([event()])
    yield


@contextmanager
def unknown_key(segment: LocalSegment) -> Iterator[None]:
    segment.write_keys = frozenset({"another-key"})
    yield
    segment.write_keys = None


@contextmanager
def european(segment: LocalSegment) -> Iterator[None]:
    """The source is of a workspace in Europe."""
    told = json.dumps(source_settings("tests-write-key", "events.eu1.segmentapis.com"))
    segment.answer_with(Answer(200, body=told), times=None, path="/v1/projects/")
    yield
    segment.answer_normally()


@contextmanager
def in_1999(segment: LocalSegment) -> Iterator[None]:
    date = format_datetime(datetime(1999, 12, 31, 23, 59, tzinfo=timezone.utc), usegmt=True)
    with patch.object(BaseHTTPRequestHandler, "date_time_string", lambda *_: date):
        yield


@contextmanager
def failed_flush(segment: LocalSegment) -> Iterator[None]:
    segment.answer_with(Answer(503), times=None)
    buffers["default"].put([event()])
    flush()
    yield
    segment.answer_normally()


@contextmanager
def failing_api(segment: LocalSegment) -> Iterator[None]:
    segment.answer_with(Answer(503), times=None)
    yield
    segment.answer_normally()


@contextmanager
def archive_failed(segment: LocalSegment) -> Iterator[None]:
    buffers["default"].note_failure(ARCHIVE, "the storage is full", 3)
    yield


@contextmanager
def no_celery(segment: LocalSegment) -> Iterator[None]:
    """Nobody has made an app, so that Celery's own is the current one."""
    before = get_current_app()
    nobody.set_current()
    yield
    before.set_current()


def caches(backend: str) -> dict[str, Any]:
    return {"CACHES": {"default": {"BACKEND": f"django.core.cache.backends.{backend}"}}}


def spool_at(location: str) -> dict[str, Any]:
    files = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": location}}
    return {"STORAGES": {"spool": files, "staticfiles": files}}


SEND = Options(send=True, wait=0, celery_app="tests.doctor.celery_apps:silent")

FAULTS: dict[str, Fault] = {
    "setup.check": Fault("segment_fallback.E003", {"PATIENCE": "5"}),
    "setup.buffer_unavailable": Fault("'default' does not answer", prepare=without_table),
    "setup.buffer_old": Fault("1 message waiting", prepare=old_message),
    "setup.dead_letters": Fault("1 dead letter", prepare=dead_letter),
    "setup.events_wait": Fault("4 events waiting for handlers, the oldest due for 15 minutes.", prepare=overdue_events),
    "setup.spool_unwritable": Fault("takes no file", django=spool_at("/proc/nowhere")),
    "setup.spool_waits": Fault("1 files wait", prepare=spooled),
    "setup.cache_unusable": Fault("does not keep", {"FIRST_PARTY": True}, caches("dummy.DummyCache")),
    "setup.cache_local": Fault("process's own", {"FIRST_PARTY": True}, caches("locmem.LocMemCache")),
    "setup.write_key_unknown": Fault("of 'default' (HTTP 404)", prepare=unknown_key),
    "setup.cdn_unreachable": Fault("Connection refused", {"CDN_HOST": NOWHERE}),
    "setup.region": Fault(
        "reports to events.eu1.segmentapis.com, and API_HOST is https://api.segment.io",
        {"SOURCES": {"docs": {"WRITE_KEY": "wk", "API_HOST": "https://api.segment.io"}}},
        prepare=european,
    ),
    "setup.api_unreachable": Fault("Connection refused", {"API_HOST": NOWHERE}),
    "setup.clock": Fault("days ahead of", prepare=in_1999),
    "setup.celery_missing": Fault("No Celery app", prepare=no_celery, options=Options()),
    "setup.broker_unreachable": Fault("OperationalError", options=with_app("down")),
    "setup.worker_missing": Fault("No Celery worker answered", options=with_app("lonely")),
    "setup.worker_unknown": Fault("cannot be asked", options=with_app("silent")),
    "setup.schedule_missing": Fault("'unscheduled' has no flush", options=with_app("unscheduled")),
    "setup.flush_unseen": Fault("No flush of 'default' was ever seen"),
    "setup.flush_failing": Fault("1 flushes of 'default' failed in a row: HTTP 503", prepare=failed_flush),
    "setup.archive_lacks": Fault("lacks 3 messages", prepare=archive_failed),
    "setup.flush_untried": Fault("No test event was sent"),
    "setup.flush_not_run": Fault("the doctor's own flush delivered it", options=SEND),
    "setup.flush_failed": Fault("still waits: HTTP 503", prepare=failing_api, options=SEND),
}
"""``setup.task_unknown`` needs a worker: it has a test of its own."""
