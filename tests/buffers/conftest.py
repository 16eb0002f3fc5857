"""The databases on which DatabaseBuffer is tested, each an alias with our tables."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_django import DjangoDbBlocker

from tests.databases import database
from tests.servers import DatabaseServer


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
    """Alias of a database in a file: threads cannot share one in memory."""
    path = tmp_path_factory.mktemp("database") / "db.sqlite3"
    with database("sqlite", {"NAME": str(path)}, django_db_blocker) as alias:
        yield alias


@pytest.fixture(scope="module")
def postgresql(postgresql_server: DatabaseServer, django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
    with database("postgresql", postgresql_server.settings, django_db_blocker) as alias:
        yield alias


@pytest.fixture(scope="module")
def mariadb(mariadb_server: DatabaseServer, django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
    with database("mariadb", mariadb_server.settings, django_db_blocker) as alias:
        yield alias
