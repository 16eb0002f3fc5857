"""DatabaseBuffer where databases show their teeth: collisions, lost connections, and a million rows."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import Error, connections, transaction
from django.test.utils import CaptureQueriesContext

from segment_fallback.buffers import database as module
from segment_fallback.buffers.base import TransactionBroken, now_ms
from segment_fallback.buffers.database import DatabaseBuffer
from segment_fallback.buffers.database_claim import PAGE
from segment_fallback.exceptions import BufferUnavailable
from segment_fallback.message import Message
from segment_fallback.models import WaitingMessage
from tests.buffers.contract import HOUR, at_once, claimed, event, javascript, names, pixel, waiting
from tests.databases import empty
from tests.servers import DatabaseServer

SERVERS = ["postgresql", "mariadb"]
ALL = ["sqlite", *SERVERS]


@pytest.fixture
def alias(request: pytest.FixtureRequest) -> str:
    alias: str = request.getfixturevalue(request.param)
    empty(alias)
    return alias


@pytest.fixture
def buffer(alias: str) -> DatabaseBuffer:
    return DatabaseBuffer(using=alias)


def on(*aliases: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("alias", aliases, indirect=True)


# collisions

COLLIDE = {
    "postgresql": "DO $$ BEGIN RAISE EXCEPTION 'told by the test' USING ERRCODE = '{}'; END $$",
    "mariadb": "SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = {}, MESSAGE_TEXT = 'told by the test'",
}


class Collisions:
    """Raises a real error of the database's in place of the first statements that contain a word."""

    def __init__(self, statement: str, word: str, times: int) -> None:
        self.statement, self.word, self.times = statement, word, times

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if self.word in sql and self.times:
            self.times -= 1
            return execute(self.statement, None, False, context)
        return execute(sql, params, many, context)


@pytest.mark.parametrize(
    ("alias", "code"),
    [(a, c) for a, c in zip(SERVERS * 2, ["40P01", 1213, "40001", 1020], strict=True)],
    indirect=["alias"],
)
@pytest.mark.parametrize("word", ["INSERT", "UPDATE"])
def test_put_that_collides_is_tried_again(buffer: DatabaseBuffer, alias: str, code: object, word: str) -> None:
    buffer.put([pixel("b")])
    with connections[alias].execute_wrapper(Collisions(COLLIDE[alias].format(code), word, 3)):
        buffer.put([javascript("a"), javascript("b")])
    assert [(message.message_id, message.way) for message in waiting(buffer)] == [
        ("b", "javascript"),
        ("a", "javascript"),
    ]


