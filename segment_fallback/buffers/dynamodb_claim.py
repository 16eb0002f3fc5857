"""The lease of a part of a DynamoDBBuffer, and what its flusher does. The buffer itself knows boto3; this does not."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from segment_fallback.buffers import dynamodb_counts
from segment_fallback.buffers.base import (
    FAR_AHEAD,
    MAX_BACK_OFF,
    Claim,
    LeaseLost,
    LeaseState,
    Waiting,
    is_due,
    now_ms,
    one_line,
)
from segment_fallback.buffers.event_key import EventKey, event_counter
from segment_fallback.conf import DEFAULT_SOURCE
from segment_fallback.exceptions import BufferUnavailable
from segment_fallback.log import log_fields

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef, WriteRequestTypeDef

    from segment_fallback.buffers.dynamodb import DynamoDBBuffer
    from segment_fallback.dynamodb_client import Item

logger = logging.getLogger("segment_fallback")

COUNT_EVERY = 5.0
"""Seconds for which a flusher adds up what was delivered before it writes the counts: each write costs a unit for
every KB of the hour's counts, and what is added up when a flusher is killed stays uncounted."""

MAX_DOUBTS = 3_000
"""Doubts kept, the oldest first: more might not fit in an item's 400 KB, for an id may have 99 characters."""


