"""The real buffers that are tortured, each with its own ways to fail, and a look inside that does not ask the app."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import psycopg
import pymysql

from tests.servers import DatabaseServer, dynamodb_local, mariadb, postgresql
from tests.torture.proxy import Mode, Proxy

WAITING, DEAD, AWAY = "segment_fallback_waitingmessage", "segment_fallback_deadletter", "taken_away"
Fault = Callable[[], AbstractContextManager[object]]


@dataclass
class Backend:
    """A buffer that runs. ``databases`` and ``buffers``: settings of the site."""

    databases: Mapping[str, Any]
    buffers: Mapping[str, Any]
    setup: tuple[str, ...]
    """The management command that makes the tables."""
    look: Callable[[], tuple[list[str], list[str]]]
    """The messageIds that wait, and those of the dead letters."""
    faults: Mapping[str, Fault]
    """What can be done to it for a while."""


@contextlib.contextmanager
def sqlite(directory: Path) -> Iterator[Backend]:
    """A file, with the settings that Django has by default, but for the patience."""
    path = directory / "site.sqlite3"
    connect = partial(sqlite3.connect, path, timeout=10, isolation_level=None)
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path), "OPTIONS": {"timeout": 1}}

    @contextlib.contextmanager
    def locked() -> Iterator[None]:
        with contextlib.closing(connect()) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            yield
            connection.execute("ROLLBACK")

    yield _sql(database, connect, {"locked": locked})


@contextlib.contextmanager
def postgres(directory: Path) -> Iterator[Backend]:
    """PostgreSQL, by way of a proxy."""
    with postgresql() as server:
        yield from _server(server, psycopg.connect, "dbname")


@contextlib.contextmanager
def maria(directory: Path) -> Iterator[Backend]:
    """MariaDB, by way of a proxy."""
    with mariadb() as server:
        yield from _server(server, pymysql.connect, "database")


@contextlib.contextmanager
def dynamodb(directory: Path) -> Iterator[Backend]:
    """DynamoDB Local, by way of a proxy: what it holds would not survive a stop."""
    keys: dict[str, Any] = {"aws_access_key_id": "torture", "aws_secret_access_key": "torture"}
    with dynamodb_local() as url, Proxy(urlsplit(url).port or 0) as proxy:
        client = boto3.client("dynamodb", endpoint_url=url, region_name="us-east-1", **keys)

        def look() -> tuple[list[str], list[str]]:
            def ids(table: str) -> list[str]:
                pages = client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
                items = [item for page in pages for item in page["Items"]]
                return [item["messageId"]["S"] for item in items if "messageId" in item]

            return ids("torture"), ids("torture-state")

        options = {
            "endpoint_url": f"http://127.0.0.1:{proxy.port}",
            "region": "us-east-1",
            "table": "torture",
            "parts": 3,
            "client": keys,
        }
        yield Backend(
            {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
            {"default": {"BACKEND": "segment_fallback.buffers.dynamodb.DynamoDBBuffer", "OPTIONS": options}},
            ("segment_table", "--create"),
            look,
            _network_faults(proxy),
        )


BACKENDS: Mapping[str, Callable[[Path], AbstractContextManager[Backend]]] = {
    "sqlite": sqlite,
    "postgresql": postgres,
    "mariadb": maria,
    "dynamodb": dynamodb,
}


def _server(server: DatabaseServer, connect: Callable[..., Any], name: str) -> Iterator[Backend]:
    settings = server.settings
    host, port, user = settings["HOST"], settings["PORT"], settings["USER"]

    @contextlib.contextmanager
    def stopped() -> Iterator[None]:
        server.stop()
        yield
        server.start()

    with Proxy(port) as proxy:
        yield _sql(
            {**settings, "HOST": host, "PORT": proxy.port},
            partial(connect, host=host, port=port, user=user, autocommit=True, **{name: settings["NAME"]}),
            {**_network_faults(proxy), "stopped": stopped},
        )


def _sql(database: Mapping[str, Any], connect: Callable[[], Any], faults: Mapping[str, Fault]) -> Backend:
    def execute(*statements: str) -> list[list[str]]:
        with contextlib.closing(connect()) as connection, contextlib.closing(connection.cursor()) as cursor:
            answers = []
            for statement in statements:
                cursor.execute(statement)
                answers.append([row[0] for row in cursor.fetchall()] if cursor.description else [])
            return answers

    @contextlib.contextmanager
    def without_table() -> Iterator[None]:
        execute(f"ALTER TABLE {WAITING} RENAME TO {AWAY}")
        yield
        execute(f"ALTER TABLE {AWAY} RENAME TO {WAITING}")

    def look() -> tuple[list[str], list[str]]:
        waiting, dead = execute(f"SELECT message_id FROM {WAITING}", f"SELECT message_id FROM {DEAD}")  # noqa: S608
        return waiting, dead

    buffer = {"BACKEND": "segment_fallback.buffers.database.DatabaseBuffer", "OPTIONS": {"parts": 2}}
    return Backend(
        {"default": database},
        {"default": buffer},
        ("migrate", "--verbosity", "0"),
        look,
        {**faults, "without its table": without_table},
    )


def _network_faults(proxy: Proxy) -> dict[str, Fault]:
    return {
        "unreachable": partial(proxy.doing, Mode.REFUSE),
        "answers cut off": partial(proxy.doing, Mode.CUT),
        "silent": partial(proxy.doing, Mode.STALL),
    }