@on(*SERVERS)
def test_collisions_without_end_are_an_error(
    buffer: DatabaseBuffer, alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TRIES", 3)
    collisions = Collisions(COLLIDE[alias].format({"postgresql": "40P01", "mariadb": 1213}[alias]), "INSERT", 100)
    with connections[alias].execute_wrapper(collisions), pytest.raises(BufferUnavailable, match="told by the test"):
        buffer.put([event()])
    assert collisions.times == 97


@on(*SERVERS)
def test_collision_within_a_transaction_of_the_callers_is_not_repeated(buffer: DatabaseBuffer, alias: str) -> None:
    collisions = Collisions(COLLIDE[alias].format({"postgresql": "40P01", "mariadb": 1213}[alias]), "INSERT", 1)
    with connections[alias].execute_wrapper(collisions), transaction.atomic(using=alias):
        with pytest.raises(BufferUnavailable):
            buffer.put([event("lost")])
        buffer.put([event("kept")])
    assert names(waiting(buffer)) == ["kept"]


@on(*ALL)
def test_transaction_that_will_be_rolled_back_is_no_fault_of_the_buffers(buffer: DatabaseBuffer, alias: str) -> None:
    with transaction.atomic(using=alias):
        transaction.set_rollback(True, using=alias)
        with pytest.raises(TransactionBroken):
            buffer.put([event("lost")])
    buffer.put([event("kept")])
    assert names(waiting(buffer)) == ["kept"]


@on("postgresql")
def test_transaction_that_an_error_has_broken_is_no_fault_of_the_buffers(buffer: DatabaseBuffer, alias: str) -> None:
    with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
        with pytest.raises(Error):
            cursor.execute("SELECT 1 / 0")
        with pytest.raises(TransactionBroken):
            buffer.put([event("lost")])
        transaction.set_rollback(True, using=alias)
    buffer.put([event("kept")])
    assert names(waiting(buffer)) == ["kept"]


@on("sqlite")
def test_sqlite_that_refuses_a_lock_at_once_is_asked_again(
    buffer: DatabaseBuffer, alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = sqlite3.connect(connections.databases[alias]["NAME"], isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            other.execute("ROLLBACK")

    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    with connections[alias].cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout = 0")
        buffer.put([event()])
        cursor.execute("PRAGMA busy_timeout = 5000")
    other.close()
    assert (len(pauses), buffer.depth()) == (3, 1)


@on(*ALL)
def test_puts_acks_and_counts_in_each_others_way_lose_nothing(buffer: DatabaseBuffer, alias: str) -> None:
    """The same pixels and JavaScript events in any order, by many writers, and a flusher that takes them away."""
    every = [f"{number:02}" for number in range(30)]
    accepted = {(HOUR, way, "accepted"): 1 for way in ("pixel", "javascript", "noscript")}
    taken: list[str] = []

    def work(number: int) -> None:
        shuffled = random.Random(number)  # noqa: S311 - the same disorder each time
        for _ in range(10):
            if number == 0:
                with claimed(DatabaseBuffer(using=alias)) as claim:
                    batch = list(claim.messages())
                    taken.extend(message.message_id for message in batch)
                    shuffled.shuffle(batch)
                    claim.ack(batch)
            else:
                make = [pixel, javascript][number % 2]
                some = shuffled.sample(every, 20)
                DatabaseBuffer(using=alias).put([make(name) for name in some])
                items = list(accepted.items())
                shuffled.shuffle(items)
                buffer.add_outcome_counts(dict(items))

    at_once(work, 5)
    assert set(taken) | set(names(waiting(buffer))) == set(every)
    assert buffer.outcome_counts() == dict.fromkeys(accepted, 40)


# what does not fit


@on(*SERVERS)
@pytest.mark.parametrize("message", [event("x" * 120), event("x", source="y" * 60)], ids=["messageId", "source"])
def test_what_does_not_fit_is_an_error_and_not_cut_off(buffer: DatabaseBuffer, message: Message) -> None:
    with pytest.raises(BufferUnavailable, match="too long"):
        buffer.put([message])
    assert buffer.depth() == 0


@on(*ALL)
def test_database_of_any_character_set_keeps_the_bytes(buffer: DatabaseBuffer) -> None:
    body = bytes(range(256)) * 120
    buffer.put([Message("m", body)])
    with claimed(buffer) as claim:
        batch = list(claim.messages())
        assert type(batch[0].body) is bytes
        assert [message.body for message in batch] == [body]
        claim.bury(batch, "no", 1)
    assert [letter.message.body for letter in buffer.dead_letters()] == [body]


# lost connections


@pytest.fixture
def server(alias: str, request: pytest.FixtureRequest) -> Iterator[DatabaseServer]:
    server: DatabaseServer = request.getfixturevalue(f"{alias}_server")
    yield server
    if not server.is_ready():
        server.start()


def disconnect(alias: str) -> None:
    """The server ends the connection; the client does not know yet."""
    this, other = connections[alias], connections[alias].copy()
    other.inc_thread_sharing()
    with this.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()" if this.vendor == "postgresql" else "SELECT CONNECTION_ID()")
        (number,) = cursor.fetchone()
    with other.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(%s)" if this.vendor == "postgresql" else "KILL CONNECTION %s", [number]
        )
    other.close()


@on(*SERVERS)
def test_connection_that_was_cut_is_made_anew(buffer: DatabaseBuffer, alias: str) -> None:
    cut = disconnect
    buffer.put([event("a"), pixel("p")])
    cut(alias)
    buffer.put([event("b"), javascript("p")])
    cut(alias)
    claim = claimed(buffer)
    found = list(claim.messages())
    cut(alias)
    claim.renew()
    cut(alias)
    claim.ack(found[:1])
    cut(alias)
    claim.bury(found[1:2], "no", 1)
    cut(alias)
    assert names(list(claim.messages())) == ["b"]
    cut(alias)
    assert [letter.message.message_id for letter in buffer.dead_letters()] == ["p"]
    cut(alias)
    claim.back_off(0)
    cut(alias)
    buffer.add_outcome_counts({(HOUR, "pixel", "accepted"): 1})
    cut(alias)
    assert (buffer.depth(), buffer.outcome_counts()) == (1, {(HOUR, "pixel", "accepted"): 1})


@on(*SERVERS)
def test_server_that_was_restarted_between_two_puts(buffer: DatabaseBuffer, server: DatabaseServer) -> None:
    buffer.put([event("a")])
    claim = claimed(buffer)
    server.restart()
    buffer.put([event("b")])
    server.restart()
    claim.ack(list(claim.messages()))
    assert buffer.depth() == 0


@on(*SERVERS)
def test_server_that_is_down_is_unavailable_until_it_is_up(buffer: DatabaseBuffer, server: DatabaseServer) -> None:
    buffer.put([event("a")])
    server.stop()
    for _ in range(2):
        with pytest.raises(BufferUnavailable, match=r"the database .* failed"):
            buffer.put([event("b")])
    server.start()
    buffer.put([event("c")])
    assert names(waiting(buffer)) == ["a", "c"]


@on(*SERVERS)
def test_connection_lost_within_a_transaction_of_the_callers_is_not_hidden(buffer: DatabaseBuffer, alias: str) -> None:
    def transact() -> None:
        with transaction.atomic(using=alias):
            buffer.put([event("a")])
            disconnect(alias)
            with pytest.raises(BufferUnavailable):
                buffer.put([event("b")])

    with pytest.raises(Error):
        transact()
    buffer.put([event("c")])
    assert names(waiting(buffer)) == ["c"]


@on(*SERVERS)
def test_thread_without_autocommit_writes_for_nobody_else(buffer: DatabaseBuffer, alias: str) -> None:
    assert buffer.joins_writes()
    transaction.set_autocommit(False, using=alias)
    try:
        assert not buffer.joins_writes()
        buffer.put([event()])
        transaction.rollback(using=alias)
    finally:
        transaction.set_autocommit(True, using=alias)
    assert buffer.depth() == 0


# scale

ROWS = 20_000


@pytest.fixture
def crowded(alias: str, buffer: DatabaseBuffer) -> DatabaseBuffer:
    """A buffer of four parts where many messages wait, an equal share in each."""
    rows = [
        WaitingMessage(message_id=f"m{n}", part=n % 4, body=b"{}", way="pixel", provisional=True, created=now_ms())
        for n in range(ROWS)
    ]
    WaitingMessage.objects.using(alias).bulk_create(rows, batch_size=2_000)
    with connections[alias].cursor() as cursor:
        table = WaitingMessage._meta.db_table
        cursor.execute({"sqlite": "ANALYZE"}.get(alias, f"ANALYZE {'TABLE ' * (alias == 'mariadb')}{table}"))
        cursor.fetchall() if alias == "mariadb" else None
    return DatabaseBuffer(using=alias, parts=4)


def work_of_a_flush(buffer: DatabaseBuffer) -> None:
    """Puts, and for the first and last part: claim, the first page, ack, release."""
    buffer.put([event("new"), pixel("m5"), javascript("m6"), javascript("m7")])
    for part in (0, 3):
        with claimed(buffer, part) as claim:
            messages = claim.messages()
            claim.ack([next(messages) for _ in range(PAGE)])
    buffer.oldest()


@on("sqlite", "postgresql")
def test_every_statement_of_put_and_flush_uses_an_index(crowded: DatabaseBuffer, alias: str) -> None:
    plans: dict[str, str] = {}
    explain = {"sqlite": "EXPLAIN QUERY PLAN ", "postgresql": "EXPLAIN "}[alias]

    def note(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith(("SELECT", "UPDATE", "DELETE", "INSERT")) and "waitingmessage" in sql:
            with connections[alias].cursor() as cursor:
                cursor.execute(explain + sql, params)
                plans[sql] = "\n".join(str(row) for row in cursor.fetchall())
        return execute(sql, params, many, context)

    with connections[alias].execute_wrapper(note):
        work_of_a_flush(crowded)
    assert {sql.split()[0] for sql in plans} == {"SELECT", "DELETE", "INSERT"}
    for sql, plan in plans.items():
        words = ["Seq Scan", "TEMP B-TREE", "Sort"]
        if not sql.endswith("LIMIT 1"):  # what SQLite calls a scan ends there with the first row
            words.append("SCAN segment")
        assert not any(word in plan for word in words), f"{sql}\n{plan}"


@on("mariadb")
def test_rows_that_mariadb_reads_do_not_grow_with_those_that_wait(crowded: DatabaseBuffer, alias: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute("FLUSH STATUS")
        work_of_a_flush(crowded)
        cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
        assert sum(int(number) for _, number in cursor.fetchall()) < 10 * PAGE


@on(*ALL)
def test_number_of_statements_does_not_grow_with_those_that_wait(
    crowded: DatabaseBuffer, buffer: DatabaseBuffer, alias: str
) -> None:
    def statements() -> int:
        with CaptureQueriesContext(connections[alias]) as queries:
            work_of_a_flush(crowded)
        # Counting takes a statement for each way among those delivered, and more, in a savepoint, for its first row.
        ours = [query["sql"] for query in queries if "eventcount" not in query["sql"]]
        return sum("SAVEPOINT" not in sql for sql in ours)

    for part in (0, 3):
        claimed(crowded, part).release()
    with_many = statements()
    rows = WaitingMessage.objects.using(alias)
    rows.filter(id__gt=rows.order_by("id")[3_000].pk).delete()
    rows.filter(message_id__in=["m6", "m7"]).delete()
    buffer.put([pixel("m6"), pixel("m7")])
    assert statements() == with_many
