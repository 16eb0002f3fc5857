"""Further databases for the tests, beside the default one, under aliases of their own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import pymysql
from django.core.management import call_command
from django.db import connections
from pytest_django import DjangoDbBlocker

from segment_fallback.models import DeadLetter, EventCount, Lease, OutcomeCount, WaitingMessage

# Django's backend for MariaDB imports MySQLdb; this one needs no compiler.
pymysql.install_as_MySQLdb()


@contextlib.contextmanager
def database(
    alias: str, settings: Mapping[str, Any], blocker: DjangoDbBlocker, *, migrate: bool = True
) -> Iterator[str]:
    """The alias of a database of these settings, with our tables."""
    connections.databases[alias] = {**connections.databases["default"], **settings}
    with blocker.unblock():
        try:
            if migrate:
                call_command("migrate", database=alias, verbosity=0)
            yield alias
        finally:
            connections[alias].close()
            del connections[alias], connections.databases[alias]


def empty(alias: str) -> None:
    """Delete all rows of ours."""
    for model in (WaitingMessage, DeadLetter, Lease, OutcomeCount, EventCount):
        model._default_manager.using(alias).all().delete()
