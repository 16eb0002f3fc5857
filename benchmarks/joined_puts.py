"""What joining concurrent puts gains on DynamoDB: ``python -m benchmarks.joined_puts``

Threads put one message each, as fast as they can, joined as DynamoDBBuffer does it and with one conditional PutItem
a message, in turn, so that what else the machine does falls on both. Medians: events a second, milliseconds of this
process's processor time an event, and milliseconds a put takes. DynamoDB Local answers at once, one request after
another, from the same processors; ``--latency`` adds milliseconds to each answer, as a network does. ``--no-store``
answers in its place, so that nothing but our own work is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import os
import statistics
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any
from uuid import uuid4

import django
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders

from segment_fallback.buffers.dynamodb import DynamoDBBuffer
from segment_fallback.message import Message, new_message_id

BODY = b'{"type":"page","properties":{"title":"' + b"x" * 700 + b'"}}'


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--threads", type=int, nargs="+", default=[1, 4, 16])
    options.add_argument("--latency", type=float, nargs="+", default=[0.0, 5.0], help="milliseconds")
    options.add_argument("--no-store", action="store_true")
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--seconds", type=float, default=1.0, help="of each round")
    arguments = options.parse_args()
    print(f"{'latency':>9}{'threads':>9}{'':8}{'events/s':>10}{'CPU ms':>9}{'put ms':>9}{'ratio of events/s':>20}")
    with store(arguments.no_store) as url:
        for latency in arguments.latency:
            buffers = {"single": make(url, latency), "joined": make(url, latency)}
            buffers["single"]._singly_until = math.inf
            if not arguments.no_store:
                create(buffers.values())
            for threads in arguments.threads:
                rounds: dict[str, list[tuple[float, float, float]]] = {name: [] for name in buffers}
                for number in range(arguments.rounds + 1):
                    for name, buffer in buffers.items():
                        figures = measure(buffer, threads, arguments.seconds)
                        if number:  # the first one warms up
                            rounds[name].append(figures)
                medians = {name: [statistics.median(f) for f in zip(*rounds[name], strict=True)] for name in buffers}
                for name, (events, cpu, put) in medians.items():
                    ratio = f"{events / medians['single'][0]:20.2f}" if name == "joined" else ""
                    print(f"{latency:9.1f}{threads:9}  {name}{events:10,.0f}{cpu:9.2f}{put:9.2f}{ratio}", flush=True)


@contextlib.contextmanager
def store(none: bool) -> Iterator[str | None]:
    """The URL of DynamoDB Local."""
    from tests.servers import dynamodb_local

    if none:
        yield None
    else:
        with dynamodb_local() as url:
            yield url


def make(url: str | None, latency: float) -> DynamoDBBuffer:
    """A buffer whose answers take so many milliseconds longer; without URL they come from here."""
    buffer = DynamoDBBuffer(
        table=f"benchmark-{uuid4().hex}",
        region="eu-central-1",
        endpoint_url=url or "http://127.0.0.1:1",
        client={"aws_access_key_id": "none", "aws_secret_access_key": "none"},
    )

    def answer(request: Any, **kwargs: Any) -> AWSResponse | None:
        if latency:
            time.sleep(latency / 1000)
        if url:
            return None
        done = b",".join([b"{}"] * request.body.count(b'"Statement":'))
        body = b'{"Responses":[%s]}' % done if done else b"{}"
        return AWSResponse(request.url, 200, HTTPHeaders(), Raw(body))

    events: Any = buffer.client.meta.events
    events.register("before-send.dynamodb", answer)
    buffer._joins = True if url is None else None
    return buffer


class Raw(io.BytesIO):
    """A body as urllib3 would give it."""

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[bytes]:
        yield self.read()


def create(buffers: Iterable[DynamoDBBuffer]) -> None:
    from segment_fallback.management.commands.segment_table import create as create_tables

    for buffer in buffers:
        create_tables(buffer)


def measure(buffer: DynamoDBBuffer, threads: int, seconds: float) -> tuple[float, float, float]:
    """Events a second, milliseconds of processor time an event, and the median of the milliseconds a put took."""
    times: list[float] = []
    stop = time.perf_counter() + seconds

    def work() -> None:
        while (started := time.perf_counter()) < stop:
            buffer.put([Message(new_message_id(), BODY)])
            times.append((time.perf_counter() - started) * 1000)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    started, cpu = time.perf_counter(), time.process_time()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    elapsed, used = time.perf_counter() - started, time.process_time() - cpu
    return len(times) / elapsed, used / len(times) * 1000, statistics.median(times)


if __name__ == "__main__":
    main()
