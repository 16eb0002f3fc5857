from __future__ import annotations

import json
import math
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from time import sleep
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db.models import TextChoices
from django.test import override_settings
from django.utils.functional import SimpleLazyObject, lazy, lazystr
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy
from hypothesis import given, settings
from hypothesis import strategies as st
from segment.analytics.client import Client

from segment_fallback import message
from segment_fallback.exceptions import InvalidMessage, SegmentFallbackError
from segment_fallback.message import MAX_DEPTH, MAX_MESSAGE_BYTES, TYPES, Way, encode, label, new_message_id, normalise
from segment_fallback.message import timestamp as iso


class Size(TextChoices):
    LARGE = "l", "Large"


class Colour(str, Enum):
    RED = "r"


class Level(IntEnum):
    HIGH = 3


class Plan(Enum):
    PRO = ("pro", 1)


class Text(str):
    def __str__(self) -> str:
        return "shown"


class Broken:
    """What a site's own objects may do when somebody looks at them."""

    def __bool__(self) -> bool:
        raise RuntimeError("truth")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("equality")

    __hash__ = None  # type: ignore[assignment]


class BrokenMapping(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


def fail() -> Any:
    raise OSError("the lazy value's database is down")


UUID = uuid.UUID("12345678-1234-5678-1234-567812345678")
PAGE = {"type": "page", "messageId": "m-1", "anonymousId": "a-1"}


def code(value: Mapping[str, Any]) -> str:
    with pytest.raises(InvalidMessage) as caught:
        encode(value)
    assert str(caught.value)
    return caught.value.code


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else "x"


# encode


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_encode_gives_the_bytes_to_send_with_the_label_first(kind: str) -> None:
    body = encode({**PAGE, "type": kind, "event": "Bought", "properties": {"título": "é", "n": 1}}).body
    ids, properties = '"messageId":"m-1","anonymousId":"a-1"', '"properties":{"título":"é","n":1}'
    rest = f'"event":"Bought",{ids},{properties}' if kind == "track" else f'{ids},"event":"Bought",{properties}'
    assert body == f'{{"type":"{kind}",{rest}}}'.encode()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"type": "track", "event": "Order"}, ("track", "Order")),
        ({"type": "track", "event": 'a "quoted" \\ one\n,"event":"x"'}, ("track", 'a "quoted" \\ one\n,"event":"x"')),
        ({"type": "track", "event": 42}, ("track", "")),
        ({"type": "page", "event": "Order", "name": "Order"}, ("page", "")),
    ],
)
def test_label_is_read_without_the_rest(fields: dict[str, Any], expected: tuple[str, str]) -> None:
    assert label(encode({**PAGE, **fields}).body) == expected


def test_label_of_what_encode_did_not_make_is_empty() -> None:
    assert label(b'{"messageId":"m","type":"track","event":"x"}') == ("", "")


def test_encode_of_a_lazy_type_and_id_gives_plain_text() -> None:
    message = encode({**PAGE, "type": SimpleLazyObject(lambda: "page"), "messageId": SimpleLazyObject(lambda: "m")})
    assert type(message.message_id) is str
    assert code({**PAGE, "type": SimpleLazyObject(fail)}) == "value"


def test_encode_keeps_how_the_message_came_beside_it() -> None:
    message = encode(PAGE, way=Way.PIXEL, provisional=True, hold=2.5)
    assert (message.message_id, message.way, message.provisional, message.hold) == ("m-1", Way.PIXEL, True, 2.5)
    assert b"pixel" not in message.body


def test_encode_leaves_the_callers_message_alone() -> None:
    original = {**PAGE, "context": {"when": date(2025, 1, 2)}}
    encode(original)
    assert original == {**PAGE, "context": {"when": date(2025, 1, 2)}}


@pytest.mark.parametrize("kind", [None, "", "Page", "batch", [], {}, 1])
def test_encode_refuses_another_type(kind: Any) -> None:
    assert code({**PAGE, "type": kind}) == "type"


@pytest.mark.parametrize("message_id", [None, "", "a b", "a\n", "é", "x" * 100, 5, "a\x00", ["m"]])
def test_encode_refuses_a_message_id_of_another_form(message_id: Any) -> None:
    assert code({**PAGE, "messageId": message_id}) == "message_id"


@pytest.mark.parametrize("message_id", ["x", "x" * 99, "ajs-next-1700000000000-" + str(UUID), "!~", UUID])
def test_encode_takes_message_ids_of_every_sdk(message_id: Any) -> None:
    message = encode({**PAGE, "messageId": message_id})
    assert message.message_id == json.loads(message.body)["messageId"] == str(message_id)


