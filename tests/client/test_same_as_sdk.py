"""Our calls beside the real SDK's, on the same inputs: what Segment is sent is equal, but for a documented list."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
import segment.analytics
from django.test import override_settings
from django.utils.functional import lazystr
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
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
        with override_settings(SEGMENT_FALLBACK={**settings.SEGMENT_FALLBACK, "CAPTURE_SDK": False}):
            client = Client("tests-write-key", host=local_segment.url, sync_mode=True)
            getattr(client, method)(*args, **kwargs)
        return delivered(local_segment)

    return call


@pytest.fixture
def captured(local_segment: LocalSegment) -> Callable[..., Delivered]:
    """The same with us."""

    def call(method: str, *args: Any, **kwargs: Any) -> Delivered:
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
    (time(1, 2), "01:02:00"),
    (frozenset([2, 1]), [1, 2]),
    (MappingProxyType({"a": 1}), {"a": 1}),
    ([b"a", object(), 1], ["a", 1]),
    ([bytearray(b"a"), timedelta(1)], ["a"]),
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


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ([1, b"\xff"], [1]),
        ([1, 1j, Fraction(1, 2)], [1]),
        ({"a": 1, date(2026, 1, 2): 2}, {"a": 1}),
        ({"a": 1, b"b": {}}, {"a": 1}),
        ({ID: 1}, {str(ID): 1}),
    ],
)
def test_value_with_which_the_sdk_raises_is_left_out(
    sdk: Callable[..., Delivered], ours: Callable[..., Delivered], value: object, kept: object
) -> None:
    with pytest.raises((TypeError, UnicodeDecodeError)):
        sdk("track", "u", "E", {"value": value, "more": 1})
    assert ours("track", "u", "E", {"value": value, "more": 1})[0]["properties"] == {"value": kept, "more": 1}


@pytest.mark.parametrize("value", [2**1_100, Decimal("1e400")])
def test_number_past_a_double_is_left_out(ours: Callable[..., Delivered], value: object) -> None:
    assert ours("track", "u", "E", {"value": value, "list": [1, value]})[0]["properties"] == {"list": [1]}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, Decimal("NaN")])
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
        ("E", {"keys": {1: "a", "1": "b"}}, {"keys": {"1": "b"}}, {"keys": {"1": "b"}}),
        ("E", {"text": "\ud800x"}, {"text": "\ud800x"}, {"text": "?x"}),
        ("", {}, {}, None),
        ("E", {"text": "é" * 14_000}, None, {"text": "é" * 14_000}),
        ("E", {"a": deep(30)}, {"a": deep(30)}, None),
    ],
    ids=["naive datetime", "set", "keys", "surrogate", "no event name", "size", "depth"],
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


@pytest.mark.parametrize("message_id", ["x" * 100, "two\nlines", "é"])
def test_message_id_of_odd_form_is_refused(
    ours: Callable[..., Delivered], local_segment: LocalSegment, settings: Any, message_id: str
) -> None:
    with override_settings(SEGMENT_FALLBACK={**settings.SEGMENT_FALLBACK, "CAPTURE_SDK": False}):
        Client("tests-write-key", host=local_segment.url, sync_mode=True).track("u", "E", message_id=message_id)
    assert [received.message_id for received in local_segment.messages] == [message_id]
    local_segment.clear()
    assert ours("track", "u", "E", message_id=message_id) == []


def test_library_is_ours(sdk: Callable[..., Delivered], ours: Callable[..., Delivered]) -> None:
    assert sdk("track", "u", "E")[0]["context"]["library"]["name"] == "analytics-python"
    assert ours("track", "u", "E")[0]["context"]["library"]["name"] == "django-segment-fallback"


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


TEXT = st.text(max_size=12)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.decimals(allow_nan=False, allow_infinity=False, places=2),
    TEXT,
    TEXT.map(str.encode),
    st.dates(),
    st.datetimes(timezones=st.just(timezone.utc)),
    st.sampled_from(Plan),
)
KEYS = st.one_of(TEXT, st.integers(1_000, 9_999), st.booleans(), st.none())


def same_text(key: object) -> object:
    """The key as json.dumps writes it: two that are the same text are one of the differences."""
    return key if isinstance(key, str) else json.dumps(key)


def dicts(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[Any, Any]]:
    pairs = st.lists(st.tuples(KEYS, values), max_size=4, unique_by=lambda pair: same_text(pair[0]))
    return pairs.map(dict)


VALUE = st.recursive(
    SCALARS,
    lambda values: st.one_of(
        st.lists(values, max_size=4),
        st.tuples(values, values),
        st.sets(st.one_of(st.integers(), TEXT), max_size=1),
        dicts(values),
    ),
    max_leaves=12,
)
ANY_ID = st.one_of(st.text(min_size=1, max_size=20), st.integers(1), st.floats(1, 1e9), st.just(True))
WITH_VALUES = {
    "track": "properties",
    "page": "properties",
    "screen": "properties",
    "identify": "traits",
    "group": "traits",
}


@st.composite
def any_call(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A call of any kind, by its arguments' names, which the SDK takes."""
    method = draw(st.sampled_from(sorted([*WITH_VALUES, "alias"])))
    given: dict[str, Any] = {"user_id": draw(ANY_ID)}
    if method == "alias":
        given["previous_id"] = draw(ANY_ID)
    else:
        given[WITH_VALUES[method]] = draw(dicts(VALUE))
        given |= draw(st.fixed_dictionaries({}, optional={"anonymous_id": ANY_ID}))
    if method == "track":
        given["event"] = draw(st.text(min_size=1, max_size=20))
    if method == "group":
        given["group_id"] = draw(ANY_ID)
    if method in ("page", "screen"):
        given |= draw(st.fixed_dictionaries({}, optional={"name": TEXT, "category": TEXT}))
    more = {"context": dicts(VALUE), "integrations": dicts(st.booleans()), "timestamp": st.just(WHEN)}
    return method, given | draw(st.fixed_dictionaries({}, optional=more))


