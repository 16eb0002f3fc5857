from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoDbBlocker

from segment_fallback.buffers import make_buffer
from segment_fallback.buffers.base import Buffer
from segment_fallback.buffers.database import DatabaseBuffer
from segment_fallback.exceptions import BufferUnavailable
from segment_fallback.models import WaitingMessage
from tests.buffers.contract import HOUR, BufferContract, Make, claimed, event, javascript, pixel, waiting
from tests.databases import database, empty

BACKEND = "segment_fallback.buffers.database.DatabaseBuffer"


@pytest.fixture
def empty_sqlite(tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
    """Alias of a database without tables."""
    with database("empty", {"NAME": str(tmp_path / "db.sqlite3")}, django_db_blocker, migrate=False) as alias:
        yield alias


class DatabaseContract(BufferContract):
    @pytest.fixture
    def alias(self) -> str:
        raise NotImplementedError("a subclass names its database")

    @pytest.fixture
    def make(self, alias: str) -> Make:
        empty(alias)

        def make(*, parts: int = 1) -> Buffer:
            return DatabaseBuffer(using=alias, parts=parts)

        return make


class TestContractOnSQLite(DatabaseContract):
    @pytest.fixture
    def alias(self, sqlite: str) -> str:
        return sqlite


class TestContractOnPostgreSQL(DatabaseContract):
    @pytest.fixture
    def alias(self, postgresql: str) -> str:
        return postgresql


class TestContractOnMariaDB(DatabaseContract):
    @pytest.fixture
    def alias(self, mariadb: str) -> str:
        return mariadb


@pytest.mark.django_db
def test_database_is_the_routers_by_default() -> None:
    buffer = make_buffer("default", {"BACKEND": BACKEND})
    buffer.put([event()])
    assert WaitingMessage.objects.count() == buffer.depth() == 1


OPERATIONS: dict[str, Callable[[Buffer], object]] = {
    "put": lambda buffer: buffer.put([event(), javascript("j")]),
    "claim": lambda buffer: buffer.claim(0),
    "depth": lambda buffer: buffer.depth(),
    "oldest": lambda buffer: buffer.oldest(),
    "dead_letters": lambda buffer: list(buffer.dead_letters()),
    "add_outcome_counts": lambda buffer: buffer.add_outcome_counts({(HOUR, "pixel", "accepted"): 1}),
    "outcome_counts": lambda buffer: buffer.outcome_counts(),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_error_of_the_database_is_ours_and_names_it(empty_sqlite: str, name: str) -> None:
    with pytest.raises(BufferUnavailable, match="the database 'empty' failed: no such table"):
        OPERATIONS[name](DatabaseBuffer(using=empty_sqlite))


def test_failing_put_leaves_the_callers_transaction_intact(empty_sqlite: str) -> None:
    with transaction.atomic(using=empty_sqlite), connections[empty_sqlite].cursor() as cursor:
        cursor.execute("CREATE TABLE orders (id INTEGER)")
        with pytest.raises(BufferUnavailable):
            DatabaseBuffer(using=empty_sqlite).put([event()])
        cursor.execute("INSERT INTO orders VALUES (1)")
    with connections[empty_sqlite].cursor() as cursor:
        assert cursor.execute("SELECT COUNT(*) FROM orders").fetchone() == (1,)


@pytest.mark.django_db
def test_put_shares_the_fate_of_the_callers_transaction() -> None:
    buffer = DatabaseBuffer()
    with transaction.atomic():
        buffer.put([event()])
        transaction.set_rollback(True)
    assert buffer.depth() == 0


def test_joined_write_is_one_statement(sqlite: str) -> None:
    empty(sqlite)
    buffer = DatabaseBuffer(using=sqlite)
    buffer.put([event("before")])
    with CaptureQueriesContext(connections[sqlite]) as queries:
        buffer.write([pixel("a"), event("before", size=100), javascript("a", size=100), javascript("b")])
    assert [query["sql"].split()[0] for query in queries] == ["INSERT"]
    assert sorted((m.message_id, m.way) for m in waiting(buffer)) == [
        ("a", "javascript"),
        ("b", "javascript"),
        ("before", "server"),
    ]


@pytest.mark.django_db
def test_put_of_more_rows_than_a_statement_takes() -> None:
    buffer = DatabaseBuffer()
    buffer.put([pixel(number) for number in range(2500)])
    buffer.put([javascript(number) for number in range(2500)])
    assert {message.way for message in waiting(buffer)} == {"javascript"}
    with claimed(buffer) as claim:
        claim.ack(list(claim.messages()))
    assert buffer.depth() == 0


@pytest.mark.parametrize(
    ("database", "explain", "walk"),
    [
        ("sqlite", "EXPLAIN QUERY PLAN", "USING INDEX segment_part_order (part=? AND id>?)"),
        ("postgresql", "EXPLAIN", "Index Scan using segment_part_order"),
    ],
)
def test_page_is_read_by_the_index_before_the_database_has_statistics(
    request: pytest.FixtureRequest, database: str, explain: str, walk: str
) -> None:
    alias = request.getfixturevalue(database)
    empty(alias)
    buffer = DatabaseBuffer(using=alias)
    buffer.put([event(number, size=800) for number in range(20_000)])
    with claimed(buffer) as claim, CaptureQueriesContext(connections[alias]) as queries:
        assert len(list(claim.messages())) == 20_000
    pages = [query["sql"] for query in queries if "body" in query["sql"]]
    assert len(pages) == 41
    with connections[alias].cursor() as cursor:
        cursor.execute(f"{explain} {pages[1]}")
        plan = str(cursor.fetchall())
    assert walk in plan
    assert "Sort" not in plan


@pytest.mark.parametrize("options", [{"parts": 0}, {"parts": "4"}, {"part": 1}])
def test_wrong_option_is_named(options: dict[str, object]) -> None:
    with pytest.raises(ImproperlyConfigured, match="part"):
        make_buffer("default", {"BACKEND": BACKEND, "OPTIONS": options})


def test_check_names_a_database_that_is_not_there() -> None:
    (found,) = DatabaseBuffer(using="warehouse").check()
    assert found.id == "segment_fallback.E007"
    assert "'warehouse'" in found.msg
    assert "default" in str(found.hint)
