"""What the live page shows: the events at the local Segment, what waits in the buffer, how hits ended."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any

import requests

from example_project.settings import LOCAL_SEGMENT
from segment_fallback.buffers import buffers
from segment_fallback.outcome import Outcome

MEANINGS = {outcome.value: outcome.explanation for outcome in Outcome}
WAYS = {"javascript": "JavaScript", "pixel": "pixel", "noscript": "noscript", "server": "server"}
SHOWN = 40


def look() -> dict[str, Any]:
    """All of it as plain data, for the template and as JSON. ``segment`` is false where it does not answer."""
    try:
        answer = requests.get(f"{LOCAL_SEGMENT}/_local/messages", timeout=2)
        messages, answered = answer.json()["messages"], True
    except requests.RequestException:
        messages, answered = [], False
    events = one_event_each(messages)
    by_way = Counter(event["way"] for event in events)
    return {
        "segment": answered,
        "total": len(events),
        "by_way": [{"way": way, "label": label, "count": by_way[way]} for way, label in WAYS.items()],
        "events": events[:SHOWN],
        "waiting": buffers["default"].depth(),
        "outcomes": outcomes(),
    }


def one_event_each(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """An event for each messageId, newest first. Segment keeps the first that arrives, and drops the others."""
    events: dict[str, dict[str, Any]] = {}
    for received in messages:
        message, way = received["message"], received["way"]
        key = str(message.get("messageId"))
        if key in events:
            events[key]["again"].append({"way": way, "label": WAYS.get(way, way)})
            continue
        page = message.get("context", {}).get("page", {})
        events[key] = {
            "received_at": received["received_at"],
            "time": datetime.fromisoformat(received["received_at"]).strftime("%H:%M:%S UTC"),
            "type": received["type"],
            "name": " · ".join(filter(None, [message.get("category"), message.get("event") or message.get("name")])),
            "path": f"{page.get('path', '')}{page.get('search', '')}",
            "way": way,
            "label": WAYS.get(way, way),
            "again": [],
            "messageId": key,
            "anonymousId": message.get("anonymousId") or "",
        }
    return list(events.values())[::-1]


def outcomes() -> list[dict[str, Any]]:
    """How hits ended at the site's own pixel, over all hours."""
    totals: Counter[tuple[str, str]] = Counter()
    for (_hour, way, outcome), count in buffers["default"].outcome_counts().items():
        totals[way, outcome] += count
    return [
        {"way": way, "label": WAYS.get(way, way), "outcome": word, "count": count, "meaning": MEANINGS.get(word, "")}
        for (way, word), count in sorted(totals.items())
    ]
