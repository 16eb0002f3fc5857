from __future__ import annotations

import asyncio
import json
from collections import UserDict
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from django.contrib.auth.models import AnonymousUser, Group, User
from django.core.exceptions import FieldDoesNotExist
from django.db import connection, connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils.functional import SimpleLazyObject
from pytest_django import DjangoDbBlocker

from segment_fallback import emit, on, track
from segment_fallback.ambient import ambient
from segment_fallback.events import Event, Reference, aemit, snapshot
from segment_fallback.events.event import event_of
from segment_fallback.events.handlers import registry
from segment_fallback.events.outbox import keep, make_row
from segment_fallback.events.run import run
from segment_fallback.exceptions import BufferUnavailable, InvalidMessage
from segment_fallback.middleware import SegmentMiddleware
from segment_fallback.models import OutcomeCount, PendingEvent
from tests.databases import database
from tests.events.conftest import sent, waiting
from tests.servers import DatabaseServer

if TYPE_CHECKING:
    from pytest_django import Settings

pytestmark = pytest.mark.django_db


def payload_of(value: Any) -> Any:
    """A value as a handler gets it."""
    emit("e", value=value)
    return event_of(waiting()).payload["value"]


@pytest.mark.django_db(transaction=True)
def test_emit_costs_one_write() -> None:
    with CaptureQueriesContext(connection) as queries:
        emit("order.completed", total=5)
    assert [query["sql"].split()[0] for query in queries] == ["INSERT"]


def test_event_waits_with_what_it_was_given() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=timezone.utc)
    event_id = emit("order.completed", {"a": 1}, occurred_at=moment, b=[2])
    found = event_of(waiting())
    assert (found.id, found.name, found.payload) == (event_id, "order.completed", {"a": 1, "b": [2]})
    assert found.occurred_at == moment
    assert (found.anonymous_id, found.user_id, found.context, found.attempt) == (None, None, {}, 1)


def test_event_of_a_rolled_back_transaction_never_happened() -> None:
    with transaction.atomic():
        emit("order.completed")
        transaction.set_rollback(True)
    assert not PendingEvent.objects.exists()


def test_inline_handler_waits_for_the_commit(django_capture_on_commit_callbacks: Any) -> None:
    ran: list[str] = []

    @on("e", inline=True)
    def handle(event: Event) -> None:
        ran.append(event.id)

    with django_capture_on_commit_callbacks() as callbacks:
        event_id = emit("e")
        assert ran == []
    for callback in callbacks:
        callback()
    assert ran == [event_id]


def test_caller_is_who_made_the_request() -> None:
    fields = {"anonymousId": "a", "userId": "7", "context": {"ip": "192.0.2.1"}, "timestamp": "now"}
    with ambient(lambda: fields):
        emit("e")
    found = event_of(waiting())
    assert (found.anonymous_id, found.user_id, found.context) == ("a", "7", {"ip": "192.0.2.1"})


def test_visitor_of_the_request_is_the_caller() -> None:
    user = User.objects.create(username="u")

    def view(request: HttpRequest) -> HttpResponse:
        emit("order.completed")
        return HttpResponse()

    request = RequestFactory().get("/checkout/", HTTP_USER_AGENT="Browser")
    request.user = user
    request.COOKIES["ajs_anonymous_id"] = "a-1"
    response = SegmentMiddleware(view)(request)
    assert isinstance(response, HttpResponse)
    on("order.*")(lambda event: track(event="Order Completed"))
    run()
    (message,) = sent()
    assert (message["userId"], message["anonymousId"]) == (str(user.pk), "a-1")
    assert (message["context"]["userAgent"], message["context"]["ip"]) == ("Browser", "127.0.0.1")


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (Decimal("1.5"), 1.5),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (datetime(2026, 1, 2, tzinfo=timezone.utc), "2026-01-02T00:00:00+00:00"),
        ((1, [2]), [1, [2]]),
        ("Größe \ud800\0", "Größe ?\0"),
        (AnonymousUser(), None),
    ],
)
def test_payload_is_what_json_has(value: Any, kept: Any) -> None:
    assert payload_of(value) == kept