@pytest.mark.parametrize("ids", [{}, {"userId": None}, {"userId": "", "anonymousId": ""}, {"userId": lazystr("")}])
def test_encode_refuses_a_message_of_nobody(ids: dict[str, Any]) -> None:
    assert code({"type": "page", "messageId": "m", **ids}) == "no_id"


@pytest.mark.parametrize("ids", [{"userId": "u"}, {"userId": UUID}, {"userId": 7}, {"userId": lazystr("u")}])
def test_encode_takes_either_id(ids: dict[str, Any]) -> None:
    body = json.loads(encode({"type": "page", "messageId": "m", **ids}).body)
    assert str(body["userId"]) == str(ids["userId"])


def test_encode_refuses_a_source_that_no_buffer_could_keep() -> None:
    with pytest.raises(InvalidMessage, match="may have 40 characters, this one has 41"):
        encode(PAGE, source="s" * 41)


@pytest.mark.parametrize("event", [None, "", lazystr("")])
def test_encode_refuses_a_track_without_event(event: Any) -> None:
    assert code({**PAGE, "type": "track", "event": event}) == "no_event"


def test_encode_measures_bytes_and_not_characters() -> None:
    frame = len(encode({**PAGE, "name": ""}).body)
    assert len(encode({**PAGE, "name": "é" * ((MAX_MESSAGE_BYTES - frame) // 2)}).body) <= MAX_MESSAGE_BYTES
    assert len(encode({**PAGE, "name": "x" * (MAX_MESSAGE_BYTES - frame)}).body) == MAX_MESSAGE_BYTES
    assert code({**PAGE, "name": "x" * (MAX_MESSAGE_BYTES - frame + 1)}) == "size"
    assert code({**PAGE, "name": "é" * (MAX_MESSAGE_BYTES // 2)}) == "size"


def test_encode_refuses_what_is_nested_too_deep() -> None:
    encode({**PAGE, "properties": {"a": nested(MAX_DEPTH - 2)}})
    assert code({**PAGE, "properties": {"a": nested(MAX_DEPTH - 1)}}) == "depth"


def test_encode_refuses_a_cycle() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert code({**PAGE, "properties": {"a": loop}}) == "depth"


def test_invalid_message_is_ours_and_a_value_error() -> None:
    assert issubclass(InvalidMessage, SegmentFallbackError)
    assert issubclass(InvalidMessage, ValueError)


def test_refusal_quotes_no_value() -> None:
    with pytest.raises(InvalidMessage) as caught:
        encode({**PAGE, "properties": {"secret": b"the card's number"}})
    assert "secret" not in str(caught.value)
    assert "card" not in str(caught.value)


# normalise


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (True, True),
        (0, 0),
        (2**60, 2**60),
        (-1.5, -1.5),
        (math.nan, None),
        (math.inf, None),
        (Decimal("19.90"), 19.9),
        (Decimal("NaN"), None),
        (Decimal("-Infinity"), None),
        (datetime(2025, 1, 2, 3, 4, 5, tzinfo=timezone.utc), "2025-01-02T03:04:05+00:00"),
        (datetime(2025, 7, 2, 3, 4, 5, tzinfo=ZoneInfo("Europe/Berlin")), "2025-07-02T03:04:05+02:00"),
        (date(2025, 1, 2), "2025-01-02"),
        (time(3, 4), "03:04:00"),
        (UUID, str(UUID)),
        (gettext_lazy("Monday"), "Monday"),
        (mark_safe("<b>"), "<b>"),
        (Text("hidden"), "shown"),
        ("a\ud800b", "a?b"),
        ("a\x00b", "a\x00b"),
        ("\u2028</script>", "\u2028</script>"),
        ((1, [2]), [1, [2]]),
        ({"b", "a", "c"}, ["a", "b", "c"]),
        (frozenset({UUID}), [str(UUID)]),
        (OrderedDict(a=1), {"a": 1}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (Size.LARGE, "l"),
        (Colour.RED, "r"),
        (Level.HIGH, 3),
        (Plan.PRO, ["pro", 1]),
        (SimpleLazyObject(lambda: "text"), "text"),
        (SimpleLazyObject(lambda: 5), 5),
        (SimpleLazyObject(lambda: 0.5), 0.5),
        (SimpleLazyObject(lambda: True), True),
        (SimpleLazyObject(lambda: {"a": (1,)}), {"a": [1]}),
    ],
    ids=repr,
)
def test_normalise(value: Any, plain: Any) -> None:
    result = normalise(value)
    assert result == plain
    assert type(result) is type(plain)
    assert json.loads(json.dumps(result)) == plain


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("a", "a"),
        (True, "true"),
        (None, "null"),
        (5, "5"),
        (1.5, "1.5"),
        (UUID, str(UUID)),
        (lazystr("a"), "a"),
        ("\ud800", "?"),
        (Size.LARGE, "l"),
        (Level.HIGH, "3"),
    ],
    ids=repr,
)
def test_normalise_key(key: Any, text: str) -> None:
    assert normalise({key: 1}) == {text: 1}


@pytest.mark.parametrize("key", [True, False, None, 5, -1.5, 1e100])
def test_normalise_writes_keys_as_json_does(key: Any) -> None:
    assert json.dumps(normalise({key: 1})) == json.dumps({key: 1})


@pytest.mark.parametrize(
    "value",
    [
        b"bytes",
        bytearray(b"x"),
        timedelta(1),
        object(),
        1j,
        len,
        Broken(),
        BrokenMapping(),
        (number for number in [1]),
        10**400,
        10**5_000,
        -(10**5_000),
        Decimal("1e400"),
        Decimal("sNaN"),
        {(1, 2): 1},
        {b"a": 1},
        {math.nan: 1},
        {10**5_000: 1},
        {1: "a", "1": "b"},
        {None: "a", "null": "b"},
    ],
    ids=lambda value: type(value).__name__,
)
def test_normalise_refuses_what_has_no_form_in_json(value: Any) -> None:
    for place in (value, [value], {"a": value}):
        with pytest.raises(InvalidMessage) as caught:
            normalise(place)
        assert caught.value.code == "value"


@pytest.mark.parametrize("make", [lambda: SimpleLazyObject(fail), lazy(fail, str)], ids=["object", "text"])
def test_normalise_refuses_a_lazy_value_that_fails(make: Any) -> None:
    value = make()
    with pytest.raises(InvalidMessage, match=r"OSError") as caught:
        normalise({"a": value})
    assert isinstance(caught.value.__cause__, OSError)


def test_normalise_takes_a_naive_datetime_for_one_of_the_sites_time_zone() -> None:
    with override_settings(TIME_ZONE="Asia/Tokyo"):
        assert normalise(datetime(2025, 1, 2, 3, 4)) == "2025-01-02T03:04:00+09:00"
        assert iso(datetime(2025, 1, 2, 3, 4)) == "2025-01-01T18:04:00.000Z"
        assert normalise(datetime.min).startswith("0001-01-01T00:00:00+")


def test_timestamp_is_utc_with_milliseconds() -> None:
    assert iso(datetime(2025, 7, 2, 3, 4, 5, 678_900, ZoneInfo("Europe/Berlin"))) == "2025-07-02T01:04:05.678Z"
    now = datetime.fromisoformat(iso().replace("Z", "+00:00"))
    assert abs(now - datetime.now(timezone.utc)) < timedelta(seconds=5)


def test_new_message_id_is_new_each_time_and_passes_encode() -> None:
    ids = {new_message_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(encode({**PAGE, "messageId": message_id}).message_id == message_id for message_id in ids)


def test_message_ids_are_in_the_order_in_which_they_were_made() -> None:
    ids = []
    for _ in range(20):
        ids.append(new_message_id())
        sleep(0.002)
    assert ids == sorted(ids)
    made = datetime.fromtimestamp(int(ids[-1][:12], 16) / 1000, timezone.utc)
    assert abs(made - datetime.now(timezone.utc)) < timedelta(seconds=5)
    assert len({message_id[12:16] for message_id in ids}) > 1


# properties

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=[]))
JSON_ABLE = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.integers() | st.booleans() | st.none(), inner, max_size=4)
    ),
    max_leaves=30,
)
PYTHON = st.recursive(
    SCALARS
    | st.binary()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals()
    | st.fractions()
    | st.complex_numbers()
    | st.uuids()
    | st.integers(min_value=10**300, max_value=10**400)
    | st.sampled_from(
        [Size.LARGE, Colour.RED, Level.HIGH, Plan.PRO, lazystr("x"), object(), len, Broken(), BrokenMapping()]
    )
    | st.builds(lambda: SimpleLazyObject(fail)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.binary() | st.floats() | st.dates() | st.tuples(), inner, max_size=4)
    ),
    max_leaves=20,
)


