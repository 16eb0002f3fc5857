"""What a site of 100 million page views a day needs: ``python -m benchmarks.capacity``

Prints what the model (benchmarks/capacity_model.py) says of parts, workers, DynamoDB, Segment's limits, an outage and
dollars; each of its assumptions is an option, such as ``--share 1 --segment-limit 20000``. A simulated day is held
against the closed forms, and a small outage of one part on this machine against the model: ``--outage-of`` messages
wait in SQLite (0: none do) and are flushed while another process puts more. ``--part-rate 0`` takes what
benchmarks/dynamodb_flush.py has written as the rate of one part.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, fields
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from benchmarks.capacity_model import Site, simulate
from benchmarks.harness import Report, Result, main, number, read

PUT = 250
"""Messages of one put of the small outage."""
ARRIVING = 0.25
"""Of what the part flushes, what arrives meanwhile."""


def measure(report: Report, arguments: argparse.Namespace) -> None:
    given = {field.name: getattr(arguments, field.name) for field in fields(Site)}
    site = Site(**{**given, "part_rate": given["part_rate"] or measured_rate()})
    for line in lines(site):
        # The rows of a table are in docs/explanation/costs.md.
        (print if " | " in line else report.note)(line)
    confirm(report, site)
    if arguments.outage_of:
        small_outage(report, arguments.outage_of)


def measured_rate() -> float:
    """Events a second of one part, as the benchmark of DynamoDB has last measured it; else the model's own."""
    try:
        return next(result.theirs for result in read("dynamodb_flush").results if result.unit == "events/s")
    except (FileNotFoundError, StopIteration):
        return Site.part_rate


def lines(site: Site) -> list[str]:
    """What the model says."""
    told = [
        f"{site.views:,.0f} views a day, of which {site.share:.0%} come to the site: {site.mean:,.0f} events/s, "
        f"{site.busiest:,.0f} in the busiest minute",
        f"flush: {site.parts} parts and as many workers, of {site.part_rate:,.0f} events/s each",
        f"DynamoDB: {site.units} write units an event, {site.units_at_peak:,.0f} a second at most: "
        f"{site.partitions} partitions",
        f"Segment: {site.requests:,.1f} requests/s of {site.batch:,.0f} events; with what analytics.js sends itself "
        f"{site.busiest + site.direct:,.0f} events/s, {site.of_segment_limit:.0%} of the limit assumed "
        f"({site.segment_limit:,.0f}/s; Segment's own is about 1,000 a workspace)",
        f"{site.outage:g} hours without Segment at the busiest time: {site.backlog:,.0f} events wait, worked off in "
        f"{site.drain / 60:,.0f} minutes",
        *(f"a month: {charge.what}: {charge.dollars:,.0f} dollars" for charge in site.bill(site.events_a_month)),
        *(" | ".join(row) for row in rows(site)),
    ]
    if site.of_segment_limit > 1:
        told.append("MORE ARRIVES THAN SEGMENT TAKES: at the busiest time a backlog grows.")
    return told


def rows(site: Site) -> list[tuple[str, str, str]]:
    """What a million events cost, for a table: in words, what is billed, and dollars."""
    bill, sqs = site.bill(1e6), site.sqs(1e6)
    return [
        ("A million events", "Billed", "Dollars"),
        *((charge.what, charge.billed, f"{charge.dollars:.2f}") for charge in bill),
        ("all of it", "", f"{sum(charge.dollars for charge in bill):.2f}"),
        (f"for comparison: {sqs.what}", sqs.billed, f"{sqs.dollars:.2f}"),
    ]


def confirm(report: Report, site: Site) -> None:
    """Hold a simulated day against the closed forms, which assume the busiest minute all the time."""
    day = simulate(site)
    against = "the closed form"
    report.add(Result("simulated: backlog after the outage", against, day.backlog, site.backlog, "events", 1, True))
    if site.drain < 6 * 3_600:
        drained, most = day.drained / 60, site.drain / 60
        report.add(Result("simulated: minutes to work it off", against, drained, most, "min", 1, True))


def small_outage(report: Report, messages: int) -> None:
    """Let so many wait, flush them while more arrive, and compare the time with what the model says."""
    from django.core.management import call_command

    from benchmarks.flush import choose, fill, settings
    from benchmarks.receiver import receiver

    options = {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"}
    with tempfile.TemporaryDirectory() as folder, receiver() as segment, settings(segment):
        name = str(Path(folder) / "db.sqlite3")
        entry = {"ENGINE": "django.db.backends.sqlite3", "NAME": name, "OPTIONS": options}
        choose(entry)
        call_command("migrate", verbosity=0)
        fill(entry, messages)
        rate, _ = emptied()
        fill(entry, messages)
        started, stop, process = put_steadily(entry, rate * ARRIVING)
        started.wait(60)
        try:
            delivered_a_second, took = emptied()
        finally:
            stop.set()
            process.join(30)
        choose(entry)  # closes the connection before the file is gone
    arrived = delivered_a_second - messages / took
    predicted = messages / (rate - arrived)
    what = f"{messages:,} worked off at {number(rate)}/s while {number(arrived)}/s arrive"
    report.add(Result(what, "the model", took, predicted, "s", 1.3, at_most=True))


def emptied() -> tuple[float, float]:
    """Flush all that waits: events a second, and the seconds that it took."""
    from segment_fallback.delivery.flush import flush

    began = time.perf_counter()
    done = flush()
    if done.trouble:
        raise RuntimeError(str(done))
    took = time.perf_counter() - began
    return done.delivered / took, took


def put_steadily(entry: Mapping[str, Any], rate: float) -> tuple[Event, Event, Any]:
    """A process that puts so many messages a second; what says that it has begun, and what ends it."""
    context = multiprocessing.get_context("spawn")
    started, stop = context.Event(), context.Event()
    process = context.Process(target=put_until, args=(dict(entry), rate, started, stop), daemon=True)
    process.start()
    return started, stop, process


def put_until(entry: Mapping[str, Any], rate: float, started: Event, stop: Event) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    import django

    django.setup()
    from benchmarks.buffers import BODY
    from benchmarks.flush import choose
    from segment_fallback.buffers.database import DatabaseBuffer
    from segment_fallback.message import Message, new_message_id

    choose(entry)
    buffer = DatabaseBuffer()
    due = time.perf_counter()
    while not stop.is_set():
        buffer.put([Message(new_message_id(), BODY) for _ in range(PUT)])
        started.set()
        due += PUT / rate
        stop.wait(max(0.0, due - time.perf_counter()))


OPTIONS = {**{name: float(value) for name, value in asdict(Site()).items()}, "part_rate": 0.0, "outage_of": 100_000}

if __name__ == "__main__":
    main("capacity", "A site of 100 million page views a day", measure, **OPTIONS)
