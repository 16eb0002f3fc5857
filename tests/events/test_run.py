from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from celery.signals import celeryd_after_setup
from django.contrib.auth.models import Group
from django.db import connections
from pytest_django import DjangoDbBlocker

from segment_fallback import atrack, emit, on, track
from segment_fallback.ambient import ambient
from segment_fallback.buffers.base import now_ms
from segment_fallback.celery_tasks import import_handlers
from segment_fallback.delivery.flush import stopping
from segment_fallback.events import Event
from segment_fallback.events.handlers import registry
from segment_fallback.events.outbox import make_row
from segment_fallback.events.run import CLAIMED, DIED, KEPT, LEASE, UNHANDLED, Runner, claim_unborn, run, run_inline
from segment_fallback.models import OutcomeCount, PendingEvent
from tests.databases import database
from tests.events.conftest import make_due, sent, waiting
from tests.servers import DatabaseServer

if TYPE_CHECKING:
    from pytest_django import Settings

pytestmark = pytest.mark.django_db


class Flaky:
    """A handler that fails until it is told to succeed."""

    def __init__(self, *patterns: str, **options: Any) -> None:
        self.fails, self.events = True, list[Event]()
        on(*patterns, name="flaky", **options)(self.handle)

    def handle(self, event: Event) -> None:
        self.events.append(event)
        track(event="Tried")
        track(event="Tried", properties={"again": True})
        if self.fails:
            raise ValueError("secret 4711")


def progress(handler: str = "flaky") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(waiting().progress)[handler]
    return found


def caller() -> dict[str, Any]:
    return {"anonymousId": "a", "userId": "7", "context": {"ip": "192.0.2.1"}}


def test_handler_decides_what_segment_hears() -> None:
    group = Group.objects.create(name="Staff")

    @on("group.created")
    def tell(event: Event) -> None:
        track(event="Group Created", properties={"name": event["group"].name, **event.payload["more"]})

    with ambient(caller):
        emit("group.created", group=group, more={"x": 1})
    assert str(run()) == "1 handled, 0 errors, 0 events failed"
    (message,) = sent()
    assert (message["type"], message["event"]) == ("track", "Group Created")
    assert message["properties"] == {"name": "Staff", "x": 1}
    assert (message["anonymousId"], message["userId"], message["context"]["ip"]) == ("a", "7", "192.0.2.1")
    assert not PendingEvent.objects.exists()


def test_message_has_the_time_at_which_the_event_occurred() -> None:
    emit("e")
    PendingEvent.objects.update(occurred=1_767_322_645_678)
    on("e")(lambda event: track("7", "Told"))
    run()
    assert sent()[0]["timestamp"] == "2026-01-02T02:57:25.678+00:00"


@pytest.mark.parametrize(
    ("patterns", "runs"),
    [(["order.completed"], True), (["order.*"], True), (["*"], True), (["a", "order.*"], True), (["order"], False)],
)
def test_handlers_match_by_pattern(patterns: list[str], runs: bool) -> None:
    handled: list[str] = []
    on(*patterns)(lambda event: handled.append(event.name))
    emit("order.completed")
    run()
    assert handled == ["order.completed"] * runs


def test_every_handler_of_an_event_is_run_once() -> None:
    ran: list[str] = []

    @on("a")
    @on("b")
    def first(event: Event) -> None:
        ran.append(f"first {event.name}")

    @on("*")
    def second(event: Event) -> None:
        ran.append(f"second {event.name}")

    emit("a")
    emit("b")
    run()
    run()
    assert sorted(ran) == ["first a", "first b", "second a", "second b"]


def test_two_handlers_of_one_name_are_refused() -> None:
    on("a", name="mine")(lambda event: None)
    with pytest.raises(ValueError, match="two handlers have the name 'mine'"):
        on("b", name="mine")(print)
    on("a")(lambda event: None)
    with pytest.raises(ValueError, match=r"two handlers have the name 'tests.*<lambda>'"):
        on("a")(lambda event: None)
    with pytest.raises(TypeError, match="needs the name"):
        on()


@pytest.mark.parametrize("pattern", [lambda event: None, ["order.completed"], 7])
def test_bare_decorator_is_no_handler(pattern: Any) -> None:
    with pytest.raises(TypeError, match=r'on\(\) takes names .* write @on\("order\.completed"\)'):
        on(pattern)
    assert registry.all() == []


@pytest.mark.django_db(transaction=True)
def test_coroutine_may_handle_an_event() -> None:
    @on("e")
    async def tell(event: Event) -> None:
        await atrack("7", "Told")

    emit("e")
    run()
    assert [message["event"] for message in sent()] == ["Told"]


