from __future__ import annotations

import asyncio
import json
import re
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client, RequestFactory
from django.urls import path
from health_check.management.commands.health_check import Command
from health_check.views import HealthCheckView

from segment_fallback import health, status
from segment_fallback.buffers import buffers
from segment_fallback.buffers.base import Buffer
from segment_fallback.buffers.memory import MemoryBuffer
from segment_fallback.health_check import SegmentFallback
from segment_fallback.message import Message

if TYPE_CHECKING:
    from pytest_django import Settings

CHECK = "segment_fallback.health_check.SegmentFallback"

urlpatterns = [
    path("health/", health.view),
    path("health/details/", health.view, {"details": True}),
    path("health/intake/", health.view, {"only": ["buffer_down", "spool_down"]}),
    path("health/wrong/", health.view, {"only": ["bufer_down"]}),
    path("health/check/", HealthCheckView.as_view(checks=[CHECK]), name="health_check"),
    path("health/check/intake/", HealthCheckView.as_view(checks=[(CHECK, {"only": ["spool_down"], "details": True})])),
]


@pytest.fixture(autouse=True)
def memory(settings: Settings) -> MemoryBuffer:
    settings.ROOT_URLCONF = __name__
    backend = "segment_fallback.buffers.memory.MemoryBuffer"
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "BUFFERS": {"default": {"BACKEND": backend}}}
    buffer = buffers["default"]
    assert isinstance(buffer, MemoryBuffer)
    return buffer


def bury(buffer: Buffer) -> None:
    buffer.bury([Message("m1", b'{"anonymousId":"a-visitor"}')], "a reason")


def test_healthy_site_answers_200_and_nothing_else() -> None:
    response = Client().get("/health/")
    assert response.status_code == 200
    assert response.json() == {"status": "ok", "problems": []}
    assert response["Cache-Control"] == "no-store"


def test_trouble_is_503_with_a_word_for_strangers_and_a_line_for_the_site(memory: MemoryBuffer) -> None:
    bury(memory)
    response = Client().get("/health/")
    assert response.status_code == 503
    assert response.json() == {"status": "failing", "problems": [{"problem": "dead_letters"}]}
    detail = "new dead letters within the hour: 1"
    assert Client().get("/health/details/").json()["problems"] == [{"problem": "dead_letters", "detail": detail}]
    assert Client().get("/health/intake/").status_code == 200


def test_documentation_explains_every_problem() -> None:
    text = (Path(__file__).parent.parent / "docs/how-to/monitoring.md").read_text("utf-8").partition("## ")[0]
    assert sorted(re.findall(r"^\| `(\w+)`", text, re.MULTILINE)) == sorted(status.Ailment)


def test_word_that_is_no_problem_is_refused() -> None:
    with pytest.raises(ValueError, match="'bufer_down' is not a valid Ailment"):
        Client().get("/health/wrong/")


def test_method_that_changes_something_is_refused() -> None:
    assert Client().post("/health/").status_code == 405
    assert Client().head("/health/").status_code == 200


def test_stranger_who_asks_often_asks_the_buffer_once(memory: MemoryBuffer, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    depth = memory.depth

    def ask() -> int:
        asked.append(1)
        return depth()

    monkeypatch.setattr(memory, "depth", ask)
    for _ in range(50):
        Client().get("/health/")
    assert len(asked) == 1


def test_buffer_that_does_not_answer_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status.Look, "status", lambda look: None)
    response = Client().get("/health/details/")
    assert response.status_code == 503
    assert response.json()["problems"] == [{"problem": "buffer_down", "detail": "no answer yet"}]


@pytest.mark.django_db(transaction=True)
def test_database_without_its_table_is_down_and_says_so_only_to_the_site(settings: Settings) -> None:
    settings.SEGMENT_FALLBACK = {"WRITE_KEY": "tests-write-key", "SPOOL": "spool"}
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE segment_fallback_waitingmessage RENAME TO gone")
    try:
        response = Client().get("/health/")
        details = Client().get("/health/details/").content.decode()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE gone RENAME TO segment_fallback_waitingmessage")
    assert response.status_code == 503
    assert response.json()["problems"] == [{"problem": "buffer_down"}]
    assert "no such table: segment_fallback_waitingmessage" in details


def check(url: str) -> Any:
    """What django-health-check's own view answers."""
    match = next(pattern for pattern in urlpatterns if str(pattern.pattern) == url.removeprefix("/"))
    return asyncio.run(match.callback(RequestFactory().get(url, HTTP_ACCEPT="application/json")))


def test_django_health_check_reports_what_is_wrong_by_its_view(memory: MemoryBuffer) -> None:
    response = check("/health/check/")
    assert (response.status_code, json.loads(response.content)) == (200, {"SegmentFallback()": "OK"})

    bury(memory)
    status.cheap.forget()
    response = check("/health/check/")
    assert response.status_code == 500
    assert json.loads(response.content) == {"SegmentFallback()": "Unavailable: dead_letters"}
    assert check("/health/check/intake/").status_code == 200


def test_django_health_check_reports_what_is_wrong_by_its_command(memory: MemoryBuffer) -> None:
    bury(memory)
    out = StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command(Command(), "health_check", "--no-http", stdout=out)
    assert ended.value.code == 1
    assert out.getvalue() == "SegmentFallback(): Unavailable: dead_letters\n"


def test_django_health_check_has_the_details_where_asked(memory: MemoryBuffer) -> None:
    bury(memory)
    result = asyncio.run(SegmentFallback(details=True).get_result())
    assert str(result.error) == "Unavailable: new dead letters within the hour: 1"
