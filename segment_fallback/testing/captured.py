"""What server code tracks, collected instead of sent: no network, no buffer, no counts."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from segment_fallback.client.sending import collectors
from segment_fallback.message import Message
from segment_fallback.outcome import Outcome

__all__ = ["CapturedMessages", "captured_messages"]


class CapturedMessages:
    """The messages so far, in the order in which they were written; what a request tracked, after its response.

    messages  dicts, as Segment would get them
    refused   of those that were not taken: (reason, message)
    """

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.refused: list[tuple[str, Mapping[str, Any]]] = []

    def take(self, messages: Sequence[Message]) -> None:
        self.messages.extend(json.loads(message.body) for message in messages)

    def refuse(self, outcome: Outcome, message: Mapping[str, Any]) -> None:
        self.refused.append((outcome.value, message))

    def clear(self) -> None:
        """Forget what was collected so far."""
        self.messages.clear()
        self.refused.clear()

    def assert_tracked(
        self,
        event: str,
        *,
        user_id: object = None,
        anonymous_id: object = None,
        properties: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        times: int | None = None,
        **fields: Any,
    ) -> dict[str, Any]:
        """Raise AssertionError unless the event was tracked, by that user, with at least these properties and context.

        ``fields``: others of the message, by their names in Segment's spec, as ``integrations`` or ``userId``.
        ``times``: so often, and not just once or more. Returns the last message that fits.
        """
        wanted = {"event": event, "properties": properties, "context": context, **_ids(user_id, anonymous_id)}
        return self._one("track", {**wanted, **fields}, times)

    def assert_not_tracked(self, event: str | None = None) -> None:
        """Raise AssertionError if the event was tracked; without a name, if any was."""
        found = [m for m in self.messages if m["type"] == "track" and event in (None, m["event"])]
        if found:
            should = f"{event} should not" if event else "nothing should"
            raise AssertionError(f"{should} have been tracked.\n{self._told(found)}")

    def assert_identified(
        self,
        user_id: object = None,
        *,
        anonymous_id: object = None,
        traits: Mapping[str, Any] | None = None,
        times: int | None = None,
    ) -> dict[str, Any]:
        """The same for ``identify``, with at least these traits."""
        return self._one("identify", {"traits": traits, **_ids(user_id, anonymous_id)}, times)

    def _one(self, kind: str, wanted: Mapping[str, Any], times: int | None) -> dict[str, Any]:
        asked = {key: value for key, value in wanted.items() if value is not None}
        found = [m for m in self.messages if m["type"] == kind and _fits(m, asked)]
        if found and times in (None, len(found)):
            return found[-1]
        often = "was not found" if not found else f"was found {len(found)} times, not {times}"
        raise AssertionError(f"{kind} {json.dumps(asked, default=str)} {often}.\n{self._told(self.messages)}")

    def _told(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """What there is instead, a line each."""
        lines = [_line(message) for message in messages]
        lines += [f"  refused, {reason}: {_line(message).strip()}" for reason, message in self.refused]
        return "What was tracked:\n" + "\n".join(lines) if lines else "Nothing was tracked."


def _ids(user_id: object, anonymous_id: object) -> dict[str, str | None]:
    ids = {"userId": user_id, "anonymousId": anonymous_id}
    return {key: None if value is None else str(value) for key, value in ids.items()}


def _fits(value: Any, wanted: Any) -> bool:
    """Whether it is what is wanted; of a dict, whether it holds that."""
    if isinstance(wanted, Mapping):
        return isinstance(value, Mapping) and all(key in value and _fits(value[key], wanted[key]) for key in wanted)
    return bool(value == json.loads(json.dumps(wanted, default=str)))


def _line(message: Mapping[str, Any]) -> str:
    shown = {key: message[key] for key in ("userId", "anonymousId", "properties", "traits") if message.get(key)}
    what = message.get("event") or message.get("name") or ""
    return f"  {message.get('type')} {what} {json.dumps(shown, default=str)}".replace("  {", " {")


@contextlib.contextmanager
def captured_messages() -> Iterator[CapturedMessages]:
    """Collect what is tracked inside. What waits for a transaction's commit comes when it commits: in a ``TestCase``,
    within ``captureOnCommitCallbacks(execute=True)``."""
    captured = CapturedMessages()
    collectors.append(captured)
    try:
        yield captured
    finally:
        collectors.remove(captured)
