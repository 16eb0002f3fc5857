from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from segment_fallback.intake.calls import InvalidCall, event_of, page_of
from segment_fallback.intake.incoming import checked
from segment_fallback.outcome import Refused

PAGE = {"__t": "bpc", "p": "/shop/", "u": "https://shop.example/shop/?a=1#top", "s": "?a=1", "t": "A shop", "r": ""}
METHODS = ["track", "page", "screen", "identify", "group", "alias"]

Make = Callable[[str, list[Any], dict[str, Any]], dict[str, Any] | None]


@pytest.fixture(scope="module")
def real() -> Iterator[Make]:
    """The event that the real library makes of a call, None where it throws."""
    script = Path(__file__).with_name("real_calls.cjs")
    with subprocess.Popen(
        ["node", str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as node:
        assert node.stdin
        assert node.stdout
        stdin, stdout = node.stdin, node.stdout

        def make(method: str, arguments: list[Any], page: dict[str, Any]) -> dict[str, Any] | None:
            stdin.write(json.dumps([method, arguments, page]) + "\n")
            stdin.flush()
            event = json.loads(stdout.readline())
            return comparable(event) if event is not None else None

        yield make
        stdin.close()


def ours(method: str, arguments: list[Any], page: dict[str, Any]) -> dict[str, Any] | None:
    # What JSON.stringify makes of a callback.
    arguments = [None if argument == "<function>" else argument for argument in arguments]
    try:
        return comparable(event_of(method, arguments, page_of(page)))
    except InvalidCall:
        return None


def comparable(event: dict[str, Any]) -> dict[str, Any] | None:
    """The fields that we keep. Without a messageId of its own, each event has another one."""
    given = (event.get("context") or {}).get("given")
    try:
        found = checked(event, None)
    except Refused:
        return None
    found.setdefault("anonymousId", "nobody")
    if given != "id":
        del found["messageId"]
    return found


def test_comparison_sees_a_difference(real: Make) -> None:
    assert real("track", ["A"], PAGE) == ours("track", ["A"], PAGE) != ours("track", ["B"], PAGE)
    assert real("track", [], PAGE) is ours("track", [], PAGE) is None


OPTIONS = {
    "context": {"active": True, "page": {"title": "Chosen"}},
    "userId": "u",
    "anonymousId": "a",
    "timestamp": "2026-01-01T00:00:00.000Z",
    "messageId": "m",
    "integrations": {"All": False, "X": {"id": 1}},
    "given": "id",
    "traits.plan": "gold",
    "ip": "1.2.3.4",
    "page.search": "?b",
}
TABLE: list[tuple[str, list[Any]]] = [
    ("track", ["Bought"]),
    ("track", ["Bought", {"price": 1}]),
    ("track", ["Bought", {"price": 1}, OPTIONS]),
    ("track", ["Bought", {"price": 1}, OPTIONS, "<function>"]),
    ("track", ["Bought", "<function>"]),
    ("track", ["Bought", {"price": 1}, "<function>"]),
    ("track", ["Bought", None, OPTIONS]),
    ("track", [{"event": "Bought", "properties": {"price": 1}}, OPTIONS]),
    ("track", [{"event": "Bought"}, "<function>"]),
    ("track", [{"event": "Bought", "properties": "x"}]),
    ("track", [{"properties": {}}]),
    ("track", [""]),
    ("track", [5]),
    ("track", []),
    ("page", []),
    ("page", ["<function>"]),
    ("page", ["Name"]),
    ("page", ["Name", "<function>"]),
    ("page", ["Category", "Name"]),
    ("page", ["Category", "Name", "<function>"]),
    ("page", ["Category", "Name", {"a": 1}]),
    ("page", ["Category", "Name", {"a": 1}, OPTIONS]),
    ("page", ["Category", "Name", {"a": 1}, OPTIONS, "<function>"]),
    ("page", ["Category", "Name", None, OPTIONS]),
    ("page", ["Name", {"a": 1, "title": "Mine", "url": "https://shop.example/mine"}]),
    ("page", ["Name", {"a": 1}, OPTIONS]),
    ("page", [None, "Name", {"a": 1}]),
    ("page", [None, None, {"a": 1}]),
    ("page", [None, None, None, OPTIONS]),
    ("page", [{"a": 1}]),
    ("page", [{"a": 1}, OPTIONS]),
    ("page", [{"a": 1}, OPTIONS, {"b": 1}]),
    ("page", ["A", "B", "C"]),
    ("page", ["A", None, "C"]),
    ("page", ["A", {"category": "C", "name": "N", "path": "/p"}]),
    ("screen", ["Category", "Name", {"a": 1}, OPTIONS]),
    ("screen", ["Name", {"a": 1}]),
    ("identify", ["u"]),
    ("identify", [5]),
    ("identify", [1.5]),
    ("identify", ["u", {"a": 1}]),
    ("identify", ["u", {"a": 1}, OPTIONS]),
    ("identify", ["u", {"a": 1}, "<function>"]),
    ("identify", ["u", "<function>"]),
    ("identify", [{"a": 1}]),
    ("identify", [{"a": 1}, OPTIONS]),
    ("identify", [None, {"a": 1}]),
    ("identify", ["u", None, OPTIONS]),
    ("identify", ["u", "odd", {"a": 1}]),
    ("identify", [True, {"a": 1}]),
    ("identify", ["u", {"a": 1}, {"context": {"x": 1}}, {"b": 1}, {"c": 1}]),
    ("identify", []),
    ("group", ["g", {"a": 1}, OPTIONS]),
    ("group", [5]),
    ("group", [{"a": 1}]),
    ("alias", ["new"]),
    ("alias", ["new", "old"]),
    ("alias", ["new", "old", OPTIONS, "<function>"]),
    ("alias", ["new", OPTIONS]),
    ("alias", ["new", "<function>"]),
    ("alias", [5, 6]),
    ("alias", [None, "old"]),
    ("alias", [{"a": 1}]),
    ("alias", []),
]


@pytest.mark.parametrize(("method", "arguments"), TABLE, ids=[f"{m}{json.dumps(a)[:50]}" for m, a in TABLE])
def test_call_means_what_the_real_library_makes_of_it(real: Make, method: str, arguments: list[Any]) -> None:
    assert ours(method, arguments, PAGE) == real(method, arguments, PAGE)


@pytest.mark.parametrize(
    "page",
    [
        PAGE,
        {**PAGE, "c": "https://shop.example/canonical/"},
        {**PAGE, "c": "https://shop.example/canonical?b=2"},
        {**PAGE, "c": "/relative"},
        {**PAGE, "c": "bare"},
        {**PAGE, "s": "", "u": "https://shop.example/shop/"},
    ],
)
def test_page_of_a_call_is_that_of_the_real_library(real: Make, page: dict[str, Any]) -> None:
    for method in METHODS:
        assert ours(method, ["A"], page) == real(method, ["A"], page)


words = st.text("abcxyz ", max_size=4)
values = words | st.integers(-5, 5) | st.booleans() | st.none()
plain = st.dictionaries(st.sampled_from(["a", "b", "title", "path", "name", "category", "event"]), values, max_size=3)
# The library throws where a key goes through a null: "y.z" of {"y": null}.
contexts = st.dictionaries(st.sampled_from(["x", "y", "traits"]), words | plain, max_size=2)
options = st.fixed_dictionaries(
    {},
    optional={
        "context": contexts,
        "integrations": plain,
        "userId": st.sampled_from(["u", "v"]),
        "x": values,
        "y.z": values,
        "traits.q.b": values,
    },
)
arguments = st.tuples(
    st.lists(values | plain | options | st.fixed_dictionaries({"event": words, "properties": plain}), max_size=6),
    st.booleans(),
).map(lambda drawn: [*drawn[0], "<function>"] if drawn[1] else drawn[0])


@hypothesis_settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(method=st.sampled_from(METHODS), arguments=arguments)
def test_any_call_means_what_the_real_library_makes_of_it(real: Make, method: str, arguments: list[Any]) -> None:
    # The library makes a context of the characters of a text that stands where options should.
    assume(method != "track" or not any(isinstance(argument, str) for argument in arguments[1:3]))
    assert ours(method, arguments, PAGE) == real(method, arguments, PAGE)


@pytest.mark.parametrize("method", ["reset", "load", "", "__proto__", "Track", "addSourceMiddleware"])
def test_other_method_makes_no_event(method: str) -> None:
    with pytest.raises(InvalidCall):
        event_of(method, ["A"], page_of(PAGE))


@pytest.mark.parametrize(
    "page", [None, "bpc", [], {}, {**PAGE, "__t": "x"}, {**PAGE, "more": 1}, {**PAGE, "t": 5}, {**PAGE, "c": {"a": 1}}]
)
def test_call_without_its_page_is_none(page: object) -> None:
    with pytest.raises(InvalidCall):
        page_of(page)


def test_arguments_are_left_as_they_were() -> None:
    given: list[Any] = ["A", {"a": 1}, {"context": {"page": {"x": 1}}, "page.y": 2}]
    before = json.dumps(given)
    event_of("page", given, page_of(PAGE))
    assert json.dumps(given) == before
