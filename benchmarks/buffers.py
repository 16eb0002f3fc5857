"""What an event costs a DatabaseBuffer in which a million wait: ``python -m benchmarks.buffers``

Milliseconds to put one message; to claim a part and read its first batch of 100; and for all that becomes of 100 of
them but for the network: put in one write, claimed, read and deleted. With 1,000 and with 1,000,000 waiting rows, on
SQLite and on PostgreSQL. Both sizes are measured in turn.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.management import call_command
from django.db import connections

from benchmarks.harness import Report, Result, in_turn, main
from segment_fallback.message import Message, new_message_id

if TYPE_CHECKING:
    from segment_fallback.buffers.base import Claim, Waiting
    from segment_fallback.buffers.database import DatabaseBuffer

BODY = b'{"type":"page","properties":{"title":"' + b"x" * 700 + b'"}}'
BATCH = 100
GOAL = 1.1

INSERT = """
    INSERT INTO segment_fallback_waitingmessage
    (message_id, part, body, way, source, provisional, not_before, created)
"""
FILL = {
    "sqlite": """
        WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < %(rows)s)
        SELECT printf('%%012x%%020x', n, n * 2654435761 %% 4294967296), 0, %(body)s, 'pixel', 'default', FALSE, 0, n
        FROM numbers
    """,
    "postgresql": """
        SELECT lpad(to_hex(n), 12, '0') || lpad(to_hex(n * 2654435761 %% 4294967296), 20, '0'),
               0, %(body)s, 'pixel', 'default', FALSE, 0, n
        FROM generate_series(1, %(rows)s::bigint) AS n
    """,
}
"""SQL that inserts so many rows, with messageIds in the form of ``new_message_id``; ours would take minutes."""


def measure(report: Report, arguments: argparse.Namespace) -> None:
    sizes = [arguments.few, arguments.many]
    for name, databases in (("SQLite", sqlite), ("PostgreSQL", postgresql)):
        with databases(sizes) as aliases:
            works = {"put": put, "claim, and read a batch": read, f"put, read and delete {BATCH}": deliver}
            for what, work in works.items():
                few, many = compare(work, aliases, arguments.rounds)
                told = f"{what} with {arguments.many:,} waiting, {name}"
                report.add(Result(told, f"with {arguments.few:,}", many, few, "ms", GOAL, at_most=True))


def compare(work: Callable[[DatabaseBuffer], None], aliases: list[str], rounds: int) -> list[float]:
    """Median milliseconds of the work in each of the databases."""
    from segment_fallback.buffers.database import DatabaseBuffer

    def timed(buffer: DatabaseBuffer) -> float:
        started = time.perf_counter()
        work(buffer)
        return (time.perf_counter() - started) * 1000

    buffers = {alias: DatabaseBuffer(using=alias) for alias in aliases}
    contenders = {alias: functools.partial(timed, buffer) for alias, buffer in buffers.items()}
    medians = in_turn(contenders, rounds)
    return [medians[alias] for alias in aliases]


def put(buffer: DatabaseBuffer) -> None:
    buffer.put([new()])


def read(buffer: DatabaseBuffer) -> None:
    with claimed(buffer) as claim:
        first_batch(claim)


def deliver(buffer: DatabaseBuffer) -> None:
    """What becomes of a hundred events, but for the network; as many wait afterwards as before."""
    buffer.put([new() for _ in range(BATCH)])
    with claimed(buffer) as claim:
        claim.ack(first_batch(claim))


def claimed(buffer: DatabaseBuffer) -> Claim:
    claim = buffer.claim(0)
    if claim is None:
        raise SystemExit("somebody else flushes the benchmark's database")
    return claim


def first_batch(claim: Claim) -> list[Waiting]:
    from segment_fallback.buffers.base import Limits

    return next(claim.batches(Limits(max_count=BATCH)))


def new() -> Message:
    return Message(new_message_id(), BODY)


@contextlib.contextmanager
def sqlite(sizes: list[int]) -> Iterator[list[str]]:
    """A database a size, in files, set up as Django's documentation has it for production."""
    options = {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL"}
    with tempfile.TemporaryDirectory() as directory:
        engine = "django.db.backends.sqlite3"
        entries = [{"ENGINE": engine, "NAME": str(Path(directory) / f"{n}"), "OPTIONS": options} for n in sizes]
        with filled("sqlite", entries, sizes) as aliases:
            yield aliases


@contextlib.contextmanager
def postgresql(sizes: list[int]) -> Iterator[list[str]]:
    """A database a size, on one server that has been given nothing but its defaults."""
    from tests.servers import postgresql as server

    with server() as running:
        connections.databases["maintenance"] = {**connections.databases["default"], **running.settings}
        with connections["maintenance"].cursor() as cursor:
            for size in sizes:
                cursor.execute(f"CREATE DATABASE rows_{size}")
        connections["maintenance"].close()
        entries = [{**running.settings, "NAME": f"rows_{size}"} for size in sizes]
        with filled("postgresql", entries, sizes) as aliases:
            yield aliases


@contextlib.contextmanager
def filled(name: str, entries: list[dict[str, Any]], sizes: list[int]) -> Iterator[list[str]]:
    """The aliases of these databases, each with so many waiting messages."""
    aliases = [f"{name}-{size}" for size in sizes]
    for alias, entry, size in zip(aliases, entries, sizes, strict=True):
        connections.databases[alias] = {**connections.databases["default"], **entry}
        call_command("migrate", database=alias, verbosity=0)
        vendor = connections[alias].vendor
        with connections[alias].cursor() as cursor:
            cursor.execute(INSERT + FILL[vendor], {"rows": size, "body": BODY})
            cursor.execute("ANALYZE")
            if vendor == "postgresql":
                cursor.execute("CHECKPOINT")  # what was written so far is not to be paid for while we measure
    try:
        yield aliases
    finally:
        for alias in aliases:
            connections[alias].close()


if __name__ == "__main__":
    main("buffers", "What an event costs while many wait", measure, rounds=200, few=1_000, many=1_000_000)
