from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
from pytest_django import DjangoDbBlocker

from segment_fallback.testing import LocalSegment
from tests.databases import database
from tests.e2e.conftest import browser, chromium, missing, playwright
from tests.edge.servers import EDGES, Edge, running
from tests.edge.varied import varied

__all__ = ["browser", "chromium", "playwright", "varied"]


@pytest.fixture(scope="package")
def segment() -> Iterator[LocalSegment]:
    with LocalSegment() as segment:
        if not segment.has_analytics_js:
            missing("no analytics.js: npm ci")
        yield segment


@pytest.fixture(scope="package", params=EDGES)
def edge(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    segment: LocalSegment,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[Edge]:
    """The site behind Varnish, nginx and Django's cache middleware, started once for all tests: each has its page."""
    directory = tmp_path_factory.mktemp(request.param)
    alias = f"edge-{uuid4().hex}"
    sqlite = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(directory / "site.sqlite3"),
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": "PRAGMA journal_mode=WAL"},
    }
    own = {"API_HOST": segment.url, "CDN_HOST": segment.url, "FIRST_PARTY": True, "HOLD": 0}
    with database(alias, sqlite, django_db_blocker), running(request.param, directory, alias, own) as edge:
        yield edge


proxies = pytest.mark.parametrize("edge", ["varnish", "nginx"], indirect=True, scope="package")
"""For what an edge of its own does, and Django's cache middleware does not."""


@pytest.fixture
def page(edge: Edge) -> str:
    """The path of a page that nobody has asked for yet."""
    return f"/shop/{uuid4().hex}/"
