"""How fast waiting messages reach Segment, beside the SDK's own client: ``python -m benchmarks.flush``

Ours: the rows of a DatabaseBuffer (SQLite in a file with WAL, PostgreSQL as it is installed) are flushed, from the
claim to the last row's end. Theirs: as many calls of segment-analytics-python's Client with its defaults, but for a
queue that takes them all, from the first call until its ``flush`` has returned; its messages wait in memory. Both
send the same page views to the same receiver, a process of its own, which counts at the end of each round that every
messageId has come, once. Then the same with ``--latency`` milliseconds for each of the receiver's answers; and how
much memory a flush takes, ``--many`` messages beside 10,000, each in a process of its own.

``--profile 1`` writes where the time of a flush from SQLite goes to results/profiles/flush.txt.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import django
from django.core.management import call_command
from django.db import connections
from django.test import override_settings

from benchmarks.harness import RESULTS, Report, Result, in_turn, main
from benchmarks.receiver import Receiver, receiver

WRITE_KEY = "benchmark-write-key"
ID = "@id@"
PAGE = {
    "path": "/products/a-very-good-product/",
    "referrer": "https://www.example.com/search?q=product",
    "search": "?utm_source=newsletter",
    "title": "A very good product",
    "url": "https://shop.example.com/products/a-very-good-product/?utm_source=newsletter",
}
CONTEXT = {
    "ip": "203.0.113.7",
    "userAgent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36",
    "locale": "en-GB",
    "page": PAGE,
    "campaign": {"source": "newsletter"},
}
PROPERTIES = {**PAGE, "category": "products"}
FEW = 10_000
CHUNK = 500
"""Rows that one INSERT brings."""
SHARE = 5
"""The SDK sends so many times fewer messages, of which each takes it longer."""
GOALS = {"SQLite": 10, "PostgreSQL": 6}
FAR_GOAL = 20
MEMORY_GOAL = 1.2


def measure(report: Report, options: argparse.Namespace) -> None:
    with databases() as entries:
        if options.profile:
            profile(entries["SQLite"], options.rows)
        compare(report, options, entries, GOALS, 0)
        compare(report, options, entries, dict.fromkeys(GOALS, FAR_GOAL), options.latency)
        memory(report, options.many, entries)


def compare(
    report: Report, options: argparse.Namespace, entries: Mapping[str, Any], goals: Mapping[str, int], latency: float
) -> None:
    """Events a second, of ours and of the SDK."""
    with receiver(latency / 1000) as segment, settings(segment):
        contenders: dict[str, Callable[[], float]] = {
            name: partial(flushed, entry, options.rows, segment) for name, entry in entries.items()
        }
        contenders["SDK"] = lambda: sent_by_sdk(options.rows // SHARE, segment)
        medians = in_turn(contenders, options.rounds)
    what = f" and {latency:.0f} ms latency" if latency else ""
    for name, goal in goals.items():
        title = f"{options.rows:,} from {name}{what}"
        report.add(Result(title, "the SDK", medians[name], medians["SDK"], "/s", goal))


# Ours.


def settings(segment: Receiver) -> override_settings:
    return override_settings(
        SEGMENT_FALLBACK={
            "WRITE_KEY": WRITE_KEY,
            "API_HOST": segment.url,
            "FLUSH_BUDGET": 3_600.0,
            "SPOOL": "spool",
            "CAPTURE_SDK": False,
        }
    )


def flushed(entry: Mapping[str, Any], rows: int, segment: Receiver) -> float:
    """Events a second of one flush of so many rows."""
    fill(entry, rows)
    gc.collect()
    began = time.perf_counter()
    flush(rows)
    took = time.perf_counter() - began
    segment.expect(rows)
    return rows / took


def flush(rows: int) -> None:
    """Flush the default database, which has so many."""
    from segment_fallback.delivery.flush import flush as flush_all

    report = flush_all()
    if report.delivered != rows or report.trouble:
        raise RuntimeError(str(report))


@contextlib.contextmanager
def databases() -> Iterator[dict[str, dict[str, Any]]]:
    """Their entries in Django's DATABASES, by name, with our tables."""
    from tests.servers import postgresql

    options = {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL"}
    with tempfile.TemporaryDirectory() as directory, postgresql() as server:
        file = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(Path(directory) / "db"), "OPTIONS": options}
        entries = {"SQLite": file, "PostgreSQL": {**server.settings}}
        for entry in entries.values():
            choose(entry)
            call_command("migrate", verbosity=0)
        yield entries
        connections["default"].close()


def choose(entry: Mapping[str, Any]) -> None:
    """Make this the default database, on a new connection."""
    connections["default"].close()
    del connections["default"]
    connections.databases["default"] = {**connections.databases["default"], "OPTIONS": {}, **entry}