class DynamoDBClaim(Claim):
    """The lease is one item a part, taken by one conditional UpdateItem."""

    max_doubts = MAX_DOUBTS

    def __init__(self, buffer: DynamoDBBuffer, part: int, lease: float) -> None:
        super().__init__(part, lease)
        self._buffer = buffer
        self._reader = ThreadPoolExecutor(1, "segment_fallback.scan")
        self._uncounted: Counter[EventKey] = Counter()
        self._uncounted_since = 0.0

    def take(self) -> bool:
        """Whether the part is ours now."""
        # "heldBy = :me": the first answer may have been lost, and botocore have tried again.
        free = "attribute_not_exists(heldUntil) OR heldUntil <= :now OR heldUntil > :far OR heldBy = :me"
        may_try = "attribute_not_exists(notBefore) OR notBefore <= :now OR notBefore > :far"
        now = now_ms()
        lease = self._update(
            "SET heldBy = :me, heldUntil = :until",
            f"({free}) AND ({may_try})",
            until=now + round(self.lease * 1000),
            now=now,
            far=now + round(FAR_AHEAD * 1000),
        )
        if lease is None:
            return False
        self.failures = int(lease.get("failures", {"N": "0"})["N"])
        self.doubts = json.loads(lease.get("doubts", {"S": "{}"})["S"])
        return True

    def messages(self) -> Iterator[Waiting]:
        """The waiting messages, by pages of up to 1 MB in no order, each of them oldest first."""
        now = now_ms()
        for page in self._pages():
            due = [item for item in page["Items"] if is_due(int(item.get("notBefore", {"N": "0"})["N"]), now)]
            yield from sorted((waiting(item, key=item["messageId"]["S"]) for item in due), key=lambda m: m.created)

    def _pages(self) -> Iterator[Mapping[str, Any]]:
        """The part's pages. The next one is read while this one is sent."""
        segment = {"Segment": self.part, "TotalSegments": self._buffer.parts}
        pages = self._buffer.scan(TableName=self._buffer.table, ConsistentRead=True, **segment)
        page = next(pages, None)
        while page is not None:
            # The last one starts no thread: most flushes read no more than one.
            further = self._begin(lambda: next(pages, None)) if page.get("LastEvaluatedKey") else lambda: None
            yield page
            page = further()

    def _begin(self, read: Callable[[], Mapping[str, Any] | None]) -> Callable[[], Mapping[str, Any] | None]:
        """Let the thread read a page; what waits for it. Where no thread is to be had, as at the end of a process, what
        reads it.
        """
        try:
            return self._reader.submit(read).result
        except RuntimeError:
            return read

    def renew(self) -> None:
        until = now_ms() + round(self.lease * 1000)
        if self._update("SET heldUntil = :until", "heldBy = :me", until=until) is None:
            raise LeaseLost(f"part {self.part} has another flusher")

    def save_doubts(self) -> None:
        """Beside the lease; until they are settled, each write of it costs a unit for about 15 of them."""
        oldest = sorted(self.doubts.items(), key=lambda doubt: doubt[1])[:MAX_DOUBTS]
        doubts: AttributeValueTypeDef = {"S": json.dumps(dict(oldest), separators=(",", ":"))}
        self._update("SET doubts = :doubts", "heldBy = :me", values={":doubts": doubts})

    def ack(self, batch: Sequence[Waiting]) -> None:
        """Counted last, and then with others: what is killed in between leaves messages uncounted, but none twice."""
        self._delete(batch)
        now = time.monotonic()
        if not self._uncounted:
            self._uncounted_since = now
        self._uncounted.update(event_counter.count(batch))
        if now >= self._uncounted_since + COUNT_EVERY:
            self._count()
        if self.failures:
            self._update("REMOVE failures", "heldBy = :me")
            self.failures = 0
        self._settle(batch)

    def bury(self, batch: Sequence[Waiting], reason: str, attempts: int) -> None:
        """Dead letters first: killed in between, a message is both, and the next flush buries it again."""
        buried = str(now_ms())
        letters: list[WriteRequestTypeDef] = [
            {
                "PutRequest": {
                    "Item": {
                        "id": {"S": f"dead#{m.message_id}"},
                        "messageId": {"S": m.message_id},
                        "body": {"S": m.body.decode()},
                        "way": {"S": m.way},
                        "source": {"S": m.source},
                        "created": {"N": str(m.created)},
                        "buried": {"N": buried},
                        "reason": {"S": one_line(reason)},
                        "attempts": {"N": str(attempts)},
                    }
                }
            }
            for m in batch
        ]
        self._buffer.write_batches(self._buffer.state_table, letters)
        self._delete(batch)
        self._settle(batch)

    def back_off(self, seconds: float, error: str = "") -> None:
        self.failures += 1
        now = now_ms()
        self._update(
            "SET notBefore = :then, failures = :failures, #error = :error, errorAt = :now REMOVE heldBy, heldUntil",
            "heldBy = :me",
            values={":error": {"S": one_line(error)}},
            names={"#error": "error"},
            then=now + round(min(seconds, MAX_BACK_OFF) * 1000),
            failures=self.failures,
            now=now,
        )

    def release(self, *, flushed: bool = True) -> None:
        self._count()
        try:
            if flushed:
                self._update("SET flushed = :now REMOVE heldBy, heldUntil", "heldBy = :me", now=now_ms())
            else:
                self._update("REMOVE heldBy, heldUntil", "heldBy = :me")
        finally:
            self._reader.shutdown(cancel_futures=True)

    def _count(self) -> None:
        """Write what was added up. What is refused stays uncounted, for it may have been written all the same."""
        counts, self._uncounted = self._uncounted, Counter()
        try:
            dynamodb_counts.add(self._buffer, "events", counts)
        except BufferUnavailable as error:
            number = counts.total()
            extra = log_fields("uncounted", number=number, reason=str(error))
            logger.warning("%d delivered messages were not counted: %s", number, error, extra=extra)

    def _delete(self, batch: Sequence[Waiting]) -> None:
        # One request after another: more at once take the partition's units, 1,000 a second, from those who put.
        self._buffer.delete(self._buffer.table, "messageId", [message.key for message in batch])

    def _update(
        self,
        change: str,
        condition: str,
        values: Mapping[str, AttributeValueTypeDef] | None = None,
        names: Mapping[str, str] | None = None,
        **numbers: int,
    ) -> Item | None:
        """Change the part's lease, and what it is then; None where the condition does not hold."""
        answer = self._buffer.attempt(
            self._buffer.client.update_item,
            TableName=self._buffer.state_table,
            Key=lease_key(self.part),
            UpdateExpression=change,
            ConditionExpression=condition,
            ExpressionAttributeValues={
                ":me": {"S": self.owner},
                **(values or {}),
                **{f":{name}": {"N": str(number)} for name, number in numbers.items()},
            },
            ReturnValues="ALL_NEW",
            **({"ExpressionAttributeNames": names} if names else {}),
        )
        return None if answer is None else answer.get("Attributes", {})


def waiting(item: Item, *, key: str) -> Waiting:
    """The message that the item holds."""
    body = item["body"]["S"].encode()
    source = item.get("source", {"S": DEFAULT_SOURCE})["S"]
    return Waiting(key, item["messageId"]["S"], body, item["way"]["S"], int(item["created"]["N"]), source)


def lease_key(part: int) -> Mapping[str, AttributeValueTypeDef]:
    """The key of the item that is the part's lease."""
    return {"id": {"S": f"lease#{part}"}}


def lease_state(item: Item) -> LeaseState:
    """What the item says of its part."""

    def number(name: str) -> int:
        return int(item.get(name, {"N": "0"})["N"])

    return LeaseState(
        int(item["id"]["S"].removeprefix("lease#")),
        item.get("heldBy", {"S": ""})["S"],
        number("heldUntil"),
        number("notBefore"),
        number("failures"),
        number("flushed"),
        item.get("error", {"S": ""})["S"],
        number("errorAt"),
    )
