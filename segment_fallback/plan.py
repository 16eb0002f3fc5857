"""A tracking plan: which track calls there may be, and what their properties are.

Declared in each app's ``segment_plan.py``, which is imported when the first message is made::

    @planned("Order Completed")
    @dataclass
    class OrderCompleted:
        order_id: str
        total: float
        coupon: str | None = None

or with a TypedDict, or ``planned("Order Completed", schema={…})``. What it declares is a JSON Schema, of which
``segment_fallback.plan_schema`` checks a part. Without declarations nothing is checked, seen or written.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from django.db import router, transaction
from django.db.models import F
from django.utils.module_loading import autodiscover_modules

from segment_fallback.buffers import buffers
from segment_fallback.buffers.base import now_ms
from segment_fallback.conf import get_settings, is_loud
from segment_fallback.counting import Counting, of_the_process
from segment_fallback.exceptions import PlanViolation
from segment_fallback.log import log_fields
from segment_fallback.message import Message, normalise
from segment_fallback.plan_schema import check_schema, schema_of, validate
from segment_fallback.signals import buried, tell

logger = logging.getLogger("segment_fallback")

Declaration = TypeVar("Declaration", bound=type)

MODULE = "segment_plan"

MAX_NAMES = 500
"""Names that the table of seen events holds beside those that are declared: whoever puts an id into an event's name
must not fill a database."""
OTHERS = "(others)"

MAX_TOLD = 10
"""Violations of one message that are put into words."""


class Plan:
    """What is declared in this process."""

    def __init__(self) -> None:
        self._schemas: dict[str, Mapping[str, Any]] = {}
        self._lock = threading.RLock()
        self._discovered = self._discovering = False

    def declare(self, event: str, schema: Mapping[str, Any]) -> None:
        check_schema(schema)
        if self._schemas.get(event, schema) != schema:
            raise ValueError(f"the plan has {event!r} already, with other properties")
        self._schemas[event] = schema

    @property
    def schemas(self) -> Mapping[str, Mapping[str, Any]]:
        """The JSON Schema of each event's properties. Imports each app's ``segment_plan``, once a process."""
        if not self._discovered:
            with self._lock:
                if not self._discovering:
                    self._discovering = True
                    try:
                        autodiscover_modules(MODULE)
                    except Exception:
                        if is_loud():
                            raise
                        extra = log_fields("plan_unimportable")
                        logger.exception(
                            "the tracking plan could not be imported; what there is of it is in force", extra=extra
                        )
                    finally:
                        self._discovering = False
                    self._discovered = True
        return self._schemas


plan = Plan()


def planned(event: str, *, schema: Mapping[str, Any] | None = None) -> Callable[[Declaration], Declaration]:
    """Declare an event: decorates a dataclass or TypedDict of its properties; or called with a ``schema``, a JSON
    Schema of them. Raises TypeError for a type or a keyword that is not understood."""
    if schema is not None:
        plan.declare(event, schema)

    def declare(declaration: Declaration) -> Declaration:
        if schema is not None:
            raise TypeError("a schema was given already")
        plan.declare(event, schema_of(declaration))
        return declaration

    return declare


def check(event: str, properties: Mapping[str, Any]) -> list[str]:
    """What is wrong with an event's properties, in words, without their values; nothing for an undeclared event.

    They may be as the caller gave them, or as JSON has them. Raises InvalidMessage for what has no form in JSON.
    """
    schema = plan.schemas.get(event)
    return [] if schema is None else validate(normalise(properties), schema, "properties")


def blocks(message: Mapping[str, Any], encoded: Message, *, by_browser: bool = False, keep: bool = True) -> bool:
    """Hold a message, about to be kept as ``encoded``, against the plan: whether it must not go.

    Counts what it sees. A violation raises PlanViolation in development (``conf.is_loud``), unless a browser sent the
    message: whoever made the mistake would not see it. Else it is counted and logged; with PLAN_BLOCK the message is a
    dead letter when this returns True. Without ``keep`` nothing is counted or kept. Raises BufferUnavailable.
    """
    if message.get("type") != "track" or not plan.schemas:
        return False
    event = str(message.get("event"))
    found = check(event, message.get("properties") or {})
    if keep:
        seen.add(event, found)
    if not found:
        return False
    text = f"{_cut(event, 100)!r} is not as planned: {_told(found)}"
    if is_loud() and not by_browser:
        raise PlanViolation(text)
    logger.warning("%s", text, extra=log_fields("unplanned", name=_cut(event, 100), reason=_told(found)))
    if get_settings().PLAN_BLOCK:
        reason = f"plan: {_told(found)}"
        if keep:
            buffers["default"].bury([encoded], reason)
            tell(buried, Message, source=encoded.source, messages=[encoded], reason=reason)
        return True
    return False


def _told(violations: Sequence[str]) -> str:
    """The violations in one line. Names of properties may be a stranger's: of any length, and with line breaks."""
    told = [_cut(violation, 200) for violation in violations[:MAX_TOLD]]
    return "; ".join(told + ["and more"] * (len(violations) > MAX_TOLD))


def _cut(text: str, length: int) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:length])


@dataclass
class Sighting:
    """How often an event was seen and how often not as planned, and what was wrong the last time."""

    count: int = 0
    violations: int = 0
    last_violation: str = ""

    def add(self, other: Sighting) -> None:
        self.count += other.count
        self.violations += other.violations
        self.last_violation = other.last_violation or self.last_violation


Sightings = dict[str, Sighting]
"""By the name of the event."""


class Seen(Counting[Sightings]):
    """What this process has seen and not written yet."""

    event = "unseen"
    trouble = "%d messages could not be noted as seen yet"

    def add(self, event: str, violations: list[str]) -> None:
        """Count a message. Never raises."""
        name, told = _cut(event, 100), _told(violations).encode("ascii", "replace").decode()[:200]

        def note(pending: Sightings) -> None:
            is_known = name in pending or name in plan.schemas or len(pending) < MAX_NAMES
            pending.setdefault(name if is_known else OTHERS, Sighting()).add(Sighting(1, bool(violations), told))

        self.change(note)

    def none(self) -> Sightings:
        return {}

    def store(self, counts: Sightings) -> None:
        _add_seen(counts)

    def merge(self, older: Sightings, newer: Sightings) -> Sightings:
        for name, sighting in newer.items():
            older.setdefault(name, Sighting()).add(sighting)
        return older

    def number(self, counts: Sightings) -> int:
        return sum(sighting.count for sighting in counts.values())


def _add_seen(sightings: Sightings) -> None:
    # They need the apps, which settings that hold a site's URLs, too, are loaded before.
    from segment_fallback.buffers.database import DatabaseBuffer
    from segment_fallback.models import SeenEvent

    database = router.db_for_write(SeenEvent)
    rows = SeenEvent.objects.using(database)

    def add() -> None:
        with transaction.atomic(using=database):
            # Sorted: two processes that change the same rows in different orders would wait for each other.
            for name, sighting in sorted(sightings.items()):
                changes: dict[str, Any] = {"count": F("count") + sighting.count, "last_seen": now_ms()}
                if violations := sighting.violations:
                    changes |= {"violations": F("violations") + violations, "last_violation": sighting.last_violation}
                if rows.filter(name=name).update(**changes):
                    continue
                kept = name if name in plan.schemas or rows.count() < MAX_NAMES else OTHERS
                rows.get_or_create(name=kept)
                rows.filter(name=kept).update(**changes)

    DatabaseBuffer(using=database).run(add)


seen = of_the_process(Seen())
