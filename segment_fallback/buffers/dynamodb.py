"""Messages in DynamoDB: for serverless sites, and for scale.

Two tables, made by ``manage.py segment_table --create``, so that a flush reads nothing but messages:

``<table>``        key ``messageId``: ``body``, ``way``, ``created``; ``provisional`` and ``notBefore`` where they apply
``<table>-state``  key ``id``: ``lease#<part>``, ``count#<hour>``, ``events#<hour>`` and ``dead#<messageId>``

An item never moves from one Scan segment to another, so a segment is a part, and claims nothing by the item:
an event of up to 1 KB costs one write unit to put and one to delete. A flush costs three more a part (claim, counts,
release) and at most one a batch (renewal); a flush of an empty part two, and one read unit.

Only counts expire by TTL: DynamoDB deletes such items without a word, and nothing accepted may be lost.
Times are milliseconds since 1970, but for ``expires`` (DynamoDB's TTL) and hours, which are seconds.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from django.core import checks

from segment_fallback.buffers import dynamodb_counts, partiql
from segment_fallback.buffers.base import (
    ARCHIVE,
    SPOOL,
    Buffer,
    DeadLetter,
    EventCounts,
    LeaseState,
    OutcomeCounts,
    Waiting,
    now_ms,
    one_line,
    unsent,
)
from segment_fallback.buffers.dynamodb_claim import DynamoDBClaim, lease_key, lease_state, waiting
from segment_fallback.buffers.event_key import EventKey
from segment_fallback.buffers.group_commit import GroupCommit
from segment_fallback.conf import DEFAULT_SOURCE
from segment_fallback.dynamodb_client import ADVICE, BATCH, DynamoDB, Item, pauses
from segment_fallback.exceptions import BufferUnavailable
from segment_fallback.log import log_fields
from segment_fallback.message import Message, Way

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef, BatchStatementRequestTypeDef

logger = logging.getLogger("segment_fallback")

WRITERS = 4
"""Puts that may be under way at once in a process before others join: so many keep a processor busy, at some 5 ms an
answer and 1 ms of work each, and fewer threads than these never wait for one another."""
PATIENCE = 0.001
"""Seconds for which a put waits for one of those to end, at most: an answer may take far longer than our own work."""
PUT_TRIES = 4
"""How often a joined put is tried where DynamoDB throttles. A third of a second in all: visitors wait."""
SINGLY = 300.0
"""Seconds for which no put is joined where PartiQL is not to be had, or does not do what it should."""

IS_NEW = "attribute_not_exists(messageId)"
IS_NEW_OR_PROVISIONAL = f"{IS_NEW} OR provisional = :true"


class DynamoDBBuffer(DynamoDB, Buffer):
    """Messages in a DynamoDB table.

    ``table``: its name; that of the state table is ``<table>-state``. ``parts``: how many flushers may work at
    once; it may be changed at any time. ``region``, ``endpoint_url``, ``client``: as DynamoDB takes them.
    """

    counting_costs = True

    def __init__(
        self,
        *,
        table: str = "segment-messages",
        parts: int = 4,
        region: str | None = None,
        endpoint_url: str | None = None,
        client: Mapping[str, Any] | None = None,
    ) -> None:
        DynamoDB.__init__(self, table, region=region, endpoint_url=endpoint_url, client=client)
        if parts not in range(1, 1_000_001):
            raise ValueError(f"parts must be a whole number from 1 to 1,000,000, not {parts!r}")
        self.state_table = f"{table}-state"
        self.parts = parts
        self._joins: bool | None = None
        self._singly_until = float("-inf")

    @functools.cached_property
    def _group_commit(self) -> GroupCommit:
        return GroupCommit(self.write, max_joined=BATCH, writers=WRITERS, patience=PATIENCE)

    def joins_writes(self) -> bool:
        # One by one, the puts of many threads would only queue behind each other.
        return time.monotonic() >= self._singly_until

    def write(self, messages: Sequence[Message]) -> None:
        """Several messages in one BatchExecuteStatement, 25 at most; a single one by a conditional PutItem.

        Where it raises, some messages may be stored already.
        """
        now = now_ms()
        items = [_item(message, now) for message in messages]
        if len(items) > 1 and self.joins_writes() and not self._joins:
            self._put_item(items[0])
            self._learn(items.pop(0))
        if len(items) > 1 and self.joins_writes():
            self._put_joined(items)
        else:
            for item in items:
                self._put_item(item)

    def _put_item(self, item: Item) -> None:
        condition: dict[str, Any] = {"ConditionExpression": IS_NEW}
        if item["way"]["S"] == Way.JAVASCRIPT.value:
            values = {":true": {"BOOL": True}}
            condition = {"ConditionExpression": IS_NEW_OR_PROVISIONAL, "ExpressionAttributeValues": values}
        self.attempt(self.client.put_item, TableName=self.table, Item=item, **condition)

    def _put_joined(self, items: Sequence[Item]) -> None:
        """The same, joined. No batch may name a key twice, so what comes second of an id goes in a further one."""
        while items:
            first: dict[str, Item] = {}
            items = [item for item in items if first.setdefault(item["messageId"]["S"], item) is not item]
            chosen = list(first.values())
            for start in range(0, len(chosen), BATCH):
                batch = chosen[start : start + BATCH]
                codes = self._execute([partiql.insert(self.table, item) for item in batch])
                late = [
                    partiql.replace_provisional(self.table, item)
                    for item, code in zip(batch, codes, strict=True)
                    if code == partiql.DUPLICATE and item["way"]["S"] == Way.JAVASCRIPT.value
                ]
                if late:
                    self._execute(late)

    def _execute(self, statements: Sequence[BatchStatementRequestTypeDef]) -> list[str]:
        """What became of each statement: a code of partiql.SETTLED. What is throttled is sent again, more slowly."""
        codes = [""] * len(statements)
        undone = list(range(len(statements)))
        for pause in pauses(PUT_TRIES):
            if pause:
                time.sleep(pause)
            with self.guard():
                answer = self.client.batch_execute_statement(Statements=[statements[index] for index in undone])
            for index, response in zip(undone, answer["Responses"], strict=True):
                codes[index] = response["Error"].get("Code", "unknown") if "Error" in response else ""
            undone = [index for index in undone if codes[index] in partiql.TRY_AGAIN]
            if not undone:
                break
        failed = [code for code in codes if code not in partiql.SETTLED]
        if failed:
            advice = ADVICE.get(failed[0], "failed")
            raise BufferUnavailable(f"{self.where()}: {advice} ({failed[0]}: {len(failed)} of {len(codes)} writes)")
        return codes

    def _learn(self, stored: Item) -> None:
        """Whether joined puts do here what they must: to insert again what was just stored has to be refused.

        AWS's own DynamoDB does. moto and dynalite do not, and a policy may forbid PartiQL: then every message goes
        by itself, and this is asked again after SINGLY.
        """
        try:
            codes = self._execute([partiql.insert(self.table, stored)])
            found = "an item is inserted twice" if codes != [partiql.DUPLICATE] else ""
        except Exception as error:  # noqa: BLE001 - moto's own errors, too, where it runs in this process
            found = str(error) or type(error).__name__
        self._joins = not found
        if found:
            self._singly_until = time.monotonic() + SINGLY
            extra = log_fields("no_partiql", seconds=SINGLY, reason=found)
            logger.warning("no PartiQL, so each message is put by itself for %.0f s: %s", SINGLY, found, extra=extra)

    def claim(self, part: int, *, lease: float = 60.0) -> DynamoDBClaim | None:
        claim = DynamoDBClaim(self, part, lease)
        return claim if claim.take() else None

    def depth(self) -> int:
        """How many messages wait. Reads the whole table: half a read unit for each 4 KB that wait."""
        return sum(page["Count"] for page in self.scan(TableName=self.table, Select="COUNT"))

    def oldest(self) -> int | None:
        """When the oldest waiting message was accepted. Costs as much as ``depth``."""
        pages = self.scan(TableName=self.table, ProjectionExpression="created")
        return min((int(item["created"]["N"]) for page in pages for item in page["Items"]), default=None)

    def waiting_messages(self) -> Iterator[Waiting]:
        for page in self.scan(TableName=self.table, ConsistentRead=True):
            yield from (waiting(item, key=item["messageId"]["S"]) for item in page["Items"])

    def discard(self, message_ids: Sequence[str]) -> int:
        """Forget these; counts what it was asked to forget, as ``remove_dead_letters`` does."""
        self.delete(self.table, "messageId", message_ids)
        return len(message_ids)

    def leases(self) -> list[LeaseState]:
        keys: list[Mapping[str, Any]] = [lease_key(part) for part in (ARCHIVE, SPOOL, *range(self.parts))]
        return sorted(map(lease_state, self.get_items(self.state_table, keys)), key=lambda state: state.part)

    def note_failure(self, part: int, error: str, number: int = 1) -> None:
        self.attempt(
            self.client.update_item,
            TableName=self.state_table,
            Key=lease_key(part),
            UpdateExpression="SET #error = :error, errorAt = :now ADD failures :number",
            ExpressionAttributeNames={"#error": "error"},
            ExpressionAttributeValues={
                ":error": {"S": one_line(error)},
                ":now": {"N": str(now_ms())},
                ":number": {"N": str(number)},
            },
        )

    def bury(self, messages: Sequence[Message], reason: str) -> None:
        DynamoDBClaim(self, 0, 0).bury([unsent(m, key=m.message_id) for m in messages], reason, 0)

    def dead_letters(self) -> Iterator[DeadLetter]:
        """The dead letters, all read before the first is given, for the sake of their order."""
        letters = list(self._state("dead#"))
        letters.sort(key=lambda item: (int(item["buried"]["N"]), int(item["created"]["N"])))
        for item in letters:
            attempts, buried = int(item["attempts"]["N"]), int(item["buried"]["N"])
            yield DeadLetter(waiting(item, key=item["id"]["S"]), item["reason"]["S"], attempts, buried)

    def dead_letter_count(self, since: int = 0) -> int:
        """How many there are. Reads the whole state table."""
        where = {
            "FilterExpression": "buried >= :since",
            "ExpressionAttributeValues": {":since": {"N": str(since)}},
        }
        pages = self.scan(TableName=self.state_table, ConsistentRead=True, Select="COUNT", **where)
        return sum(page["Count"] for page in pages)

    def remove_dead_letters(self, message_ids: Sequence[str]) -> int:
        """Forget these; counts what it was asked to forget, because DynamoDB does not say what it found."""
        self.delete(self.state_table, "id", [f"dead#{message_id}" for message_id in message_ids])
        return len(message_ids)

    def add_outcome_counts(self, counts: OutcomeCounts) -> None:
        dynamodb_counts.add(self, "count", counts)

    def outcome_counts(self, since: int = 0) -> dict[tuple[int, str, str], int]:
        found = dynamodb_counts.read(self, "count", since, 2)
        return {(hour, way, outcome): number for hour, (way, outcome), number in found}

    def event_counts(self, since: int = 0) -> dict[EventKey, int]:
        return {EventKey(hour, *key): number for hour, key, number in dynamodb_counts.read(self, "events", since, 3)}

    def set_event_counts(self, hour: int, counts: EventCounts) -> None:
        dynamodb_counts.replace(self, "events", hour, counts)

    def check(self) -> list[checks.CheckMessage]:
        fault = self.region_fault()
        if not fault:
            return []
        hint = "Write the option 'region', such as 'eu-central-1', or set AWS_DEFAULT_REGION where the site runs."
        return [checks.Warning(f"DynamoDBBuffer {fault}.", hint=hint, id="segment_fallback.W006")]

    def _state(self, prefix: str) -> Iterator[Item]:
        """The items of the state table whose id begins so."""
        where = {
            "FilterExpression": "begins_with(id, :prefix)",
            "ExpressionAttributeValues": {":prefix": {"S": prefix}},
        }
        for page in self.scan(TableName=self.state_table, ConsistentRead=True, **where):
            yield from page["Items"]


def _item(message: Message, now: int) -> Item:
    item: dict[str, AttributeValueTypeDef] = {
        "messageId": {"S": message.message_id},
        "body": {"S": message.body.decode()},
        "way": {"S": message.way.value},
        "created": {"N": str(now)},
    }
    if message.provisional:
        item["provisional"] = {"BOOL": True}
    if message.source != DEFAULT_SOURCE:
        item["source"] = {"S": message.source}
    if message.hold:
        item["notBefore"] = {"N": str(now + round(message.hold * 1000))}
    return item
