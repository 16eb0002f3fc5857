"""How a flush from DynamoDB scales over parts, and what it costs: ``python -m benchmarks.dynamodb_flush``

The same events wait in DynamoDB Local, and are flushed to a receiver from one part by one process, and from four parts
by four processes at once, as Celery's workers are; in turn, without and with the time that a network takes:
``--latency`` milliseconds more for each answer of DynamoDB, ``--upstream`` for each of Segment. DynamoDB Local is one
process that does nearly one thing at a time, on the same processors: without latency it has next to nothing to win by
parts, and even with latency it is what limits four of them. The goals are about the figures with latency. Units are
those that DynamoDB Local says were consumed.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from benchmarks.harness import Report, Result, in_turn, main
from benchmarks.receiver import Receiver, receiver
from segment_fallback.buffers.base import now_ms
from segment_fallback.message import Message, encode, new_message_id
from tests.servers import dynamodb_local

if TYPE_CHECKING:
    from segment_fallback.buffers.dynamodb import DynamoDBBuffer
    from segment_fallback.dynamodb_client import Item

PARTS = 4
FILLERS = 4
"""Threads that put what is to be flushed."""
AT_ONCE = 500
"""Events that a filler puts before it takes further ones."""
BODY = 600
"""Characters of text in an event: with all the rest it is an item of about 850 bytes."""
SINGLY = 50
"""Events that are put one by one, for the sake of the units: DynamoDB Local does not say what joined puts consume."""


@dataclass
class Flushed:
    """What one flush by one process took: seconds of processor time, and capacity units by operation."""

    batches: int
    cpu: float
    units: Counter[str]


@dataclass
class Flushers:
    """The processes that flush a part each, started once and kept for all rounds, as a worker's are."""

    parts: int
    pipes: list[Connection] = field(default_factory=list)
    flushed: list[Flushed] = field(default_factory=list)
    """What they did in the last round."""

    def flush(self) -> float:
        """Seconds that it took until all were done."""
        started = time.perf_counter()
        for pipe in self.pipes:
            pipe.send("flush")
        self.flushed = [pipe.recv() for pipe in self.pipes]
        return time.perf_counter() - started

    def total(self, *operations: str) -> float:
        """The capacity units of these operations in the last round."""
        return sum(flushed.units[operation] for flushed in self.flushed for operation in operations)


def measure(report: Report, options: argparse.Namespace) -> None:
    os.environ.update(dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "benchmark"))
    with dynamodb_local() as url:
        table = {"endpoint_url": url, "region": "eu-central-1", "table": f"benchmark-{uuid4().hex}"}
        put = put_units(table)
        for latency, upstream in ((0.0, 0.0), (options.latency, options.upstream)):
            with (
                receiver(upstream / 1000) as segment,
                flushers(1, table, segment, latency) as one,
                flushers(PARTS, table, segment, latency) as many,
            ):
                figures = in_turn(
                    {
                        "one": lambda: events_a_second(one, table, segment, options.events),
                        "many": lambda: events_a_second(many, table, segment, options.events),
                    },
                    options.rounds,
                )
            where = f"{latency:g} ms to DynamoDB, {upstream:g} ms to Segment"
            for name, group in (("one", one), ("many", many)):
                report.note(
                    f"{where}: {group.parts} part(s), {figures[name]:,.0f} events/s; {spent(group, options.events)}"
                )
        report.add(Result(f"flush of {PARTS} parts, {where}", "1 part", figures["many"], figures["one"], "events/s", 3))
        units = put + many.total("BatchWriteItem", "UpdateItem") / options.events
        what = "write units of an event, with leases and counts"
        report.add(Result(what, "a put and a delete", units, 2, "units", 1.01, at_most=True))


def spent(group: Flushers, events: int) -> str:
    """What the last round took, in words."""
    cpu = sum(flushed.cpu for flushed in group.flushed) / events * 1e6
    batches = sum(flushed.batches for flushed in group.flushed)
    deletes, others, reads = (group.total(name) for name in ("BatchWriteItem", "UpdateItem", "Scan"))
    return (
        f"{cpu:.0f} µs of the flushers' processor time an event; {deletes / events:.3f} write units an event to delete"
        f" it, {others:.0f} for the leases and counts of {batches} batches, {reads / events:.3f} read units an event"
    )


def events_a_second(group: Flushers, table: Mapping[str, Any], segment: Receiver, events: int) -> float:
    """Fill the table, and flush it. Raises RuntimeError where not every event arrived, once."""
    fill(table, events)
    seconds = group.flush()
    segment.expect(events)
    return events / seconds