def test_model_instance_is_a_reference_and_is_read_when_asked_for() -> None:
    group = Group.objects.create(name="before")
    emit("e", groups=[group], group=SimpleLazyObject(lambda: group))
    Group.objects.update(name="after")
    event = event_of(waiting())
    assert event.payload["group"] == event.payload["groups"][0] == Reference("auth.group", group.pk, {}, "default")
    assert event["group"] == group
    assert event["group"].name == "after"
    Group.objects.all().delete()
    assert event["group"].name == "after", "it is read once"
    with pytest.raises(Group.DoesNotExist):
        event.payload["group"].get()


def test_snapshot_keeps_the_fields_of_that_moment() -> None:
    group = Group.objects.create(name="before")
    emit("e", group=snapshot(group, "name"))
    Group.objects.update(name="after")
    assert event_of(waiting()).payload["group"].fields == {"name": "before"}
    with pytest.raises(FieldDoesNotExist):
        snapshot(group, "nme")
    with pytest.raises(InvalidMessage, match=r"auth\.Group\.user is no column"):
        snapshot(group, "user")


CYCLE: list[Any] = []
CYCLE.append(CYCLE)

BAD: dict[str, Any] = {
    "object": object(),
    "queryset": Group.objects.none(),
    "unsaved": User(username="u"),
    "reserved": {"$model": "auth.group"},
    "large": "x" * 100_000,
    "cycle": CYCLE,
    "mapping": UserDict({"x": object()}),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_payload_raises_in_development(settings: Settings, name: str) -> None:
    settings.DEBUG = True
    with pytest.raises(InvalidMessage):
        emit("e", value=BAD[name])
    assert not PendingEvent.objects.exists()


@pytest.mark.parametrize("name", BAD)
def test_bad_payload_is_counted_in_production(name: str) -> None:
    assert emit("e", value=BAD[name]) is None
    assert not PendingEvent.objects.exists()
    assert OutcomeCount.objects.get().outcome == "invalid"


@pytest.mark.parametrize("name", ["", "x" * 101, "a\nb", 5])
def test_bad_name_is_refused(settings: Settings, name: str) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "RAISE_ERRORS": True}
    with pytest.raises(InvalidMessage, match="printable"):
        emit(name)


