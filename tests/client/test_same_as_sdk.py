"""Our calls beside the real SDK's, on the same inputs: what Segment is sent is equal, but for a documented list."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date, datetime, timezone
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
import segment.analytics
from django.utils.functional import lazystr
from segment.analytics.client import Client

import segment_fallback
from segment_fallback.delivery.flush import flush
from segment_fallback.testing import LocalSegment

pytestmark = pytest.mark.django_db

ID = UUID("6f8b9f0e-7f4e-4d68-9c1e-0f1a2b3c4d5e")
WHEN = datetime(2026, 3, 4, 5, 6, 7, 89_000, tzinfo=timezone.utc)

Delivered = list[dict[str, Any]]


class Plan(Enum):
    PRO = "pro"


@pytest.fixture
def sdk(local_segment: LocalSegment, settings: Any) -> Callable[..., Delivered]:
    """What Segment gets of a call to the SDK as it is without us."""

    def call(method: str, *args: Any, **kwargs: Any) -> Delivered:
        settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "CAPTURE_SDK": False}
        client = Client("tests-write-key", host=local_segment.url, sync_mode=True)
        getattr(client, method)(*args, **kwargs)
        return delivered(local_segment)

    return call


@pytest.fixture
def captured(local_segment: LocalSegment, settings: Any) -> Callable[..., Delivered]:
    """The same with us."""

    def call(method: str, *args: Any, **kwargs: Any) -> Delivered:
        settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "CAPTURE_SDK": True}
        getattr(Client("tests-write-key", host="https://nowhere.example"), method)(*args, **kwargs)
        flush()
        return delivered(local_segment)

    return call


@pytest.fixture
def ours(local_segment: LocalSegment) -> Callable[..., Delivered]:
    """What Segment gets of one of our calls."""

    def call(method: str, *args: Any, **kwargs: Any) -> Delivered:
        getattr(segment_fallback, method)(*args, **kwargs)
        flush()
        return delivered(local_segment)

    return call


def delivered(segment: LocalSegment) -> Delivered:
    """The messages, without what differs from call to call."""
    found = [dict(received.message) for received in segment.messages]
    segment.clear()
    for message in found:
        assert len(str(message.pop("messageId"))) >= 32
        assert datetime.fromisoformat(message["timestamp"]).tzinfo
        if message["timestamp"] != WHEN.isoformat(timespec="milliseconds"):
            del message["timestamp"]
    return found


def without_library(messages: Delivered) -> Delivered:
    return [
        {**message, "context": {key: value for key, value in message["context"].items() if key != "library"}}
        for message in messages
    ]


def deep(levels: int) -> dict[str, Any]:
    return {"a": deep(levels - 1)} if levels else {}


VALUES = {
    "text": "é ✓",
    "lazy-free": None,
    "int": 1,
    "float": 1.5,
    "true": True,
    "decimal": Decimal("12.50"),
    "date": date(2026, 1, 2),
    "datetime": WHEN,
    "enum": Plan.PRO,
    "list": [1, "a", None, Decimal(1)],
    "tuple": (1, 2),
    "set": {1},
    "bytes": b"\xc3\xa9",
    "nested": {"a": {"b": [{"c": date(2026, 1, 2)}]}},
    3: "a number as key",
}
CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("track", ("u", "E"), {}),
    ("track", ("u", "E", VALUES), {}),
    ("track", (5, "E"), {"timestamp": WHEN, "anonymous_id": 7, "integrations": {"All": False, "Mixpanel": True}}),
    ("track", (None, "E", None, {"ip": "1.2.3.4", "library": {"name": "x"}}), {"anonymous_id": "a"}),
    ("track", (), {"user_id": "u", "event": "E", "properties": {}}),
    ("page", ("u", "category", "name", {"a": 1}), {}),
    ("page", ("u",), {}),
    ("screen", ("u", None, "name"), {"context": {"locale": "de"}}),
    ("identify", ("u", VALUES), {}),
    ("identify", (1.5,), {"anonymous_id": "a"}),
    ("group", ("u", 4, {"plan": Plan.PRO}), {}),
    ("group", ("u", "g"), {}),
    ("alias", ("a", "u"), {}),
    ("alias", (3, 4), {"timestamp": WHEN}),
]


@pytest.mark.parametrize(("method", "args", "kwargs"), CALLS)
def test_call_delivers_what_the_sdk_delivers(
    sdk: Callable[..., Delivered], ours: Callable[..., Delivered], method: str, args: Any, kwargs: Any
) -> None:
    expected = sdk(method, *args, **kwargs)
    assert len(expected) == 1
    assert without_library(ours(method, *args, **kwargs)) == without_library(expected)


@pytest.mark.parametrize(("method", "args", "kwargs"), CALLS)
def test_captured_call_delivers_what_the_sdk_delivers(
    sdk: Callable[..., Delivered], captured: Callable[..., Delivered], method: str, args: Any, kwargs: Any
) -> None:
    expected = sdk(method, *args, **kwargs)
    assert len(expected) == 1
    assert captured(method, *args, **kwargs) == expected


KEPT: list[tuple[object, object]] = [
    (ID, str(ID)),
    ([1, ID], [1, str(ID)]),
    (lazystr("text"), "text"),
    ([b"a", object(), 1], ["a", 1]),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("value", "kept"), KEPT)
def test_value_that_the_sdk_drops_survives(
    sdk: Callable[..., Delivered],
    ours: Callable[..., Delivered],
    captured: Callable[..., Delivered],
    value: object,
    kept: object,
) -> None:
    assert sdk("track", "u", "E", {"value": value, "more": 1})[0]["properties"] == {"more": 1}
    assert ours("track", "u", "E", {"value": value, "more": 1})[0]["properties"] == {"value": kept, "more": 1}
    assert captured("track", "u", "E", {"value": value, "more": 1})[0]["properties"] == {"value": kept, "more": 1}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_number_that_is_none_is_null_where_the_sdk_writes_invalid_json(
    ours: Callable[..., Delivered], captured: Callable[..., Delivered], value: float
) -> None:
    assert ours("track", "u", "E", {"value": value})[0]["properties"] == {"value": None}
    assert captured("track", "u", "E", {"value": value})[0]["properties"] == {"value": None}


@pytest.mark.parametrize(
    ("event", "properties", "theirs", "as_ours"),
    [
        ("E", {"at": datetime(2026, 1, 2)}, {"at": "2026-01-02T00:00:00"}, {"at": "2026-01-02T00:00:00-06:00"}),
        ("E", {"set": {3, 1, 2}}, {"set": [1, 2, 3]}, {"set": [1, 2, 3]}),
        ("", {}, {}, None),
        ("E", {"text": "é" * 14_000}, None, {"text": "é" * 14_000}),
        ("E", {"a": deep(30)}, {"a": deep(30)}, None),
    ],
    ids=["naive datetime", "set", "no event name", "size", "depth"],
)
def test_difference_is_as_documented(
    *,
    sdk: Callable[..., Delivered],
    ours: Callable[..., Delivered],
    settings: Any,
    event: str,
    properties: dict[str, Any],
    theirs: object,
    as_ours: object,
) -> None:
    settings.TIME_ZONE = "America/Chicago"
    if theirs is None:
        with pytest.raises(RuntimeError):
            sdk("track", "u", event, properties)
    else:
        assert [message["properties"] for message in sdk("track", "u", event, properties)] == [theirs]
    found = [message["properties"] for message in ours("track", "u", event, properties)]
    assert found == ([] if as_ours is None else [as_ours])


def test_uuid_is_an_id_where_the_sdk_raises(sdk: Callable[..., Delivered], ours: Callable[..., Delivered]) -> None:
    with pytest.raises(AssertionError):
        sdk("track", ID, "E")
    assert ours("track", ID, "E")[0]["userId"] == str(ID)


def test_context_of_the_caller_is_unchanged_where_the_sdk_writes_into_it(
    sdk: Callable[..., Delivered], captured: Callable[..., Delivered], ours: Callable[..., Delivered]
) -> None:
    context: dict[str, Any] = {"ip": "1.2.3.4"}
    ours("track", "u", "E", {}, context)
    captured("track", "u", "E", {}, context)
    assert context == {"ip": "1.2.3.4"}
    sdk("track", "u", "E", {}, context)
    assert "library" in context


REFUSED: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("track", (), {"event": "E"}),
    ("track", ("u",), {}),
    ("track", ("u", 5), {}),
    ("track", ({}, "E"), {}),
    ("track", ("u", "E", "properties"), {}),
    ("track", ("u", "E", {}, "context"), {}),
    ("track", ("u", "E"), {"timestamp": "2026-01-01"}),
    ("track", ("u", "E"), {"integrations": "All"}),
    ("page", (), {}),
    ("page", ("u", 5), {}),
    ("page", ("u", None, 5), {}),
    ("screen", (), {}),
    ("identify", (), {}),
    ("identify", ("u", "traits"), {}),
    ("group", ("u",), {}),
    ("group", (None, "g"), {}),
    ("alias", ("a",), {}),
    ("alias", (None, "u"), {}),
]


@pytest.mark.parametrize(("method", "args", "kwargs"), REFUSED)
def test_call_is_refused_where_the_sdk_raises(method: str, args: Any, kwargs: Any, settings: Any) -> None:
    client = Client("another key", send=False)
    with pytest.raises(AssertionError):
        getattr(client, method)(*args, **kwargs)
    assert getattr(segment_fallback, method)(*args, **kwargs)[0] is False
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "RAISE_ERRORS": True}
    with pytest.raises(segment_fallback.exceptions.InvalidMessage):
        getattr(segment_fallback, method)(*args, **kwargs)


@pytest.mark.parametrize("method", ["track", "page", "screen", "identify", "group", "alias"])
def test_call_takes_the_sdks_arguments_in_their_order(method: str) -> None:
    import inspect

    theirs = list(inspect.signature(getattr(Client, method)).parameters)[1:]
    assert list(inspect.signature(getattr(segment_fallback.client, method)).parameters)[: len(theirs)] == theirs
    assert callable(getattr(segment.analytics, method))
