"""What a store keeps of one id: each trait with the time from which it holds.

The newest value of a trait wins, whatever the order in which they arrive; of two of the same millisecond always the
same one. So what comes twice, late or out of order changes nothing, and two writers need not know of each other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from segment_fallback.buffers.base import now_ms

MAX_TRAITS = 500
"""Of one id. Past that those that changed longest ago are forgotten, as they are past MAX_BYTES."""
MAX_BYTES = 200_000
"""Of a record's JSON: DynamoDB takes 400 KB."""

Dated = tuple[int, Any]
"""From when (milliseconds since 1970), and the value; None where the trait was taken away."""


@dataclass(frozen=True)
class Record:
    """What is kept of one id. Times in milliseconds since 1970 (UTC)."""

    traits: Mapping[str, Dated] = field(default_factory=dict)
    deleted: int = 0
    """When all was deleted: what is older than that is not heard of again."""
    pulled: int = 0
    """When Segment's Profile API was last asked."""

    @property
    def updated(self) -> int:
        """When the newest trait changed; 0 where there is none."""
        return max((time for time, value in self.traits.values()), default=0)

    @property
    def values(self) -> dict[str, Any]:
        """The traits that there are now."""
        return {name: value for name, (time, value) in self.traits.items() if value is not None}

    def joined(self, other: Record) -> Record:
        """What both know: of each trait the newest. The same in whatever order records are joined."""
        deleted = max(self.deleted, other.deleted)
        traits: dict[str, Dated] = {}
        for name, dated in (*self.traits.items(), *other.traits.items()):
            if dated[0] > deleted and (name not in traits or _rank(dated) > _rank(traits[name])):
                traits[name] = dated
        return Record(_capped(traits), deleted, max(self.pulled, other.pulled))

    def encode(self) -> str:
        """As JSON. Raises ValueError for a value that has none."""
        content = {"traits": self.traits, "deleted": self.deleted, "pulled": self.pulled}
        return json.dumps(content, separators=(",", ":"), allow_nan=False)

    @classmethod
    def decode(cls, text: str) -> Record:
        content = json.loads(text)
        traits = {name: (time, value) for name, (time, value) in content["traits"].items()}
        return cls(traits, content["deleted"], content["pulled"])


def record_of(traits: Mapping[str, Any], time: int, *, pulled: int = 0) -> Record:
    """Traits that hold from one time on. None takes a trait away. What lies ahead of us counts as of now: else one
    clock that is wrong would keep all later changes out."""
    at = min(time, now_ms())
    return Record({name: (at, value) for name, value in traits.items()}, pulled=pulled)


def joined(records: Iterable[Record]) -> Record:
    whole = Record()
    for record in records:
        whole = whole.joined(record)
    return whole


def _rank(dated: Dated) -> tuple[int, str]:
    time, value = dated
    return time, json.dumps(value, sort_keys=True)


def _capped(traits: dict[str, Dated]) -> dict[str, Dated]:
    size = 0
    kept: dict[str, Dated] = {}
    for name in sorted(traits, key=lambda name: (-traits[name][0], name)):
        more = len(json.dumps([name, traits[name]], separators=(",", ":")))
        if size + more <= MAX_BYTES and len(kept) < MAX_TRAITS:
            kept[name] = traits[name]
            size += more
    return kept
