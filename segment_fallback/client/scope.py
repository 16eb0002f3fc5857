"""Whom the calls of a request, of a task or of an event's handler are about; outside of these nobody."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from segment_fallback import ambient
from segment_fallback.ambient import Ambient
from segment_fallback.message import Message
from segment_fallback.outcome import Outcome


@dataclass(frozen=True)
class Person:
    """Who somebody is, and the ``context`` of what he does now. ``refused``: why he is not to be counted."""

    user_id: str | None = None
    anonymous_id: str | None = None
    refused: Outcome | None = None
    find_context: Callable[[], Mapping[str, Any]] = dict
    """Called when somebody asks for the context: messages about others have none of it."""

    @functools.cached_property
    def context(self) -> Mapping[str, Any]:
        return self.find_context()

    def fields(self) -> dict[str, Any]:
        """What others may know of him. Nothing, where he does not want to be counted."""
        if self.refused:
            return {}
        found = {"userId": self.user_id, "anonymousId": self.anonymous_id, "context": dict(self.context)}
        return {key: value for key, value in found.items() if value}


class Scope(Ambient):
    """A request: it knows its visitor, and can keep messages until the response was sent."""

    def person(self) -> Person:
        """The visitor. Read when somebody asks; may query the database."""
        raise NotImplementedError

    def defer(self, message: Message) -> bool:
        """Take the message, to write it later. False: it is the caller's to write now."""
        raise NotImplementedError


def surroundings(scope: Ambient | None, message: Mapping[str, Any]) -> tuple[Person, dict[str, Any]]:
    """Who is there, and the ``timestamp`` and ``messageId`` that the message gets where it has none."""
    if isinstance(scope, Scope):
        return scope.person(), {}
    if scope is None:
        return Person(), {}
    message_id = message.get("messageId")
    found = ambient.stamp({} if message_id is None else {"messageId": message_id})
    context: Mapping[str, Any] = found.get("context", {})
    person = Person(found.get("userId"), found.get("anonymousId"), find_context=lambda: context)
    return person, {key: found[key] for key in ("timestamp", "messageId") if key in found}
