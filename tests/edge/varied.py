"""The site of three variations behind an edge that knows them, and its visitors, of whom profiles say this and that."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from uuid import uuid4

import pytest
from django.core.signing import TimestampSigner
from django.db import transaction
from pytest_django import DjangoDbBlocker

from segment_fallback.buffers.base import now_ms
from segment_fallback.intake import identity
from segment_fallback.names import endpoint_names, id_cookies
from segment_fallback.profiles.database import DatabaseProfiles
from segment_fallback.profiles.store import Ids
from segment_fallback.testing import LocalSegment
from tests.databases import database
from tests.edge.servers import Answer, Edge, ask, running
from tests.edge.visits import CHROMIUM

VISITORS = 1_000
MORE = 10
"""Further ones, of whom Segment has not heard."""
PLANS = ("regular", "gold", "student", None, "made up")
"""What profiles say, in turn: None is a visitor without one, and the last is not declared."""


@pytest.fixture(scope="module", params=["varnish", "nginx"])
def varied(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    segment: LocalSegment,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[Edge]:
    """The site behind an edge that knows its variations, and a profile of each visitor."""
    directory = tmp_path_factory.mktemp(f"variations-{request.param}")
    alias = f"variations-{uuid4().hex}"
    sqlite = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(directory / "site.sqlite3"),
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": "PRAGMA journal_mode=WAL"},
    }
    own = {
        "API_HOST": segment.url,
        "CDN_HOST": segment.url,
        "VARIATIONS": "edge",
        "CLIENT_SIDE_TRAITS": ["plan"],
        "PROFILES": {"BACKEND": "segment_fallback.profiles.database.DatabaseProfiles"},
    }
    with database(alias, sqlite, django_db_blocker), running(request.param, directory, alias, own) as edge:
        with django_db_blocker.unblock(), transaction.atomic(using=alias):
            store = DatabaseProfiles(using=alias)
            for number in range(VISITORS + MORE):
                if plan := plan_of(number):
                    traits = {"plan": plan, "email": f"{visitor(number)}@mail.example"}
                    store.update(Ids(anonymous_id=visitor(number)), traits, now_ms())
        yield edge


def plan_of(number: int) -> str | None:
    return PLANS[number % len(PLANS)]


def wanted(number: int) -> str:
    """The variation that is this visitor's."""
    plan = plan_of(number)
    return plan if plan in ("gold", "student") else "regular"


def visitor(number: int) -> str:
    return f"visitor-{number:04}-{'0' * 8}"


def cookie_of(number: int) -> str:
    """The cookie by which a visitor proves who he is, and what else a browser has."""
    signed = TimestampSigner(salt=identity.SALT).sign(f"m:{visitor(number)}")
    return f"_ga=GA1.{number}; {identity.ANONYMOUS_ID_COOKIE}={visitor(number)}; {id_cookies()[0]}={signed}"


def assign(connection: http.client.HTTPConnection, page: str, cookie: str, shown: str) -> Answer:
    """What the page's script asks, and tells."""
    headers = {**CHROMIUM, "Cookie": cookie, "Content-Type": "text/plain", "Sec-Fetch-Dest": "empty"}
    headers["Referer"] = f"http://127.0.0.1:{connection.port}{page}"
    return ask(connection, f"/s/{endpoint_names()[0]}/v", headers, "POST", json.dumps({"sale": shown}))


def with_cookies(cookie: str, answer: Answer) -> str:
    """The browser's cookies after that answer."""
    return "; ".join([cookie, *(set_.partition(";")[0] for set_ in answer.headers.get_all("Set-Cookie", []))])


def shown(answer: Answer) -> str:
    found = re.search(rb"Sale: ([a-z]*)\.", answer.body)
    assert found, answer.body
    return found[1].decode()
