"""The six calls, in the signatures of segment-analytics-python 2.x, and an async twin of each.

All of them return ``(True, message)`` once the message is certain to be delivered (in a request: once the response is
sent), else ``(False, message)``. Beside the SDK's arguments there are ``source``, the alias of one of SOURCES, and
``on_commit``: the message counts only if the transaction commits.
"""

# ruff: noqa: PLR0917 - the signatures are the SDK's

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from asgiref.sync import sync_to_async

from segment_fallback.client.sending import Sent, send
from segment_fallback.conf import DEFAULT_SOURCE

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

Id = str | int | UUID | None
Dict = Mapping[str, Any] | None


def twin(call: Callable[Arguments, Result]) -> Callable[Arguments, Awaitable[Result]]:
    """The call for async code: in a thread, so that it keeps no other coroutine waiting."""

    @functools.wraps(call)
    async def acall(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return await sync_to_async(call)(*args, **kwargs)

    return acall


def track(
    user_id: Id = None,
    event: str | None = None,
    properties: Dict = None,
    context: Dict = None,
    timestamp: datetime | None = None,
    anonymous_id: Id = None,
    integrations: Dict = None,
    message_id: Id = None,
    *,
    source: str = DEFAULT_SOURCE,
    on_commit: bool | None = None,
) -> Sent:
    """Somebody did something: ``track(user.pk, "Order Completed", {"total": order.total})``."""
    message = {
        "integrations": integrations,
        "anonymousId": anonymous_id,
        "properties": properties or {},
        "timestamp": timestamp,
        "context": context,
        "userId": user_id,
        "type": "track",
        "event": event,
        "messageId": message_id,
    }
    return send(message, source=source, on_commit=on_commit)


def page(
    user_id: Id = None,
    category: str | None = None,
    name: str | None = None,
    properties: Dict = None,
    context: Dict = None,
    timestamp: datetime | None = None,
    anonymous_id: Id = None,
    integrations: Dict = None,
    message_id: Id = None,
    *,
    source: str = DEFAULT_SOURCE,
    on_commit: bool | None = None,
) -> Sent:
    """Somebody saw a page. For what no browser reports by itself: a page with the snippet would count twice."""
    message = {
        "integrations": integrations,
        "anonymousId": anonymous_id,
        "properties": properties or {},
        "timestamp": timestamp,
        "category": category,
        "context": context,
        "userId": user_id,
        "type": "page",
        "name": name,
        "messageId": message_id,
    }
    return send(message, source=source, on_commit=on_commit)


def screen(
    user_id: Id = None,
    category: str | None = None,
    name: str | None = None,
    properties: Dict = None,
    context: Dict = None,
    timestamp: datetime | None = None,
    anonymous_id: Id = None,
    integrations: Dict = None,
    message_id: Id = None,
    *,
    source: str = DEFAULT_SOURCE,
    on_commit: bool | None = None,
) -> Sent:
    """Somebody saw a screen of an app."""
    message = {
        "integrations": integrations,
        "anonymousId": anonymous_id,
        "properties": properties or {},
        "timestamp": timestamp,
        "category": category,
        "context": context,
        "userId": user_id,
        "type": "screen",
        "name": name,
        "messageId": message_id,
    }
    return send(message, source=source, on_commit=on_commit)


def identify(
    user_id: Id = None,
    traits: Dict = None,
    context: Dict = None,
    timestamp: datetime | None = None,
    anonymous_id: Id = None,
    integrations: Dict = None,
    message_id: Id = None,
    *,
    source: str = DEFAULT_SOURCE,
    on_commit: bool | None = None,
) -> Sent:
    """Who somebody is: ``identify(user.pk, {"plan": "pro"})``."""
    message = {
        "integrations": integrations,
        "anonymousId": anonymous_id,
        "timestamp": timestamp,
        "context": context,
        "type": "identify",
        "userId": user_id,
        "traits": traits or {},
        "messageId": message_id,
    }
    return send(message, source=source, on_commit=on_commit)


def group(
    user_id: Id = None,
    group_id: Id = None,
    traits: Dict = None,
    context: Dict = None,
    timestamp: datetime | None = None,
    anonymous_id: Id = None,
    integrations: Dict = None,
    message_id: Id = None,
    *,
    source: str = DEFAULT_SOURCE,
    on_commit: bool | None = None,
) -> Sent:
    """Somebody belongs to a group; the traits are the group's."""
    message = {
        "integrations": integrations,
        "anonymousId": anonymous_id,
        "timestamp": timestamp,
        "groupId": group_id,
        "context": context,
        "userId": user_id,
        "traits": traits or {},
        "type": "group",
        "messageId": message_id,
    }
    return send(message, source=source, on_commit=on_commit)


def alias(
    previous_id: Id = None,
    user_id: Id = None,
    context: Dict = None,
    timestamp: datetime | None = None,
    integrations: Dict = None,
    message_id: Id = None,
    *,
    source: str = DEFAULT_SOURCE,
    on_commit: bool | None = None,
) -> Sent:
    """Two ids are one person."""
    message = {
        "integrations": integrations,
        "previousId": previous_id,
        "timestamp": timestamp,
        "context": context,
        "userId": user_id,
        "type": "alias",
        "messageId": message_id,
    }
    return send(message, source=source, on_commit=on_commit)


atrack, apage, ascreen = twin(track), twin(page), twin(screen)
aidentify, agroup, aalias = twin(identify), twin(group), twin(alias)


def flush() -> None:
    """For code that was written for the SDK: what was accepted is durable already."""


shutdown = flush
