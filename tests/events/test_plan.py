from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from decimal import Decimal
from enum import Enum
from io import StringIO
from typing import TYPE_CHECKING, Any, Literal, TypedDict
from uuid import UUID

import pytest
from django.core.management import call_command

from segment_fallback import track
from segment_fallback.buffers import buffers
from segment_fallback.exceptions import PlanViolation
from segment_fallback.models import OutcomeCount, SeenEvent
from segment_fallback.plan import MAX_NAMES, OTHERS, check, plan, planned, seen
from segment_fallback.plan_schema import check_schema, schema_of, validate
from segment_fallback.testing import captured_messages
from tests.events.conftest import sent
from tests.intake.posts import Sender, batch, call, calls, event
from tests.intake.visits import outcomes

if TYPE_CHECKING:
    from pytest_django import Settings

pytestmark = pytest.mark.django_db


class Colour(Enum):
    RED = "red"


@dataclass
class Line:
    sku: str
    count: int


@dataclass
class Completed:
    order_id: str
    total: float
    lines: list[Line] = field(default_factory=list)
    coupon: str | None = None
    currency: Literal["EUR", "USD"] = "EUR"


class Viewed(TypedDict, total=False):
    sku: str
    at: datetime


GOOD = {"order_id": "1", "total": 5}


@pytest.fixture(autouse=True)
def declared(process_without_handlers: None) -> None:
    planned("Order Completed")(Completed)
    planned("Product Viewed")(Viewed)
    planned("Signed Up", schema={"properties": {"plan": {"enum": ["free", 1]}}, "required": ["plan"]})


@pytest.mark.parametrize(
    ("event", "properties", "found"),
    [
        ("Order Completed", GOOD, []),
        ("Order Completed", {"order_id": "1", "total": Decimal("1.5"), "coupon": None}, []),
        ("Order Completed", {**GOOD, "lines": [{"sku": "a", "count": 1}, Line("b", 2).__dict__]}, []),
        ("Order Completed", {"total": True},
         ["properties.order_id is missing", "properties.total must be number, not boolean"]),
        ("Order Completed", {**GOOD, "extra": 1}, ["properties.extra is not declared"]),
        ("Order Completed", {**GOOD, "coupon": 5}, ["properties.coupon must be string, not integer"]),
        ("Order Completed", {**GOOD, "currency": "GBP"}, ["properties.currency must be one of ['EUR', 'USD']"]),
        ("Order Completed", {**GOOD, "lines": [{"sku": "a", "count": 1.5}]},
         ["properties.lines[0].count must be integer, not number"]),
        ("Product Viewed", {}, []),
        ("Product Viewed", {"at": datetime(2026, 1, 2, tzinfo=timezone.utc)}, []),
        ("Product Viewed", {"at": "yesterday"}, ["properties.at must be a date-time"]),
        ("Product Viewed", {"at": "2026-13-01T00:00:00"}, ["properties.at must be a date-time"]),
        ("Signed Up", {"plan": "free", "more": 1}, []),
        ("Signed Up", {"plan": True}, ["properties.plan must be one of ['free', 1]"]),
        ("Another", {"anything": 1}, []),
    ],
)  # fmt: skip
def test_check_tells_what_is_not_as_planned(event: str, properties: dict[str, Any], found: list[str]) -> None:
    assert check(event, properties) == found


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": ["string", "null"]}, ["", None], [1, [], False]),
        ({"type": "integer"}, [1, 1.0, -5], [1.5, True, "1"]),
        ({"type": "number", "minimum": 0, "maximum": 2}, [0, 2, 1.5], [-1, 3, True]),
        ({"minLength": 1, "maxLength": 2}, ["a", "ab", 5], ["", "abc"]),
        ({"pattern": "^a"}, ["abc", 1], ["cba"]),
        ({"const": 1}, [1, 1.0], [True, 2, "1"]),
        ({"enum": [None, "a"]}, [None, "a"], ["b", 0, False]),
        ({"type": "array", "items": {"type": "string"}}, [[], ["a"]], [["a", 1], {}, "a"]),
        ({"additionalProperties": {"type": "string"}}, [{}, {"a": "b"}], [{"a": 1}]),
        ({"additionalProperties": False, "properties": {"a": True}}, [{"a": 1}], [{"b": 1}]),
        ({"properties": {"a": False}}, [{}, {"b": 1}], [{"a": 1}]),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, ["a", 1], [None, 1.5]),
        ({"format": "date"}, ["2026-01-02", 5], ["2026-02-30", "x"]),
        ({"format": "email", "title": "a note"}, ["x"], []),
    ],
)
def test_keyword_of_json_schema(schema: dict[str, Any], good: list[Any], bad: list[Any]) -> None:
    check_schema(schema)
    assert [value for value in good if validate(value, schema, "value")] == []
    assert [value for value in bad if not validate(value, schema, "value")] == []


