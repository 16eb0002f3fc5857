"""Whom the calls of a request, of a task or of an event's handler are about; outside of these nobody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from segment_fallback import ambient
from segment_fallback.ambient import Ambient
from segment_fallback.message import Message
from segment_fallback.outcome import Outcome


class Seen(Protocol):
    """What somebody brings along, signed in or not. Read as it is asked for: messages about others need none of it."""

    @property
    def anonymous_id(self) -> str | None: ...

    @property
    def refused(self) -> Outcome | None:
        """Why he is not to be counted."""

    @property
    def context(self) -> Mapping[str, Any]:
        """``context`` of what he does now."""


@dataclass(frozen=True)
class Told:
    """The same, as somebody else has read it."""

    anonymous_id: str | None = None
    context: Mapping[str, Any] = field(default_factory=dict)
    refused: Outcome | None = None


@dataclass(frozen=True)
class Person:
    """Who somebody is."""

    user_id: str | None
    seen: Seen

    def fields(self) -> dict[str, Any]:
        """What others may know of him. Nothing, where he does not want to be counted."""
        if self.seen.refused:
            return {}
        found = {"userId": self.user_id, "anonymousId": self.seen.anonymous_id, "context": dict(self.seen.context)}
        return {key: value for key, value in found.items() if value}


class Scope(Ambient):
    """A request: it knows its visitor, and can keep messages until the response was sent."""

    def person(self) -> Person:
        """The visitor. What is read of him when somebody asks may query the database."""
        raise NotImplementedError

    def defer(self, message: Message) -> bool:
        """Take the message, to write it later. False: it is the caller's to write now."""
        raise NotImplementedError


def surroundings(scope: Ambient | None, message: Mapping[str, Any]) -> tuple[Person, dict[str, Any]]:
    """Who is there, and the ``timestamp`` and ``messageId`` that the message gets where it has none."""
    if isinstance(scope, Scope):
        return scope.person(), {}
    if scope is None:
        return Person(None, Told()), {}
    message_id = message.get("messageId")
    found = ambient.stamp({} if message_id is None else {"messageId": message_id})
    person = Person(found.get("userId"), Told(found.get("anonymousId"), found.get("context", {})))
    return person, {key: found[key] for key in ("timestamp", "messageId") if key in found}
