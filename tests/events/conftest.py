"""Handlers and declarations of one test each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from segment_fallback.events.handlers import registry
from segment_fallback.models import PendingEvent, WaitingMessage
from segment_fallback.plan import plan, seen


@pytest.fixture(autouse=True)
def process_without_handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers or declares is its own."""
    monkeypatch.setattr(registry, "_handlers", {})
    monkeypatch.setattr(registry, "_discovered", True)
    monkeypatch.setattr(plan, "_schemas", {})
    monkeypatch.setattr(plan, "_discovered", True)
    yield
    seen.forget()


def sent() -> list[dict[str, Any]]:
    """The messages that wait for Segment."""
    return [json.loads(bytes(row.body)) for row in WaitingMessage.objects.order_by("id")]


def waiting() -> PendingEvent:
    """The one event that waits, or failed."""
    row: PendingEvent = PendingEvent.objects.get()
    return row


def make_due() -> None:
    """As if the time of every back-off had come."""
    for row in PendingEvent.objects.all():
        progress = json.loads(row.progress)
        for entry in progress.values():
            if "next" in entry:
                entry["next"] = 0
        PendingEvent.objects.filter(pk=row.pk).update(next_try=0, progress=json.dumps(progress))
