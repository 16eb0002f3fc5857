"""Metrics for Prometheus, read from the buffers: the same from whichever process is asked, and without files.

Mount ``metrics.view``, or ``register()`` the collector where a site has metrics already, as by django-prometheus.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

try:
    from prometheus_client import REGISTRY, CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.registry import Collector
except ImportError as error:
    from segment_fallback.exceptions import MissingExtra

    raise MissingExtra("segment_fallback.metrics", "prometheus") from error

from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from segment_fallback.buffers import buffers
from segment_fallback.conf import DAY
from segment_fallback.status import Ailment, Status, cheap, full

GAUGES: dict[str, tuple[str, list[str]]] = {
    "up": ("Whether the status of the pipeline could be read.", []),
    "buffer_up": ("Whether the buffer answers.", ["buffer"]),
    "waiting_messages": ("Messages that wait in the buffer.", ["buffer"]),
    "oldest_message_age_seconds": ("How long the oldest of them has waited; 0 where none waits.", ["buffer"]),
    "dead_letters": ("Messages that were given up, and that nobody has dealt with.", ["buffer"]),
    "last_flush_timestamp_seconds": ("When a flush was last seen to end; 0 is never.", ["buffer"]),
    "part_failures": ("Flushes of the part that have failed since it last delivered.", ["buffer", "part"]),
    "spool_files": ("Files that wait in the spool.", []),
    "spool_bytes": ("Their size.", []),
    "unarchived_messages": ("Delivered messages that the archive lacks.", []),
    "problem": ("1 for each problem that the health endpoint would name.", ["problem"]),
}
COUNTERS: dict[str, tuple[str, list[str]]] = {
    "hits": ("Hits since midnight UTC, by how they came and how they ended.", ["way", "outcome"]),
    "delivered_messages": ("Messages accepted since midnight UTC, and delivered.", ["way", "type"]),
}
"""Counts are kept by the hour and for 400 days: a sum of all of them would be dear, and would fall when an hour is
forgotten. So they begin anew each day. To Prometheus that is a counter whose process was restarted."""

Samples = dict[tuple[str, ...], float]


class SegmentCollector(Collector):
    """Asks the buffers when it is asked. ``counting``: also for what costs money to count, see ``read_status``."""

    def __init__(self, *, counting: bool = False) -> None:
        self._look = full if counting else cheap

    def describe(self) -> Iterator[Metric]:
        """The metrics without values, so that to register this asks no database."""
        for name in GAUGES:
            yield _gauge(name, {})
        for name in COUNTERS:
            yield _counter(name, {}, 0)

    def collect(self) -> Iterator[Metric]:
        """The metrics. Never raises: what does not answer is left out."""
        status = self._look.status()
        gauges: dict[str, Samples] = {"up": {(): status is not None}}
        if status is not None:
            gauges |= _of_pipeline(status) | _of_buffers(status)
        for name, samples in gauges.items():
            yield _gauge(name, samples)
        midnight = int(time.time()) // DAY * DAY
        for name, count in (("hits", _hits), ("delivered_messages", _delivered)):
            try:
                samples = count(midnight)
            except Exception:  # noqa: BLE001, S112 - buffer_up says it; a site's other metrics must not suffer
                continue
            yield _counter(name, samples, midnight)


def _of_pipeline(status: Status) -> dict[str, Samples]:
    found = {problem.ailment for problem in status.problems}
    gauges: dict[str, Samples] = {"problem": {(ailment.value,): ailment in found for ailment in Ailment}}
    if not any(buffer.error for buffer in status.buffers):
        gauges["unarchived_messages"] = {(): status.unarchived}
    if not status.spool.error:
        gauges |= {"spool_files": {(): status.spool.files}, "spool_bytes": {(): status.spool.bytes}}
    return gauges


def _of_buffers(status: Status) -> dict[str, Samples]:
    up = [buffer for buffer in status.buffers if not buffer.error]
    counted = [buffer for buffer in up if buffer.counted]
    age = {b.alias: 0 if b.oldest is None else max(status.at - b.oldest, 0) / 1000 for b in counted}
    parts = {(b.alias, str(state.part)): state.failures for b in up for state in b.leases if state.part >= 0}
    return {
        "buffer_up": {(buffer.alias,): not buffer.error for buffer in status.buffers},
        "waiting_messages": {(buffer.alias,): buffer.waiting for buffer in counted},
        "oldest_message_age_seconds": {(alias,): seconds for alias, seconds in age.items()},
        "dead_letters": {(buffer.alias,): buffer.dead_letters for buffer in counted},
        "last_flush_timestamp_seconds": {(buffer.alias,): buffer.flushed / 1000 for buffer in up},
        "part_failures": {part: float(failures) for part, failures in parts.items()},
    }


def _hits(since: int) -> Samples:
    counts: Counter[tuple[str, ...]] = Counter()
    for (_, way, outcome), number in buffers["default"].outcome_counts(since).items():
        counts[way, outcome] += number
    return dict(counts)


def _delivered(since: int) -> Samples:
    """Without the events' names: those are a visitor's to choose, and a label for each would fill Prometheus."""
    counts: Counter[tuple[str, ...]] = Counter()
    for alias in buffers:
        for (_, way, kind), number in buffers[alias].way_counts(since, DAY).items():
            counts[way, kind] += number
    return dict(counts)


def _gauge(name: str, samples: Samples) -> Metric:
    text, labels = GAUGES[name]
    metric = GaugeMetricFamily(f"segment_fallback_{name}", text, labels=labels)
    for values, number in samples.items():
        metric.add_metric(values, number)
    return metric


def _counter(name: str, samples: Samples, created: int) -> Metric:
    text, labels = COUNTERS[name]
    metric = CounterMetricFamily(f"segment_fallback_{name}", text, labels=labels)
    for values, number in samples.items():
        metric.add_metric(values, number, created=created)
    return metric


def register(registry: CollectorRegistry = REGISTRY, *, counting: bool = False) -> None:
    """Add our metrics to a registry, by default the process's own: once, as in an app's ``ready()``."""
    registry.register(SegmentCollector(counting=counting))


# No transaction: where the database is down, none could begin.
@transaction.non_atomic_requests
@require_safe
def view(request: HttpRequest, *, counting: bool = False) -> HttpResponse:
    """Our metrics and nothing else, in the format that Prometheus asks for. For paths that no stranger can ask for."""
    registry = CollectorRegistry()
    registry.register(SegmentCollector(counting=counting))
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return HttpResponse(encode(registry), content_type=content_type, headers={"Cache-Control": "no-store"})
