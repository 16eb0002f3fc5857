"""``emit``: one row, in the transaction of whoever emits."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from asgiref.sync import sync_to_async
from django.db import DEFAULT_DB_ALIAS, IntegrityError, connections, router, transaction
from django.utils.timezone import get_default_timezone, is_naive, make_aware

from segment_fallback import ambient
from segment_fallback.buffers.base import now_ms
from segment_fallback.buffers.database import DatabaseBuffer
from segment_fallback.client.sending import off_the_loop
from segment_fallback.conf import is_loud
from segment_fallback.events import run
from segment_fallback.events.event import EPOCH, encode
from segment_fallback.events.handlers import registry
from segment_fallback.exceptions import InvalidMessage, SegmentFallbackError
from segment_fallback.log import log_fields
from segment_fallback.message import Way, new_message_id, normalise
from segment_fallback.models import PendingEvent
from segment_fallback.outcome import Outcome
from segment_fallback.tally import tally

logger = logging.getLogger("segment_fallback")

MAX_NAME = 100


def emit(
    name: str,
    payload: Mapping[str, Any] | None = None,
    /,
    *,
    on_commit: bool = True,
    using: str = DEFAULT_DB_ALIAS,
    event_id: str | None = None,
    occurred_at: datetime | None = None,
    **more: Any,
) -> str | None:
    """Tell that something happened: ``emit("order.completed", order=order)``. The event's id.

    ``payload`` and the further arguments are what handlers get. The event shares the fate of the transaction that is
    open in the database ``using``; with ``on_commit=False`` it stays even if that is rolled back (not on SQLite, which
    has one writer at a time). ``event_id``, 1 to 32 printable ASCII characters: an id that has been emitted before,
    in the last week or so, changes nothing.

    What cannot be kept is logged and counted, and the answer is None; under DEBUG, or with RAISE_ERRORS, it raises.
    """
    try:
        if not isinstance(payload, Mapping | None):
            raise InvalidMessage("value", f"a payload must be a dict, not {type(payload).__name__}")
        return off_the_loop(
            lambda: _emit(name, {**(payload or {}), **more}, event_id, occurred_at, on_commit=on_commit, using=using)
        )
    except Exception as error:
        if is_loud():
            raise
        _report(error)
        return None


aemit = sync_to_async(emit)
"""``emit`` for async code: it keeps no other coroutine waiting."""


def _emit(
    name: str,
    payload: Mapping[str, Any],
    event_id: str | None,
    occurred_at: datetime | None,
    *,
    on_commit: bool,
    using: str,
) -> str:
    row = make_row(name, payload, event_id, occurred_at)
    keep(row, on_commit=on_commit, using=using)
    return row.event_id


def _report(error: Exception) -> None:
    reason = str(error) if isinstance(error, SegmentFallbackError) else type(error).__name__
    logger.error("an event was not emitted: %s", reason, extra=log_fields("not_emitted", reason=reason))
    tally.add(Way.SERVER, Outcome.INVALID if isinstance(error, InvalidMessage) else Outcome.UNAVAILABLE)


def make_row(
    name: str, payload: Mapping[str, Any], event_id: str | None = None, occurred_at: datetime | None = None
) -> PendingEvent:
    """The event as a row that is not yet stored. Raises InvalidMessage."""
    if name != str(name) or not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise InvalidMessage("no_event", f"an event's name must be 1 to {MAX_NAME} printable characters")
    if event_id is not None and not (0 < len(event_id) <= 32 and event_id.isascii() and event_id.isprintable()):
        raise InvalidMessage("message_id", "event_id must be 1 to 32 printable ASCII characters")
    occurred_at = occurred_at or datetime.now(timezone.utc)
    if is_naive(occurred_at):
        occurred_at = make_aware(occurred_at, get_default_timezone())
    now = now_ms()
    return PendingEvent(
        event_id=event_id or new_message_id(),
        name=name,
        payload=encode(payload),
        caller=json.dumps(_caller(), separators=(",", ":")),
        occurred=(occurred_at - EPOCH) // timedelta(milliseconds=1),
        created=now,
        keep_id=event_id is not None,
        next_try=now,
    )


def _caller() -> dict[str, Any]:
    """Who made the request, or caused the event, that this comes from; nobody, where he is not to be counted."""
    now = ambient.current.get()
    fields = now.fields() if now else {}
    kept = {key: fields[key] for key in ("anonymousId", "userId", "context") if fields.get(key)}
    plain: dict[str, Any] = normalise(kept)
    return plain


def keep(row: PendingEvent, *, on_commit: bool = True, using: str = DEFAULT_DB_ALIAS) -> None:
    """Store the row as ``emit`` promises. Raises BufferUnavailable."""
    database = router.db_for_write(PendingEvent)
    inline = _has_inline_handlers(row.name)
    if inline:
        run.claim_unborn(row)

    def store() -> None:
        if _insert(row, database) and inline:
            # The handlers see what the transaction has written.
            transaction.on_commit(lambda: run.run_inline(row, database), using=database, robust=True)

    def store_or_report() -> None:
        try:
            store()
        except Exception as error:  # noqa: BLE001 - the transaction is over, and its caller done
            _report(error)

    connection = connections[database]
    if on_commit and using != database and connections[using].in_atomic_block:
        transaction.on_commit(store_or_report, using=using)
    elif on_commit or not connection.in_atomic_block or connection.vendor == "sqlite":
        store()
    else:
        _apart(store)


def _has_inline_handlers(name: str) -> bool:
    try:
        return any(handler.inline for handler in registry.matching(name))
    except Exception:
        if is_loud():
            raise
        extra = log_fields("handlers_unimportable")
        logger.exception("handlers could not be imported; the event waits for a worker that can", extra=extra)
        return False


def _insert(row: PendingEvent, database: str) -> bool:
    """Insert the row; whether its id is new."""
    rows = PendingEvent.objects.using(database)

    def insert() -> bool:
        try:
            # A savepoint: an error must not spoil a transaction of the caller's, who goes on without us.
            within = connections[database].in_atomic_block
            with transaction.atomic(using=database) if within else contextlib.nullcontext():
                row.save(force_insert=True, using=database)
        except IntegrityError:
            if not rows.filter(event_id=row.event_id).exists():
                raise
            return False
        return True

    return DatabaseBuffer(using=database).run(insert)


def _apart(work: Callable[[], None]) -> None:
    """Do the work in a thread: it has connections, and so transactions, of its own."""
    failed: list[BaseException] = []

    def worker() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - raised below, in the caller's thread
            failed.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=worker, name="segment_fallback.emit")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
