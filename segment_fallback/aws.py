"""The handler of a scheduled Lambda that flushes, ``segment_fallback.aws.flush_handler``: see docs/how-to/deploying.md.

It needs nothing of AWS's: its metrics are a line that it prints, of which CloudWatch makes metrics by itself (the
embedded metric format), so that they cost no call and no permission.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Protocol

import django
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import close_old_connections

from segment_fallback.buffers import buffers
from segment_fallback.buffers.base import now_ms
from segment_fallback.conf import get_settings
from segment_fallback.counting import write_all
from segment_fallback.delivery import archiving
from segment_fallback.delivery.flush import flush
from segment_fallback.delivery.report import Report
from segment_fallback.exceptions import BufferUnavailable
from segment_fallback.status import BufferStatus, Status, read_status

NAMESPACE = "SegmentFallback"
"""Of the metrics. Their one dimension is ``FunctionName``."""

SETTLING = 5.0
"""Seconds in which what was sent is acknowledged, counted and measured."""


class Context(Protocol):
    """What Lambda tells a handler about its invocation, as far as it is used here."""

    @property
    def function_name(self) -> str: ...

    def get_remaining_time_in_millis(self) -> int: ...


def flush_handler(event: object, context: Context) -> dict[str, Any]:
    """Flush every buffer for as long as the function's timeout allows, and say what was done, as ``Report`` does.

    ``event``: of a schedule, or ``{"buffer": alias, "parts": [0, 1]}`` for less. Many may run at once: each part has
    one flusher. One that runs into its timeout all the same loses nothing; its lease ends by itself.

    Passing trouble is logged, and in the answer. Raises, so that Lambda counts an error, where no buffer answers
    (BufferUnavailable), where the settings or the timeout are wrong, or where Segment does not know the write key and
    nothing was delivered (ImproperlyConfigured), and for an event that names what is not there (ValueError).
    """
    if not apps.ready:
        django.setup()
    aliases, parts = _asked(event)
    if not get_settings().sources:
        raise ImproperlyConfigured("SEGMENT_FALLBACK['WRITE_KEY'] is not set, and SOURCES has none either")
    budget = _budget(context.get_remaining_time_in_millis() / 1000)
    close_old_connections()  # the last invocation's may have been cut while the process was frozen
    try:
        report = flush(aliases, parts=parts, budget=budget)
        status = read_status(counting=False)
        if parts is None and not (report.trouble or report.busy or report.unfinished):
            status = replace(status, buffers=[_counted(buffer) for buffer in status.buffers])
        sys.stdout.write(_embedded(_measures(report, status), context.function_name) + "\n")
        sys.stdout.flush()
        if all(buffer.error for buffer in status.buffers):
            raise BufferUnavailable("; ".join(buffer.error for buffer in status.buffers))
        if report.misconfigured and not report.delivered:
            raise ImproperlyConfigured(report.trouble)
        return asdict(report)
    finally:
        write_all()  # its timer would not run while the process is frozen
        close_old_connections()


def margin() -> float:
    """Seconds at the end of an invocation in which no further batch is started."""
    settings = get_settings()
    seconds = 2 * settings.SEND_TIMEOUT + SETTLING
    if settings.ARCHIVE:
        seconds += archiving.PATIENCE + archiving.ASIDE_PATIENCE + archiving.LAST_WAIT
    return seconds


def _budget(remaining: float) -> float:
    """The seconds in which batches may be started. Raises ImproperlyConfigured where there are none to speak of."""
    budget = remaining - margin()
    if budget < 1:
        raise ImproperlyConfigured(
            f"{remaining:.0f} s are left of the function's timeout, and a batch may take {margin():.0f} s: give the "
            "function a longer timeout (120 s are enough by default), or lower SEND_TIMEOUT"
        )
    return budget


def _asked(event: object) -> tuple[list[str] | None, list[int] | None]:
    """The buffer and the parts that the event names; None is all. Raises ValueError."""
    wanted = event if isinstance(event, Mapping) else {}
    alias, parts = wanted.get("buffer"), wanted.get("parts")
    if alias is None and parts is None:
        return None, None
    alias = "default" if alias is None else alias
    if alias not in list(buffers):
        raise ValueError(f"the event names the buffer {str(alias)[:100]!r}; BUFFERS has {', '.join(buffers)}")
    last = buffers[alias].parts - 1
    numbers = parts if isinstance(parts, list) else [None]
    if parts is not None and not all(type(number) is int and 0 <= number <= last for number in numbers):
        raise ValueError(f"the event's parts must be a list of whole numbers from 0 to {last}")
    return [alias], parts


def _counted(buffer: BufferStatus) -> BufferStatus:
    """The same with what only the read of a table tells: little, after a flush that got through."""
    if buffer.counted or buffer.error:
        return buffer
    try:
        table = buffers[buffer.alias]
        return replace(buffer, waiting=table.depth(), oldest=table.oldest(), counted=True)
    except BufferUnavailable:
        return buffer  # throttled: the next one will tell


def _measures(report: Report, status: Status) -> dict[str, float]:
    """What CloudWatch hears. Of what waits nothing, where that was not counted and no part fails."""
    measures: dict[str, float] = {
        "Delivered": report.delivered,
        "DeadLetters": report.buried,
        "Unarchived": report.unarchived,
    }
    if all(buffer.counted for buffer in status.buffers):
        return {**measures, "OldestMessageAge": status.age, "Waiting": status.waiting}
    vain = max(buffer.undelivered(status.at) for buffer in status.buffers)
    return {**measures, "OldestMessageAge": vain} if vain else measures


def _embedded(measures: Mapping[str, float], function: str) -> str:
    """The line, in CloudWatch's embedded metric format."""
    metrics = [{"Name": name, "Unit": "Seconds" if name == "OldestMessageAge" else "Count"} for name in measures]
    directive = {"Namespace": NAMESPACE, "Dimensions": [["FunctionName"]], "Metrics": metrics}
    about = {"Timestamp": now_ms(), "CloudWatchMetrics": [directive]}
    return json.dumps({"_aws": about, "FunctionName": function, **measures})