def test_failed_handler_is_tried_again_and_sends_the_same_messages() -> None:
    flaky = Flaky("e")
    with ambient(caller):
        emit("e")
    report = run()
    assert str(report) == "0 handled, 1 error, 0 events failed; flaky: ValueError"
    first = [message["messageId"] for message in sent()]
    assert len(set(first)) == 2
    assert run().errors == 0, "it backs off"
    assert 7_000 < progress()["next"] - now_ms() < 13_000
    flaky.fails = False
    make_due()
    assert run().handled == 1
    assert [event.attempt for event in flaky.events] == [1, 2]
    assert [message["messageId"] for message in sent()] == first, "the buffer knows them again"
    assert not PendingEvent.objects.exists()


def test_messages_of_two_handlers_and_two_events_differ() -> None:
    on("e", name="one")(lambda event: track("7", "Told"))
    on("e", name="two")(lambda event: track("7", "Told"))
    emit("e")
    emit("e")
    run()
    assert len({message["messageId"] for message in sent()}) == 4


def test_handler_that_succeeded_is_not_run_again() -> None:
    ran: list[str] = []
    flaky = Flaky("e")
    on("e", name="good")(lambda event: ran.append(event.id))
    with ambient(caller):
        emit("e")
    for _ in range(3):
        run()
        make_due()
    flaky.fails = False
    run()
    assert (len(ran), len(flaky.events)) == (1, 4)
    assert not PendingEvent.objects.exists()


def test_handler_that_keeps_failing_leaves_its_traceback(settings: Settings) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "EVENT_ATTEMPTS": 3}
    flaky = Flaky("e")
    with ambient(caller):
        emit("e")
    for _ in range(5):
        run()
        make_due()
    assert len(flaky.events) == 3
    assert waiting().state == PendingEvent.FAILED
    assert progress()["error"].startswith("Traceback")
    assert progress()["error"].endswith("ValueError: secret 4711\n")
    assert OutcomeCount.objects.get(outcome="failed").count == 1


def test_message_that_cannot_be_kept_fails_its_handler() -> None:
    on("e", name="bad")(lambda event: track("7", "Told", {"x": object()}))
    emit("e")
    assert run().errors == 1
    assert sent() == []
    assert "InvalidMessage" in progress("bad")["error"]


def test_event_without_a_handler_waits_an_hour() -> None:
    emit("e")
    run()
    assert waiting().next_try > now_ms() + 5_000
    make_due()
    handled: list[str] = []
    PendingEvent.objects.update(created=now_ms() - UNHANDLED)
    assert run().unhandled == 1
    assert not PendingEvent.objects.exists()
    assert OutcomeCount.objects.get().outcome == "unhandled"
    emit("e")
    run()
    on("e")(lambda event: handled.append(event.id))
    make_due()
    run()
    assert len(handled) == 1, "its handler was deployed later"


def test_inline_handler_runs_at_once_and_the_others_later() -> None:
    ran: list[str] = []
    on("e", name="here", inline=True)(lambda event: ran.append("here"))
    on("e", name="there")(lambda event: ran.append("there"))
    row = make_row("e", {})
    claim_unborn(row)
    row.save()
    run_inline(row, "default")
    assert ran == ["here"]
    assert run().handled == 1
    assert ran == ["here", "there"]


def test_failed_inline_handler_is_tried_again_by_a_worker(django_capture_on_commit_callbacks: Any) -> None:
    flaky = Flaky("e", inline=True)
    with ambient(caller), django_capture_on_commit_callbacks(execute=True):
        emit("e")
    assert len(flaky.events) == 1
    flaky.fails = False
    make_due()
    assert run().handled == 1


def test_killed_workers_event_is_free_when_its_lease_ends() -> None:
    ran: list[int] = []
    on("e", name="h")(lambda event: ran.append(event.attempt))
    emit("e")
    (row,) = Runner("default").claim()
    assert Runner("default").claim() == []
    assert row.next_try - now_ms() <= LEASE
    PendingEvent.objects.update(next_try=now_ms())
    (again,) = Runner("default").claim()
    assert json.loads(again.progress)["h"] == {"state": "waiting", "attempts": 1, "next": 0, "error": DIED}
    Runner("default").run(again)
    assert ran == [2]
    row.next_try = now_ms()
    Runner("default").run(row)
    assert ran == [2], "the first worker, alive after all, asks whether the event is still its own"
    assert not PendingEvent.objects.exists()


def test_event_that_kills_workers_is_claimed_alone_and_ends(settings: Settings) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "EVENT_ATTEMPTS": 2}
    on("e", name="h")(lambda event: None)
    for _ in range(3):
        emit("e")
    assert len(Runner("default").claim()) == 3
    PendingEvent.objects.update(next_try=0)
    assert len(Runner("default").claim()) == 1
    PendingEvent.objects.update(next_try=0)
    runner = Runner("default")
    (row,) = runner.claim()
    runner.run(row)
    assert PendingEvent.objects.get(pk=row.pk).state == PendingEvent.FAILED
    assert run().handled == 2


