"""What this app gives to tests of sites."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import pytest

from segment_fallback import alias, identify, page, track
from segment_fallback.testing import CapturedMessages, captured_messages

ID = UUID("6f8b9f0e-7f4e-4d68-9c1e-0f1a2b3c4d5e")


@pytest.fixture
def messages(segment_messages: CapturedMessages) -> CapturedMessages:
    track(5, "Order Completed", {"total": 12.5, "lines": [{"sku": "a", "number": 2}], "id": ID})
    track(6, "Order Completed", {"total": 1})
    identify(5, {"plan": "pro"}, anonymous_id="a")
    page(5, None, "Shop")
    alias("a", 5)
    return segment_messages


def test_fixture_needs_neither_database_nor_network(messages: CapturedMessages) -> None:
    """No mark allows this test a database."""
    assert [message["type"] for message in messages.messages] == ["track", "track", "identify", "page", "alias"]


@pytest.mark.parametrize(
    "holds",
    [
        lambda m: m.assert_tracked("Order Completed"),
        lambda m: m.assert_tracked("Order Completed", times=2),
        lambda m: m.assert_tracked("Order Completed", user_id=5, properties={"total": 12.5}, times=1),
        lambda m: m.assert_tracked("Order Completed", user_id="5", properties={"id": ID}),
        lambda m: m.assert_tracked("Order Completed", userId="5", integrations={}),
        lambda m: m.assert_tracked("Order Completed", properties={"lines": [{"sku": "a", "number": 2}]}),
        lambda m: m.assert_tracked("Order Completed", context={"library": {"way": "server"}}),
        lambda m: m.assert_not_tracked("Order Refunded"),
        lambda m: m.assert_identified(),
        lambda m: m.assert_identified(5, anonymous_id="a", traits={"plan": "pro"}, times=1),
    ],
)
def test_assertion_holds(messages: CapturedMessages, holds: Callable[[CapturedMessages], object]) -> None:
    holds(messages)


@pytest.mark.parametrize(
    ("fails", "told"),
    [
        (lambda m: m.assert_tracked("Order completed"), 'track {"event": "Order completed"} was not found'),
        (lambda m: m.assert_tracked("Order Completed", userId="nobody"), '"userId": "nobody"} was not found'),
        (lambda m: m.assert_tracked("Order Completed", times=1), "was found 2 times, not 1"),
        (lambda m: m.assert_tracked("Order Completed", user_id=7), '"userId": "7"'),
        (lambda m: m.assert_tracked("Order Completed", properties={"total": 2}), '"total": 2'),
        (lambda m: m.assert_tracked("Order Completed", properties={"coupon": None}), "coupon"),
        (lambda m: m.assert_not_tracked("Order Completed"), "Order Completed should not have been tracked"),
        (lambda m: m.assert_not_tracked(), "nothing should have been tracked"),
        (lambda m: m.assert_identified(6), '"userId": "6"'),
        (lambda m: m.assert_identified(5, traits={"plan": "free"}), "free"),
    ],
)
def test_assertion_that_fails_tells_what_was_tracked_instead(
    messages: CapturedMessages, fails: Callable[[CapturedMessages], object], told: str
) -> None:
    with pytest.raises(AssertionError) as raised:
        fails(messages)
    assert told in str(raised.value)
    assert 'track Order Completed {"userId": "5", "properties": {"total": 12.5' in str(raised.value)


def test_failure_tells_what_was_refused(segment_messages: CapturedMessages) -> None:
    with pytest.raises(AssertionError, match="Nothing was tracked"):
        segment_messages.assert_tracked("Order Completed")
    track(None, "Order Completed")
    with pytest.raises(AssertionError, match="refused, no_id: track Order Completed"):
        segment_messages.assert_tracked("Order Completed")
    segment_messages.clear()
    with pytest.raises(AssertionError, match="Nothing was tracked"):
        segment_messages.assert_tracked("Order Completed")


def test_innermost_collector_gets_the_messages(segment_messages: CapturedMessages) -> None:
    with captured_messages() as inner:
        track("u", "inside")
    track("u", "outside")
    inner.assert_tracked("inside")
    inner.assert_not_tracked("outside")
    segment_messages.assert_tracked("outside", times=1)
    segment_messages.assert_not_tracked("inside")
