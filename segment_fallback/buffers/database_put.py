"""The one statement by which a DatabaseBuffer stores the messages of a joined write.

By hand, not by the ORM, whose objects and many statements cost a visitor's request three times as much.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from django.db import connections, transaction

from segment_fallback.buffers.base import now_ms
from segment_fallback.message import Message, Way
from segment_fallback.models import WaitingMessage

if TYPE_CHECKING:
    from segment_fallback.buffers.database import DatabaseBuffer

ROWS = 100
"""Rows of one statement: below the 999 variables that SQLite takes by default."""

COLUMNS = ("message_id", "part", "body", "way", "source", "provisional", "not_before", "created")


def put(buffer: DatabaseBuffer, messages: Iterable[Message]) -> None:
    """Store the messages, each once; JavaScript's take the place of provisional ones that wait."""
    chosen = _once(messages)
    connection: Any = connections[buffer.using]
    rows, replaces = _rows(buffer, chosen, connection.Database.Binary), any(map(_replaces, chosen))

    def insert() -> None:
        with connection.cursor() as cursor:
            for start in range(0, len(rows), ROWS):
                page = rows[start : start + ROWS]
                sql = _insert(connection.vendor, len(page), replaces)
                cursor.execute(sql, [value for row in page for value in row])

    # A statement is a transaction of its own; but inside one of the caller's, an error of ours must not spoil it.
    if len(rows) <= ROWS and buffer.joins_writes():
        insert()
    elif rows:
        with transaction.atomic(using=buffer.using):
            insert()


def _replaces(message: Message) -> bool:
    return message.way is Way.JAVASCRIPT


def _once(messages: Iterable[Message]) -> list[Message]:
    """One message for each id, as if they had come one after another: PostgreSQL changes no row twice."""
    chosen: dict[str, Message] = {}
    for message in messages:
        waiting = chosen.setdefault(message.message_id, message)
        if waiting.provisional and _replaces(message):
            chosen[message.message_id] = message
    return list(chosen.values())


def _rows(buffer: DatabaseBuffer, messages: Sequence[Message], binary: Any) -> list[tuple[Any, ...]]:
    now = now_ms()
    return [
        (
            message.message_id,
            zlib.crc32(message.message_id.encode()) % buffer.parts,
            binary(message.body),
            message.way.value,
            message.source,
            message.provisional,
            now + round(message.hold * 1000) if message.hold else 0,
            now,
        )
        for message in messages
    ]


@functools.lru_cache(maxsize=4 * ROWS)
def _insert(vendor: str, rows: int, replaces: bool) -> str:
    """The statement for so many rows. ``replaces``: whether any of them takes the place of a provisional one."""
    table = WaitingMessage._meta.db_table
    values = ", ".join([f"({', '.join(['%s'] * len(COLUMNS))})"] * rows)
    head = f"INSERT INTO {table} ({', '.join(COLUMNS)}) VALUES"
    return f"{head} {values} {_otherwise(vendor, table, replaces)}"


def _otherwise(vendor: str, table: str, replaces: bool) -> str:
    """What happens to rows whose messageId is there already."""
    if vendor == "mysql":
        # Not INSERT IGNORE, which also cuts off what does not fit, and says nothing. Assignments are done from left
        # to right, and those after "provisional" would find it changed.
        new = f"{table}.provisional AND VALUES(way) = '{Way.JAVASCRIPT.value}'"
        given = [f"{name} = IF({new}, VALUES({name}), {table}.{name})" for name in ("body", "way", "source")]
        fixed = [f"{name} = IF({new}, 0, {table}.{name})" for name in ("not_before", "provisional")]
        changes = ", ".join([*given, *fixed]) if replaces else "message_id = VALUES(message_id)"
        return f"ON DUPLICATE KEY UPDATE {changes}"
    if not replaces:
        return "ON CONFLICT DO NOTHING"
    given = [f"{name} = excluded.{name}" for name in ("body", "way", "source")]
    changes = ", ".join([*given, "not_before = 0", "provisional = FALSE"])
    which = f"{table}.provisional AND excluded.way = '{Way.JAVASCRIPT.value}'"
    return f"ON CONFLICT (message_id) DO UPDATE SET {changes} WHERE {which}"