def test_lease_of_a_clock_that_is_years_ahead_binds_nobody() -> None:
    on("e")(lambda event: None)
    emit("e")
    PendingEvent.objects.update(next_try=now_ms() + 10**11, owner="x")
    assert run().handled == 1


def test_lease_that_was_lost_stops_the_runner() -> None:
    ran: list[str] = []
    on("e", name="a")(lambda event: PendingEvent.objects.update(owner="another"))
    on("e", name="b")(lambda event: ran.append(event.id))
    emit("e")
    run()
    assert ran == []
    assert waiting().owner == "another"


def test_run_ends_between_two_events_when_told_to() -> None:
    on("e")(lambda event: stopping.set())
    for _ in range(3):
        emit("e")
    try:
        assert run().handled == 1
    finally:
        stopping.clear()
    assert set(PendingEvent.objects.values_list("owner", flat=True)) == {""}
    assert run().handled == 1
    stopping.clear()


def test_run_begins_nothing_after_its_budget() -> None:
    on("e")(lambda event: None)
    emit("e")
    assert run(budget=-1).handled == 0
    assert waiting().owner == ""


def test_more_events_than_are_claimed_at_once() -> None:
    handled: list[str] = []
    on("e")(lambda event: handled.append(event.id))
    for _ in range(CLAIMED * 2 + 1):
        emit("e")
    assert run().handled == CLAIMED * 2 + 1
    assert len(set(handled)) == CLAIMED * 2 + 1


def test_id_that_was_given_is_kept_for_a_week_without_its_payload() -> None:
    on("e")(lambda event: None)
    emit("e", event_id="x", secret="s")
    run()
    row = waiting()
    assert (row.state, row.payload, row.progress) == (PendingEvent.DONE, "{}", "{}")
    assert row.next_try > now_ms() + KEPT - 10_000


class ClaimContract:
    """Many workers at once, on one database: each event is handled once."""

    @pytest.fixture
    def alias(self) -> str:
        raise NotImplementedError("a subclass names its database")

    def test_workers_at_once_never_handle_an_event_twice(self, alias: str, django_db_blocker: DjangoDbBlocker) -> None:
        handled: list[str] = []
        on("e")(lambda event: handled.append(event.id))
        rows = PendingEvent.objects.using(alias)
        rows.all().delete()
        for _ in range(100):
            make_row("e", {}).save(using=alias)
        start, errors = threading.Barrier(6), list[Exception]()

        def work() -> None:
            runner = Runner(alias)
            try:
                start.wait(30)
                for _ in range(100):
                    for row in runner.claim():
                        runner.run(row)
            except Exception as error:  # noqa: BLE001 - asserted below
                errors.append(error)
            finally:
                connections[alias].close()

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert errors == []
        assert len(handled) == len(set(handled)) == 100
        assert not rows.exists()


class TestClaimOnSQLite(ClaimContract):
    @pytest.fixture
    def alias(self, tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
        options = {"timeout": 20, "transaction_mode": "IMMEDIATE"}
        settings = {"NAME": str(tmp_path / "db.sqlite3"), "OPTIONS": options}
        with database("sqlite", settings, django_db_blocker) as alias, django_db_blocker.unblock():
            yield alias


class TestClaimOnPostgreSQL(ClaimContract):
    @pytest.fixture
    def alias(self, postgresql_server: DatabaseServer, django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
        with database("postgresql", postgresql_server.settings, django_db_blocker) as alias:
            yield alias


class TestClaimOnMariaDB(ClaimContract):
    @pytest.fixture
    def alias(self, mariadb_server: DatabaseServer, django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
        with database("mariadb", mariadb_server.settings, django_db_blocker) as alias:
            yield alias


def test_registry_finds_each_apps_segment_events(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "tests.events.shop"]
    monkeypatch.setattr(registry, "_discovered", False)
    assert [handler.name for handler in registry.all()] == ["tests.events.shop.segment_events.completed"]


def test_worker_imports_handlers_before_it_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    imported: list[str] = []
    monkeypatch.setattr("segment_fallback.events.handlers.autodiscover_modules", imported.append)
    monkeypatch.setattr(registry, "_discovered", False)
    celeryd_after_setup.send("worker")
    assert imported == ["segment_events"]


def test_worker_starts_though_handlers_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("segment_fallback.events.handlers.autodiscover_modules", broken)
    monkeypatch.setattr(registry, "_discovered", False)
    import_handlers()
    with pytest.raises(ImportError, match="segment_events"):
        run()