def attempt(message: Mapping[str, Any]) -> tuple[bytes, str | None]:
    """The body, or the code of its refusal; nothing else may happen."""
    try:
        return encode(message).body, None
    except InvalidMessage as error:
        return b"", error.code


@settings(deadline=None)  # a busy machine is no failure
@given(JSON_ABLE)
def test_encode_of_json_able_values_comes_back_from_json(value: Any) -> None:
    message = {**PAGE, "properties": {"value": value}}
    body, refusal = attempt(message)
    if refusal is not None:
        assert refusal in ("size", "depth") or (refusal == "value" and has_clash(value))
        return
    assert len(body) <= MAX_MESSAGE_BYTES
    assert json.loads(body.decode("utf-8", "strict")) == normalise(message)
    # Where JSON itself would have written it, we have changed only what is no JSON, or no Unicode.
    if "NaN" not in (text := json.dumps(value)) and "Infinity" not in text and "\\ud" not in text:
        assert json.loads(body)["properties"]["value"] == json.loads(text)


def has_clash(value: Any) -> bool:
    """Whether some dict has two keys that are one text in JSON."""
    if isinstance(value, dict):
        keys = [key if isinstance(key, str) else json.dumps(key) for key in value]
        return len(set(keys)) < len(keys) or any(map(has_clash, value.values()))
    return isinstance(value, list) and any(map(has_clash, value))


