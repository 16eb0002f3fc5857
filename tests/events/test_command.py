from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from celery import Celery
from django.core.management import CommandError, call_command
from pytest_django import DjangoDbBlocker

from segment_fallback import emit, on
from segment_fallback.events import Event
from segment_fallback.events.run import run
from segment_fallback.models import PendingEvent
from segment_fallback.tasks import EVENTS_TASK
from tests.databases import database
from tests.events.conftest import waiting

if TYPE_CHECKING:
    from pytest_django import Settings

pytestmark = pytest.mark.django_db


def command(*arguments: str) -> str:
    out = StringIO()
    call_command("segment_events", *arguments, stdout=out)
    return out.getvalue()


@pytest.fixture
def failed(settings: Settings) -> list[str]:
    """The event of a handler that was given up; the list decides whether it fails again."""
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "EVENT_ATTEMPTS": 1}
    succeeds: list[str] = []

    @on("order.*", name="shop.tell")
    def tell(event: Event) -> None:
        if not succeeds:
            raise KeyError("total")

    emit("order.completed", event_id="e1", total=5)
    run()
    return succeeds


def test_overview_tells_handlers_counts_and_the_last_error(failed: list[str]) -> None:
    on("x", name="shop.here", inline=True)(lambda event: None)
    emit("order.cancelled")
    emit("nobody.cares")
    lines = command().splitlines()
    assert lines[:2] == ["x: shop.here (inline)", "order.*: shop.tell"]
    assert lines[2].startswith("nobody.cares: 1 waiting, the oldest since 20")
    assert [line.endswith("Z, and no handler") for line in lines[2:5]] == [True, False, False]
    assert lines[3].startswith("order.cancelled: 1 waiting, the oldest since 20")
    assert lines[4].startswith("order.completed: 1 failed, the oldest since 20")
    assert lines[5:] == ["2 events wait, 1 failed.", "The last error, of shop.tell in e1: KeyError: 'total'"]


def test_overview_as_json(failed: list[str]) -> None:
    found = json.loads(command("--json"))
    assert found["handlers"] == [{"name": "shop.tell", "events": ["order.*"], "inline": False}]
    assert [(row["name"], row["state"], row["count"]) for row in found["events"]] == [("order.completed", "failed", 1)]
    assert found["last_error"] == {"handler": "shop.tell", "event_id": "e1", "error": "KeyError: 'total'"}


def test_overview_of_nothing() -> None:
    assert command() == "0 events wait, 0 failed.\n"
    assert json.loads(command("--json")) == {"handlers": [], "events": [], "last_error": None}


def test_show_has_payload_and_traceback(failed: list[str]) -> None:
    shown = json.loads(command("--show"))
    assert json.loads(command("--show", "e1")) == shown
    assert (shown["event_id"], shown["state"], shown["payload"]) == ("e1", "failed", {"total": 5})
    assert "Traceback" in shown["handlers"]["shop.tell"]["error"]


@pytest.mark.parametrize("which", ["e1", "--all"])
def test_retry_lets_a_failed_handler_try_again(failed: list[str], which: str) -> None:
    failed.append("succeed")
    assert command("--run") == "0 handled, 0 errors, 0 events failed.\n"
    assert command("--retry", which) == "1 wait for the next run.\n"
    assert command("--run") == "1 handled, 0 errors, 0 events failed.\n"
    assert waiting().state == PendingEvent.DONE


def test_retry_of_an_event_that_waits_brings_it_forward() -> None:
    emit("e")
    run()
    on("e")(lambda event: None)
    assert run().handled == 0
    assert command("--retry", "--all") == "1 wait for the next run.\n"
    assert run().handled == 1


def test_retry_leaves_what_a_worker_is_running(failed: list[str]) -> None:
    PendingEvent.objects.update(owner="worker")
    assert command("--retry", "--all") == "0 wait for the next run.\n"


def test_delete_forgets_what_failed_only(failed: list[str]) -> None:
    waits = emit("e")
    assert waits
    assert command("--delete", waits) == "0 deleted.\n"
    assert command("--delete", "e1") == "1 deleted.\n"
    assert waiting().event_id == waits
    assert command("--delete", "--all") == "0 deleted.\n"


@pytest.mark.parametrize("action", ["--retry", "--delete"])
def test_nothing_is_retried_or_deleted_by_a_slip(action: str) -> None:
    with pytest.raises(CommandError, match="Which ones"):
        command(action)


def test_celery_task_runs_handlers() -> None:
    handled: list[str] = []
    on("e")(lambda event: handled.append(event.id))
    event_id = emit("e")
    with Celery("shop", broker="memory://", set_as_current=False) as app:
        assert app.tasks[EVENTS_TASK].apply().get() == "1 handled, 0 errors, 0 events failed"
    assert handled == [event_id]


@pytest.mark.parametrize(
    "arguments", [[], ["--json"], ["--run"], ["--show"], ["--show", "e1"], ["--retry", "--all"], ["--delete", "--all"]]
)
def test_database_that_fails_is_named(
    settings: Settings, tmp_path: Path, django_db_blocker: DjangoDbBlocker, arguments: list[str]
) -> None:
    settings.DATABASE_ROUTERS = ["tests.events.routers.ToEmpty"]
    with (
        database("empty", {"NAME": str(tmp_path / "db.sqlite3")}, django_db_blocker, migrate=False),
        pytest.raises(CommandError, match=r"^the database 'empty' failed: no such table: \w+\.$"),
    ):
        command(*arguments)


@pytest.mark.parametrize("arguments", [[], ["--json"], ["--forget"]])
def test_plan_names_the_database_that_fails(
    settings: Settings, tmp_path: Path, django_db_blocker: DjangoDbBlocker, arguments: list[str]
) -> None:
    settings.DATABASE_ROUTERS = ["tests.events.routers.ToEmpty"]
    with (
        database("empty", {"NAME": str(tmp_path / "db.sqlite3")}, django_db_blocker, migrate=False),
        pytest.raises(CommandError, match=r"^the database 'empty' failed: no such table: \w+\.$"),
    ):
        call_command("segment_plan", *arguments, stdout=StringIO())