def fill(table: Mapping[str, Any], events: int) -> None:
    """Let so many events wait."""
    from segment_fallback.buffers.dynamodb import DynamoDBBuffer

    buffer = DynamoDBBuffer(**table)

    def put(number: int) -> None:
        # Not by put(): how long that takes in DynamoDB Local is no matter of a flush.
        buffer.write_batches(buffer.table, [{"PutRequest": {"Item": item(event(index))}} for index in range(number)])

    with contextlib.closing(buffer.client), ThreadPoolExecutor(FILLERS) as pool:
        list(pool.map(put, [min(AT_ONCE, events - start) for start in range(0, events, AT_ONCE)]))


def item(message: Message) -> Item:
    """The message as DynamoDBBuffer stores it."""
    return {
        "messageId": {"S": message.message_id},
        "body": {"S": message.body.decode()},
        "way": {"S": message.way.value},
        "created": {"N": str(now_ms())},
    }


def event(number: int) -> Message:
    """One of twenty kinds."""
    return encode(
        {
            "type": "track",
            "event": f"Event {number % 20}",
            "messageId": new_message_id(),
            "anonymousId": new_message_id(),
            "properties": {"text": "x" * BODY},
        }
    )


def put_units(table: Mapping[str, Any]) -> float:
    """Make the table, and find out what it takes to put an event. Leaves the table empty."""
    from segment_fallback.buffers.dynamodb import DynamoDBBuffer
    from segment_fallback.management.commands.segment_table import create

    buffer, units = DynamoDBBuffer(**table), Counter[str]()
    create(buffer)
    listen(buffer, units, 0)
    with contextlib.closing(buffer.client):
        for number in range(SINGLY):
            buffer.put([event(number)])
        buffer.discard([message.message_id for message in buffer.waiting_messages()])
    return units["PutItem"] / SINGLY


@contextlib.contextmanager
def flushers(parts: int, table: Mapping[str, Any], segment: Receiver, latency: float) -> Iterator[Flushers]:
    """A process for each part."""
    spawn = multiprocessing.get_context("spawn")
    group = Flushers(parts)
    processes = []
    for part in range(parts):
        ours, theirs = spawn.Pipe()
        arguments = (theirs, part, {**table, "parts": parts}, segment.url, latency)
        processes.append(spawn.Process(target=serve, args=arguments, daemon=True))
        processes[-1].start()
        group.pipes.append(ours)
    try:
        for pipe in group.pipes:
            pipe.recv()
        yield group
    finally:
        for pipe in group.pipes:
            pipe.close()
        for process in processes:
            process.join(30)


def serve(pipe: Connection, part: int, table: Mapping[str, Any], segment: str, latency: float) -> None:
    """Flush the part whenever the pipe says so. What a process of its own runs."""
    import django
    from django.conf import settings

    django.setup()
    settings.SEGMENT_FALLBACK = {
        **settings.SEGMENT_FALLBACK,
        "BUFFERS": {"default": {"BACKEND": "segment_fallback.buffers.dynamodb.DynamoDBBuffer", "OPTIONS": table}},
        "API_HOST": segment,
        "FLUSH_BUDGET": 600,
    }
    from segment_fallback.buffers import buffers
    from segment_fallback.delivery.flush import flush

    units: Counter[str] = Counter()
    listen(buffers["default"], units, latency)  # type: ignore[arg-type]
    flush(["default"], parts=[part])  # connects
    pipe.send("ready")
    with contextlib.suppress(EOFError):
        while pipe.recv():
            units.clear()
            cpu = time.process_time()
            done = flush(["default"], parts=[part])
            pipe.send(Flushed(done.batches, time.process_time() - cpu, units))


def listen(buffer: DynamoDBBuffer, units: Counter[str], latency: float) -> None:
    """Let answers take so many milliseconds longer, and add up the units that they say were consumed, by operation."""
    events: Any = buffer.client.meta.events

    def ask(params: dict[str, Any], **kwargs: Any) -> None:
        params["ReturnConsumedCapacity"] = "TOTAL"

    def note(parsed: Mapping[str, Any], model: Any, **kwargs: Any) -> None:
        used = parsed["ConsumedCapacity"]
        units[model.name] += sum(table["CapacityUnits"] for table in (used if isinstance(used, list) else [used]))

    for operation in ("PutItem", "UpdateItem", "BatchWriteItem", "Scan"):
        events.register(f"before-parameter-build.dynamodb.{operation}", ask)
        events.register(f"after-call.dynamodb.{operation}", note)
    if latency:
        events.register("before-send.dynamodb", lambda **kwargs: time.sleep(latency / 1000))


if __name__ == "__main__":
    main(
        "dynamodb_flush",
        "A flush from DynamoDB Local",
        measure,
        rounds=3,
        events=12_000,
        latency=10.0,
        upstream=50.0,
    )
