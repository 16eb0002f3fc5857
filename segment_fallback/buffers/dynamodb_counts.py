"""The hourly counts of a DynamoDBBuffer: an item an hour, with an attribute for each key, to which writers add."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from segment_fallback.buffers.base import KEEP_COUNTS

if TYPE_CHECKING:
    from segment_fallback.buffers.dynamodb import DynamoDBBuffer

HOUR = 3_600
AT_A_TIME = 100
"""Counts in one update, whose expression may have 4 KB."""

Key = TypeVar("Key", bound=tuple[Any, ...])

Parts = tuple[str, ...]
"""A key without its hour: (way, outcome), or (way, type, event). Only the last may hold a '#'."""


def add(buffer: DynamoDBBuffer, kind: str, counts: Mapping[Key, int]) -> None:
    """Add to the counts: one write an hour named. An answer that is lost on its way may make it count twice."""
    for hour, numbers in _by_hour(counts).items():
        names = list(numbers)
        for start in range(0, len(names), AT_A_TIME):
            chosen = names[start : start + AT_A_TIME]
            sums = ", ".join(f"#{index} :{index}" for index in range(len(chosen)))
            values = {f":{index}": {"N": str(numbers[name])} for index, name in enumerate(chosen)}
            buffer.attempt(
                buffer.client.update_item,
                TableName=buffer.state_table,
                Key={"id": {"S": f"{kind}#{hour}"}},
                UpdateExpression=f"SET expires = :expires ADD {sums}",
                ExpressionAttributeNames={f"#{index}": name for index, name in enumerate(chosen)},
                ExpressionAttributeValues={":expires": {"N": str(hour + KEEP_COUNTS)}, **values},
            )


def replace(buffer: DynamoDBBuffer, kind: str, hour: int, counts: Mapping[Key, int]) -> None:
    """Replace all counts of the hour."""
    numbers = {name: {"N": str(number)} for name, number in _by_hour(counts)[hour].items()}
    item = {"id": {"S": f"{kind}#{hour}"}, "expires": {"N": str(hour + KEEP_COUNTS)}, **numbers}
    buffer.write_batches(buffer.state_table, [{"PutRequest": {"Item": item}}])


def read(buffer: DynamoDBBuffer, kind: str, since: int, parts: int) -> Iterator[tuple[int, Parts, int]]:
    """Hour, key of so many parts, and count, of all hours from then on. Reads an item for each hour."""
    now = int(time.time())
    first = max(since, now - KEEP_COUNTS) // HOUR * HOUR
    hours = range(first, now + 2 * HOUR, HOUR)  # one hour ahead: another machine's clock may be
    wanted: list[Mapping[str, Any]] = [{"id": {"S": f"{kind}#{hour}"}} for hour in hours]
    for item in buffer.get_items(buffer.state_table, wanted):
        hour = int(item["id"]["S"].rpartition("#")[2])
        for name, value in item.items():
            key = tuple(name.split("#", parts - 1))
            if len(key) == parts and hour >= since:
                yield hour, key, int(value["N"])


def _by_hour(counts: Mapping[Key, int]) -> dict[int, dict[str, int]]:
    """By hour, and then by the name of the attribute."""
    hours: dict[int, dict[str, int]] = defaultdict(dict)
    for (hour, *key), number in counts.items():
        hours[hour]["#".join(key)] = number
    return hours