@pytest.mark.parametrize(
    ("declaration", "schema"),
    [
        (Any, {}),
        (Decimal, {"type": "number"}),
        (UUID, {"type": "string"}),
        (date, {"type": "string", "format": "date"}),
        (Colour, {"enum": ["red"]}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (Sequence[str], {"type": "array", "items": {"type": "string"}}),
        (set[bool], {"type": "array", "items": {"type": "boolean"}}),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
    ],
)
def test_schema_of_a_type(declaration: Any, schema: dict[str, Any]) -> None:
    assert schema_of(declaration) == schema
    check_schema(schema)


@pytest.mark.parametrize("declaration", [object, complex, 5, bytes, tuple[str, int]])
def test_type_without_a_schema_is_refused(declaration: Any) -> None:
    with pytest.raises(TypeError, match="no form in a tracking plan"):
        planned("E")(declaration)


@pytest.mark.parametrize(
    "schema",
    [{"oneOf": []}, {"type": "text"}, {"properties": {"a": {"minItems": 1}}}, {"items": 5}, {"anyOf": [{"not": {}}]}],
)
def test_schema_that_is_not_understood_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="schema"):
        planned("E", schema=schema)


def test_event_is_declared_once() -> None:
    planned("Order Completed")(Completed)
    with pytest.raises(ValueError, match="'Order Completed' already"):
        planned("Order Completed")(Line)
    with pytest.raises(TypeError, match="given already"):
        planned("E", schema={})(Line)


@pytest.mark.parametrize("setting", ["DEBUG", "RAISE_ERRORS"])
def test_violation_raises_in_development(settings: Settings, setting: str) -> None:
    if setting == "DEBUG":
        settings.DEBUG = True
    else:
        settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "RAISE_ERRORS": True}
    with pytest.raises(PlanViolation, match=r"'Order Completed' is not as planned: properties\.order_id is missing"):
        track("7", "Order Completed", {"total": 1})
    assert sent() == []


def test_violation_is_counted_and_sent_in_production(caplog: pytest.LogCaptureFixture) -> None:
    assert track("7", "Order Completed", {"total": "secret"})[0] is True
    assert len(sent()) == 1
    assert "secret" not in caplog.text
    row = SeenEvent.objects.get()
    assert (row.name, row.count, row.violations) == ("Order Completed", 1, 1)
    assert row.last_violation.startswith("properties.order_id is missing; properties.total must be number")


def test_violation_is_a_dead_letter_with_plan_block(settings: Settings) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "PLAN_BLOCK": True}
    assert track("7", "Order Completed", {"total": 1})[0] is False
    assert track("7", "Order Completed", GOOD)[0] is True
    assert [message["properties"] for message in sent()] == [GOOD]
    (letter,) = buffers["default"].dead_letters()
    assert letter.reason == "plan: properties.order_id is missing"
    assert json.loads(letter.message.body)["properties"] == {"total": 1}
    assert OutcomeCount.objects.get(outcome="plan").count == 1


@pytest.mark.parametrize("block", [False, True])
def test_nothing_is_counted_or_kept_while_somebody_tests(settings: Settings, block: bool) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "PLAN_BLOCK": block}
    with captured_messages() as messages:
        track("7", "Order Completed", {"total": 1})
        track("7", "Order Completed", GOOD)
    messages.assert_tracked("Order Completed", properties=GOOD)
    assert len(messages.messages) == 2 - block
    seen.write()
    assert not SeenEvent.objects.exists()
    assert list(buffers["default"].dead_letters()) == []


BROWSER: dict[str, Callable[[dict[str, Any]], tuple[str, dict[str, Any]]]] = {
    "collect": lambda properties: ("b", batch(event(event="Order Completed", properties=properties))),
    "calls": lambda properties: ("q", calls(call("track", "Order Completed", properties))),
}


@pytest.fixture(params=BROWSER)
def browser(request: pytest.FixtureRequest, settings: Settings) -> Callable[[dict[str, Any]], Any]:
    """A page tracks an order; it is answered."""
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "FIRST_PARTY": True}

    def track(properties: dict[str, Any]) -> Any:
        return Sender().post(*BROWSER[request.param](properties))

    return track


@pytest.mark.parametrize("setting", ["", "DEBUG", "RAISE_ERRORS"])
def test_browsers_event_is_held_against_the_plan(
    settings: Settings, browser: Callable[[dict[str, Any]], Any], setting: str
) -> None:
    """And never raises: its maker would not see it."""
    settings.DEBUG = setting == "DEBUG"
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "RAISE_ERRORS": setting == "RAISE_ERRORS"}
    assert browser(GOOD).status_code in (200, 204)
    row = SeenEvent.objects.get()
    assert (row.name, row.count, row.violations) == ("Order Completed", 1, 0)
    browser({"total": 1})
    row.refresh_from_db()
    assert (row.count, row.violations, row.last_violation) == (2, 1, "properties.order_id is missing")