@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(made=any_call())
def test_any_call_delivers_what_the_sdk_delivers(
    sdk: Callable[..., Delivered],
    ours: Callable[..., Delivered],
    captured: Callable[..., Delivered],
    made: tuple[str, dict[str, Any]],
) -> None:
    method, arguments = made
    expected = sdk(method, **copy.deepcopy(arguments))
    assert len(expected) == 1
    assert captured(method, **copy.deepcopy(arguments)) == expected
    assert without_library(ours(method, **arguments)) == without_library(expected)


TESTED_BY = {
    "UUID, lazy text, `time`, frozenset, a mapping that is no dict": test_value_that_the_sdk_drops_survives,
    "a value without form in JSON": test_value_that_the_sdk_drops_survives,
    "bytes that are not UTF-8, a complex number or a fraction, a dict's key that is a date": (
        test_value_with_which_the_sdk_raises_is_left_out
    ),
    "a number past the range of a double": test_number_past_a_double_is_left_out,
    'two keys that are the same text (`1` and `"1"`)': test_difference_is_as_documented,
    "half of a surrogate pair": test_difference_is_as_documented,
    "NaN, Infinity": test_number_that_is_none_is_null_where_the_sdk_writes_invalid_json,
    "a UUID as id": test_uuid_is_an_id_where_the_sdk_raises,
    "the caller's `context`": test_context_of_the_caller_is_unchanged_where_the_sdk_writes_into_it,
    "a datetime without time zone": test_difference_is_as_documented,
    "a set": test_difference_is_as_documented,
    "an empty event name": test_difference_is_as_documented,
    "messageId past 99 characters, or not of printable ASCII": test_message_id_of_odd_form_is_refused,
    "more than 32,000 bytes of UTF-8": test_difference_is_as_documented,
    "nested deeper than 20 levels": test_difference_is_as_documented,
    "`context.library`": test_library_is_ours,
}


def test_every_difference_that_is_documented_is_tested() -> None:
    text = (Path(__file__).parents[2] / "docs/how-to/server-events.md").read_text("utf-8")
    table = text.split("## Where it differs from the SDK")[1].split("##")[0]
    rows = [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines() if line.startswith("| ")]
    assert rows[1:] == [*TESTED_BY]
