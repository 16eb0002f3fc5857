"""Does DatabaseBuffer become slower when a million messages wait? ``python -m benchmarks.buffers``

Puts one message, and claims a part and reads its first batch, with 1,000 and with 1,000,000 waiting rows, on SQLite
and on PostgreSQL. Both sizes are measured in turn, so that what else the machine does falls on both; the figures
are medians in milliseconds, and the ratio of the two.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import django
from django.core.management import call_command
from django.db import connections

BODY = b'{"type":"page","properties":{"title":"' + b"x" * 700 + b'"}}'
CHUNK = 10_000
GOAL = 1.1


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, nargs=2, default=[1_000, 1_000_000], help="the two numbers of rows")
    options.add_argument("--rounds", type=int, default=300, help="how often each is measured")
    arguments = options.parse_args()
    few, many = arguments.rows
    print(f"{'':12}{'':24}{few:>12,}{many:>12,}{'ratio':>8}")
    for name, databases in (("SQLite", sqlite), ("PostgreSQL", postgresql)):
        with databases(arguments.rows) as aliases:
            for work, medians in measure(aliases, arguments.rounds).items():
                ratio = medians[1] / medians[0]
                verdict = "" if ratio <= GOAL else f"  more than {GOAL}"
                print(f"{name:12}{work:24}{medians[0]:>9.3f} ms{medians[1]:>9.3f} ms{ratio:>8.2f}{verdict}")


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
    from segment_fallback.models import WaitingMessage

    aliases = [f"{name}-{size}" for size in sizes]
    for alias, entry, size in zip(aliases, entries, sizes, strict=True):
        connections.databases[alias] = {**connections.databases["default"], **entry}
        call_command("migrate", database=alias, verbosity=0)
        for start in range(0, size, CHUNK):
            rows = [
                WaitingMessage(message_id=f"{n * 2654435761 % 2**32:032x}", body=BODY, way="pixel", created=n)
                for n in range(start, min(start + CHUNK, size))
            ]
            WaitingMessage.objects.using(alias).bulk_create(rows)
        with connections[alias].cursor() as cursor:
            cursor.execute("ANALYZE")
            if connections[alias].vendor == "postgresql":
                cursor.execute("CHECKPOINT")  # what was written so far is not to be paid for while we measure
    try:
        yield aliases
    finally:
        for alias in aliases:
            connections[alias].close()


def measure(aliases: list[str], rounds: int) -> dict[str, list[float]]:
    """Median milliseconds of each piece of work, by alias."""
    from segment_fallback.buffers.base import Limits
    from segment_fallback.buffers.database import DatabaseBuffer
    from segment_fallback.message import Message, new_message_id

    buffers = [DatabaseBuffer(using=alias) for alias in aliases]

    def put(buffer: DatabaseBuffer) -> None:
        buffer.put([Message(new_message_id(), BODY)])

    def claim_and_first_batch(buffer: DatabaseBuffer) -> None:
        claim = buffer.claim(0)
        assert claim is not None  # noqa: S101 - nobody else is there
        with claim:
            next(claim.batches(Limits(max_count=100)))

    work: dict[str, Callable[[DatabaseBuffer], None]] = {
        "put": put,
        "claim and first batch": claim_and_first_batch,
    }
    times: dict[tuple[str, int], list[float]] = {key: [] for key in itertools.product(work, range(len(buffers)))}
    for number in range(rounds):
        order = range(len(buffers)) if number % 2 else reversed(range(len(buffers)))
        for index in order:
            for name, do in work.items():
                started = time.perf_counter()
                do(buffers[index])
                times[name, index].append((time.perf_counter() - started) * 1000)
    return {name: [statistics.median(times[name, index]) for index in range(len(buffers))] for name in work}


if __name__ == "__main__":
    main()