def fill(entry: Mapping[str, Any], rows: int) -> None:
    """Let so many messages wait in the database, which becomes the default one."""
    from segment_fallback.message import encode
    from segment_fallback.models import WaitingMessage

    choose(entry)
    body = encode({**message(ID), "timestamp": datetime.now(timezone.utc)}).body
    created = time.time_ns() // 1_000_000
    table = WaitingMessage._meta.db_table
    columns = "message_id, part, body, way, source, provisional, not_before, created"
    row = f"(%s, 0, %s, 'pixel', 'default', FALSE, 0, {created})"
    with connections["default"].cursor() as cursor:
        for ids in in_chunks(rows):
            values = ", ".join([row] * len(ids))
            bodies = (body.replace(ID.encode(), each.encode()) for each in ids)
            cursor.execute(
                f"INSERT INTO {table} ({columns}) VALUES {values}",  # noqa: S608 - all of it is ours
                list(itertools.chain.from_iterable(zip(ids, bodies, strict=True))),
            )
        cursor.execute("ANALYZE")
        if connections["default"].vendor == "postgresql":
            cursor.execute("CHECKPOINT")  # what was written so far is not to be paid for while we measure


def in_chunks(rows: int) -> Iterator[list[str]]:
    """So many new messageIds, which come in no order, as random ones do."""
    round_ = time.time_ns()
    for start in range(0, rows, CHUNK):
        chunk = range(start, min(start + CHUNK, rows))
        yield [f"ajs-next-{n * 2654435761 % 2**32:08x}{round_:024x}" for n in chunk]


def message(message_id: str) -> dict[str, Any]:
    """A page view as it is stored."""
    return {
        "type": "page",
        "messageId": message_id,
        "anonymousId": "c3ab8ff1-3720-4d1a-b1f6-8a2f4e1f2a17",
        "name": "Product",
        "category": "products",
        "properties": PROPERTIES,
        "context": {**CONTEXT, "library": {"name": "analytics.js", "version": "npm:next-1.70.0"}},
        "integrations": {},
    }


# Theirs.


def sent_by_sdk(number: int, segment: Receiver) -> float:
    """Events a second of the SDK's client."""
    from segment.analytics.client import Client

    ids = list(itertools.chain.from_iterable(in_chunks(number)))
    gc.collect()
    client = Client(WRITE_KEY, host=segment.url, max_queue_size=number)
    began = time.perf_counter()
    for message_id in ids:
        client.page(
            anonymous_id="c3ab8ff1-3720-4d1a-b1f6-8a2f4e1f2a17",
            category="products",
            name="Product",
            properties=PROPERTIES,
            context={**CONTEXT},
            timestamp=datetime.now(timezone.utc),
            message_id=message_id,
        )
    client.flush()
    took = time.perf_counter() - began
    client.shutdown()
    segment.expect(number)
    return number / took


# Memory, and where the time goes.


def memory(report: Report, many: int, entries: Mapping[str, Any]) -> None:
    """The memory that a flush adds to its process, at most."""
    with receiver() as segment:
        for name, entry in entries.items():
            grown = {}
            for rows in (FEW, many):
                with settings(segment):
                    fill(entry, rows)
                grown[rows] = in_new_process(entry, rows, segment)
                segment.expect(rows)
            what = f"memory of a flush of {many:,} from {name}"
            report.add(Result(what, f"of {FEW:,}", grown[many], grown[FEW], "MB", MEMORY_GOAL, at_most=True))


def in_new_process(entry: Mapping[str, Any], rows: int, segment: Receiver) -> float:
    """Megabytes by which a flush lets its process grow, at most."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=grow, args=(there, entry, rows, segment.url))
    process.start()
    there.close()
    try:
        grown: float = here.recv()
    finally:
        process.join()
    return grown


def grow(pipe: Connection, entry: Mapping[str, Any], rows: int, url: str) -> None:
    """In the new process: flush, and say how much it has grown."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    with settings(Receiver(url, pipe)):
        choose(entry)
        before = peak()
        flush(rows)
        pipe.send(peak() - before)


def peak() -> float:
    """The most memory that this process has had, in megabytes. Linux only: getrusage's figure is that of the parent,
    where that was larger."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def profile(entry: Mapping[str, Any], rows: int) -> None:
    """Write where the time of a flush goes."""
    from pyinstrument import Profiler

    with receiver() as segment, settings(segment):
        flushed(entry, rows, segment)
        fill(entry, rows)
        profiler = Profiler()
        with profiler:
            flush(rows)
        segment.expect(rows)
    place = RESULTS / "profiles" / "flush.txt"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(profiler.output_text().replace(f"{Path.cwd()}{os.sep}", ""), encoding="utf-8")


if __name__ == "__main__":
    OPTIONS = {"rows": 50_000, "rounds": 2, "latency": 50.0, "many": 1_000_000, "profile": 0}
    main("flush", "A flush beside the SDK's client", measure, **OPTIONS)
