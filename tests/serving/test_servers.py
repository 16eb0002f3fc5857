"""What was accepted is kept, under the servers that sites use, whatever becomes of these."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from django.db import connections, transaction
from pytest_django import DjangoDbBlocker

from segment_fallback.buffers.database import DatabaseBuffer
from segment_fallback.buffers.dynamodb import DynamoDBBuffer
from segment_fallback.management.commands.segment_table import create
from segment_fallback.message import Message
from segment_fallback.models import OutcomeCount, WaitingMessage
from segment_fallback.testing import Answer, LocalSegment
from tests.databases import database, empty
from tests.servers import DatabaseServer
from tests.serving.site import PYTHON, SERVERS, Site, Visitors, kill, wait_until
from tests.torture.proxy import Mode, Proxy


@pytest.fixture
def site(tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> Iterator[Site]:
    """The site on SQLite, set up as Django's documentation has it for a site with many writers."""
    settings = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(tmp_path / "site.sqlite3"),
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": "PRAGMA journal_mode=WAL"},
    }
    alias = f"site-{uuid4().hex}"
    with database(alias, settings, django_db_blocker):
        yield Site(tmp_path, alias, settings)


@pytest.fixture
def site_on_postgresql(
    tmp_path: Path, postgresql_server: DatabaseServer, django_db_blocker: DjangoDbBlocker
) -> Iterator[Site]:
    settings = {**postgresql_server.settings, "CONN_MAX_AGE": None}
    with database("served", settings, django_db_blocker) as alias:
        empty(alias)
        yield Site(tmp_path, alias, settings)


@pytest.mark.parametrize("server", SERVERS)
def test_hits_that_were_accepted_before_a_kill_are_kept(site: Site, server: str) -> None:
    with site.served_by(server) as process, Visitors(site) as visitors:
        visitors.wait_for(100)
        kill(process)
    assert set(visitors.accepted) - site.kept() == set()
    assert len(visitors.accepted) >= 100


@pytest.mark.parametrize("server", SERVERS)
def test_hits_that_were_accepted_until_a_graceful_end_are_kept(site_on_postgresql: Site, server: str) -> None:
    site = site_on_postgresql
    with site.served_by(server) as process, Visitors(site) as visitors:
        visitors.wait_for(100)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM), site.log
    assert set(visitors.accepted) - site.kept() == set()


def test_fork_shares_nothing_that_its_parent_has_made(site: Site) -> None:
    """Buffer, spool, tally and limiter were all in use when gunicorn forked."""
    with site.served_by("gunicorn preload", SERVING_TOUCH="1"):
        accepted = {site.hit() for _ in range(40)} - {None}
        assert len(accepted) == 40, site.log

        def counts() -> dict[str, int]:
            rows = OutcomeCount.objects.using(site.alias)
            return {row.way: sum(r.count for r in rows if r.way == row.way) for row in rows}

        expected = {"server": 1, "pixel": 40}
        wait_until(lambda: counts() == expected, lambda: f"counted {counts()}\n{site.log}")
    assert site.kept() == accepted | {"before-the-fork", "before-the-fork-too"}


@pytest.mark.parametrize("server", ["uvicorn", "granian asgi"])
def test_site_answers_while_hits_wait_for_the_database(site_on_postgresql: Site, server: str) -> None:
    site = site_on_postgresql
    with site.served_by(server), Visitors(site, threads=4) as visitors:
        visitors.wait_for(1)
        with transaction.atomic(using=site.alias), connections[site.alias].cursor() as cursor:
            cursor.execute(f"LOCK TABLE {WaitingMessage._meta.db_table} IN ACCESS EXCLUSIVE MODE")
            before = len(visitors.accepted)
            wait_until(lambda: locked(site) > 0, lambda: f"no hit waits\n{site.log}")
            for _ in range(5):
                assert site.get("/async/") == "here"
                assert site.get("/sync/") == "here"
            assert locked(site) > 0
        visitors.wait_for(before + 20)
    assert set(visitors.accepted) - site.kept() == set()


def locked(site: Site) -> int:
    """How many connections wait for a lock."""
    with connections[site.alias].cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM pg_locks WHERE NOT granted")
        return int(cursor.fetchone()[0])


def test_celery_worker_that_forks_delivers_all_though_one_before_it_was_killed(site_on_postgresql: Site) -> None:
    site = site_on_postgresql
    buffer = DatabaseBuffer(using=site.alias, parts=3)
    buffer.put([Message(f"m{n}", b'{"type":"page","messageId":"m%d"}' % n) for n in range(60)])
    with LocalSegment() as segment:
        backend = {"BACKEND": "segment_fallback.buffers.database.DatabaseBuffer", "OPTIONS": {"parts": 3}}
        site.settings = {"API_HOST": segment.url, "SEND_TIMEOUT": 0.5, "BUFFERS": {"default": backend}}
        celery = [*PYTHON, "celery", "--app", "tests.serving.project:app", "worker", "--pool", "prefork"]
        command = [*celery, "--concurrency", "2", "--beat", "--schedule", str(site.directory / "beat")]
        segment.answer_with(Answer.hang(60), times=None)
        with site.process(command):
            wait_until(lambda: bool(segment.requests), lambda: site.log)
        segment.answer_normally()
        with site.process(command):
            wait_until(lambda: buffer.depth() == 0, lambda: f"{buffer.depth()} wait\n{site.log}")
    assert sorted(str(received.message_id) for received in segment.distinct) == sorted(f"m{n}" for n in range(60))


def test_function_that_was_frozen_while_its_connection_was_cut_goes_on(site_on_postgresql: Site) -> None:
    site = site_on_postgresql
    with site.process([*PYTHON, "tests.serving.function"]) as function:
        for name in "abc":
            assert put(function, name) == "buffered"
            function.send_signal(signal.SIGSTOP)
            with connections[site.alias].cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
            function.send_signal(signal.SIGCONT)
        assert put(function, "d") == "buffered"
    assert site.kept() == set("abcd")


def test_function_that_was_frozen_goes_on_with_dynamodb(site: Site, dynamodb_local_url: str) -> None:
    credentials = {"aws_access_key_id": "tests", "aws_secret_access_key": "tests"}
    options = {"table": f"frozen-{uuid4().hex}", "region": "eu-west-1", "client": credentials}
    buffer = DynamoDBBuffer(endpoint_url=dynamodb_local_url, **options)  # type: ignore[arg-type]
    create(buffer)
    with Proxy(urlsplit(dynamodb_local_url).port or 80) as proxy:
        backend = "segment_fallback.buffers.dynamodb.DynamoDBBuffer"
        through = {**options, "endpoint_url": f"http://127.0.0.1:{proxy.port}"}
        site.settings = {"BUFFERS": {"default": {"BACKEND": backend, "OPTIONS": through}}}
        with site.process([*PYTHON, "tests.serving.function"]) as function:
            for name in "abc":
                assert put(function, name) == "buffered"
                function.send_signal(signal.SIGSTOP)
                with proxy.doing(Mode.REFUSE):
                    """Connections that are open now are reset."""
                function.send_signal(signal.SIGCONT)
            assert put(function, "d") == "buffered"
    assert buffer.depth() == 4


def put(function: subprocess.Popen[str], name: str) -> str:
    assert function.stdin
    assert function.stdout
    function.stdin.write(f"{name}\n")
    function.stdin.flush()
    return function.stdout.readline().strip()
