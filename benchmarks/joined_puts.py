"""What joining concurrent puts gains on DynamoDB: ``python -m benchmarks.joined_puts``

Threads put one message each, as fast as they can, joined as DynamoDBBuffer does it and with one conditional PutItem
a message, in turn. DynamoDB Local answers at once, from the same processors; ``--latency`` adds milliseconds to each
answer, as a network does. Last, answers come from the process itself, so that nothing but our own work is measured.
What a whole request gains is in ``benchmarks.durable``.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import math
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from benchmarks.harness import Report, Result, in_turn, main
from segment_fallback.buffers.dynamodb import DynamoDBBuffer
from segment_fallback.message import Message, new_message_id

BODY = b'{"type":"page","properties":{"title":"' + b"x" * 700 + b'"}}'
THREADS = (4, 16)
JOINED = 8
"""Messages of a write whose own work is measured; half of the 16 threads wait while the others' are written."""
WRITES = 100


def measure(report: Report, options: argparse.Namespace) -> None:
    for latency in (0.0, options.latency):
        with buffers(latency) as ways:
            for threads in THREADS:
                figures = compare(report, ways, threads, options, f"{latency:g} ms of latency")
                report.note(f"{threads} threads, {latency:g} ms of latency: {figures}")
    ways = {name: make(None, 0.0) for name in ("single", "joined")}
    ways["single"]._singly_until, ways["joined"]._joins = math.inf, True
    costs = in_turn({name: functools.partial(cost, buffer) for name, buffer in ways.items()}, options.rounds)
    what = f"our own work for a put, {JOINED} joined"
    report.add(Result(what, "one PutItem each", costs["joined"], costs["single"], "µs", goal=0.25, at_most=True))


def compare(
    report: Report, ways: dict[str, DynamoDBBuffer], threads: int, options: argparse.Namespace, where: str
) -> str:
    """Report how many puts a second there are; say how long one takes."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    figures = in_turn(
        {name: functools.partial(rate, ways[name], threads, options.seconds, times[name]) for name in ways},
        options.rounds,
    )
    what = f"{threads} threads' puts, joined, {where}"
    if threads == THREADS[-1]:
        report.add(Result(what, "one PutItem each", figures["joined"], figures["single"], "puts/s", goal=1))
    else:
        report.note(f"{what}: {figures['joined']:,.0f} puts/s, one PutItem each {figures['single']:,.0f} puts/s")
    return ", ".join(f"{name} a put takes {statistics.median(times[name]):.3g} ms" for name in ways)


@contextlib.contextmanager
def buffers(latency: float) -> Iterator[dict[str, DynamoDBBuffer]]:
    """Both ways to put, each with tables of its own in one DynamoDB Local."""
    from segment_fallback.management.commands.segment_table import create
    from tests.servers import dynamodb_local

    with dynamodb_local() as url:
        ways = {"single": make(url, latency), "joined": make(url, latency)}
        ways["single"]._singly_until = math.inf
        for buffer in ways.values():
            create(buffer)
        yield ways


def make(url: str | None, latency: float) -> DynamoDBBuffer:
    """A buffer whose answers take so many milliseconds longer; without URL they come from here."""
    buffer = DynamoDBBuffer(
        table=f"benchmark-{uuid4().hex}",
        region="eu-central-1",
        endpoint_url=url or "http://127.0.0.1:1",
        client={"aws_access_key_id": "none", "aws_secret_access_key": "none"},
    )
    events: Any = buffer.client.meta.events
    events.register("before-send.dynamodb", functools.partial(answer, url is None, latency))
    return buffer


def answer(here: bool, latency: float, request: Any, **kwargs: Any) -> Any:
    """What botocore is to take for the answer; None where it is to ask."""
    from botocore.awsrequest import AWSResponse
    from botocore.compat import HTTPHeaders

    if latency:
        time.sleep(latency / 1000)
    if not here:
        return None
    done = b",".join([b"{}"] * request.body.count(b'"Statement":'))
    body = b'{"Responses":[%s]}' % done if done else b"{}"
    return AWSResponse(request.url, 200, HTTPHeaders(), Raw(body))


class Raw(io.BytesIO):
    """A body as urllib3 would give it."""

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[bytes]:
        yield self.read()


def rate(buffer: DynamoDBBuffer, threads: int, seconds: float, times: list[float]) -> float:
    """Puts a second. ``times`` gets the milliseconds that each took."""
    taken = puts(buffer, threads, seconds)
    times += taken
    return len(taken) / seconds


def cost(buffer: DynamoDBBuffer) -> float:
    """Microseconds of this process's processor time a message."""
    before = time.process_time()
    for _ in range(WRITES):
        buffer.write([Message(new_message_id(), BODY) for _ in range(JOINED)])
    return (time.process_time() - before) / WRITES / JOINED * 1e6


def puts(buffer: DynamoDBBuffer, threads: int, seconds: float) -> list[float]:
    """The milliseconds that each took of the puts that so many threads did in the time."""
    times: list[float] = []
    stop = time.perf_counter() + seconds

    def work() -> None:
        while (started := time.perf_counter()) < stop:
            buffer.put([Message(new_message_id(), BODY)])
            times.append((time.perf_counter() - started) * 1000)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return times


if __name__ == "__main__":
    main("joined_puts", "Joined puts to DynamoDB", measure, rounds=3, seconds=1.0, latency=5.0)