def test_payload_that_is_no_dict_is_named(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    assert emit("e", 5) is None  # type: ignore[arg-type]
    assert caplog.messages == ["an event was not emitted: a payload must be a dict, not int"]
    settings.DEBUG = True
    with pytest.raises(InvalidMessage, match="must be a dict, not int"):
        emit("e", 5)  # type: ignore[arg-type]


def test_same_id_counts_once() -> None:
    handled: list[str] = []
    on("e")(lambda event: handled.append(event.id))
    for _ in range(3):
        assert emit("e", event_id="invoice-7") == "invoice-7"
        run()
    assert handled == ["invoice-7"]
    PendingEvent.objects.update(next_try=0)
    run()
    assert not PendingEvent.objects.exists(), "a week later the id is forgotten"


def test_bad_event_id_is_refused(settings: Settings) -> None:
    settings.DEBUG = True
    with pytest.raises(InvalidMessage, match="event_id"):
        emit("e", event_id="ü")


@pytest.mark.django_db(transaction=True)
def test_aemit_emits_from_a_coroutine() -> None:
    event_id = asyncio.run(aemit("e", total=1))
    assert waiting().event_id == event_id


def test_handlers_that_cannot_be_imported_do_not_lose_the_event(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(name: str) -> Any:
        raise ImportError("no module named shop")

    monkeypatch.setattr(registry, "matching", broken)
    assert emit("e")
    assert waiting().name == "e"
    assert "handlers could not be imported" in caplog.text


def test_database_that_fails_breaks_neither_the_caller_nor_its_transaction(
    tmp_path: Path, django_db_blocker: DjangoDbBlocker, settings: Settings
) -> None:
    settings.DATABASE_ROUTERS = ["tests.events.routers.ToEmpty"]
    with database("empty", {"NAME": str(tmp_path / "db.sqlite3")}, django_db_blocker, migrate=False) as alias:
        with transaction.atomic(using=alias):
            assert emit("e", using=alias) is None
            assert not transaction.get_connection(alias).needs_rollback
        with pytest.raises(BufferUnavailable, match="the database 'empty' failed: no such table"):
            keep(make_row("e", {}), using=alias)


def test_transaction_of_another_database_is_waited_for(tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> None:
    with database("shop", {"NAME": str(tmp_path / "db.sqlite3")}, django_db_blocker, migrate=False) as alias:
        with transaction.atomic(using=alias):
            emit("rolled back", using=alias)
            transaction.set_rollback(True, using=alias)
        with transaction.atomic(using=alias):
            emit("committed", using=alias)
            assert not PendingEvent.objects.exists()
    assert waiting().name == "committed"


def test_event_without_on_commit_outlives_a_rollback(
    postgresql_server: DatabaseServer, django_db_blocker: DjangoDbBlocker, settings: Settings
) -> None:
    settings.DATABASE_ROUTERS = ["tests.events.routers.ToPostgreSQL"]
    with database("postgresql", postgresql_server.settings, django_db_blocker) as alias:
        with transaction.atomic(using=alias):
            emit("payment.succeeded", using=alias)
            emit("payment.failed", on_commit=False, using=alias)
            transaction.set_rollback(True, using=alias)
        names = PendingEvent.objects.using(alias).values_list("name", flat=True)
        assert list(names) == ["payment.failed"]
        PendingEvent.objects.using(alias).all().delete()


def test_payload_is_plain_json_in_the_row() -> None:
    emit("e", text="é", number=1)
    assert json.loads(waiting().payload) == {"text": "é", "number": 1}


def test_naive_moment_is_one_of_the_sites_time_zone(settings: Settings) -> None:
    settings.TIME_ZONE = "Europe/Berlin"
    emit("e", occurred_at=datetime(2026, 1, 2, 3))
    assert event_of(waiting()).occurred_at == datetime(2026, 1, 2, 2, tzinfo=timezone.utc)


@pytest.mark.django_db(transaction=True)
def test_emit_in_a_coroutine_emits_too() -> None:
    async def handle() -> str | None:
        return emit("e")

    assert asyncio.run(handle()) == waiting().event_id


def test_handlers_that_cannot_be_imported_raise_in_development(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(module: str) -> None:
        raise ImportError(module)

    settings.DEBUG = True
    monkeypatch.setattr(registry, "_discovered", False)
    monkeypatch.setattr("segment_fallback.events.handlers.autodiscover_modules", broken)
    for _ in range(2):
        with pytest.raises(ImportError, match="segment_events"):
            emit("e")


def test_what_is_imported_as_handlers_may_emit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_discovered", False)
    monkeypatch.setattr("segment_fallback.events.handlers.autodiscover_modules", lambda module: emit("at import"))
    emit("e")
    assert list(PendingEvent.objects.values_list("name", flat=True)) == ["at import", "e"]


def test_event_that_fails_after_another_databases_commit_is_counted(
    tmp_path: Path, django_db_blocker: DjangoDbBlocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(row: Any, database: str) -> bool:
        raise BufferUnavailable("down")

    monkeypatch.setattr("segment_fallback.events.outbox._insert", down)
    settings = {"NAME": str(tmp_path / "db.sqlite3")}
    with database("shop", settings, django_db_blocker, migrate=False) as alias, transaction.atomic(using=alias):
        emit("e", using=alias)
    assert OutcomeCount.objects.get().outcome == "unavailable"


def test_error_of_a_write_of_its_own_is_the_callers(
    postgresql_server: DatabaseServer, django_db_blocker: DjangoDbBlocker, settings: Settings
) -> None:
    settings.DATABASE_ROUTERS = ["tests.events.routers.ToPostgreSQL"]
    with database("postgresql", postgresql_server.settings, django_db_blocker) as alias:
        with connections[alias].cursor() as cursor:
            cursor.execute("ALTER TABLE segment_fallback_pendingevent RENAME TO hidden")
        try:
            with transaction.atomic(using=alias), pytest.raises(BufferUnavailable, match="does not exist"):
                keep(make_row("e", {}), on_commit=False, using=alias)
        finally:
            with connections[alias].cursor() as cursor:
                cursor.execute("ALTER TABLE hidden RENAME TO segment_fallback_pendingevent")