@settings(deadline=None)  # a busy machine is no failure
@given(st.dictionaries(st.sampled_from(["type", "messageId", "userId", "event", "properties"]), PYTHON), PYTHON)
def test_encode_of_anything_raises_nothing_but_invalid_message(message: dict[str, Any], value: Any) -> None:
    for candidate in (message, {**message, **PAGE}, {**PAGE, "properties": value}):
        body, refusal = attempt(candidate)
        assert refusal in {None, "type", "message_id", "no_id", "no_event", "value", "depth", "size"}
        assert refusal or json.loads(body.decode("utf-8", "strict"))


@settings(deadline=None)  # a busy machine is no failure
@given(JSON_ABLE)
def test_normalise_of_its_result_changes_nothing(value: Any) -> None:
    try:
        plain = normalise(value)
    except InvalidMessage:
        return
    assert normalise(plain) == plain


# beside Segment's own SDK


def from_sdk(value: Any) -> Any:
    """What the SDK would send for ``{"value": value}``; "nothing" where it drops it, "crash" where it raises."""
    client = Client("wk", send=False)
    try:
        message = client.track("u", "E", {"value": value})[1]
        sent = json.loads(json.dumps(message, default=lambda moment: moment.isoformat()), parse_constant=str)
    except (TypeError, ValueError, AttributeError):
        return "crash"
    return sent["properties"].get("value", "nothing")


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        7,
        1.5,
        "é",
        Decimal("19.90"),
        datetime(2025, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
        date(2025, 1, 2),
        Size.LARGE,
        Colour.RED,
        Level.HIGH,
        Plan.PRO,
        (1, 2),
        {1},
        {"a": [{"b": None}]},
        {1: "a", None: "b", 1.5: "c", "d": "e"},
    ],
    ids=repr,
)
def test_normalise_agrees_with_the_sdk(value: Any) -> None:
    assert normalise({"value": value})["value"] == from_sdk(value)


@pytest.mark.parametrize(
    ("value", "sdk", "ours"),
    [
        (UUID, "nothing", str(UUID)),
        ([UUID, "kept?"], "nothing", [str(UUID), "kept?"]),
        (lazystr("text"), "nothing", "text"),
        (frozenset({1}), "nothing", [1]),
        (MappingProxyType({"a": 1}), "nothing", {"a": 1}),
        (math.nan, "NaN", None),
        (time(3, 4), "nothing", "03:04:00"),
        ("\ud800", "\ud800", "?"),
        (SimpleLazyObject(lambda: 5), "crash", 5),
    ],
    ids=repr,
)
def test_normalise_keeps_what_the_sdk_drops_or_breaks(value: Any, sdk: Any, ours: Any) -> None:
    assert from_sdk(value) == sdk
    assert normalise(value) == ours


@pytest.mark.parametrize(
    "value", [timedelta(1), object(), Decimal("1e400"), 10**5_000, 1j], ids=lambda value: type(value).__name__
)
def test_normalise_names_what_the_sdk_drops_or_breaks(value: Any) -> None:
    assert from_sdk(value) in ("nothing", "crash", "Infinity")
    with pytest.raises(InvalidMessage):
        normalise(value)


plain_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), plain_json, max_size=4))
def test_message_says_the_same_with_orjson_and_without(properties: dict[str, Any]) -> None:
    event = {"type": "track", "event": "Bought", "messageId": "m", "userId": "u", "properties": properties}
    with pytest.MonkeyPatch.context() as patch:
        fast = encode(event).body
        patch.setattr(message, "orjson", None)
        plain = encode(event).body
    assert json.loads(fast) == json.loads(plain)
    assert label(fast) == label(plain) == ("track", "Bought")
