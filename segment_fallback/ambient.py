"""What messages that are made now have in common, without their makers saying so: whose they are, and of when.

A context variable: threads, tasks and requests at once do not see each other's.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Ambient:
    """Fields that a message gets where it has none of its own. ``seed``: its messageId is derived from that and from
    how many came before, so that whoever does the same work again makes the same messages."""

    fields: Callable[[], Mapping[str, Any]]
    seed: str = ""
    made: int = field(default=0)


current: ContextVar[Ambient | None] = ContextVar("segment_fallback_ambient", default=None)


@contextlib.contextmanager
def ambient(fields: Callable[[], Mapping[str, Any]], seed: str = "") -> Iterator[None]:
    """Messages that are made inside have these fields."""
    token = current.set(Ambient(fields, seed))
    try:
        yield
    finally:
        current.reset(token)


def stamp(message: dict[str, Any]) -> dict[str, Any]:
    """The message with what it has not said itself. ``context`` is filled key by key; an id is never mixed: a message
    that names a userId or an anonymousId of its own gets neither."""
    now = current.get()
    if now is None:
        return message
    fields = dict(now.fields())
    if message.get("userId") or message.get("anonymousId"):
        fields = {key: value for key, value in fields.items() if key not in ("userId", "anonymousId")}
    if "context" in fields:
        fields["context"] = {**fields["context"], **message.get("context", {})}
    if now.seed and "messageId" not in message:
        fields["messageId"] = derived_id(now.seed, now.made)
        now.made += 1
    own = {key: value for key, value in message.items() if key != "context" or "context" not in fields}
    return {**fields, **own}


def derived_id(*parts: object) -> str:
    """An id of 32 hexadecimal digits that is the same for the same parts."""
    return hashlib.sha256("/".join(map(str, parts)).encode("utf-8", "replace")).hexdigest()[:32]
