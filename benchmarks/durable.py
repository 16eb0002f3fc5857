"""What it costs that a pixel is durable when it is answered: ``python -m benchmarks.durable``

The whole pixel, signed, checked, and stored before its answer, under granian WSGI and gunicorn with threads: in SQLite
and in PostgreSQL beside a bare view that answers the same image behind Django's default middleware; in DynamoDB Local
beside the same pixel with one PutItem a request. One process with 16 threads each, 32 connections of wrk's. SQLite
writes a log ahead (WAL) and, as PostgreSQL by default, waits for the disk at each commit. DynamoDB Local is a program
in Java on the same processors: what it costs an item counts on both sides. "packed" is what one item a joined write
would gain, which is an option that we do not offer.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness import Report, Result, in_turn, main

SERVERS = {"granian wsgi": "granian wsgi 16 threads", "gunicorn threads": "gunicorn 16 threads"}
CONNECTIONS = 32
DATABASE = {"BUFFERS": {"default": {"BACKEND": "segment_fallback.buffers.database.DatabaseBuffer"}}}
DYNAMODB = {
    "single": "benchmarks.single_puts.SinglePutsBuffer",
    "joined": "segment_fallback.buffers.dynamodb.DynamoDBBuffer",
    "packed": "benchmarks.packed_puts.PackedPutsBuffer",
}
PRAGMAS = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL"

Contender = tuple[str, Mapping[str, Any]]
"""What wrk asks for, and the arguments of ``site``."""


def measure(report: Report, options: argparse.Namespace) -> None:
    from benchmarks.sites import BARE, OURS, PIXEL

    with databases() as (sqlite, postgresql):
        for name, server in SERVERS.items():
            contenders: dict[str, Contender] = {
                "bare": (BARE, {}),
                "SQLite": (PIXEL, {"first": OURS, "settings": DATABASE, "database": sqlite}),
                "PostgreSQL": (PIXEL, {"first": OURS, "settings": DATABASE, "database": postgresql}),
            }
            figures = compare(server, contenders, options)
            for what, goal in (("SQLite", 1.0), ("PostgreSQL", 0.8)):
                ours = f"pixel, durable in {what}, {name}"
                report.add(Result(ours, "bare view", figures[what], figures["bare"], "requests/s", goal))
    with dynamodb() as settings:
        for name, server in SERVERS.items():
            figures = compare(
                server, {which: (PIXEL, {"first": OURS, "settings": settings[which]}) for which in settings}, options
            )
            ours = f"pixel, durable in DynamoDB Local, {name}"
            report.add(Result(ours, "one PutItem each", figures["joined"], figures["single"], "requests/s", goal=4))
            share = figures["packed"] / figures["single"]
            report.note(f"{name}: packed {figures['packed']:,.0f} requests/s, {share:.3g} times one PutItem each")


def compare(server: str, contenders: Mapping[str, Contender], options: argparse.Namespace) -> dict[str, float]:
    """Requests a second, by contender."""
    from benchmarks.sites import site

    with contextlib.ExitStack() as sites:
        loads: dict[str, Callable[[], float]] = {}
        for name, (what, arguments) in contenders.items():
            served = sites.enter_context(site(server, **arguments))
            loads[name] = functools.partial(served.load, what, options.seconds, CONNECTIONS)
        return in_turn(loads, options.rounds)


@contextlib.contextmanager
def databases() -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """The entries in DATABASES of an SQLite file, and of a PostgreSQL server with nothing but its defaults."""
    from tests.servers import postgresql

    with tempfile.TemporaryDirectory() as folder, postgresql() as server:
        options = {"transaction_mode": "IMMEDIATE", "init_command": PRAGMAS}
        sqlite = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(Path(folder, "db")), "OPTIONS": options}
        # Connections are kept, as a site that cares for its speed has it.
        kept: list[Mapping[str, Any]] = [{**entry, "CONN_MAX_AGE": 600} for entry in (sqlite, server.settings)]
        for entry in kept:
            migrate(entry)
        yield kept[0], kept[1]


def migrate(database: Mapping[str, Any]) -> None:
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "benchmarks.project",
        "BENCHMARK_DATABASE": json.dumps(database),
    }
    command = [sys.executable, "-m", "django", "migrate", "--verbosity", "0"]
    subprocess.run(command, env=environment, check=True)  # noqa: S603 - ours


@contextlib.contextmanager
def dynamodb() -> Iterator[Mapping[str, Mapping[str, Any]]]:
    """Settings by contender, each with tables of its own in one DynamoDB Local."""
    from segment_fallback.buffers.dynamodb import DynamoDBBuffer
    from segment_fallback.management.commands.segment_table import create
    from tests.servers import dynamodb_local

    os.environ.update(AWS_ACCESS_KEY_ID="benchmark", AWS_SECRET_ACCESS_KEY="benchmark")  # noqa: S106 - of nobody
    with dynamodb_local() as url:
        settings: dict[str, Mapping[str, Any]] = {}
        for name, backend in DYNAMODB.items():
            table: dict[str, Any] = {"table": f"benchmark-{name}", "region": "eu-central-1", "endpoint_url": url}
            create(DynamoDBBuffer(**table))
            settings[name] = {"BUFFERS": {"default": {"BACKEND": backend, "OPTIONS": table}}}
        yield settings


if __name__ == "__main__":
    main("durable", "Requests a second of a pixel that is durable when it is answered", measure, rounds=3, seconds=3)