def test_browsers_violation_is_a_dead_letter_with_plan_block(settings: Settings) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "FIRST_PARTY": True, "PLAN_BLOCK": True}
    bad = event(event="Order Completed", messageId="bad", properties={"total": 1})
    good = event(event="Order Completed", messageId="good", properties=GOOD)
    assert Sender().post("b", batch(good, bad)).status_code == 200
    assert Sender().post("b", batch({**bad, "messageId": "worse"})).status_code == 400
    assert [message["messageId"] for message in sent()] == ["good"]
    letters = {letter.message.message_id: letter.reason for letter in buffers["default"].dead_letters()}
    assert letters == dict.fromkeys(["bad", "worse"], "plan: properties.order_id is missing")
    assert outcomes() == {"accepted": 1, "plan": 2}


def test_strangers_names_of_properties_break_no_line(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "FIRST_PARTY": True}
    odd = {f"{number}\n\x1b[31m\ud800" + "x" * 500: 1 for number in range(30)}
    assert Sender().post("b", batch(event(event="Order Completed", properties={**GOOD, **odd}))).status_code == 200
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.isprintable()
    assert told.endswith("; and more")
    assert len(told) < 2_500
    assert SeenEvent.objects.get().last_violation.isprintable()


def test_site_without_a_plan_notes_nothing_of_a_browser(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "FIRST_PARTY": True, "PLAN_BLOCK": True}
    monkeypatch.setattr(plan, "_schemas", {})
    assert Sender().post("b", batch(event(event="Order Completed", properties={}))).status_code == 200
    assert not SeenEvent.objects.exists()


def test_site_without_a_plan_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_schemas", {})
    track("7", "Order Completed", {})
    assert not SeenEvent.objects.exists()


def test_plan_is_found_in_each_apps_segment_plan(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "tests.events.shop"]
    monkeypatch.setattr(plan, "_discovered", False)
    monkeypatch.setattr(plan, "_schemas", {})
    assert list(plan.schemas) == ["Order Completed"]


def test_plan_that_cannot_be_imported_loses_no_message(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("segment_fallback.plan.autodiscover_modules", broken)
    monkeypatch.setattr(plan, "_discovered", False)
    assert track("7", "Order Completed", GOOD)[0] is True
    monkeypatch.setattr(plan, "_discovered", False)
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "RAISE_ERRORS": True}
    with pytest.raises(ImportError):
        track("7", "Order Completed", GOOD)


def command(*arguments: str) -> str:
    out = StringIO()
    call_command("segment_plan", *arguments, stdout=out)
    return out.getvalue()


def test_command_prints_the_plan_and_what_was_seen() -> None:
    for _ in range(2):
        track("7", "Order Completed", GOOD)
    track("7", "Order Completed", {"total": 1})
    track("7", "Undeclared")
    assert command().splitlines() == [
        "Order Completed: seen: 3, violations: 1, the last: properties.order_id is missing",
        "  order_id: string",
        "  total: number",
        "  lines: array of object, optional",
        "  coupon: string or null, optional",
        "  currency: one of 'EUR', 'USD', optional",
        "Product Viewed: never seen",
        "  sku: string, optional",
        "  at: string (date-time), optional",
        "Signed Up: never seen",
        "  plan: one of 'free', 1",
        "Undeclared: not declared, seen: 1",
    ]
    found = json.loads(command("--json"))
    assert found["undeclared"] == ["Undeclared"]
    assert found["seen"]["Order Completed"]["violations"] == 1
    assert found["plan"]["Signed Up"]["required"] == ["plan"]
    assert command("--forget") == "2 events forgotten.\n"
    assert not SeenEvent.objects.exists()


def test_names_without_end_fill_no_table() -> None:
    for number in range(MAX_NAMES):
        SeenEvent.objects.create(name=f"Viewed {number}", count=1)
    seen.add("Viewed x", [])
    seen.add("Viewed 7", [])
    assert SeenEvent.objects.count() == MAX_NAMES + 1
    assert SeenEvent.objects.get(name=OTHERS).count == 1
    assert SeenEvent.objects.get(name="Viewed 7").count == 2


def test_seen_events_are_added_up_before_they_are_written(settings: Settings) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "OUTCOME_INTERVAL": 3_600}
    threads = [threading.Thread(target=seen.add, args=("Order Completed", ["no"] * (n % 2))) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(MAX_NAMES + 5):
        seen.add(f"\0{number}" + "x" * 200, [])
    assert not SeenEvent.objects.exists()
    assert seen._timer
    seen._timer.cancel()
    seen.write()
    row = SeenEvent.objects.get(name="Order Completed")
    assert (row.count, row.violations) == (20, 10)
    assert SeenEvent.objects.get(name=OTHERS).count > 0


def test_what_could_not_be_written_is_kept(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def down(*arguments: Any) -> None:
        raise OSError("down")

    with monkeypatch.context() as patch:
        patch.setattr("segment_fallback.plan._add_seen", down)
        seen.add("E", ["no"])
    assert "could not be noted" in caplog.text
    seen.write()
    assert SeenEvent.objects.get().last_violation == "no"
